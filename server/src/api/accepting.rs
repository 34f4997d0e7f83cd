//! The methods of the governance service on what people accept although it is lacking.

use avouch_domain::Timestamp;
use avouch_domain::why;
use avouch_proto::convert::{accepted_to_wire, finding};
use avouch_proto::governance_v1 as wire;
use tonic::Status;

use crate::api::call::Call;
use crate::api::governance::{GovernanceApi, page, unreadable};
use crate::api::status::{accepting_failed, bad, bad_token, name_failed, write_failed};
use crate::service::Accepting;

impl GovernanceApi {
    pub(super) async fn accept(
        &self,
        call: &Call,
        request: &wire::AcceptFindingRequest,
    ) -> Result<wire::Accepted, Status> {
        let actor = self.person(call)?;
        let what = finding(&request.what).map_err(unreadable)?;
        let accepting = Accepting {
            name: self.services.lacking_name(&request.name, what).map_err(|e| name_failed(&e))?,
            what,
            until: Timestamp::from_secs(request.until),
            why: why(&request.why).map_err(|e| bad(&e.to_string()))?,
        };
        let accepted = self.services.accept_finding(call.now(), &actor, accepting).await;
        let accepted = accepted.map_err(|e| write_failed("failed to accept the finding", &e))?;
        accepted.map(|accepted| accepted_to_wire(&accepted)).map_err(|e| accepting_failed(&e))
    }

    pub(super) async fn unaccept(
        &self,
        call: &Call,
        request: &wire::UnacceptFindingRequest,
    ) -> Result<wire::Accepted, Status> {
        let actor = self.person(call)?;
        let what = finding(&request.what).map_err(unreadable)?;
        let name = self.services.lacking_name(&request.name, what).map_err(|e| name_failed(&e))?;
        let taken = self.services.unaccept_finding(call.now(), &actor, name, what).await;
        let taken = taken.map_err(|e| write_failed("failed to let the finding count again", &e))?;
        taken.map(|accepted| accepted_to_wire(&accepted)).map_err(|e| accepting_failed(&e))
    }

    pub(super) fn accepted(
        &self,
        call: &Call,
        request: wire::ListAcceptedRequest,
    ) -> Result<wire::ListAcceptedResponse, Status> {
        self.person(call)?;
        let listed = self.services.list_accepted(&page(request.page_size, request.page_token));
        let listed = listed.map_err(|e| bad_token("failed to list what is accepted", &e))?;
        Ok(wire::ListAcceptedResponse {
            accepted: listed.items.iter().map(accepted_to_wire).collect(),
            next_page_token: listed.next_token,
        })
    }
}
