//! Bundle service: the public authorities of our trust domain and of those we federate with.
//!
//! Never accepts bytes as an authority that are no certificate or no key.

use std::sync::Arc;

use avouch_credential::key::PublicKey;
use avouch_credential::x509::facts::CertFacts;
use avouch_domain::{Bundle as DomainBundle, JwtAuthority, TrustDomain, X509Authority};
use avouch_proto::bundle_v1::bundle_server::Bundle;
use avouch_proto::bundle_v1::{
    AppendBundleRequest, BatchCreateFederatedBundleRequest, BatchCreateFederatedBundleResponse,
    BatchDeleteFederatedBundleRequest, BatchDeleteFederatedBundleResponse, BatchSetFederatedBundleRequest,
    BatchSetFederatedBundleResponse, BatchUpdateFederatedBundleRequest, BatchUpdateFederatedBundleResponse,
    CountBundlesRequest, CountBundlesResponse, GetBundleRequest, GetFederatedBundleRequest,
    ListFederatedBundlesRequest, ListFederatedBundlesResponse, PublishJwtAuthorityRequest,
    PublishJwtAuthorityResponse, PublishWitAuthorityRequest, PublishWitAuthorityResponse,
    batch_create_federated_bundle_response, batch_delete_federated_bundle_request::Mode,
    batch_delete_federated_bundle_response, batch_set_federated_bundle_response,
    batch_update_federated_bundle_response,
};
use avouch_proto::convert::{
    BundleInput, ConvertError, bundle_input, bundle_to_wire, jwt_authorities, trust_domain, x509_authorities,
};
use avouch_proto::types;
use tonic::{Code, Request, Response, Status};

use crate::api::batch::{self, ItemError, wire_status};
use crate::api::call::{Call, open};
use crate::api::status::{Refusal, bad_token, bundle_refused, invalid, write_failed, write_refused};
use crate::audit_log::AuditLine;
use crate::service::{BundleError, BundlePatch, DeleteMode, PageRequest, Services};

/// The service over TCP and on the admin socket.
#[derive(Clone)]
pub struct BundleApi {
    pub services: Services,
}

impl std::fmt::Debug for BundleApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BundleApi")
    }
}

/// Refuses bytes that are no certificate.
fn check_x509(list: &[X509Authority]) -> Result<(), ConvertError> {
    list.iter().try_for_each(|authority| {
        let parsed = CertFacts::parse(&authority.der).map(drop);
        parsed.map_err(|e| ConvertError::Unreadable(e.to_string()))
    })
}

/// Refuses bytes that are no public key.
fn check_jwt(list: &[JwtAuthority]) -> Result<(), ConvertError> {
    list.iter().try_for_each(|authority| {
        let parsed = PublicKey::from_pkix(&authority.public_key).map(drop);
        parsed.map_err(|e| ConvertError::Unreadable(e.to_string()))
    })
}

impl BundleApi {
    async fn append(&self, call: &Call, request: &AppendBundleRequest) -> Result<Arc<DomainBundle>, Status> {
        if request.x509_authorities.is_empty() && request.jwt_authorities.is_empty() {
            return Err(Status::invalid_argument("no authorities to append"));
        }
        let x509 = x509_authorities(&request.x509_authorities)
            .and_then(|list| check_x509(&list).map(|()| list))
            .map_err(|e| invalid("failed to convert X.509 authority", &e))?;
        let jwt = jwt_authorities(&request.jwt_authorities)
            .and_then(|list| check_jwt(&list).map(|()| list))
            .map_err(|e| invalid("failed to convert JWT authority", &e))?;
        let appended = self.services.append_bundle(call.now(), &call.actor(), x509, jwt).await;
        appended.map_err(|e| write_failed("failed to append bundle", &e))
    }

