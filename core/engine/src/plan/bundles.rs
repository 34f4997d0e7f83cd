//! Plans that change bundles: the own one grows by authorities, foreign ones are kept as given.
//!
//! Never drops an authority silently: removal is by prune (past its end), by revocation, or by name.

use std::collections::BTreeSet;
use std::sync::Arc;

use avouch_domain::{
    AuditEvent, Bundle, Entry, JwtAuthority, Plan, Row, RowKey, Timestamp, TrustDomain, X509Authority,
};

use super::Draft;
use crate::registry::Registry;

/// Why a bundle was not written. Messages are the inner ones of SPIRE.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    #[error("a federated bundle for the server's own trust domain is not allowed")]
    OwnDomain,
    #[error("bundle already exists")]
    Exists,
    #[error("bundle not found")]
    NotFound,
    #[error("cannot delete bundle; federated with {0} registration entries")]
    InUse(usize),
}

/// A prune that would leave no authority of a kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pruning would leave no authority in the bundle of {0}")]
pub struct WouldBeEmpty(pub TrustDomain);

/// What happens to the entries that federate with a bundle which goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteMode {
    /// The bundle stays if there are any.
    Restrict,
    /// They go with it.
    Delete,
    /// They stay without it.
    Dissociate,
}

/// A change to a foreign bundle; `None` = as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundlePatch {
    pub trust_domain: TrustDomain,
    pub x509_authorities: Option<Vec<X509Authority>>,
    pub jwt_authorities: Option<Vec<JwtAuthority>>,
    pub refresh_hint: Option<i64>,
    pub sequence_number: Option<u64>,
}

/// Adds authorities to a bundle (made if missing, then with sequence 0). Taint marks on the input are dropped.
#[must_use]
pub fn append(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    domain: &TrustDomain,
    x509: &[X509Authority],
    jwt: &[JwtAuthority],
) -> (Plan, Arc<Bundle>) {
    let mut draft = Draft::new(registry, at, actor);
    let bundle = append_in(&mut draft, domain, x509, jwt);
    (draft.finish(), bundle)
}

pub(super) fn append_in(
    draft: &mut Draft<'_>,
    domain: &TrustDomain,
    x509: &[X509Authority],
    jwt: &[JwtAuthority],
) -> Arc<Bundle> {
    let existing = draft.after.bundle(domain).cloned();
    let mut bundle = existing.as_deref().cloned().unwrap_or_else(|| Bundle::empty(domain.clone()));
    let x509: Vec<_> = x509.iter().map(|a| X509Authority { tainted: false, ..a.clone() }).collect();
    let jwt: Vec<_> = jwt.iter().map(|a| JwtAuthority { tainted: false, ..a.clone() }).collect();
    let changed = bundle.merge(&x509, &jwt);
    match existing {
        Some(existing) if !changed => return existing,
        Some(_) => bundle.sequence_number += 1,
        None => {}
    }
    draft.note(AuditEvent::BundleChanged, domain);
    draft.put(Row::Bundle(bundle.clone()));
    Arc::new(bundle)
}

