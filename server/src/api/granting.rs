//! The methods of the governance service on grants.

use std::time::Duration;

use avouch_domain::{Case, Grant, GrantId};
use avouch_proto::convert::{grant_to_wire, optional_case};
use avouch_proto::governance_v1 as wire;
use tonic::Status;

use crate::api::call::Call;
use crate::api::governance::{GovernanceApi, unreadable};
use crate::api::status::{bad, ending_failed, giving_failed, name_failed, write_failed};
use crate::limits::GOVERNANCE_PAGE_MAX;
use crate::service::Giving;

impl GovernanceApi {
    pub(super) async fn give(
        &self,
        call: &Call,
        request: wire::GiveGrantRequest,
    ) -> Result<wire::Grant, Status> {
        let (actor, identity) = self.person_and_name(call, &request.name)?;
        let giving = Giving {
            identity,
            action: request.action,
            resource: request.resource,
            uses: request.uses,
            lasts: Duration::from_secs(request.seconds),
            case: optional_case(&request.case).map_err(unreadable)?,
        };
        let given = self.services.give_grant(call.now(), &actor, giving).await;
        let given = given.map_err(|e| write_failed("failed to give the grant", &e))?;
        given.map(|grant| self.granted(call, &grant)).map_err(|e| giving_failed(&e))
    }

    pub(super) async fn take_back(&self, call: &Call, id: &str) -> Result<wire::Grant, Status> {
        let actor = self.person(call)?;
        let id = GrantId::new(id).map_err(|e| bad(&e.to_string()))?;
        let ended = self.services.end_grant(call.now(), &actor, id).await;
        let ended = ended.map_err(|e| write_failed("failed to end the grant", &e))?;
        ended.map(|grant| self.granted(call, &grant)).map_err(|e| ending_failed(&e))
    }

    /// Takes back all that was given for a case.
    pub(super) async fn close(&self, call: &Call, case: &str) -> Result<wire::EndCaseResponse, Status> {
        let actor = self.person(call)?;
        let case = Case::new(case).map_err(|e| bad(&e.to_string()))?;
        let ended = self.services.end_case(call.now(), &actor, case).await;
        let ended = ended.map_err(|e| write_failed("failed to end the grants of the case", &e))?;
        let ended = ended.map_err(|e| ending_failed(&e))?;
        Ok(wire::EndCaseResponse { ended: u32::try_from(ended).unwrap_or(u32::MAX) })
    }

    pub(super) fn grants(
        &self,
        call: &Call,
        request: &wire::ListGrantsRequest,
    ) -> Result<wire::ListGrantsResponse, Status> {
        self.person(call)?;
        let name = match request.name.as_str() {
            "" => None,
            name => Some(self.services.find_name(name).map_err(|e| name_failed(&e))?),
        };
        let most = usize::try_from(GOVERNANCE_PAGE_MAX).unwrap_or(0);
        let case = optional_case(&request.case).map_err(unreadable)?;
        let of = (name.as_ref(), case.as_ref());
        let grants = self.services.list_grants(call.now().wall, of, request.all, most);
        let grants = grants.iter().map(|grant| self.granted(call, grant));
        Ok(wire::ListGrantsResponse { grants: grants.collect() })
    }

    fn granted(&self, call: &Call, grant: &Grant) -> wire::Grant {
        grant_to_wire(grant, self.services.registry().grant_standing(grant, call.now().wall).name())
    }
}
