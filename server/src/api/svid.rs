//! SVID service: certificates and tokens for agents' workloads, and minted by admins.
//!
//! Never logs a token; certificate requests appear in the audit log as digests.

use avouch_domain::{SpiffeId, Tick, Ttl};
use avouch_proto::convert::{spiffe_id_to_wire, workload_id, x509_svid_to_wire};
use avouch_proto::svid_v1::svid_server::Svid;
use avouch_proto::svid_v1::{
    BatchNewWitsvidRequest, BatchNewWitsvidResponse, BatchNewX509svidRequest, BatchNewX509svidResponse,
    MintJwtsvidRequest, MintJwtsvidResponse, MintWitsvidRequest, MintWitsvidResponse, MintX509svidRequest,
    MintX509svidResponse, NewDownstreamX509caRequest, NewDownstreamX509caResponse, NewJwtsvidRequest,
    NewJwtsvidResponse, batch_new_x509svid_response,
};
use avouch_proto::types;
use tonic::{Code, Request, Response, Status};

use crate::api::agent::id_text;
use crate::api::batch::wire_status;
use crate::api::call::{Call, open};
use crate::api::status::{invalid, jwt_failed, mint_x509_failed, x509_item_refused};
use crate::audit_log::AuditLine;
use crate::metrics::Signed;
use crate::service::{IssuedJwt, IssuedX509, JwtError, Services, X509ItemError, X509Param};

/// The service over TCP and on the admin socket.
#[derive(Clone)]
pub struct SvidApi {
    pub services: Services,
}

impl std::fmt::Debug for SvidApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SvidApi")
    }
}

fn wire_x509(svid: &IssuedX509) -> types::X509svid {
    x509_svid_to_wire(&svid.id, &svid.chain, svid.expires_at)
}

impl SvidApi {
    async fn mint_x509(
        &self,
        call: &Call,
        line: &mut AuditLine,
        request: &MintX509svidRequest,
    ) -> Result<IssuedX509, Status> {
        let since = call.now().mono;
        let minted = self.services.mint_x509_svid(call.now(), &request.csr, Ttl(request.ttl)).await;
        let svid = minted.map_err(|e| mint_x509_failed(&e))?;
        line.text("spiffe_id", svid.id.as_str());
        line.time("expires_at", svid.expires_at);
        note_signed(call, Signed::X509, &svid.id, since, 1);
        Ok(svid)
    }

    async fn mint_jwt(&self, call: &Call, request: MintJwtsvidRequest) -> Result<IssuedJwt, Status> {
        if self.services.settings().jwt_disabled {
            return Err(jwt_failed(&JwtError::Disabled));
        }
        let id = workload_id(self.services.trust_domain(), request.id.as_ref())
            .map_err(|e| invalid("invalid SPIFFE ID", &e))?;
        let since = call.now().mono;
        let minted = self.services.mint_jwt_svid(call.now(), &id, request.audience, Ttl(request.ttl)).await;
        let svid = minted.map_err(|e| jwt_failed(&e))?;
        note_signed(call, Signed::Jwt, &svid.id, since, 1);
        Ok(svid)
    }

    async fn new_jwt(&self, call: &Call, request: NewJwtsvidRequest) -> Result<IssuedJwt, Status> {
        call.wait_turn(1).await?;
        let caller = call.caller_id()?;
        let since = call.now().mono;
        let made = self.services.new_jwt_svid(call.now(), caller, &request.entry_id, request.audience).await;
        let svid = made.map_err(|e| jwt_failed(&e))?;
        note_signed(call, Signed::Jwt, &svid.id, since, 1);
        Ok(svid)
    }

    async fn batch(
        &self,
        call: &Call,
        params: Vec<X509Param>,
    ) -> Result<Vec<Result<IssuedX509, X509ItemError>>, Status> {
        if params.is_empty() {
            return Err(Status::invalid_argument("missing parameters"));
        }
        call.wait_turn(params.len()).await?;
        let caller = call.caller_id()?;
        Ok(self.services.batch_new_x509_svid(call.now(), caller, params).await)
    }
}

/// Notes one signature in log and metrics.
fn note_signed(call: &Call, what: Signed, id: &SpiffeId, since: Tick, share: u32) {
    tracing::debug!(subsystem_name = "ca", spiffe_id = %id, "Signed SVID");
    call.gate.metrics.signed(what, call.now().mono.since(since) / share.max(1));
}

