//! The series of the server: one table, and one function for each thing that is counted.
//!
//! Names and labels are SPIRE's where SPIRE has such a thing. Never a label whose values a caller can choose.

use std::sync::Arc;
use std::time::Duration;

use avouch::metrics::{Call, Registry};
use avouch_domain::{AuthorityKind, Timestamp, TrustDomain};
use tonic::Code;

use crate::config::TelemetryConfig;

avouch::metric_table! {
    STARTED: Gauge["version", "trust_domain_id"] = Spire "started", "Always 1: which version runs, for which trust domain.";
    UPTIME: Gauge[] = Spire "uptime_in_ms", "Time since the start in milliseconds.";
    RPC: Methods[] = Spire "rpc", "A call of the API.";
    RATE_LIMIT: Methods[] = Spire "rateLimit_rpc", "A turn at the method's rate limit; the time is the wait.";
    SIGN_X509: Counter[] = Spire "server_ca_sign_x509_svid", "X.509-SVIDs signed.";
    SIGN_X509_TIME: Sample[] = Avouch "server_ca_sign_x509_svid_elapsed_time", "Milliseconds that one took.";
    SIGN_JWT: Counter[] = Spire "server_ca_sign_jwt_svid", "JWT-SVIDs signed.";
    SIGN_JWT_TIME: Sample[] = Avouch "server_ca_sign_jwt_svid_elapsed_time", "Milliseconds that one took.";
    X509_PREPARE: Call[] = Spire "ca_manager_x509_ca_prepare", "An X.509 authority was made and published.";
    X509_ACTIVATE: Counter[] = Spire "ca_manager_x509_ca_activate", "X.509 authorities that began to sign.";
    JWT_PREPARE: Call[] = Spire "ca_manager_jwt_key_prepare", "A JWT authority was made and published.";
    JWT_ACTIVATE: Counter[] = Spire "manager_jwt_key_activate", "JWT authorities that began to sign.";
    CA_EXPIRATION: Gauge["trust_domain_id"] = Spire "manager_x509_ca_rotate_expiration", "When the X.509 authority in use ends, in seconds since 1970.";
    CA_TTL: Gauge["trust_domain_id"] = Spire "manager_x509_ca_rotate_ttl", "Seconds that it has left.";
    BUNDLE_PRUNE: Call[] = Spire "ca_manager_bundle_prune", "The own bundle was searched for authorities that ended.";
    BUNDLE_PRUNED: Counter[] = Spire "ca_manager_bundle_pruned", "Searches that took something out.";
    SVID_ROTATE: Call[] = Spire "svid_rotate", "The server's own SVID was renewed.";
    GENERATE_KEY: Call[] = Spire "server_key_manager_generate_key", "The key manager made a key.";
    GET_KEY: Call[] = Spire "server_key_manager_get_public_key", "The key manager was asked for a key it has; `NotFound`: it has none.";
    ENTRY_MANAGER_PRUNE: Call[] = Spire "registration_entry_manager_prune", "Ended entries were removed.";
    NODE_MANAGER_PRUNE: Call[] = Spire "node_manager_prune", "Nodes whose SVID ended long ago were removed.";
    CACHE_RELOAD: Call[] = Spire "entry_cache_reload", "Memory was filled or brought up to date from the store: at the start, and when another server wrote.";
    AGENTS: Gauge[] = Spire "node_agents_by_id_cache_count", "Nodes in memory.";
    ENTRIES: Gauge[] = Spire "entry_entries_by_entryid_cache_count", "Entries in memory.";
    WATCHERS: Gauge[] = Avouch "watch_streams", "Streams of changes that agents hold open.";
    COMMIT: Call[] = Avouch "datastore_commit", "A transaction with everything that waited to be written; `Aborted`: another server was faster.";
    IMAGE_FETCH: Call[] = Avouch "datastore_image_fetch", "Everything was read from the store.";
    CHANGE_LIST: Call[] = Avouch "datastore_change_list", "The change log was read from a position on.";
    POSITION_FETCH: Call[] = Avouch "datastore_position_fetch", "The position of the change log was read.";
    ENTRY_CREATE: Call[] = Spire "datastore_registration_entry_create", "An entry was written anew; the time is that of its transaction, as in all below.";
    ENTRY_UPDATE: Call[] = Spire "datastore_registration_entry_update", "An entry was replaced.";
    ENTRY_DELETE: Call[] = Spire "datastore_registration_entry_delete", "An entry was removed, also by pruning.";
    ENTRY_PRUNE: Call[] = Spire "datastore_registration_entry_prune", "Ended entries were removed in one go.";
    NODE_CREATE: Call[] = Spire "datastore_node_create", "A node was written anew.";
    NODE_UPDATE: Call[] = Spire "datastore_node_update", "A node was replaced: renewed, banned, attested again.";
    NODE_DELETE: Call[] = Spire "datastore_node_delete", "A node was removed, also by pruning.";
    NODE_PRUNE: Call[] = Spire "datastore_node_prune", "Nodes whose SVID ended long ago were removed in one go.";
    SELECTORS_SET: Call[] = Spire "datastore_node_selectors_set", "A node got other selectors than it had.";
    BUNDLE_CREATE: Call[] = Spire "datastore_bundle_create", "A bundle was written anew.";
    BUNDLE_UPDATE: Call[] = Spire "datastore_bundle_update", "A bundle was replaced, also to append to it.";
    BUNDLE_DELETE: Call[] = Spire "datastore_bundle_delete", "A bundle was removed.";
    X509_TAINT: Call[] = Spire "datastore_bundle_x509_taint", "An operator wanted an X.509 authority tainted.";
    X509_REVOKE: Call[] = Spire "datastore_bundle_x509_revoke", "An operator wanted an X.509 authority revoked.";
    JWT_TAINT: Call[] = Spire "datastore_bundle_jwt_taint", "An operator wanted a JWT authority tainted.";
    JWT_REVOKE: Call[] = Spire "datastore_bundle_jwt_revoke", "An operator wanted a JWT authority revoked.";
    DATASTORE_BUNDLE_PRUNE: Call[] = Spire "datastore_bundle_prune", "The own bundle was searched for authorities that ended.";
    TOKEN_CREATE: Call[] = Spire "datastore_join_token_create", "A join token was written.";
    TOKEN_DELETE: Call[] = Spire "datastore_join_token_delete", "A join token was spent or pruned.";
    TOKEN_PRUNE: Call[] = Spire "datastore_join_token_prune", "Ended join tokens were removed in one go.";
    JOURNAL_SET: Call[] = Spire "datastore_ca_journal_set", "The state of an authority was written.";
    PERSON_SET: Call[] = Avouch "datastore_person_set", "A person was written.";
    IDENTITY_SET: Call[] = Avouch "datastore_identity_set", "An identity was written.";
    RULES_SET: Call[] = Avouch "datastore_rules_set", "Published rules were written.";
    RULES_FOLDER_FETCH: Call[] = Avouch "datastore_rules_folder_fetch", "A folder of published rules was read.";
    REQUEST_SET: Call[] = Avouch "datastore_request_set", "A request for a person's yes was written.";
    REQUEST_TEXT_FETCH: Call[] = Avouch "datastore_request_text_fetch", "The text of a request was read.";
    REQUEST_PRUNE: Call[] = Avouch "datastore_request_prune", "Requests of which nothing can come any more were removed.";
    GRANT_SET: Call[] = Avouch "datastore_grant_set", "A grant was given, used or ended.";
    GRANT_PRUNE: Call[] = Avouch "datastore_grant_prune", "Grants of which nothing can come any more were removed.";
    ACCEPTED_SET: Call[] = Avouch "datastore_accepted_set", "What something lacks was accepted, or counts again.";
    EMERGENCY_SET: Call[] = Avouch "datastore_emergency_set", "An emergency was asked for, agreed to or ended.";
    EMERGENCY_PRUNE: Call[] = Avouch "datastore_emergency_prune", "Emergencies of which nothing can come any more were removed.";
    RECORD_LIST: Call[] = Avouch "datastore_record_list", "Records were read.";
    NODE_RECORD_LIST: Call[] = Avouch "datastore_node_record_list", "Records of nodes, or where their chains stand, were read.";
    NODE_RECORD_APPEND: Call[] = Avouch "datastore_node_record_append", "Records that nodes had sent were written, those of several nodes in one transaction.";
    NODE_RECORDS: Counter[] = Avouch "node_records", "Records of nodes that came and are on disk.";
    HEAD_SIGN: Call[] = Avouch "record_head_sign", "The newest record was signed and the signature written.";
    RULES_SIGN: Call[] = Avouch "rules_sign", "The rules in force were signed, to be shown to agents.";
    RULES_NUMBER: Gauge[] = Avouch "rules_number", "Number of the rules in force that agents are shown; 0: none.";
}

