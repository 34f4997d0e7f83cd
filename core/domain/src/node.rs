//! Attested node: the agent's ID, how it proved itself, its serials, banned or not.

use std::sync::Arc;

use crate::selector::SelectorSet;
use crate::spiffe_id::SpiffeId;
use crate::time::Timestamp;

/// Serial number of an agent SVID as decimal text, the form the API uses.
pub type NodeSerial = Arc<str>;

/// An attested node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub id: SpiffeId,
    /// Name of the attestor that accepted it first, such as `join_token`.
    pub attestation_type: Arc<str>,
    /// Serial of the SVID in use; `None` = banned.
    pub serial: Option<NodeSerial>,
    /// End of the SVID in use.
    pub expires_at: Timestamp,
    /// Serial and end of a renewed SVID that has not been used yet; its first use promotes it.
    pub new_serial: Option<(NodeSerial, Timestamp)>,
    pub selectors: SelectorSet,
    pub can_reattest: bool,
    /// As the agent last reported; empty if never.
    pub agent_version: Arc<str>,
}

impl Node {
    /// True if it may call: not banned, and its SVID has not ended.
    #[must_use]
    pub fn is_alive(&self, wall: Timestamp) -> bool {
        !self.is_banned() && self.expires_at > wall
    }

    #[must_use]
    pub fn is_banned(&self) -> bool {
        self.serial.is_none()
    }
}
