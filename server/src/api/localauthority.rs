//! LocalAuthority service: the authorities this server signs with, and what operators do with them by hand.
//!
//! Never shows or touches another server's authorities.

use avouch_domain::{Authority, AuthorityKind, SlotState};
use avouch_proto::localauthority_v1 as wire;
use avouch_proto::localauthority_v1::local_authority_server::LocalAuthority;
use tonic::{Request, Response, Status};

use crate::api::call::{Call, open};
use crate::api::status::order_failed;
use crate::service::{Order, Services};

/// The service over TCP and on the admin socket.
#[derive(Clone)]
pub struct LocalAuthorityApi {
    pub services: Services,
}

impl std::fmt::Debug for LocalAuthorityApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LocalAuthorityApi")
    }
}

/// An authority on the wire. None of ours is signed by an authority above it.
fn state(authority: &Authority) -> wire::AuthorityState {
    wire::AuthorityState {
        authority_id: authority.id.to_string(),
        expires_at: authority.not_after.secs(),
        upstream_authority_subject_key_id: String::new(),
    }
}

/// As SPIRE shows an authority whose end it does not tell.
fn named(id: &str) -> Option<wire::AuthorityState> {
    Some(wire::AuthorityState { authority_id: id.to_owned(), ..Default::default() })
}

/// Active, prepared and old one.
type States = [Option<wire::AuthorityState>; 3];

impl LocalAuthorityApi {
    fn states(&self, call: &Call, kind: AuthorityKind) -> Result<States, Status> {
        let pair = self.services.authorities(kind).map_err(|e| order_failed(kind, "get", &e));
        let pair = call.audit().conclude(pair)?;
        let beside = |wanted| pair.other.as_ref().filter(|a| a.state == wanted).map(state);
        Ok([Some(state(&pair.active)), beside(SlotState::Prepared), beside(SlotState::Old)])
    }

    /// Does what the operator wants. `id` is empty for an order that names no authority.
    async fn order(
        &self,
        call: &Call,
        kind: AuthorityKind,
        id: &str,
        (verb, order): (&str, Order),
    ) -> Result<Option<wire::AuthorityState>, Status> {
        let mut line = call.audit();
        line.text("local_authority_id", id);
        let done = self.services.order(&call.actor(), kind, order).await;
        let done = line.conclude(done.map_err(|e| order_failed(kind, verb, &e)))?;
        Ok(done.as_ref().map(state))
    }
}

/// An order about an authority above ours, which there never is.
fn no_upstream<T>(call: &Call, subject_key_id: &str) -> Result<T, Status> {
    let mut line = call.audit();
    line.text("subject_key_id", subject_key_id);
    line.conclude(Err(Status::failed_precondition("upstream authority is not configured")))
}

fn no_wit<T>(call: &Call, id: &str) -> Result<T, Status> {
    let mut line = call.audit();
    line.text("local_authority_id", id);
    line.conclude(Err(Status::unimplemented("WIT-SVID functionality is not yet implemented")))
}

#[tonic::async_trait]
impl LocalAuthority for LocalAuthorityApi {
    async fn get_x509_authority_state(
        &self,
        request: Request<wire::GetX509AuthorityStateRequest>,
    ) -> Result<Response<wire::GetX509AuthorityStateResponse>, Status> {
        let (call, _) = open(request)?;
        let [active, prepared, old] = self.states(&call, AuthorityKind::X509)?;
        Ok(Response::new(wire::GetX509AuthorityStateResponse { active, prepared, old }))
    }

    async fn prepare_x509_authority(
        &self,
        request: Request<wire::PrepareX509AuthorityRequest>,
    ) -> Result<Response<wire::PrepareX509AuthorityResponse>, Status> {
        let (call, _) = open(request)?;
        let order = ("prepare", Order::Prepare);
        let prepared_authority = self.order(&call, AuthorityKind::X509, "", order).await?;
        Ok(Response::new(wire::PrepareX509AuthorityResponse { prepared_authority }))
    }

    async fn activate_x509_authority(
        &self,
        request: Request<wire::ActivateX509AuthorityRequest>,
    ) -> Result<Response<wire::ActivateX509AuthorityResponse>, Status> {
        let (call, request) = open(request)?;
        let id = request.authority_id;
        let order = ("activate", Order::Activate(id.as_str().into()));
        let activated_authority = self.order(&call, AuthorityKind::X509, &id, order).await?;
        Ok(Response::new(wire::ActivateX509AuthorityResponse { activated_authority }))
    }

    async fn taint_x509_authority(
        &self,
        request: Request<wire::TaintX509AuthorityRequest>,
    ) -> Result<Response<wire::TaintX509AuthorityResponse>, Status> {
        let (call, request) = open(request)?;
        let id = request.authority_id;
        let order = ("taint", Order::Taint(id.as_str().into()));
        let tainted_authority = self.order(&call, AuthorityKind::X509, &id, order).await?;
        Ok(Response::new(wire::TaintX509AuthorityResponse { tainted_authority }))
    }

