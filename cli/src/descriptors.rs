//! How many descriptors a daemon may have open.
//!
//! Never lowers the limit.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of descriptors to the hard one; gives the limit that now holds. Each connection costs a descriptor.
///
/// # Errors
/// The system's error; the old limit stays.
pub fn raise_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}
