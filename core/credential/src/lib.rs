//! The papers: keys, X509-SVIDs, JWT-SVIDs, bundle documents, TLS configurations, the log. Bytes in, bytes out.
//!
//! Never: no I/O, no clock, no async. Time is an argument; randomness comes from [`random`] alone, apart from
//! the nonces and keys that the cryptography library draws itself. aws-lc-rs is the only provider.

mod der;

pub mod bundle_doc;
pub mod json;
pub mod jwk;
pub mod jwt;
pub mod key;
pub mod ledger;
pub mod limits;
pub mod presented;
pub mod random;
pub mod request;
pub mod rules;
pub mod sealing;
pub mod shown;
pub mod signer;
pub mod statement;
pub mod tls;
pub mod x509;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod props;
