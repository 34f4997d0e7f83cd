//! SHA-256 of binaries, computed once per file state and shared by all processes that run it.
//!
//! Never: a digest is not kept unless the file was unchanged while it was read and had been for a while before.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use parking_lot::Mutex;

use crate::clock;
use crate::limits::{HASH_CACHE_MAX, HASH_CHUNK};
use crate::process::ProcessGone;

/// Why there is no digest.
#[derive(Debug, thiserror::Error)]
pub(super) enum DigestError {
    #[error(transparent)]
    Gone(#[from] ProcessGone),
    #[error("workload {size} bytes exceeds size limit {limit}")]
    TooLarge { size: u64, limit: u64 },
    #[error("could not read the binary: {0}")]
    Read(#[from] io::Error),
    #[error("the binary changed while it was read")]
    Changed,
}

/// A file in one state. The change time moves with every write, rename or unlink and can't be set by its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

type Digest = [u8; 32];
/// Held while its digest is computed: callers with the same binary wait instead of reading it too.
type Slot = Arc<Mutex<Option<Digest>>>;

/// Bounded cache; the oldest file state leaves first.
#[derive(Debug, Default)]
pub(super) struct Digests {
    table: Mutex<(BTreeMap<FileState, Slot>, VecDeque<FileState>)>,
}

impl Digests {
    /// Digest of an open binary. `check` is asked between chunks whether the effort still serves someone.
    /// A `limit` of zero means none.
    pub(super) fn of(
        &self,
        file: File,
        limit: u64,
        check: impl Fn() -> Result<(), ProcessGone>,
    ) -> Result<Digest, DigestError> {
        let meta = file.metadata()?;
        if limit > 0 && meta.size() > limit {
            return Err(DigestError::TooLarge { size: meta.size(), limit });
        }
        let state = FileState::of(&meta);
        let slot = self.slot(state);
        let mut kept = slot.lock();
        if let Some(digest) = *kept {
            return Ok(digest);
        }
        let digest = hash(&file, state.size, check)?;
        if FileState::of(&file.metadata()?) != state {
            return Err(DigestError::Changed);
        }
        if clock::is_settled(state.changed.0, state.changed.1) {
            *kept = Some(digest);
        }
        Ok(digest)
    }

    fn slot(&self, state: FileState) -> Slot {
        let (slots, order) = &mut *self.table.lock();
        if let Some(slot) = slots.get(&state) {
            return Arc::clone(slot);
        }
        if slots.len() >= HASH_CACHE_MAX
            && let Some(oldest) = order.pop_front()
        {
            slots.remove(&oldest);
        }
        let slot = Slot::default();
        slots.insert(state, Arc::clone(&slot));
        order.push_back(state);
        slot
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.table.lock().0.values().filter(|slot| slot.lock().is_some()).count()
    }
}

fn hash(file: &File, size: u64, check: impl Fn() -> Result<(), ProcessGone>) -> Result<Digest, DigestError> {
    let mut context = Context::new(&SHA256);
    let mut chunk = vec![0; HASH_CHUNK.min(usize::try_from(size).unwrap_or(HASH_CHUNK).max(1))];
    let mut reader = file.take(size.saturating_add(1));
    let mut total = 0;
    loop {
        let read = reader.read(&mut chunk)?;
        if read == 0 {
            break;
        }
        context.update(chunk.get(..read).unwrap_or_default());
        total += read as u64;
        check()?;
    }
    if total != size {
        return Err(DigestError::Changed);
    }
    context.finish().as_ref().try_into().map_err(|_| DigestError::Changed)
}
