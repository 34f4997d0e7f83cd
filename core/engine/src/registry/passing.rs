//! Rows of one identity each, of which nothing comes any more from some moment on: by ID, by identity and by that moment.

use avouch_domain::{Emergency, EmergencyId, Grant, GrantId, Request, RequestId, SpiffeId, Timestamp};
use imbl::{OrdMap, OrdSet};

use super::index::Index;

/// A row that is over some day.
pub(super) trait Passing: Clone {
    type Id: Ord + Clone;

    fn id(&self) -> &Self::Id;
    fn identity(&self) -> &SpiffeId;
    /// From when on nothing comes of it any more.
    fn over_at(&self) -> Timestamp;
}

impl Passing for Request {
    type Id = RequestId;

    fn id(&self) -> &RequestId {
        &self.id
    }

    fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    fn over_at(&self) -> Timestamp {
        self.until
    }
}

impl Passing for Grant {
    type Id = GrantId;

    fn id(&self) -> &GrantId {
        &self.id
    }

    fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    fn over_at(&self) -> Timestamp {
        self.over_at()
    }
}

impl Passing for Emergency {
    type Id = EmergencyId;

    fn id(&self) -> &EmergencyId {
        &self.id
    }

    fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    fn over_at(&self) -> Timestamp {
        self.over_at()
    }
}

/// All rows of a kind.
#[derive(Clone)]
pub(super) struct Rows<T: Passing> {
    by_id: OrdMap<T::Id, T>,
    by_identity: Index<SpiffeId, T::Id>,
    ends: OrdSet<(Timestamp, T::Id)>,
}

impl<T: Passing> Default for Rows<T> {
    fn default() -> Self {
        Self { by_id: OrdMap::default(), by_identity: Index::default(), ends: OrdSet::default() }
    }
}

impl<T: Passing> Rows<T> {
    pub(super) fn put(&mut self, row: T) {
        self.delete(row.id());
        self.by_identity.insert(row.identity().clone(), row.id().clone());
        self.ends.insert((row.over_at(), row.id().clone()));
        self.by_id.insert(row.id().clone(), row);
    }

    pub(super) fn delete(&mut self, id: &T::Id) {
        if let Some(old) = self.by_id.remove(id) {
            self.by_identity.remove(old.identity().clone(), id.clone());
            self.ends.remove(&(old.over_at(), id.clone()));
        }
    }

    pub(super) fn get(&self, id: &T::Id) -> Option<&T> {
        self.by_id.get(id)
    }

    /// Ascending by ID.
    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = &T> {
        self.by_id.values()
    }

    /// Those of one identity.
    pub(super) fn of<'a>(&'a self, identity: &'a SpiffeId) -> impl Iterator<Item = &'a T> + 'a {
        self.by_identity.get(identity).filter_map(|id| self.get(id))
    }

    /// When the first of them is over.
    pub(super) fn next_end(&self) -> Option<Timestamp> {
        self.ends.get_min().map(|(at, _)| *at)
    }

    /// Those that are over at `wall`, earliest first.
    pub(super) fn over(&self, wall: Timestamp) -> impl Iterator<Item = &T> {
        self.ends.iter().take_while(move |(at, _)| *at <= wall).filter_map(|(_, id)| self.get(id))
    }

    /// Those that are not over at `wall`, latest first.
    pub(super) fn not_over(&self, wall: Timestamp) -> impl Iterator<Item = &T> {
        self.ends.iter().rev().take_while(move |(at, _)| *at > wall).filter_map(|(_, id)| self.get(id))
    }
}
