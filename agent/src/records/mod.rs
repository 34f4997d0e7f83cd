//! What happens on this node, recorded: each record is bound to the one before, is on disk before its caller goes on, and
//! comes to the server.
//!
//! Never drops a record to make room for another: a full spool refuses, and its caller denies. Never changes a record that
//! is written.

mod open;
mod salts;
mod ship;
mod spool;
mod sync;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use avouch_credential::random;
use avouch_domain::{ChainId, NodeChain, NodeEvent, Note, Now, SpiffeId, Stand, TELLS_USE};
use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

pub use ship::{Voucher, keep_shipped};
pub use spool::{Room, SpoolError};

use crate::limits::{SEGMENT_MAX, SPOOL_MAX, SYNC_WAITING_MAX};
use crate::metrics::Metrics;
use open::Aside;
use salts::Salts;
use spool::{Batch, Cursor, Spool, Unsynced, read_batch};

/// The folder in the agent's data folder.
const FOLDER: &str = "records";

/// When a record counts as kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The disk has it: it survives a power cut.
    Synced,
    /// The kernel has it, and the disk within 100 ms: it survives the end of the agent.
    Soon,
}

/// A record that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its number in the chain of this node.
    pub seq: u64,
}

/// What keeping records needs.
#[derive(Debug)]
pub struct Parts {
    pub folder: PathBuf,
    pub room: Room,
    pub metrics: Metrics,
    pub clock: fn() -> Now,
    /// Version of this program, for the first record of a life.
    pub version: &'static str,
}

impl Parts {
    /// In the agent's data folder, with the named limits.
    #[must_use]
    pub fn below(
        data_dir: &std::path::Path,
        metrics: Metrics,
        clock: fn() -> Now,
        version: &'static str,
    ) -> Self {
        let room = Room { spool: SPOOL_MAX, segment: SEGMENT_MAX };
        Self { folder: data_dir.join(FOLDER), room, metrics, clock, version }
    }
}

/// Counts writes over all chains, so that waiting for the disk does not depend on numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    synced: u64,
    failed: Option<String>,
}

#[derive(Debug, Default)]
struct Inner {
    spool: Option<Spool>,
    /// Writes so far.
    written: u64,
    synced: u64,
    /// The last write for which somebody waits.
    wanted: u64,
    waiting: usize,
    failed: Option<String>,
    stopped: bool,
}

#[derive(Debug)]
struct Shared {
    parts: Parts,
    inner: Mutex<Inner>,
    /// Wakes the thread that syncs.
    work: Condvar,
    progress: watch::Sender<Progress>,
    salts: Salts,
    /// The server takes none.
    unwanted: AtomicBool,
}

/// The records of this node. Cheap to clone; all clones write into one chain.
#[derive(Clone, Debug)]
pub struct Records(Arc<Shared>);

/// Takes a caller out of the count of those who wait.
struct Waits<'a>(&'a Shared);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner.lock();
        inner.waiting = inner.waiting.saturating_sub(1);
    }
}

impl Records {
    /// Nothing can be recorded before [`Records::bind`]. Starts the thread that syncs; [`Records::close`] ends it.
    ///
    /// # Errors
    /// [`SpoolError::Io`] if there can be no such thread.
    pub fn start(parts: Parts) -> Result<Self, SpoolError> {
        let salts = Salts::beside(&parts.folder);
        if let Err(error) = salts.prepare((parts.clock)().wall) {
            tracing::warn!(%error, subsystem_name = "records", "No salt for today: calls with arguments are denied");
        }
        let shared = Arc::new(Shared {
            parts,
            salts,
            inner: Mutex::default(),
            work: Condvar::new(),
            progress: watch::Sender::default(),
            unwanted: AtomicBool::new(false),
        });
        sync::spawn(shared.clone())?;
        Ok(Self(shared))
    }

