//! Finds entries for a selector set, and selector sets for an entry, without looking at all of either.
//!
//! Never decides liveness or entitlement beyond the superset rule: every selector of the entry is in the set.

use std::collections::{BTreeMap, BTreeSet};

use avouch_domain::{EntryId, Selector, SelectorSet};

use crate::faults::{Fault, planted};

/// A bucket that reaches this many entries, and every doubling of it, is filed anew: what was rare when the
/// first entries came may be common now.
const REFILE_AT: usize = 32;

/// Entries, each filed under the rarest of its selectors.
#[derive(Clone, Debug, Default)]
pub struct EntryIndex {
    sets: BTreeMap<EntryId, Filed>,
    selectors: BTreeMap<Selector, Uses>,
}

/// What the entries have to do with one selector.
#[derive(Clone, Debug, Default)]
struct Uses {
    /// How many entries have it.
    count: usize,
    bucket: Bucket,
}

/// Entries that are filed under one selector. Nearly always it is one, which needs no set of its own.
#[derive(Clone, Debug, Default)]
enum Bucket {
    #[default]
    Empty,
    One(EntryId),
    Many(BTreeSet<EntryId>),
}

impl Bucket {
    fn insert(&mut self, id: &EntryId) {
        *self = match std::mem::take(self) {
            Self::Empty => Self::One(id.clone()),
            Self::One(other) => Self::Many([other, id.clone()].into()),
            Self::Many(mut ids) => {
                ids.insert(id.clone());
                Self::Many(ids)
            }
        };
    }

