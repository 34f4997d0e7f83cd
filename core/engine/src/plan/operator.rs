//! What an operator may do by hand with the authorities of one kind and holder: SPIRE's rules of its
//! `LocalAuthority` service, and its words.
//!
//! Never touches an authority that signs or is about to: that one is replaced first.

use std::fmt;

use avouch_domain::{
    Authority, AuthorityId, AuthorityKind, Holder, Plan, Slot, SlotState, Timestamp, TrustDomain,
};

use super::authorities;
use crate::registry::Registry;

/// The authority that signs, and the one in the other slot: the next, or the one before.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a> {
    pub active: Option<&'a Authority>,
    pub other: Option<&'a Authority>,
}

/// A state as SPIRE's texts name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub SlotState);

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            SlotState::Prepared => "PREPARED",
            SlotState::Active => "ACTIVE",
            SlotState::Old => "OLD",
        })
    }
}

/// Why an authority can't be put to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActivateError {
    #[error("no authority ID provided")]
    NoId,
    /// Not the authority beside the one that signs.
    #[error("unexpected authority ID")]
    Unexpected,
    #[error("unsupported local authority status: {0}")]
    NotPrepared(Status),
}

/// Why an authority can't be tainted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaintError {
    #[error("no authority ID provided")]
    NoId,
    #[error("unable to taint current local authority")]
    Signs,
    /// Not the authority beside the one that signs.
    #[error("unexpected authority ID")]
    Unexpected,
    #[error("unsupported local authority status: {0}")]
    NotOld(Status),
    #[error("authority is already tainted")]
    Already,
    /// It ended, and has left the bundle.
    #[error("authority is not in the bundle")]
    Gone,
}

/// Why an authority can't be revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevokeError {
    #[error("no authority ID provided")]
    NoId,
    #[error("unable to use current authority")]
    Signs,
    #[error("unable to use a prepared key")]
    Prepared,
    #[error("only Old local authority can be revoked")]
    NotOld,
    #[error("no JWT authority found with provided authority ID")]
    NoSuchKey,
    #[error("authority is not tainted")]
    Untainted,
    /// It ended, and has left the bundle.
    #[error("authority is not in the bundle")]
    Gone,
}

/// Both authorities of one kind and holder.
#[must_use]
pub fn pair<'a>(registry: &'a Registry, kind: AuthorityKind, holder: &Holder) -> Pair<'a> {
    let [a, b] = [Slot::A, Slot::B].map(|slot| registry.authority(kind, holder, slot));
    let signs = |authority: &&Authority| authority.state == SlotState::Active;
    match (a.filter(signs), b.filter(signs)) {
        (Some(_), _) => Pair { active: a, other: b },
        (None, Some(_)) => Pair { active: b, other: a },
        (None, None) => Pair { active: None, other: a.or(b) },
    }
}

/// Makes room for a new prepared authority: one that is prepared already gives up its slot, as in SPIRE. Its public
/// part stays in the bundle until it ends. Gives the one that went.
#[must_use]
pub fn make_room(
    registry: &Registry,
    at: Timestamp,
    kind: AuthorityKind,
    holder: &Holder,
) -> (Plan, Option<AuthorityId>) {
    let prepared = pair(registry, kind, holder).other.filter(|a| a.state == SlotState::Prepared);
    let Some(prepared) = prepared else { return (Plan::default(), None) };
    let (plan, _) = authorities::forget(registry, at, kind, holder, &[prepared.slot]);
    (plan, Some(prepared.id.clone()))
}

/// The prepared authority that may be put to use under this name.
///
/// # Errors
/// [`ActivateError`].
pub fn may_activate(pair: Pair<'_>, id: &str) -> Result<Authority, ActivateError> {
    let next = pair.other.filter(|next| *next.id == *id);
    match next {
        _ if id.is_empty() => Err(ActivateError::NoId),
        None => Err(ActivateError::Unexpected),
        Some(next) if next.state != SlotState::Prepared => {
            Err(ActivateError::NotPrepared(Status(next.state)))
        }
        Some(next) => Ok(next.clone()),
    }
}

