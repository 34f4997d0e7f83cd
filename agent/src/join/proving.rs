//! What the node proves itself by, and that it does so anew where a decision wants it.
//!
//! Never gives up the SVID in use for a proof that does not come about.

use avouch_attestors::node::{NodeProver, ProveError, join_token, x509pop};

use super::{Attempt, Current, Join, JoinError};
use crate::config::NodeAttestorConfig;
use crate::shell::Shell;

impl Join {
    pub(super) fn prover(&self) -> Result<Box<dyn NodeProver>, Attempt> {
        let fail = |e: ProveError| Attempt::Answered(e.to_string());
        if let Some(token) = &self.parts.join_token {
            return Ok(Box::new(join_token::Prover::new(token.clone())));
        }
        match &self.parts.attestor {
            NodeAttestorConfig::JoinToken => {
                Err(JoinError::Attest("join token was not provided".to_owned()).into())
            }
            NodeAttestorConfig::X509pop { private_key_path, certificate_path, intermediates_path } => {
                let config = x509pop::ProverConfig {
                    private_key_path: private_key_path.clone(),
                    certificate_path: certificate_path.clone(),
                    intermediates_path: intermediates_path.clone(),
                };
                Ok(Box::new(x509pop::Prover::load(config).map_err(fail)?))
            }
        }
    }

    /// A decision wants a fresher proof of the node. Gives nothing if there is none, and the SVID in use stays.
    pub(super) async fn prove_anew(
        &mut self,
        current: &Current,
        shell: &Shell,
    ) -> Result<Option<Current>, JoinError> {
        if !current.reattestable {
            tracing::warn!(
                subsystem_name = "attestor",
                "A rule wants a fresher proof of this node, and it can't be attested twice: start its agent with a new join token"
            );
            return Ok(None);
        }
        tracing::info!(
            subsystem_name = "attestor",
            "A rule wants a fresher proof of this node; attesting anew"
        );
        match self.attest(Some(current), shell).await {
            Ok(new) => Ok(Some(new)),
            Err(Attempt::Final(error)) => Err(error),
            Err(attempt) => {
                tracing::error!(error = %attempt, subsystem_name = "attestor", "Failed to attest the node anew");
                Ok(None)
            }
        }
    }
}
