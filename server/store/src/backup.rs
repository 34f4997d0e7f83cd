//! Backup beside a running server, and restore into a new life of the store.
//!
//! Never overwrites a file: a backup wants a new name, a restore sets the old database aside.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use avouch_domain::{Epoch, LogPosition, Timestamp};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use crate::db::create_private;
use crate::error::StoreError;
use crate::limits::BACKUP_STEP_PAGES;
use crate::lock::{FileLock, beside};
use crate::schema::{self, Found};
use crate::{commit, store, tail};

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Where the restored store stands; the epoch is new.
    pub position: LogPosition,
    /// Where the database that was there before is now.
    pub set_aside: Option<PathBuf>,
}

/// Copies the database at `from` as it is at this moment into the new file `to` (mode 0600), while servers go on
/// writing. `progress` gets pages done and pages in all.
///
/// # Errors
/// If `from` is damaged, newer or foreign, or `to` exists.
pub fn backup(from: &Path, to: &Path, mut progress: impl FnMut(u64, u64)) -> Result<LogPosition, StoreError> {
    refuse_missing(from)?;
    let source = schema::open_to_read(from)?;
    write_copy(&source, to, &mut progress)
}

/// Copies what a connection sees into the new file `to`.
pub(crate) fn write_copy(
    source: &Connection,
    to: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<LogPosition, StoreError> {
    refuse_existing(to)?;
    let partial = Partial::create(to)?;
    let position = partial.fill(source, progress)?;
    partial.place(to)?;
    Ok(position)
}

/// Puts the backup at `from` in the place `to`, with a new epoch, so that agents and servers read everything anew. The
/// database that was at `to` is renamed, with its side files, to `…replaced-<now in ms>`. `progress` as for [`backup`].
///
/// # Errors
/// [`StoreError::InUse`] while a server runs on `to`; nothing is changed if `from` is damaged, newer or foreign.
pub fn restore(
    from: &Path,
    to: &Path,
    now: Timestamp,
    mut progress: impl FnMut(u64, u64),
) -> Result<Restored, StoreError> {
    refuse_missing(from)?;
    let _alone = FileLock::alone(to)?;
    let source = schema::open_to_read(from)?;
    tail::verify_chain(&source).map_err(|e| e.in_file(from))?;
    let old = commit::position(&source)?.epoch.started.max(epoch_begun(to).unwrap_or(i64::MIN));
    // Later than any epoch before even if this machine's clock is behind: an older epoch would be refused by agents.
    let epoch = Epoch { started: now.0.max(old.saturating_add(1)), random: store::random_bits()? };
    let partial = Partial::create(to)?;
    partial.fill(&source, &mut progress)?;
    let position = partial.renew(epoch)?;
    let set_aside = set_aside(to, now)?;
    partial.place(to)?;
    Ok(Restored { position, set_aside })
}

/// When the life of the database that is to be replaced began: agents have seen it. `None` if there is none, or if it
/// can't be read any more.
fn epoch_begun(replaced: &Path) -> Option<i64> {
    let conn = schema::open_to_read(replaced).ok()?;
    Some(commit::position(&conn).ok()?.epoch.started)
}

/// Copies all pages of one snapshot.
pub(crate) fn copy_pages(
    source: &Connection,
    target: &mut Connection,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<LogPosition, StoreError> {
    // The open read transaction pins the snapshot: without it every commit of a server would begin the copy anew.
    let snapshot = source.unchecked_transaction()?;
    let position = commit::position(&snapshot)?;
    let copy = Backup::new(&snapshot, target)?;
    loop {
        let step = copy.step(BACKUP_STEP_PAGES)?;
        let state = copy.progress();
        let pages = |n: i32| u64::try_from(n).unwrap_or(0);
        progress(pages(state.pagecount.saturating_sub(state.remaining)), pages(state.pagecount));
        match step {
            StepResult::Done => break,
            StepResult::More => {}
            // The target is ours alone and the snapshot is pinned, so only a stuck file system gets here.
            _ => return Err(StoreError::Closed),
        }
    }
    drop(copy);
    snapshot.commit()?;
    Ok(position)
}

/// There must be a sound database to copy from.
fn refuse_missing(path: &Path) -> Result<(), StoreError> {
    fs::metadata(path).map_err(StoreError::io(path))?;
    match schema::inspect(path)? {
        Found::Schema(_) => Ok(()),
        Found::Fresh => Err(StoreError::Foreign { path: path.to_owned() }),
    }
}

fn refuse_existing(path: &Path) -> Result<(), StoreError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(StoreError::Exists { path: path.to_owned() }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(StoreError::io(path)(e)),
    }
}

/// A database being written under another name; removed unless placed.
struct Partial {
    path: PathBuf,
    placed: bool,
}

impl Partial {
    fn create(target: &Path) -> Result<Self, StoreError> {
        let path = beside(target, &format!(".partial-{}", std::process::id()));
        match fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(StoreError::io(&path)(e)),
            _ => create_private(&path, 0o600)?,
        }
        Ok(Self { path, placed: false })
    }

    fn open(&self) -> Result<Connection, StoreError> {
        Ok(Connection::open_with_flags(&self.path, OpenFlags::SQLITE_OPEN_READ_WRITE)?)
    }

    fn fill(
        &self,
        source: &Connection,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<LogPosition, StoreError> {
        let mut target = self.open()?;
        let position = copy_pages(source, &mut target, progress)?;
        // One file that can be moved about, without a write-ahead log beside it.
        target.pragma_update(None, "journal_mode", "DELETE")?;
        schema::check(&target, &self.path)?;
        Ok(position)
    }

    fn renew(&self, epoch: Epoch) -> Result<LogPosition, StoreError> {
        let conn = self.open()?;
        conn.execute(
            "UPDATE meta SET epoch_started = ?1, epoch_random = ?2 WHERE id = 1",
            (epoch.started, epoch.random.cast_signed()),
        )?;
        commit::position(&conn)
    }

    fn place(mut self, target: &Path) -> Result<(), StoreError> {
        File::open(&self.path).and_then(|f| f.sync_all()).map_err(StoreError::io(&self.path))?;
        fs::rename(&self.path, target).map_err(StoreError::io(target))?;
        self.placed = true;
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(StoreError::io(folder))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.placed {
            // Best effort: the next attempt of this process removes it too.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Renames a database and its side files out of the way. A write-ahead log that stayed would be read into the new file.
fn set_aside(path: &Path, now: Timestamp) -> Result<Option<PathBuf>, StoreError> {
    let aside = beside(path, &format!(".replaced-{}", now.0));
    refuse_existing(&aside)?;
    let mut moved = false;
    for ending in ["", "-wal", "-shm", "-journal"] {
        let (old, new) = (beside(path, ending), beside(&aside, ending));
        match fs::rename(&old, &new) {
            Ok(()) => moved |= ending.is_empty(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(StoreError::io(&old)(e)),
        }
    }
    Ok(moved.then_some(aside))
}