fn wire_jwt(svid: &IssuedJwt) -> types::Jwtsvid {
    types::Jwtsvid {
        token: svid.token.to_string(),
        id: Some(spiffe_id_to_wire(&svid.id)),
        expires_at: svid.expires_at.secs(),
        issued_at: svid.issued_at.secs(),
        hint: String::new(),
    }
}

#[tonic::async_trait]
impl Svid for SvidApi {
    async fn mint_x509svid(
        &self,
        request: Request<MintX509svidRequest>,
    ) -> Result<Response<MintX509svidResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        if !request.csr.is_empty() {
            line.csr(&request.csr);
        }
        line.number("ttl", i64::from(request.ttl));
        let minted = self.mint_x509(&call, &mut line, &request).await;
        let svid = line.conclude(minted)?;
        Ok(Response::new(MintX509svidResponse { svid: Some(wire_x509(&svid)) }))
    }

    async fn mint_jwtsvid(
        &self,
        request: Request<MintJwtsvidRequest>,
    ) -> Result<Response<MintJwtsvidResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("spiffe_id", id_text(request.id.as_ref()));
        line.text("audience", request.audience.join(","));
        line.number("ttl", i64::from(request.ttl));
        let svid = line.conclude(self.mint_jwt(&call, request).await)?;
        Ok(Response::new(MintJwtsvidResponse { svid: Some(wire_jwt(&svid)) }))
    }

    async fn mint_witsvid(
        &self,
        request: Request<MintWitsvidRequest>,
    ) -> Result<Response<MintWitsvidResponse>, Status> {
        let (call, _) = open(request)?;
        call.audit().conclude(Err(wit_disabled()))
    }

    async fn batch_new_x509svid(
        &self,
        request: Request<BatchNewX509svidRequest>,
    ) -> Result<Response<BatchNewX509svidResponse>, Status> {
        let (call, request) = open(request)?;
        let lines: Vec<AuditLine> = request
            .params
            .iter()
            .map(|param| {
                let mut line = call.audit();
                line.text("entry_id", &param.entry_id);
                if !param.csr.is_empty() {
                    line.csr(&param.csr);
                }
                line
            })
            .collect();
        let params =
            request.params.into_iter().map(|p| X509Param { entry_id: p.entry_id, csr: p.csr }).collect();
        let since = call.now().mono;
        let made = match self.batch(&call, params).await {
            Ok(made) => made,
            Err(status) => return call.audit().conclude(Err(status)),
        };
        let share = u32::try_from(made.len()).unwrap_or(u32::MAX);
        let results = lines.into_iter().zip(made).map(|(mut line, made)| match made {
            Ok(svid) => {
                line.text("spiffe_id", svid.id.as_str());
                line.number("expires_at", svid.expires_at.secs());
                line.item(Code::Ok, "");
                note_signed(&call, Signed::X509, &svid.id, since, share);
                batch_new_x509svid_response::Result {
                    status: wire_status(None),
                    svid: Some(wire_x509(&svid)),
                }
            }
            Err(error) => {
                let refusal = x509_item_refused(&error);
                line.item(refusal.code, &refusal.message);
                batch_new_x509svid_response::Result { status: wire_status(Some(&refusal)), svid: None }
            }
        });
        Ok(Response::new(BatchNewX509svidResponse { results: results.collect() }))
    }

    async fn new_jwtsvid(
        &self,
        request: Request<NewJwtsvidRequest>,
    ) -> Result<Response<NewJwtsvidResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("entry_id", &request.entry_id);
        line.text("audience", request.audience.join(","));
        let made = self.new_jwt(&call, request).await;
        if let Ok(svid) = &made {
            line.text("spiffe_id", svid.id.as_str());
            line.number("ttl", svid.expires_at.secs() - svid.issued_at.secs());
        }
        let svid = line.conclude(made)?;
        Ok(Response::new(NewJwtsvidResponse { svid: Some(wire_jwt(&svid)) }))
    }

    async fn batch_new_witsvid(
        &self,
        request: Request<BatchNewWitsvidRequest>,
    ) -> Result<Response<BatchNewWitsvidResponse>, Status> {
        let (call, _) = open(request)?;
        call.audit().conclude(Err(wit_disabled()))
    }

    async fn new_downstream_x509ca(
        &self,
        request: Request<NewDownstreamX509caRequest>,
    ) -> Result<Response<NewDownstreamX509caResponse>, Status> {
        let (call, _) = open(request)?;
        call.audit().conclude(Err(Status::unimplemented("downstream authorities are not supported yet")))
    }
}

fn wit_disabled() -> Status {
    Status::unimplemented("WIT functionality is disabled")
}