/// What was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    X509,
    Jwt,
}

/// What pruning removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pruned {
    Entries,
    JoinTokens,
    Nodes,
    Requests,
    Grants,
    Emergencies,
}

/// How an operator withdraws trust from an authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    Taint,
    Revoke,
}

/// One question to the store, or a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreCall {
    Commit,
    Image,
    Changes,
    Position,
    Records,
    RulesFolder,
    RequestText,
    NodeRecords,
    NodeRecordsKept,
}

/// What became of one row in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowChange {
    EntryCreated,
    EntryUpdated,
    EntryDeleted,
    NodeCreated,
    NodeUpdated,
    NodeDeleted,
    NodeSelectorsSet,
    BundleCreated,
    BundleUpdated,
    BundleDeleted,
    TokenCreated,
    TokenDeleted,
    JournalSet,
    PersonSet,
    IdentitySet,
    RulesSet,
    RequestSet,
    GrantSet,
    AcceptedSet,
    EmergencySet,
}

impl RowChange {
    const fn line(self) -> Call<0> {
        match self {
            Self::EntryCreated => ENTRY_CREATE,
            Self::EntryUpdated => ENTRY_UPDATE,
            Self::EntryDeleted => ENTRY_DELETE,
            Self::NodeCreated => NODE_CREATE,
            Self::NodeUpdated => NODE_UPDATE,
            Self::NodeDeleted => NODE_DELETE,
            Self::NodeSelectorsSet => SELECTORS_SET,
            Self::BundleCreated => BUNDLE_CREATE,
            Self::BundleUpdated => BUNDLE_UPDATE,
            Self::BundleDeleted => BUNDLE_DELETE,
            Self::TokenCreated => TOKEN_CREATE,
            Self::TokenDeleted => TOKEN_DELETE,
            Self::JournalSet => JOURNAL_SET,
            Self::PersonSet => PERSON_SET,
            Self::IdentitySet => IDENTITY_SET,
            Self::RulesSet => RULES_SET,
            Self::RequestSet => REQUEST_SET,
            Self::GrantSet => GRANT_SET,
            Self::AcceptedSet => ACCEPTED_SET,
            Self::EmergencySet => EMERGENCY_SET,
        }
    }
}

