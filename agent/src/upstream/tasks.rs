//! Task tokens at the server: signed for a run here, and asked about when one is shown at a hook here.
//!
//! Never keeps a token, and never says whose one is by itself.

use std::fmt;

use avouch_domain::{Code, Presented, SpiffeId, Timestamp};
use avouch_proto::task_v1::tasks_client::TasksClient;
use avouch_proto::task_v1::{ShowTokenRequest, SignTokenRequest};
use zeroize::Zeroizing;

use super::identities::governed;
use super::watch::malformed;
use super::{CallError, Server, Told};

/// What a token is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAsk {
    pub identity: SpiffeId,
    /// ID in the catalogue.
    pub resource: String,
    pub task: Code,
    /// ID of the run.
    pub instance: String,
}

/// A token that the server signed.
pub struct SignedToken {
    pub token: Zeroizing<String>,
    /// Its `jti`.
    pub id: String,
    pub expires_at: Timestamp,
}

impl fmt::Debug for SignedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedToken").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Where tokens are signed and looked at.
#[tonic::async_trait]
pub trait Tasks: Send + Sync + 'static {
    /// A token for a run here.
    async fn sign(&self, ask: &TokenAsk) -> Result<SignedToken, CallError>;

    /// The identity of this name as it is now, which presented this at the gate of a resource.
    async fn presented(
        &self,
        name: &SpiffeId,
        resource: &str,
        presented: &Presented,
    ) -> Result<Told, CallError>;
}

#[tonic::async_trait]
impl Tasks for Server {
    async fn sign(&self, ask: &TokenAsk) -> Result<SignedToken, CallError> {
        let request = || SignTokenRequest {
            spiffe_id: ask.identity.to_string(),
            resource: ask.resource.clone(),
            task: ask.task.to_string(),
            instance_id: ask.instance.clone(),
        };
        let signed = self.call(|line| async move {
            Ok(TasksClient::new(line.channel).sign_token(request()).await?.into_inner())
        });
        let signed = signed.await?;
        let expires_at = Timestamp::from_secs(signed.expires_at);
        Ok(SignedToken { token: Zeroizing::new(signed.token), id: signed.token_id, expires_at })
    }

    async fn presented(
        &self,
        name: &SpiffeId,
        resource: &str,
        presented: &Presented,
    ) -> Result<Told, CallError> {
        let request = || ShowTokenRequest {
            token: presented.token.to_string(),
            resource: resource.to_owned(),
            certificates: presented.chain.clone(),
        };
        let shown = self.call(|line| async move {
            Ok(TasksClient::new(line.channel).show_token(request()).await?.into_inner())
        });
        let shown = shown.await?;
        let identity = match shown.identity {
            Some(facts) if facts.spiffe_id == name.as_str() => governed(name, &facts),
            Some(_) => return Err(malformed("the server named another identity than was proved")),
            None => None,
        };
        Ok(Told { identity, rules_number: shown.rules_number })
    }
}