    fn federated(&self, text: &str) -> Result<Arc<DomainBundle>, Status> {
        let domain = trust_domain(text).map_err(|e| invalid("trust domain argument is not valid", &e))?;
        if domain == *self.services.trust_domain() {
            return Err(own_domain("getting").into());
        }
        let found = self.services.get_federated_bundle(&domain);
        found.ok_or_else(|| Status::not_found("bundle not found"))
    }

    /// Reads one item of a create, update or set request.
    fn read(
        &self,
        wire: &types::Bundle,
        mask: Option<&types::BundleMask>,
        verb: &str,
    ) -> Result<BundleInput, Refusal> {
        let domain = trust_domain(&wire.trust_domain)
            .map_err(|e| invalid("trust domain argument is not valid", &e))?;
        if domain == *self.services.trust_domain() {
            return Err(own_domain(verb));
        }
        let input = bundle_input(domain, wire, mask).and_then(|input| {
            check_x509(input.x509_authorities.as_deref().unwrap_or_default())
                .map_err(|e| e.within("unable to parse X.509 authority"))?;
            check_jwt(input.jwt_authorities.as_deref().unwrap_or_default())
                .map_err(|e| e.within("unable to parse JWT authority"))?;
            Ok(input)
        });
        input.map_err(|e| invalid("failed to convert bundle", &e))
    }
}

fn own_domain(verb: &str) -> Refusal {
    Refusal::plain(
        Code::InvalidArgument,
        format!("{verb} a federated bundle for the server's own trust domain is not allowed"),
    )
}

/// SPIRE has other words for this one verb.
fn own_removed() -> Refusal {
    let text = "removing the bundle for the server trust domain is not allowed";
    Refusal::plain(Code::InvalidArgument, text.to_owned())
}

/// A whole bundle of an item without input mask.
fn whole(input: BundleInput) -> DomainBundle {
    DomainBundle {
        trust_domain: input.trust_domain,
        x509_authorities: input.x509_authorities.unwrap_or_default(),
        jwt_authorities: input.jwt_authorities.unwrap_or_default(),
        refresh_hint: input.refresh_hint.unwrap_or_default(),
        sequence_number: input.sequence_number.unwrap_or_default(),
    }
}

fn patch(input: BundleInput) -> BundlePatch {
    BundlePatch {
        trust_domain: input.trust_domain,
        x509_authorities: input.x509_authorities,
        jwt_authorities: input.jwt_authorities,
        refresh_hint: input.refresh_hint,
        sequence_number: input.sequence_number,
    }
}

type Written = Result<Arc<DomainBundle>, ItemError<BundleError>>;

/// Status and bundle of one written item, and its audit line.
fn outcome(
    call: &Call,
    wire: &types::Bundle,
    gist: &str,
    written: Written,
    mask: Option<&types::BundleMask>,
) -> (Option<types::Status>, Option<types::Bundle>) {
    let refusal = refusal_of(gist, written.as_ref().err());
    let mut line = call.audit();
    line.text("trust_domain_id", &wire.trust_domain);
    line.number("refresh_hint", wire.refresh_hint);
    line.number("sequence_number", i64::try_from(wire.sequence_number).unwrap_or(i64::MAX));
    conclude(line, refusal.as_ref());
    let bundle = written.ok().map(|bundle| bundle_to_wire(&bundle, mask));
    (wire_status(refusal.as_ref()), bundle)
}

fn refusal_of(gist: &str, error: Option<&ItemError<BundleError>>) -> Option<Refusal> {
    Some(match error? {
        ItemError::Read(refusal) => refusal.clone(),
        ItemError::Write(error) => bundle_refused(gist, error),
        ItemError::Machinery(error) => write_refused(gist, error),
    })
}

fn conclude(line: AuditLine, refusal: Option<&Refusal>) {
    match refusal {
        None => line.item(Code::Ok, ""),
        Some(refusal) => line.item(refusal.code, &refusal.message),
    }
}

