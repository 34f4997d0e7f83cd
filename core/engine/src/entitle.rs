//! Which entries an agent may serve, and which agents a change concerns.
//!
//! Entitlement is a set of parent IDs per agent (its own, its node aliases, nested ones), never a stored list of
//! entries. Never walks all entries or all agents: both directions follow the parent graph, guarded against
//! cycles. Ended entries entitle to nothing, by time, whether or not their rows are still there; nor do entries whose
//! identity is paused or stopped, or which have none although owners are demanded.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use avouch_domain::{Bundle, Change, Entry, EntryId, Identity, RowKey, SpiffeId, Timestamp, TrustDomain};

use crate::faults::{Fault, planted};
use crate::registry::{Card, Registry};

/// True if the entry entitles to anything at this moment.
fn counts(registry: &Registry, entry: &Entry, wall: Timestamp) -> bool {
    !entry.is_expired(wall) && !registry.is_withheld(entry, wall)
}

/// The IDs whose entries the agent may serve: itself, its node aliases, and below them every SPIFFE ID that is
/// itself a parent. Costs these, not the entries below them.
#[must_use]
pub fn parents_of(registry: &Registry, agent: &SpiffeId, wall: Timestamp) -> BTreeSet<SpiffeId> {
    let mut parents = BTreeSet::from([agent.clone()]);
    let mut open = vec![agent.clone()];
    if let Some(node) = registry.node(agent) {
        for alias in registry.aliases_of(node).filter(|a| counts(registry, a, wall)) {
            if parents.insert(alias.spiffe_id.clone()) {
                open.push(alias.spiffe_id.clone());
            }
        }
    }
    while let Some(parent) = open.pop() {
        for entry in registry.nested_below(&parent) {
            if counts(registry, entry, wall) && parents.insert(entry.spiffe_id.clone()) {
                open.push(entry.spiffe_id.clone());
            }
        }
    }
    parents
}

/// What an agent may serve at one moment. Holds the registry of that moment, not the entries one by one: to count
/// references to ten thousand of them takes longer than to read them.
#[derive(Clone, Debug)]
pub struct View {
    registry: Registry,
    parents: BTreeSet<SpiffeId>,
    wall: Timestamp,
}

impl View {
    #[must_use]
    pub fn new(registry: &Registry, agent: &SpiffeId, wall: Timestamp) -> Self {
        Self { registry: registry.clone(), parents: parents_of(registry, agent, wall), wall }
    }

    /// What tells the entries and their revisions, ascending by id.
    #[must_use]
    pub fn cards(&self) -> Vec<&Card> {
        let mut cards = Vec::new();
        let mut runs = 0;
        // Asked once, not for each entry.
        let all_count = self.registry.withholds_nothing(self.wall);
        let counts = |card: &&Card| {
            !card.is_expired(self.wall) && (all_count || !self.registry.is_withheld(card.entry(), self.wall))
        };
        for parent in &self.parents {
            let before = cards.len();
            cards.extend(self.registry.cards_by_parent(parent).filter(counts));
            runs += usize::from(cards.len() > before);
        }
        // Those of one parent are in order already.
        if runs > 1 {
            cards.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        }
        cards
    }

    /// The entries, ascending by id.
    #[must_use]
    pub fn entries(&self) -> Vec<&Entry> {
        self.cards().into_iter().map(Card::entry).collect()
    }
}

/// The entries the agent may serve, ascending by id.
#[must_use]
pub fn authorized_entries(registry: &Registry, agent: &SpiffeId, wall: Timestamp) -> Vec<Entry> {
    View::new(registry, agent, wall).entries().into_iter().cloned().collect()
}

/// The entry, if it exists, has not ended and the agent may serve it. Costs the entry's ancestors.
#[must_use]
pub fn is_authorized(registry: &Registry, agent: &SpiffeId, id: &EntryId, wall: Timestamp) -> Option<Entry> {
    let entry = registry.entry(id).filter(|e| counts(registry, e, wall) && !e.is_node_alias())?;
    let reached = climb(
        registry,
        &entry.parent_id,
        |e| counts(registry, e, wall),
        |step| match step {
            Step::Id(id) => id == agent,
            Step::Alias(alias) => {
                registry.node(agent).is_some_and(|node| alias.selector_set().is_subset_of(&node.selectors))
            }
        },
    );
    reached.then(|| entry.clone())
}

