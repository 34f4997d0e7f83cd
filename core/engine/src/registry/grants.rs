//! Grants: what is asked of them.

use avouch_domain::{Grant, GrantId, GrantStanding, SpiffeId, Timestamp};

use super::Registry;
use crate::plan::consent;

impl Registry {
    #[must_use]
    pub fn grant(&self, id: &GrantId) -> Option<&Grant> {
        self.grants.get(id)
    }

    /// All grants that are kept, ascending by ID.
    pub fn grants(&self) -> impl ExactSizeIterator<Item = &Grant> {
        self.grants.all()
    }

    /// Those of one identity.
    pub fn grants_of<'a>(&'a self, identity: &'a SpiffeId) -> impl Iterator<Item = &'a Grant> + 'a {
        self.grants.of(identity)
    }

    /// Where a grant stands, for its identity and its giver as they are now.
    #[must_use]
    pub fn grant_standing(&self, grant: &Grant, wall: Timestamp) -> GrantStanding {
        grant.standing(wall, consent::grant_counts(self, grant, wall))
    }

    /// The moment from which nothing comes of the oldest one.
    #[must_use]
    pub fn next_grant_end(&self) -> Option<Timestamp> {
        self.grants.next_end()
    }

    /// Those of which nothing has come since `wall`, earliest first.
    pub fn grants_over(&self, wall: Timestamp) -> impl Iterator<Item = &Grant> {
        self.grants.over(wall)
    }
}
