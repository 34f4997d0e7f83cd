//! Metrics of the server, by SPIRE's names; every name stands here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use avouch::metrics_text::{Registry, code_name, snake_rpc};
use avouch_domain::{Authority, AuthorityId, AuthorityKind, Holder, Slot, SlotState};
use avouch_domain::{Tick, Timestamp, TrustDomain};
use parking_lot::Mutex;
use tonic::Code;

use crate::config::TelemetryConfig;
use crate::service::Services;

const SIGN_X509: &str = "server_ca_sign_x509_svid";
const SIGN_JWT: &str = "server_ca_sign_jwt_svid";
const STARTED: &str = "started";
const UPTIME: &str = "uptime_in_ms";
const CA_EXPIRATION: &str = "manager_x509_ca_rotate_expiration";
const CA_TTL: &str = "manager_x509_ca_rotate_ttl";
const AGENTS: &str = "agents";
const ENTRIES: &str = "entries";
const WATCHERS: &str = "watch_streams";
const SVID_ROTATE: &str = "svid_rotate";

/// The name under which a step of a rotation is counted.
const fn rotation_step(kind: AuthorityKind, active: bool) -> &'static str {
    match (kind, active) {
        (AuthorityKind::X509, false) => "ca_manager_x509_ca_prepare",
        (AuthorityKind::X509, true) => "ca_manager_x509_ca_activate",
        (AuthorityKind::Jwt, false) => "ca_manager_jwt_key_prepare",
        (AuthorityKind::Jwt, true) => "manager_jwt_key_activate",
    }
}

/// What was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    X509,
    Jwt,
}

/// A cheap handle to the one registry.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    trust_domain: Arc<str>,
    /// Until when the server's SVID lasted at the last look.
    server_svid: Arc<Mutex<Timestamp>>,
}