/// How SPIRE's series call an outcome that has no code of its own.
const fn outcome(good: bool) -> Code {
    if good { Code::Ok } else { Code::Unknown }
}

/// A cheap handle to the one registry.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    trust_domain: &'static str,
}

impl Metrics {
    /// A registry with the labels that the configuration wants on every series; `methods` are those of the API, by
    /// service and name as the logs have them.
    #[must_use]
    pub fn new(
        config: &TelemetryConfig,
        trust_domain: &TrustDomain,
        methods: &[(&'static str, &'static str)],
    ) -> Self {
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let mut labels = Vec::new();
        if let Some(host) = host.as_deref().filter(|_| config.host_label) {
            labels.push(("host", host));
        }
        if config.trust_domain_label {
            labels.push(("trust_domain", trust_domain.as_str()));
        }
        Self {
            registry: Arc::new(Registry::new(&config.prefix, TABLE, methods, &labels)),
            // The one label value that is not in the source: it lasts as long as the process, once.
            trust_domain: trust_domain.as_str().to_owned().leak(),
        }
    }

    /// Series under SPIRE's prefix, without labels and methods.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        let config = TelemetryConfig {
            prefix: "spire_server".into(),
            host_label: false,
            trust_domain_label: false,
            prometheus: None,
        };
        Self::new(&config, &avouch_domain::fixtures::domain(), &[])
    }

    /// What the scraper's page is made of.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.clone()
    }

    /// The server has started.
    pub fn started(&self, version: &'static str) {
        self.registry.set(STARTED, [version, self.trust_domain], 1.0);
    }

    /// Time since the start.
    pub fn uptime(&self, uptime: Duration) {
        self.registry.set(UPTIME, [], uptime.as_secs_f64() * 1000.0);
    }

    /// How much is in memory, and how many agents follow it.
    #[allow(clippy::cast_precision_loss)] // counts are far below 2^52
    pub fn sizes(&self, agents: usize, entries: usize, watchers: usize) {
        for (gauge, count) in [(AGENTS, agents), (ENTRIES, entries), (WATCHERS, watchers)] {
            self.registry.set(gauge, [], count as f64);
        }
    }

    /// When the X.509 authority in use ends.
    #[allow(clippy::cast_precision_loss)] // seconds since 1970 are far below 2^52
    pub fn authority_ends(&self, end: Timestamp, now: Timestamp) {
        self.registry.set(CA_EXPIRATION, [self.trust_domain], end.secs() as f64);
        self.registry.set(CA_TTL, [self.trust_domain], end.since(now).as_secs_f64());
    }

    /// One call of the API.
    pub fn rpc(&self, service: &'static str, method: &'static str, code: Code, elapsed: Duration) {
        self.registry.method(RPC, (service, method), code, elapsed);
    }

    /// One turn taken at a rate limit.
    pub fn rate_limit(&self, service: &'static str, method: &'static str, code: Code, elapsed: Duration) {
        self.registry.method(RATE_LIMIT, (service, method), code, elapsed);
    }

    /// One signature.
    pub fn signed(&self, what: Signed, elapsed: Duration) {
        let (counter, sample) = match what {
            Signed::X509 => (SIGN_X509, SIGN_X509_TIME),
            Signed::Jwt => (SIGN_JWT, SIGN_JWT_TIME),
        };
        self.registry.add(counter, [], 1.0);
        self.registry.observe(sample, [], elapsed.as_secs_f64() * 1000.0);
    }

    /// An authority was made and published, or the attempt failed.
    pub fn prepared(&self, kind: AuthorityKind, good: bool, elapsed: Duration) {
        let call = match kind {
            AuthorityKind::X509 => X509_PREPARE,
            AuthorityKind::Jwt => JWT_PREPARE,
        };
        self.registry.call(call, [], outcome(good), elapsed);
    }

    /// An authority began to sign.
    pub fn activated(&self, kind: AuthorityKind) {
        let counter = match kind {
            AuthorityKind::X509 => X509_ACTIVATE,
            AuthorityKind::Jwt => JWT_ACTIVATE,
        };
        self.registry.add(counter, [], 1.0);
    }

    /// An authority was tainted or revoked, or that was refused.
    pub fn withdrawn(&self, kind: AuthorityKind, how: Withdrawal, good: bool, elapsed: Duration) {
        let call = match (kind, how) {
            (AuthorityKind::X509, Withdrawal::Taint) => X509_TAINT,
            (AuthorityKind::X509, Withdrawal::Revoke) => X509_REVOKE,
            (AuthorityKind::Jwt, Withdrawal::Taint) => JWT_TAINT,
            (AuthorityKind::Jwt, Withdrawal::Revoke) => JWT_REVOKE,
        };
        self.registry.call(call, [], outcome(good), elapsed);
    }

    /// Records of nodes were kept.
    pub fn node_records(&self, count: usize) {
        self.registry.add(NODE_RECORDS, [], f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    }

    /// The own bundle was searched for ended authorities; `removed` tells whether some were taken out.
    pub fn bundle_pruned(&self, removed: Result<bool, ()>, elapsed: Duration) {
        for call in [BUNDLE_PRUNE, DATASTORE_BUNDLE_PRUNE] {
            self.registry.call(call, [], outcome(removed.is_ok()), elapsed);
        }
        if removed == Ok(true) {
            self.registry.add(BUNDLE_PRUNED, [], 1.0);
        }
    }

    /// The newest record was signed, or the attempt failed.
    pub fn head_signed(&self, good: bool, elapsed: Duration) {
        self.registry.call(HEAD_SIGN, [], outcome(good), elapsed);
    }

    /// The rules in force were signed, or the attempt failed.
    pub fn rules_signed(&self, good: bool, elapsed: Duration) {
        self.registry.call(RULES_SIGN, [], outcome(good), elapsed);
    }

    /// Agents are shown these rules; 0: none.
    #[allow(clippy::cast_precision_loss)] // numbers of rules are far below 2^52
    pub fn rules_in_force(&self, number: u64) {
        self.registry.set(RULES_NUMBER, [], number as f64);
    }

    /// The server's own SVID was renewed, or the attempt failed.
    pub fn server_svid_rotated(&self, good: bool, elapsed: Duration) {
        self.registry.call(SVID_ROTATE, [], outcome(good), elapsed);
    }

    /// The key manager made a key, or failed.
    pub fn key_generated(&self, good: bool, elapsed: Duration) {
        self.registry.call(GENERATE_KEY, [], outcome(good), elapsed);
    }

    /// The key manager was asked for a key.
    pub fn key_fetched(&self, found: bool, elapsed: Duration) {
        self.registry.call(GET_KEY, [], if found { Code::Ok } else { Code::NotFound }, elapsed);
    }

    /// Rows whose time is over were removed, or the attempt failed.
    pub fn pruned(&self, what: Pruned, good: bool, elapsed: Duration) {
        let (store, manager) = match what {
            Pruned::Entries => (ENTRY_PRUNE, Some(ENTRY_MANAGER_PRUNE)),
            Pruned::JoinTokens => (TOKEN_PRUNE, None),
            Pruned::Nodes => (NODE_PRUNE, Some(NODE_MANAGER_PRUNE)),
            Pruned::Requests => (REQUEST_PRUNE, None),
            Pruned::Grants => (GRANT_PRUNE, None),
            Pruned::Emergencies => (EMERGENCY_PRUNE, None),
        };
        for call in manager.into_iter().chain([store]) {
            self.registry.call(call, [], outcome(good), elapsed);
        }
    }

    /// Memory was filled or brought up to date from the store, or the attempt failed.
    pub fn reloaded(&self, good: bool, elapsed: Duration) {
        self.registry.call(CACHE_RELOAD, [], outcome(good), elapsed);
    }

    /// The store answered.
    pub fn store_called(&self, what: StoreCall, code: Code, elapsed: Duration) {
        let call = match what {
            StoreCall::Commit => COMMIT,
            StoreCall::Image => IMAGE_FETCH,
            StoreCall::Changes => CHANGE_LIST,
            StoreCall::Position => POSITION_FETCH,
            StoreCall::Records => RECORD_LIST,
            StoreCall::RulesFolder => RULES_FOLDER_FETCH,
            StoreCall::RequestText => REQUEST_TEXT_FETCH,
            StoreCall::NodeRecords => NODE_RECORD_LIST,
            StoreCall::NodeRecordsKept => NODE_RECORD_APPEND,
        };
        self.registry.call(call, [], code, elapsed);
    }

    /// As many rows were changed in one transaction.
    pub fn rows_changed(&self, change: RowChange, code: Code, elapsed: Duration, many: u32) {
        self.registry.calls(change.line(), [], code, elapsed, many);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::authz::method_names;

    #[test]
    fn the_page_on_metrics_shows_the_table_of_the_server() {
        let wanted = avouch::metrics::page("spire_server", TABLE, &method_names());
        let shown = avouch::metrics::shown(include_str!("../../docs/METRICS.md"), "server");
        assert!(shown == Some(&wanted), "docs/METRICS.md: between the marks of the server write\n{wanted}");
    }
}
