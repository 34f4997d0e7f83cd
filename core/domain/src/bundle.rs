//! Bundle: the public authorities of one trust domain, with sequence and refresh hint.

use std::sync::Arc;

use crate::time::Timestamp;
use crate::trust_domain::TrustDomain;

/// A certificate that verifies X509-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct X509Authority {
    /// One DER certificate.
    pub der: Arc<[u8]>,
    pub tainted: bool,
}

/// A public key that verifies JWT-SVIDs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JwtAuthority {
    /// `kid`; not empty.
    pub key_id: Arc<str>,
    /// PKIX (SubjectPublicKeyInfo) DER.
    pub public_key: Arc<[u8]>,
    /// `None` = unknown.
    pub expires_at: Option<Timestamp>,
    pub tainted: bool,
}

/// Public authorities of one trust domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    pub trust_domain: TrustDomain,
    pub x509_authorities: Vec<X509Authority>,
    pub jwt_authorities: Vec<JwtAuthority>,
    /// Seconds; zero = none given.
    pub refresh_hint: i64,
    /// Rises by one with every change.
    pub sequence_number: u64,
}

impl Bundle {
    #[must_use]
    pub fn empty(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            x509_authorities: Vec::new(),
            jwt_authorities: Vec::new(),
            refresh_hint: 0,
            sequence_number: 0,
        }
    }

    /// Adds what is not there yet, compared by certificate bytes and by key ID; true if anything was added.
    /// The caller bumps the sequence.
    pub fn merge(&mut self, x509: &[X509Authority], jwt: &[JwtAuthority]) -> bool {
        let before = (self.x509_authorities.len(), self.jwt_authorities.len());
        for authority in x509 {
            if !self.x509_authorities.iter().any(|a| a.der == authority.der) {
                self.x509_authorities.push(authority.clone());
            }
        }
        for authority in jwt {
            if !self.jwt_authorities.iter().any(|a| a.key_id == authority.key_id) {
                self.jwt_authorities.push(authority.clone());
            }
        }
        before != (self.x509_authorities.len(), self.jwt_authorities.len())
    }
}
