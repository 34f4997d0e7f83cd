//! One key to many values in a single persistent tree of pairs: no allocation per key, clone in constant time.
//!
//! Never exposes the order of insertion: iteration is by key, then by value.

use std::cmp::Ordering;
use std::ops::Bound;

use avouch_domain::{Entry, InPlace, SelectorSet, ShortText, SpiffeId, Timestamp};
use equivalent::{Comparable, Equivalent};
use imbl::OrdSet;

/// A multi-map as an ordered set of pairs.
#[derive(Clone)]
pub(super) struct Index<K: Ord + Clone, V: Ord + Clone>(OrdSet<(K, V)>);

/// An entry in the index by parent, with what a walk over all of a parent's tells of each: it lies in the index itself,
/// where ten thousand are read in a row instead of one by one from where they were allocated.
#[derive(Clone, Debug)]
pub struct Card {
    /// `None` for an ID too long to be kept in place, which is read from the entry.
    id: Option<InPlace>,
    revision_number: i64,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    entry: Entry,
}

impl Card {
    fn of(entry: &Entry) -> Self {
        Self {
            id: entry.id.text().in_place(),
            revision_number: entry.revision_number,
            created_at: entry.created_at,
            expires_at: entry.expires_at,
            entry: entry.clone(),
        }
    }

    /// The bytes of the entry's ID.
    #[must_use]
    pub fn id(&self) -> &[u8] {
        match &self.id {
            Some(id) => id.as_bytes(),
            None => self.entry.id.text().as_bytes(),
        }
    }

    /// The entry's ID, to be passed on.
    #[must_use]
    pub fn id_text(&self) -> ShortText {
        self.id.map_or_else(|| self.entry.id.text().clone(), ShortText::from)
    }

    #[must_use]
    pub fn revision_number(&self) -> i64 {
        self.revision_number
    }

    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// As [`Entry::is_expired`].
    #[must_use]
    pub fn is_expired(&self, wall: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= wall)
    }

    /// The whole entry, which lies elsewhere.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }
}

/// Entries by parent, then ID. The parent is not repeated in the index: a walk need not look at it, since it ends where
/// the next parent begins.
#[derive(Clone, Default)]
pub(super) struct Cards(OrdSet<Card>);

impl Cards {
    pub(super) fn insert(&mut self, entry: &Entry) {
        self.0.insert(Card::of(entry));
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        self.0.remove(&Card::of(entry));
    }

    /// Those below a parent, ascending by ID.
    pub(super) fn below<'a>(&'a self, parent: &'a SpiffeId) -> impl Iterator<Item = &'a Card> + 'a {
        let (before, after) = (Edge(parent, Ordering::Less), Edge(parent, Ordering::Greater));
        self.0.range::<_, Edge<'a>>((Bound::Excluded(before), Bound::Excluded(after)))
    }

    /// The first below a parent.
    pub(super) fn first_below(&self, parent: &SpiffeId) -> Option<&Card> {
        let before = Edge(parent, Ordering::Less);
        let mut from = self.0.range::<_, Edge<'_>>((Bound::Excluded(before), Bound::Unbounded));
        from.next().filter(|card| card.entry.parent_id == *parent)
    }
}

/// Sorts before every card of its parent, or after every one.
struct Edge<'a>(&'a SpiffeId, Ordering);

impl Equivalent<Card> for Edge<'_> {
    fn equivalent(&self, _: &Card) -> bool {
        false
    }
}

impl Comparable<Card> for Edge<'_> {
    fn compare(&self, card: &Card) -> Ordering {
        self.0.cmp(&card.entry.parent_id).then(self.1)
    }
}

/// An entry by SPIFFE ID, then parent and selectors, then ID: the similar entry is found in one step.
#[derive(Clone)]
pub(super) struct BySpiffeId(pub Entry);

