//! The gate every call passes: does the method exist here, may the caller use it, how did it end.
//!
//! Nothing is served around it, and nothing behind it asks again who calls.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use avouch::rpc;
use avouch_domain::{Entry, SpiffeId, Tick, Timestamp};
use avouch_proto::convert::permission_denied;
use avouch_proto::types::permission_denied_details::Reason;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use serde_json::{Map, Value};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::Service;
use uuid::Uuid;

use crate::api::authz::{Bucket, Found, Known, Method, Role, Verdict, find, judge};
use crate::api::call::{Call, Connection};
use crate::api::caller::{CallerSvid, Peer};
use crate::api::rate::{RateError, RateLimiter};
use crate::api::status::write_failed;
use crate::audit_log::log_fields;
use crate::clock::Clock;
use crate::drain::Drain;
use crate::limits::{ATTEST_PER_SECOND, POST_STATUS_PER_SECOND, SIGN_JWT_PER_SECOND, SIGN_X509_PER_SECOND};
use crate::metrics::Metrics;
use crate::service::{AgentRefusal, Services};

/// How methods begin that only read: one page makes many of these.
const READS: [&str; 3] = ["List", "Get", "Overview"];

/// The limiters, one per bucket; `None` = switched off by the configuration.
#[derive(Debug)]
pub struct Limits {
    attest: Option<RateLimiter>,
    sign_x509: Option<RateLimiter>,
    sign_jwt: Option<RateLimiter>,
    post_status: RateLimiter,
}

impl Limits {
    /// The limiters that the configuration wants; PostStatus is always limited.
    #[must_use]
    pub fn new(attestation: bool, signing: bool, clock: Clock) -> Self {
        let limiter = |on: bool, per_second| on.then(|| RateLimiter::new(per_second, clock));
        Self {
            attest: limiter(attestation, ATTEST_PER_SECOND),
            sign_x509: limiter(signing, SIGN_X509_PER_SECOND),
            sign_jwt: limiter(signing, SIGN_JWT_PER_SECOND),
            post_status: RateLimiter::new(POST_STATUS_PER_SECOND, clock),
        }
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// As [`RateLimiter::take`].
    pub async fn take(
        &self,
        bucket: Bucket,
        address: IpAddr,
        cost: u32,
        deadline: Option<Duration>,
    ) -> Result<(), RateError> {
        let limiter = match bucket {
            Bucket::Attest => self.attest.as_ref(),
            Bucket::SignX509 => self.sign_x509.as_ref(),
            Bucket::SignJwt => self.sign_jwt.as_ref(),
            Bucket::PostStatus => Some(&self.post_status),
        };
        match limiter {
            Some(limiter) => limiter.take(address, cost, deadline).await,
            None => Ok(()),
        }
    }
}

/// Everything a call is judged by and measured with.
pub struct Gate {
    pub services: Services,
    pub admin_ids: BTreeSet<SpiffeId>,
    pub limits: Limits,
    pub metrics: Metrics,
    pub audit_log: bool,
    pub clock: Clock,
    pub drain: Drain,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Known for Gate {
    fn is_admin_id(&self, id: &SpiffeId) -> bool {
        self.admin_ids.contains(id)
    }
    fn entries_of(&self, wall: Timestamp, id: &SpiffeId) -> Vec<Entry> {
        self.services.caller_entries(wall, id)
    }
}

impl Gate {
    /// The fields by which log lines name a call that may not have been let in.
    #[must_use]
    pub fn call_fields(&self, method: &Method, peer: &Peer, request_id: Uuid) -> Map<String, Value> {
        let mut fields = Map::new();
        let mut put = |name: &str, value: String| fields.insert(name.to_owned(), value.into());
        put("subsystem_name", "api".into());
        put("service", method.short_service().into());
        put("method", method.name.into());
        put("request_id", request_id.to_string());
        if let Peer::Remote { address, .. } = peer {
            put("caller_addr", address.to_string());
        }
        if let Peer::Page(visitor) = peer {
            put("caller_person", visitor.person.to_string());
        }
        if let Some(id) = peer.id() {
            put("caller_id", id.to_string());
        }
        fields
    }

