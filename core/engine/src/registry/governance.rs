//! People and identities, and which entries are withheld because of them.
//!
//! Never walks entries to say whether one is withheld: those of identities that are not active are kept by ID, and what
//! has reached its end is found by its end.

use std::ops::Bound;

use avouch_domain::{
    Cause, Entry, EntryId, Identity, Person, PersonId, SignIn, SpiffeId, Standing, Timestamp,
};
use imbl::{OrdMap, OrdSet};

use super::Registry;
use super::demand::Demand;
use crate::faults::{Fault, planted};

/// People by ID, by local user, and by the account as which they sign in.
#[derive(Clone, Default)]
pub(super) struct People {
    by_id: OrdMap<PersonId, Person>,
    by_uid: OrdMap<u32, PersonId>,
    by_sign_in: OrdMap<SignIn, PersonId>,
}

impl People {
    pub(super) fn put(&mut self, person: Person) {
        self.delete(&person.id);
        if let Some(uid) = person.uid {
            self.by_uid.insert(uid, person.id.clone());
        }
        if let Some(sign_in) = &person.sign_in {
            self.by_sign_in.insert(sign_in.clone(), person.id.clone());
        }
        self.by_id.insert(person.id.clone(), person);
    }

    pub(super) fn delete(&mut self, id: &PersonId) {
        let Some(old) = self.by_id.remove(id) else { return };
        if let Some(uid) = old.uid {
            self.by_uid.remove(&uid);
        }
        if let Some(sign_in) = old.sign_in {
            self.by_sign_in.remove(&sign_in);
        }
    }
}

/// Identities by name, by the moment they pause by themselves, and the entries of those that are not active.
#[derive(Clone, Default)]
pub(super) struct Identities {
    by_name: OrdMap<SpiffeId, Identity>,
    pauses: OrdSet<(Timestamp, SpiffeId)>,
    withheld: OrdSet<EntryId>,
    /// `None`: owners are never demanded.
    pub(super) demand: Option<Demand>,
}

impl Identities {
    pub(super) fn forget_entry(&mut self, id: &EntryId) {
        self.withheld.remove(id);
        if let Some(demand) = &mut self.demand {
            demand.forget(id);
        }
    }
}

/// People.
impl Registry {
    #[must_use]
    pub fn person(&self, id: &PersonId) -> Option<&Person> {
        self.people.by_id.get(id)
    }

    /// The person who is this local user.
    #[must_use]
    pub fn person_of_uid(&self, uid: u32) -> Option<&Person> {
        self.people.by_uid.get(&uid).and_then(|id| self.people.by_id.get(id))
    }

    /// The person who signs in as this account.
    #[must_use]
    pub fn person_of_sign_in(&self, sign_in: &SignIn) -> Option<&Person> {
        self.people.by_sign_in.get(sign_in).and_then(|id| self.people.by_id.get(id))
    }

    /// All people, ascending by ID.
    pub fn people(&self) -> impl Iterator<Item = &Person> {
        self.people.by_id.values()
    }
}

/// Identities.
impl Registry {
    #[must_use]
    pub fn identity(&self, name: &SpiffeId) -> Option<&Identity> {
        self.identities.by_name.get(name)
    }

