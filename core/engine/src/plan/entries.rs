//! Plans that create, change, delete and end registration entries.
//!
//! Never lets a second entry with the same parent, SPIFFE ID and selectors be created, within a batch or across; never lets one
//! ask for a run, which is what placing an identity does, nor gives an AI agent the processes of somebody else.

use avouch_domain::{
    AuditEvent, Entry, EntryError, EntryId, EntryParts, Plan, RUN, Selector, SelectorSet, SpiffeId,
    Timestamp, TrustDomain, Ttl,
};

use super::Draft;
use crate::registry::Registry;

/// Most expired entries that one plan deletes; the next plan takes the rest.
pub const PRUNE_BATCH: usize = 1000;

/// An entry to be created. Wire checks that need no registry are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// `None` = one is made.
    pub id: Option<EntryId>,
    pub spiffe_id: SpiffeId,
    pub parent_id: SpiffeId,
    pub selectors: Vec<Selector>,
    pub x509_svid_ttl: Ttl,
    pub jwt_svid_ttl: Ttl,
    pub federates_with: Vec<TrustDomain>,
    pub admin: bool,
    pub downstream: bool,
    pub expires_at: Option<Timestamp>,
    pub dns_names: Vec<String>,
    pub store_svid: bool,
    pub hint: String,
    pub disable_x509_svid_prefetch: bool,
    pub jwt_svid_include_jti: bool,
}

impl NewEntry {
    /// One that says nothing but who runs where.
    #[must_use]
    pub fn plain(spiffe_id: SpiffeId, parent_id: SpiffeId, selectors: Vec<Selector>) -> Self {
        Self {
            id: None,
            spiffe_id,
            parent_id,
            selectors,
            x509_svid_ttl: Ttl::default(),
            jwt_svid_ttl: Ttl::default(),
            federates_with: Vec::new(),
            admin: false,
            downstream: false,
            expires_at: None,
            dns_names: Vec::new(),
            store_svid: false,
            hint: String::new(),
            disable_x509_svid_prefetch: false,
            jwt_svid_include_jti: false,
        }
    }
}

/// A change to an entry; `None` = as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryPatch {
    pub id: EntryId,
    pub spiffe_id: Option<SpiffeId>,
    pub parent_id: Option<SpiffeId>,
    pub selectors: Option<Vec<Selector>>,
    pub x509_svid_ttl: Option<Ttl>,
    pub jwt_svid_ttl: Option<Ttl>,
    pub federates_with: Option<Vec<TrustDomain>>,
    pub admin: Option<bool>,
    pub downstream: Option<bool>,
    /// `Some(None)` = never.
    pub expires_at: Option<Option<Timestamp>>,
    pub dns_names: Option<Vec<String>>,
    pub store_svid: Option<bool>,
    pub hint: Option<String>,
    pub disable_x509_svid_prefetch: Option<bool>,
    pub jwt_svid_include_jti: Option<bool>,
}

impl EntryPatch {
    /// A patch that changes nothing (the update still counts).
    #[must_use]
    pub fn empty(id: EntryId) -> Self {
        Self {
            id,
            spiffe_id: None,
            parent_id: None,
            selectors: None,
            x509_svid_ttl: None,
            jwt_svid_ttl: None,
            federates_with: None,
            admin: None,
            downstream: None,
            expires_at: None,
            dns_names: None,
            store_svid: None,
            hint: None,
            disable_x509_svid_prefetch: None,
            jwt_svid_include_jti: None,
        }
    }
}

/// Why an entry was not written. Messages are the inner ones of SPIRE.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryWriteError {
    /// The one that exists comes along.
    #[error("similar entry already exists")]
    Similar(Entry),
    #[error("entry ID is taken by another entry")]
    IdTaken,
    #[error("repeated selector or DNS name")]
    Repeated,
    #[error("entry not found")]
    NotFound,
    #[error(
        "selector \"{0}\" is of a run, which no entry asks for by itself: `avouch identity place` lets an identity run on a node"
    )]
    OfARun(Selector),
    #[error(
        "{0} acts by itself, and a process that fits this entry would be {1} as well: add a selector that only one of them has"
    )]
    NotApart(SpiffeId, SpiffeId),
    #[error("unable to find federated bundle \"spiffe://{0}\"")]
    NoBundle(TrustDomain),
    #[error(transparent)]
    Invalid(EntryError),
}

