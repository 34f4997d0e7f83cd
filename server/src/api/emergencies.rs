//! The methods of the governance service on emergencies, and what node agents are told of them.

use std::time::Duration;

use avouch_domain::{Emergency, EmergencyId, Identity, Timestamp};
use avouch_proto::convert::{emergency_to_wire, identity_facts_to_wire};
use avouch_proto::governance_v1 as wire;
use avouch_proto::watch_v1::IdentityFacts;
use tonic::Status;

use crate::api::call::Call;
use crate::api::governance::GovernanceApi;
use crate::api::status::{bad, emergency_failed, name_failed, widening_failed, write_failed};
use crate::limits::GOVERNANCE_PAGE_MAX;
use crate::service::{Services, Widening};

/// What a node agent has to know of an identity at this moment, with the emergencies that are open for it.
pub(super) fn told(
    services: &Services,
    wall: Timestamp,
    identity: &Identity,
    owner_active: bool,
) -> IdentityFacts {
    identity_facts_to_wire(identity, owner_active, &services.open_emergencies(wall, &identity.spiffe_id))
}

impl GovernanceApi {
    pub(super) async fn widen(
        &self,
        call: &Call,
        request: wire::AskEmergencyRequest,
    ) -> Result<wire::Emergency, Status> {
        let (actor, identity) = self.person_and_name(call, &request.name)?;
        let widening = Widening {
            identity,
            action: request.action,
            resource: request.resource,
            why: request.why,
            lasts: Duration::from_secs(request.seconds),
        };
        let asked = self.services.ask_emergency(call.now(), &actor, widening).await;
        let asked = asked.map_err(|e| write_failed("failed to ask for the emergency", &e))?;
        asked.map(|emergency| self.as_it_stands(call, &emergency)).map_err(|e| widening_failed(&e))
    }

    pub(super) async fn agree(&self, call: &Call, id: &str) -> Result<wire::Emergency, Status> {
        let actor = self.person(call)?;
        let id = EmergencyId::new(id).map_err(|e| bad(&e.to_string()))?;
        let agreed = self.services.agree_emergency(call.now(), &actor, id).await;
        let agreed = agreed.map_err(|e| write_failed("failed to agree to the emergency", &e))?;
        agreed.map(|emergency| self.as_it_stands(call, &emergency)).map_err(|e| emergency_failed(&e))
    }

    pub(super) async fn narrow(&self, call: &Call, id: &str) -> Result<wire::Emergency, Status> {
        let actor = self.person(call)?;
        let id = EmergencyId::new(id).map_err(|e| bad(&e.to_string()))?;
        let ended = self.services.end_emergency(call.now(), &actor, id).await;
        let ended = ended.map_err(|e| write_failed("failed to end the emergency", &e))?;
        ended.map(|emergency| self.as_it_stands(call, &emergency)).map_err(|e| emergency_failed(&e))
    }

    pub(super) fn emergencies(
        &self,
        call: &Call,
        request: &wire::ListEmergenciesRequest,
    ) -> Result<wire::ListEmergenciesResponse, Status> {
        self.person(call)?;
        let name = match request.name.as_str() {
            "" => None,
            name => Some(self.services.find_name(name).map_err(|e| name_failed(&e))?),
        };
        let most = usize::try_from(GOVERNANCE_PAGE_MAX).unwrap_or(0);
        let found = self.services.list_emergencies(call.now().wall, name.as_ref(), request.all, most);
        let emergencies = found.iter().map(|emergency| self.as_it_stands(call, emergency));
        Ok(wire::ListEmergenciesResponse { emergencies: emergencies.collect() })
    }

    fn as_it_stands(&self, call: &Call, emergency: &Emergency) -> wire::Emergency {
        let standing = self.services.registry().emergency_standing(emergency, call.now().wall);
        emergency_to_wire(emergency, standing.name())
    }
}
