//! The image of the store at one position, in memory: every read and every plan is answered from it.
//!
//! Never scans to answer by key: what is asked often has an index. All maps are ordered, so that the same log
//! gives the same answers in the same order everywhere. Cloning costs a handful of reference counts.

mod accepted;
mod demand;
mod emergencies;
mod federations;
mod governance;
mod grants;
mod index;
mod passing;
mod requests;
mod rules;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use avouch_domain::{
    Accepted, Authority, AuthorityKind, Bundle, Emergency, Entry, EntryId, Finding, Grant, Holder, Image,
    JoinToken, LogPosition, Node, Plan, PublishedRules, Request, Row, RowKey, Selector, SelectorSet, Slot,
    SpiffeId, Timestamp, TrustDomain,
};
use imbl::{OrdMap, OrdSet};

use federations::Federations;
use governance::{Identities, People};
use index::{BySpiffeId, Cards, Giving, GivingBelow, Index, Similar};
use passing::Rows;

pub use index::Card;

/// Everything the store keeps, at one [`LogPosition`].
#[derive(Clone, Default)]
pub struct Registry {
    position: LogPosition,
    entries: OrdMap<EntryId, Entry>,
    by_spiffe_id: OrdSet<BySpiffeId>,
    /// With the entries themselves: what an agent may serve is read in one walk, without a lookup for each.
    by_parent: Cards,
    /// By parent, the entries whose SPIFFE ID is itself a parent: the edges of the parent graph.
    nested: Index<SpiffeId, EntryId>,
    by_federation: Index<TrustDomain, EntryId>,
    federations: Federations,
    entry_ends: OrdSet<(Timestamp, EntryId)>,
    /// The one selector under which a node alias is found.
    alias_homes: OrdMap<EntryId, Selector>,
    by_alias_home: Index<Selector, EntryId>,
    alias_home_sizes: OrdMap<Selector, usize>,
    nodes: OrdMap<SpiffeId, Node>,
    by_node_selector: Index<Selector, SpiffeId>,
    node_selector_counts: OrdMap<Selector, usize>,
    node_ends: OrdSet<(Timestamp, SpiffeId)>,
    bundles: OrdMap<TrustDomain, Arc<Bundle>>,
    tokens: OrdMap<[u8; 32], JoinToken>,
    token_ends: OrdSet<(Timestamp, [u8; 32])>,
    authorities: OrdMap<(AuthorityKind, Holder, Slot), Authority>,
    people: People,
    identities: Identities,
    rules: OrdMap<u64, PublishedRules>,
    requests: Rows<Request>,
    grants: Rows<Grant>,
    accepted: OrdMap<(SpiffeId, Finding), Accepted>,
    emergencies: Rows<Emergency>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("position", &self.position)
            .field("entries", &self.entries.len())
            .field("nodes", &self.nodes.len())
            .field("bundles", &self.bundles.len())
            .finish_non_exhaustive()
    }
}

/// Building and following.
impl Registry {
    /// An empty registry at position zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The registry of a whole store.
    #[must_use]
    pub fn from_image(image: Image) -> Self {
        let mut registry = Self { position: image.position, ..Self::default() };
        for row in image.rows {
            registry.put(row);
        }
        registry
    }

    /// Applies a plan that was committed at `position`.
    pub fn apply(&mut self, plan: &Plan, position: LogPosition) {
        for key in &plan.deletes {
            self.delete(key);
        }
        for row in &plan.puts {
            self.put(row.clone());
        }
        self.position = position;
    }

    /// Applies rows as they are at `position`, read from the log's tail; `None` = the row is gone.
    pub fn apply_rows(&mut self, rows: &[(RowKey, Option<Row>)], position: LogPosition) {
        for (key, row) in rows {
            match row {
                Some(row) => self.put(row.clone()),
                None => self.delete(key),
            }
        }
        self.position = position;
    }

