//! What the task leaves to a later life of the agent, and what it takes up of an earlier one.
//!
//! Never writes on the task: it gathers shared values, and another thread encodes, seals and writes them.

use std::time::Duration;

use avouch_domain::{Tick, Timestamp};
use avouch_engine::cache;
use avouch_engine::sync::{self, Version};

use super::{Event, Task};
use crate::clock::{self, Moment};
use crate::limits::{DRAIN_MAX, SEAL_AFTER, SEAL_AGAIN, SEAL_EVERY, SEAL_SHARE, SEALED_AGE_MAX};
use crate::sealed::{Kept, StoreError};

/// When the state is written next.
#[derive(Debug, Default)]
pub(super) struct Keeping {
    /// Something changed that is not being written.
    changed: bool,
    writing: bool,
    /// Not before.
    due: Tick,
    written: Tick,
}

impl Keeping {
    /// Nothing is due before something changes.
    pub fn new(mono: Tick) -> Self {
        Self { written: mono, ..Self::default() }
    }
}

impl Task {
    /// Something changed that a later life needs.
    pub(super) fn changed(&mut self) {
        if !self.keeping.changed {
            self.keeping.changed = true;
            self.keeping.due = self.keeping.due.max(self.now.mono + SEAL_AFTER);
        }
    }

    /// How long until there is something to write; `None` while there is not.
    pub(super) fn until_keeping(&self) -> Option<Duration> {
        let keeping = &self.keeping;
        let waits = keeping.changed && !keeping.writing && self.parts.vault.life().is_some();
        waits.then(|| keeping.due.since((self.parts.clock)().mono))
    }

    /// Begins to write if that is due.
    pub(super) fn keep(&mut self) {
        let mono = (self.parts.clock)().mono;
        let Some(life) = self.parts.vault.life().filter(|_| !self.keeping.writing) else { return };
        let old = mono.since(self.keeping.written) >= SEALED_AGE_MAX;
        if !(old || self.keeping.changed && self.keeping.due <= mono) {
            return;
        }
        self.tell_time();
        let kept = self.gather();
        (self.keeping.changed, self.keeping.writing, self.keeping.written) = (false, true, mono);
        let (vault, events) = (self.parts.vault.clone(), self.events_tx.clone());
        tokio::spawn(async move {
            let stored = tokio::task::spawn_blocking(move || vault.store(life, &kept)).await;
            let _ = events.send(Event::Stored(stored.unwrap_or(Ok(false)))).await;
        });
    }

    /// The write has ended; the next may begin when it has taken its share of the time.
    pub(super) fn stored(&mut self, result: Result<bool, StoreError>) {
        let mono = (self.parts.clock)().mono;
        let took = mono.since(self.keeping.written);
        self.keeping.writing = false;
        self.keeping.due = mono + SEAL_EVERY.max(took * SEAL_SHARE);
        if let Err(error) = result {
            self.keeping.changed = true;
            self.keeping.due = mono + SEAL_AGAIN;
            tracing::error!(%error, subsystem_name = "sealed", "Failed to keep what a start without the server needs");
        }
    }

    /// The last write, when the agent stops; for no disk for ever.
    pub(super) async fn keep_at_last(&mut self) {
        let Some(life) = self.parts.vault.life().filter(|_| self.keeping.changed || self.keeping.writing)
        else {
            return;
        };
        self.tell_time();
        let (vault, kept) = (self.parts.vault.clone(), self.gather());
        let store = tokio::task::spawn_blocking(move || vault.store(life, &kept));
        match tokio::time::timeout(DRAIN_MAX, store).await {
            Ok(stored) => self.stored(stored.unwrap_or(Ok(false))),
            Err(_) => {
                tracing::warn!(subsystem_name = "sealed", "The last state could not be written in time")
            }
        }
    }

    fn gather(&self) -> Kept {
        Kept {
            cache: self.cache.snapshot(),
            position: self.sync.settled_position(),
            latest: Moment { wall: self.now.wall, mono: self.now.mono, boot: clock::boot_id().to_owned() },
        }
    }

    /// Goes on from what an earlier life left; `least` is what time it is at least.
    pub(super) fn restore(&mut self, kept: Kept, least: Timestamp) {
        self.server_clock.remember(least, (self.parts.clock)());
        let Kept { cache, position, .. } = kept;
        let version =
            |e: &avouch_domain::Entry| Version { revision: e.revision_number, created_at: e.created_at };
        let known = cache.entries.iter().map(|e| (e.id.clone(), version(e))).collect();
        self.bundles = cache.bundles.iter().map(|b| b.trust_domain.clone()).collect();
        self.revoked.clone_from(&cache.distrusted);
        let own = cache.bundles.iter().find(|b| b.trust_domain == self.parts.trust_domain).cloned();
        self.tell_cache(cache::Input::Restore(Box::new(cache)));
        if let Some(own) = &own {
            self.watch_authorities(own);
        }
        self.tell_sync(sync::Input::Restore { position, known });
        let counts = self.cache.counts();
        tracing::info!(
            entries = counts.entries,
            x509 = counts.x509_held,
            jwt = counts.jwt_held,
            subsystem_name = "sealed",
            "Serves what an earlier life left until the server answers"
        );
        self.ready.send_replace(own.is_some());
    }
}
