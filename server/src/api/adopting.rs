//! The methods of the governance service that say where identities run, and adopt what runs without one.

use avouch_domain::{SpiffeId, Timestamp};
use avouch_proto::convert::{code, environment, identity_kind, optional_person};
use avouch_proto::governance_v1 as wire;
use tonic::Status;

use crate::api::call::Call;
use crate::api::governance::{GovernanceApi, unreadable};
use crate::api::status::{bad, identity_failed, write_failed};
use crate::service::{Adoption, Place};

impl GovernanceApi {
    /// Gives the ID of the entry.
    pub(super) async fn place(
        &self,
        call: &Call,
        request: &wire::PlaceIdentityRequest,
    ) -> Result<String, Status> {
        let (actor, name) = self.person_and_name(call, &request.name)?;
        let node = SpiffeId::parse(&request.node).map_err(|e| bad(&format!("node: {e}")))?;
        let place = Place { node, uid: request.uid };
        let placed = self.services.place_identity(call.now(), &actor, name, place).await;
        let placed = placed.map_err(|e| write_failed("failed to place the identity", &e))?;
        placed.map(|entry| entry.id.to_string()).map_err(|e| identity_failed(&e))
    }

    pub(super) async fn adopt_names(
        &self,
        call: &Call,
        request: &wire::AdoptRequest,
    ) -> Result<wire::AdoptResponse, Status> {
        let actor = self.person(call)?;
        if !request.path_prefix.starts_with('/') {
            return Err(bad("path prefix: expected a path that begins with /"));
        }
        let adoption = Adoption {
            path_prefix: request.path_prefix.clone(),
            owner: optional_person(&request.owner).map_err(unreadable)?,
            kind: identity_kind(&request.kind).map_err(unreadable)?,
            environment: environment(&request.environment).map_err(unreadable)?,
            purpose: code(&request.purpose).map_err(unreadable)?,
            end: Timestamp::from_secs(request.ends_at),
        };
        let (candidates, more) = if request.dry_run {
            self.services.adoptable(&adoption)
        } else {
            let adopted = self.services.adopt(call.now(), &actor, adoption).await;
            let adopted = adopted.map_err(|e| write_failed("failed to adopt", &e))?;
            adopted.map_err(|e| identity_failed(&e))?
        };
        let adopted = candidates.into_iter().map(|candidate| wire::Adopted {
            spiffe_id: candidate.name.to_string(),
            owner: candidate.owner.map(|owner| owner.to_string()).unwrap_or_default(),
            reason: candidate.reason,
        });
        Ok(wire::AdoptResponse { adopted: adopted.collect(), more })
    }
}
