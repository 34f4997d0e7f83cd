//! The series of the agent: one table, and one function for each thing that is counted.
//!
//! Names and labels are SPIRE's where SPIRE has such a thing. Never a label whose values a caller can choose.

use std::sync::Arc;
use std::time::Duration;

use avouch::metrics::Registry;
use avouch_domain::{Timestamp, TrustDomain};
use tonic::Code;

avouch::metric_table! {
    STARTED: Gauge["version", "trust_domain_id"] = Spire "started", "Always 1: which version runs, for which trust domain.";
    UPTIME: Gauge[] = Spire "uptime_in_ms", "Time since the start in milliseconds.";
    RPC: Methods[] = Spire "rpc", "A call on one of the agent's sockets; of a stream, its whole life.";
    WORKLOAD_CONNECTION: Counter[] = Spire "workload_api_connection", "Calls of the Workload API that began.";
    WORKLOAD_CONNECTIONS: Gauge[] = Spire "workload_api_connections", "Those that run.";
    DEBUG_CONNECTION: Counter[] = Spire "debug_api_connection", "Calls of the debug API that began.";
    DEBUG_CONNECTIONS: Gauge[] = Spire "debug_api_connections", "Those that run.";
    LOGGER_CONNECTION: Counter[] = Spire "logger_api_connection", "Calls of the logger API that began.";
    LOGGER_CONNECTIONS: Gauge[] = Spire "logger_api_connections", "Those that run.";
    OVER_SHARE: Counter["method"] = Spire "workload_api_rate_limit_exceeded", "Calls refused because their caller had its fair share; method `connect`: connections.";
    ATTESTATION: Call[] = Spire "workload_api_workload_attestation", "All attestors together looked at a process.";
    ATTESTOR: Call["attestor"] = Spire "workload_api_workload_attestor", "One attestor looked at a process.";
    SELECTORS: Sample[] = Spire "workload_api_discovered_selectors", "Selectors that an attestation found.";
    NODE_NEW_SVID: Call["attestor"] = Spire "node_attestor_new_svid", "The node was attested.";
    NODE_ATTEST: Call[] = Spire "node_attest", "A node that had an SVID was attested again.";
    SVID_ROTATE: Call[] = Spire "agent_svid_rotate", "The agent's own SVID was renewed.";
    GENERATE_KEY: Call[] = Spire "agent_key_manager_generate_key", "A key for the agent itself was made.";
    GET_KEY: Call[] = Spire "agent_key_manager_get_key", "The key of the agent's SVID was looked up; `NotFound`: it is not here.";
    GET_KEYS: Call[] = Spire "agent_key_manager_get_keys", "The agent's keys were read at the start.";
    FETCH_ENTRIES: Call[] = Spire "manager_sync_fetch_entries_updates", "Entries were asked for; an agent to which changes are pushed asks for none.";
    FETCH_SVIDS: Call[] = Spire "manager_sync_fetch_svids_updates", "X.509-SVIDs of workloads were signed, several in one call.";
    EXPIRING: Sample[] = Spire "cache_manager_expiring_svids", "X.509-SVIDs that fell due together for renewal by age or distrust.";
    OUTDATED: Sample[] = Spire "cache_manager_outdated_svids", "X.509-SVIDs that fell due together because their entries changed.";
    TAINTED_X509: Sample[] = Spire "cache_manager_tainted_x509_svids_workload", "X.509-SVIDs found to be of an authority that is tainted or has left the bundle.";
    TAINTED_JWT: Sample[] = Spire "cache_manager_tainted_jwt_svids_workload", "JWT-SVIDs dropped for the same reason.";
    PROCESS_X509: Call[] = Spire "cache_manager_workload_process_tainted_x509_svids", "The cache was searched for such X.509-SVIDs, with success.";
    PROCESS_JWT: Call[] = Spire "cache_manager_workload_process_tainted_jwt_svids", "The cache was searched for such JWT-SVIDs, with success.";
    ENTRY_ADD: Counter[] = Spire "lru_cache_entry_add", "Entries that came.";
    ENTRY_UPDATE: Counter[] = Spire "lru_cache_entry_update", "Entries that changed.";
    ENTRY_REMOVE: Counter[] = Spire "lru_cache_entry_remove", "Entries that went.";
    RECORD_MAP: Gauge["svid_type"] = Spire "lru_cache_record_map_size", "Entries in the cache.";
    SVID_MAP: Gauge["svid_type"] = Spire "lru_cache_svid_map_size", "X.509-SVIDs in the cache.";
    JWT_CACHE: Gauge[] = Spire "jwt_svid_cache_size", "JWT-SVIDs in the cache.";
    SYNC_ENTRIES: Gauge[] = Spire "sync_entries_total", "Entries that the last sync left.";
    SYNC_BUNDLES: Gauge[] = Spire "sync_bundles_total", "Bundles that the last sync left, the own one included.";
    SYNC_MISSING: Gauge[] = Spire "sync_entries_missing", "Entries that came with the last change.";
    SYNC_STALE: Gauge[] = Spire "sync_entries_stale", "Entries that changed with it.";
    SYNC_DROPPED: Gauge[] = Spire "sync_entries_dropped", "Entries that went with it.";
    BOOTSTRAPPED: Gauge[] = Spire "bootstrapped", "1 once the agent has a state of its own, 0 before.";
    BOOTSTRAP_SECONDS: Gauge["mode"] = Spire "bootstrap_seconds", "Since when it looks for its first trust, in seconds since 1970.";
    BOOTSTRAP_ATTEMPTS: Gauge["mode"] = Spire "bootstrap_attempts", "How often it tried.";
    RECORDED: Counter["outcome"] = Avouch "records", "What was to be recorded: `kept`, or `refused` because there was no room or the disk failed.";
    SPOOL_SIZE: Gauge[] = Avouch "records_spool_bytes", "Bytes of records that are kept for the server.";
    RECORD_SHIP: Call[] = Avouch "records_ship", "Records were sent to the server.";
    RECORDS_SHIPPED: Counter[] = Avouch "records_shipped", "Records that the server has.";
    CLOCK_SKEW: Gauge[] = Avouch "clock_skew_ms", "The server's clock minus this one's, in milliseconds; more than 5000 either way is warned of.";
    RULES_NUMBER: Gauge[] = Avouch "rules_number", "Number of the rules that this node decides by; 0: none.";
    RULES_FETCH: Call[] = Avouch "rules_fetch", "Announced rules were fetched, verified and checked.";
}