impl Ord for BySpiffeId {
    fn cmp(&self, other: &Self) -> Ordering {
        likeness(&self.0).cmp(&likeness(&other.0)).then_with(|| self.0.id.cmp(&other.0.id))
    }
}

impl PartialOrd for BySpiffeId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for BySpiffeId {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for BySpiffeId {}

/// What similar entries have in common.
fn likeness(entry: &Entry) -> (&SpiffeId, &SpiffeId, &SelectorSet) {
    (&entry.spiffe_id, &entry.parent_id, entry.selector_set())
}

/// Sorts before every entry that gives out this SPIFFE ID and after every one that gives out a smaller one.
pub(super) struct Giving<'a>(pub &'a SpiffeId);

impl Equivalent<BySpiffeId> for Giving<'_> {
    fn equivalent(&self, _: &BySpiffeId) -> bool {
        false
    }
}

impl Comparable<BySpiffeId> for Giving<'_> {
    fn compare(&self, other: &BySpiffeId) -> Ordering {
        self.0.cmp(&other.0.spiffe_id).then(Ordering::Less)
    }
}

/// Sorts before every entry that gives out this SPIFFE ID below this parent and after every smaller one.
pub(super) struct GivingBelow<'a>(pub &'a SpiffeId, pub &'a SpiffeId);

impl Equivalent<BySpiffeId> for GivingBelow<'_> {
    fn equivalent(&self, _: &BySpiffeId) -> bool {
        false
    }
}

impl Comparable<BySpiffeId> for GivingBelow<'_> {
    fn compare(&self, other: &BySpiffeId) -> Ordering {
        (self.0, self.1).cmp(&(&other.0.spiffe_id, &other.0.parent_id)).then(Ordering::Less)
    }
}

/// Sorts before every entry similar to this one and after every smaller one.
pub(super) struct Similar<'a>(pub &'a Entry);

impl Equivalent<BySpiffeId> for Similar<'_> {
    fn equivalent(&self, _: &BySpiffeId) -> bool {
        false
    }
}

impl Comparable<BySpiffeId> for Similar<'_> {
    fn compare(&self, other: &BySpiffeId) -> Ordering {
        likeness(self.0).cmp(&likeness(&other.0)).then(Ordering::Less)
    }
}

impl Ord for Card {
    fn cmp(&self, other: &Self) -> Ordering {
        self.entry.parent_id.cmp(&other.entry.parent_id).then_with(|| self.id().cmp(other.id()))
    }
}

impl PartialOrd for Card {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Card {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Card {}

/// Sorts before every pair with its key and after every pair with a smaller one.
struct Start<'a, K>(&'a K);

impl<K: Ord, V> Equivalent<(K, V)> for Start<'_, K> {
    fn equivalent(&self, _: &(K, V)) -> bool {
        false
    }
}

impl<K: Ord, V> Comparable<(K, V)> for Start<'_, K> {
    fn compare(&self, pair: &(K, V)) -> Ordering {
        self.0.cmp(&pair.0).then(Ordering::Less)
    }
}

impl<K: Ord + Clone, V: Ord + Clone> Default for Index<K, V> {
    fn default() -> Self {
        Self(OrdSet::new())
    }
}

impl<K: Ord + Clone, V: Ord + Clone> Index<K, V> {
    /// True if the pair is new.
    pub(super) fn insert(&mut self, key: K, value: V) -> bool {
        self.0.insert((key, value)).is_none()
    }

    /// True if the pair was there.
    pub(super) fn remove(&mut self, key: K, value: V) -> bool {
        self.0.remove(&(key, value)).is_some()
    }

    /// The values of a key, ascending.
    pub(super) fn get<'a>(&'a self, key: &'a K) -> impl Iterator<Item = &'a V> + 'a {
        self.0
            .range::<_, Start<'a, K>>((Bound::Excluded(Start(key)), Bound::Unbounded))
            .take_while(move |pair| pair.0 == *key)
            .map(|pair| &pair.1)
    }
}
