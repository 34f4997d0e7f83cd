//! How many of something each one holds: few each, and not too many in all.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

/// Counts of what is held, by who holds it. Cheap to clone.
pub(crate) struct Places<K> {
    held: Arc<Mutex<HashMap<K, usize>>>,
    each: usize,
    all: usize,
}

/// One that is held, until it is dropped.
pub(crate) struct Held<K: Eq + Hash> {
    places: Arc<Mutex<HashMap<K, usize>>>,
    who: K,
}

impl<K> Clone for Places<K> {
    fn clone(&self) -> Self {
        Self { held: self.held.clone(), each: self.each, all: self.all }
    }
}

impl<K: Clone + Eq + Hash> Places<K> {
    pub(crate) fn new(each: usize, all: usize) -> Self {
        Self { held: Arc::default(), each, all }
    }

    /// One more for somebody; `None` if they have enough, or all together have.
    pub(crate) fn open(&self, who: K) -> Option<Held<K>> {
        let mut held = self.held.lock();
        let own = held.get(&who).copied().unwrap_or_default();
        if own >= self.each || held.values().sum::<usize>() >= self.all {
            return None;
        }
        held.insert(who.clone(), own + 1);
        drop(held);
        Some(Held { places: self.held.clone(), who })
    }
}

impl<K: Eq + Hash> Drop for Held<K> {
    fn drop(&mut self) {
        let mut held = self.places.lock();
        if let Some(count) = held.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_holds_few_and_all_together_have_a_limit() {
        let places = Places::new(2, 3);
        let first = places.open("a").unwrap();
        let _second = places.open("a").unwrap();
        assert!(places.open("a").is_none());
        drop(first);
        let _third = places.open("a").unwrap();
        let _other = places.open("b").unwrap();
        assert!(places.open("c").is_none());
    }
}
