//! The SPIFFE Workload API on the workload socket.
//!
//! Rules: header first (WE-07), then the sync state, then a fair share, and only then work for the caller. A caller
//! gets what its own process is entitled to and nothing else; no stream ends with OK or Cancelled (CL-01).

use std::sync::Arc;
use std::time::Duration;

use avouch_attestors::process::Look;
use avouch_domain::{Now, SelectorSet, SpiffeId, Tick};
use avouch_proto::workload as wire;
use prost::bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status};

use super::answer::{AnswerBook, Kind, jwt_answer};
use super::refusals::Refusals;
use super::status::Refusal;
use super::steps::{Step, Steps};
use super::validate;
use crate::fair::{FairShare, Share};
use crate::limits::{AUDIENCES_MAX, INCOMPLETE_WAIT};
use crate::metrics::{Api, Metrics};
use crate::peer::Caller;
use crate::supply::{Feed, JwtGrant, JwtQuestion, JwtRefusal, Supply, Want, WorkloadUpdate};
use crate::used::Used;
use crate::workload::WorkloadAttestor;

/// The name in logs and metrics.
const SHORT_NAME: &str = "WorkloadAPI";

/// What the operator decides about the Workload API.
#[derive(Clone, Debug, Default)]
pub struct WorkloadOptions {
    /// How long a caller without an entry is held before it is refused; zero = not at all.
    pub no_identity_hold: Duration,
    /// Callers without an identity get the bundle of the trust domain.
    pub allow_unauthenticated_verifiers: bool,
    /// Claims of foreign tokens that are handed out besides `sub`, `aud`, `exp`.
    pub allowed_foreign_jwt_claims: Vec<String>,
    /// Beginnings of selectors that may be logged with a refusal; empty = all.
    pub log_selectors: Vec<String>,
}

/// The parts of the service, shared by all connections.
pub(super) struct Workload {
    pub supply: Arc<dyn Supply>,
    pub attestor: Arc<WorkloadAttestor>,
    pub options: WorkloadOptions,
    pub book: AnswerBook,
    pub calls: FairShare,
    /// Tokens being minted.
    pub minting: FairShare,
    pub refusals: Refusals,
    /// Keeps failed attestations from flooding the log.
    pub failures: Refusals,
    pub metrics: Metrics,
    /// `None`: nobody wants to know what is used.
    pub used: Option<Used>,
    pub stop: CancellationToken,
    pub clock: fn() -> Now,
}

/// A caller that may go on: attested, with a share of the agent.
struct Admitted {
    selectors: SelectorSet,
    call: Call,
}

type Granted = Result<Arc<[JwtGrant]>, Refusal>;

/// One call in progress: whose it is, its share of the budget and its line in the metrics.
pub(super) struct Call {
    metrics: Metrics,
    method: &'static str,
    caller: Arc<Caller>,
    begun: Tick,
    clock: fn() -> Now,
    code: Code,
    _share: Option<Share>,
}

impl Call {
    fn ends(&mut self, refusal: Refusal) -> Status {
        self.code = refusal.code();
        refusal.into()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.caller.is_self() {
            let elapsed = (self.clock)().mono.since(self.begun);
            self.metrics.rpc(SHORT_NAME, self.method, self.code, elapsed);
            self.metrics.connections(Api::Workload, -1);
        }
    }
}

impl Workload {
    /// Opens a call of somebody who may call now; before any work is done for it.
    pub(super) fn open(&self, method: &'static str, caller: Option<Arc<Caller>>) -> Result<Call, Status> {
        // Every connection of the listener carries its caller; without one there is nobody to answer.
        let caller = caller.ok_or(Refusal::AttestationFailed)?;
        if !caller.is_self() {
            self.metrics.connections(Api::Workload, 1);
        }
        let begun = (self.clock)().mono;
        // A call that is dropped without a word was cancelled by its client.
        let (metrics, code) = (self.metrics.clone(), Code::Cancelled);
        let mut call = Call { metrics, method, caller, begun, clock: self.clock, code, _share: None };
        if !*self.supply.ready().borrow() {
            return Err(call.ends(Refusal::NotSynced));
        }
        match self.share(&self.calls, &call) {
            Ok(share) => call._share = Some(share),
            Err(refusal) => return Err(call.ends(refusal)),
        }
        Ok(call)
    }

