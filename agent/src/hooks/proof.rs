//! What a token proves: whose it is, and within which task.
//!
//! A task token is for this very resource, a JWT-SVID for the hook's own SPIFFE ID. Never takes one of another trust domain.

use std::sync::Arc;

use avouch_credential::jwt::task::{self, TaskClaims};
use avouch_credential::jwt::verify::{JwtKeys, verify};
use avouch_domain::{Bundle, SpiffeId, Timestamp};

use crate::limits::PEER_TOKEN_MAX;

/// What a token that holds says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proof {
    pub identity: SpiffeId,
    /// `None`: a JWT-SVID, which knows of no task.
    pub task: Option<TaskClaims>,
    /// `jti` of a task token.
    pub token: Option<Arc<str>>,
}

impl Proof {
    /// Verifies a token with the JWT authorities of this bundle.
    ///
    /// # Errors
    /// Why it does not hold.
    pub(super) fn read(
        token: &str,
        own: &Bundle,
        resource: &str,
        hook: &SpiffeId,
        now: Timestamp,
    ) -> Result<Self, String> {
        if token.len() > PEER_TOKEN_MAX {
            return Err(format!("{} bytes, expected at most {PEER_TOKEN_MAX}", token.len()));
        }
        let keys = JwtKeys::new([own]);
        if task::is_task_token(token) {
            let held = task::verify(token, &keys, resource, now).map_err(|e| e.to_string())?;
            let (identity, token) = (held.claims.id.clone(), Some(held.jti));
            return Ok(Self { identity, task: Some(held.claims), token });
        }
        let held = verify(token, &keys, &[hook.to_string()], now).map_err(|e| e.to_string())?;
        Ok(Self { identity: held.id, task: None, token: None })
    }

    /// Who acts, for records: the run, or the identity itself.
    pub(super) fn actor(&self) -> String {
        self.task.as_ref().map_or_else(|| self.identity.to_string(), |task| task.instance.to_string())
    }
}
