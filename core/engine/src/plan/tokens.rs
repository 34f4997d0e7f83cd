//! Plans that create and end join tokens. Spending one is part of the plan that attests the node.
//!
//! Never sees the text of a token: only its digest is written.

use avouch_domain::{
    AuditEvent, EntryId, JoinToken, Plan, Row, RowKey, Selector, SelectorError, SpiffeId, Timestamp, Ttl,
};

use super::Draft;
use super::entries::{EntryWriteError, NewEntry, PRUNE_BATCH, create_one};
use crate::registry::Registry;

/// Why a join token was not created.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    #[error("join token already exists")]
    Duplicate,
    #[error("failed to create join token selector: {0}")]
    Selector(#[from] SelectorError),
    #[error("failed to create join token entry: {0}")]
    Alias(EntryWriteError),
}

/// The entry that comes with a token: the agent that joins with it may act as `spiffe_id`.
#[derive(Clone, Debug)]
pub struct Alias {
    /// ID of the agent that the token makes.
    pub agent: SpiffeId,
    pub spiffe_id: SpiffeId,
    /// Unused id for the entry.
    pub entry_id: EntryId,
}

/// Creates a token, and the entry that names its agent if one is wanted.
pub fn create(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    token: &JoinToken,
    alias: Option<&Alias>,
) -> (Plan, Result<(), JoinTokenError>) {
    let mut draft = Draft::new(registry, at, actor);
    let outcome = create_in(&mut draft, token, alias);
    match outcome {
        Ok(()) => (draft.finish(), Ok(())),
        Err(e) => (Plan::default(), Err(e)),
    }
}

fn create_in(draft: &mut Draft<'_>, token: &JoinToken, alias: Option<&Alias>) -> Result<(), JoinTokenError> {
    // One that has ended is only remembered; its text may be given out anew.
    if draft.after.token(&token.digest).is_some_and(|old| old.expires_at > draft.at) {
        return Err(JoinTokenError::Duplicate);
    }
    draft.note(
        AuditEvent::JoinTokenCreated,
        alias.map_or_else(|| "join token".to_owned(), |a| a.spiffe_id.to_string()),
    );
    draft.put(Row::JoinToken(token.clone()));
    let Some(alias) = alias else { return Ok(()) };
    let item = NewEntry {
        id: None,
        spiffe_id: alias.spiffe_id.clone(),
        parent_id: alias.agent.clone(),
        selectors: vec![Selector::new("spiffe_id", alias.agent.as_str())?],
        x509_svid_ttl: Ttl(0),
        jwt_svid_ttl: Ttl(0),
        federates_with: Vec::new(),
        admin: false,
        downstream: false,
        expires_at: None,
        dns_names: Vec::new(),
        store_svid: false,
        hint: String::new(),
        disable_x509_svid_prefetch: false,
        jwt_svid_include_jti: false,
    };
    create_one(draft, &alias.entry_id, &item).map(drop).map_err(JoinTokenError::Alias)
}

/// Deletes tokens whose end had come at `ended_by`, at most [`PRUNE_BATCH`]. A token is void from its end on,
/// deleted or not; while its row is there, whoever brings it hears why.
#[must_use]
pub fn prune(registry: &Registry, at: Timestamp, ended_by: Timestamp) -> (Plan, usize) {
    let mut draft = Draft::new(registry, at, "server");
    let ended: Vec<_> = registry.expired_tokens(ended_by).take(PRUNE_BATCH).map(|t| t.digest).collect();
    for digest in &ended {
        draft.note(AuditEvent::JoinTokenExpired, "join token");
        draft.delete(RowKey::JoinToken(*digest));
    }
    (draft.finish(), ended.len())
}