    /// Where in the change log this image stands.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        self.position
    }

    /// Corrects the position once the store has named the head of a commit.
    pub fn set_position(&mut self, position: LogPosition) {
        self.position = position;
    }

    pub(crate) fn put(&mut self, row: Row) {
        match row {
            Row::Entry(entry) => {
                self.put_entry(entry);
            }
            Row::Node(node) => self.put_node(node),
            Row::Bundle(bundle) => {
                self.bundles.insert(bundle.trust_domain.clone(), Arc::new(bundle));
            }
            Row::JoinToken(token) => self.put_token(token),
            Row::Authority(a) => {
                self.authorities.insert((a.kind, a.holder.clone(), a.slot), a);
            }
            Row::Person(person) => self.people.put(person),
            Row::Identity(identity) => self.put_identity(identity),
            Row::Rules(rules) => {
                self.rules.insert(rules.number, rules);
            }
            Row::Request(request) => self.requests.put(request),
            Row::Grant(grant) => self.grants.put(grant),
            Row::Accepted(accepted) => self.put_accepted(accepted),
            Row::Emergency(emergency) => self.emergencies.put(emergency),
        }
    }

    pub(crate) fn delete(&mut self, key: &RowKey) {
        match key {
            RowKey::Entry(id) => {
                self.delete_entry(id);
            }
            RowKey::Node(id) => self.delete_node(id),
            RowKey::Bundle(domain) => {
                self.bundles.remove(domain);
            }
            RowKey::JoinToken(digest) => {
                if let Some(old) = self.tokens.remove(digest) {
                    self.token_ends.remove(&(old.expires_at, *digest));
                }
            }
            RowKey::Authority(kind, holder, slot) => {
                self.authorities.remove(&(*kind, holder.clone(), *slot));
            }
            RowKey::Person(id) => self.people.delete(id),
            RowKey::Identity(name) => self.delete_identity(name),
            RowKey::Rules(number) => {
                self.rules.remove(number);
            }
            RowKey::Request(id) => self.requests.delete(id),
            RowKey::Grant(id) => self.grants.delete(id),
            RowKey::Accepted(name, what) => self.delete_accepted(name, *what),
            RowKey::Emergency(id) => self.emergencies.delete(id),
        }
    }

    fn put_token(&mut self, token: JoinToken) {
        self.delete(&RowKey::JoinToken(token.digest));
        self.token_ends.insert((token.expires_at, token.digest));
        self.tokens.insert(token.digest, token);
    }

    /// Gives the entry as it is kept.
    pub(crate) fn put_entry(&mut self, entry: Entry) -> Entry {
        let neighbour = self.by_parent.first_below(&entry.parent_id).map(|card| card.entry().clone());
        let has_neighbour = neighbour.is_some();
        let entry = match neighbour {
            Some(neighbour) => entry.sharing_texts_of(&neighbour),
            None => entry,
        };
        let replaced = self.delete_entry(&entry.id);
        let id = entry.id.clone();
        self.by_spiffe_id.insert(BySpiffeId(entry.clone()));
        // Only one that is replaced may have been the neighbour.
        let is_parent = if replaced { self.is_parent(&entry.parent_id) } else { has_neighbour };
        if !is_parent {
            for above in giving(&self.by_spiffe_id, &entry.parent_id) {
                self.nested.insert(above.parent_id.clone(), above.id.clone());
            }
        }
        self.by_parent.insert(&entry);
        if self.is_parent(&entry.spiffe_id) {
            self.nested.insert(entry.parent_id.clone(), id.clone());
        }
        for domain in &entry.federates_with {
            self.by_federation.insert(domain.clone(), id.clone());
        }
        self.federations.insert(&entry);
        if let Some(end) = entry.expires_at {
            self.entry_ends.insert((end, id.clone()));
        }
        if entry.is_node_alias() {
            self.home_alias(&entry);
        }
        self.withhold_new(&entry);
        self.entries.insert(id, entry.clone());
        entry
    }

    /// False if there was none.
    fn delete_entry(&mut self, id: &EntryId) -> bool {
        let Some(old) = self.entries.remove(id) else { return false };
        self.by_spiffe_id.remove(&BySpiffeId(old.clone()));
        self.identities.forget_entry(id);
        self.by_parent.remove(&old);
        self.nested.remove(old.parent_id.clone(), id.clone());
        if !self.is_parent(&old.parent_id) {
            for above in giving(&self.by_spiffe_id, &old.parent_id) {
                self.nested.remove(above.parent_id.clone(), above.id.clone());
            }
        }
        for domain in &old.federates_with {
            self.by_federation.remove(domain.clone(), id.clone());
        }
        self.federations.remove(&old);
        if let Some(end) = old.expires_at {
            self.entry_ends.remove(&(end, id.clone()));
        }
        if let Some(home) = self.alias_homes.remove(id) {
            shrink(&mut self.alias_home_sizes, &home);
            self.by_alias_home.remove(home, id.clone());
        }
        true
    }

    /// Files a node alias under the selector that fewest other aliases are filed under: a selector that every
    /// node carries (such as a cluster name) thus never collects them all.
    fn home_alias(&mut self, alias: &Entry) {
        let home = alias.selector_set().iter().min_by_key(|s| {
            (
                self.alias_home_sizes.get(*s).copied().unwrap_or(0),
                self.node_selector_counts.get(*s).copied().unwrap_or(0),
            )
        });
        let Some(home) = home.cloned() else { return };
        grow(&mut self.alias_home_sizes, &home);
        self.by_alias_home.insert(home.clone(), alias.id.clone());
        self.alias_homes.insert(alias.id.clone(), home);
    }

    fn put_node(&mut self, node: Node) {
        self.delete_node(&node.id);
        for selector in &node.selectors {
            grow(&mut self.node_selector_counts, selector);
            self.by_node_selector.insert(selector.clone(), node.id.clone());
        }
        self.node_ends.insert((node.expires_at, node.id.clone()));
        self.nodes.insert(node.id.clone(), node);
    }

    fn delete_node(&mut self, id: &SpiffeId) {
        let Some(old) = self.nodes.remove(id) else { return };
        for selector in &old.selectors {
            shrink(&mut self.node_selector_counts, selector);
            self.by_node_selector.remove(selector.clone(), id.clone());
        }
        self.node_ends.remove(&(old.expires_at, id.clone()));
    }
}

