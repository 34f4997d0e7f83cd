//! The service of `avouch run`: one stream for each run, and who the caller is.
//!
//! Speaks gRPC and nothing else: what a run is and what it may do is asked of [`crate::runs`].

use std::collections::BTreeMap;
use std::sync::Arc;

use avouch_attestors::process::Look;
use avouch_domain::{CallResult, SpiffeId};
use avouch_proto::run_v1 as wire;
use avouch_proto::run_v1::hold_request::Step as Said;
use avouch_proto::run_v1::hold_response::Step as Say;
use avouch_proto::run_v1::run_server::Run;
use avouch_proto::run_v1::value::Kind;
use avouch_rules::Param;
use tokio::sync::mpsc::{self, Sender};
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::asks::{Answers, Asks};
use super::status::Refusal;
use super::steps::to_its_end;
use super::{Stop, gates};
use crate::limits::{ANSWERS_WAITING, BEGIN_TIME, HTTP_STATUS_MAX, REFUSALS_MAX, TASK_TOOLS_MAX};
use crate::peer::Caller;
use crate::rules::Held;
use crate::runs::{
    Answer, BeginError, Did, Membership, NoReceipt, NoRun, Question, Running, Runs, Secret, TokenError,
    Wanted,
};
use crate::upstream::CallError;

/// See the module.
pub struct RunApi {
    pub runs: Runs,
    /// Turns true when the agent knows what may run here.
    pub ready: watch::Receiver<bool>,
    pub stop: Stop,
}

impl std::fmt::Debug for RunApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunApi")
    }
}

type Replies = Sender<Result<wire::HoldResponse, Status>>;

pub(super) fn caller_of<T>(request: &Request<T>) -> Result<Arc<Caller>, Status> {
    request.extensions().get::<Arc<Caller>>().cloned().ok_or_else(|| Refusal::AttestationFailed.into())
}

#[tonic::async_trait]
impl Run for RunApi {
    type HoldStream = ReceiverStream<Result<wire::HoldResponse, Status>>;
    type AsksStream = Answers;

    async fn who_am_i(
        &self,
        request: Request<wire::WhoAmIRequest>,
    ) -> Result<Response<wire::WhoAmIResponse>, Status> {
        let caller = caller_of(&request)?;
        if !*self.ready.borrow() {
            return Err(Refusal::NotSynced.into());
        }
        let process = caller.process().map_err(|_| Refusal::ProcessChanged)?;
        let membership = self.runs.membership(&caller, &process).map_err(|_| Refusal::AttestationFailed)?;
        let identity = match membership {
            Membership::Of(_, identity) => identity.to_string(),
            Membership::Nobody | Membership::Left => String::new(),
        };
        let agent_id = self.runs.agent_id().to_string();
        Ok(Response::new(wire::WhoAmIResponse { agent_id, uid: process.uid(), identity }))
    }

