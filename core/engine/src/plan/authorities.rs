//! Plans that move an authority through its slot: publish, activate, forget, taint, revoke.
//!
//! Never activates what is not published, and publishes key and bundle in one revision.

use std::sync::Arc;

use avouch_domain::{
    AuditEvent, Authority, AuthorityId, AuthorityKind, Holder, JwtAuthority, Plan, Revision, Row, RowKey,
    Slot, SlotState, Timestamp, TrustDomain, X509Authority,
};

use super::Draft;
use super::bundles::append_in;
use crate::faults::{Fault, planted};
use crate::registry::Registry;

/// Why a slot did not move.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    #[error("slot {slot:?} holds authority {found:?}, expected {expected}: another process changed it")]
    Changed { slot: Slot, found: Option<AuthorityId>, expected: AuthorityId },
    #[error("slot {0:?} signs and can't be replaced")]
    Signs(Slot),
    #[error("authority {0} is not published")]
    NotPublished(AuthorityId),
}

/// A new authority whose key is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    pub kind: AuthorityKind,
    pub holder: Holder,
    pub slot: Slot,
    pub id: AuthorityId,
    /// X.509: CA certificate. JWT: public key (PKIX).
    pub public: Arc<[u8]>,
    pub issued_at: Timestamp,
    pub not_after: Timestamp,
}

/// Writes the slot and the bundle. Gives the revision from which on agents know the authority. Of several servers
/// that share a holder the first wins: a slot with a good prepared authority takes no other.
pub fn publish(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    domain: &TrustDomain,
    input: &Prepared,
) -> (Plan, Result<Revision, SlotError>) {
    if let Some(old) = registry.authority(input.kind, &input.holder, input.slot)
        && old.state == SlotState::Active
        && old.not_after > at
    {
        return (Plan::default(), Err(SlotError::Signs(input.slot)));
    }
    if let Some(other) = registry.authority(input.kind, &input.holder, input.slot)
        && other.state == SlotState::Prepared
        && (other.id != input.id && !other.tainted && other.not_after > at)
    {
        let (slot, expected, found) = (input.slot, input.id.clone(), Some(other.id.clone()));
        return (Plan::default(), Err(SlotError::Changed { slot, found, expected }));
    }
    let mut draft = Draft::new(registry, at, actor);
    let revision = draft.revision();
    match input.kind {
        AuthorityKind::X509 => {
            let root = X509Authority { der: input.public.clone(), tainted: false };
            append_in(&mut draft, domain, &[root], &[]);
        }
        AuthorityKind::Jwt => {
            let key = JwtAuthority {
                key_id: input.id.clone(),
                public_key: input.public.clone(),
                expires_at: Some(input.not_after),
                tainted: false,
            };
            append_in(&mut draft, domain, &[], &[key]);
        }
    }
    draft.note(AuditEvent::AuthorityPrepared, &input.id);
    draft.put(Row::Authority(Authority {
        kind: input.kind,
        holder: input.holder.clone(),
        slot: input.slot,
        state: SlotState::Prepared,
        id: input.id.clone(),
        public: input.public.clone(),
        issued_at: input.issued_at,
        not_after: input.not_after,
        tainted: false,
        published_at: Some(revision),
    }));
    (draft.finish(), Ok(revision))
}

