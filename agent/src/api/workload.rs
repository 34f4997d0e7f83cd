//! The SPIFFE Workload API on the workload socket.
//!
//! Rules: header first (WE-07), then the sync state, then a fair share, and only then work for the caller. A caller
//! gets what its own process is entitled to and nothing else; no stream ends with OK or Cancelled (CL-01).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use avouch_domain::{Now, SelectorSet, SpiffeId, Tick};
use avouch_proto::workload as wire;
use prost::bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::{Code, Request, Response, Status};

use super::answer::{AnswerBook, Kind, jwt_answer};
use super::codec::EncodedCodec;
use super::refusals::Refusals;
use super::status::Refusal;
use super::steps::{Step, Steps};
use super::validate;
use crate::fair::{FairShare, Share};
use crate::limits::REQUEST_MAX;
use crate::metrics::Metrics;
use crate::peer::Caller;
use crate::supply::{Feed, JwtRefusal, Supply, Want, WorkloadUpdate};
use crate::workload::WorkloadAttestor;

const SERVICE: &str = "SpiffeWorkloadAPI";
/// The name in logs and metrics.
const SHORT_NAME: &str = "WorkloadAPI";
const HEADER: &str = "workload.spiffe.io";

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
    pub attestor: WorkloadAttestor,
    pub options: WorkloadOptions,
    pub book: AnswerBook,
    pub calls: FairShare,
    pub refusals: Refusals,
    /// Keeps failed attestations from flooding the log.
    pub failures: Refusals,
    pub metrics: Metrics,
    pub stop: CancellationToken,
    pub clock: fn() -> Now,
}

/// A caller that may go on: attested, with a share of the agent.
struct Admitted {
    caller: Arc<Caller>,
    selectors: SelectorSet,
    call: Call,
}

/// One call in progress: its share of the budget and its line in the metrics.
struct Call {
    metrics: Metrics,
    method: &'static str,
    begun: Tick,
    clock: fn() -> Now,
    code: Code,
    counted: bool,
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
        if self.counted {
            let elapsed = (self.clock)().mono.since(self.begun);
            self.metrics.rpc(SHORT_NAME, self.method, self.code, elapsed);
            self.metrics.connections("workload_api", -1);
        }
    }
}

impl Workload {
    fn call(&self, method: &'static str, caller: Option<&Arc<Caller>>) -> Call {
        let counted = caller.is_some_and(|c| !c.is_self());
        if counted {
            self.metrics.connections("workload_api", 1);
        }
        let begun = (self.clock)().mono;
        // A call that is dropped without a word was cancelled by its client.
        let code = Code::Cancelled;
        Call { metrics: self.metrics.clone(), method, begun, clock: self.clock, code, counted, _share: None }
    }

    async fn admit(&self, mut call: Call, caller: Option<Arc<Caller>>) -> Result<Admitted, Status> {
        match self.look(&mut call, caller).await {
            Ok((caller, selectors)) => Ok(Admitted { caller, selectors, call }),
            Err(refusal) => Err(call.ends(refusal)),
        }
    }

