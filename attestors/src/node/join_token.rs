//! Join token, the agent's side: the payload is the raw token, and there is nothing more to say.
//!
//! Never: the token is not logged, not printed and not kept after it was sent once with success.

use std::fmt;

use zeroize::Zeroizing;

use super::{NodeProver, ProveError};
use crate::Boxed;

/// The attestation type.
pub const NAME: &str = "join_token";

/// Proves a node by a token that an operator gave it.
pub struct Prover {
    token: Zeroizing<String>,
}

impl Prover {
    #[must_use]
    pub fn new(token: Zeroizing<String>) -> Self {
        Self { token }
    }
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prover").finish_non_exhaustive()
    }
}

impl NodeProver for Prover {
    fn name(&self) -> &'static str {
        NAME
    }

    fn open(&mut self) -> Boxed<'_, Result<Zeroizing<Vec<u8>>, ProveError>> {
        let payload = Zeroizing::new(self.token.as_bytes().to_vec());
        Box::pin(async move {
            if payload.is_empty() {
                let message = "join token was not provided: generate one on the server".to_owned();
                return Err(ProveError { name: NAME, message });
            }
            Ok(payload)
        })
    }

    fn answer<'a>(&'a mut self, _challenge: &'a [u8]) -> Boxed<'a, Result<Vec<u8>, ProveError>> {
        Box::pin(async {
            Err(ProveError { name: NAME, message: "the server sent a challenge, expected none".to_owned() })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prover(token: &str) -> Prover {
        Prover::new(Zeroizing::new(token.to_owned()))
    }

    #[tokio::test]
    async fn the_payload_is_the_raw_token() {
        assert_eq!(prover("a b\n").open().await.unwrap().as_slice(), b"a b\n");
    }

    #[tokio::test]
    async fn an_empty_token_is_refused_before_anything_is_sent() {
        assert!(prover("").open().await.unwrap_err().to_string().contains("was not provided"));
    }

    #[tokio::test]
    async fn a_challenge_is_an_error() {
        assert!(prover("t").answer(b"{}").await.is_err());
    }

    #[test]
    fn debug_output_hides_the_token() {
        assert!(!format!("{:?}", prover("secret")).contains("secret"));
    }
}
