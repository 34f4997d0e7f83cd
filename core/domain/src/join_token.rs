//! Join token: a one-time proof, kept only as a digest of its text.
//!
//! Never holds the text: whoever reads the store or the memory of a server can't join with what is found there.

use std::fmt;

use crate::time::Timestamp;

/// A join token that waits to be spent, and its end. The text is high-entropy, so a plain SHA-256 hides it; callers
/// compute the digest (this crate has no cryptography).
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// SHA-256 of the token's text as the agent shows it.
    pub digest: [u8; 32],
    pub expires_at: Timestamp,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}