/// The authorities of this server at the last look.
#[derive(Clone, Debug, Default)]
pub struct Rotations(BTreeMap<(AuthorityKind, Slot), (AuthorityId, SlotState)>);

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// A registry with the labels that the configuration wants on every series.
    #[must_use]
    pub fn new(config: &TelemetryConfig, trust_domain: &TrustDomain) -> Self {
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let mut labels = Vec::new();
        if let Some(host) = host.as_deref().filter(|_| config.host_label) {
            labels.push(("host", host));
        }
        if config.trust_domain_label {
            labels.push(("trust_domain", trust_domain.as_str()));
        }
        Self {
            registry: Arc::new(Registry::new(&config.prefix, &labels)),
            trust_domain: trust_domain.as_str().into(),
            server_svid: Arc::default(),
        }
    }

    /// What the scraper's page is made of.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.clone()
    }

    /// One call of the API.
    pub fn rpc(&self, service: &str, method: &str, code: Code, elapsed: Duration) {
        self.registry.call(&snake_rpc(service, method), &[], code_name(code), elapsed);
    }

    /// One turn taken at a rate limit.
    pub fn rate_limit(&self, service: &str, method: &str, code: Code, elapsed: Duration) {
        let name = format!("rateLimit_{}", snake_rpc(service, method));
        self.registry.call(&name, &[], code_name(code), elapsed);
    }

    /// One signature.
    pub fn signed(&self, what: Signed, elapsed: Duration) {
        let name = match what {
            Signed::X509 => SIGN_X509,
            Signed::Jwt => SIGN_JWT,
        };
        self.registry.call(name, &[], code_name(Code::Ok), elapsed);
    }

    /// The server has started.
    pub fn started(&self, version: &str) {
        let labels = [("version", version), ("trust_domain_id", &*self.trust_domain)];
        self.registry.gauge(STARTED, &labels, 1.0);
    }

    /// Counts the steps of rotation that this server took since `started`, as commits tell of them. Ends with the
    /// services.
    pub async fn count_rotations(self, services: Services, own: Arc<str>, started: Timestamp) {
        let (mut positions, own) = (services.subscribe(), Holder::Server(own));
        let mut seen = Rotations::default();
        loop {
            let registry = services.registry();
            let ours = registry.authorities().filter(|a| a.holder == own && a.issued_at >= started);
            self.rotated(&mut seen, ours);
            if positions.changed().await.is_err() {
                return;
            }
        }
    }

    /// Counts what is new among these authorities.
    fn rotated<'a>(&self, seen: &mut Rotations, authorities: impl Iterator<Item = &'a Authority>) {
        for authority in authorities {
            let now = (authority.id.clone(), authority.state);
            let before = seen.0.insert((authority.kind, authority.slot), now);
            let known = before.filter(|(id, _)| *id == authority.id).map(|(_, state)| state);
            if known.is_none() {
                self.count(rotation_step(authority.kind, false));
            }
            if authority.state == SlotState::Active && known != Some(SlotState::Active) {
                self.count(rotation_step(authority.kind, true));
            }
        }
    }

    fn count(&self, name: &str) {
        self.registry.counter(name, &[("status", code_name(Code::Ok))], 1.0);
    }

    /// Refreshes the gauges that time and writes move.
    pub fn observe(&self, services: &Services, started: Tick, now: avouch_domain::Now) {
        let millis = now.mono.since(started).as_millis();
        #[allow(clippy::cast_precision_loss)]
        self.registry.gauge(UPTIME, &[], millis as f64);
        let facts = services.ca().facts();
        let end = facts.x509_not_after;
        if std::mem::replace(&mut *self.server_svid.lock(), facts.server_svid_not_after)
            != facts.server_svid_not_after
        {
            self.count(SVID_ROTATE);
        }
        let labels = [("trust_domain_id", &*self.trust_domain)];
        #[allow(clippy::cast_precision_loss)]
        let seconds = |at: Timestamp| at.secs() as f64;
        self.registry.gauge(CA_EXPIRATION, &labels, seconds(end));
        self.registry.gauge(CA_TTL, &labels, end.since(now.wall).as_secs_f64());
        let counts = services.counts();
        #[allow(clippy::cast_precision_loss)]
        for (name, count) in
            [(AGENTS, counts.agents), (ENTRIES, counts.entries), (WATCHERS, services.followers())]
        {
            self.registry.gauge(name, &[], count as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::domain;

    use super::*;

    fn metrics() -> Metrics {
        let config = TelemetryConfig {
            prefix: "spire_server".into(),
            host_label: false,
            trust_domain_label: false,
            prometheus: None,
        };
        Metrics::new(&config, &domain())
    }

    fn authority(kind: AuthorityKind, id: &str, state: SlotState) -> Authority {
        Authority {
            kind,
            holder: Holder::Server("s".into()),
            slot: Slot::A,
            state,
            id: id.into(),
            public: Arc::from([]),
            issued_at: Timestamp(0),
            not_after: Timestamp(1),
            tainted: false,
            published_at: None,
        }
    }

    #[test]
    fn each_step_of_a_rotation_counts_once() {
        let metrics = metrics();
        let mut seen = Rotations::default();
        let steps = [
            authority(AuthorityKind::X509, "1", SlotState::Prepared),
            authority(AuthorityKind::X509, "1", SlotState::Active),
            authority(AuthorityKind::X509, "1", SlotState::Active),
            authority(AuthorityKind::X509, "1", SlotState::Old),
            authority(AuthorityKind::X509, "2", SlotState::Prepared),
            authority(AuthorityKind::Jwt, "k", SlotState::Active),
        ];
        for step in &steps {
            metrics.rotated(&mut seen, std::iter::once(step));
        }
        let page = metrics.registry().render();
        for line in [
            "spire_server_ca_manager_x509_ca_prepare{status=\"OK\"} 2",
            "spire_server_ca_manager_x509_ca_activate{status=\"OK\"} 1",
            "spire_server_ca_manager_jwt_key_prepare{status=\"OK\"} 1",
            "spire_server_manager_jwt_key_activate{status=\"OK\"} 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in:\n{page}");
        }
    }
}
