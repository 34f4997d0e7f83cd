//! How the agent is, for the health listener: live while it runs, ready while it can serve identities.

use std::sync::Arc;

use avouch::health_http::{HealthState, Probe};
use avouch_domain::Timestamp;
use serde_json::Map;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::limits::CLOCK_SKEW_WARN_MS;
use crate::supply::{AgentFacts, Supply};

/// Asks the supply at each probe: nothing is remembered, so nothing is out of date.
pub struct AgentHealth {
    supply: Arc<dyn Supply>,
}

impl std::fmt::Debug for AgentHealth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentHealth")
    }
}

impl AgentHealth {
    #[must_use]
    pub fn new(supply: Arc<dyn Supply>) -> Self {
        Self { supply }
    }
}

/// Why no identity can be served now; `None` if it can. A server that is away is no reason: what is cached is served
/// to its end.
#[must_use]
pub fn trouble(ready: bool, facts: &AgentFacts) -> Option<String> {
    match facts.svid_not_after {
        None => Some("the agent has no SVID of its own yet: it waits for the server".to_owned()),
        Some(end) if end <= facts.now => {
            Some(format!("the agent's own SVID ended at {}: it waits for the server", date(end)))
        }
        Some(_) if !ready => Some("the server has not sent its entries yet".to_owned()),
        Some(_) if facts.entries > 0 && facts.cached_x509 == 0 && !facts.reached => {
            let since = facts.last_sync.map(|at| format!(" since {}", date(at))).unwrap_or_default();
            Some(format!("every X509-SVID has ended, and the server has not been reached{since}"))
        }
        Some(_) => None,
    }
}

fn date(at: Timestamp) -> String {
    let date = OffsetDateTime::from_unix_timestamp(at.secs()).ok();
    date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_else(|| at.to_string())
}

#[tonic::async_trait]
impl HealthState for AgentHealth {
    /// True whenever the process answers: a restart cures nothing that an agent waits for.
    async fn live(&self) -> Probe {
        Probe { good: true, details: vec![("agent".into(), Map::new())] }
    }

    /// True while nothing is in the way of serving identities; else with the reason.
    async fn ready(&self) -> Probe {
        let facts = self.supply.facts().await;
        let trouble = trouble(*self.supply.ready().borrow(), &facts);
        let good = trouble.is_none();
        let mut details = Map::new();
        if let Some(reason) = trouble {
            details.insert("make_new_x509_err".into(), "workload api is unavailable".into());
            details.insert("reason".into(), reason.into());
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
    use avouch_domain::{SelectorSet, Timestamp, TrustDomain, fixtures};
    use tokio::sync::watch;

    use crate::supply::{AgentFacts, Feed, JwtGrant, JwtQuestion, JwtRefusal, Nearest, Want};

    struct Facts(bool, AgentFacts);

    #[tonic::async_trait]
    impl Supply for Facts {
        fn trust_domain(&self) -> TrustDomain {
            fixtures::domain()
        }
        fn ready(&self) -> watch::Receiver<bool> {
            watch::Sender::new(self.0).subscribe()
        }
        fn synced(&self) -> bool {
            self.0
        }
        fn push_live(&self) -> bool {
            false
        }
        async fn subscribe(&self, _: SelectorSet, _: Want) -> Box<dyn Feed> {
            unreachable!("health asks for facts only")
        }
        async fn fetch_jwt(&self, _: JwtQuestion) -> Result<Arc<[JwtGrant]>, JwtRefusal> {
            Err(JwtRefusal::NoIdentity)
        }
        fn lent_jwt(&self, _: &JwtQuestion) -> Option<Arc<[JwtGrant]>> {
            None
        }
        async fn nearest(&self, _: &SelectorSet) -> Option<Nearest> {
            None
        }
        async fn runnable(&self, _: u32) -> std::collections::BTreeSet<avouch_domain::SpiffeId> {
            std::collections::BTreeSet::new()
        }
        async fn names(&self, _: &SelectorSet) -> std::collections::BTreeSet<avouch_domain::SpiffeId> {
            std::collections::BTreeSet::new()
        }
        async fn facts(&self) -> AgentFacts {
            self.1.clone()
        }
    }

    async fn ready(synced: bool, facts: AgentFacts) -> (bool, String) {
        let health = AgentHealth::new(Arc::new(Facts(synced, facts)));
        assert!(health.live().await.good, "a restart cures nothing");
        let probe = health.ready().await;
        (probe.good, serde_json::to_string(&probe.details[0].1).unwrap())
    }

    /// At second 100, with an SVID that ends at 101.
    fn well() -> AgentFacts {
        let (now, end) = (Timestamp::from_secs(100), Timestamp::from_secs(101));
        AgentFacts { now, svid_not_after: Some(end), entries: 2, cached_x509: 2, ..AgentFacts::default() }
    }

    fn down(reason: &str) -> (bool, String) {
        let text = "{\"make_new_x509_err\":\"workload api is unavailable\",\"reason\":";
        (false, format!("{text}\"{reason}\"}}"))
    }

    #[tokio::test]
    async fn ready_means_synced_and_holding_a_valid_svid_else_the_reason_is_told() {
        assert_eq!(ready(true, well()).await, (true, "{}".into()), "the server may be away");
        let waits = "the server has not sent its entries yet";
        assert_eq!(ready(false, well()).await, down(waits));
        let none = AgentFacts { svid_not_after: None, ..well() };
        let waits = "the agent has no SVID of its own yet: it waits for the server";
        assert_eq!(ready(true, none).await, down(waits));
        let ended = AgentFacts { svid_not_after: Some(Timestamp::from_secs(100)), ..well() };
        let waits = "the agent's own SVID ended at 1970-01-01T00:01:40Z: it waits for the server";
        assert_eq!(ready(true, ended).await, down(waits));
    }

    #[tokio::test]
    async fn an_agent_whose_svids_have_all_ended_is_ready_again_when_the_server_is_reached() {
        let last_sync = Some(Timestamp::from_secs(10));
        let ended = AgentFacts { cached_x509: 0, last_sync, ..well() };
        let why = "every X509-SVID has ended, and the server has not been reached since 1970-01-01T00:00:10Z";
        assert_eq!(ready(true, ended.clone()).await, down(why));
        assert!(ready(true, AgentFacts { reached: true, ..ended.clone() }).await.0);
        assert!(ready(true, AgentFacts { entries: 0, ..ended }).await.0, "there is nothing to serve");
    }

    #[tokio::test]
    async fn a_skewed_clock_is_shown() {
        let skewed = |clock_skew_ms| AgentFacts { clock_skew_ms, ..well() };
        assert_eq!(ready(true, skewed(-5001)).await, (true, "{\"clock_skew_ms\":-5001}".into()));
        assert_eq!(ready(true, skewed(5000)).await, (true, "{}".into()));
    }
}
