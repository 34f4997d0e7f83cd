//! The store as the server uses it: every operation is counted, and every row that a transaction changes.
//!
//! Never decides anything and never reads more than it is asked for.

use std::collections::BTreeMap;
use std::path::Path;

use avouch_credential::ledger::{Hash, SignedHead};
use avouch_domain::{
    Image, LogPosition, Plan, RequestHash, RequestText, Row, RowKey, RulesDigest, RulesFolder, SpiffeId,
    Stand, Timestamp,
};
use avouch_engine::Registry;
use avouch_store::{
    CommitError, Kept, NodeBatch, NodeStretch, Store, StoreError, StoredChain, Stretch, Tail, TailError, Uses,
};
use tonic::Code;

use crate::clock::{Clock, timed};
use crate::metrics::{Metrics, RowChange, StoreCall};

/// Handle to the store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Datastore {
    store: Store,
    metrics: Metrics,
    clock: Clock,
}

/// What a batch of plans does to rows: how many of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowChanges(BTreeMap<RowChange, u32>);

impl RowChanges {
    /// Adds what `plan` does to the rows of `before`.
    pub fn add(&mut self, before: &Registry, plan: &Plan) {
        for row in &plan.puts {
            self.count(put(before, row));
            if let Row::Node(node) = row
                && before.node(&node.id).is_none_or(|old| old.selectors != node.selectors)
            {
                self.count(RowChange::NodeSelectorsSet);
            }
        }
        for key in &plan.deletes {
            self.count(delete(key));
        }
    }

    fn count(&mut self, change: RowChange) {
        *self.0.entry(change).or_default() += 1;
    }
}

fn put(before: &Registry, row: &Row) -> RowChange {
    use RowChange as C;
    let pick = |known: bool, created, updated| if known { updated } else { created };
    match row {
        Row::Entry(e) => pick(before.entry(&e.id).is_some(), C::EntryCreated, C::EntryUpdated),
        Row::Node(n) => pick(before.node(&n.id).is_some(), C::NodeCreated, C::NodeUpdated),
        Row::Bundle(b) => pick(before.bundle(&b.trust_domain).is_some(), C::BundleCreated, C::BundleUpdated),
        Row::JoinToken(_) => C::TokenCreated,
        Row::Authority(_) => C::JournalSet,
        Row::Person(_) => C::PersonSet,
        Row::Identity(_) => C::IdentitySet,
        Row::Rules(_) => C::RulesSet,
        Row::Request(_) => C::RequestSet,
        Row::Grant(_) => C::GrantSet,
        Row::Accepted(_) => C::AcceptedSet,
        Row::Emergency(_) => C::EmergencySet,
    }
}

fn delete(key: &RowKey) -> RowChange {
    match key {
        RowKey::Entry(_) => RowChange::EntryDeleted,
        RowKey::Node(_) => RowChange::NodeDeleted,
        RowKey::Bundle(_) => RowChange::BundleDeleted,
        RowKey::JoinToken(_) => RowChange::TokenDeleted,
        RowKey::Authority(..) => RowChange::JournalSet,
        RowKey::Person(_) => RowChange::PersonSet,
        RowKey::Identity(_) => RowChange::IdentitySet,
        RowKey::Rules(_) => RowChange::RulesSet,
        RowKey::Request(_) => RowChange::RequestSet,
        RowKey::Grant(_) => RowChange::GrantSet,
        RowKey::Accepted(..) => RowChange::AcceptedSet,
        RowKey::Emergency(_) => RowChange::EmergencySet,
    }
}

fn code<T, E>(result: &Result<T, E>) -> Code {
    if result.is_ok() { Code::Ok } else { Code::Unknown }
}