/// The entries that give out a SPIFFE ID.
fn giving<'a>(
    index: &'a OrdSet<BySpiffeId>,
    spiffe_id: &'a SpiffeId,
) -> impl Iterator<Item = &'a Entry> + 'a {
    index
        .range::<_, Giving<'a>>((Bound::Excluded(Giving(spiffe_id)), Bound::Unbounded))
        .map(|BySpiffeId(entry)| entry)
        .take_while(move |entry| entry.spiffe_id == *spiffe_id)
}

fn grow(counts: &mut OrdMap<Selector, usize>, selector: &Selector) {
    let count = counts.get(selector).copied().unwrap_or(0);
    counts.insert(selector.clone(), count + 1);
}

fn shrink(counts: &mut OrdMap<Selector, usize>, selector: &Selector) {
    match counts.get(selector).copied() {
        Some(count) if count > 1 => {
            counts.insert(selector.clone(), count - 1);
        }
        _ => {
            counts.remove(selector);
        }
    }
}

/// Entries.
impl Registry {
    #[must_use]
    pub fn entry(&self, id: &EntryId) -> Option<&Entry> {
        self.entries.get(id)
    }

    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.entries.len()
    }

    /// All entries, ascending by id.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Entries with an id above `after`, ascending.
    pub fn entries_after<'a>(&'a self, after: Option<&'a EntryId>) -> impl Iterator<Item = &'a Entry> + 'a {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range::<_, EntryId>((from, Bound::Unbounded)).map(|(_, entry)| entry)
    }

    /// Entries below a parent, ascending by id.
    pub fn entries_by_parent<'a>(&'a self, parent: &'a SpiffeId) -> impl Iterator<Item = &'a Entry> + 'a {
        self.cards_by_parent(parent).map(Card::entry)
    }

    /// As [`Self::entries_by_parent`], for who tells of each no more than its card does.
    pub fn cards_by_parent<'a>(&'a self, parent: &'a SpiffeId) -> impl Iterator<Item = &'a Card> + 'a {
        self.by_parent.below(parent)
    }

    /// Entries below a parent whose SPIFFE ID is itself a parent, ascending by id.
    pub fn nested_below<'a>(&'a self, parent: &'a SpiffeId) -> impl Iterator<Item = &'a Entry> + 'a {
        self.nested.get(parent).filter_map(|id| self.entries.get(id))
    }

    /// The trust domains that the living entries below a parent federate with. Costs these, not the entries.
    pub fn federated_below<'a>(
        &'a self,
        parent: &SpiffeId,
        wall: Timestamp,
    ) -> impl Iterator<Item = &'a TrustDomain> + use<'a> {
        self.federations.below(parent, wall)
    }

    /// True if some entry names `id` as its parent.
    #[must_use]
    pub fn is_parent(&self, id: &SpiffeId) -> bool {
        self.by_parent.first_below(id).is_some()
    }

    /// Entries that give out `spiffe_id`.
    pub fn entries_by_spiffe_id<'a>(
        &'a self,
        spiffe_id: &'a SpiffeId,
    ) -> impl Iterator<Item = &'a Entry> + 'a {
        giving(&self.by_spiffe_id, spiffe_id)
    }

    /// Entries that give out `spiffe_id` and hang below `parent`.
    pub fn entries_giving_below<'a>(
        &'a self,
        spiffe_id: &'a SpiffeId,
        parent: &'a SpiffeId,
    ) -> impl Iterator<Item = &'a Entry> + 'a {
        let from = Bound::Excluded(GivingBelow(spiffe_id, parent));
        let entries = self.by_spiffe_id.range::<_, GivingBelow<'a>>((from, Bound::Unbounded));
        let entries = entries.map(|BySpiffeId(entry)| entry);
        entries.take_while(move |entry| entry.spiffe_id == *spiffe_id && entry.parent_id == *parent)
    }

    /// Entries that give out a SPIFFE ID above `after`, ascending by it.
    pub fn entries_giving_after<'a>(
        &'a self,
        after: Option<&'a SpiffeId>,
    ) -> impl Iterator<Item = &'a Entry> + use<'a> {
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(Giving(after)));
        let entries = self.by_spiffe_id.range::<_, Giving<'a>>((from, Bound::Unbounded));
        entries.map(|BySpiffeId(entry)| entry).skip_while(move |e| after.is_some_and(|a| e.spiffe_id == *a))
    }

    /// Entries that federate with `domain`, ascending by id.
    pub fn entries_federated_with<'a>(
        &'a self,
        domain: &'a TrustDomain,
    ) -> impl Iterator<Item = &'a Entry> + 'a {
        self.by_federation.get(domain).filter_map(|id| self.entries.get(id))
    }

    /// An entry with the same parent, SPIFFE ID and selector set, if there is one.
    #[must_use]
    pub fn similar(&self, entry: &Entry) -> Option<&Entry> {
        self.by_spiffe_id
            .range::<_, Similar<'_>>((Bound::Excluded(Similar(entry)), Bound::Unbounded))
            .next()
            .map(|BySpiffeId(first)| first)
            .filter(|first| first.is_similar(entry))
    }

    /// The earliest end of an entry.
    #[must_use]
    pub fn next_entry_end(&self) -> Option<Timestamp> {
        self.entry_ends.get_min().map(|(end, _)| *end)
    }

    /// The earliest end of a join token.
    #[must_use]
    pub fn next_token_end(&self) -> Option<Timestamp> {
        self.token_ends.get_min().map(|(end, _)| *end)
    }

    /// Entries whose end has come, earliest first.
    pub fn expired_entries(&self, wall: Timestamp) -> impl Iterator<Item = &Entry> {
        self.entry_ends
            .iter()
            .take_while(move |(end, _)| *end <= wall)
            .filter_map(|(_, id)| self.entries.get(id))
    }

    /// True if no entry was written between two registries of one line of descent; constant time.
    #[must_use]
    pub fn same_entries(&self, other: &Self) -> bool {
        self.entries.ptr_eq(&other.entries)
    }

    /// Entries that differ between two registries, as (before, after). Costs what differs, not what is there:
    /// shared parts of the two trees are skipped.
    pub fn changed_entries<'a>(
        &'a self,
        after: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a Entry>, Option<&'a Entry>)> + 'a {
        self.entries.diff(&after.entries).map(|item| match item {
            imbl::ordmap::DiffItem::Add(_, new) => (None, Some(new)),
            imbl::ordmap::DiffItem::Update { old, new } => (Some(old.1), Some(new.1)),
            imbl::ordmap::DiffItem::Remove(_, old) => (Some(old), None),
        })
    }

    /// IDs of nodes that differ between two registries.
    pub fn changed_nodes<'a>(&'a self, after: &'a Self) -> impl Iterator<Item = &'a SpiffeId> + 'a {
        self.nodes.diff(&after.nodes).map(|item| match item {
            imbl::ordmap::DiffItem::Add(id, _) | imbl::ordmap::DiffItem::Remove(id, _) => id,
            imbl::ordmap::DiffItem::Update { new, .. } => new.0,
        })
    }

    /// Bundles that differ between two registries, as (before, after).
    pub fn changed_bundles<'a>(
        &'a self,
        after: &'a Self,
    ) -> impl Iterator<Item = (Option<&'a Arc<Bundle>>, Option<&'a Arc<Bundle>>)> + 'a {
        self.bundles.diff(&after.bundles).map(|item| match item {
            imbl::ordmap::DiffItem::Add(_, new) => (None, Some(new)),
            imbl::ordmap::DiffItem::Update { old, new } => (Some(old.1), Some(new.1)),
            imbl::ordmap::DiffItem::Remove(_, old) => (Some(old), None),
        })
    }
}

