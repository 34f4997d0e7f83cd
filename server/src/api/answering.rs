//! The methods of the governance service on requests.

use avouch_domain::Request;
use avouch_proto::convert::{identity_to_wire, request_hash, request_id, request_to_wire};
use avouch_proto::governance_v1 as wire;
use tonic::Status;

use crate::api::call::Call;
use crate::api::governance::{GovernanceApi, unreadable};
use crate::api::pages::freshly;
use crate::api::status::{answer_failed, write_failed};
use crate::limits::GOVERNANCE_PAGE_MAX;
use crate::service::AnswerError;

impl GovernanceApi {
    pub(super) fn requests(&self, call: &Call, all: bool) -> Result<wire::ListRequestsResponse, Status> {
        self.person(call)?;
        let (wall, most) = (call.now().wall, usize::try_from(GOVERNANCE_PAGE_MAX).unwrap_or(0));
        let requests = self.services.list_requests(wall, all, most);
        let requests = requests.iter().map(|(request, standing)| request_to_wire(request, standing));
        Ok(wire::ListRequestsResponse { requests: requests.collect() })
    }

    pub(super) async fn request(&self, call: &Call, id: &str) -> Result<wire::GetRequestResponse, Status> {
        self.person(call)?;
        let id = request_id(id).map_err(unreadable)?;
        let found = self.services.find_request(&id).await;
        let found = found.map_err(|e| write_failed("failed to read the request", &e))?;
        let (request, text) = found.ok_or_else(|| answer_failed(&AnswerError::Unknown(id)))?;
        let registry = self.services.registry();
        let identity = registry.identity(&request.identity).map(identity_to_wire);
        let standing = registry.request_standing(&request, call.now().wall);
        let request = Some(request_to_wire(&request, standing));
        Ok(wire::GetRequestResponse { request, text: text.text.to_string(), identity })
    }

    pub(super) async fn answer(
        &self,
        call: &Call,
        request: &wire::AnswerRequestRequest,
    ) -> Result<wire::Request, Status> {
        if request.yes {
            freshly(call)?;
        }
        let actor = self.person(call)?;
        let id = request_id(&request.id).map_err(unreadable)?;
        let hash = request_hash(&request.hash).map_err(unreadable)?;
        let said = self.services.answer_request(call.now(), &actor, id, hash, request.yes).await;
        let said: Result<Request, _> = said.map_err(|e| write_failed("failed to answer the request", &e))?;
        let said = said.map_err(|e| answer_failed(&e))?;
        let standing = self.services.registry().request_standing(&said, call.now().wall);
        Ok(request_to_wire(&said, standing))
    }
}
