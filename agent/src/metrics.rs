//! All metric names of the agent, one function each. Names and labels are SPIRE's, so that dashboards fit.
//!
//! Never a label whose values a caller can choose.

use std::sync::Arc;
use std::time::Duration;

use avouch::metrics_text::{Registry, code_name, snake_rpc};
use avouch_domain::{Timestamp, TrustDomain};

/// The agent's series. Cheap to clone; all clones share one registry.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
}

fn ok(good: bool) -> &'static str {
    if good { "OK" } else { "Unknown" }
}

impl Metrics {
    /// Series under `<prefix>_`; `fixed` labels stand on each of them.
    #[must_use]
    pub fn new(prefix: &str, fixed: &[(&str, &str)]) -> Self {
        Self { registry: Arc::new(Registry::new(prefix, fixed)) }
    }

    /// Series under SPIRE's own prefix, without labels: for tests and for agents without telemetry.
    #[must_use]
    pub fn plain() -> Self {
        Self::new("spire_agent", &[])
    }

    /// What a listener renders.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.clone()
    }

    /// The agent runs.
    pub fn started(&self, version: &str, trust_domain: &TrustDomain) {
        let labels = [("version", version), ("trust_domain_id", trust_domain.as_str())];
        self.registry.gauge("started", &labels, 1.0);
    }

    /// Time since the start.
    pub fn uptime(&self, uptime: Duration) {
        self.registry.gauge("uptime_in_ms", &[], uptime.as_secs_f64() * 1000.0);
    }

    /// One call on the workload or admin socket; `service` is its short name in the logs.
    pub fn rpc(&self, service: &str, method: &str, code: tonic::Code, elapsed: Duration) {
        self.registry.call(&snake_rpc(service, method), &[], code_name(code), elapsed);
    }

    /// A call begins (+1) or ends (-1). `api` is `workload_api`, `debug_api` or `logger_api`.
    pub fn connections(&self, api: &str, change: i8) {
        if change > 0 {
            self.registry.counter(&format!("{api}_connection"), &[], 1.0);
        }
        self.registry.gauge_add(&format!("{api}_connections"), &[], f64::from(change));
    }

    /// A caller was refused for its fair share.
    pub fn over_share(&self, method: &str) {
        self.registry.counter("workload_api_rate_limit_exceeded", &[("method", method)], 1.0);
    }

    /// All lookers together looked at a process.
    pub fn workload_attestation(&self, good: bool, elapsed: Duration) {
        self.registry.call("workload_api_workload_attestation", &[], ok(good), elapsed);
    }

    /// How many selectors a process has.
    pub fn discovered_selectors(&self, count: usize) {
        self.registry.sample("workload_api_discovered_selectors", &[], number(count));
    }

    /// The node was attested, or attested again.
    pub fn node_attested(&self, attestor: &str, good: bool, elapsed: Duration) {
        self.registry.call("node_attestor_new_svid", &[("attestor", attestor)], ok(good), elapsed);
    }

    /// The agent's own SVID was renewed.
    pub fn agent_svid_rotated(&self, good: bool, elapsed: Duration) {
        self.registry.call("agent_svid_rotate", &[], ok(good), elapsed);
    }

    /// Entries and bundles were fetched, or the attempt failed.
    pub fn synced(&self, good: bool, elapsed: Duration) {
        self.registry.call("manager_sync_fetch_entries_updates", &[], ok(good), elapsed);
    }

    /// What the last sync held.
    pub fn sync_totals(&self, entries: usize, bundles: usize) {
        self.registry.gauge("sync_entries_total", &[], number(entries));
        self.registry.gauge("sync_bundles_total", &[], number(bundles));
    }

    /// X.509-SVIDs were signed, or the attempt failed.
    pub fn x509_signed(&self, good: bool, elapsed: Duration) {
        self.registry.call("manager_sync_fetch_svids_updates", &[], ok(good), elapsed);
    }

    /// Sizes of the caches.
    pub fn cache_sizes(&self, records: usize, x509: usize, jwt: usize) {
        let x509_label = [("svid_type", "X509")];
        self.registry.gauge("lru_cache_record_map_size", &x509_label, number(records));
        self.registry.gauge("lru_cache_svid_map_size", &x509_label, number(x509));
        self.registry.gauge("jwt_svid_cache_size", &[], number(jwt));
    }

    /// A key was made.
    pub fn key_generated(&self, good: bool, elapsed: Duration) {
        self.registry.call("agent_key_manager_generate_key", &[], ok(good), elapsed);
    }

    /// Server time minus ours.
    pub fn clock_skew(&self, skew_ms: i64) {
        #[allow(clippy::cast_precision_loss)] // milliseconds of skew are far below 2^52
        self.registry.gauge("clock_skew_ms", &[], skew_ms as f64);
    }

    /// The agent looks for its first trust: which attempt this is, and since when.
    pub fn bootstrapping(&self, attempt: u32, since: Timestamp) {
        let mode = [("mode", "bootstrap")];
        self.registry.gauge("bootstrapped", &[], 0.0);
        self.registry.gauge("bootstrap_attempts", &mode, f64::from(attempt));
        #[allow(clippy::cast_precision_loss)] // seconds since 1970 are far below 2^52
        self.registry.gauge("bootstrap_seconds", &mode, since.secs() as f64);
    }

    /// True once the agent has a state of its own.
    pub fn bootstrapped(&self, done: bool) {
        self.registry.gauge("bootstrapped", &[], f64::from(u8::from(done)));
    }
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
