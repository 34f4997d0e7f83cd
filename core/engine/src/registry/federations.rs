//! Which foreign trust domains the entries below a parent need, and until when.
//!
//! Never walks entries to answer: for each parent and trust domain the entry that lives longest stands first.

use std::cmp::Reverse;

use avouch_domain::{Entry, EntryId, SpiffeId, Timestamp, TrustDomain};
use imbl::{OrdMap, OrdSet};

/// Ends of the entries of one parent that federate with one trust domain, the latest first.
type Ends = OrdSet<(Reverse<Timestamp>, EntryId)>;

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Federations(OrdMap<SpiffeId, OrdMap<TrustDomain, Ends>>);

fn end_of(entry: &Entry) -> (Reverse<Timestamp>, EntryId) {
    (Reverse(entry.expires_at.unwrap_or(Timestamp::MAX)), entry.id.clone())
}

impl Federations {
    pub(super) fn insert(&mut self, entry: &Entry) {
        if entry.federates_with.is_empty() {
            return;
        }
        let domains = self.0.entry(entry.parent_id.clone()).or_default();
        for domain in &entry.federates_with {
            domains.entry(domain.clone()).or_default().insert(end_of(entry));
        }
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        let Some(domains) = self.0.get_mut(&entry.parent_id) else { return };
        for domain in &entry.federates_with {
            let Some(ends) = domains.get_mut(domain) else { continue };
            ends.remove(&end_of(entry));
            if ends.is_empty() {
                domains.remove(domain);
            }
        }
        if domains.is_empty() {
            self.0.remove(&entry.parent_id);
        }
    }

    /// Ascending; those of ended entries alone are left out.
    pub(super) fn below<'a>(
        &'a self,
        parent: &SpiffeId,
        wall: Timestamp,
    ) -> impl Iterator<Item = &'a TrustDomain> + use<'a> {
        let domains = self.0.get(parent).into_iter().flatten();
        domains
            .filter(move |(_, ends)| ends.get_min().is_some_and(|(Reverse(end), _)| *end > wall))
            .map(|(domain, _)| domain)
    }
}
