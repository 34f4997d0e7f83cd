//! The lock beside a database file: running servers share it, restore and migration want it alone.
//!
//! A file of its own, since SQLite's locks on the database are lost when any handle to it is closed. The system frees
//! it when the process ends, however it ends. Never removed: removing it would let two holders lock two files.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::StoreError;

/// A lock on the database at a path, until dropped.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: File,
    database: PathBuf,
}

impl FileLock {
    /// Shares the database with other servers; refused while a restore or migration has it alone.
    pub(crate) fn shared(database: &Path) -> Result<Self, StoreError> {
        let lock = Self::open(database)?;
        lock.settle(lock.file.try_lock_shared())?;
        Ok(lock)
    }

    /// Has the database alone; refused while a server runs on it.
    pub(crate) fn alone(database: &Path) -> Result<Self, StoreError> {
        let lock = Self::open(database)?;
        lock.settle(lock.file.try_lock())?;
        Ok(lock)
    }

    fn open(database: &Path) -> Result<Self, StoreError> {
        let path = beside(database, ".lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(&path)
            .map_err(StoreError::io(&path))?;
        Ok(Self { file, database: database.to_owned() })
    }

    fn settle(&self, outcome: Result<(), TryLockError>) -> Result<(), StoreError> {
        match outcome {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: self.database.clone() }),
            Err(TryLockError::Error(e)) => Err(StoreError::io(&self.database)(e)),
        }
    }
}

/// The path with an ending appended, as SQLite names its own side files.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}
