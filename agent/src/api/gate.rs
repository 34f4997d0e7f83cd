//! The service of gates that are workloads of their own: who the caller is, what came of what it asks, and what an HTTP gate
//! is served with.
//!
//! Speaks gRPC and nothing else: who may ask and what is decided is asked of [`crate::hooks`]. A process of a run is never a
//! hook, whatever entry there is for it.

use std::sync::Arc;

use avouch_domain::{Presented, SelectorSet, SpiffeId};
use avouch_proto::gate_v1 as wire;
use avouch_proto::gate_v1::gate_server::Gate;
use avouch_rules::limits::{NAME_MAX, RESOURCE_ID_MAX};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::run::{caller_of, did, no_receipt};
use super::status::Refusal;
use super::steps::to_its_end;
use super::{Stop, gates};
use crate::hooks::{Asked, Checked, Hooks, NoHook, shown};
use crate::peer::Caller;
use crate::runs::{Answer, Membership, Runs};
use crate::workload::WorkloadAttestor;

/// See the module.
#[derive(Clone)]
pub struct GateApi {
    pub hooks: Hooks,
    /// `None`: nothing is run here.
    pub runs: Option<Runs>,
    pub attestor: Arc<WorkloadAttestor>,
    /// Turns true when the agent knows who is who.
    pub ready: watch::Receiver<bool>,
    pub stop: Stop,
}

impl std::fmt::Debug for GateApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GateApi")
    }
}

#[tonic::async_trait]
impl Gate for GateApi {
    type ServeStream = ReceiverStream<Result<wire::ServeResponse, Status>>;

    async fn check(
        &self,
        request: Request<wire::CheckRequest>,
    ) -> Result<Response<wire::CheckResponse>, Status> {
        let caller = caller_of(&request)?;
        if !*self.ready.borrow() {
            return Err(Refusal::NotSynced.into());
        }
        let asked = asked(request.into_inner())?;
        let mut checked = self.checked(&caller, &asked).await?;
        let due = checked.due.take();
        let receipt = due.is_some();
        if let Some(due) = due {
            let process = caller.pin().map_err(|_| Refusal::ProcessChanged)?;
            self.hooks.awaits(checked.answer.record, process.key().clone(), due);
        }
        Ok(Response::new(wire::CheckResponse { receipt, ..response(checked) }))
    }

    async fn did(&self, request: Request<wire::DidRequest>) -> Result<Response<wire::DidResponse>, Status> {
        let caller = caller_of(&request)?;
        let wire::DidRequest { did: said, params } = request.into_inner();
        let mut did = did(said.ok_or_else(|| Status::invalid_argument("expected what was done"))?)?;
        let params: Vec<_> = params.into_iter().map(|param| (param.name, param.value)).collect();
        did.sent = shown(&params, &did.sent);
        let process = caller.process().map_err(|_| Refusal::ProcessChanged)?;
        self.outside(&caller)?;
        let hooks = self.hooks.clone();
        let recorded = to_its_end(async move { hooks.did(process.key(), did).await }).await;
        recorded.ok_or_else(|| Status::internal("it was not recorded"))?.map_err(|e| no_receipt(&e))?;
        Ok(Response::new(wire::DidResponse {}))
    }