    fn remove(&mut self, id: &EntryId) {
        match self {
            Self::One(other) if other == id => *self = Self::Empty,
            Self::Empty | Self::One(_) => {}
            Self::Many(ids) => {
                ids.remove(id);
                if ids.is_empty() {
                    *self = Self::Empty;
                }
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(_) => 1,
            Self::Many(ids) => ids.len(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &EntryId> {
        let (one, many) = match self {
            Self::Empty => (None, None),
            Self::One(id) => (Some(id), None),
            Self::Many(ids) => (None, Some(ids)),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

#[derive(Clone, Debug)]
struct Filed {
    set: SelectorSet,
    under: Selector,
}

impl EntryIndex {
    /// Files an entry; one of the same ID is replaced. An empty set matches nothing and is not filed.
    pub fn insert(&mut self, id: &EntryId, set: &SelectorSet) {
        self.remove(id);
        for selector in set {
            self.selectors.entry(selector.clone()).or_default().count += 1;
        }
        let Some(under) = self.rarest(set) else { return };
        let crowded = self.file(id, &under);
        self.sets.insert(id.clone(), Filed { set: set.clone(), under: under.clone() });
        if crowded {
            self.refile(&under);
        }
    }

    /// Forgets an entry.
    pub fn remove(&mut self, id: &EntryId) {
        let Some(filed) = self.sets.remove(id) else { return };
        self.take_out(id, &filed.under);
        for selector in &filed.set {
            if let Some(uses) = self.selectors.get_mut(selector) {
                uses.count -= 1;
                if uses.count == 0 {
                    self.selectors.remove(selector);
                }
            }
        }
    }

    /// IDs of the entries whose selectors are all in `set`, ascending.
    #[must_use]
    pub fn matching(&self, set: &SelectorSet) -> BTreeSet<EntryId> {
        let candidates = set.iter().filter_map(|s| self.selectors.get(s)).flat_map(|uses| uses.bucket.iter());
        candidates
            .filter(|id| {
                planted(Fault::MatchWithoutSubset)
                    || self.sets.get(*id).is_some_and(|filed| filed.set.is_subset_of(set))
            })
            .cloned()
            .collect()
    }

    fn rarest(&self, set: &SelectorSet) -> Option<Selector> {
        set.iter().min_by_key(|s| self.selectors.get(*s).map_or(0, |uses| uses.count)).cloned()
    }

    /// Puts an entry into the bucket of a selector that it has; true if the bucket is to be filed anew.
    fn file(&mut self, id: &EntryId, under: &Selector) -> bool {
        let Some(uses) = self.selectors.get_mut(under) else { return false };
        uses.bucket.insert(id);
        let length = uses.bucket.len();
        length >= REFILE_AT && length.is_power_of_two()
    }

    fn take_out(&mut self, id: &EntryId, under: &Selector) {
        if let Some(uses) = self.selectors.get_mut(under) {
            uses.bucket.remove(id);
        }
    }

    fn refile(&mut self, crowded: &Selector) {
        let bucket = self.selectors.get(crowded).map(|uses| &uses.bucket);
        let ids: Vec<_> = bucket.into_iter().flat_map(Bucket::iter).cloned().collect();
        for id in ids {
            let Some(set) = self.sets.get(&id).map(|filed| filed.set.clone()) else { continue };
            let Some(under) = self.rarest(&set).filter(|s| s != crowded) else { continue };
            self.take_out(&id, crowded);
            self.file(&id, &under);
            if let Some(filed) = self.sets.get_mut(&id) {
                filed.under = under;
            }
        }
    }

    /// The longest list a single selector leads to.
    #[cfg(test)]
    pub fn longest_bucket(&self) -> usize {
        self.selectors.values().map(|uses| uses.bucket.len()).max().unwrap_or(0)
    }
}

/// Subscribed selector sets by number, found by any of their selectors.
#[derive(Clone, Debug, Default)]
pub struct SetIndex {
    sets: BTreeMap<u64, SelectorSet>,
    postings: BTreeMap<Selector, BTreeSet<u64>>,
}

impl SetIndex {
    pub fn insert(&mut self, number: u64, set: &SelectorSet) {
        for selector in set {
            self.postings.entry(selector.clone()).or_default().insert(number);
        }
        self.sets.insert(number, set.clone());
    }

    pub fn remove(&mut self, number: u64) {
        let Some(set) = self.sets.remove(&number) else { return };
        for selector in &set {
            if let Some(list) = self.postings.get_mut(selector) {
                list.remove(&number);
                if list.is_empty() {
                    self.postings.remove(selector);
                }
            }
        }
    }

    /// Numbers of the sets that hold every selector of an entry.
    #[must_use]
    pub fn holding(&self, entry: &SelectorSet) -> BTreeSet<u64> {
        let mut shortest: Option<&BTreeSet<u64>> = None;
        for selector in entry {
            let Some(list) = self.postings.get(selector) else { return BTreeSet::new() };
            if shortest.is_none_or(|s| list.len() < s.len()) {
                shortest = Some(list);
            }
        }
        let candidates = shortest.into_iter().flatten().copied();
        candidates.filter(|n| self.sets.get(n).is_some_and(|set| entry.is_subset_of(set))).collect()
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::set;
    use proptest::prelude::*;

    use super::*;

    fn entry_id(text: &str) -> EntryId {
        EntryId::new(text).unwrap()
    }

    #[test]
    fn an_entry_matches_only_if_the_set_holds_all_its_selectors() {
        let mut index = EntryIndex::default();
        index.insert(&entry_id("a"), &set(&["u:1", "g:2"]));
        index.insert(&entry_id("b"), &set(&["u:1"]));
        assert_eq!(index.matching(&set(&["u:1"])), [entry_id("b")].into());
        assert_eq!(index.matching(&set(&["g:2", "u:1", "x:9"])), [entry_id("a"), entry_id("b")].into());
        assert!(index.matching(&set(&[])).is_empty());
    }

    #[test]
    fn a_selector_that_all_entries_share_is_no_bucket() {
        let mut index = EntryIndex::default();
        for n in 0..1000 {
            index.insert(&entry_id(&format!("e{n}")), &set(&["ns:all", &format!("sa:{n}")]));
        }
        assert!(index.longest_bucket() < 40, "{}", index.longest_bucket());
        assert_eq!(index.matching(&set(&["ns:all", "sa:77"])), [entry_id("e77")].into());
    }

    #[test]
    fn a_removed_entry_leaves_nothing_behind() {
        let mut index = EntryIndex::default();
        index.insert(&entry_id("a"), &set(&["u:1", "g:2"]));
        index.remove(&entry_id("a"));
        assert!(index.sets.is_empty() && index.selectors.is_empty());
    }

    #[test]
    fn sets_are_found_by_an_entry_they_hold() {
        let mut index = SetIndex::default();
        index.insert(1, &set(&["u:1", "g:2"]));
        index.insert(2, &set(&["u:1"]));
        assert_eq!(index.holding(&set(&["u:1"])), [1, 2].into());
        assert_eq!(index.holding(&set(&["u:1", "g:2"])), [1].into());
        index.remove(1);
        assert_eq!(index.holding(&set(&["g:2"])), [].into());
    }

    fn masked(mask: u8) -> SelectorSet {
        let names: Vec<_> = (0..8).filter(|b| mask & (1 << b) != 0).map(|b| format!("s:{b}")).collect();
        set(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// Many entries on few selectors, so that buckets grow past the point where they are filed anew.
        #[test]
        fn an_index_finds_what_a_scan_finds(
            steps in prop::collection::vec((0..150u8, prop::option::weighted(0.8, 1..=255u8)), 1..400),
            asked in prop::collection::vec(any::<u8>(), 1..20),
        ) {
            let (mut index, mut plain) = (EntryIndex::default(), BTreeMap::new());
            for (name, mask) in steps {
                let id = entry_id(&format!("e{name}"));
                match mask.map(masked) {
                    Some(set) => {
                        index.insert(&id, &set);
                        plain.insert(id, set);
                    }
                    None => {
                        index.remove(&id);
                        plain.remove(&id);
                    }
                }
            }
            for have in asked.into_iter().map(masked) {
                let scan: BTreeSet<_> =
                    plain.iter().filter(|(_, set)| set.is_subset_of(&have)).map(|(id, _)| id.clone()).collect();
                prop_assert_eq!(index.matching(&have), scan);
            }
            let filed = |uses: &Uses| uses.bucket.len();
            prop_assert_eq!(index.selectors.values().map(filed).sum::<usize>(), plain.len());
            for id in plain.keys() {
                index.remove(id);
            }
            prop_assert!(index.sets.is_empty() && index.selectors.is_empty());
        }

        #[test]
        fn subscribed_sets_are_found_as_a_scan_finds_them(
            steps in prop::collection::vec((any::<u8>(), any::<bool>()), 1..60),
            asked in prop::collection::vec(1..=255u8, 1..20),
        ) {
            let (mut index, mut plain) = (SetIndex::default(), BTreeMap::new());
            for (mask, stays) in steps {
                let number = u64::from(mask);
                if stays && !plain.contains_key(&number) {
                    index.insert(number, &masked(mask));
                    plain.insert(number, masked(mask));
                } else {
                    index.remove(number);
                    plain.remove(&number);
                }
            }
            for needed in asked.into_iter().map(masked) {
                let scan: BTreeSet<_> =
                    plain.iter().filter(|(_, set)| needed.is_subset_of(set)).map(|(n, _)| *n).collect();
                prop_assert_eq!(index.holding(&needed), scan);
            }
        }
    }
}
