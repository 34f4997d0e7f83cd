//! What verbs and authorities need to know of the configuration, in the words of the domain.

use std::time::Duration;

use avouch_credential::x509::name::Name;
use avouch_domain::{KeyType, Timestamp};

/// What the verbs need to know of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    pub ca_ttl: Duration,
    pub agent_ttl: Duration,
    pub x509_svid_ttl: Duration,
    pub jwt_svid_ttl: Duration,
    pub ca_key_type: KeyType,
    pub jwt_key_type: KeyType,
    pub ca_subject: Name,
    /// Empty = tokens name no issuer.
    pub jwt_issuer: String,
    pub jwt_disabled: bool,
    pub agent_spiffe_id_as_selector: bool,
    pub prune_attested_nodes_expired_for: Option<Duration>,
    pub prune_tofu_nodes: bool,
    pub prune_attested_nodes_batch_size: usize,
    /// `None`: never.
    pub owners_demanded_from: Option<Timestamp>,
}