    async fn serve(
        &self,
        request: Request<wire::ServeRequest>,
    ) -> Result<Response<Self::ServeStream>, Status> {
        let caller = caller_of(&request)?;
        if !*self.ready.borrow() {
            return Err(Refusal::NotSynced.into());
        }
        let gate = request.into_inner().gate;
        bounded("gate", &gate, NAME_MAX)?;
        // From before the first look, so that no change is missed.
        let rules = self.hooks.rules_number();
        let first = self.definition(&caller, &gate).await?;
        let (tell, stream) = mpsc::channel(1);
        let _ = tell.try_send(Ok(first));
        tokio::spawn(self.clone().follow(caller, gate, rules, tell));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

type Definitions = mpsc::Sender<Result<wire::ServeResponse, Status>>;

impl GateApi {
    /// Tells of the gate anew whenever the rules change, until the caller leaves or is that gate no more.
    async fn follow(
        self,
        caller: Arc<Caller>,
        gate: String,
        mut rules: watch::Receiver<u64>,
        tell: Definitions,
    ) {
        loop {
            let next = tokio::select! {
                biased;
                () = self.stop.cancelled() => Err(Refusal::Stopping.into()),
                () = tell.closed() => return,
                Ok(()) = rules.changed() => self.definition(&caller, &gate).await,
                else => return,
            };
            let over = next.is_err();
            if tell.send(next).await.is_err() || over {
                return;
            }
        }
    }

    /// What a gate is served with, if the caller is its workload.
    async fn definition(&self, caller: &Arc<Caller>, gate: &str) -> Result<wire::ServeResponse, Status> {
        let selectors = self.selectors(caller).await?;
        let served = self.hooks.served(&selectors, gate, caller.uid).await;
        let served = self.told(caller, served)?;
        gates::of_workload(&served).ok_or_else(|| Status::internal("the rules changed; try again"))
    }

    /// Decides for a hook about somebody who presented something to it.
    pub(super) async fn checked(&self, caller: &Arc<Caller>, asked: &Asked) -> Result<Checked, Status> {
        let selectors = self.selectors(caller).await?;
        let checked = self.hooks.check(&selectors, asked).await;
        self.told(caller, checked)
    }

    /// What would be decided for a hook about somebody who is only named.
    pub(super) async fn what_if(
        &self,
        caller: &Arc<Caller>,
        name: Option<&SpiffeId>,
        asked: &Asked,
    ) -> Result<Answer, Status> {
        let selectors = self.selectors(caller).await?;
        let answer = self.hooks.what_if(&selectors, name, asked).await;
        self.told(caller, answer)
    }

    /// Those of a caller that is in no run.
    async fn selectors(&self, caller: &Arc<Caller>) -> Result<SelectorSet, Status> {
        self.outside(caller)?;
        let attested = self.attestor.attest(caller).await.map_err(|error| {
            tracing::debug!(subsystem_name = "hooks", pid = caller.pid, %error, "Attestation failed");
            Refusal::AttestationFailed
        })?;
        Ok(attested)
    }

    /// Only who was attested hears what was decided for it, and only as long as it is in no run.
    fn told<T>(&self, caller: &Arc<Caller>, decided: Result<T, NoHook>) -> Result<T, Status> {
        let decided = decided.map_err(|e| match e {
            // They may still come, as when the node agent has just started.
            NoHook::NoRules => Status::unavailable(e.to_string()),
            _ => Status::permission_denied(e.to_string()),
        })?;
        self.outside(caller)?;
        Ok(decided)
    }

    /// Still the process that connected, and of no run.
    fn outside(&self, caller: &Arc<Caller>) -> Result<(), Status> {
        let process = caller.process().map_err(|_| Refusal::ProcessChanged)?;
        let Some(runs) = &self.runs else { return Ok(()) };
        match runs.membership(caller, &process).map_err(|_| Refusal::AttestationFailed)? {
            Membership::Nobody => Ok(()),
            Membership::Of(..) | Membership::Left => Err(Status::permission_denied(
                "a process of a run is never a gate: the hook has to be started outside of `avouch run`",
            )),
        }
    }
}

fn asked(request: wire::CheckRequest) -> Result<Asked, Status> {
    let wire::CheckRequest { token, action, resource, params, what_if, shown, certificates } = request;
    let presented = Presented { token: Zeroizing::new(token), chain: certificates };
    bounded("action", &action, NAME_MAX)?;
    bounded("resource", &resource, RESOURCE_ID_MAX)?;
    let params = params.into_iter().map(|param| (param.name, param.value)).collect();
    let (said, kind) = (Vec::new(), String::new());
    Ok(Asked { presented, action, resource, params, said, kind, shown, what_if, unlimited: false })
}

fn bounded(what: &str, text: &str, most: usize) -> Result<(), Status> {
    if text.is_empty() || text.len() > most {
        let had = text.len();
        return Err(Status::invalid_argument(format!("{what}: {had} bytes, expected 1 to {most}")));
    }
    Ok(())
}

fn response(Checked { answer, identity, .. }: Checked) -> wire::CheckResponse {
    wire::CheckResponse {
        outcome: answer.outcome.to_owned(),
        reason: answer.reason.to_owned(),
        text: answer.text,
        limits: answer.limits,
        rules: answer.rules.iter().map(ToString::to_string).collect(),
        rules_number: answer.rules_number,
        record: answer.record,
        request: answer.request,
        spiffe_id: identity.map(|id| id.to_string()).unwrap_or_default(),
        receipt: false,
    }
}