/// Taints the authority that signed before the present one. Gives it as it is then.
pub fn taint(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    domain: &TrustDomain,
    (kind, holder): (AuthorityKind, &Holder),
    id: &str,
) -> (Plan, Result<Authority, TaintError>) {
    match may_taint(registry, domain, pair(registry, kind, holder), id) {
        Err(error) => (Plan::default(), Err(error)),
        Ok(old) => {
            let (plan, _) = authorities::taint(registry, at, actor, domain, &old.id);
            (plan, Ok(Authority { tainted: true, ..old }))
        }
    }
}

fn may_taint(
    registry: &Registry,
    domain: &TrustDomain,
    pair: Pair<'_>,
    id: &str,
) -> Result<Authority, TaintError> {
    if id.is_empty() {
        return Err(TaintError::NoId);
    }
    if pair.active.is_some_and(|active| *active.id == *id) {
        return Err(TaintError::Signs);
    }
    let old = pair.other.filter(|other| *other.id == *id).ok_or(TaintError::Unexpected)?;
    if old.state != SlotState::Old {
        return Err(TaintError::NotOld(Status(old.state)));
    }
    match in_bundle(registry, domain, old) {
        None => Err(TaintError::Gone),
        Some(true) => Err(TaintError::Already),
        Some(false) => Ok(old.clone()),
    }
}

/// Takes a tainted authority out of the bundle. Of JWT authorities any will do that the bundle names and that this
/// holder neither signs with nor is about to.
pub fn revoke(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    domain: &TrustDomain,
    (kind, holder): (AuthorityKind, &Holder),
    id: &str,
) -> (Plan, Result<(), RevokeError>) {
    let pair = pair(registry, kind, holder);
    let allowed = match kind {
        _ if id.is_empty() => Err(RevokeError::NoId),
        _ if pair.active.is_some_and(|active| *active.id == *id) => Err(RevokeError::Signs),
        AuthorityKind::X509 => may_revoke_x509(registry, domain, pair, id),
        AuthorityKind::Jwt => may_revoke_jwt(registry, domain, pair, id),
    };
    if let Err(error) = allowed {
        return (Plan::default(), Err(error));
    }
    let (plan, found) = authorities::revoke(registry, at, actor, domain, &id.into());
    // Another server of this trust domain signs with it.
    (plan, if found { Ok(()) } else { Err(RevokeError::Signs) })
}

fn may_revoke_x509(
    registry: &Registry,
    domain: &TrustDomain,
    pair: Pair<'_>,
    id: &str,
) -> Result<(), RevokeError> {
    let old = pair.other.filter(|other| *other.id == *id && other.state == SlotState::Old);
    match in_bundle(registry, domain, old.ok_or(RevokeError::NotOld)?) {
        None => Err(RevokeError::Gone),
        Some(false) => Err(RevokeError::Untainted),
        Some(true) => Ok(()),
    }
}

fn may_revoke_jwt(
    registry: &Registry,
    domain: &TrustDomain,
    pair: Pair<'_>,
    id: &str,
) -> Result<(), RevokeError> {
    let beside = pair.other.filter(|other| *other.id == *id);
    if beside.is_some_and(|other| other.state == SlotState::Prepared) {
        return Err(RevokeError::Prepared);
    }
    let keys = registry.bundle(domain).map_or(&[][..], |bundle| &bundle.jwt_authorities);
    match keys.iter().find(|key| *key.key_id == *id) {
        None if beside.is_some() => Err(RevokeError::Gone),
        None => Err(RevokeError::NoSuchKey),
        Some(key) if !key.tainted => Err(RevokeError::Untainted),
        Some(_) => Ok(()),
    }
}

/// Whether the bundle that names this authority calls it tainted; `None` if it does not name it.
fn in_bundle(registry: &Registry, domain: &TrustDomain, authority: &Authority) -> Option<bool> {
    let bundle = registry.bundle(domain)?;
    match authority.kind {
        AuthorityKind::X509 => {
            bundle.x509_authorities.iter().find(|root| root.der == authority.public).map(|root| root.tainted)
        }
        AuthorityKind::Jwt => {
            bundle.jwt_authorities.iter().find(|key| key.key_id == authority.id).map(|key| key.tainted)
        }
    }
}