    /// All identities, ascending by name.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.identities.by_name.values()
    }

    /// Identities with a name above `after`, ascending.
    pub fn identities_after<'a>(
        &'a self,
        after: Option<&'a SpiffeId>,
    ) -> impl Iterator<Item = &'a Identity> + 'a {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.identities.by_name.range::<_, SpiffeId>((from, Bound::Unbounded)).map(|(_, identity)| identity)
    }

    /// The identities next to a name, below and above it.
    pub fn identities_around<'a>(&'a self, name: &'a SpiffeId) -> impl Iterator<Item = &'a Identity> + 'a {
        let below = self.identities.by_name.range::<_, SpiffeId>(..name).next_back();
        let above = self.identities_after(Some(name)).next();
        below.map(|(_, identity)| identity).into_iter().chain(above)
    }

    /// When the next identity pauses by itself.
    #[must_use]
    pub fn next_pause(&self) -> Option<Timestamp> {
        self.identities.pauses.get_min().map(|(at, _)| *at)
    }

    /// Identities whose moment to pause has come, and why, earliest first.
    pub fn due_to_pause(&self, wall: Timestamp) -> impl Iterator<Item = (&Identity, Cause)> {
        let due = self.identities.pauses.iter().take_while(move |(at, _)| *at <= wall);
        due.filter_map(|(_, name)| {
            let identity = self.identity(name)?;
            identity.pauses_at().map(|(_, cause)| (identity, cause))
        })
    }

    /// True if every entry may be handed out as far as identities are concerned; constant time.
    #[must_use]
    pub fn withholds_nothing(&self, wall: Timestamp) -> bool {
        self.identities.withheld.is_empty()
            && self.next_pause().is_none_or(|at| at > wall)
            && !self.identities.demand.as_ref().is_some_and(|demand| demand.withholds_any(wall))
    }

    /// True if the entry gives out the name of an identity that is paused, stopped, not yet agreed to, or at its end; or of
    /// none although owners are demanded.
    #[must_use]
    pub fn is_withheld(&self, entry: &Entry, wall: Timestamp) -> bool {
        let due = self.next_pause().is_some_and(|at| at <= wall);
        self.identities.withheld.contains(&entry.id)
            || (due && self.is_name_withheld(&entry.spiffe_id, wall))
            || self.identities.demand.as_ref().is_some_and(|demand| demand.withholds(&entry.id, wall))
    }

    /// True if this is the name of an identity that is not in force.
    #[must_use]
    pub fn is_name_withheld(&self, name: &SpiffeId, wall: Timestamp) -> bool {
        self.identity(name).is_some_and(|identity| !identity.is_in_force(wall))
    }

    /// True if no identity was written between two registries of one line of descent; constant time.
    #[must_use]
    pub fn same_identities(&self, other: &Self) -> bool {
        self.identities.by_name.ptr_eq(&other.identities.by_name)
    }

    /// Names of identities that began or ceased to be active between two registries; where owners are demanded some day, also of
    /// those that came or went. Costs what differs.
    pub fn switched_identities<'a>(&'a self, after: &'a Self) -> impl Iterator<Item = &'a SpiffeId> + 'a {
        let active = |identity: Option<&Identity>| identity.is_none_or(|i| i.standing == Standing::Active);
        let demanded = after.identities.demand.is_some();
        self.identities.by_name.diff(&after.identities.by_name).filter_map(move |item| {
            let (name, before, after) = match item {
                imbl::ordmap::DiffItem::Add(name, new) => (name, None, Some(new)),
                imbl::ordmap::DiffItem::Update { old, new } => (new.0, Some(old.1), Some(new.1)),
                imbl::ordmap::DiffItem::Remove(name, old) => (name, Some(old), None),
            };
            let owned_anew = demanded && before.is_some() != after.is_some();
            let switched = active(before) != active(after) || owned_anew;
            (switched && !planted(Fault::PauseInSilence)).then_some(name)
        })
    }

    /// Names of identities whose stop, or a drill of it, was begun between two registries. Costs what differs.
    pub fn tried_identities<'a>(&'a self, after: &'a Self) -> impl Iterator<Item = &'a SpiffeId> + 'a {
        let begun = |identity: &Identity| identity.stop_tried.map(|tried| tried.at);
        self.identities.by_name.diff(&after.identities.by_name).filter_map(move |item| match item {
            imbl::ordmap::DiffItem::Update { old, new } if begun(old.1) != begun(new.1) => Some(new.0),
            _ => None,
        })
    }

    pub(super) fn put_identity(&mut self, identity: Identity) {
        if !self.take_identity(&identity.spiffe_id) {
            self.name_is_owned(&identity.spiffe_id);
        }
        if let Some((at, _)) = identity.pauses_at() {
            self.identities.pauses.insert((at, identity.spiffe_id.clone()));
        }
        if identity.standing != Standing::Active {
            for id in self.ids_giving(&identity.spiffe_id) {
                self.identities.withheld.insert(id);
            }
        }
        self.identities.by_name.insert(identity.spiffe_id.clone(), identity);
    }

    pub(super) fn delete_identity(&mut self, name: &SpiffeId) {
        if self.take_identity(name) {
            self.name_is_unowned(name);
        }
    }

    /// False if there was none.
    fn take_identity(&mut self, name: &SpiffeId) -> bool {
        let Some(old) = self.identities.by_name.remove(name) else { return false };
        if let Some((at, _)) = old.pauses_at() {
            self.identities.pauses.remove(&(at, name.clone()));
        }
        if old.standing != Standing::Active {
            for id in self.ids_giving(name) {
                self.identities.withheld.remove(&id);
            }
        }
        true
    }

    /// To be told of each entry that is put.
    pub(super) fn withhold_new(&mut self, entry: &Entry) {
        if self.identity(&entry.spiffe_id).is_some_and(|identity| identity.standing != Standing::Active) {
            self.identities.withheld.insert(entry.id.clone());
        }
        let unowned = self.wants_owner(entry);
        if let Some(demand) = self.identities.demand.as_mut().filter(|_| unowned) {
            demand.add(entry.id.clone());
        }
    }

    pub(super) fn ids_giving(&self, name: &SpiffeId) -> Vec<EntryId> {
        self.entries_by_spiffe_id(name).map(|entry| entry.id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::{entry, id, identity, person};
    use avouch_domain::{Kind, Row, RowKey, StopTried};

    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    fn paused(name: &str) -> Identity {
        Identity { standing: Standing::Paused(Cause::Person), ..identity(name, Kind::AiAgent) }
    }

    #[test]
    fn an_entry_is_withheld_whether_it_or_the_pause_came_first() {
        let mut registry = Registry::new();
        let (first, second) =
            (entry("e1", "/test/x", "/p", &["u:1"]), entry("e2", "/test/x", "/q", &["u:1"]));
        registry.put(Row::Entry(first.clone()));
        assert!(!registry.is_withheld(&first, NOW));
        registry.put(Row::Identity(paused("/test/x")));
        registry.put(Row::Entry(second.clone()));
        assert!(registry.is_withheld(&first, NOW) && registry.is_withheld(&second, NOW));
        registry.put(Row::Identity(identity("/test/x", Kind::AiAgent)));
        assert!(registry.withholds_nothing(NOW) && !registry.is_withheld(&first, NOW));
        registry.put(Row::Identity(paused("/test/x")));
        registry.delete(&RowKey::Entry(first.id.clone()));
        registry.delete(&RowKey::Entry(second.id.clone()));
        assert!(registry.withholds_nothing(NOW), "what is gone is not remembered");
    }

    #[test]
    fn an_entry_that_takes_the_name_of_a_paused_identity_is_withheld_and_one_that_gives_it_up_is_not() {
        let mut registry = Registry::new();
        registry.put(Row::Identity(paused("/test/x")));
        registry.put(Row::Entry(entry("e1", "/other", "/p", &["u:1"])));
        let taken = entry("e1", "/test/x", "/p", &["u:1"]);
        registry.put(Row::Entry(taken.clone()));
        assert!(registry.is_withheld(&taken, NOW));
        let back = entry("e1", "/other", "/p", &["u:1"]);
        registry.put(Row::Entry(back.clone()));
        assert!(!registry.is_withheld(&back, NOW) && registry.withholds_nothing(NOW));
    }

    #[test]
    fn an_end_withholds_by_itself_when_its_moment_comes() {
        let mut registry = Registry::new();
        let held = entry("e1", "/test/x", "/p", &["u:1"]);
        registry.put(Row::Entry(held.clone()));
        let ends = Identity { end: Timestamp(2_000), ..identity("/test/x", Kind::Service) };
        registry.put(Row::Identity(ends));
        assert!(
            !registry.is_withheld(&held, Timestamp(1_999)) && registry.is_withheld(&held, Timestamp(2_000))
        );
        let due: Vec<_> =
            registry.due_to_pause(Timestamp(2_000)).map(|(i, cause)| (&i.spiffe_id, cause)).collect();
        assert_eq!(due, [(&id("/test/x"), Cause::EndReached)]);
    }

    #[test]
    fn a_stop_or_a_drill_is_named_when_it_begins_and_not_when_it_is_known_how_it_went() {
        let at = |at, confirmed| {
            let mut registry = Registry::new();
            let tried = StopTried { at: Timestamp(at), nodes: 1, confirmed, took_ms: 0 };
            let tried = Identity { stop_tried: Some(tried), ..identity("/test/x", Kind::Service) };
            registry.put(Row::Identity(tried));
            registry
        };
        assert_eq!(at(1, 0).tried_identities(&at(2, 0)).collect::<Vec<_>>(), [&id("/test/x")]);
        assert_eq!(at(1, 0).tried_identities(&at(1, 1)).count(), 0);
    }

    #[test]
    fn of_a_name_only_what_hangs_below_one_parent_is_found() {
        let mut registry = Registry::new();
        for (name, path, parent) in [
            ("a", "/x", "/p"),
            ("b", "/x", "/p/q"),
            ("c", "/x", "/p"),
            ("d", "/x/y", "/p"),
            ("e", "/w", "/p"),
        ] {
            registry.put(Row::Entry(entry(name, path, parent, &[&format!("u:{name}")])));
        }
        let (name, parent, none) = (id("/x"), id("/p"), id("/o"));
        let found: Vec<_> = registry.entries_giving_below(&name, &parent).map(|e| e.id.as_str()).collect();
        assert_eq!(found, ["a", "c"]);
        assert_eq!(registry.entries_giving_below(&name, &none).count(), 0);
    }

    #[test]
    fn only_identities_that_switch_are_named() {
        let mut before = Registry::new();
        before.put(Row::Identity(identity("/test/same", Kind::Service)));
        before.put(Row::Identity(identity("/test/paused", Kind::Service)));
        let mut after = before.clone();
        assert!(before.same_identities(&after));
        let longer = Identity { end: Timestamp(9), ..identity("/test/same", Kind::Service) };
        after.put(Row::Identity(longer));
        after.put(Row::Identity(paused("/test/paused")));
        after.put(Row::Identity(identity("/test/new", Kind::Service)));
        assert!(!before.same_identities(&after));
        assert_eq!(before.switched_identities(&after).collect::<Vec<_>>(), [&id("/test/paused")]);
        after.delete(&RowKey::Identity(id("/test/paused")));
        assert_eq!(
            before.switched_identities(&after).count(),
            0,
            "an entry without identity is not withheld"
        );
    }

    #[test]
    fn a_person_is_found_by_the_user_it_is_now() {
        let mut registry = Registry::new();
        registry.put(Row::Person(person("per_a", 1, true)));
        registry.put(Row::Person(Person { uid: Some(2), ..person("per_a", 1, true) }));
        assert!(registry.person_of_uid(1).is_none());
        assert_eq!(registry.person_of_uid(2).map(|p| p.id.as_str()), Some("per_a"));
    }

    #[test]
    fn a_person_is_found_by_the_account_it_has_now() {
        let account = |subject| SignIn::read("https://idp.example.org", subject).unwrap();
        let mut registry = Registry::new();
        registry.put(Row::Person(Person { sign_in: account("1"), ..person("per_a", 1, true) }));
        registry.put(Row::Person(Person { sign_in: account("2"), ..person("per_a", 1, true) }));
        assert!(registry.person_of_sign_in(&account("1").unwrap()).is_none());
        let found = registry.person_of_sign_in(&account("2").unwrap());
        assert_eq!(found.map(|p| p.id.as_str()), Some("per_a"));
    }
}