    fn share(&self, budget: &FairShare, call: &Call) -> Result<Share, Refusal> {
        budget.take(call.caller.pid, call.caller.uid).map_err(|error| {
            self.metrics.over_share(call.method);
            tracing::debug!(
                subsystem_name = "endpoints",
                pid = call.caller.pid,
                uid = call.caller.uid,
                method = call.method,
                %error,
                "Refused a call"
            );
            Refusal::OverShare(full_name(call.method))
        })
    }

    async fn admit(&self, mut call: Call) -> Result<Admitted, Status> {
        match self.attestor.attest(&call.caller).await {
            Ok(selectors) => Ok(Admitted { selectors, call }),
            Err(error) => {
                if let Some(unlogged) = self.failures.due(call.caller.pid, (self.clock)().mono) {
                    tracing::error!(
                        subsystem_name = "endpoints",
                        service = SHORT_NAME,
                        method = call.method,
                        pid = call.caller.pid,
                        unlogged,
                        %error,
                        "Workload attestation failed"
                    );
                }
                Err(call.ends(Refusal::AttestationFailed))
            }
        }
    }

    /// The next state of a feed, or the end of the agent.
    async fn next(&self, feed: &mut Box<dyn Feed>) -> Result<Arc<WorkloadUpdate>, Refusal> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Refusal::Stopping),
            update = feed.next() => update.ok_or(Refusal::Stopping),
        }
    }

    fn hold(&self) -> Duration {
        if self.supply.push_live() || !self.supply.synced() {
            self.options.no_identity_hold
        } else {
            Duration::ZERO
        }
    }

    /// The first state of a feed; one that matches nothing is held back for a while, since the entry may be on
    /// its way.
    async fn first(&self, feed: &mut Box<dyn Feed>, patient: bool) -> Result<Arc<WorkloadUpdate>, Refusal> {
        let mut update = self.next(feed).await?;
        let hold = self.hold();
        if patient && update.matched == 0 && !hold.is_zero() {
            let end = tokio::time::sleep(hold);
            tokio::pin!(end);
            while update.matched == 0 {
                tokio::select! {
                    () = &mut end => break,
                    newer = self.next(feed) => update = newer?,
                }
            }
        }
        Ok(update)
    }

    /// Only the process that was attested may have what it was attested for, and hear that there is nothing.
    fn same_process(&self, call: &Call, look: Look) -> Result<(), Refusal> {
        call.caller.still_same(look).map_err(|error| {
            tracing::warn!(
                subsystem_name = "endpoints",
                pid = call.caller.pid,
                method = call.method,
                %error,
                "Ended a call: its process is another now"
            );
            Refusal::ProcessChanged
        })
    }

    fn refuse(&self, admitted: &Admitted) -> Refusal {
        if let Err(changed) = self.same_process(&admitted.call, Look::Whole) {
            return changed;
        }
        if !self.supply.synced() {
            return Refusal::NotSynced;
        }
        let now = (self.clock)().mono;
        self.refusals.note(
            &self.supply,
            &admitted.call.caller,
            &admitted.selectors,
            admitted.call.method,
            now,
        );
        Refusal::NoIdentity
    }

    pub(super) async fn stream(
        self: Arc<Self>,
        kind: Kind,
        call: Call,
    ) -> Result<Response<Steps<Delivery>>, Status> {
        let mut admitted = self.admit(call).await?;
        let want = if kind == Kind::X509Svid { Want::X509 } else { Want::Bundles };
        let lenient = kind != Kind::X509Svid && self.options.allow_unauthenticated_verifiers;
        let first = async {
            let mut feed = self.subscribe(&admitted, want).await?;
            let first = self.first(&mut feed, !lenient).await?;
            if first.matched == 0 && !lenient {
                return Err(self.refuse(&admitted));
            }
            Ok((feed, first))
        };
        match first.await {
            Ok((feed, first)) => {
                let pending = Some(first);
                let leaving = Leaving(self.clone());
                let delivery = Delivery {
                    workload: self,
                    kind,
                    lenient,
                    admitted,
                    feed,
                    pending,
                    last: None,
                    _leaving: leaving,
                };
                Ok(Response::new(Steps::new(delivery)))
            }
            Err(refusal) => Err(admitted.call.ends(refusal)),
        }
    }

    async fn subscribe(&self, admitted: &Admitted, want: Want) -> Result<Box<dyn Feed>, Refusal> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(Refusal::Stopping),
            feed = self.supply.subscribe(admitted.selectors.clone(), want) => Ok(feed),
        }
    }

    pub(super) async fn fetch_jwt(
        self: Arc<Self>,
        mut call: Call,
        request: wire::JwtsvidRequest,
    ) -> Result<Response<Bytes>, Status> {
        let asked = match asked_id(&request) {
            Ok(asked) => asked,
            Err(refusal) => return Err(call.ends(refusal)),
        };
        let mut admitted = self.admit(call).await?;
        match self.mint(&admitted, request.audience, asked).await {
            Ok(bytes) => {
                admitted.call.code = Code::Ok;
                Ok(Response::new(bytes))
            }
            Err(refusal) => Err(admitted.call.ends(refusal)),
        }
    }

    async fn mint(
        &self,
        admitted: &Admitted,
        audience: Vec<String>,
        id: Option<SpiffeId>,
    ) -> Result<Bytes, Refusal> {
        let question = JwtQuestion { selectors: admitted.selectors.clone(), audience, id };
        let granted = match self.supply.lent_jwt(&question) {
            Some(grants) => Ok(grants),
            None => self.patient_grants(admitted, &question).await,
        };
        let grants = match granted {
            Err(Refusal::NoIdentity) => return Err(self.refuse(admitted)),
            other => other?,
        };
        self.same_process(&admitted.call, look(grants.iter().any(|grant| grant.rests_on_groups)))?;
        if let Some(used) = &self.used {
            used.note(grants.iter().map(|grant| &grant.svid.id), (self.clock)().wall);
        }
        for grant in grants.iter() {
            tracing::debug!(
                subsystem_name = "endpoints",
                service = SHORT_NAME,
                method = admitted.call.method,
                pid = admitted.call.caller.pid,
                registered = true,
                spiffe_id = %grant.svid.id,
                "Fetched JWT SVID"
            );
        }
        jwt_answer(&grants)
    }

    /// Tokens for an admitted caller, who waits for a while if nothing matches: the entry may be on its way.
    async fn patient_grants(&self, admitted: &Admitted, question: &JwtQuestion) -> Granted {
        let fetch = || self.grants(admitted, question.clone());
        let mut grants = fetch().await;
        let hold = self.hold();
        if matches!(grants, Err(Refusal::NoIdentity)) && !hold.is_zero() {
            let end = tokio::time::sleep(hold);
            tokio::pin!(end);
            let mut feed = self.subscribe(admitted, Want::Bundles).await?;
            while matches!(grants, Err(Refusal::NoIdentity)) {
                tokio::select! {
                    () = &mut end => break,
                    update = self.next(&mut feed) => if update?.matched > 0 { grants = fetch().await },
                }
            }
        }
        grants
    }

    /// Tokens for an admitted caller. A call that is dropped takes its question back, so that asking and going away
    /// is no way to make the agent mint without limit.
    async fn grants(&self, admitted: &Admitted, question: JwtQuestion) -> Granted {
        let _share = self.share(&self.minting, &admitted.call)?;
        let granted = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(Refusal::Stopping),
            granted = self.supply.fetch_jwt(question) => granted,
        };
        match granted {
            Ok(grants) if grants.is_empty() => Err(Refusal::NoIdentity),
            Ok(grants) => Ok(grants),
            Err(JwtRefusal::NoIdentity) => Err(Refusal::NoIdentity),
            Err(JwtRefusal::Unavailable(why)) => Err(Refusal::Mint(why)),
        }
    }

    pub(super) async fn validate(
        self: Arc<Self>,
        mut call: Call,
        request: wire::ValidateJwtsvidRequest,
    ) -> Result<Response<Bytes>, Status> {
        if let Err(refusal) = validate::check(&request) {
            return Err(call.ends(refusal));
        }
        let mut admitted = self.admit(call).await?;
        let answer = async {
            let mut feed = self.subscribe(&admitted, Want::Bundles).await?;
            let visible = self.next(&mut feed).await?;
            let now = (self.clock)().wall;
            let keys = self.book.keys(&visible);
            self.same_process(&admitted.call, look(visible.rests_on_groups))?;
            let allowed = &self.options.allowed_foreign_jwt_claims;
            validate::answer(&request, &keys, &visible.own.trust_domain, allowed, now)
        };
        match answer.await {
            Ok(bytes) => {
                admitted.call.code = Code::Ok;
                Ok(Response::new(bytes))
            }
            Err(refusal) => Err(admitted.call.ends(refusal)),
        }
    }
}