    async fn hold(
        &self,
        request: Request<Streaming<wire::HoldRequest>>,
    ) -> Result<Response<Self::HoldStream>, Status> {
        let caller = caller_of(&request)?;
        if !*self.ready.borrow() {
            return Err(Refusal::NotSynced.into());
        }
        let mut steps = request.into_inner();
        let wanted = first(&mut steps).await?;
        let running = self.runs.begin(&caller, wanted).await.map_err(|e| refused(&e))?;
        let (replies, stream) = mpsc::channel(ANSWERS_WAITING);
        // One and the same rules for the gates and for where their secrets lie.
        let rules = running.rules();
        let environment = running.identity().environment;
        let files = rules.iter().flat_map(|held| gates::secret_files(&held.rules, environment)).collect();
        let secrets = running.secrets(files).await;
        let mut begun = begun(&running, &self.runs.agent_id(), rules.as_deref(), &secrets);
        if let Some(held) = &rules {
            begun.closed.extend(gates::others_secrets(&held.rules).await);
        }
        let _ = replies.try_send(Ok(step(Say::Begun(begun))));
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let (why, last) = held(running, &caller, steps, &replies, &stop).await;
            // Told after it has ended: who hears it finds that it has.
            let _ = replies.send(last).await;
            tracing::debug!(subsystem_name = "runs", pid = caller.pid, why, "Run ended");
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn asks(
        &self,
        request: Request<Streaming<wire::Ask>>,
    ) -> Result<Response<Self::AsksStream>, Status> {
        let caller = caller_of(&request)?;
        if !*self.ready.borrow() {
            return Err(Refusal::NotSynced.into());
        }
        let gates = self.runs.gates_of(&caller).map_err(|e| no_token(&e.into()))?;
        let asks = Asks { gates, questions: request.into_inner(), stop: self.stop.clone() };
        Ok(Response::new(Answers::to(asks)))
    }

    async fn did(&self, request: Request<wire::DidRequest>) -> Result<Response<wire::DidResponse>, Status> {
        let caller = caller_of(&request)?;
        let did = did(request.into_inner())?;
        let gates = self.runs.gates_of(&caller).map_err(|e| no_token(&e.into()))?;
        let recorded = to_its_end(async move { gates.did(did).await }).await;
        recorded.ok_or_else(|| Status::internal("it was not recorded"))?.map_err(|e| no_receipt(&e))?;
        Ok(Response::new(wire::DidResponse {}))
    }

    async fn task_token(
        &self,
        request: Request<wire::TaskTokenRequest>,
    ) -> Result<Response<wire::TaskTokenResponse>, Status> {
        let caller = caller_of(&request)?;
        if !*self.ready.borrow() {
            return Err(Refusal::NotSynced.into());
        }
        let resource = request.into_inner().resource;
        let signed = self.runs.task_token(&caller, &resource).await.map_err(|e| no_token(&e))?;
        let expires_at = signed.expires_at.secs();
        Ok(Response::new(wire::TaskTokenResponse { token: signed.token.to_string(), expires_at }))
    }
}

/// What a gate says it did.
pub(super) fn did(request: wire::DidRequest) -> Result<Did, Status> {
    let wire::DidRequest { record, action, resource, content, result, status } = request;
    let Some(result) = CallResult::from_name(&result) else {
        let known = CallResult::ALL.map(CallResult::name).join(", ");
        return Err(Status::invalid_argument(format!("result: expected one of {known}")));
    };
    if status > HTTP_STATUS_MAX {
        return Err(Status::invalid_argument(format!(
            "status: {status}, expected at most {HTTP_STATUS_MAX}"
        )));
    }
    Ok(Did { record, action, resource, sent: content, result, status })
}

pub(super) fn no_receipt(error: &NoReceipt) -> Status {
    match error {
        NoReceipt::NotDue(_) => Status::permission_denied(error.to_string()),
        NoReceipt::Record(_) => Status::unavailable(error.to_string()),
    }
}

pub(super) fn no_token(error: &TokenError) -> Status {
    let text = error.to_string();
    match error {
        TokenError::NoRun(NoRun::Outside)
        | TokenError::Unknown(_)
        | TokenError::Tools(_)
        | TokenError::NoCalls => Status::permission_denied(text),
        // The server answered, and said no.
        TokenError::Server(CallError::Failed { code: Code::FailedPrecondition | Code::NotFound, .. }) => {
            Status::permission_denied(text)
        }
        TokenError::Server(_) | TokenError::Record(_) | TokenError::NoRun(NoRun::Gone(_)) => {
            Status::unavailable(text)
        }
    }
}

fn step(step: Say) -> wire::HoldResponse {
    wire::HoldResponse { step: Some(step) }
}

async fn first(steps: &mut Streaming<wire::HoldRequest>) -> Result<Wanted, Status> {
    let first = tokio::time::timeout(BEGIN_TIME, steps.message());
    let first = first.await.map_err(|_| Status::deadline_exceeded("expected to hear what is to run"))??;
    let Some(Said::Begin(begin)) = first.and_then(|first| first.step) else {
        return Err(Status::invalid_argument("expected Begin first"));
    };
    if begin.tools.len() > TASK_TOOLS_MAX {
        let had = begin.tools.len();
        return Err(Status::invalid_argument(format!("{had} tools, expected at most {TASK_TOOLS_MAX}")));
    }
    let wire::Begin { identity, task, tools, calls, code, confined } = begin;
    Ok(Wanted { identity, task, tools, calls, code, confined })
}

fn refused(error: &BeginError) -> Status {
    let text = error.to_string();
    match error {
        BeginError::NotPlaced { .. }
        | BeginError::NotInForce(_)
        | BeginError::OtherCode { .. }
        | BeginError::Refused(_) => Status::permission_denied(text),
        BeginError::Several { .. } | BeginError::Task(_) | BeginError::Code(_) => {
            Status::invalid_argument(text)
        }
        BeginError::Away(_) | BeginError::Record(_) | BeginError::Gone(_) => Status::unavailable(text),
    }
}

fn begun(
    running: &Running,
    agent: &SpiffeId,
    rules: Option<&Held>,
    secrets: &BTreeMap<String, Secret>,
) -> wire::Begun {
    let identity = running.identity();
    wire::Begun {
        instance_id: running.instance().to_owned(),
        spiffe_id: identity.name.to_string(),
        agent_id: agent.to_string(),
        code_digest: running.code.0.to_vec(),
        ends_at: identity.ends.secs(),
        rules_number: rules.map_or(0, |held| held.number),
        closed: running.closed(),
        gates: rules
            .map(|held| gates::of_run(&held.rules, identity.environment, secrets))
            .unwrap_or_default(),
    }
}

/// Serves a run until it ends; gives why, for the record, and the last word to the caller.
async fn held(
    mut running: Running,
    caller: &Caller,
    mut steps: Streaming<wire::HoldRequest>,
    replies: &Replies,
    stop: &Stop,
) -> (&'static str, Result<wire::HoldResponse, Status>) {
    let name = running.identity().name.clone();
    let (why, last) = loop {
        let worn_out = running.worn_out();
        let said = tokio::select! {
            biased;
            () = stop.cancelled() => break ("agent_stops", Err(Refusal::Stopping.into())),
            () = running.withdrawn() => {
                let reason = format!("{name} may not run here any more: it was paused, stopped or moved");
                break ("withdrawn", Ok(step(Say::Stopped(wire::Stopped { reason }))));
            }
            () = worn_out => {
                let reason = format!("{name} was refused {REFUSALS_MAX} times in this run");
                break ("worn_out", Ok(step(Say::Stopped(wire::Stopped { reason }))));
            }
            () = replies.closed() => break ("left", Err(Status::cancelled("the caller left"))),
            said = steps.message() => said,
        };
        match said {
            Ok(Some(wire::HoldRequest { step: Some(Said::Ask(ask)) })) => {
                // Who asks must be who began; which run that is rests on no groups.
                if caller.still_same(Look::ButGroups).is_err() {
                    break ("changed", Err(Refusal::ProcessChanged.into()));
                }
                let number = ask.number;
                let answer = match question(ask) {
                    Some(question) => wire_answer(number, running.decide(&question).await),
                    None => break ("nonsense", Err(Status::invalid_argument("a parameter has no value"))),
                };
                if replies.send(Ok(step(Say::Answer(answer)))).await.is_err() {
                    break ("left", Err(Status::cancelled("the caller left")));
                }
            }
            Ok(Some(wire::HoldRequest { step: Some(Said::ToolChanged(changed)) })) => {
                running.tool_changed(&changed.gate, &changed.tool).await;
            }
            Ok(Some(_)) => break ("nonsense", Err(Status::invalid_argument("expected Ask or ToolChanged"))),
            Ok(None) | Err(_) => break ("left", Err(Status::cancelled("the caller left"))),
        }
    };
    running.end(why).await;
    (why, last)
}

/// `None` if a parameter has no value.
pub(super) fn question(ask: wire::Ask) -> Option<Question> {
    let params = ask.params.into_iter().map(|(name, value)| {
        let value = match value.kind? {
            Kind::Long(number) => Param::Long(number),
            Kind::Text(text) => Param::String(text),
            Kind::Set(set) => Param::Set(set.texts.into_iter().collect()),
        };
        Some((name, value))
    });
    Some(Question {
        action: ask.action,
        resource: ask.resource,
        params: params.collect::<Option<_>>()?,
        shown: ask.content,
        what_if: ask.what_if,
        ..Question::default()
    })
}

pub(super) fn wire_answer(number: u64, answer: Answer) -> wire::Answer {
    let receipt = answer.wants_receipt();
    wire::Answer {
        number,
        outcome: answer.outcome.to_owned(),
        reason: answer.reason.to_owned(),
        text: answer.text,
        limits: answer.limits,
        record: answer.record,
        request: answer.request,
        receipt,
    }
}