/// The slot signs from now on; its sibling does not any more.
pub fn activate(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    (kind, holder): (AuthorityKind, &Holder),
    slot: Slot,
    expected: &AuthorityId,
) -> (Plan, Result<(), SlotError>) {
    let found = registry.authority(kind, holder, slot);
    let Some(authority) = found.filter(|a| a.id == *expected) else {
        let found = found.map(|a| a.id.clone());
        return (Plan::default(), Err(SlotError::Changed { slot, found, expected: expected.clone() }));
    };
    if authority.published_at.is_none() {
        return (Plan::default(), Err(SlotError::NotPublished(expected.clone())));
    }
    if authority.state == SlotState::Active {
        return (Plan::default(), Ok(()));
    }
    let mut draft = Draft::new(registry, at, actor);
    if let Some(sibling) = registry.authority(kind, holder, slot.other())
        && sibling.state == SlotState::Active
        && !planted(Fault::TwoSigners)
    {
        draft.note(AuditEvent::AuthorityRetired, &sibling.id);
        draft.put(Row::Authority(Authority { state: SlotState::Old, ..sibling.clone() }));
    }
    draft.note(AuditEvent::AuthorityActivated, expected);
    draft.put(Row::Authority(Authority { state: SlotState::Active, ..authority.clone() }));
    (draft.finish(), Ok(()))
}

/// Empties slots whose key is lost or whose time is over. Their public parts stay in the bundle until pruned.
#[must_use]
pub fn forget(
    registry: &Registry,
    at: Timestamp,
    kind: AuthorityKind,
    holder: &Holder,
    slots: &[Slot],
) -> (Plan, usize) {
    let mut draft = Draft::new(registry, at, "server");
    let mut gone = 0;
    for slot in slots {
        if let Some(authority) = registry.authority(kind, holder, *slot) {
            draft.note(AuditEvent::AuthorityRetired, &authority.id);
            draft.delete(RowKey::Authority(kind, holder.clone(), *slot));
            gone += 1;
        }
    }
    (draft.finish(), gone)
}

/// Marks an authority as no longer to be trusted for new use, in its slot and in the bundle. True if found.
#[must_use]
pub fn taint(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    domain: &TrustDomain,
    id: &AuthorityId,
) -> (Plan, bool) {
    let mut draft = Draft::new(registry, at, actor);
    let mut found = false;
    for authority in registry.authorities().filter(|a| a.id == *id && !a.tainted) {
        found = true;
        draft.put(Row::Authority(Authority { tainted: true, ..authority.clone() }));
        if let Some(bundle) = draft.after.bundle(domain) {
            let mut bundle = (**bundle).clone();
            for root in bundle.x509_authorities.iter_mut().filter(|r| r.der == authority.public) {
                root.tainted = true;
            }
            for key in bundle.jwt_authorities.iter_mut().filter(|k| k.key_id == *id) {
                key.tainted = true;
            }
            bundle.sequence_number += 1;
            draft.put(Row::Bundle(bundle));
        }
    }
    if found {
        draft.note(AuditEvent::AuthorityTainted, id);
    }
    (draft.finish(), found)
}

/// Takes a tainted authority out of the bundle and out of its slot, before its end; also a JWT authority that has no
/// slot any more. True if found.
#[must_use]
pub fn revoke(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    domain: &TrustDomain,
    id: &AuthorityId,
) -> (Plan, bool) {
    let mut draft = Draft::new(registry, at, actor);
    let bad = |a: &Authority| a.tainted || planted(Fault::RevokeUntainted);
    let held: Vec<_> = registry.authorities().filter(|a| a.id == *id).collect();
    let tainted: Vec<_> = held.iter().filter(|a| bad(a) && a.state != SlotState::Active).collect();
    let left_over = |k: &JwtAuthority| k.key_id == *id && k.tainted && held.is_empty();
    let Some(bundle) = registry.bundle(domain) else { return (Plan::default(), false) };
    if tainted.is_empty() && !bundle.jwt_authorities.iter().any(left_over) {
        return (Plan::default(), false);
    }
    let mut bundle = (**bundle).clone();
    bundle.jwt_authorities.retain(|k| k.key_id != *id);
    for authority in tainted {
        draft.delete(RowKey::Authority(authority.kind, authority.holder.clone(), authority.slot));
        bundle.x509_authorities.retain(|r| r.der != authority.public);
    }
    bundle.sequence_number += 1;
    draft.put(Row::Bundle(bundle));
    draft.note(AuditEvent::AuthorityRevoked, id);
    (draft.finish(), true)
}