/// The identity of this name, if it is in force and the agent may serve an entry that gives out the name.
#[must_use]
pub fn served_identity<'a>(
    registry: &'a Registry,
    agent: &SpiffeId,
    name: &SpiffeId,
    wall: Timestamp,
) -> Option<&'a Identity> {
    let identity = registry.identity(name).filter(|identity| identity.is_in_force(wall))?;
    serves_name(registry, agent, name, wall).then_some(identity)
}

/// True if the agent may serve an entry that gives out the name.
#[must_use]
pub fn serves_name(registry: &Registry, agent: &SpiffeId, name: &SpiffeId, wall: Timestamp) -> bool {
    let served = |entry: &Entry| is_authorized(registry, agent, &entry.id, wall).is_some();
    registry.entries_by_spiffe_id(name).any(served)
}

/// What is met on the way up from a parent.
enum Step<'a> {
    Id(&'a SpiffeId),
    Alias(&'a Entry),
}

/// Walks from `start` to everything above it; true as soon as `found` says so.
fn climb(
    registry: &Registry,
    start: &SpiffeId,
    counts: impl Fn(&Entry) -> bool,
    mut found: impl FnMut(Step<'_>) -> bool,
) -> bool {
    let mut seen = BTreeSet::from([start.clone()]);
    let mut open = vec![start.clone()];
    while let Some(id) = open.pop() {
        if found(Step::Id(&id)) {
            return true;
        }
        for entry in registry.entries_by_spiffe_id(&id).filter(|e| counts(e)) {
            if entry.is_node_alias() {
                if found(Step::Alias(entry)) {
                    return true;
                }
            } else if seen.insert(entry.parent_id.clone()) {
                open.push(entry.parent_id.clone());
            }
        }
    }
    false
}

/// Whom a change concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Concerned {
    /// Nobody but the server.
    Nobody,
    Agents(BTreeSet<SpiffeId>),
    Everyone,
}

/// The agents whose view a change may alter, judged on the registry before and after it. A superset: it may
/// name an agent that sees no difference, never miss one that does. Costs the ancestors of the changed entry,
/// not the number of entries or of other agents.
#[must_use]
pub fn concerned(before: &Registry, after: &Registry, change: &Change, own: &TrustDomain) -> Concerned {
    let mut agents = BTreeSet::new();
    match &change.key {
        RowKey::Entry(id) => {
            for registry in [before, after] {
                if let Some(entry) = registry.entry(id) {
                    collect_agents_of_entry(registry, entry, &mut agents);
                }
            }
        }
        RowKey::Node(id) => {
            agents.insert(id.clone());
        }
        RowKey::Bundle(domain) if domain == own => return Concerned::Everyone,
        RowKey::Bundle(domain) => {
            for registry in [before, after] {
                let parents: BTreeSet<_> =
                    registry.entries_federated_with(domain).map(|e| &e.parent_id).collect();
                for parent in parents {
                    collect_agents_above(registry, parent, &mut agents);
                }
            }
        }
        RowKey::Identity(name) => {
            for registry in [before, after] {
                collect_agents_of_name(registry, name, &mut agents);
            }
        }
        RowKey::JoinToken(_)
        | RowKey::Authority(..)
        | RowKey::Person(_)
        | RowKey::Rules(_)
        | RowKey::Request(_)
        | RowKey::Grant(_)
        | RowKey::Emergency(_)
        | RowKey::Accepted(..) => {}
    }
    if agents.is_empty() { Concerned::Nobody } else { Concerned::Agents(agents) }
}

/// As [`concerned`], over everything that differs between two registries: what several commits did is told at
/// once. Costs what differs.
#[must_use]
pub fn concerned_between(before: &Registry, after: &Registry, own: &TrustDomain) -> Concerned {
    let mut agents: BTreeSet<SpiffeId> = before.changed_nodes(after).cloned().collect();
    for (old, new) in before.changed_bundles(after) {
        let Some(bundle) = new.or(old) else { continue };
        if bundle.trust_domain == *own {
            return Concerned::Everyone;
        }
        for registry in [before, after] {
            let entries = registry.entries_federated_with(&bundle.trust_domain);
            let parents: BTreeSet<_> = entries.map(|e| &e.parent_id).collect();
            for parent in parents {
                collect_agents_above(registry, parent, &mut agents);
            }
        }
    }
    // A drill changes nothing for anybody, and goes to all the same. Who could serve the name only before is found below,
    // by the entry that changed.
    for name in before.switched_identities(after).chain(before.tried_identities(after)) {
        if planted(Fault::PauseForgetsAliases) {
            let parents = after.entries_by_spiffe_id(name).map(|entry| entry.parent_id.clone());
            agents.extend(parents.filter(|parent| after.node(parent).is_some()));
        } else {
            collect_agents_of_name(after, name, &mut agents);
        }
    }
    for (old, new) in before.changed_entries(after) {
        for (registry, entry) in [(before, old), (after, new)] {
            if let Some(entry) = entry {
                collect_agents_of_entry(registry, entry, &mut agents);
            }
        }
    }
    if agents.is_empty() { Concerned::Nobody } else { Concerned::Agents(agents) }
}

/// The nodes that may serve an entry which gives out this name, withheld or not.
#[must_use]
pub fn agents_of_name(registry: &Registry, name: &SpiffeId) -> BTreeSet<SpiffeId> {
    let mut agents = BTreeSet::new();
    collect_agents_of_name(registry, name, &mut agents);
    agents
}

/// The nodes that may serve an entry which nobody owns, withheld for it or not. Nobody while owners are never demanded.
#[must_use]
pub fn agents_of_unowned(registry: &Registry) -> BTreeSet<SpiffeId> {
    let mut agents = BTreeSet::new();
    for entry in registry.unowned() {
        collect_agents_of_entry(registry, entry, &mut agents);
    }
    agents
}

fn collect_agents_of_name(registry: &Registry, name: &SpiffeId, agents: &mut BTreeSet<SpiffeId>) {
    for entry in registry.entries_by_spiffe_id(name) {
        collect_agents_of_entry(registry, entry, agents);
    }
}

fn collect_agents_of_entry(registry: &Registry, entry: &Entry, agents: &mut BTreeSet<SpiffeId>) {
    if entry.is_node_alias() {
        agents.extend(registry.nodes_matching(entry.selector_set()).map(|n| n.id.clone()));
    } else {
        collect_agents_above(registry, &entry.parent_id, agents);
    }
}

fn collect_agents_above(registry: &Registry, parent: &SpiffeId, agents: &mut BTreeSet<SpiffeId>) {
    climb(
        registry,
        parent,
        |_| true,
        |step| {
            match step {
                Step::Id(id) => {
                    if registry.node(id).is_some() {
                        agents.insert(id.clone());
                    }
                }
                Step::Alias(alias) => {
                    agents.extend(registry.nodes_matching(alias.selector_set()).map(|n| n.id.clone()));
                }
            }
            false
        },
    );
}

/// What to tell an agent that holds the view of an earlier registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// New and changed entries, ascending by id.
    pub upserts: Vec<Entry>,
    /// Entries the agent must drop; it may not hold all of them. Ascending.
    pub removed: Vec<EntryId>,
}