    /// Says whose records these are, and takes up those of an earlier life. Does nothing if they are this node's already.
    /// Blocks: it reads what the server does not have yet.
    ///
    /// # Errors
    /// [`SpoolError`]; then it can be tried again.
    pub fn bind(&self, source: &SpiffeId) -> Result<(), SpoolError> {
        let Shared { parts, inner, .. } = &*self.0;
        {
            let mut inner = inner.lock();
            if inner.spool.as_ref().is_some_and(|spool| spool.chain().source == *source) {
                return Ok(());
            }
            inner.sync_all()?;
            inner.spool = None;
        }
        // Whoever records meanwhile is refused at once, and does not wait for the disk.
        let at = (parts.clock)().wall;
        let (spool, notes) = open::take_up(&parts.folder, source, fresh()?, parts.room, at)?;
        let mut inner = inner.lock();
        if inner.stopped {
            return Err(SpoolError::NotReady);
        }
        inner.spool = Some(spool);
        for note in &notes {
            tracing::warn!(detail = ?note.detail, subsystem_name = "records", "Records of an earlier life are not whole");
            self.0.write(&mut inner, note)?;
        }
        let detail = vec![("version", parts.version.to_owned()), ("tells", TELLS_USE.to_owned())];
        let (actor, subject) = ("agent".to_owned(), source.to_string());
        self.0.write(&mut inner, &Note { event: NodeEvent::AgentStart, actor, subject, detail })?;
        Ok(())
    }

    /// False once the server has said that it takes no records, until it takes some.
    #[must_use]
    pub fn wanted(&self) -> bool {
        !self.0.unwanted.load(Ordering::Relaxed)
    }

    /// What stands in a record of now for an argument of a call.
    ///
    /// # Errors
    /// The salt of the day can't be read or made.
    pub fn veiled<'a>(&self, name: &str, values: impl IntoIterator<Item = &'a str>) -> io::Result<String> {
        let Shared { parts, salts, .. } = &*self.0;
        salts.digest((parts.clock)().wall, name, values)
    }

    /// Records something. When it returns, the record has its place in the chain and is as safe as `durability` says;
    /// callers that wait for the disk at the same time share the wait. A caller that stops waiting has recorded all the
    /// same.
    ///
    /// # Errors
    /// [`SpoolError`]; then nothing was recorded, or after [`SpoolError::Failed`] it may be lost. What must be recorded
    /// has to be refused.
    pub async fn append(&self, note: &Note, durability: Durability) -> Result<Receipt, SpoolError> {
        let (receipt, ticket) = {
            let mut inner = self.0.inner.lock();
            if durability == Durability::Synced && inner.waiting >= SYNC_WAITING_MAX {
                return Err(SpoolError::Busy(inner.waiting));
            }
            let receipt = self.0.write(&mut inner, note)?;
            if durability == Durability::Soon {
                return Ok(receipt);
            }
            inner.waiting += 1;
            inner.wanted = inner.written;
            self.0.work.notify_one();
            (receipt, inner.written)
        };
        let _waits = Waits(&self.0);
        let mut progress = self.0.progress.subscribe();
        let reached = progress.wait_for(|p| p.synced >= ticket || p.failed.is_some()).await;
        match reached {
            Ok(progress) if progress.synced >= ticket => Ok(receipt),
            Ok(progress) => Err(SpoolError::Failed(progress.failed.clone().unwrap_or_default())),
            Err(_) => Err(SpoolError::Failed("the agent is stopping".into())),
        }
    }

    /// The chain that is written to, and where it stands. `None` before [`Records::bind`].
    #[must_use]
    pub fn stand(&self) -> Option<(NodeChain, Stand)> {
        self.0.inner.lock().spool.as_ref().map(|spool| (spool.chain().clone(), spool.stand()))
    }

    /// Syncs what is written and ends the thread. Later records are refused. Blocks.
    pub fn close(&self) {
        let mut inner = self.0.inner.lock();
        if let Err(error) = inner.sync_all() {
            tracing::error!(%error, subsystem_name = "records", "The last records may be lost");
        }
        inner.stopped = true;
        inner.spool = None;
        self.0.work.notify_one();
    }

    /// Sets the chain aside and begins another, whose first record says so. Blocks.
    fn renew(&self, why: Aside) -> Result<(), SpoolError> {
        let Shared { parts, inner, .. } = &*self.0;
        let mut inner = inner.lock();
        inner.sync_all()?;
        let Some(old) = inner.spool.take() else { return Err(SpoolError::NotReady) };
        let (at, chain) = ((parts.clock)().wall, old.chain().clone());
        tracing::error!(chain = %chain.id, reason = why.word(), subsystem_name = "records", "The records are set aside, and a new chain begins");
        let note = open::set_aside(&parts.folder, why, Some(&chain), old.stand().seq, at)?;
        let new = NodeChain { source: chain.source, id: fresh()? };
        inner.spool = Some(Spool::fresh(&parts.folder, new, parts.room));
        self.0.write(&mut inner, &note)?;
        Ok(())
    }

    /// Records after one that the server has, which the disk has; `None` if there are none.
    fn read_after(
        &self,
        chain: &NodeChain,
        seq: u64,
        cursor: &mut Cursor,
        most: (usize, usize),
    ) -> Result<Option<Batch>, SpoolError> {
        let (place, from) = {
            let inner = self.0.inner.lock();
            let Some(spool) = inner.spool.as_ref().filter(|spool| spool.chain() == chain) else {
                return Ok(None);
            };
            (spool.place_after(seq), seq.saturating_add(1).max(spool.oldest()))
        };
        place.map(|place| read_batch(&place, from, cursor, most.0, most.1)).transpose()
    }

    /// The server has everything up to this record.
    fn acknowledged(&self, chain: &NodeChain, seq: u64) {
        let gone = {
            let mut inner = self.0.inner.lock();
            let Some(spool) = inner.spool.as_mut().filter(|spool| spool.chain() == chain) else { return };
            let gone = spool.acknowledged(seq);
            self.0.parts.metrics.spool_size(spool.bytes());
            gone
        };
        spool::remove(&gone);
    }

    /// Number of the last record that the disk has.
    fn synced(&self, chain: &NodeChain) -> u64 {
        let inner = self.0.inner.lock();
        inner.spool.as_ref().filter(|spool| spool.chain() == chain).map_or(0, Spool::synced)
    }
}

