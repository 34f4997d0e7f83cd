//! Proof of possession of the key of an X.509 certificate from a foreign PKI (SPIRE's `x509pop`).
//!
//! The server sends a nonce, the agent adds its own and signs both; the node's ID is the certificate's
//! fingerprint. Never: a private key leaves the prover, or a response counts for another challenge.

mod chain;
mod message;
mod prover;
mod verifier;

pub use prover::{Prover, ProverConfig};
pub use verifier::{Verifier, VerifierConfig};

/// The attestation type.
pub const NAME: &str = "x509pop";

/// The only template of agent paths built so far.
pub const DEFAULT_AGENT_PATH_TEMPLATE: &str = "/{{ .PluginName }}/{{ .Fingerprint }}";

/// True if a configured template means the default one, however it is spaced.
#[must_use]
pub fn is_default_template(template: &str) -> bool {
    let squeeze = |s: &str| s.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    squeeze(template) == squeeze(DEFAULT_AGENT_PATH_TEMPLATE)
}

#[cfg(test)]
mod tests;
