//! Owners that are demanded: from a moment on, entries whose SPIFFE ID no identity has are withheld.
//!
//! Never asks what time it is, and never walks entries to say whether one is withheld: those that nobody owns are kept by ID.

use avouch_domain::{Entry, EntryId, SpiffeId, Timestamp};
use imbl::OrdSet;

use super::Registry;

/// From when on owners are demanded, and the entries that have none. Node aliases name nodes and need no owner.
#[derive(Clone)]
pub(super) struct Demand {
    from: Timestamp,
    unowned: OrdSet<EntryId>,
}

impl Demand {
    pub(super) fn add(&mut self, id: EntryId) {
        self.unowned.insert(id);
    }

    pub(super) fn forget(&mut self, id: &EntryId) {
        self.unowned.remove(id);
    }

    /// True if some entry is withheld for want of an owner.
    pub(super) fn withholds_any(&self, wall: Timestamp) -> bool {
        self.from <= wall && !self.unowned.is_empty()
    }

    pub(super) fn withholds(&self, id: &EntryId, wall: Timestamp) -> bool {
        self.from <= wall && self.unowned.contains(id)
    }
}

impl Registry {
    /// The same registry, with owners demanded from a moment on; `None`: never. Walks all entries once.
    #[must_use]
    pub fn demanding_owners(mut self, from: Option<Timestamp>) -> Self {
        let demand = from.map(|from| {
            let unowned = self.entries().filter(|entry| self.wants_owner(entry));
            Demand { from, unowned: unowned.map(|entry| entry.id.clone()).collect() }
        });
        self.identities.demand = demand;
        self
    }

    /// From when on owners are demanded.
    #[must_use]
    pub fn owners_demanded_from(&self) -> Option<Timestamp> {
        self.identities.demand.as_ref().map(|demand| demand.from)
    }

    /// Entries whose SPIFFE ID no identity has, ascending by ID. None while owners are never demanded.
    pub fn unowned(&self) -> impl Iterator<Item = &Entry> {
        let ids = self.identities.demand.iter().flat_map(|demand| demand.unowned.iter());
        ids.filter_map(|id| self.entries.get(id))
    }

    /// True if entries are withheld for want of an owner, or will be.
    #[must_use]
    pub fn lacks_demanded_owners(&self) -> bool {
        self.identities.demand.as_ref().is_some_and(|demand| !demand.unowned.is_empty())
    }

    /// True if nobody owns what the entry gives out, and it is no node alias.
    #[must_use]
    pub fn wants_owner(&self, entry: &Entry) -> bool {
        !entry.is_node_alias() && self.identity(&entry.spiffe_id).is_none()
    }

    /// To be told when a name has an identity that had none.
    pub(super) fn name_is_owned(&mut self, name: &SpiffeId) {
        if self.identities.demand.is_none() {
            return;
        }
        let ids = self.ids_giving(name);
        if let Some(demand) = &mut self.identities.demand {
            ids.iter().for_each(|id| demand.forget(id));
        }
    }

    /// To be told when a name has no identity any more.
    pub(super) fn name_is_unowned(&mut self, name: &SpiffeId) {
        if self.identities.demand.is_none() {
            return;
        }
        let workloads = self.entries_by_spiffe_id(name).filter(|entry| !entry.is_node_alias());
        let ids: Vec<_> = workloads.map(|entry| entry.id.clone()).collect();
        if let Some(demand) = &mut self.identities.demand {
            ids.into_iter().for_each(|id| demand.add(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::{entry, identity};
    use avouch_domain::{Kind, Row, RowKey};

    use super::*;

    const FROM: Timestamp = Timestamp(1_000);
    const BEFORE: Timestamp = Timestamp(999);

    fn demanding(rows: Vec<Row>) -> Registry {
        let mut registry = Registry::new();
        rows.into_iter().for_each(|row| registry.put(row));
        registry.demanding_owners(Some(FROM))
    }

    #[test]
    fn what_nobody_owns_is_withheld_from_the_moment_on_and_not_before() {
        let (owned, found) = (entry("e1", "/owned", "/p", &["u:1"]), entry("e2", "/found", "/p", &["u:1"]));
        let registry = demanding(vec![
            Row::Entry(owned.clone()),
            Row::Entry(found.clone()),
            Row::Identity(identity("/owned", Kind::Service)),
        ]);
        assert!(registry.withholds_nothing(BEFORE) && !registry.is_withheld(&found, BEFORE));
        assert!(!registry.withholds_nothing(FROM) && registry.is_withheld(&found, FROM));
        assert!(!registry.is_withheld(&owned, FROM));
        assert_eq!(registry.unowned().collect::<Vec<_>>(), [&found]);
        let never = registry.demanding_owners(None);
        assert!(never.withholds_nothing(FROM) && !never.is_withheld(&found, FROM));
    }

    #[test]
    fn a_node_alias_needs_no_owner_whenever_it_comes() {
        let (first, later) = (
            entry("e1", "/group", "/spire/server", &["n:1"]),
            entry("e2", "/other", "/spire/server", &["n:1"]),
        );
        let mut registry = demanding(vec![Row::Entry(first.clone())]);
        registry.put(Row::Entry(later.clone()));
        registry.put(Row::Identity(identity("/other", Kind::Service)));
        registry.delete(&RowKey::Identity(identity("/other", Kind::Service).spiffe_id));
        assert!(registry.withholds_nothing(FROM) && !registry.lacks_demanded_owners());
        assert!(!registry.is_withheld(&first, FROM) && !registry.is_withheld(&later, FROM));
    }

    #[test]
    fn an_entry_that_comes_later_is_withheld_and_an_adoption_gives_back() {
        let late = entry("e1", "/found", "/p", &["u:1"]);
        let mut registry = demanding(vec![]);
        registry.put(Row::Entry(late.clone()));
        assert!(registry.is_withheld(&late, FROM));
        let before = registry.clone();
        registry.put(Row::Identity(identity("/found", Kind::Service)));
        assert!(registry.withholds_nothing(FROM) && !registry.is_withheld(&late, FROM));
        assert_eq!(before.switched_identities(&registry).collect::<Vec<_>>(), [&late.spiffe_id]);
        registry.delete(&RowKey::Identity(late.spiffe_id.clone()));
        assert!(registry.is_withheld(&late, FROM), "who loses the owner is withheld again");
        registry.delete(&RowKey::Entry(late.id.clone()));
        assert!(registry.withholds_nothing(FROM), "what is gone is not remembered");
    }

    #[test]
    fn an_entry_that_takes_an_owned_name_is_given_back() {
        let mut registry = demanding(vec![
            Row::Entry(entry("e1", "/found", "/p", &["u:1"])),
            Row::Identity(identity("/owned", Kind::Service)),
        ]);
        let taken = entry("e1", "/owned", "/p", &["u:1"]);
        registry.put(Row::Entry(taken.clone()));
        assert!(registry.withholds_nothing(FROM) && !registry.is_withheld(&taken, FROM));
    }
}
