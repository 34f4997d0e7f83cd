//! Between wire messages and domain values, in both directions, with SPIRE's messages.
//!
//! Never guesses: a message that says nothing is [`ConvertError::Unreadable`], one that says something the rules
//! forbid is [`ConvertError::NotAllowed`]. Both reach a caller as `InvalidArgument`, behind the edge's own prefix.

mod bundle;
mod entry;
mod filter;
mod governance;
mod ids;
mod node;
mod records;
mod requests;
mod rules;
mod selectors;
mod status;
mod svid;
mod watch;

pub use bundle::{
    BundleInput, bundle_from_wire, bundle_input, bundle_to_wire, jwt_authorities, jwt_authorities_to_wire,
    split_certificates, x509_authorities,
};
pub use entry::{EntryInput, delivered_entry, entry_input, entry_to_wire, full_entry_mask, sync_entry_mask};
pub use filter::{AgentFilter, EntryFilter, Match};
pub use governance::{
    accepted_to_wire, code, code_digest, environment, finding, identity_facts_to_wire, identity_kind,
    identity_to_wire, name_of_person, optional_code, optional_code_digest, optional_person,
    optional_runs_max, person_id, person_to_wire, sign_in, standing_name,
};
pub use ids::{agent_id, member_id, spiffe_id, spiffe_id_to_wire, trust_domain, workload_id};
pub use node::{node_from_wire, node_to_wire};
pub use records::{shipment_from_wire, shipment_to_wire, stand_from_wire, stand_to_wire};
pub use requests::{
    asked_to_wire, asking_from_wire, asking_to_wire, emergency_to_wire, grant_to_wire, optional_case,
    request_hash, request_id, request_to_wire, with_grant,
};
pub use rules::{published_rules_to_wire, rules_digest, rules_files, rules_files_to_wire};
pub use selectors::{selector_set, selectors, selectors_to_wire};
pub use status::{DeniedReason, denied_reason, item_failure, item_ok, permission_denied, status_of_item};
pub use svid::{jwt_svid_to_wire, x509_svid_from_wire, x509_svid_to_wire};
pub use watch::{position_from_wire, position_to_wire};

/// Why a message has no meaning here. `Display` is the inner reason, without the prefix of the method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// The bytes or the shape say nothing: a required part is missing or malformed.
    #[error("{0}")]
    Unreadable(String),
    /// Understood, and against a rule.
    #[error("{0}")]
    NotAllowed(String),
}

impl ConvertError {
    pub(crate) fn unreadable(reason: impl std::fmt::Display) -> Self {
        Self::Unreadable(reason.to_string())
    }

    pub(crate) fn not_allowed(reason: impl std::fmt::Display) -> Self {
        Self::NotAllowed(reason.to_string())
    }

    /// The same error behind `prefix` and a colon.
    #[must_use]
    pub fn within(self, prefix: &str) -> Self {
        match self {
            Self::Unreadable(reason) => Self::Unreadable(format!("{prefix}: {reason}")),
            Self::NotAllowed(reason) => Self::NotAllowed(format!("{prefix}: {reason}")),
        }
    }
}
