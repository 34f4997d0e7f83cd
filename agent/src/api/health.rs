//! `grpc.health.v1` on the workload socket: does the Workload API answer?
//!
//! Needs no security header, as load balancers and `healthcheck` can't send one; says nothing about identities.

use std::sync::Arc;

use tokio_stream::{Empty, empty};
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::status::Refusal;
use crate::health::trouble;
use crate::supply::Supply;

/// Serving while identities can be served, by the same rules as the readiness probe.
pub struct WorkloadHealth {
    supply: Arc<dyn Supply>,
}

impl std::fmt::Debug for WorkloadHealth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WorkloadHealth")
    }
}

impl WorkloadHealth {
    #[must_use]
    pub fn new(supply: Arc<dyn Supply>) -> Self {
        Self { supply }
    }
}

#[tonic::async_trait]
impl Health for WorkloadHealth {
    type WatchStream = Empty<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !request.get_ref().service.is_empty() {
            return Err(Refusal::HealthOfService.into());
        }
        let facts = self.supply.facts().await;
        let serving = trouble(*self.supply.ready().borrow(), &facts).is_none();
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let _: Self::WatchStream = empty();
        Err(Refusal::UnknownMethod("Watch".into()).into())
    }
}
