//! Verbs on agents and join tokens.
//!
//! Never keeps or logs the text of a join token: it is shown once, in the answer that creates it.

use avouch_credential::x509::csr::{Csr, CsrError};
use avouch_credential::x509::name::Name;
use avouch_domain::limits::JOIN_TOKEN_MAX;
use avouch_domain::{IdError, JoinToken, Node, Now, SpiffeId, Timestamp};
use avouch_engine::plan::entries::EntryWriteError;
use avouch_engine::plan::nodes::{self, AgentRefusal, NodeError, Standing};
use avouch_engine::plan::tokens::{self, Alias};
use zeroize::Zeroizing;

use super::entries::fresh_id;
use super::{BadToken, IssuedX509, NodeFilter, Page, PageRequest, Services, WriteError};
use crate::ca::Leaf;

/// A join token to be made.
#[derive(Clone)]
pub struct NewJoinToken {
    /// `None` = a random one.
    pub token: Option<String>,
    /// Seconds, at least 1.
    pub ttl: i32,
    /// SPIFFE ID that the agent may act as.
    pub agent_id: Option<SpiffeId>,
}

impl std::fmt::Debug for NewJoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewJoinToken").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// A join token as its maker sees it, once.
#[derive(Clone)]
pub struct ShownJoinToken {
    pub token: Zeroizing<String>,
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for ShownJoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ShownJoinToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Why a join token was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    #[error("ttl is required, you must provide one")]
    Ttl,
    #[error("{0}")]
    AgentId(String),
    #[error("join token has {0} bytes, expected at most 1024")]
    TooLong(usize),
    #[error("join token already exists")]
    Duplicate,
    #[error("failed to create join token ID: {0}")]
    Path(IdError),
    #[error("{0}")]
    Alias(EntryWriteError),
    #[error("{0}")]
    Internal(String),
}

impl From<tokens::JoinTokenError> for JoinTokenError {
    fn from(e: tokens::JoinTokenError) -> Self {
        match e {
            tokens::JoinTokenError::Duplicate => Self::Duplicate,
            tokens::JoinTokenError::Alias(e) => Self::Alias(e),
            tokens::JoinTokenError::Selector(e) => Self::Internal(e.to_string()),
        }
    }
}

/// Why an agent's SVID was not renewed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    #[error("agent not found")]
    NotAttested,
    #[error("agent must reattest instead of renew")]
    MustReattest,
    #[error("missing CSR")]
    MissingCsr,
    #[error("failed to parse CSR: {0}")]
    Csr(String),
    #[error("failed to sign X509 SVID: {0}")]
    Sign(String),
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Reads a request for an agent's SVID: only its public key counts, but it must be signed by that key.
pub(super) fn agent_csr(bytes: &[u8]) -> Result<Csr, CsrError> {
    let csr = Csr::parse(bytes)?;
    csr.verify()?;
    Ok(csr)
}

impl Services {
    #[must_use]
    pub fn count_agents(&self, filter: &NodeFilter) -> usize {
        filter.count(&self.registry())
    }

    /// # Errors
    /// [`BadToken`].
    pub fn list_agents(&self, filter: &NodeFilter, page: &PageRequest) -> Result<Page<Node>, BadToken> {
        filter.page(&self.registry(), page)
    }

    #[must_use]
    pub fn get_agent(&self, id: &SpiffeId) -> Option<Node> {
        self.registry().node(id).cloned()
    }

    /// Forgets an agent: it must attest anew, and a ban is lifted.
    ///
    /// # Errors
    /// [`WriteError`], or inside [`NodeError::NotFound`].
    pub async fn delete_agent(
        &self,
        now: Now,
        actor: &str,
        id: &SpiffeId,
    ) -> Result<Result<(), NodeError>, WriteError> {
        let (actor, id) = (actor.to_owned(), id.clone());
        self.0.writer.write(move |registry| nodes::delete(registry, now.wall, &actor, &id)).await
    }

    /// Bans an agent; its stream is told at once.
    ///
    /// # Errors
    /// [`WriteError`], or inside [`NodeError::NotFound`].
    pub async fn ban_agent(
        &self,
        now: Now,
        actor: &str,
        id: &SpiffeId,
    ) -> Result<Result<(), NodeError>, WriteError> {
        let (actor, id) = (actor.to_owned(), id.clone());
        self.0.writer.write(move |registry| nodes::ban(registry, now.wall, &actor, &id)).await
    }

    /// Judges the SVID that an agent shows. From memory; only the first use of a renewed SVID writes.
    ///
    /// # Errors
    /// [`WriteError`], or inside [`AgentRefusal`].
    pub async fn authorize_agent(
        &self,
        now: Now,
        id: &SpiffeId,
        serial: &str,
    ) -> Result<Result<(), AgentRefusal>, WriteError> {
        match nodes::judge(&self.registry(), now.wall, id, serial) {
            Err(refusal) => Ok(Err(refusal)),
            Ok(Standing::Current) => Ok(Ok(())),
            Ok(Standing::Renewed) => {
                let (node, shown) = (id.clone(), serial.to_owned());
                self.0
                    .writer
                    .write(move |registry| nodes::promote(registry, now.wall, &node, &shown))
                    .await?
                    .map_or(Ok(Err(AgentRefusal::NotAttested)), |()| {
                        // What became of it while the write waited counts.
                        Ok(nodes::judge(&self.registry(), now.wall, id, serial).map(drop))
                    })
            }
        }
    }

