//! What is accepted although it is lacking, by name and finding.

use std::ops::Bound;

use avouch_domain::{Accepted, Finding, SpiffeId};

use super::Registry;

impl Registry {
    #[must_use]
    pub fn accepted(&self, name: &SpiffeId, what: Finding) -> Option<&Accepted> {
        self.accepted.get(&(name.clone(), what))
    }

    /// All that are kept, ascending by name.
    pub fn all_accepted(&self) -> impl ExactSizeIterator<Item = &Accepted> {
        self.accepted.values()
    }

    /// Those above `after`, ascending by name.
    pub fn accepted_after<'a>(
        &'a self,
        after: Option<&'a (SpiffeId, Finding)>,
    ) -> impl Iterator<Item = &'a Accepted> + 'a {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.accepted.range::<_, (SpiffeId, Finding)>((from, Bound::Unbounded)).map(|(_, accepted)| accepted)
    }

    pub(super) fn put_accepted(&mut self, accepted: Accepted) {
        self.accepted.insert((accepted.name.clone(), accepted.what), accepted);
    }

    pub(super) fn delete_accepted(&mut self, name: &SpiffeId, what: Finding) {
        self.accepted.remove(&(name.clone(), what));
    }
}
