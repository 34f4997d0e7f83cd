//! One key to many values in a single persistent tree of pairs: no allocation per key, clone in constant time.
//!
//! Never exposes the order of insertion: iteration is by key, then by value.

use std::cmp::Ordering;
use std::ops::Bound;

use avouch_domain::Entry;
use equivalent::{Comparable, Equivalent};
use imbl::OrdSet;

/// A multi-map as an ordered set of pairs.
#[derive(Clone)]
pub(super) struct Index<K: Ord + Clone, V: Ord + Clone>(OrdSet<(K, V)>);

/// An entry that is told apart from others by its ID alone.
#[derive(Clone)]
pub(super) struct ById(pub Entry);

impl Ord for ById {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

impl PartialOrd for ById {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

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

    /// True if the key has a value.
    pub(super) fn contains_key(&self, key: &K) -> bool {
        self.get(key).next().is_some()
    }
}
