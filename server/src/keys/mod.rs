//! Signing keys by name: one trait, kept in memory or on disk.
//!
//! Never hands out key bytes, only something that signs; never logs more of a key than its name.

pub mod counted;
pub mod disk;
pub mod memory;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use avouch_credential::signer::Signer;
use avouch_domain::{AuthorityKind, KeyType, Slot};

/// Why a key manager failed.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("could not make or read a key: {0}")]
    Key(String),
    #[error("could not read or write {path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error(
        "keys file {path} is in use by another server (pid {pid}), and two would overwrite each other's keys: \
         stop it or choose another keys_path"
    )]
    InUse { path: PathBuf, pid: String },
    #[error(
        "{path} is missing, and the store holds authorities whose keys were in it: put it back from a backup; \
         to give them up and go on with new authorities, write {{\"keys\": {{}}}} into it"
    )]
    Missing { path: PathBuf },
    #[error("{path} is no key file: {problem}; expected {{\"keys\": {{\"ID\": \"base64 PKCS#8\"}}}}")]
    Format { path: PathBuf, problem: String },
}

/// Keeps private keys. Calls may block on a disk: make them off the reactor.
pub trait KeyManager: Send + Sync + std::fmt::Debug {
    /// Makes a key under this name; a former one is gone once this returns.
    ///
    /// # Errors
    /// [`KeyError`]; then the former key is still there.
    fn generate(&self, id: &str, key_type: KeyType) -> Result<Arc<dyn Signer>, KeyError>;

    /// The key of this name.
    fn get(&self, id: &str) -> Option<Arc<dyn Signer>>;

    /// Forgets the key of this name; no error if there is none.
    ///
    /// # Errors
    /// [`KeyError`]; then the key may still be there.
    fn remove(&self, id: &str) -> Result<(), KeyError>;
}

/// The name of an authority's key, as SPIRE calls it.
#[must_use]
pub fn key_id(kind: AuthorityKind, slot: Slot) -> &'static str {
    match (kind, slot) {
        (AuthorityKind::X509, Slot::A) => "x509-CA-A",
        (AuthorityKind::X509, Slot::B) => "x509-CA-B",
        (AuthorityKind::Jwt, Slot::A) => "JWT-Signer-A",
        (AuthorityKind::Jwt, Slot::B) => "JWT-Signer-B",
    }
}
