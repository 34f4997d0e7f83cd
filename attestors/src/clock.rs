//! The one place of this crate that asks a clock: is a file's last change old enough for its hash to be kept?
//!
//! Never: no decision about identities or validity; those take `Now` as an argument.

use std::time::SystemTime;

use crate::limits::HASH_SETTLE;

/// True if the moment `secs` + `nanos` after the Unix epoch lies further back than [`HASH_SETTLE`].
#[allow(clippy::disallowed_methods)] // compares a file system's time with the host's: no caller has a better one
pub(crate) fn is_settled(secs: i64, nanos: i64) -> bool {
    let Ok(now) = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) else { return false };
    let then = i128::from(secs) * 1_000_000_000 + i128::from(nanos);
    let age = i128::try_from(now.as_nanos()).unwrap_or(0) - then;
    age > i128::try_from(HASH_SETTLE.as_nanos()).unwrap_or(i128::MAX)
}
