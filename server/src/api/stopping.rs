//! The methods of the governance service that take an identity out of force.

use avouch_proto::convert::identity_to_wire;
use avouch_proto::governance_v1 as wire;
use tonic::{Request, Response, Status};

use crate::api::call::open;
use crate::api::governance::GovernanceApi;
use crate::api::status::identity_written;
use crate::service::{Bounds, Step, Stop, StopNode};

impl GovernanceApi {
    pub(super) async fn stopping(
        &self,
        request: Request<wire::IdentityRequest>,
        step: Step,
    ) -> Result<Response<wire::StopResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("identity", &request.name);
        let done = async {
            let (actor, name) = self.person_and_name(&call, &request.name)?;
            identity_written(self.services.stop_identity(call.now(), &actor, name, step).await)
        };
        let done = line.conclude(done.await)?;
        Ok(Response::new(stop_to_wire(&done)))
    }
}

fn stop_to_wire(stop: &Stop) -> wire::StopResponse {
    let (nodes, accepted_until) = bounds_to_wire(&stop.bounds);
    wire::StopResponse { identity: Some(identity_to_wire(&stop.identity)), nodes, accepted_until }
}

/// The nodes, and the end outside of them.
pub(super) fn bounds_to_wire(bounds: &Bounds) -> (Vec<wire::StopNode>, i64) {
    let node = |node: &StopNode| wire::StopNode {
        node: node.agent.to_string(),
        confirmed: node.took.is_some(),
        took_ms: node.took.map_or(0, |took| u32::try_from(took.as_millis()).unwrap_or(u32::MAX)),
        decides_until: node.decides_until.map_or(0, avouch_domain::Timestamp::secs),
    };
    (bounds.nodes.iter().map(node).collect(), bounds.accepted_until.map_or(0, avouch_domain::Timestamp::secs))
}
