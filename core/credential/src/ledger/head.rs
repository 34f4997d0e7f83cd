//! Signed heads: "record N of this log has hash H", under the server's record key.
//!
//! Never signs for a log without a name: a head of one trust domain says nothing about another's.

use avouch_domain::{Timestamp, TrustDomain};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ParsedPublicKey};

use super::record::Hash;
use crate::key::{PublicAlgorithm, PublicKey};
use crate::signer::{SignError, Signer};

/// A statement about everything up to one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedHead {
    pub seq: u64,
    pub hash: Hash,
    pub at: Timestamp,
    /// PKIX, DER.
    pub key: Vec<u8>,
    /// ASN.1 form.
    pub signature: Vec<u8>,
}

/// Why a head proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("its certificate is of no use: {0}")]
    Certificate(String),
    #[error("its key can't be read: {0}")]
    Key(String),
    #[error("its key is {0}, expected EC P-256 or EC P-384")]
    Algorithm(&'static str),
    #[error("its signature does not fit")]
    Signature,
    #[error("the server's receipt: {0}")]
    Receipt(Box<HeadError>),
}

/// The bytes that are signed: lines of text, so that nothing can be read in two ways.
fn statement(domain: &TrustDomain, seq: u64, hash: &Hash, at: Timestamp) -> String {
    format!("avouch record head v1\n{domain}\n{seq}\n{}\n{}\n", hex::encode(hash), at.0)
}

impl SignedHead {
    /// # Errors
    /// [`SignError`] if the key can't be used.
    pub fn sign(
        domain: &TrustDomain,
        seq: u64,
        hash: Hash,
        at: Timestamp,
        signer: &dyn Signer,
    ) -> Result<Self, SignError> {
        let signature = signer.sign(statement(domain, seq, &hash, at).as_bytes())?;
        Ok(Self { seq, hash, at, key: signer.public_key().pkix().to_vec(), signature })
    }

    /// Checks the signature under the key that comes along; whether that key is the server's is the reader's to know.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn check(&self, domain: &TrustDomain) -> Result<(), HeadError> {
        check_signature(&self.key, &statement(domain, self.seq, &self.hash, self.at), &self.signature)
    }
}

/// Checks a signature in ASN.1 form under a key in PKIX form.
pub(super) fn check_signature(pkix: &[u8], signed: &str, signature: &[u8]) -> Result<(), HeadError> {
    let key = PublicKey::from_pkix(pkix).map_err(|e| HeadError::Key(e.to_string()))?;
    let scheme = match key.algorithm() {
        PublicAlgorithm::EcP256 => &ECDSA_P256_SHA256_ASN1,
        PublicAlgorithm::EcP384 => &ECDSA_P384_SHA384_ASN1,
        other => return Err(HeadError::Algorithm(other.name())),
    };
    let key = ParsedPublicKey::new(scheme, key.raw()).map_err(|e| HeadError::Key(e.to_string()))?;
    key.verify_sig(signed.as_bytes(), signature).map_err(|_| HeadError::Signature)
}
