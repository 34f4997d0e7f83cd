//! The decision API of AuthZEN 1.0 on a socket of its own, and task tokens: for code that asks for itself, and for hooks.
//!
//! Speaks HTTP and JSON and nothing else: what a process of a run may do is asked of [`crate::runs`], what a hook may know of
//! others of [`crate::hooks`]. Nobody is told about anybody by name but a hook, and it only what would be.

mod http;
mod shapes;

use std::sync::Arc;

use avouch_attestors::process::Look;
use avouch_credential::json as strict;
use avouch_domain::{Presented, SpiffeId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tonic::{Code, Status};

pub(super) use http::serve;

use super::gate::GateApi;
use super::run::no_token;
use super::status::Refusal;
use crate::hooks::Asked;
use crate::peer::Caller;
use crate::runs::{NoRun, OwnCode, Question, Runs};
use shapes::{Evaluation, Evaluations, Malformed, Verdict, Who};

/// See the module.
#[derive(Clone)]
pub(super) struct Access {
    pub runs: Runs,
    pub gate: GateApi,
}

/// Why a request has no answer: status and sentence.
#[derive(Debug)]
struct Problem {
    status: ::http::StatusCode,
    detail: String,
    /// Whoever asks is gone: nothing after it is decided either.
    last: bool,
}

impl Problem {
    fn new(status: ::http::StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), last: false }
    }
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Self {
        Self::new(::http::StatusCode::BAD_REQUEST, malformed.to_string())
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            Code::InvalidArgument => ::http::StatusCode::BAD_REQUEST,
            Code::PermissionDenied => ::http::StatusCode::FORBIDDEN,
            Code::NotFound => ::http::StatusCode::NOT_FOUND,
            _ => ::http::StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(code, status.message())
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Status::from(refusal).into()
    }
}

/// Who asks.
enum Asker {
    /// A process of a run.
    Own(OwnCode),
    /// Whoever else.
    Other,
}

impl Access {
    async fn evaluation(&self, caller: &Arc<Caller>, body: &[u8]) -> Result<Vec<u8>, Problem> {
        told(caller, self.one(caller, body).await)
    }

    async fn one(&self, caller: &Arc<Caller>, body: &[u8]) -> Result<Vec<u8>, Problem> {
        let asker = self.asker(caller)?;
        written(&self.verdict(caller, &asker, &Evaluation::read(body)?).await?)
    }

    async fn evaluations(&self, caller: &Arc<Caller>, body: &[u8]) -> Result<Vec<u8>, Problem> {
        let many = self.many(caller, body).await;
        // Of some of them nothing was decided, so that nobody has looked.
        still_same(caller)?;
        many
    }

    async fn many(&self, caller: &Arc<Caller>, body: &[u8]) -> Result<Vec<u8>, Problem> {
        let asker = self.asker(caller)?;
        let asked = Evaluations::read(body)?;
        let mut verdicts = Vec::with_capacity(asked.list.len());
        for one in &asked.list {
            let verdict = match self.verdict(caller, &asker, one).await {
                Err(problem) if asked.alone || problem.last => return Err(problem),
                // What others of the batch came to is told all the same.
                Err(Problem { status, detail, .. }) => Verdict::failed(status.as_u16(), &detail),
                Ok(verdict) => verdict,
            };
            let ends = asked.ends_with(verdict.decision);
            verdicts.push(verdict);
            if ends {
                break;
            }
        }
        match verdicts.as_slice() {
            [one] if asked.alone => written(one),
            _ => written(&json!({ "evaluations": verdicts })),
        }
    }

    /// A task token of the caller's own task.
    async fn token(&self, caller: &Arc<Caller>, task: &str, body: &[u8]) -> Result<Vec<u8>, Problem> {
        told(caller, self.signed(caller, task, body).await)
    }

    async fn signed(&self, caller: &Arc<Caller>, task: &str, body: &[u8]) -> Result<Vec<u8>, Problem> {
        #[derive(Deserialize)]
        struct Wanted {
            resource: String,
        }
        let wanted: Wanted =
            strict::read(body).map_err(|e| Problem::new(::http::StatusCode::BAD_REQUEST, e.to_string()))?;
        let own = match self.asker(caller)? {
            Asker::Own(own) => own,
            Asker::Other => return Err(no_token(&NoRun::Outside.into()).into()),
        };
        if own.task().as_str() != task {
            let detail = format!("there is no task \"{task}\" here: $AVOUCH_TASK names the caller's");
            return Err(Problem::new(::http::StatusCode::NOT_FOUND, detail));
        }
        let signed = self.runs.task_token(caller, &wanted.resource).await.map_err(|e| no_token(&e))?;
        written(&json!({ "token": *signed.token, "expires_at": signed.expires_at.secs() }))
    }