#[tonic::async_trait]
impl Bundle for BundleApi {
    async fn count_bundles(
        &self,
        request: Request<CountBundlesRequest>,
    ) -> Result<Response<CountBundlesResponse>, Status> {
        let (call, _) = open(request)?;
        let count = i32::try_from(self.services.count_bundles()).unwrap_or(i32::MAX);
        call.audit().item(Code::Ok, "");
        Ok(Response::new(CountBundlesResponse { count }))
    }

    async fn get_bundle(
        &self,
        request: Request<GetBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let (call, request) = open(request)?;
        let bundle = self.services.bundle();
        let empty = bundle.x509_authorities.is_empty() && bundle.jwt_authorities.is_empty();
        let found = if empty { Err(Status::not_found("bundle not found")) } else { Ok(bundle) };
        let bundle = call.audit().conclude(found)?;
        if let Some(agent) = call.connection.peer.id().filter(|id| id.is_agent()) {
            self.services.note_bundle_served(agent);
        }
        Ok(Response::new(bundle_to_wire(&bundle, request.output_mask.as_ref())))
    }

    async fn append_bundle(
        &self,
        request: Request<AppendBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("trust_domain_id", self.services.trust_domain().as_str());
        let bundle = line.conclude(self.append(&call, &request).await)?;
        Ok(Response::new(bundle_to_wire(&bundle, request.output_mask.as_ref())))
    }

    async fn publish_jwt_authority(
        &self,
        request: Request<PublishJwtAuthorityRequest>,
    ) -> Result<Response<PublishJwtAuthorityResponse>, Status> {
        let (call, _) = open(request)?;
        call.audit().conclude(Err(Status::unimplemented("downstream authorities are not supported yet")))
    }

    async fn publish_wit_authority(
        &self,
        request: Request<PublishWitAuthorityRequest>,
    ) -> Result<Response<PublishWitAuthorityResponse>, Status> {
        let (call, _) = open(request)?;
        call.audit().conclude(Err(Status::unimplemented("WIT-SVID functionality is not yet implemented")))
    }

    async fn list_federated_bundles(
        &self,
        request: Request<ListFederatedBundlesRequest>,
    ) -> Result<Response<ListFederatedBundlesResponse>, Status> {
        let (call, request) = open(request)?;
        let page = PageRequest { size: request.page_size, token: request.page_token };
        let listed = self.services.list_federated_bundles(&page);
        let listed = listed.map_err(|e| bad_token("failed to list bundles", &e));
        let listed = call.audit().conclude(listed)?;
        let mask = request.output_mask.as_ref();
        Ok(Response::new(ListFederatedBundlesResponse {
            bundles: listed.items.iter().map(|bundle| bundle_to_wire(bundle, mask)).collect(),
            next_page_token: listed.next_token,
        }))
    }

