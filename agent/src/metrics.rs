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

    /// A node that had an SVID was attested again.
    pub fn node_reattested(&self, good: bool, elapsed: Duration) {
        self.registry.call("node_attest", &[], ok(good), elapsed);
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

    /// Entries came, changed and went with one sync.
    pub fn entries_changed(&self, added: usize, updated: usize, removed: usize) {
        for (name, count) in [("add", added), ("update", updated), ("remove", removed)] {
            self.registry.counter(&format!("lru_cache_entry_{name}"), &[], number(count));
        }
        for (name, count) in [("missing", added), ("stale", updated), ("dropped", removed)] {
            self.registry.gauge(&format!("sync_entries_{name}"), &[], number(count));
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(metrics: &Metrics) -> Vec<String> {
        let page = metrics.registry().render();
        let name = |line: &str| line.split(['{', ' ']).next().unwrap_or_default().to_owned();
        page.lines().filter(|l| !l.starts_with('#')).map(name).collect()
    }

    #[test]
    fn series_have_the_names_that_dashboards_of_spires_agent_ask_for() {
        let metrics = Metrics::new("spire_agent", &[("host", "node-1")]);
        let second = Duration::from_secs(1);
        metrics.started("1", &avouch_domain::fixtures::domain());
        metrics.uptime(second);
        metrics.rpc("WorkloadAPI", "FetchX509SVID", tonic::Code::Ok, second);
        metrics.connections("workload_api", 1);
        metrics.over_share("FetchX509SVID");
        metrics.workload_attestation(true, second);
        metrics.discovered_selectors(3);
        metrics.node_attested("x509pop", true, second);
        metrics.node_reattested(true, second);
        metrics.agent_svid_rotated(true, second);
        metrics.synced(true, second);
        metrics.sync_totals(1, 2);
        metrics.entries_changed(1, 2, 3);
        metrics.x509_signed(true, second);
        metrics.cache_sizes(1, 2, 3);
        metrics.key_generated(true, second);
        metrics.bootstrapping(1, Timestamp::from_secs(5));
        metrics.bootstrapped(true);
        let names = names(&metrics);
        for wanted in [
            "started",
            "uptime_in_ms",
            "rpc_workload_api_fetch_x509svid",
            "workload_api_connection",
            "workload_api_connections",
            "workload_api_rate_limit_exceeded",
            "workload_api_workload_attestation",
            "workload_api_discovered_selectors_sum",
            "node_attestor_new_svid",
            "node_attest",
            "agent_svid_rotate",
            "manager_sync_fetch_entries_updates",
            "sync_entries_total",
            "sync_bundles_total",
            "sync_entries_missing",
            "sync_entries_stale",
            "sync_entries_dropped",
            "lru_cache_entry_add",
            "lru_cache_entry_update",
            "lru_cache_entry_remove",
            "manager_sync_fetch_svids_updates",
            "lru_cache_record_map_size",
            "lru_cache_svid_map_size",
            "jwt_svid_cache_size",
            "agent_key_manager_generate_key",
            "bootstrapped",
            "bootstrap_seconds",
            "bootstrap_attempts",
        ] {
            let wanted = format!("spire_agent_{wanted}");
            assert!(names.contains(&wanted), "{wanted} is not in {names:?}");
        }
    }
}
