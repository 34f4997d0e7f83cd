//! One daemon per data directory: a lock file beside the data, held as long as the process lives.
//!
//! Never takes a lock away from a living process, and never outlives its own: the kernel frees it, however the
//! process ends. The file stays; only the lock on it means anything.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::lock::{LockError, LockFile};

/// Why the directory can't be had.
#[derive(Debug, thiserror::Error)]
pub enum DataLockError {
    #[error("unable to use data directory {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("data directory {path} is in use by another {who}{}: stop it or choose another data_dir", holder(.pid))]
    InUse { path: PathBuf, who: &'static str, pid: Option<u32> },
}

fn holder(pid: &Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// A data directory while this process holds it.
#[derive(Debug)]
pub struct DataLock {
    _lock: LockFile,
}

impl DataLock {
    /// Makes the directory (mode 0750) if it is missing and locks it for `who`, such as "server"; the lock file has
    /// that name.
    ///
    /// # Errors
    /// [`DataLockError::InUse`] names the holder, if it can be known.
    pub fn take(directory: &Path, who: &'static str) -> Result<Self, DataLockError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| DataLockError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o750).create(directory).map_err(at(directory))?;
        let path = directory.join(format!("{who}.lock"));
        match LockFile::take(&path) {
            Ok(lock) => Ok(Self { _lock: lock }),
            Err(LockError::Io(source)) => Err(at(&path)(source)),
            Err(LockError::Held(pid)) => {
                Err(DataLockError::InUse { path: directory.into(), who, pid: pid.parse().ok() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_by_directory_and_pid_and_gets_in_when_the_first_is_gone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("deep/data");
        let first = DataLock::take(&path, "agent").unwrap();
        let text = DataLock::take(&path, "agent").unwrap_err().to_string();
        let expected = format!(
            "data directory {} is in use by another agent (pid {}): stop it or choose another data_dir",
            path.display(),
            std::process::id()
        );
        assert_eq!(text, expected);
        drop(first);
        DataLock::take(&path, "agent").unwrap();
    }

    #[test]
    fn a_holder_that_has_not_said_its_number_is_refused_all_the_same() {
        let home = tempfile::tempdir().unwrap();
        let _first = DataLock::take(home.path(), "agent").unwrap();
        std::fs::write(home.path().join("agent.lock"), "").unwrap();
        let text = DataLock::take(home.path(), "agent").unwrap_err().to_string();
        assert!(text.contains("another agent: stop it"), "{text}");
    }

    #[test]
    fn what_a_crash_left_behind_locks_nobody_out() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("agent.lock"), "4711\n").unwrap();
        DataLock::take(home.path(), "agent").unwrap();
    }
}
