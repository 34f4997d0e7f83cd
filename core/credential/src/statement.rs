//! Texts that the server signs with keys of its own: heads of the log, rules in force.
//!
//! Never says whose a key is: that is the reader's to know.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ParsedPublicKey};

use crate::key::{PublicAlgorithm, PublicKey};

/// Why a signed text proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    #[error("its key can't be read: {0}")]
    Key(String),
    #[error("its key is {0}, expected EC P-256 or EC P-384")]
    Algorithm(&'static str),
    #[error("its signature does not fit")]
    Signature,
}

/// Checks a signature (ASN.1 form) over a text under a key (PKIX, DER).
pub(crate) fn check(key: &[u8], signed: &str, signature: &[u8]) -> Result<(), StatementError> {
    let unreadable = |e: String| StatementError::Key(e);
    let key = PublicKey::from_pkix(key).map_err(|e| unreadable(e.to_string()))?;
    let scheme = match key.algorithm() {
        PublicAlgorithm::EcP256 => &ECDSA_P256_SHA256_ASN1,
        PublicAlgorithm::EcP384 => &ECDSA_P384_SHA384_ASN1,
        other => return Err(StatementError::Algorithm(other.name())),
    };
    let key = ParsedPublicKey::new(scheme, key.raw()).map_err(|e| unreadable(e.to_string()))?;
    key.verify_sig(signed.as_bytes(), signature).map_err(|_| StatementError::Signature)
}