fn each<I, T>(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    items: &[I],
    mut one: impl FnMut(&mut Draft<'_>, &I) -> Result<T, BundleError>,
) -> (Plan, Vec<Result<T, BundleError>>) {
    let mut draft = Draft::new(registry, at, actor);
    let outcomes = items.iter().map(|item| one(&mut draft, item)).collect();
    (draft.finish(), outcomes)
}

fn write(draft: &mut Draft<'_>, bundle: Bundle) -> Arc<Bundle> {
    if draft.after.bundle(&bundle.trust_domain).is_none_or(|old| **old != bundle) {
        draft.note(AuditEvent::BundleChanged, &bundle.trust_domain);
        draft.put(Row::Bundle(bundle.clone()));
    }
    Arc::new(bundle)
}

/// Creates foreign bundles; none may exist yet.
#[must_use]
pub fn create(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    own: &TrustDomain,
    items: &[Bundle],
) -> (Plan, Vec<Result<Arc<Bundle>, BundleError>>) {
    each(registry, at, actor, items, |draft, bundle| {
        refuse_own(own, &bundle.trust_domain)?;
        match draft.after.bundle(&bundle.trust_domain) {
            Some(_) => Err(BundleError::Exists),
            None => Ok(write(draft, bundle.clone())),
        }
    })
}

/// Creates or replaces foreign bundles whole.
#[must_use]
pub fn set(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    own: &TrustDomain,
    items: &[Bundle],
) -> (Plan, Vec<Result<Arc<Bundle>, BundleError>>) {
    each(registry, at, actor, items, |draft, bundle| {
        refuse_own(own, &bundle.trust_domain)?;
        Ok(write(draft, bundle.clone()))
    })
}

/// Changes foreign bundles; the sequence is stored as given.
#[must_use]
pub fn update(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    own: &TrustDomain,
    items: &[BundlePatch],
) -> (Plan, Vec<Result<Arc<Bundle>, BundleError>>) {
    each(registry, at, actor, items, |draft, patch| {
        refuse_own(own, &patch.trust_domain)?;
        let old = draft.after.bundle(&patch.trust_domain).ok_or(BundleError::NotFound)?;
        let mut bundle = (**old).clone();
        if let Some(x509) = &patch.x509_authorities {
            bundle.x509_authorities.clone_from(x509);
        }
        if let Some(jwt) = &patch.jwt_authorities {
            bundle.jwt_authorities.clone_from(jwt);
        }
        bundle.refresh_hint = patch.refresh_hint.unwrap_or(bundle.refresh_hint);
        bundle.sequence_number = patch.sequence_number.unwrap_or(bundle.sequence_number);
        Ok(write(draft, bundle))
    })
}

fn refuse_own(own: &TrustDomain, domain: &TrustDomain) -> Result<(), BundleError> {
    if own == domain { Err(BundleError::OwnDomain) } else { Ok(()) }
}

/// Deletes foreign bundles. An entry that loses its federation takes a new revision number, because its agents
/// must hear of it.
#[must_use]
pub fn delete(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    own: &TrustDomain,
    domains: &[TrustDomain],
    mode: DeleteMode,
) -> (Plan, Vec<Result<(), BundleError>>) {
    each(registry, at, actor, domains, |draft, domain| {
        refuse_own(own, domain)?;
        draft.after.bundle(domain).ok_or(BundleError::NotFound)?;
        let federated: Vec<Entry> = draft.after.entries_federated_with(domain).cloned().collect();
        match mode {
            DeleteMode::Restrict if !federated.is_empty() => {
                return Err(BundleError::InUse(federated.len()));
            }
            DeleteMode::Delete => {
                for entry in &federated {
                    draft.delete_entry(&entry.id);
                }
            }
            DeleteMode::Restrict | DeleteMode::Dissociate => {
                for entry in &federated {
                    let mut parts = entry.to_parts();
                    parts.federates_with.retain(|d| d != domain);
                    parts.revision_number += 1;
                    // An entry stays valid with less federation.
                    if let Ok(entry) = Entry::new(parts) {
                        draft.put_entry(AuditEvent::EntryUpdated, entry);
                    }
                }
            }
        }
        draft.note(AuditEvent::BundleDeleted, domain);
        draft.delete(RowKey::Bundle(domain.clone()));
        Ok(())
    })
}

/// Takes ended authorities out of a bundle.
///
/// # Errors
/// [`WouldBeEmpty`]: a trust domain never loses its last authority of a kind by pruning.
pub fn prune(
    registry: &Registry,
    at: Timestamp,
    domain: &TrustDomain,
    ended_x509: &BTreeSet<Arc<[u8]>>,
    ended_jwt: &BTreeSet<Arc<str>>,
) -> Result<Plan, WouldBeEmpty> {
    let Some(old) = registry.bundle(domain) else { return Ok(Plan::default()) };
    let mut bundle = (**old).clone();
    bundle.x509_authorities.retain(|a| !ended_x509.contains(&a.der));
    bundle.jwt_authorities.retain(|a| !ended_jwt.contains(&a.key_id));
    if bundle == **old {
        return Ok(Plan::default());
    }
    let emptied = |before: usize, after: usize| before > 0 && after == 0;
    if emptied(old.x509_authorities.len(), bundle.x509_authorities.len())
        || emptied(old.jwt_authorities.len(), bundle.jwt_authorities.len())
    {
        return Err(WouldBeEmpty(domain.clone()));
    }
    bundle.sequence_number += 1;
    let mut draft = Draft::new(registry, at, "server");
    write(&mut draft, bundle);
    Ok(draft.finish())
}