/// Nodes and their aliases.
impl Registry {
    #[must_use]
    pub fn node(&self, id: &SpiffeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// All nodes, ascending by ID.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// Nodes with an ID above `after`, ascending.
    pub fn nodes_after<'a>(&'a self, after: Option<&'a SpiffeId>) -> impl Iterator<Item = &'a Node> + 'a {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.nodes.range::<_, SpiffeId>((from, Bound::Unbounded)).map(|(_, node)| node)
    }

    /// Nodes whose SVID ended before `wall`, earliest first.
    pub fn expired_nodes(&self, wall: Timestamp) -> impl Iterator<Item = &Node> {
        self.node_ends.iter().take_while(move |(end, _)| *end < wall).filter_map(|(_, id)| self.nodes.get(id))
    }

    /// Node aliases whose selectors are all among the node's: found by the node's own selectors.
    pub fn aliases_of<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = &'a Entry> + 'a {
        node.selectors
            .iter()
            .flat_map(|selector| self.by_alias_home.get(selector))
            .filter_map(|id| self.entries.get(id))
            .filter(|alias| alias.selector_set().is_subset_of(&node.selectors))
    }

    /// Nodes that carry all of `selectors`: only the holders of the rarest of them are looked at.
    pub fn nodes_matching<'a>(&'a self, selectors: &'a SelectorSet) -> impl Iterator<Item = &'a Node> + 'a {
        selectors
            .iter()
            .min_by_key(|s| self.node_selector_counts.get(*s).copied().unwrap_or(0))
            .into_iter()
            .flat_map(|rarest| self.by_node_selector.get(rarest))
            .filter_map(|id| self.nodes.get(id))
            .filter(|node| selectors.is_subset_of(&node.selectors))
    }
}