/// Bits that no other chain has.
fn fresh() -> Result<ChainId, SpoolError> {
    let bits = random::bytes::<8>().map_err(|e| SpoolError::Failed(e.to_string()))?;
    Ok(ChainId::new(bits))
}

impl Shared {
    fn write(&self, inner: &mut Inner, note: &Note) -> Result<Receipt, SpoolError> {
        if let Some(failed) = &inner.failed {
            return Err(SpoolError::Failed(failed.clone()));
        }
        let spool = inner.spool.as_mut().ok_or(SpoolError::NotReady)?;
        let written = spool.write((self.parts.clock)().wall, note);
        self.parts.metrics.recorded(written.is_ok());
        let bytes = spool.bytes();
        if let Err(SpoolError::Failed(reason)) = &written {
            inner.failed = Some(reason.clone());
        }
        let seq = written?;
        // The thread sleeps while everything is synced.
        if inner.written == inner.synced {
            self.work.notify_one();
        }
        inner.written += 1;
        self.parts.metrics.spool_size(bytes);
        Ok(Receipt { seq })
    }
}

impl Inner {
    fn take_unsynced(&mut self) -> Option<Unsynced> {
        self.spool.as_mut().map(Spool::take_unsynced)
    }

    /// Syncs with the lock held: nobody writes at a change of chains.
    fn sync_all(&mut self) -> Result<(), SpoolError> {
        // The thread may be about it with files that it took.
        self.spool.iter_mut().for_each(Spool::sync_again);
        if let Some(unsynced) = self.take_unsynced() {
            unsynced.sync().inspect_err(|error| self.failed = Some(error.to_string()))?;
            self.spool.iter_mut().for_each(|spool| spool.was_synced(&unsynced));
        }
        Ok(())
    }
}
