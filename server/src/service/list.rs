//! Filters and pages over the registry.
//!
//! Never copies what a page leaves out; where a filter names an indexed field, only its matches are looked at.

use std::collections::BTreeSet;

use avouch_domain::{Entry, EntryId, Node, SelectorSet, SpiffeId, Timestamp, TrustDomain};
use avouch_engine::Registry;

/// How a set of an item is compared with the set that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// Both are equal.
    Exact,
    /// The item's set lies in the asked one.
    Subset,
    /// The item's set holds the asked one.
    Superset,
    /// They share at least one.
    Any,
}

impl Match {
    fn selectors(self, item: &SelectorSet, asked: &SelectorSet) -> bool {
        match self {
            Self::Exact => item == asked,
            Self::Subset => item.is_subset_of(asked),
            Self::Superset => asked.is_subset_of(item),
            Self::Any => item.iter().any(|s| asked.contains(s)),
        }
    }

    /// An entry without federation never matches.
    fn domains(self, item: &[TrustDomain], asked: &BTreeSet<TrustDomain>) -> bool {
        let item: BTreeSet<_> = item.iter().collect();
        let asked: BTreeSet<_> = asked.iter().collect();
        !item.is_empty()
            && match self {
                Self::Exact => item == asked,
                Self::Subset => item.is_subset(&asked),
                Self::Superset => item.is_superset(&asked),
                Self::Any => !item.is_disjoint(&asked),
            }
    }
}

/// Which entries are asked for; `None` = all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryFilter {
    pub hint: Option<String>,
    pub parent_id: Option<SpiffeId>,
    pub spiffe_id: Option<SpiffeId>,
    pub selectors: Option<(Match, SelectorSet)>,
    pub federates_with: Option<(Match, BTreeSet<TrustDomain>)>,
    pub downstream: Option<bool>,
}

impl EntryFilter {
    fn takes(&self, entry: &Entry) -> bool {
        self.hint.as_ref().is_none_or(|hint| *hint == entry.hint)
            && self.parent_id.as_ref().is_none_or(|id| *id == entry.parent_id)
            && self.spiffe_id.as_ref().is_none_or(|id| *id == entry.spiffe_id)
            && self.selectors.as_ref().is_none_or(|(how, set)| how.selectors(entry.selector_set(), set))
            && self.federates_with.as_ref().is_none_or(|(how, set)| how.domains(&entry.federates_with, set))
            && self.downstream.is_none_or(|downstream| downstream == entry.downstream)
    }

    fn find<'a>(
        &'a self,
        registry: &'a Registry,
        after: Option<&'a EntryId>,
    ) -> Box<dyn Iterator<Item = &'a Entry> + 'a> {
        let beyond = move |e: &&Entry| after.is_none_or(|after| e.id > *after);
        match (&self.spiffe_id, &self.parent_id) {
            (Some(id), _) => {
                let mut entries: Vec<_> = registry.entries_by_spiffe_id(id).filter(beyond).collect();
                entries.sort_unstable_by_key(|e| &e.id);
                Box::new(entries.into_iter().filter(|e| self.takes(e)))
            }
            (None, Some(parent)) => {
                Box::new(registry.entries_by_parent(parent).filter(beyond).filter(|e| self.takes(e)))
            }
            (None, None) => Box::new(registry.entries_after(after).filter(|e| self.takes(e))),
        }
    }

    pub(super) fn count(&self, registry: &Registry) -> usize {
        if *self == Self::default() { registry.entry_count() } else { self.find(registry, None).count() }
    }

    pub(super) fn page(&self, registry: &Registry, page: &PageRequest) -> Result<Page<Entry>, BadToken> {
        let after = page.after(|token| EntryId::new(token).ok())?;
        Ok(page.cut(self.find(registry, after.as_ref()).cloned(), |entry| entry.id.to_string()))
    }
}

/// Which nodes are asked for; `None` = all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFilter {
    pub attestation_type: Option<String>,
    pub selectors: Option<(Match, SelectorSet)>,
    pub banned: Option<bool>,
    pub can_reattest: Option<bool>,
    pub expires_before: Option<Timestamp>,
}

impl NodeFilter {
    fn takes(&self, node: &Node) -> bool {
        self.attestation_type.as_ref().is_none_or(|kind| **kind == *node.attestation_type)
            && self.selectors.as_ref().is_none_or(|(how, set)| how.selectors(&node.selectors, set))
            && self.banned.is_none_or(|banned| banned == node.is_banned())
            && self.can_reattest.is_none_or(|can| can == node.can_reattest)
            && self.expires_before.is_none_or(|end| node.expires_at < end)
    }

    pub(super) fn count(&self, registry: &Registry) -> usize {
        if *self == Self::default() {
            registry.node_count()
        } else {
            registry.nodes().filter(|n| self.takes(n)).count()
        }
    }

    pub(super) fn page(&self, registry: &Registry, page: &PageRequest) -> Result<Page<Node>, BadToken> {
        let after = page.after(|token| SpiffeId::parse(token).ok())?;
        let nodes = registry.nodes_after(after.as_ref()).filter(|n| self.takes(n)).cloned();
        Ok(page.cut(nodes, |node| node.id.to_string()))
    }
}

/// A page token that nobody gave out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("could not parse token '{0}'")]
pub struct BadToken(pub String);

/// Which part of a list is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// Zero and less = everything at once.
    pub size: i32,
    /// Empty = from the start.
    pub token: String,
}

/// One part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Empty = nothing follows.
    pub next_token: String,
}

impl PageRequest {
    pub(super) fn after<K>(&self, parse: impl FnOnce(&str) -> Option<K>) -> Result<Option<K>, BadToken> {
        if self.token.is_empty() {
            return Ok(None);
        }
        parse(&self.token).map(Some).ok_or_else(|| BadToken(self.token.clone()))
    }

    pub(super) fn cut<T>(&self, items: impl Iterator<Item = T>, token: impl Fn(&T) -> String) -> Page<T> {
        let size = usize::try_from(self.size).unwrap_or(0);
        if size == 0 {
            return Page { items: items.collect(), next_token: String::new() };
        }
        let mut items = items.peekable();
        let page: Vec<_> = items.by_ref().take(size).collect();
        let next_token = match (items.peek(), page.last()) {
            (Some(_), Some(last)) => token(last),
            _ => String::new(),
        };
        Page { items: page, next_token }
    }
}
