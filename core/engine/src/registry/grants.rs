//! Grants, by ID, by identity and by the moment from which nothing comes of them.

use avouch_domain::{Grant, GrantId, GrantStanding, SpiffeId, Timestamp};
use imbl::{OrdMap, OrdSet};

use super::Registry;
use super::index::Index;
use crate::plan::consent;

#[derive(Clone, Default)]
pub(super) struct Grants {
    by_id: OrdMap<GrantId, Grant>,
    by_identity: Index<SpiffeId, GrantId>,
    ends: OrdSet<(Timestamp, GrantId)>,
}

impl Grants {
    pub(super) fn put(&mut self, grant: Grant) {
        self.delete(&grant.id);
        self.by_identity.insert(grant.identity.clone(), grant.id.clone());
        self.ends.insert((grant.over_at(), grant.id.clone()));
        self.by_id.insert(grant.id.clone(), grant);
    }

    pub(super) fn delete(&mut self, id: &GrantId) {
        if let Some(old) = self.by_id.remove(id) {
            self.ends.remove(&(old.over_at(), id.clone()));
            self.by_identity.remove(old.identity, id.clone());
        }
    }
}

impl Registry {
    #[must_use]
    pub fn grant(&self, id: &GrantId) -> Option<&Grant> {
        self.grants.by_id.get(id)
    }

    /// All grants that are kept, ascending by ID.
    pub fn grants(&self) -> impl ExactSizeIterator<Item = &Grant> {
        self.grants.by_id.values()
    }

    /// Those of one identity.
    pub fn grants_of<'a>(&'a self, identity: &'a SpiffeId) -> impl Iterator<Item = &'a Grant> + 'a {
        self.grants.by_identity.get(identity).filter_map(|id| self.grant(id))
    }

    /// Where a grant stands, for its identity and its giver as they are now.
    #[must_use]
    pub fn grant_standing(&self, grant: &Grant, wall: Timestamp) -> GrantStanding {
        grant.standing(wall, consent::grant_counts(self, grant, wall))
    }

    /// The moment from which nothing comes of the oldest one.
    #[must_use]
    pub fn next_grant_end(&self) -> Option<Timestamp> {
        self.grants.ends.get_min().map(|(at, _)| *at)
    }

    /// Those of which nothing has come since `wall`, earliest first.
    pub fn grants_over(&self, wall: Timestamp) -> impl Iterator<Item = &Grant> {
        let over = self.grants.ends.iter().take_while(move |(at, _)| *at <= wall);
        over.filter_map(|(_, id)| self.grant(id))
    }
}
