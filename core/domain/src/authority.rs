//! X.509 and JWT authorities: a key that signs SVIDs, its slot and its life-cycle state.

use std::sync::Arc;

use crate::time::Timestamp;

/// X.509: lower-case hex of the subject key identifier. JWT: the key ID (`kid`).
pub type AuthorityId = Arc<str>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuthorityKind {
    X509,
    Jwt,
}

/// Who holds the private key: one server, or the whole trust domain (design decision 7).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// Stable name of one server, made at its first start.
    Server(Arc<str>),
    TrustDomain,
}

/// Two slots per kind and holder: one signs while the other is being prepared or fading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    A,
    B,
}

impl Slot {
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Life cycle of a slot: made, announced in the bundle, signing, no longer signing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SlotState {
    /// Key made and public part in the bundle; not signing yet.
    Prepared,
    /// Signs.
    Active,
    /// Signs no more; its SVIDs may still live.
    Old,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    EcP256,
    EcP384,
    Rsa2048,
    Rsa4096,
}

/// One authority in one slot: the journal row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    pub kind: AuthorityKind,
    pub holder: Holder,
    pub slot: Slot,
    pub state: SlotState,
    pub id: AuthorityId,
    /// X.509: the CA certificate (DER). JWT: the public key (PKIX DER).
    pub public: Arc<[u8]>,
    pub issued_at: Timestamp,
    pub not_after: Timestamp,
    pub tainted: bool,
    /// Revision at which the public part entered the bundle: agents at or past it know it.
    pub published_at: Option<crate::change::Revision>,
}
