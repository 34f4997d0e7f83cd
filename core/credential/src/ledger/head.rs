//! Signed heads: "record N of this log has hash H", under the server's record key.
//!
//! Never signs for a log without a name: a head of one trust domain says nothing about another's.

use avouch_domain::{Timestamp, TrustDomain};

use super::record::Hash;
use crate::signer::{SignError, Signer};
use crate::statement::{self, StatementError};

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
    #[error(transparent)]
    Statement(#[from] StatementError),
    #[error("the server's receipt: {0}")]
    Receipt(StatementError),
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
    /// [`StatementError`].
    pub fn check(&self, domain: &TrustDomain) -> Result<(), StatementError> {
        let signed = statement(domain, self.seq, &self.hash, self.at);
        statement::check(&self.key, &signed, &self.signature)
    }
}