impl From<EntryError> for EntryWriteError {
    fn from(e: EntryError) -> Self {
        match e {
            EntryError::Repeated => Self::Repeated,
            other => Self::Invalid(other),
        }
    }
}

/// Creates entries. `fresh` holds one unused id per item, for those that bring none.
#[must_use]
pub fn create(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    items: &[NewEntry],
    fresh: &[EntryId],
) -> (Plan, Vec<Result<Entry, EntryWriteError>>) {
    let mut draft = Draft::new(registry, at, actor);
    let outcomes = items
        .iter()
        .enumerate()
        .map(|(i, item)| {
            let id = item.id.as_ref().or_else(|| fresh.get(i)).ok_or(EntryWriteError::IdTaken)?;
            check_no_run(&item.selectors)?;
            create_one(&mut draft, id, item)
        })
        .collect();
    (draft.finish(), outcomes)
}

pub(super) fn create_one(
    draft: &mut Draft<'_>,
    id: &EntryId,
    item: &NewEntry,
) -> Result<Entry, EntryWriteError> {
    let entry = Entry::new(parts_of_new(id, item, draft.at))?;
    if let Some(existing) = draft.after.similar(&entry) {
        return Err(EntryWriteError::Similar(existing.clone()));
    }
    if draft.after.entry(id).is_some() {
        return Err(EntryWriteError::IdTaken);
    }
    check_apart(&draft.after, &entry)?;
    check_bundles(&draft.after, &entry.federates_with)?;
    Ok(draft.put_entry(AuditEvent::EntryCreated, entry))
}

fn parts_of_new(id: &EntryId, item: &NewEntry, at: Timestamp) -> EntryParts {
    EntryParts {
        id: id.clone(),
        spiffe_id: item.spiffe_id.clone(),
        parent_id: item.parent_id.clone(),
        selectors: item.selectors.clone(),
        x509_svid_ttl: item.x509_svid_ttl,
        jwt_svid_ttl: item.jwt_svid_ttl,
        federates_with: without_repeats(&item.federates_with),
        admin: item.admin,
        downstream: item.downstream,
        expires_at: item.expires_at,
        dns_names: item.dns_names.clone(),
        store_svid: item.store_svid,
        hint: item.hint.clone(),
        disable_x509_svid_prefetch: item.disable_x509_svid_prefetch,
        jwt_svid_include_jti: item.jwt_svid_include_jti,
        revision_number: 0,
        created_at: nearest_second(at),
    }
}

/// SPIRE keeps the creation time in whole seconds, rounded to the nearest.
fn nearest_second(at: Timestamp) -> Timestamp {
    Timestamp::from_secs(Timestamp(at.0.saturating_add(500)).secs())
}

fn without_repeats(domains: &[TrustDomain]) -> Vec<TrustDomain> {
    let mut seen = std::collections::BTreeSet::new();
    domains.iter().filter(|d| seen.insert(*d)).cloned().collect()
}

/// An entry with the selector of a run says by itself that the run may go on: nobody but the placing makes one.
fn check_no_run(selectors: &[Selector]) -> Result<(), EntryWriteError> {
    match selectors.iter().find(|selector| selector.kind() == RUN) {
        Some(of_a_run) => Err(EntryWriteError::OfARun(of_a_run.clone())),
        None => Ok(()),
    }
}

/// What acts by itself is told from everybody else below the same parent: else it would wear their identity, or they its.
fn check_apart(registry: &Registry, entry: &Entry) -> Result<(), EntryWriteError> {
    let identity = registry.identity(&entry.spiffe_id);
    if !identity.is_some_and(|identity| identity.kind.acts_by_itself()) {
        return Ok(());
    }
    let overlaps = |other: &&Entry| {
        let (one, two) = (entry.selector_set(), other.selector_set());
        other.spiffe_id != entry.spiffe_id && (one.is_subset_of(two) || two.is_subset_of(one))
    };
    match registry.entries_by_parent(&entry.parent_id).find(overlaps) {
        Some(other) => Err(EntryWriteError::NotApart(entry.spiffe_id.clone(), other.spiffe_id.clone())),
        None => Ok(()),
    }
}

fn check_bundles(registry: &Registry, domains: &[TrustDomain]) -> Result<(), EntryWriteError> {
    match domains.iter().find(|d| registry.bundle(d).is_none()) {
        Some(domain) => Err(EntryWriteError::NoBundle(domain.clone())),
        None => Ok(()),
    }
}

