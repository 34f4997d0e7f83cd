//! The data directory: made if missing, used by one server at a time, home of the server's own name.
//!
//! Never takes a lock away from a living process and never shares a directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use avouch::data_lock::{DataLock, DataLockError};

const NAME_FILE: &str = "server.name";
/// A name is a UUID; a longer file is not ours.
const NAME_BYTES_MAX: u64 = 64;

/// Why the data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("unable to use data directory {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Lock(#[from] DataLockError),
    #[error("{0} does not hold a server name: restore it or remove it to take a new name")]
    Name(PathBuf),
}

/// The directory while this process holds it.
#[derive(Debug)]
pub struct DataDir {
    /// Stable random name of this server, made at its first start.
    pub server_name: Arc<str>,
    _lock: DataLock,
}

impl DataDir {
    /// Makes the directory if it is missing, locks it, and reads or makes the server's name.
    ///
    /// # Errors
    /// [`DataDirError`].
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let lock = DataLock::take(path, "server")?;
        Ok(Self { server_name: server_name(&path.join(NAME_FILE))?, _lock: lock })
    }
}

fn server_name(path: &Path) -> Result<Arc<str>, DataDirError> {
    let io = |source| DataDirError::Io { path: path.into(), source };
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => {
            file.take(NAME_BYTES_MAX).read_to_string(&mut text).map_err(io)?;
            let name = uuid::Uuid::parse_str(text.trim()).map_err(|_| DataDirError::Name(path.into()))?;
            Ok(name.to_string().into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = uuid::Uuid::new_v4().to_string();
            let temporary = path.with_extension("tmp");
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary);
            let mut file = file.map_err(io)?;
            writeln!(file, "{name}").and_then(|()| file.sync_all()).map_err(io)?;
            std::fs::rename(&temporary, path).map_err(io)?;
            // A name that a power cut takes away would make this another server, without its authorities.
            let folder = path.parent().unwrap_or(Path::new("."));
            File::open(folder).and_then(|f| f.sync_all()).map_err(io)?;
            Ok(name.into())
        }
        Err(error) => Err(io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_server_stays() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("deep/data");
        let first = DataDir::open(&path).unwrap().server_name;
        assert_eq!(DataDir::open(&path).unwrap().server_name, first);
        assert_eq!(first.len(), 36);
    }

    #[test]
    fn a_broken_name_is_never_replaced() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join(NAME_FILE), "garbage").unwrap();
        assert!(matches!(DataDir::open(home.path()), Err(DataDirError::Name(_))));
    }
}