/// Service and name of every method that is counted, as in the logs.
const METHODS: &[(&str, &str)] = &[
    ("WorkloadAPI", "FetchX509SVID"),
    ("WorkloadAPI", "FetchX509Bundles"),
    ("WorkloadAPI", "FetchJWTSVID"),
    ("WorkloadAPI", "FetchJWTBundles"),
    ("WorkloadAPI", "ValidateJWTSVID"),
    ("Debug", "GetInfo"),
    ("Logger", "GetLogger"),
    ("Logger", "SetLogLevel"),
    ("Logger", "ResetLogLevel"),
];

/// The APIs whose calls are counted as connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Workload,
    Debug,
    Logger,
}

/// Two kinds of papers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Papers {
    X509,
    Jwt,
}

/// The agent's series. Cheap to clone; all clones share one registry.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
}

/// How SPIRE's series call an outcome that has no code of its own.
const fn outcome(good: bool) -> Code {
    if good { Code::Ok } else { Code::Unknown }
}

impl Metrics {
    /// Series under `<prefix>_`; `fixed` labels stand on each of them.
    #[must_use]
    pub fn new(prefix: &str, fixed: &[(&str, &str)]) -> Self {
        Self { registry: Arc::new(Registry::new(prefix, TABLE, METHODS, fixed)) }
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
    pub fn started(&self, version: &'static str, trust_domain: &TrustDomain) {
        // The one label value that is not in the source: it lasts as long as the process, once.
        let trust_domain = trust_domain.as_str().to_owned().leak();
        self.registry.set(STARTED, [version, trust_domain], 1.0);
    }

    /// Time since the start.
    pub fn uptime(&self, uptime: Duration) {
        self.registry.set(UPTIME, [], uptime.as_secs_f64() * 1000.0);
    }

    /// One call on the workload or admin socket; `service` is its short name in the logs.
    pub fn rpc(&self, service: &'static str, method: &'static str, code: Code, elapsed: Duration) {
        self.registry.method(RPC, (service, method), code, elapsed);
    }

    /// A call begins (+1) or ends (-1).
    pub fn connections(&self, api: Api, change: i8) {
        let (began, running) = match api {
            Api::Workload => (WORKLOAD_CONNECTION, WORKLOAD_CONNECTIONS),
            Api::Debug => (DEBUG_CONNECTION, DEBUG_CONNECTIONS),
            Api::Logger => (LOGGER_CONNECTION, LOGGER_CONNECTIONS),
        };
        if change > 0 {
            self.registry.add(began, [], 1.0);
        }
        self.registry.shift(running, [], f64::from(change));
    }

    /// A caller was refused for its fair share.
    pub fn over_share(&self, method: &'static str) {
        self.registry.add(OVER_SHARE, [method], 1.0);
    }

    /// All lookers together looked at a process.
    pub fn workload_attestation(&self, good: bool, elapsed: Duration) {
        self.registry.call(ATTESTATION, [], outcome(good), elapsed);
    }

    /// One looker looked at a process.
    pub fn workload_attestor(&self, attestor: &'static str, good: bool, elapsed: Duration) {
        self.registry.call(ATTESTOR, [attestor], outcome(good), elapsed);
    }

    /// How many selectors a process has.
    pub fn discovered_selectors(&self, count: usize) {
        self.registry.observe(SELECTORS, [], number(count));
    }

    /// The node was attested, or attested again.
    pub fn node_attested(&self, attestor: &'static str, good: bool, elapsed: Duration) {
        self.registry.call(NODE_NEW_SVID, [attestor], outcome(good), elapsed);
    }

    /// A node that had an SVID was attested again.
    pub fn node_reattested(&self, good: bool, elapsed: Duration) {
        self.registry.call(NODE_ATTEST, [], outcome(good), elapsed);
    }

    /// The agent's own SVID was renewed.
    pub fn agent_svid_rotated(&self, good: bool, elapsed: Duration) {
        self.registry.call(SVID_ROTATE, [], outcome(good), elapsed);
    }

    /// Entries and bundles were fetched, or the attempt failed.
    pub fn synced(&self, good: bool, elapsed: Duration) {
        self.registry.call(FETCH_ENTRIES, [], outcome(good), elapsed);
    }

    /// What the last sync held.
    pub fn sync_totals(&self, entries: usize, bundles: usize) {
        self.registry.set(SYNC_ENTRIES, [], number(entries));
        self.registry.set(SYNC_BUNDLES, [], number(bundles));
    }

    /// Entries came, changed and went with one sync.
    pub fn entries_changed(&self, added: usize, updated: usize, removed: usize) {
        for (counter, gauge, count) in [
            (ENTRY_ADD, SYNC_MISSING, added),
            (ENTRY_UPDATE, SYNC_STALE, updated),
            (ENTRY_REMOVE, SYNC_DROPPED, removed),
        ] {
            self.registry.add(counter, [], number(count));
            self.registry.set(gauge, [], number(count));
        }
    }

    /// X.509-SVIDs were signed, or the attempt failed.
    pub fn x509_signed(&self, good: bool, elapsed: Duration) {
        self.registry.call(FETCH_SVIDS, [], outcome(good), elapsed);
    }

    /// So many X.509-SVIDs fell due together, by their age and by a change of their entries.
    pub fn renewals(&self, expiring: usize, outdated: usize) {
        for (sample, count) in [(EXPIRING, expiring), (OUTDATED, outdated)] {
            if count > 0 {
                self.registry.observe(sample, [], number(count));
            }
        }
    }

    /// So many papers of an authority that is not relied on any more were found.
    pub fn tainted(&self, papers: Papers, count: usize, elapsed: Duration) {
        let (sample, call) = match papers {
            Papers::X509 => (TAINTED_X509, PROCESS_X509),
            Papers::Jwt => (TAINTED_JWT, PROCESS_JWT),
        };
        self.registry.observe(sample, [], number(count));
        self.registry.call(call, [], Code::Ok, elapsed);
    }

    /// Sizes of the caches.
    pub fn cache_sizes(&self, records: usize, x509: usize, jwt: usize) {
        self.registry.set(RECORD_MAP, ["X509"], number(records));
        self.registry.set(SVID_MAP, ["X509"], number(x509));
        self.registry.set(JWT_CACHE, [], number(jwt));
    }

    /// A key was made.
    pub fn key_generated(&self, good: bool, elapsed: Duration) {
        self.registry.call(GENERATE_KEY, [], outcome(good), elapsed);
    }

    /// The key of the agent's SVID was looked up.
    pub fn key_fetched(&self, found: bool, elapsed: Duration) {
        self.registry.call(GET_KEY, [], if found { Code::Ok } else { Code::NotFound }, elapsed);
    }

    /// The agent's keys were read.
    pub fn keys_fetched(&self, good: bool, elapsed: Duration) {
        self.registry.call(GET_KEYS, [], outcome(good), elapsed);
    }

    /// Something was recorded, or could not be.
    pub fn recorded(&self, kept: bool) {
        self.registry.add(RECORDED, [if kept { "kept" } else { "refused" }], 1.0);
    }

    /// Records on disk.
    #[allow(clippy::cast_precision_loss)] // the spool is far below 2^52 bytes
    pub fn spool_size(&self, bytes: u64) {
        self.registry.set(SPOOL_SIZE, [], bytes as f64);
    }

    /// Records were sent, or the attempt failed.
    pub fn shipped(&self, good: bool, elapsed: Duration, count: usize) {
        self.registry.call(RECORD_SHIP, [], outcome(good), elapsed);
        if good {
            self.registry.add(RECORDS_SHIPPED, [], number(count));
        }
    }

    /// Server time minus ours.
    pub fn clock_skew(&self, skew_ms: i64) {
        #[allow(clippy::cast_precision_loss)] // milliseconds of skew are far below 2^52
        self.registry.set(CLOCK_SKEW, [], skew_ms as f64);
    }

    /// This node decides by these rules; 0: none.
    pub fn rules_held(&self, number: u64) {
        #[allow(clippy::cast_precision_loss)] // numbers of rules are far below 2^52
        self.registry.set(RULES_NUMBER, [], number as f64);
    }

    /// Announced rules were fetched, verified and checked, or that failed.
    pub fn rules_fetched(&self, good: bool, elapsed: Duration) {
        self.registry.call(RULES_FETCH, [], outcome(good), elapsed);
    }

    /// The agent looks for its first trust: which attempt this is, and since when.
    pub fn bootstrapping(&self, attempt: u32, since: Timestamp) {
        self.registry.set(BOOTSTRAPPED, [], 0.0);
        self.registry.set(BOOTSTRAP_ATTEMPTS, ["bootstrap"], f64::from(attempt));
        #[allow(clippy::cast_precision_loss)] // seconds since 1970 are far below 2^52
        self.registry.set(BOOTSTRAP_SECONDS, ["bootstrap"], since.secs() as f64);
    }

    /// True once the agent has a state of its own.
    pub fn bootstrapped(&self, done: bool) {
        self.registry.set(BOOTSTRAPPED, [], f64::from(u8::from(done)));
    }
}

fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_on_metrics_shows_the_table_of_the_agent() {
        let wanted = avouch::metrics::page("spire_agent", TABLE, METHODS);
        let shown = avouch::metrics::shown(include_str!("../../docs/METRICS.md"), "agent");
        assert!(shown == Some(&wanted), "docs/METRICS.md: between the marks of the agent write\n{wanted}");
    }
}
