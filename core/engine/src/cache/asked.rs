//! What may be asked of the cache. Nothing in here changes it.

use std::collections::BTreeSet;
use std::sync::Arc;

use avouch_domain::{Bundle, Entry, EntryId, SelectorSet, SpiffeId, TrustDomain, read_run_selector};

use super::Cache;
use super::slot::Slot;
use super::types::{Counts, Nearest, WorkloadUpdate};

impl Cache {
    /// The last state delivered to subscribers with these selectors.
    #[must_use]
    pub fn current(&self, selectors: &SelectorSet) -> Option<Arc<WorkloadUpdate>> {
        self.groups.get(self.numbers.get(selectors)?)?.last.clone()
    }

    /// The bundle of one trust domain.
    #[must_use]
    pub fn bundle(&self, domain: &TrustDomain) -> Option<&Arc<Bundle>> {
        self.bundles.get(domain)
    }

    /// Trust domains that some entry federates with.
    pub fn federated_domains(&self) -> impl Iterator<Item = &TrustDomain> {
        self.federating.keys()
    }

    /// The live entries a selector set is entitled to, ascending ID (INV-1 is stated with it).
    #[must_use]
    pub fn entitled(&self, selectors: &SelectorSet) -> Vec<&Entry> {
        self.entries.matching(selectors).iter().filter_map(|id| Some(&self.slots.get(id)?.entry)).collect()
    }

    /// The entry that misses the fewest selectors of `selectors`; equal ones by ID. Looks at every entry: for
    /// one rate-limited log line, not for answers.
    #[must_use]
    pub fn nearest(&self, selectors: &SelectorSet) -> Option<Nearest> {
        let missing =
            |slot: &Slot| slot.entry.selector_set().iter().filter(|s| !selectors.contains(s)).count();
        let slot = self.slots.values().min_by_key(|slot| missing(slot))?;
        Some(Nearest {
            entry_id: slot.entry.id.clone(),
            spiffe_id: slot.entry.spiffe_id.clone(),
            missing: slot.entry.selector_set().iter().filter(|s| !selectors.contains(s)).cloned().collect(),
        })
    }

    /// The identities that this local user may run here, ascending. Looks at every entry: for the beginning of a run, not
    /// for answers.
    #[must_use]
    pub fn runnable(&self, uid: u32) -> BTreeSet<SpiffeId> {
        let selectors = self.slots.values().filter_map(|slot| match slot.entry.selector_set().as_slice() {
            [selector] => Some((&slot.entry.spiffe_id, read_run_selector(selector)?)),
            _ => None,
        });
        let runs = selectors.filter(|(id, (who, name))| *who == uid && *id == name);
        runs.map(|(id, _)| id.clone()).collect()
    }

    /// Asked with every message of the server: counts what is counted already, and looks at nothing.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            entries: self.slots.len(),
            x509_held: self.held,
            jwt_held: self.jwts.len(),
            subscribed_sets: self.groups.len(),
            tally: self.tally,
        }
    }

    /// Why the last signature for an entry failed, if it did.
    #[must_use]
    pub fn entry_error(&self, id: &EntryId) -> Option<Arc<str>> {
        self.slots.get(id)?.error.clone()
    }
}
