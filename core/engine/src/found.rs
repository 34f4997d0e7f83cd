//! What runs without anybody answering for it: names that entries give out and no identity has, and whose they may be.
//!
//! Never makes anybody an owner: a suggestion is a hint with its reason.

use avouch_domain::{Entry, PersonId, SpiffeId};

use crate::registry::Registry;

/// A name without identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub name: SpiffeId,
    /// How many entries give it out.
    pub entries: usize,
    pub suggestion: Option<Suggestion>,
}

/// Who may be the owner, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    pub person: PersonId,
    pub reason: Reason,
}

/// What a suggestion rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// An entry of it is for processes of the user who is this person.
    RunsAs(u32),
    /// The person owns the identity whose path it shares most of.
    Neighbour(SpiffeId),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RunsAs(uid) => write!(f, "it runs as user {uid}"),
            Self::Neighbour(name) => write!(f, "its neighbour {name} has this owner"),
        }
    }
}

/// True if entries give out the name and no identity has it.
#[must_use]
pub fn is_found(registry: &Registry, name: &SpiffeId) -> bool {
    registry.identity(name).is_none() && registry.entries_by_spiffe_id(name).any(|e| !e.is_node_alias())
}

/// Names without identity above `after`, ascending. Entries that name nodes are none of these.
pub fn found<'a>(
    registry: &'a Registry,
    after: Option<&'a SpiffeId>,
) -> impl Iterator<Item = Found> + use<'a> {
    let mut entries = registry.entries_giving_after(after).filter(|e| !e.is_node_alias()).peekable();
    let names = std::iter::from_fn(move || {
        let first = entries.next()?;
        let mut suggested = runs_as(registry, first);
        let mut many = 1;
        while let Some(next) = entries.next_if(|e| e.spiffe_id == first.spiffe_id) {
            suggested = suggested.or_else(|| runs_as(registry, next));
            many += 1;
        }
        Some((first.spiffe_id.clone(), many, suggested))
    });
    names.filter(|(name, ..)| registry.identity(name).is_none()).map(|(name, entries, suggested)| Found {
        suggestion: suggested.or_else(|| neighbour(registry, &name)),
        entries,
        name,
    })
}

/// How many names [`found`] finds.
#[must_use]
pub fn count(registry: &Registry) -> usize {
    let mut last = None;
    let entries = registry.entries_giving_after(None).filter(|e| !e.is_node_alias());
    let names = entries.map(|e| &e.spiffe_id).filter(|name| last.replace(*name) != Some(*name));
    names.filter(|name| registry.identity(name).is_none()).count()
}

fn runs_as(registry: &Registry, entry: &Entry) -> Option<Suggestion> {
    let uids = entry.selector_set().iter().filter_map(|s| s.as_str().strip_prefix("unix:uid:"));
    uids.filter_map(|uid| uid.parse().ok()).find_map(|uid| {
        let person = registry.person_of_uid(uid).filter(|person| person.is_active())?;
        Some(Suggestion { person: person.id.clone(), reason: Reason::RunsAs(uid) })
    })
}

fn neighbour(registry: &Registry, name: &SpiffeId) -> Option<Suggestion> {
    let shared = |other: &SpiffeId| {
        let mine = name.path().split('/').skip(1);
        mine.zip(other.path().split('/').skip(1)).take_while(|(a, b)| a == b).count()
    };
    let nearest = registry.identities_around(name).max_by_key(|identity| shared(&identity.spiffe_id))?;
    (shared(&nearest.spiffe_id) > 0).then(|| Suggestion {
        person: nearest.owner.clone(),
        reason: Reason::Neighbour(nearest.spiffe_id.clone()),
    })
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::{entry, id, identity, person};
    use avouch_domain::{Kind, Row};

    use super::*;

    fn registry(rows: Vec<Row>) -> Registry {
        let mut registry = Registry::new();
        rows.into_iter().for_each(|row| registry.put(row));
        registry
    }

    #[test]
    fn a_name_is_found_once_however_many_entries_give_it_out_and_never_with_an_identity() {
        let registry = registry(vec![
            Row::Entry(entry("e1", "/a", "/p", &["u:1"])),
            Row::Entry(entry("e2", "/a", "/q", &["u:1"])),
            Row::Entry(entry("e3", "/b", "/p", &["u:1"])),
            Row::Entry(entry("e4", "/c", "/p", &["u:1"])),
            Row::Entry(entry("e5", "/node", "/spire/server", &["u:1"])),
            Row::Identity(identity("/b", Kind::Service)),
        ]);
        let all: Vec<_> = found(&registry, None).map(|f| (f.name, f.entries)).collect();
        assert_eq!(all, [(id("/a"), 2), (id("/c"), 1)]);
        let later: Vec<_> = found(&registry, Some(&id("/a"))).map(|f| f.name).collect();
        assert_eq!(later, [id("/c")], "a page goes on after the name before");
        assert_eq!(count(&registry), 2);
    }

    #[test]
    fn the_user_it_runs_as_is_suggested_before_the_owner_of_a_neighbour() {
        let registry = registry(vec![
            Row::Person(person("per_user", 1000, false)),
            Row::Identity(identity("/team/a/web", Kind::Service)),
            Row::Entry(entry("e1", "/team/a/db", "/p", &["unix:uid:1000"])),
            Row::Entry(entry("e2", "/team/a/x", "/p", &["unix:uid:7"])),
            Row::Entry(entry("e3", "/other/x", "/p", &["unix:uid:7"])),
        ]);
        let suggestions: Vec<_> =
            found(&registry, None).map(|f| f.suggestion.map(|s| (s.person.to_string(), s.reason))).collect();
        let neighbour = Reason::Neighbour(id("/team/a/web"));
        assert_eq!(
            suggestions,
            [None, Some(("per_user".into(), Reason::RunsAs(1000))), Some(("per_owner".into(), neighbour)),]
        );
    }
}
