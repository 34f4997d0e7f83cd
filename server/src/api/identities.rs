//! The methods of the governance service that write identities.

use avouch_domain::{SpiffeId, Timestamp};
use avouch_proto::convert::{
    code, environment, identity_kind, identity_to_wire, optional_code, optional_code_digest, optional_person,
    optional_runs_max,
};
use avouch_proto::governance_v1 as wire;
use tonic::Status;

use crate::api::call::Call;
use crate::api::governance::{GovernanceApi, unreadable};
use crate::api::status::{bad, identity_failed, name_failed, write_failed};
use crate::service::{Adoption, IdentityPatch, NewIdentity, Place};

impl GovernanceApi {
    pub(super) async fn register(
        &self,
        call: &Call,
        request: &wire::RegisterIdentityRequest,
    ) -> Result<wire::Identity, Status> {
        let actor = self.person(call)?;
        let environment = environment(&request.environment).map_err(unreadable)?;
        let owner = optional_person(&request.owner).map_err(unreadable)?;
        let new = NewIdentity {
            name: self.services.new_name(&request.name, environment).map_err(|e| name_failed(&e))?,
            kind: identity_kind(&request.kind).map_err(unreadable)?,
            environment,
            purpose: code(&request.purpose).map_err(unreadable)?,
            preset: optional_code(&request.preset).map_err(unreadable)?,
            owner: owner.unwrap_or_else(|| actor.clone()),
            successor: optional_person(&request.successor).map_err(unreadable)?,
            end: Timestamp::from_secs(request.ends_at),
        };
        let made = self.services.register_identity(call.now(), &actor, new).await;
        let made = made.map_err(|e| write_failed("failed to register the identity", &e))?;
        made.map(|identity| identity_to_wire(&identity)).map_err(|e| identity_failed(&e))
    }

    pub(super) async fn change(
        &self,
        call: &Call,
        request: &wire::ChangeIdentityRequest,
    ) -> Result<wire::Identity, Status> {
        let (actor, name) = self.person_and_name(call, &request.name)?;
        let patch = IdentityPatch {
            owner: optional_person(&request.owner).map_err(unreadable)?,
            successor: optional_person(&request.successor).map_err(unreadable)?,
            end: (request.ends_at != 0).then(|| Timestamp::from_secs(request.ends_at)),
            code: request.code.as_deref().map(optional_code_digest).transpose().map_err(unreadable)?,
            runs_max: request.runs_max.map(optional_runs_max).transpose().map_err(unreadable)?,
        };
        if patch == IdentityPatch::default() {
            return Err(bad(
                "nothing to change, expected an owner, a successor, an end, code or a number of runs",
            ));
        }
        let changed = self.services.change_identity(call.now(), &actor, name, patch).await;
        let changed = changed.map_err(|e| write_failed("failed to change the identity", &e))?;
        changed.map(|identity| identity_to_wire(&identity)).map_err(|e| identity_failed(&e))
    }

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
