//! Lock files: each is held by one process at a time and holds its pid, for the message to the next.
//!
//! The system frees them when the process ends, however it ends. Never removed: removing one would let two processes
//! lock two files.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Why there is no lock.
#[derive(Debug)]
pub enum LockError {
    Io(io::Error),
    /// Another process has it: its pid, as far as it could be read.
    Held(String),
}

/// A lock file while this process holds it.
#[derive(Debug)]
pub struct LockFile {
    _file: Flock<File>,
}

impl LockFile {
    /// Takes the lock at `path`, without waiting. The file is made (0600) if it is missing.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn take(path: &Path) -> Result<Self, LockError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(path).map_err(LockError::Io)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                file.set_len(0).map_err(LockError::Io)?;
                writeln!(file, "{}", std::process::id()).map_err(LockError::Io)?;
                Ok(Self { _file: file })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                // Only for the message; an unreadable file leaves it empty.
                let _ = Read::by_ref(&mut file).take(16).read_to_string(&mut pid);
                Err(LockError::Held(pid.trim().to_owned()))
            }
            Err((_, errno)) => Err(LockError::Io(errno.into())),
        }
    }
}