    async fn get_federated_bundle(
        &self,
        request: Request<GetFederatedBundleRequest>,
    ) -> Result<Response<types::Bundle>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("trust_domain_id", &request.trust_domain);
        let bundle = line.conclude(self.federated(&request.trust_domain))?;
        Ok(Response::new(bundle_to_wire(&bundle, request.output_mask.as_ref())))
    }

    async fn batch_create_federated_bundle(
        &self,
        request: Request<BatchCreateFederatedBundleRequest>,
    ) -> Result<Response<BatchCreateFederatedBundleResponse>, Status> {
        let (call, request) = open(request)?;
        let items = request.bundle.iter().map(|b| self.read(b, None, "creating").map(whole)).collect();
        let (now, actor) = (call.now(), call.actor());
        let written =
            batch::write(items, async |list| self.services.create_federated_bundles(now, &actor, list).await)
                .await;
        let mask = request.output_mask.as_ref();
        let results = request.bundle.iter().zip(written).map(|(wire, written)| {
            let (status, bundle) = outcome(&call, wire, "unable to create bundle", written, mask);
            batch_create_federated_bundle_response::Result { status, bundle }
        });
        Ok(Response::new(BatchCreateFederatedBundleResponse { results: results.collect() }))
    }

    async fn batch_update_federated_bundle(
        &self,
        request: Request<BatchUpdateFederatedBundleRequest>,
    ) -> Result<Response<BatchUpdateFederatedBundleResponse>, Status> {
        let (call, request) = open(request)?;
        let input_mask = request.input_mask.as_ref();
        let read = |b| self.read(b, input_mask, "updating").map(patch);
        let items = request.bundle.iter().map(read).collect();
        let (now, actor) = (call.now(), call.actor());
        let written =
            batch::write(items, async |list| self.services.update_federated_bundles(now, &actor, list).await)
                .await;
        let mask = request.output_mask.as_ref();
        let results = request.bundle.iter().zip(written).map(|(wire, written)| {
            let (status, bundle) = outcome(&call, wire, "failed to update bundle", written, mask);
            batch_update_federated_bundle_response::Result { status, bundle }
        });
        Ok(Response::new(BatchUpdateFederatedBundleResponse { results: results.collect() }))
    }

    async fn batch_set_federated_bundle(
        &self,
        request: Request<BatchSetFederatedBundleRequest>,
    ) -> Result<Response<BatchSetFederatedBundleResponse>, Status> {
        let (call, request) = open(request)?;
        let items = request.bundle.iter().map(|b| self.read(b, None, "setting").map(whole)).collect();
        let (now, actor) = (call.now(), call.actor());
        let written =
            batch::write(items, async |list| self.services.set_federated_bundles(now, &actor, list).await)
                .await;
        let mask = request.output_mask.as_ref();
        let results = request.bundle.iter().zip(written).map(|(wire, written)| {
            let (status, bundle) = outcome(&call, wire, "failed to set bundle", written, mask);
            batch_set_federated_bundle_response::Result { status, bundle }
        });
        Ok(Response::new(BatchSetFederatedBundleResponse { results: results.collect() }))
    }

    async fn batch_delete_federated_bundle(
        &self,
        request: Request<BatchDeleteFederatedBundleRequest>,
    ) -> Result<Response<BatchDeleteFederatedBundleResponse>, Status> {
        let (call, request) = open(request)?;
        let (mode, word) = match Mode::try_from(request.mode) {
            Ok(Mode::Restrict) => (DeleteMode::Restrict, "RESTRICT"),
            Ok(Mode::Delete) => (DeleteMode::Delete, "DELETE"),
            Ok(Mode::Dissociate) => (DeleteMode::Dissociate, "DISSOCIATE"),
            Err(_) => {
                let text =
                    format!("failed to parse deletion mode: unhandled delete mode \"{}\"", request.mode);
                return call.audit().conclude(Err(Status::invalid_argument(text)));
            }
        };
        let read = |text: &String| -> Result<TrustDomain, Refusal> {
            let domain = trust_domain(text).map_err(|e| invalid("trust domain argument is not valid", &e))?;
            if domain == *self.services.trust_domain() { Err(own_removed()) } else { Ok(domain) }
        };
        let items = request.trust_domains.iter().map(read).collect();
        let (now, actor) = (call.now(), call.actor());
        let write = async |list| self.services.delete_federated_bundles(now, &actor, list, mode).await;
        let deleted = batch::write(items, write).await;
        let results = request.trust_domains.iter().zip(deleted).map(|(text, deleted)| {
            let refusal = refusal_of("failed to delete federated bundle", deleted.as_ref().err());
            let mut line = call.audit();
            line.text("trust_domain_id", text);
            line.text("mode", word);
            conclude(line, refusal.as_ref());
            batch_delete_federated_bundle_response::Result {
                status: wire_status(refusal.as_ref()),
                trust_domain: text.clone(),
            }
        });
        Ok(Response::new(BatchDeleteFederatedBundleResponse { results: results.collect() }))
    }
}