    async fn authorize(&self, method: &'static Method, peer: &Peer) -> Result<Role, Status> {
        let denied = || format!("authorization denied for method {}", method.path());
        match judge(method, peer, self, (self.clock)().wall) {
            Verdict::Allowed(role) => Ok(role),
            Verdict::Unauthenticated(why) => Err(Status::unauthenticated(why)),
            Verdict::Denied => Err(Status::permission_denied(denied())),
            Verdict::Hidden => Err(Status::permission_denied(format!(
                "{}: this server does not see its caller's ancestors, so it can't tell a person from an `avouch run`; \
                 let it see processes (no hidepid), and call from its own PID namespace",
                denied()
            ))),
            Verdict::OfARun => Err(Status::permission_denied(format!(
                "{}: the caller descends from an `avouch run`, and what runs there is no person",
                denied()
            ))),
            Verdict::IfAgent(svid) => match self.check_agent(&svid).await? {
                None => Ok(Role::Agent),
                Some(reason) => Err(permission_denied(reason, denied())),
            },
        }
    }

    /// Why the agent with this SVID is refused; `None` = it is in good standing.
    ///
    /// # Errors
    /// The store's failure to note the first use of a renewed SVID.
    pub async fn check_agent(&self, svid: &CallerSvid) -> Result<Option<Reason>, Status> {
        let now = (self.clock)();
        if svid.not_after <= now.wall {
            return Ok(Some(Reason::AgentExpired));
        }
        let judged = self.services.authorize_agent(now, &svid.id, &svid.serial).await;
        Ok(match judged.map_err(|e| write_failed("unable to look up agent information", &e))? {
            Ok(()) => None,
            Err(AgentRefusal::Expired) => Some(Reason::AgentExpired),
            Err(AgentRefusal::NotAttested) => Some(Reason::AgentNotAttested),
            Err(AgentRefusal::NotActive) => Some(Reason::AgentNotActive),
            Err(AgentRefusal::Banned) => Some(Reason::AgentBanned),
        })
    }

    /// What people and admins do here leaves a line even if the audit log, which says the same, is off.
    fn log_local(&self, call: &Call) {
        if self.audit_log {
            return;
        }
        if let Peer::Page(_) = &*call.connection.peer
            && !READS.iter().any(|word| call.method.name.starts_with(word))
        {
            log_fields(call.fields(), "Done on a page");
        }
        if let Peer::Local(local) = &*call.connection.peer
            && call.method.short_service() != "Health"
        {
            let mut fields = call.fields();
            fields.insert("caller_uid".into(), local.uid.into());
            fields.insert("caller_gid".into(), local.gid.into());
            if let Some(pid) = local.pid {
                fields.insert("caller_pid".into(), pid.into());
            }
            if let Some(exe) = &local.exe {
                fields.insert("caller_path".into(), exe.as_str().into());
            }
            log_fields(fields, "Admin socket called");
        }
    }
}

/// The whole API of one kind of listener, behind its gate. Cheap to clone: one clone per connection.
#[derive(Clone, Debug)]
pub struct Stack {
    gate: Arc<Gate>,
    routes: Routes,
}

impl Stack {
    #[must_use]
    pub fn new(gate: Arc<Gate>, routes: Routes) -> Self {
        Self { gate, routes: routes.prepare() }
    }

    #[must_use]
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Answers one call of `connection`.
    pub async fn answer(
        mut self,
        mut request: Request<Body>,
        connection: Connection,
    ) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path().to_owned();
        let method = match find(&path, connection.peer.is_local()) {
            Found::Method(method) => method,
            unknown => return Ok(unknown_path(&path, unknown).into_http()),
        };
        let started = (self.gate.clock)().mono;
        let ending = Ending { gate: self.gate.clone(), method, started };
        let request_id = Uuid::new_v4();
        let role = match self.gate.authorize(method, &connection.peer).await {
            Ok(role) => role,
            Err(status) => {
                let mut fields = self.gate.call_fields(method, &connection.peer, request_id);
                let code = rpc::code_name(status.code());
                let error = format!("rpc error: code = {code} desc = {}", status.message());
                fields.insert("error".into(), error.into());
                log_refusal(fields);
                ending.report(status.code());
                return Ok(status.into_http());
            }
        };
        let deadline = rpc::timeout(request.headers());
        let call = Call { method, connection, role, request_id, deadline, gate: self.gate.clone() };
        self.gate.log_local(&call);
        request.extensions_mut().insert(Arc::new(call));
        let over = self.gate.drain.over().clone();
        let late = async {
            match deadline {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        };
        let routed = self.routes.call(request);
        let response = tokio::select! {
            response = routed => response?,
            () = late => Status::deadline_exceeded("context deadline exceeded").into_http(),
            () = over.cancelled() => Status::unavailable("server is stopping").into_http(),
        };
        Ok(ending.follow(response))
    }
}

fn log_refusal(fields: Map<String, Value>) {
    let json = Value::Object(fields).to_string();
    tracing::error!(json_fields = json.as_str(), "Failed to authenticate caller");
}

fn unknown_path(path: &str, found: Found) -> Status {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    Status::unimplemented(match found {
        // Known to the protocol and offered by nobody.
        Found::NoMethod if service == "grpc.health.v1.Health" => format!("method {method} not implemented"),
        Found::NoMethod => format!("unknown method {method} for service {service}"),
        _ => format!("unknown service {service}"),
    })
}

/// Reports how a call ended, once.
#[derive(Debug)]
struct Ending {
    gate: Arc<Gate>,
    method: &'static Method,
    started: Tick,
}

impl Ending {
    fn report(&self, code: Code) {
        // An agent ends a finished sync by cancelling it.
        let code = match (self.method.name, code) {
            ("SyncAuthorizedEntries", Code::Cancelled) => Code::Ok,
            (_, code) => code,
        };
        let elapsed = (self.gate.clock)().mono.since(self.started);
        self.gate.metrics.rpc(self.method.short_service(), self.method.name, code, elapsed);
    }

