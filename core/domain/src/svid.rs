//! SVIDs as values. Private keys are zeroized and never printed.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::spiffe_id::SpiffeId;
use crate::time::Timestamp;

/// An X509-SVID with its private key.
#[derive(Clone, PartialEq, Eq)]
pub struct X509Svid {
    pub id: SpiffeId,
    /// DER certificates, leaf first, then intermediates; never the root.
    pub chain: Arc<[Arc<[u8]>]>,
    /// PKCS#8 DER.
    pub key: Arc<Zeroizing<Vec<u8>>>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl fmt::Debug for X509Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X509Svid")
            .field("id", &self.id)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// A JWT-SVID. The token is a bearer secret and never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct JwtSvid {
    pub id: SpiffeId,
    pub token: Arc<Zeroizing<String>>,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

impl fmt::Debug for JwtSvid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSvid")
            .field("id", &self.id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
