//! The store without threads: one connection, every call done when it returns. The writer thread, the reader thread
//! and the simulator all drive this.
//!
//! Never asks a clock or a random source: the epoch of a new database is an argument.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use avouch_credential::ledger::{Hash, SignedHead};
use avouch_domain::{
    Epoch, Image, LogPosition, Plan, RequestHash, RequestText, RulesDigest, RulesFolder, SpiffeId, Stand,
    Timestamp,
};
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::commit;
use crate::error::{CommitError, StoreError, TailError};
use crate::folders;
use crate::limits::{
    BUSY_TIMEOUT, CHANGES_KEPT, PAGES_KEPT_BYTES, STATEMENTS_KEPT, WAL_ATTEMPTS, WAL_KEPT_BYTES, WAL_PAUSE,
};
use crate::lock::FileLock;
use crate::node_records::{self, Kept, NodeBatch, NodeStretch, StoredChain};
use crate::records::{self, Stretch};
use crate::schema::{self, Found};
use crate::tail::{self, Tail};
use crate::texts;
use crate::uses::{self, Uses};
use crate::{backup, row};

/// One connection to the database.
#[derive(Debug)]
pub struct Db {
    conn: Connection,
    changes_kept: u64,
    /// Held until the connection is closed (fields drop in this order).
    _lock: Option<FileLock>,
}

impl Db {
    /// Opens or creates a database file; `fresh` becomes the epoch of a new one.
    ///
    /// # Errors
    /// A file that is newer, damaged, foreign or being restored is refused untouched.
    pub fn open(path: &Path, fresh: Epoch) -> Result<Self, StoreError> {
        let found = schema::inspect(path)?;
        let mut lock = FileLock::shared(path)?;
        if let Found::Schema(old) = found
            && old < schema::known()
        {
            // A running server of the older binary would go on writing in the old form.
            drop(lock);
            lock = FileLock::alone(path)?;
        }
        create_private(path, 0o640)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut conn = Connection::open_with_flags(path, flags)?;
        prepare(&conn)?;
        log_ahead(&conn)?;
        conn.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
        schema::migrate(&mut conn, fresh).map_err(|e| e.in_file(path))?;
        if found != Found::Fresh && found != Found::Schema(schema::known()) {
            drop(lock);
            lock = FileLock::shared(path)?;
        }
        Ok(Self { conn, changes_kept: CHANGES_KEPT, _lock: Some(lock) })
    }

    /// A database in memory, gone with the value.
    ///
    /// # Errors
    /// If SQLite has no memory left.
    pub fn in_memory(fresh: Epoch) -> Result<Self, StoreError> {
        let mut conn = Connection::open_in_memory()?;
        prepare(&conn)?;
        schema::migrate(&mut conn, fresh)?;
        Ok(Self { conn, changes_kept: CHANGES_KEPT, _lock: None })
    }

    /// A second connection to a file that a [`Db`] has open; it can only read.
    pub(crate) fn reader(path: &Path) -> Result<Self, StoreError> {
        let conn = schema::open_to_read(path)?;
        conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
        Ok(Self { conn, changes_kept: CHANGES_KEPT, _lock: None })
    }

    /// Writes plans made from `base` in one transaction, each non-empty one at the next revision. Returns the
    /// position after each.
    ///
    /// # Errors
    /// [`CommitError::Behind`] if the store is not at `base`. After any error nothing was written, except that an I/O
    /// error of the disk at the very end leaves it open; the counter then tells.
    pub fn commit(&mut self, base: LogPosition, plans: &[Plan]) -> Result<Vec<LogPosition>, CommitError> {
        commit::commit(&mut self.conn, base, plans, self.changes_kept)
    }

    /// Changes after `from`, about `limit` of them, in whole revisions.
    ///
    /// # Errors
    /// [`TailError::Lost`] if `from` is no point of this log, or too old.
    pub fn changes_since(&mut self, from: LogPosition, limit: usize) -> Result<Tail, TailError> {
        tail::changes_since(&mut self.conn, from, limit)
    }

    /// Keeps this many changes at least, from the next commit on.
    pub fn set_retention(&mut self, changes: u64) {
        self.changes_kept = changes;
    }

    /// Begins a new life of the store: everybody reads everything anew.
    ///
    /// # Errors
    /// If the database can't be written.
    pub fn renew_epoch(&mut self, epoch: Epoch) -> Result<(), StoreError> {
        self.conn.execute(
            "UPDATE meta SET epoch_started = ?1, epoch_random = ?2 WHERE id = 1",
            (epoch.started, epoch.random.cast_signed()),
        )?;
        Ok(())
    }

    /// Everything, at one position.
    ///
    /// # Errors
    /// If a row does not pass the domain's checks.
    pub fn image(&mut self, now: Timestamp) -> Result<Image, StoreError> {
        let tx = self.conn.transaction()?;
        let image = Image { position: commit::position(&tx)?, rows: row::all(&tx)?, read_at: now };
        tx.commit()?;
        Ok(image)
    }