    /// Watches the body of the answer to its end; the drain of the server ends it with `Unavailable`.
    fn follow(self, mut response: Response<Body>) -> Response<Body> {
        rpc::reword_too_large(response.headers_mut());
        if let Some(code) = code_in(response.headers()) {
            self.report(code);
            return response;
        }
        let drain = &self.gate.drain;
        let stopping = if self.method.drains_itself { drain.over() } else { drain.begun() };
        let stopping = stopping.clone().cancelled_owned();
        response.map(|inner| Body::new(Followed { inner, ending: Some(self), stopping: Box::pin(stopping) }))
    }
}

fn code_in(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

/// The body of an answer on its way out.
struct Followed {
    inner: Body,
    /// Taken when the call ended.
    ending: Option<Ending>,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Followed {
    fn finish(&mut self, code: Code) {
        if let Some(ending) = self.ending.take() {
            ending.report(code);
        }
    }
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ending.is_none() {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    rpc::reword_too_large(trailers);
                    let code = code_in(trailers).unwrap_or(Code::Unknown);
                    self.finish(code);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(status))) => {
                self.finish(status.code());
                Poll::Ready(Some(Err(status)))
            }
            Poll::Ready(None) => {
                self.finish(Code::Ok);
                Poll::Ready(None)
            }
            Poll::Pending => {
                // Nothing to send now: if the server stops, this is where the stream is told.
                ready!(self.stopping.as_mut().poll(cx));
                self.finish(Code::Unavailable);
                self.inner = Body::empty();
                let mut trailers = HeaderMap::new();
                Poll::Ready(match Status::unavailable("server is stopping").add_header(&mut trailers) {
                    Ok(()) => Some(Ok(Frame::trailers(trailers))),
                    Err(status) => Some(Err(status)),
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ending.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.finish(Code::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[tokio::test]
    async fn each_bucket_holds_the_work_of_one_second() {
        let limits = Limits::new(true, true, crate::clock::now);
        let buckets =
            [(Bucket::Attest, 1), (Bucket::SignX509, 500), (Bucket::SignJwt, 500), (Bucket::PostStatus, 10)];
        for (bucket, burst) in buckets {
            let asked = burst + 1;
            assert_eq!(
                limits.take(bucket, ADDRESS, asked, None).await,
                Err(RateError::Burst { asked, burst })
            );
            assert_eq!(limits.take(bucket, ADDRESS, burst, None).await, Ok(()));
        }
    }

    #[tokio::test]
    async fn limits_that_are_switched_off_let_everything_through_save_status() {
        let limits = Limits::new(false, false, crate::clock::now);
        for bucket in [Bucket::Attest, Bucket::SignX509, Bucket::SignJwt] {
            assert_eq!(limits.take(bucket, ADDRESS, u32::MAX, None).await, Ok(()));
        }
        assert!(limits.take(Bucket::PostStatus, ADDRESS, 11, None).await.is_err());
    }

    #[test]
    fn unknown_paths_are_named_as_other_servers_name_them() {
        let text = |path: &str| unknown_path(path, find(path, false)).message().to_owned();
        assert_eq!(
            text("/spire.api.server.debug.v1.Debug/GetInfo"),
            "unknown service spire.api.server.debug.v1.Debug"
        );
        assert_eq!(
            text("/spire.api.server.agent.v1.Agent/Nope"),
            "unknown method Nope for service spire.api.server.agent.v1.Agent"
        );
        let list = "/grpc.health.v1.Health/List";
        assert_eq!(unknown_path(list, find(list, true)).message(), "method List not implemented");
    }
}