impl Datastore {
    /// Opens or creates the database at `path` and reads all of it. Blocks.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open(path: &Path, metrics: Metrics, clock: Clock) -> Result<(Self, Image), StoreError> {
        let begun = clock();
        let opened = Store::open(path, begun.wall);
        let elapsed = clock().mono.since(begun.mono);
        metrics.store_called(StoreCall::Image, code(&opened), elapsed);
        metrics.reloaded(opened.is_ok(), elapsed);
        let (store, image) = opened?;
        Ok((Self { store, metrics, clock }, image))
    }

    /// A store whose operations nobody looks at.
    #[cfg(test)]
    pub(crate) fn uncounted(store: Store) -> Self {
        Self { store, metrics: Metrics::plain(), clock: crate::clock::now }
    }

    /// Where its operations are counted.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// As [`Store::commit`]; `rows` says what the plans do.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn commit(
        &self,
        base: LogPosition,
        plans: Vec<Plan>,
        rows: &RowChanges,
    ) -> Result<Vec<LogPosition>, CommitError> {
        let (done, elapsed) = timed(self.clock, self.store.commit(base, plans)).await;
        let code = match &done {
            Err(CommitError::Behind(_)) => Code::Aborted,
            other => code(other),
        };
        self.metrics.store_called(StoreCall::Commit, code, elapsed);
        for (change, many) in &rows.0 {
            self.metrics.rows_changed(*change, code, elapsed, *many);
        }
        done
    }

    /// As [`Store::changes_since`].
    ///
    /// # Errors
    /// As [`Store::changes_since`].
    pub async fn changes_since(&self, from: LogPosition, limit: usize) -> Result<Tail, TailError> {
        let (done, elapsed) = timed(self.clock, self.store.changes_since(from, limit)).await;
        self.metrics.store_called(StoreCall::Changes, code(&done), elapsed);
        done
    }

    /// As [`Store::position`].
    ///
    /// # Errors
    /// As [`Store::position`].
    pub async fn position(&self) -> Result<LogPosition, StoreError> {
        let (done, elapsed) = timed(self.clock, self.store.position()).await;
        self.metrics.store_called(StoreCall::Position, code(&done), elapsed);
        done
    }

    /// As [`Store::image`].
    ///
    /// # Errors
    /// As [`Store::image`].
    pub async fn image(&self, now: Timestamp) -> Result<Image, StoreError> {
        let (done, elapsed) = timed(self.clock, self.store.image(now)).await;
        self.metrics.store_called(StoreCall::Image, code(&done), elapsed);
        done
    }

    /// As [`Store::records`].
    ///
    /// # Errors
    /// As [`Store::records`].
    pub async fn records(&self, after: u64, limit: usize) -> Result<Stretch, StoreError> {
        let (done, elapsed) = timed(self.clock, self.store.records(after, limit)).await;
        self.metrics.store_called(StoreCall::Records, code(&done), elapsed);
        done
    }

    /// As [`Store::last_record`].
    ///
    /// # Errors
    /// As [`Store::last_record`].
    pub async fn last_record(&self) -> Result<u64, StoreError> {
        let (done, elapsed) = timed(self.clock, self.store.last_record()).await;
        self.metrics.store_called(StoreCall::Records, code(&done), elapsed);
        done
    }

    /// As [`Store::rules_folder`].
    ///
    /// # Errors
    /// As [`Store::rules_folder`].
    pub async fn rules_folder(&self, digest: RulesDigest) -> Result<Option<RulesFolder>, StoreError> {
        let (done, elapsed) = timed(self.clock, self.store.rules_folder(digest)).await;
        self.metrics.store_called(StoreCall::RulesFolder, code(&done), elapsed);
        done
    }

    /// As [`Store::request_text`].
    ///
    /// # Errors
    /// As [`Store::request_text`].
    pub async fn request_text(&self, hash: RequestHash) -> Result<Option<RequestText>, StoreError> {
        let (done, elapsed) = timed(self.clock, self.store.request_text(hash)).await;
        self.metrics.store_called(StoreCall::RequestText, code(&done), elapsed);
        done
    }

    /// As [`Store::unsigned`].
    ///
    /// # Errors
    /// As [`Store::unsigned`].
    pub async fn unsigned(&self) -> Result<Option<(u64, Hash)>, StoreError> {
        self.store.unsigned().await
    }

    /// As [`Store::keep_head`].
    ///
    /// # Errors
    /// As [`Store::keep_head`].
    pub async fn keep_head(&self, head: SignedHead) -> Result<(), StoreError> {
        self.store.keep_head(head).await
    }

    /// As [`Store::node_stand`].
    ///
    /// # Errors
    /// As [`Store::node_stand`].
    pub async fn node_stand(&self, source: &SpiffeId, chain: String) -> Result<Stand, StoreError> {
        let (done, elapsed) = timed(self.clock, self.store.node_stand(source.clone(), chain)).await;
        self.metrics.store_called(StoreCall::NodeRecords, code(&done), elapsed);
        done
    }

    /// As [`Store::keep_node_records`].
    ///
    /// # Errors
    /// As [`Store::keep_node_records`].
    pub async fn keep_node_records(&self, batches: Vec<NodeBatch>) -> Result<Vec<Kept>, StoreError> {
        let (done, elapsed) = timed(self.clock, self.store.keep_node_records(batches)).await;
        self.metrics.store_called(StoreCall::NodeRecordsKept, code(&done), elapsed);
        done
    }

    /// As [`Store::uses_since`].
    ///
    /// # Errors
    /// As [`Store::uses_since`].
    pub async fn uses_since(&self, at: Timestamp) -> Result<Uses, StoreError> {
        self.store.uses_since(at).await
    }

    /// As [`Store::last_uses`].
    ///
    /// # Errors
    /// As [`Store::last_uses`].
    pub async fn last_uses(&self, names: Vec<SpiffeId>) -> Result<Vec<Option<Timestamp>>, StoreError> {
        self.store.last_uses(names).await
    }

    /// As [`Store::count_node_finding`].
    ///
    /// # Errors
    /// As [`Store::count_node_finding`].
    pub async fn count_node_finding(&self, source: &SpiffeId, chain: String) -> Result<bool, StoreError> {
        self.store.count_node_finding(source.clone(), chain).await
    }

    /// As [`Store::node_chains`].
    ///
    /// # Errors
    /// As [`Store::node_chains`].
    pub async fn node_chains(
        &self,
        source: Option<SpiffeId>,
        after: u64,
    ) -> Result<Vec<StoredChain>, StoreError> {
        let (done, elapsed) = timed(self.clock, self.store.node_chains(source, after)).await;
        self.metrics.store_called(StoreCall::NodeRecords, code(&done), elapsed);
        done
    }

    /// As [`Store::node_records`].
    ///
    /// # Errors
    /// As [`Store::node_records`].
    pub async fn node_records(
        &self,
        number: u64,
        after: u64,
        limit: usize,
    ) -> Result<NodeStretch, StoreError> {
        let (done, elapsed) = timed(self.clock, self.store.node_records(number, after, limit)).await;
        self.metrics.store_called(StoreCall::NodeRecords, code(&done), elapsed);
        done
    }

    /// As [`Store::close`].
    pub async fn close(&self) {
        self.store.close().await;
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::LogPosition;
    use avouch_domain::fixtures::{entry, node};

    use super::*;

    #[test]
    fn rows_count_by_what_becomes_of_them() {
        let first = Plan {
            puts: vec![
                Row::Entry(entry("e1", "/x", "/p", &["u:1"])),
                Row::Node(node("/spire/agent/t/1", &["a:1"], 10)),
            ],
            ..Plan::default()
        };
        let mut registry = Registry::new();
        let mut changes = RowChanges::default();
        changes.add(&registry, &first);
        registry.apply(&first, LogPosition::default());
        let second = Plan {
            puts: vec![
                Row::Entry(entry("e1", "/y", "/p", &["u:1"])),
                Row::Entry(entry("e2", "/y", "/p", &["u:1"])),
                Row::Node(node("/spire/agent/t/1", &["a:1"], 20)),
            ],
            deletes: vec![RowKey::JoinToken([0; 32])],
            ..Plan::default()
        };
        changes.add(&registry, &second);
        let expected = [
            (RowChange::EntryCreated, 2),
            (RowChange::EntryUpdated, 1),
            (RowChange::NodeCreated, 1),
            (RowChange::NodeUpdated, 1),
            (RowChange::NodeSelectorsSet, 1),
            (RowChange::TokenDeleted, 1),
        ];
        assert_eq!(changes, RowChanges(expected.into()));
    }
}
