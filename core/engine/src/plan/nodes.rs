//! Plans that attest, renew, promote, ban and forget nodes.
//!
//! Never writes a node without spending its join token in the same plan, and never un-bans one.

use std::sync::Arc;

use avouch_domain::limits::AGENT_VERSION_MAX;
use avouch_domain::{AuditEvent, Node, NodeSerial, Plan, Row, RowKey, SelectorSet, SpiffeId, Timestamp};

use super::Draft;
use super::entries::is_join_token_alias;
use crate::registry::Registry;

/// A node that has proved itself and whose SVID is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    pub id: SpiffeId,
    /// Name of the attestor.
    pub kind: Arc<str>,
    pub serial: NodeSerial,
    pub expires_at: Timestamp,
    pub selectors: SelectorSet,
    pub can_reattest: bool,
    /// Digest of the join token to spend.
    pub token: Option<[u8; 32]>,
}

/// Why a node was not attested. Messages are SPIRE's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestRefusal {
    #[error("failed to attest: join token does not exist or has already been used")]
    TokenUnknown,
    #[error("join token expired")]
    TokenExpired,
    #[error("failed to attest: agent is banned")]
    Banned,
}

/// Why a verb on a node was refused. Messages are SPIRE's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    #[error("agent not found")]
    NotFound,
    #[error("agent version is too long (max 255 characters)")]
    VersionTooLong,
}

/// Why an agent that shows its SVID is turned away; agents act on the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentRefusal {
    #[error("agent SVID is expired")]
    Expired,
    #[error("agent is not attested")]
    NotAttested,
    #[error("agent SVID is not active")]
    NotActive,
    #[error("agent is banned")]
    Banned,
}

/// What an agent's SVID says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The SVID in use.
    Current,
    /// A renewed SVID, used for the first time: to be promoted.
    Renewed,
}

/// Judges the SVID an agent shows by the serial it carries. The row's own end counts, not only the
/// certificate's.
///
/// # Errors
/// [`AgentRefusal`].
pub fn judge(
    registry: &Registry,
    wall: Timestamp,
    id: &SpiffeId,
    serial: &str,
) -> Result<Standing, AgentRefusal> {
    let node = registry.node(id).ok_or(AgentRefusal::NotAttested)?;
    let Some(current) = &node.serial else { return Err(AgentRefusal::Banned) };
    if **current == *serial {
        return if node.expires_at <= wall { Err(AgentRefusal::Expired) } else { Ok(Standing::Current) };
    }
    match &node.new_serial {
        Some((new, end)) if **new == *serial => {
            if *end <= wall {
                Err(AgentRefusal::Expired)
            } else {
                Ok(Standing::Renewed)
            }
        }
        _ => Err(AgentRefusal::NotActive),
    }
}

/// Checks what [`attest`] would refuse, so that nothing is signed for a node that can't join.
///
/// # Errors
/// [`AttestRefusal`].
pub fn may_attest(
    registry: &Registry,
    at: Timestamp,
    id: &SpiffeId,
    token: Option<&[u8; 32]>,
) -> Result<(), AttestRefusal> {
    if let Some(digest) = token {
        let token = registry.token(digest).ok_or(AttestRefusal::TokenUnknown)?;
        if token.expires_at <= at {
            return Err(AttestRefusal::TokenExpired);
        }
    }
    if registry.node(id).is_some_and(Node::is_banned) {
        return Err(AttestRefusal::Banned);
    }
    Ok(())
}

/// Writes the node and spends its token, in one revision.
pub fn attest(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    input: &Attested,
) -> (Plan, Result<Node, AttestRefusal>) {
    if let Err(refusal) = may_attest(registry, at, &input.id, input.token.as_ref()) {
        return (Plan::default(), Err(refusal));
    }
    let mut draft = Draft::new(registry, at, actor);
    if let Some(digest) = input.token {
        draft.note(AuditEvent::JoinTokenSpent, &input.id);
        draft.delete(RowKey::JoinToken(digest));
    }
    let old = registry.node(&input.id);
    let node = Node {
        id: input.id.clone(),
        attestation_type: old.map_or_else(|| input.kind.clone(), |n| n.attestation_type.clone()),
        serial: Some(input.serial.clone()),
        expires_at: input.expires_at,
        new_serial: None,
        selectors: input.selectors.clone(),
        can_reattest: input.can_reattest,
        agent_version: old.map_or_else(|| "".into(), |n| n.agent_version.clone()),
    };
    draft.note(AuditEvent::NodeAttested, &node.id);
    draft.put(Row::Node(node.clone()));
    (draft.finish(), Ok(node))
}

