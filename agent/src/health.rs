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

#[cfg(test)]
mod tests {
    use super::*;
    use avouch_domain::{SelectorSet, SpiffeId, Timestamp, TrustDomain, fixtures};
    use tokio::sync::watch;

    use crate::supply::{AgentFacts, Feed, JwtGrant, JwtRefusal, Nearest, Want};

    struct Facts(bool, AgentFacts);

    #[tonic::async_trait]
    impl Supply for Facts {
        fn trust_domain(&self) -> TrustDomain {
            fixtures::domain()
        }
        fn ready(&self) -> watch::Receiver<bool> {
            watch::Sender::new(self.0).subscribe()
        }
        fn push_live(&self) -> bool {
            false
        }
        async fn subscribe(&self, _: SelectorSet, _: Want) -> Box<dyn Feed> {
            unreachable!("health asks for facts only")
        }
        async fn fetch_jwt(
            &self,
            _: SelectorSet,
            _: Vec<String>,
            _: Option<SpiffeId>,
        ) -> Result<Vec<JwtGrant>, JwtRefusal> {
            Err(JwtRefusal::NoIdentity)
        }
        async fn nearest(&self, _: &SelectorSet) -> Option<Nearest> {
            None
        }
        async fn facts(&self) -> AgentFacts {
            self.1.clone()
        }
    }

    async fn ready(synced: bool, ends: i64, skew: i64) -> (bool, String) {
        let facts = AgentFacts {
            svid_not_after: Some(Timestamp::from_secs(ends)),
            clock_skew_ms: skew,
            ..AgentFacts::default()
        };
        let now = || Now { wall: Timestamp::from_secs(100), ..Now::default() };
        let health = AgentHealth::new(Arc::new(Facts(synced, facts)), now);
        assert!(health.live().await.good, "a restart cures nothing");
        let probe = health.ready().await;
        (probe.good, serde_json::to_string(&probe.details[0].1).unwrap())
    }

    const DOWN: &str = "{\"make_new_x509_err\":\"workload api is unavailable\"}";

    #[tokio::test]
    async fn ready_means_synced_and_holding_a_valid_svid() {
        assert_eq!(ready(true, 101, 0).await, (true, "{}".into()));
        assert_eq!(ready(false, 101, 0).await, (false, DOWN.into()));
        assert_eq!(ready(true, 100, 0).await, (false, DOWN.into()));
    }

    #[tokio::test]
    async fn a_skewed_clock_is_shown() {
        assert_eq!(ready(true, 101, -5001).await, (true, "{\"clock_skew_ms\":-5001}".into()));
        assert_eq!(ready(true, 101, 5000).await, (true, "{}".into()));
    }
}