/// How much of a process is looked at before it is given what rests on supplementary groups or not.
fn look(rests_on_groups: bool) -> Look {
    if rests_on_groups { Look::Whole } else { Look::ButGroups }
}

fn asked_id(request: &wire::JwtsvidRequest) -> Result<Option<SpiffeId>, Refusal> {
    if request.audience.is_empty() || request.audience.iter().any(String::is_empty) {
        return Err(Refusal::AudienceMissing);
    }
    if request.audience.len() > AUDIENCES_MAX {
        return Err(Refusal::AudiencesTooMany(request.audience.len()));
    }
    if request.spiffe_id.is_empty() {
        return Ok(None);
    }
    SpiffeId::parse(&request.spiffe_id).map(Some).map_err(Refusal::SpiffeId)
}

/// One open stream: what it follows and what it sent last.
pub(super) struct Delivery {
    workload: Arc<Workload>,
    kind: Kind,
    /// Goes on with the own bundle when nothing matches.
    lenient: bool,
    admitted: Admitted,
    feed: Box<dyn Feed>,
    pending: Option<Arc<WorkloadUpdate>>,
    last: Option<[u8; 32]>,
    /// Last, so that it acts when the feed has let go of its state.
    _leaving: Leaving,
}

/// Tells the answers that a stream is gone.
struct Leaving(Arc<Workload>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.book.one_left();
    }
}

