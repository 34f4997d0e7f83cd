//! The method of the governance service by which a person leaves.

use avouch_proto::convert::{person_id, person_to_wire};
use avouch_proto::governance_v1 as wire;
use tonic::Status;

use crate::api::call::Call;
use crate::api::governance::{GovernanceApi, unreadable};
use crate::api::status::{leave_failed, write_failed};
use crate::api::stopping::bounds_to_wire;
use crate::service::{Bounds, Word};

impl GovernanceApi {
    pub(super) async fn leave(
        &self,
        call: &Call,
        request: &wire::LeavePersonRequest,
    ) -> Result<wire::LeavePersonResponse, Status> {
        let by = Word::Person(self.person(call)?);
        let leaver = person_id(&request.id).map_err(unreadable)?;
        let left = if request.dry_run {
            self.services.departure(call.now(), &by, &leaver).map(|left| (left, Bounds::default()))
        } else {
            let left = self.services.leave_person(call.now(), by, leaver).await;
            left.map_err(|e| write_failed("failed to let the person leave", &e))?
        };
        let (left, bounds) = left.map_err(|e| leave_failed(&e))?;
        let (nodes, accepted_until) = bounds_to_wire(&bounds);
        let passed = left
            .passed
            .iter()
            .map(|(name, owner)| wire::Passed { spiffe_id: name.to_string(), owner: owner.to_string() });
        Ok(wire::LeavePersonResponse {
            person: Some(person_to_wire(&left.person)),
            passed: passed.collect(),
            paused: left.paused.iter().map(ToString::to_string).collect(),
            more: left.more,
            nodes,
            accepted_until,
        })
    }
}