/// Changes entries; each success raises the entry's revision number by one, also when nothing else changes.
#[must_use]
pub fn update(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    items: &[EntryPatch],
) -> (Plan, Vec<Result<Entry, EntryWriteError>>) {
    let mut draft = Draft::new(registry, at, actor);
    let outcomes = items.iter().map(|patch| update_one(&mut draft, patch)).collect();
    (draft.finish(), outcomes)
}

fn update_one(draft: &mut Draft<'_>, patch: &EntryPatch) -> Result<Entry, EntryWriteError> {
    let existing = draft.after.entry(&patch.id).ok_or(EntryWriteError::NotFound)?;
    let mut parts = existing.to_parts();
    apply_patch(&mut parts, patch);
    parts.revision_number += 1;
    let entry = Entry::new(parts)?;
    let whose = |entry: &Entry| (entry.spiffe_id.clone(), entry.parent_id.clone());
    if entry.selector_set() != existing.selector_set() || whose(&entry) != whose(existing) {
        check_no_run(&entry.selectors)?;
        check_apart(&draft.after, &entry)?;
    }
    if patch.federates_with.is_some() {
        check_bundles(&draft.after, &entry.federates_with)?;
    }
    Ok(draft.put_entry(AuditEvent::EntryUpdated, entry))
}

fn apply_patch(parts: &mut EntryParts, patch: &EntryPatch) {
    fn take<T: Clone>(to: &mut T, from: Option<&T>) {
        if let Some(value) = from {
            *to = value.clone();
        }
    }
    take(&mut parts.spiffe_id, patch.spiffe_id.as_ref());
    take(&mut parts.parent_id, patch.parent_id.as_ref());
    take(&mut parts.selectors, patch.selectors.as_ref());
    take(&mut parts.x509_svid_ttl, patch.x509_svid_ttl.as_ref());
    take(&mut parts.jwt_svid_ttl, patch.jwt_svid_ttl.as_ref());
    if let Some(domains) = &patch.federates_with {
        parts.federates_with = without_repeats(domains);
    }
    take(&mut parts.admin, patch.admin.as_ref());
    take(&mut parts.downstream, patch.downstream.as_ref());
    take(&mut parts.expires_at, patch.expires_at.as_ref());
    take(&mut parts.dns_names, patch.dns_names.as_ref());
    take(&mut parts.store_svid, patch.store_svid.as_ref());
    take(&mut parts.hint, patch.hint.as_ref());
    take(&mut parts.disable_x509_svid_prefetch, patch.disable_x509_svid_prefetch.as_ref());
    take(&mut parts.jwt_svid_include_jti, patch.jwt_svid_include_jti.as_ref());
}

/// Deletes entries.
#[must_use]
pub fn delete(
    registry: &Registry,
    at: Timestamp,
    actor: &str,
    ids: &[EntryId],
) -> (Plan, Vec<Result<(), EntryWriteError>>) {
    let mut draft = Draft::new(registry, at, actor);
    let outcomes = ids
        .iter()
        .map(|id| {
            draft.after.entry(id).ok_or(EntryWriteError::NotFound)?;
            draft.delete_entry(id);
            Ok(())
        })
        .collect();
    (draft.finish(), outcomes)
}

/// Deletes entries whose end has come, at most [`PRUNE_BATCH`]. They ended by themselves: this frees the rows
/// and tells the agents. Gives the ids.
#[must_use]
pub fn prune(registry: &Registry, at: Timestamp, actor: &str) -> (Plan, Vec<EntryId>) {
    let mut draft = Draft::new(registry, at, actor);
    let ids: Vec<_> = registry.expired_entries(at).take(PRUNE_BATCH).map(|e| e.id.clone()).collect();
    for id in &ids {
        draft.delete_entry(id);
    }
    (draft.finish(), ids)
}

/// True if the entry was made with a join token: one selector, `spiffe_id:<parent>`.
pub(super) fn is_join_token_alias(entry: &Entry) -> bool {
    let own: Option<SelectorSet> =
        Selector::new("spiffe_id", entry.parent_id.as_str()).ok().and_then(|s| SelectorSet::new([s]).ok());
    own.as_ref() == Some(entry.selector_set())
}