/// Bundles, tokens, authorities.
impl Registry {
    #[must_use]
    pub fn bundle(&self, domain: &TrustDomain) -> Option<&Arc<Bundle>> {
        self.bundles.get(domain)
    }

    #[must_use]
    pub fn bundle_count(&self) -> usize {
        self.bundles.len()
    }

    /// All bundles, ascending by trust domain.
    pub fn bundles(&self) -> impl Iterator<Item = &Arc<Bundle>> {
        self.bundles.values()
    }

    /// Bundles of trust domains above `after`, ascending.
    pub fn bundles_after<'a>(
        &'a self,
        after: Option<&'a TrustDomain>,
    ) -> impl Iterator<Item = &'a Arc<Bundle>> + 'a {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.bundles.range::<_, TrustDomain>((from, Bound::Unbounded)).map(|(_, bundle)| bundle)
    }

    #[must_use]
    pub fn token(&self, digest: &[u8; 32]) -> Option<&JoinToken> {
        self.tokens.get(digest)
    }

    /// Join tokens whose end has come, earliest first.
    pub fn expired_tokens(&self, wall: Timestamp) -> impl Iterator<Item = &JoinToken> {
        self.token_ends
            .iter()
            .take_while(move |(end, _)| *end <= wall)
            .filter_map(|(_, token)| self.tokens.get(token))
    }

    #[must_use]
    pub fn authority(&self, kind: AuthorityKind, holder: &Holder, slot: Slot) -> Option<&Authority> {
        self.authorities.get(&(kind, holder.clone(), slot))
    }

    /// All authority slots, by kind, holder and slot.
    pub fn authorities(&self) -> impl Iterator<Item = &Authority> {
        self.authorities.values()
    }

    pub(crate) fn row(&self, key: &RowKey) -> Option<Row> {
        match key {
            RowKey::Entry(id) => self.entries.get(id).cloned().map(Row::Entry),
            RowKey::Node(id) => self.nodes.get(id).cloned().map(Row::Node),
            RowKey::Bundle(domain) => self.bundles.get(domain).map(|b| Row::Bundle((**b).clone())),
            RowKey::JoinToken(digest) => self.tokens.get(digest).cloned().map(Row::JoinToken),
            RowKey::Authority(kind, holder, slot) => {
                self.authority(*kind, holder, *slot).cloned().map(Row::Authority)
            }
            RowKey::Person(id) => self.person(id).cloned().map(Row::Person),
            RowKey::Identity(name) => self.identity(name).cloned().map(Row::Identity),
            RowKey::Rules(number) => self.rules(*number).cloned().map(Row::Rules),
            RowKey::Request(id) => self.request(id).cloned().map(Row::Request),
            RowKey::Grant(id) => self.grant(id).cloned().map(Row::Grant),
            RowKey::Accepted(name, what) => self.accepted(name, *what).cloned().map(Row::Accepted),
            RowKey::Emergency(id) => self.emergency(id).cloned().map(Row::Emergency),
        }
    }
}