    async fn look(
        &self,
        call: &mut Call,
        caller: Option<Arc<Caller>>,
    ) -> Result<(Arc<Caller>, SelectorSet), Refusal> {
        if !*self.supply.ready().borrow() {
            return Err(Refusal::NotSynced);
        }
        // Every connection of the listener carries its caller; without one there is nobody to answer.
        let caller = caller.ok_or(Refusal::AttestationFailed)?;
        match self.calls.take(caller.pid, caller.uid) {
            Ok(share) => call._share = Some(share),
            Err(error) => {
                self.metrics.over_share(call.method);
                tracing::debug!(
                    subsystem_name = "endpoints",
                    pid = caller.pid,
                    uid = caller.uid,
                    method = call.method,
                    %error,
                    "Refused a call"
                );
                return Err(Refusal::OverShare(full_name(call.method)));
            }
        }
        match self.attestor.attest(&caller).await {
            Ok(selectors) => Ok((caller, selectors)),
            Err(error) => {
                if let Some(unlogged) = self.failures.due(caller.pid, (self.clock)().mono) {
                    tracing::error!(
                        subsystem_name = "endpoints",
                        service = SHORT_NAME,
                        method = call.method,
                        pid = caller.pid,
                        unlogged,
                        %error,
                        "Workload attestation failed"
                    );
                }
                Err(Refusal::AttestationFailed)
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
        if self.supply.push_live() { self.options.no_identity_hold } else { Duration::ZERO }
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

    fn refuse(&self, admitted: &Admitted) -> Refusal {
        let now = (self.clock)().mono;
        self.refusals.note(&self.supply, &admitted.caller, &admitted.selectors, admitted.call.method, now);
        Refusal::NoIdentity
    }

    async fn stream(
        self: Arc<Self>,
        kind: Kind,
        call: Call,
        caller: Option<Arc<Caller>>,
    ) -> Result<Response<Steps<Delivery>>, Status> {
        let mut admitted = self.admit(call, caller).await?;
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

    async fn fetch_jwt(
        self: Arc<Self>,
        mut call: Call,
        caller: Option<Arc<Caller>>,
        request: wire::JwtsvidRequest,
    ) -> Result<Response<Bytes>, Status> {
        let asked = match asked_id(&request) {
            Ok(asked) => asked,
            Err(refusal) => return Err(call.ends(refusal)),
        };
        let mut admitted = self.admit(call, caller).await?;
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
        asked: Option<SpiffeId>,
    ) -> Result<Bytes, Refusal> {
        let fetch = || {
            let (selectors, audience, asked) = (admitted.selectors.clone(), audience.clone(), asked.clone());
            async move {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => Err(Refusal::Stopping),
                    grants = self.supply.fetch_jwt(selectors, audience, asked) => match grants {
                        Ok(grants) if grants.is_empty() => Err(Refusal::NoIdentity),
                        Ok(grants) => Ok(grants),
                        Err(JwtRefusal::NoIdentity) => Err(Refusal::NoIdentity),
                        Err(JwtRefusal::Unavailable(why)) => Err(Refusal::Mint(why)),
                    },
                }
            }
        };
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
        match grants {
            Err(Refusal::NoIdentity) => Err(self.refuse(admitted)),
            Err(other) => Err(other),
            Ok(grants) => {
                // Minting may have taken a while: only the process that asked may have the tokens.
                admitted.caller.still_same().map_err(|_| Refusal::ProcessChanged)?;
                for grant in &grants {
                    tracing::debug!(
                        subsystem_name = "endpoints",
                        service = SHORT_NAME,
                        method = admitted.call.method,
                        pid = admitted.caller.pid,
                        registered = true,
                        spiffe_id = %grant.svid.id,
                        "Fetched JWT SVID"
                    );
                }
                jwt_answer(&grants)
            }
        }
    }

    async fn validate(
        self: Arc<Self>,
        mut call: Call,
        caller: Option<Arc<Caller>>,
        request: wire::ValidateJwtsvidRequest,
    ) -> Result<Response<Bytes>, Status> {
        if let Err(refusal) = validate::check(&request) {
            return Err(call.ends(refusal));
        }
        let mut admitted = self.admit(call, caller).await?;
        let answer = async {
            let mut feed = self.subscribe(&admitted, Want::Bundles).await?;
            let visible = self.next(&mut feed).await?;
            let now = (self.clock)().wall;
            let keys = self.book.keys(&visible);
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

fn asked_id(request: &wire::JwtsvidRequest) -> Result<Option<SpiffeId>, Refusal> {
    if request.audience.is_empty() || request.audience.iter().any(String::is_empty) {
        return Err(Refusal::AudienceMissing);
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
                Some(update) => update,
                None => self.workload.next(&mut self.feed).await?,
            };
            if update.matched == 0 && !self.lenient {
                return Err(self.workload.refuse(&self.admitted));
            }
            if self.kind == Kind::X509Svid && update.identities.is_empty() {
                continue; // entitled, but still being signed
            }
            self.admitted.caller.still_same().map_err(|error| {
                tracing::warn!(
                    subsystem_name = "endpoints",
                    pid = self.admitted.caller.pid,
                    %error,
                    "Ended a stream"
                );
                Refusal::ProcessChanged
            })?;
            let encoded = self.workload.book.answer(self.kind, &update)?;
            if self.last != Some(encoded.mark) {
                self.last = Some(encoded.mark);
                self.told(&update);
                return Ok(encoded.bytes);
            }
        }
    }

    fn told(&self, update: &WorkloadUpdate) {
        if self.kind != Kind::X509Svid {
            return;
        }
        let now = (self.workload.clock)().wall;
        for identity in &update.identities {
            tracing::debug!(
                subsystem_name = "endpoints",
                service = SHORT_NAME,
                method = self.admitted.call.method,
                pid = self.admitted.caller.pid,
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

/// The service as tonic's router wants it.
#[derive(Clone)]
pub struct WorkloadService(pub(super) Arc<Workload>);

impl std::fmt::Debug for WorkloadService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WorkloadService")
    }
}

impl tonic::server::NamedService for WorkloadService {
    const NAME: &'static str = SERVICE;
}

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

impl tower::Service<http::Request<Body>> for WorkloadService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let workload = self.0.clone();
        Box::pin(async move { Ok(workload.route(request).await) })
    }
}

fn has_header(request: &http::Request<Body>) -> bool {
    let mut values = request.headers().get_all(HEADER).iter();
    values.next().is_some_and(|value| value.as_bytes() == b"true") && values.next().is_none()
}

impl Workload {
    /// Header rule, then the method; nothing of the body is read before both hold.
    async fn route(self: Arc<Self>, request: http::Request<Body>) -> http::Response<Body> {
        if !has_header(&request) {
            return Status::from(Refusal::HeaderMissing).into_http();
        }
        let caller = request.extensions().get::<Arc<Caller>>().cloned();
        let name = request.uri().path().strip_prefix("/SpiffeWorkloadAPI/").unwrap_or_default().to_owned();
        match name.as_str() {
            "FetchX509SVID" => {
                let call = self.call("FetchX509SVID", caller.as_ref());
                streaming::<wire::X509svidRequest, _, _>(request, self.stream(Kind::X509Svid, call, caller))
                    .await
            }
            "FetchX509Bundles" => {
                let call = self.call("FetchX509Bundles", caller.as_ref());
                streaming::<wire::X509BundlesRequest, _, _>(
                    request,
                    self.stream(Kind::X509Bundles, call, caller),
                )
                .await
            }
            "FetchJWTBundles" => {
                let call = self.call("FetchJWTBundles", caller.as_ref());
                streaming::<wire::JwtBundlesRequest, _, _>(
                    request,
                    self.stream(Kind::JwtBundles, call, caller),
                )
                .await
            }
            "FetchJWTSVID" => {
                let call = self.call("FetchJWTSVID", caller.as_ref());
                unary(request, |message| self.fetch_jwt(call, caller, message)).await
            }
            "ValidateJWTSVID" => {
                let call = self.call("ValidateJWTSVID", caller.as_ref());
                unary(request, |message| self.validate(call, caller, message)).await
            }
            "FetchWITSVID" => Status::from(Refusal::WitSvid).into_http(),
            "FetchWITBundles" => Status::from(Refusal::WitBundles).into_http(),
            other => Status::from(Refusal::UnknownMethod(other.to_owned())).into_http(),
        }
    }
}

/// Runs `handle` on a request without content.
async fn streaming<R, F, S>(request: http::Request<Body>, handle: F) -> http::Response<Body>
where
    R: prost::Message + Default + Send + 'static,
    F: Future<Output = Result<Response<Steps<S>>, Status>> + Send + 'static,
    S: Step,
{
    let mut handle = Some(handle);
    let service = tower::service_fn(move |_: Request<R>| {
        let handle = handle.take();
        async move {
            match handle {
                Some(handle) => handle.await,
                None => Err(Status::internal("a request was handled twice")),
            }
        }
    });
    let mut grpc =
        tonic::server::Grpc::new(EncodedCodec::<R>::default()).max_decoding_message_size(REQUEST_MAX);
    grpc.server_streaming(service, request).await
}

/// Runs `handle` on the message of the request.
async fn unary<R, H, F>(request: http::Request<Body>, handle: H) -> http::Response<Body>
where
    R: prost::Message + Default + Send + 'static,
    H: FnOnce(R) -> F + Send + 'static,
    F: Future<Output = Result<Response<Bytes>, Status>> + Send + 'static,
{
    let mut handle = Some(handle);
    let service = tower::service_fn(move |request: Request<R>| {
        let handle = handle.take();
        async move {
            match handle {
                Some(handle) => handle(request.into_inner()).await,
                None => Err(Status::internal("a request was handled twice")),
            }
        }
    });
    let mut grpc =
        tonic::server::Grpc::new(EncodedCodec::<R>::default()).max_decoding_message_size(REQUEST_MAX);
    grpc.unary(service, request).await
}