    fn asker(&self, caller: &Arc<Caller>) -> Result<Asker, Problem> {
        if !*self.gate.ready.borrow() {
            return Err(Refusal::NotSynced.into());
        }
        match self.runs.own_code(caller) {
            Ok(own) => Ok(Asker::Own(own)),
            Err(NoRun::Outside) => still_same(caller).map(|()| Asker::Other),
            Err(NoRun::Gone(_)) => Err(Refusal::ProcessChanged.into()),
        }
    }

    async fn verdict(
        &self,
        caller: &Arc<Caller>,
        asker: &Asker,
        asked: &Evaluation,
    ) -> Result<Verdict, Problem> {
        match asker {
            Asker::Own(own) => {
                by_itself(own, asked)?;
                let question = Question {
                    action: asked.action.to_string(),
                    resource: asked.resource.to_string(),
                    said: asked.said.to_vec(),
                    kind: asked.kind.to_string(),
                    unlimited: !asked.keeps_limits,
                    own_code: true,
                    ..Question::default()
                };
                let answer = own.decide(&question).await;
                let answer = answer.map_err(|e| Problem { last: true, ..no_token(&e.into()).into() })?;
                Ok(Verdict::of(answer, false))
            }
            Asker::Other => self.of_another(caller, asked).await,
        }
    }

    /// What a hook asks.
    async fn of_another(&self, caller: &Arc<Caller>, asked: &Evaluation) -> Result<Verdict, Problem> {
        let question = |token: &str, what_if| Asked {
            presented: Presented::token(token),
            action: asked.action.to_string(),
            resource: asked.resource.to_string(),
            params: Vec::new(),
            said: asked.said.to_vec(),
            kind: asked.kind.to_string(),
            shown: String::new(),
            what_if,
            unlimited: !asked.keeps_limits,
        };
        match &asked.who {
            Who::Caller => {
                let outside = no_token(&NoRun::Outside.into());
                let detail = format!(
                    "{}; a hook says whom it asks about: subject.properties.token holds what was shown to it",
                    outside.message()
                );
                Err(Problem::new(::http::StatusCode::FORBIDDEN, detail))
            }
            Who::Shown(token) => {
                let checked = self.gate.checked(caller, &question(token, false)).await?;
                Ok(Verdict::of(checked.answer, false))
            }
            Who::Named(name) => {
                let name = SpiffeId::parse(name).ok();
                let answer = self.gate.what_if(caller, name.as_ref(), &question("", true)).await?;
                Ok(Verdict::of(answer, true))
            }
        }
    }
}

/// Nobody but the one who connected is told anything.
fn still_same(caller: &Caller) -> Result<(), Problem> {
    caller.still_same(Look::ButGroups).map_err(|_| Refusal::ProcessChanged.into())
}

/// What was decided was looked at before; a problem was not.
fn told<T>(caller: &Caller, result: Result<T, Problem>) -> Result<T, Problem> {
    if result.is_err() {
        still_same(caller)?;
    }
    result
}

fn written(answer: &impl Serialize) -> Result<Vec<u8>, Problem> {
    let failed =
        |e: serde_json::Error| Problem::new(::http::StatusCode::INTERNAL_SERVER_ERROR, e.to_string());
    serde_json::to_vec(answer).map_err(failed)
}

/// A process of a run asks for nobody but itself.
fn by_itself(own: &OwnCode, asked: &Evaluation) -> Result<(), Problem> {
    match &asked.who {
        Who::Caller => Ok(()),
        Who::Named(name) if **name == *own.identity().as_str() => Ok(()),
        Who::Named(_) | Who::Shown(_) => {
            let detail = format!(
                "a process of a run asks for itself: leave the subject out, or name {}",
                own.identity()
            );
            Err(Problem::new(::http::StatusCode::FORBIDDEN, detail))
        }
    }
}
