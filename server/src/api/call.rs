//! One call while it runs: who, as what, until when; its turn at the limits and its line in the audit log.
//!
//! Never decides access: a `Call` exists only after the gate let it in.

use std::sync::Arc;
use std::time::Duration;

use avouch_domain::{Now, SpiffeId};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};
use uuid::Uuid;

use crate::api::authz::{Method, Role};
use crate::api::caller::{CallerSvid, Leaf, Peer};
use crate::api::gate::Gate;
use crate::api::status::limited;
use crate::audit_log::AuditLine;

/// What all calls of one connection share.
#[derive(Clone, Debug)]
pub struct Connection {
    pub peer: Arc<Peer>,
    /// Cancelled when the connection was told to go away; long streams end and are opened anew elsewhere.
    pub leaving: CancellationToken,
}

/// A call that was let in.
#[derive(Clone)]
pub struct Call {
    pub method: &'static Method,
    pub connection: Connection,
    pub role: Role,
    pub request_id: Uuid,
    /// Time the caller gave the call, counted from its arrival.
    pub deadline: Option<Duration>,
    pub gate: Arc<Gate>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("method", &self.method.name).finish_non_exhaustive()
    }
}

/// Takes a request apart into its call and its message.
///
/// # Errors
/// Internal, if the request did not come through the gate: nothing is served around it.
pub fn open<T>(mut request: Request<T>) -> Result<(Arc<Call>, T), Status> {
    let call = request.extensions_mut().remove::<Arc<Call>>();
    call.map(|call| (call, request.into_inner())).ok_or_else(|| Status::internal("call was not authorized"))
}

impl Call {
    /// The time, as the gate's clock says.
    #[must_use]
    pub fn now(&self) -> Now {
        (self.gate.clock)()
    }

    /// How audit rows name the caller.
    #[must_use]
    pub fn actor(&self) -> String {
        self.connection.peer.actor()
    }

    /// The caller's SVID.
    ///
    /// # Errors
    /// Internal for a caller without one: methods of agents are never reached so.
    pub fn svid(&self) -> Result<&CallerSvid, Status> {
        match &*self.connection.peer {
            Peer::Remote { leaf: Leaf::Svid(svid), .. } => Ok(svid),
            _ => Err(Status::internal("caller ID missing from request context")),
        }
    }

    /// The caller's SPIFFE ID.
    ///
    /// # Errors
    /// As [`Call::svid`].
    pub fn caller_id(&self) -> Result<&SpiffeId, Status> {
        self.svid().map(|svid| &svid.id)
    }

    /// Waits until the caller's address may do `cost` units of the method's limited work.
    ///
    /// # Errors
    /// `ResourceExhausted` if waiting is of no use.
    pub async fn wait_turn(&self, cost: usize) -> Result<(), Status> {
        let (Some(limit), Peer::Remote { address, .. }) = (self.method.limit, &*self.connection.peer) else {
            return Ok(());
        };
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        let since = self.now().mono;
        let turn = self.gate.limits.take(limit.bucket, address.ip(), cost, self.deadline).await;
        let turn = turn.map_err(|error| limited(limit.work, &error));
        let code = turn.as_ref().map_or_else(Status::code, |()| Code::Ok);
        let (service, method) = (self.method.short_service(), self.method.name);
        self.gate.metrics.rate_limit(service, method, code, self.now().mono.since(since));
        turn
    }

    /// The fields by which log lines name this call.
    #[must_use]
    pub fn fields(&self) -> Map<String, Value> {
        let (role, via) = self.role.words();
        let mut fields = self.gate.call_fields(self.method, &self.connection.peer, self.request_id);
        fields.insert("authorized_as".into(), role.into());
        fields.insert("authorized_via".into(), via.into());
        fields
    }

    /// Begins an audit line.
    pub fn audit(&self) -> AuditLine {
        if self.gate.audit_log {
            AuditLine::new(self.fields(), &self.connection.peer)
        } else {
            AuditLine::off()
        }
    }
}
