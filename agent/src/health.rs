//! How the agent is, for the health listener: live while it runs, ready while it can serve identities.

use std::sync::Arc;

use avouch::health_http::{HealthState, Probe};
use avouch_domain::Now;
use serde_json::Map;

use crate::limits::CLOCK_SKEW_WARN_MS;
use crate::supply::Supply;

/// Asks the supply at each probe: nothing is remembered, so nothing is out of date.
pub struct AgentHealth {
    supply: Arc<dyn Supply>,
    clock: fn() -> Now,
}

impl std::fmt::Debug for AgentHealth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentHealth")
    }
}

impl AgentHealth {
    #[must_use]
    pub fn new(supply: Arc<dyn Supply>, clock: fn() -> Now) -> Self {
        Self { supply, clock }
    }
}

#[tonic::async_trait]
impl HealthState for AgentHealth {
    /// True whenever the process answers: a restart cures nothing that an agent waits for.
    async fn live(&self) -> Probe {
        Probe { good: true, details: vec![("agent".into(), Map::new())] }
    }

    /// True from the first sync on, while the agent's own SVID is valid. A server that is away does not end it:
    /// cached identities are served to their expiry.
    async fn ready(&self) -> Probe {
        let facts = self.supply.facts().await;
        let valid = facts.svid_not_after.is_some_and(|end| end > (self.clock)().wall);
        let good = *self.supply.ready().borrow() && valid;
        let mut details = Map::new();
        if !good {
            details.insert("make_new_x509_err".into(), "workload api is unavailable".into());
        }
        if facts.clock_skew_ms.abs() > CLOCK_SKEW_WARN_MS {
            details.insert("clock_skew_ms".into(), facts.clock_skew_ms.into());
        }
        Probe { good, details: vec![("agent".into(), details)] }
    }
}