fn change_node(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    id: &SpiffeId,
    event: AuditEvent,
    change: impl FnOnce(&mut Node) -> Result<(), NodeError>,
) -> (Plan, Result<(), NodeError>) {
    let Some(old) = registry.node(id) else { return (Plan::default(), Err(NodeError::NotFound)) };
    let mut node = old.clone();
    if let Err(e) = change(&mut node) {
        return (Plan::default(), Err(e));
    }
    if node == *old {
        return (Plan::default(), Ok(()));
    }
    let mut draft = Draft::new(registry, at, actor);
    draft.note(event, id);
    draft.put(Row::Node(node));
    (draft.finish(), Ok(()))
}

/// Remembers a renewed SVID. The one in use stays valid until the new one is shown. A node that was banned in
/// the meantime counts as not found.
pub fn renew(
    registry: &Registry,
    at: Timestamp,
    id: &SpiffeId,
    serial: &NodeSerial,
    expires_at: Timestamp,
) -> (Plan, Result<(), NodeError>) {
    change_node(registry, at, id.as_str(), id, AuditEvent::NodeRenewed, |node| {
        if node.is_banned() {
            return Err(NodeError::NotFound);
        }
        node.new_serial = Some((serial.clone(), expires_at));
        Ok(())
    })
}

/// Makes a renewed SVID the one in use at its first use; from then on the old one is refused.
pub fn promote(
    registry: &Registry,
    at: Timestamp,
    id: &SpiffeId,
    serial: &str,
) -> (Plan, Result<(), NodeError>) {
    change_node(registry, at, id.as_str(), id, AuditEvent::NodePromoted, |node| {
        if node.is_banned() {
            return Err(NodeError::NotFound);
        }
        if let Some((new, end)) = node.new_serial.take_if(|(new, _)| **new == *serial) {
            node.serial = Some(new);
            node.expires_at = end;
        }
        Ok(())
    })
}

/// Bans a node: it stays listed and may never attest again.
pub fn ban(registry: &Registry, at: Timestamp, actor: &str, id: &SpiffeId) -> (Plan, Result<(), NodeError>) {
    change_node(registry, at, actor, id, AuditEvent::NodeBanned, |node| {
        node.serial = None;
        node.new_serial = None;
        Ok(())
    })
}

/// Notes the version an agent reports; an empty one says nothing.
pub fn post_status(
    registry: &Registry,
    at: Timestamp,
    id: &SpiffeId,
    version: &str,
) -> (Plan, Result<(), NodeError>) {
    if version.len() > AGENT_VERSION_MAX {
        return (Plan::default(), Err(NodeError::VersionTooLong));
    }
    if version.is_empty() {
        return (Plan::default(), Ok(()));
    }
    change_node(registry, at, id.as_str(), id, AuditEvent::NodeUpdated, |node| {
        if *node.agent_version != *version {
            node.agent_version = version.into();
        }
        Ok(())
    })
}

/// Forgets a node: it must attest anew, and a ban is lifted. The entry made with its join token goes with it.
pub fn delete(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    id: &SpiffeId,
) -> (Plan, Result<(), NodeError>) {
    let Some(node) = registry.node(id) else { return (Plan::default(), Err(NodeError::NotFound)) };
    let mut draft = Draft::new(registry, at, actor);
    delete_in(&mut draft, node);
    (draft.finish(), Ok(()))
}

fn delete_in(draft: &mut Draft<'_>, node: &Node) {
    if *node.attestation_type == *"join_token" {
        let aliases: Vec<_> = draft
            .before
            .entries_by_parent(&node.id)
            .filter(|e| is_join_token_alias(e))
            .map(|e| e.id.clone())
            .collect();
        for id in &aliases {
            draft.delete_entry(id);
        }
    }
    draft.note(AuditEvent::NodeDeleted, &node.id);
    draft.delete(RowKey::Node(node.id.clone()));
}

/// Forgets nodes whose SVID ended before `ended_before`, at most `limit`. Banned ones stay banned; those that
/// can't attest again go only if `single_use_too`.
#[must_use]
pub fn prune(
    registry: &Registry,
    at: Timestamp,
    ended_before: Timestamp,
    single_use_too: bool,
    limit: usize,
) -> (Plan, usize) {
    let mut draft = Draft::new(registry, at, "server");
    let gone: Vec<_> = registry
        .expired_nodes(ended_before)
        .filter(|n| !n.is_banned() && (n.can_reattest || single_use_too))
        .take(limit)
        .collect();
    for node in &gone {
        delete_in(&mut draft, node);
    }
    (draft.finish(), gone.len())
}