    async fn revoke_x509_authority(
        &self,
        request: Request<wire::RevokeX509AuthorityRequest>,
    ) -> Result<Response<wire::RevokeX509AuthorityResponse>, Status> {
        let (call, request) = open(request)?;
        let id = request.authority_id;
        let order = ("revoke", Order::Revoke(id.as_str().into()));
        self.order(&call, AuthorityKind::X509, &id, order).await?;
        Ok(Response::new(wire::RevokeX509AuthorityResponse { revoked_authority: named(&id) }))
    }

    async fn get_jwt_authority_state(
        &self,
        request: Request<wire::GetJwtAuthorityStateRequest>,
    ) -> Result<Response<wire::GetJwtAuthorityStateResponse>, Status> {
        let (call, _) = open(request)?;
        let [active, prepared, old] = self.states(&call, AuthorityKind::Jwt)?;
        Ok(Response::new(wire::GetJwtAuthorityStateResponse { active, prepared, old }))
    }

    async fn prepare_jwt_authority(
        &self,
        request: Request<wire::PrepareJwtAuthorityRequest>,
    ) -> Result<Response<wire::PrepareJwtAuthorityResponse>, Status> {
        let (call, _) = open(request)?;
        let order = ("prepare", Order::Prepare);
        let prepared_authority = self.order(&call, AuthorityKind::Jwt, "", order).await?;
        Ok(Response::new(wire::PrepareJwtAuthorityResponse { prepared_authority }))
    }

    async fn activate_jwt_authority(
        &self,
        request: Request<wire::ActivateJwtAuthorityRequest>,
    ) -> Result<Response<wire::ActivateJwtAuthorityResponse>, Status> {
        let (call, request) = open(request)?;
        let id = request.authority_id;
        let order = ("activate", Order::Activate(id.as_str().into()));
        let activated_authority = self.order(&call, AuthorityKind::Jwt, &id, order).await?;
        Ok(Response::new(wire::ActivateJwtAuthorityResponse { activated_authority }))
    }

    async fn taint_jwt_authority(
        &self,
        request: Request<wire::TaintJwtAuthorityRequest>,
    ) -> Result<Response<wire::TaintJwtAuthorityResponse>, Status> {
        let (call, request) = open(request)?;
        let id = request.authority_id;
        let order = ("taint", Order::Taint(id.as_str().into()));
        self.order(&call, AuthorityKind::Jwt, &id, order).await?;
        Ok(Response::new(wire::TaintJwtAuthorityResponse { tainted_authority: named(&id) }))
    }

    async fn revoke_jwt_authority(
        &self,
        request: Request<wire::RevokeJwtAuthorityRequest>,
    ) -> Result<Response<wire::RevokeJwtAuthorityResponse>, Status> {
        let (call, request) = open(request)?;
        let id = request.authority_id;
        let order = ("revoke", Order::Revoke(id.as_str().into()));
        self.order(&call, AuthorityKind::Jwt, &id, order).await?;
        Ok(Response::new(wire::RevokeJwtAuthorityResponse { revoked_authority: named(&id) }))
    }

    async fn taint_x509_upstream_authority(
        &self,
        request: Request<wire::TaintX509UpstreamAuthorityRequest>,
    ) -> Result<Response<wire::TaintX509UpstreamAuthorityResponse>, Status> {
        let (call, request) = open(request)?;
        no_upstream(&call, &request.subject_key_id)
    }

    async fn revoke_x509_upstream_authority(
        &self,
        request: Request<wire::RevokeX509UpstreamAuthorityRequest>,
    ) -> Result<Response<wire::RevokeX509UpstreamAuthorityResponse>, Status> {
        let (call, request) = open(request)?;
        no_upstream(&call, &request.subject_key_id)
    }

    async fn get_wit_authority_state(
        &self,
        request: Request<wire::GetWitAuthorityStateRequest>,
    ) -> Result<Response<wire::GetWitAuthorityStateResponse>, Status> {
        let (call, _) = open(request)?;
        no_wit(&call, "")
    }

    async fn prepare_wit_authority(
        &self,
        request: Request<wire::PrepareWitAuthorityRequest>,
    ) -> Result<Response<wire::PrepareWitAuthorityResponse>, Status> {
        let (call, _) = open(request)?;
        no_wit(&call, "")
    }

    async fn activate_wit_authority(
        &self,
        request: Request<wire::ActivateWitAuthorityRequest>,
    ) -> Result<Response<wire::ActivateWitAuthorityResponse>, Status> {
        let (call, request) = open(request)?;
        no_wit(&call, &request.authority_id)
    }

    async fn taint_wit_authority(
        &self,
        request: Request<wire::TaintWitAuthorityRequest>,
    ) -> Result<Response<wire::TaintWitAuthorityResponse>, Status> {
        let (call, request) = open(request)?;
        no_wit(&call, &request.authority_id)
    }

    async fn revoke_wit_authority(
        &self,
        request: Request<wire::RevokeWitAuthorityRequest>,
    ) -> Result<Response<wire::RevokeWitAuthorityResponse>, Status> {
        let (call, request) = open(request)?;
        no_wit(&call, &request.authority_id)
    }
}