impl Step for Delivery {
    async fn next(mut self) -> Result<(Self, Bytes), Status> {
        match self.message().await {
            Ok(bytes) => Ok((self, bytes)),
            Err(refusal) => Err(self.admitted.call.ends(refusal)),
        }
    }
}

impl Delivery {
    /// Waits for a state whose answer differs from the last one.
    async fn message(&mut self) -> Result<Bytes, Refusal> {
        loop {
            let update = match self.pending.take() {
                Some(update) => self.newest(update).await?,
                None => self.workload.next(&mut self.feed).await?,
            };
            if update.matched == 0 && !self.lenient {
                return Err(self.workload.refuse(&self.admitted));
            }
            if self.kind == Kind::X509Svid && update.identities.is_empty() {
                continue; // entitled, but still being signed
            }
            self.workload.same_process(&self.admitted.call, look(update.rests_on_groups))?;
            let encoded = self.workload.book.answer(self.kind, &update)?;
            if self.last != Some(encoded.mark) {
                self.last = Some(encoded.mark);
                self.told(&update);
                return Ok(encoded.bytes);
            }
        }
    }

    /// The first state, complete if it can be: which identity is the default one should not depend on whose
    /// signature was faster. Nothing older than this moment is handed out (WA-53).
    async fn newest(&mut self, mut update: Arc<WorkloadUpdate>) -> Result<Arc<WorkloadUpdate>, Refusal> {
        loop {
            let incomplete = self.kind == Kind::X509Svid && update.waiting > 0;
            let patience = if update.identities.is_empty() { Duration::MAX } else { INCOMPLETE_WAIT };
            tokio::select! {
                biased;
                newer = self.workload.next(&mut self.feed) => update = newer?,
                () = tokio::time::sleep(patience), if incomplete => return Ok(update),
                () = std::future::ready(()), if !incomplete => return Ok(update),
            }
        }
    }

    fn told(&self, update: &WorkloadUpdate) {
        if self.kind != Kind::X509Svid {
            return;
        }
        let now = (self.workload.clock)().wall;
        if let Some(used) = &self.workload.used {
            used.note(update.identities.iter().map(|identity| &identity.svid.id), now);
        }
        for identity in &update.identities {
            tracing::debug!(
                subsystem_name = "endpoints",
                service = SHORT_NAME,
                method = self.admitted.call.method,
                pid = self.admitted.call.caller.pid,
                registered = true,
                count = update.identities.len(),
                spiffe_id = %identity.svid.id,
                ttl = identity.svid.not_after.since(now).as_secs_f64(),
                "Fetched X.509 SVID"
            );
        }
    }
}

fn full_name(method: &'static str) -> &'static str {
    match method {
        "FetchX509SVID" => "/SpiffeWorkloadAPI/FetchX509SVID",
        "FetchX509Bundles" => "/SpiffeWorkloadAPI/FetchX509Bundles",
        "FetchJWTSVID" => "/SpiffeWorkloadAPI/FetchJWTSVID",
        "FetchJWTBundles" => "/SpiffeWorkloadAPI/FetchJWTBundles",
        _ => "/SpiffeWorkloadAPI/ValidateJWTSVID",
    }
}