impl Delta {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removed.is_empty()
    }
}

/// From the agent's view at `before` to its view at `after`. When the agent saw `before` is not known, so what
/// may have ended since is removed once more rather than forgotten. Costs what changed, unless the agent's
/// parents changed.
#[must_use]
pub fn delta(before: &Registry, after: &Registry, agent: &SpiffeId, wall: Timestamp) -> Delta {
    let node = |registry: &Registry| registry.node(agent).map(|n| n.selectors.clone());
    if before.same_entries(after) && before.same_identities(after) && node(before) == node(after) {
        return Delta::default();
    }
    // What the agent may have seen at most, and what it has seen at least.
    let most = parents_of(before, agent, Timestamp(i64::MIN));
    let least = parents_of(before, agent, wall);
    let now = parents_of(after, agent, wall);
    let mut upserts = BTreeMap::new();
    let mut removed = BTreeSet::new();
    let visible = |e: &Entry| now.contains(&e.parent_id) && counts(after, e, wall);
    // Of a switched name only what hangs where this agent looks: each of thousands of nodes may have an entry of it.
    let parents: BTreeSet<_> = now.iter().chain(&most).collect();
    let switched = before
        .switched_identities(after)
        .flat_map(|name| parents.iter().flat_map(move |parent| after.entries_giving_below(name, parent)));
    let switched = switched.map(|entry| (before.entry(&entry.id), Some(entry)));
    for (old, new) in before.changed_entries(after).chain(switched) {
        match (old, new) {
            (_, Some(new)) if visible(new) => {
                upserts.insert(new.id.clone(), new.clone());
            }
            (Some(old), _) if most.contains(&old.parent_id) => {
                removed.insert(old.id.clone());
            }
            _ => {}
        }
    }
    if planted(Fault::ForgetAliasChange) {
        return Delta { upserts: upserts.into_values().collect(), removed: removed.into_iter().collect() };
    }
    for parent in now.difference(&least) {
        for entry in after.entries_by_parent(parent).filter(|e| visible(e)) {
            upserts.insert(entry.id.clone(), entry.clone());
        }
    }
    for parent in most.difference(&now) {
        for entry in before.entries_by_parent(parent) {
            if !after.entry(&entry.id).is_some_and(&visible) {
                removed.insert(entry.id.clone());
            }
        }
    }
    Delta { upserts: upserts.into_values().collect(), removed: removed.into_iter().collect() }
}

