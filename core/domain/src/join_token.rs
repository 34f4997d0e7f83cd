//! Join token: a one-time proof. The text is a secret and never printed.

use std::fmt;

use zeroize::Zeroizing;

use crate::time::Timestamp;

/// A join token and its end.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub token: Zeroizing<String>,
    pub expires_at: Timestamp,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}
