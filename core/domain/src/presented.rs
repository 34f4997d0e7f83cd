//! What somebody presented at a gate to say who it is: as it came, not looked at yet.

use std::fmt;

use zeroize::Zeroizing;

/// A token, a certificate that was proved to the gate in a handshake, or both. Nothing of it is ever printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Presented {
    /// A task token or a JWT-SVID; empty: none.
    pub token: Zeroizing<String>,
    /// Leaf first, each in DER; empty: none.
    pub chain: Vec<Vec<u8>>,
}

impl Presented {
    /// A token alone.
    #[must_use]
    pub fn token(token: impl Into<String>) -> Self {
        Self { token: Zeroizing::new(token.into()), chain: Vec::new() }
    }

    /// Nothing was presented.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.token.is_empty() && self.chain.is_empty()
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presented")
    }
}
