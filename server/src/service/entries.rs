//! Verbs on registration entries.
//!
//! Never hands an agent an entry that it may not serve or that has ended.

use avouch_domain::{Entry, EntryId, Now, SpiffeId, Timestamp};
use avouch_engine::entitle::View;
use avouch_engine::plan::entries::{self, EntryPatch, EntryWriteError, NewEntry};

use super::{BadToken, EntryFilter, Page, PageRequest, Services, WriteError, lifetimes};

type Outcomes<T> = Result<Vec<Result<T, EntryWriteError>>, WriteError>;

/// An id nobody has used. A UUID always is an entry id.
pub(super) fn fresh_id() -> Option<EntryId> {
    EntryId::new(&uuid::Uuid::new_v4().to_string()).ok()
}

impl Services {
    #[must_use]
    pub fn count_entries(&self, filter: &EntryFilter) -> usize {
        filter.count(&self.registry())
    }

    /// # Errors
    /// [`BadToken`].
    pub fn list_entries(&self, filter: &EntryFilter, page: &PageRequest) -> Result<Page<Entry>, BadToken> {
        filter.page(&self.registry(), page)
    }

    #[must_use]
    pub fn get_entry(&self, id: &EntryId) -> Option<Entry> {
        self.registry().entry(id).cloned()
    }

    /// Creates entries, each on its own merits; order is kept.
    ///
    /// # Errors
    /// [`WriteError`]; then none was created.
    pub async fn create_entries(&self, now: Now, actor: &str, items: Vec<NewEntry>) -> Outcomes<Entry> {
        let fresh: Vec<_> = items.iter().filter_map(|_| fresh_id()).collect();
        let actor = actor.to_owned();
        let outcomes = self
            .0
            .writer
            .write(move |registry| entries::create(registry, now.wall, &actor, &items, &fresh))
            .await?;
        self.warn_of_cut_entries(&outcomes);
        self.warn_of_unowned(&outcomes);
        Ok(outcomes)
    }

    /// Changes entries, each on its own merits; order is kept.
    ///
    /// # Errors
    /// [`WriteError`]; then none was changed.
    pub async fn update_entries(&self, now: Now, actor: &str, items: Vec<EntryPatch>) -> Outcomes<Entry> {
        let actor = actor.to_owned();
        let outcomes =
            self.0.writer.write(move |registry| entries::update(registry, now.wall, &actor, &items)).await?;
        self.warn_of_cut_entries(&outcomes);
        self.warn_of_unowned(&outcomes);
        Ok(outcomes)
    }

    /// # Errors
    /// [`WriteError`]; then none was deleted.
    pub async fn delete_entries(&self, now: Now, actor: &str, ids: Vec<EntryId>) -> Outcomes<()> {
        let actor = actor.to_owned();
        self.0.writer.write(move |registry| entries::delete(registry, now.wall, &actor, &ids)).await
    }

    /// Everything the agent may serve.
    #[must_use]
    pub fn authorized(&self, wall: Timestamp, agent: &SpiffeId) -> View {
        View::new(&self.registry(), agent, wall)
    }

    /// Entries that give the caller its SPIFFE ID: they say whether it is an admin or a downstream server.
    #[must_use]
    pub fn caller_entries(&self, wall: Timestamp, caller: &SpiffeId) -> Vec<Entry> {
        let registry = self.registry();
        let counts = |e: &&Entry| !e.is_expired(wall) && !registry.is_withheld(e, wall);
        registry.entries_by_spiffe_id(caller).filter(counts).cloned().collect()
    }

    fn warn_of_cut_entries(&self, outcomes: &[Result<Entry, EntryWriteError>]) {
        for entry in outcomes.iter().flatten() {
            for cut in lifetimes::of_entry(self.settings(), entry) {
                tracing::warn!(entry_id = %entry.id, key = cut.key, "{}", cut.text());
            }
        }
    }
}
