//! Proof of possession of the key of an X.509 certificate from a foreign PKI (SPIRE's `x509pop`).
//!
//! The server sends a nonce, the agent adds its own and signs both; the node's ID is made of the certificate by a
//! template. Never: a private key leaves the prover, or a response counts for another challenge.

mod chain;
mod message;
mod prover;
mod settings;
mod template;
mod verifier;

pub use prover::{Prover, ProverConfig};
pub use settings::{Trust, VerifierConfig, VerifierKeys};
pub use template::Template;
pub use verifier::{LoadError, Verifier};

/// The attestation type.
pub const NAME: &str = "x509pop";

#[cfg(test)]
mod tests;