    /// Notes the version that an agent reports.
    ///
    /// # Errors
    /// [`WriteError`], or inside [`NodeError`].
    pub async fn post_status(
        &self,
        now: Now,
        id: &SpiffeId,
        version: &str,
    ) -> Result<Result<(), NodeError>, WriteError> {
        let same = self.registry().node(id).is_some_and(|n| *n.agent_version == *version);
        if same {
            return Ok(Ok(()));
        }
        let (id, version) = (id.clone(), version.to_owned());
        self.0.writer.write(move |registry| nodes::post_status(registry, now.wall, &id, &version)).await
    }

    /// Makes a join token. Its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`WriteError`], or inside [`JoinTokenError`].
    pub async fn create_join_token(
        &self,
        now: Now,
        actor: &str,
        wanted: NewJoinToken,
    ) -> Result<Result<ShownJoinToken, JoinTokenError>, WriteError> {
        let (token, row, alias) = match self.join_token_rows(now, wanted) {
            Ok(rows) => rows,
            Err(e) => return Ok(Err(e)),
        };
        let actor = actor.to_owned();
        let expires_at = row.expires_at;
        let made = self
            .0
            .writer
            .write(move |registry| tokens::create(registry, now.wall, &actor, &row, alias.as_ref()))
            .await?;
        Ok(made.map(|()| ShownJoinToken { token, expires_at }).map_err(Into::into))
    }

    fn join_token_rows(
        &self,
        now: Now,
        wanted: NewJoinToken,
    ) -> Result<(Zeroizing<String>, JoinToken, Option<Alias>), JoinTokenError> {
        let ttl = u64::try_from(wanted.ttl).ok().filter(|ttl| *ttl > 0).ok_or(JoinTokenError::Ttl)?;
        let text = wanted.token.filter(|t| !t.is_empty());
        let token = Zeroizing::new(text.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()));
        if token.len() > JOIN_TOKEN_MAX {
            return Err(JoinTokenError::TooLong(token.len()));
        }
        let alias = match wanted.agent_id {
            None => None,
            Some(spiffe_id) => Some(self.join_token_alias(&token, spiffe_id)?),
        };
        let row = JoinToken {
            digest: avouch_store::sha256(token.as_bytes()),
            // Ends at the second that the caller is told.
            expires_at: Timestamp::from_secs((now.wall + std::time::Duration::from_secs(ttl)).secs()),
        };
        Ok((token, row, alias))
    }

    fn join_token_alias(&self, token: &str, spiffe_id: SpiffeId) -> Result<Alias, JoinTokenError> {
        if spiffe_id.trust_domain() != self.trust_domain() || spiffe_id.is_reserved() {
            let domain = self.trust_domain();
            let text = format!("\"{spiffe_id}\" is not a workload in trust domain \"{domain}\"");
            return Err(JoinTokenError::AgentId(text));
        }
        let agent =
            SpiffeId::agent(self.trust_domain(), "join_token", token).map_err(JoinTokenError::Path)?;
        let entry_id = fresh_id().ok_or_else(|| JoinTokenError::Internal("no entry id".into()))?;
        Ok(Alias { agent, spiffe_id, entry_id })
    }

    /// Signs a new SVID for an agent. The old one works until the new one is first shown.
    ///
    /// # Errors
    /// [`RenewError`].
    pub async fn renew_agent(
        &self,
        now: Now,
        caller: &SpiffeId,
        csr: &[u8],
    ) -> Result<IssuedX509, RenewError> {
        let node = self.get_agent(caller).ok_or(RenewError::NotAttested)?;
        if node.can_reattest {
            return Err(RenewError::MustReattest);
        }
        if csr.is_empty() {
            return Err(RenewError::MissingCsr);
        }
        let csr = agent_csr(csr).map_err(|e| RenewError::Csr(e.reason()))?;
        let svid = self.sign_agent_svid(now, caller, &csr).await.map_err(RenewError::Sign)?;
        let (id, serial, end) = (caller.clone(), svid.serial.clone(), svid.expires_at);
        self.0
            .writer
            .write(move |registry| nodes::renew(registry, now.wall, &id, &serial, end))
            .await?
            .map_err(|_| RenewError::NotAttested)?;
        Ok(svid)
    }

    pub(super) async fn sign_agent_svid(
        &self,
        now: Now,
        id: &SpiffeId,
        csr: &Csr,
    ) -> Result<IssuedX509, String> {
        let leaf = Leaf {
            id: id.clone(),
            public_key: csr.public_key().clone(),
            dns_names: Vec::new(),
            subject: Name::svid_default(),
            ttl: self.settings().agent_ttl,
        };
        self.ca().sign(now.wall, leaf).await
    }
}