/// What an agent says it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownEntry {
    pub id: EntryId,
    pub revision_number: i64,
    /// Tells apart an entry that was deleted and made again with the same id. Compared in whole seconds.
    pub created_at: Timestamp,
}

/// Everything the agent may serve, without the bodies it holds already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    /// Entries the agent lacks or holds in another revision, ascending by id.
    pub entries: Vec<Entry>,
    /// Entries it holds as they are. What is in neither list is gone.
    pub unchanged: Vec<EntryId>,
}

/// The whole view, told as the difference to what the agent holds.
#[must_use]
pub fn digest(registry: &Registry, agent: &SpiffeId, wall: Timestamp, known: &[KnownEntry]) -> Digest {
    // Both in one order, so that one walk compares them.
    let mut known: Vec<_> = known.iter().collect();
    known.sort_by(|a, b| a.id.cmp(&b.id));
    let mut known = known.into_iter().peekable();
    let mut digest = Digest::default();
    for card in View::new(registry, agent, wall).cards() {
        let mut held = None;
        // Of an entry told twice the last counts.
        while let Some(told) = known.next_if(|told| told.id.text().as_bytes() <= card.id()) {
            held = Some(told).filter(|told| told.id.text().as_bytes() == card.id());
        }
        let same = |told: &KnownEntry| {
            told.revision_number == card.revision_number()
                && told.created_at.secs() == card.created_at().secs()
        };
        if held.is_some_and(same) {
            digest.unchanged.push(card.entry().id.clone());
        } else {
            digest.entries.push(card.entry().clone());
        }
    }
    digest
}

/// Bundles an agent may see: its own trust domain's, and those its entries federate with.
#[must_use]
pub fn visible_bundles(
    registry: &Registry,
    agent: &SpiffeId,
    own: &TrustDomain,
    wall: Timestamp,
) -> BTreeMap<TrustDomain, Arc<Bundle>> {
    let mut domains = BTreeSet::from([own.clone()]);
    for parent in parents_of(registry, agent, wall) {
        domains.extend(registry.federated_below(&parent, wall).cloned());
    }
    domains.into_iter().filter_map(|d| registry.bundle(&d).map(|b| (d.clone(), b.clone()))).collect()
}