    /// Where the log stands.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn position(&self) -> Result<LogPosition, StoreError> {
        commit::position(&self.conn)
    }

    /// Records after a number, oldest first, and the heads over them.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn records(&self, after: u64, limit: usize) -> Result<Stretch, StoreError> {
        records::read(&self.conn, after, limit)
    }

    /// The number of the last record; 0: there is none.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn last_record(&self) -> Result<u64, StoreError> {
        commit::last_record(&self.conn).map(|(seq, _)| seq)
    }

    /// The number and hash of the last record, if no head names it yet.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn unsigned(&self) -> Result<Option<(u64, Hash)>, StoreError> {
        records::unsigned(&self.conn)
    }

    /// Keeps a signed head.
    ///
    /// # Errors
    /// If the database can't be written.
    pub fn keep_head(&self, head: &SignedHead) -> Result<(), StoreError> {
        records::keep_head(&self.conn, head)
    }

    /// The folder of published rules with this digest, if it is kept.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn rules_folder(&self, digest: &RulesDigest) -> Result<Option<RulesFolder>, StoreError> {
        folders::read(&self.conn, digest)
    }

    /// The text of a request with this hash, if it is kept.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn request_text(&self, hash: RequestHash) -> Result<Option<RequestText>, StoreError> {
        texts::read(&self.conn, hash)
    }

    /// Where a node's chain stands; before its first record if it is not known.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn node_stand(&self, source: &SpiffeId, chain: &str) -> Result<Stand, StoreError> {
        node_records::stand(&self.conn, source, chain)
    }

    /// Keeps batches of nodes' records in one transaction: each of them as a whole or not at all.
    ///
    /// # Errors
    /// If the database can't be written; then nothing was kept.
    pub fn keep_node_records(&mut self, batches: &[NodeBatch]) -> Result<Vec<Kept>, StoreError> {
        node_records::keep(&mut self.conn, batches)
    }

    /// Counts a gap or a conflict of a chain; false if there were so many that the log tells of no more.
    ///
    /// # Errors
    /// If the database can't be written.
    pub fn count_node_finding(&self, source: &SpiffeId, chain: &str) -> Result<bool, StoreError> {
        node_records::count_finding(&self.conn, source, chain)
    }

    /// Chains after a number, all or those of one node.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn node_chains(&self, source: Option<&SpiffeId>, after: u64) -> Result<Vec<StoredChain>, StoreError> {
        node_records::chains(&self.conn, source, after)
    }

    /// Records of the chain with this number after a record, oldest first, and the heads over them.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn node_records(&self, number: u64, after: u64, limit: usize) -> Result<NodeStretch, StoreError> {
        node_records::read(&self.conn, number, after, limit)
    }

    /// Which identities were used since a moment, to a day.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn uses_since(&self, at: Timestamp) -> Result<Uses, StoreError> {
        uses::since(&self.conn, at)
    }

    /// The day on which each of these was used last, by its beginning; `None`: not known.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn last_uses(&self, names: &[SpiffeId]) -> Result<Vec<Option<Timestamp>>, StoreError> {
        uses::last(&self.conn, names)
    }

    /// Checks that the kept change log is one unbroken chain that ends at the counter.
    ///
    /// # Errors
    /// [`StoreError::Row`] names the first revision that does not follow.
    pub fn verify_chain(&self) -> Result<(), StoreError> {
        tail::verify_chain(&self.conn)
    }

    /// A whole copy in memory: the disk as it was at this moment, for tests that lose commits.
    ///
    /// # Errors
    /// If the database can't be read.
    pub fn copy(&self) -> Result<Self, StoreError> {
        let mut conn = Connection::open_in_memory()?;
        backup::copy_pages(&self.conn, &mut conn, &mut |_, _| {})?;
        prepare(&conn)?;
        Ok(Self { conn, changes_kept: self.changes_kept, _lock: None })
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.conn
    }
}

/// Turns write-ahead logging on. SQLite does not wait by itself where two connections do that to a new file at once.
fn log_ahead(conn: &Connection) -> rusqlite::Result<()> {
    let mut left = WAL_ATTEMPTS;
    loop {
        match conn.pragma_update(None, "journal_mode", "WAL") {
            Err(e) if left > 0 && e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => {
                left -= 1;
                std::thread::sleep(WAL_PAUSE);
            }
            outcome => return outcome,
        }
    }
}

/// Settings of a connection that writes.
fn prepare(conn: &Connection) -> Result<(), StoreError> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    conn.pragma_update(None, "synchronous", "FULL")?;
    conn.pragma_update(None, "foreign_keys", true)?;
    // Below zero it is a number of KiB, and not of pages.
    conn.pragma_update(None, "cache_size", -(PAGES_KEPT_BYTES / 1024))?;
    Ok(())
}

/// Creates an empty file that others can't read, whatever the umask; an existing one is left as it is. Its name is on
/// the disk when this returns: a commit is worth nothing in a file that a power cut takes out of its folder.
pub(crate) fn create_private(path: &Path, mode: u32) -> Result<(), StoreError> {
    let open = |new: bool| {
        let mut options = OpenOptions::new();
        options.write(true).create_new(new).truncate(false).mode(mode).open(path)
    };
    match open(true) {
        Ok(_) => {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(folder).and_then(|f| f.sync_all()).map_err(StoreError::io(folder))
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            open(false).map(drop).map_err(StoreError::io(path))
        }
        Err(e) => Err(StoreError::io(path)(e)),
    }
}
