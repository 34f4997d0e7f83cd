//! What can go wrong with the store, as the operator is told.
//!
//! Never holds the content of a row.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use avouch_domain::{LogPosition, RowKey};

/// The store can't be opened, read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing was touched.
    #[error(
        "database `{path}` has schema {found}, this binary knows schema {known} at most; \
         nothing was changed; run a newer binary or restore a backup"
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    /// Nothing was touched.
    #[error("file `{path}` is not a database of this server; nothing was changed; give another path")]
    Foreign { path: PathBuf },
    /// Nothing was touched.
    #[error("database `{path}` is damaged: {problem}; nothing was changed; restore a backup into a new file")]
    Corrupt { path: PathBuf, problem: String },
    #[error("a row of table `{table}` is not valid: {problem}; restore a backup")]
    Row { table: &'static str, problem: String },
    #[error("database `{path}` is used by a running server; stop it first")]
    InUse { path: PathBuf },
    #[error("file `{path}` exists and is not overwritten; give another path")]
    Exists { path: PathBuf },
    #[error("can't use file `{path}`: {source}")]
    Io { path: PathBuf, source: Arc<io::Error> },
    #[error("database failed: {0}")]
    Sqlite(Arc<rusqlite::Error>),
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source: Arc::new(source) }
    }

    /// Names the file when SQLite says that it is damaged.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match &self {
            Self::Sqlite(e) if matches!(e.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase)) => {
                Self::Corrupt { path: path.to_owned(), problem: e.to_string() }
            }
            Self::Row { table, problem } => {
                Self::Corrupt { path: path.to_owned(), problem: format!("table `{table}`: {problem}") }
            }
            _ => self,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(e: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(e))
    }
}

/// A commit did not happen; nothing of it was written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Another writer was first: follow the log to this position and plan again.
    #[error("the plan was made at another position, the store is at revision {}", .0.revision.0)]
    Behind(LogPosition),
    /// The planner broke a rule of plans.
    #[error("plan refused: {key:?} {problem}")]
    Plan { key: RowKey, problem: &'static str },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for CommitError {
    fn from(e: rusqlite::Error) -> Self {
        Self::Store(e.into())
    }
}

/// Why a position can't be resumed from: the reader loads the whole image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("the store was restored or made anew")]
    Epoch,
    #[error("the position is ahead of the store")]
    Ahead,
    /// One revision and two heads: commits were lost. Worth an alarm.
    #[error("the store has another history at this revision")]
    Head,
    #[error("the changes since are no longer kept")]
    Pruned,
}

/// The log can't be followed from a position.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TailError {
    #[error("can't resume: {0}")]
    Lost(Lost),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for TailError {
    fn from(e: rusqlite::Error) -> Self {
        Self::Store(e.into())
    }
}
