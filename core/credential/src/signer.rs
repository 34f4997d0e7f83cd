//! The one verb a signing key must offer, wherever the key lives.
//!
//! Never hands out private key bytes.

use crate::key::PublicKey;

/// Why nothing was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The cryptography library or the key's holder refused.
    #[error("signing failed: {0}")]
    Failed(String),
    /// This kind of key signs no SVID.
    #[error("a key of type {0} can't sign SVIDs; use EC P-256, EC P-384 or RSA")]
    Unsupported(&'static str),
}

/// A key that signs messages. The public key's algorithm decides the scheme: P-256 with SHA-256 and P-384 with
/// SHA-384 (signature in ASN.1 form), RSA PKCS#1 v1.5 with SHA-256.
pub trait Signer: Send + Sync + std::fmt::Debug {
    /// The public half.
    fn public_key(&self) -> &PublicKey;

    /// Signs the whole message; hashing is part of it. May take as long as an RSA signature.
    ///
    /// # Errors
    /// [`SignError`] if the key can't be used.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;
}
