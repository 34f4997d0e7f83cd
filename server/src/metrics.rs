//! Metrics of the server, by SPIRE's names; every name stands here.

use std::sync::Arc;
use std::time::Duration;

use avouch::metrics_text::{Registry, code_name, snake_rpc};
use avouch_domain::{Tick, Timestamp, TrustDomain};
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
}

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

    /// Refreshes the gauges that time and writes move.
    pub fn observe(&self, services: &Services, started: Tick, now: avouch_domain::Now) {
        let millis = now.mono.since(started).as_millis();
        #[allow(clippy::cast_precision_loss)]
        self.registry.gauge(UPTIME, &[], millis as f64);
        let end = services.ca().facts().x509_not_after;
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
