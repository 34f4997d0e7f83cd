//! Attested nodes, which the API calls agents.
//!
//! Never shows a serial of a renewed SVID that was not used yet: it is nobody's business until then.

use avouch_domain::{Node, SpiffeId, Timestamp};

use super::ConvertError;
use super::ids::{spiffe_id, spiffe_id_to_wire};
use super::selectors::{selector_set, selectors_to_wire};
use crate::types;

/// A node as a reply shows it: the ID always, the rest by mask; no mask = everything.
#[must_use]
pub fn node_to_wire(node: &Node, mask: Option<&types::AgentMask>) -> types::Agent {
    let full = types::AgentMask {
        attestation_type: true,
        x509svid_serial_number: true,
        x509svid_expires_at: true,
        selectors: true,
        banned: true,
        can_reattest: true,
        agent_version: true,
    };
    let mask = mask.unwrap_or(&full);
    let text = |wanted: bool, text: &str| if wanted { text.to_owned() } else { String::new() };
    types::Agent {
        id: Some(spiffe_id_to_wire(&node.id)),
        attestation_type: text(mask.attestation_type, &node.attestation_type),
        x509svid_serial_number: text(mask.x509svid_serial_number, node.serial.as_deref().unwrap_or_default()),
        x509svid_expires_at: if mask.x509svid_expires_at { node.expires_at.secs() } else { 0 },
        selectors: if mask.selectors { selectors_to_wire(&node.selectors) } else { Vec::new() },
        banned: mask.banned && node.is_banned(),
        can_reattest: mask.can_reattest && node.can_reattest,
        agent_version: text(mask.agent_version, &node.agent_version),
    }
}

/// A node as a reply without a mask showed it.
///
/// # Errors
/// A malformed ID or selector.
pub fn node_from_wire(wire: &types::Agent) -> Result<Node, ConvertError> {
    let id: SpiffeId = spiffe_id(wire.id.as_ref())?;
    Ok(Node {
        id,
        attestation_type: wire.attestation_type.as_str().into(),
        serial: (!wire.banned).then(|| wire.x509svid_serial_number.as_str().into()),
        expires_at: Timestamp::from_secs(wire.x509svid_expires_at),
        new_serial: None,
        selectors: selector_set(&wire.selectors)?,
        can_reattest: wire.can_reattest,
        agent_version: wire.agent_version.as_str().into(),
    })
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::node;

    use super::*;

    #[test]
    fn a_node_survives_the_wire() {
        let node = node("/spire/agent/join_token/t", &["a:1"], 5);
        assert_eq!(node_from_wire(&node_to_wire(&node, None)), Ok(node));
    }

    #[test]
    fn a_banned_node_has_no_serial() {
        let node = Node { serial: None, ..node("/spire/agent/join_token/t", &[], 5) };
        let shown = node_to_wire(&node, None);
        assert!(shown.banned && shown.x509svid_serial_number.is_empty());
        assert_eq!(node_from_wire(&shown), Ok(node));
    }

    #[test]
    fn an_empty_mask_shows_the_id_only() {
        let node = node("/spire/agent/join_token/t", &["a:1"], 5);
        let shown = node_to_wire(&node, Some(&types::AgentMask::default()));
        assert_eq!(shown, types::Agent { id: Some(spiffe_id_to_wire(&node.id)), ..Default::default() });
    }
}
