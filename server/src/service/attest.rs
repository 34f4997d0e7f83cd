//! One node attestation: proof, challenges, and in the end one write of node and spent token.
//!
//! Never signs for a node that may not join, never spends a token without writing its node.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use avouch_attestors::node::{Exchange, NodeProof, NodeVerifier, Round, Step, VerifyError};
use avouch_credential::x509::csr::Csr;
use avouch_domain::{IdError, Now, Selector, SelectorSet, SpiffeId};
use avouch_engine::plan::nodes::{self, AttestRefusal};

use super::agents::agent_csr;
use super::{IssuedX509, Services, WriteError};

const JOIN_TOKEN: &str = "join_token";

/// What an agent brings.
#[derive(Clone)]
pub struct AttestRequest {
    /// Name of the attestor.
    pub kind: String,
    pub payload: Vec<u8>,
    /// DER.
    pub csr: Vec<u8>,
    pub peer: Option<IpAddr>,
}

impl fmt::Debug for AttestRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttestRequest")
            .field("kind", &self.kind)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// An agent that has joined.
#[derive(Clone, Debug)]
pub struct Attested {
    pub svid: IssuedX509,
    pub reattestable: bool,
    pub selectors: SelectorSet,
}

/// How an attestation goes on.
#[derive(Debug)]
pub enum AttestStep {
    /// To be answered by the agent.
    Challenge(Box<Attestation>, Vec<u8>),
    Done(Attested),
}

/// Why an attestation failed. The text is the whole message, as SPIRE says it.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    #[error("error getting node attestor: could not find node attestor type \"{0}\"")]
    UnknownType(String),
    #[error("failed to attest: join token does not exist or has already been used")]
    TokenUnknown,
    #[error("join token expired")]
    TokenExpired,
    #[error("failed to create join token ID: {0}")]
    TokenPath(IdError),
    #[error("failed to parse CSR: {0}")]
    Csr(String),
    #[error("failed to attest: agent is banned")]
    Banned,
    #[error("invalid agent ID: {0}")]
    AgentId(String),
    #[error("{0}")]
    Verifier(VerifyError),
    #[error("failed to sign X509 SVID: {0}")]
    Sign(String),
    #[error("failed to attest: {0}")]
    Write(#[from] WriteError),
}

impl From<AttestRefusal> for AttestError {
    fn from(refusal: AttestRefusal) -> Self {
        match refusal {
            AttestRefusal::TokenUnknown => Self::TokenUnknown,
            AttestRefusal::TokenExpired => Self::TokenExpired,
            AttestRefusal::Banned => Self::Banned,
        }
    }
}

/// An attestation that waits for the answer to a challenge.
pub struct Attestation {
    services: Services,
    kind: String,
    csr: Vec<u8>,
    verifier: Arc<dyn NodeVerifier>,
    exchange: Exchange,
    challenge: Vec<u8>,
}

impl fmt::Debug for Attestation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attestation").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Attestation {
    /// Takes the agent's answer to the challenge.
    ///
    /// # Errors
    /// [`AttestError`].
    pub async fn answer(mut self, now: Now, response: Vec<u8>) -> Result<AttestStep, AttestError> {
        let challenge = std::mem::take(&mut self.challenge);
        self.exchange.rounds.push(Round { challenge, response });
        self.judge(now).await
    }

    async fn judge(mut self, now: Now) -> Result<AttestStep, AttestError> {
        match self.verifier.judge(&self.exchange, now).await.map_err(AttestError::Verifier)? {
            Step::Ask(challenge) => {
                self.challenge.clone_from(&challenge);
                Ok(AttestStep::Challenge(Box::new(self), challenge))
            }
            Step::Accept(proof) => {
                let services = self.services.clone();
                services.admit(now, &self.kind, proof, &self.csr, None).await
            }
        }
    }
}

impl Services {
    /// Begins an attestation.
    ///
    /// # Errors
    /// [`AttestError`].
    pub async fn attest(&self, now: Now, request: AttestRequest) -> Result<AttestStep, AttestError> {
        let AttestRequest { kind, payload, csr, peer } = request;
        if kind == JOIN_TOKEN {
            return self.attest_by_token(now, &payload, &csr).await;
        }
        let verifier = self.0.verifiers.get(&kind).cloned();
        let verifier = verifier.ok_or_else(|| AttestError::UnknownType(kind.clone()))?;
        let own_roots = self.bundle().x509_authorities.iter().map(|root| root.der.clone()).collect();
        let exchange = Exchange { payload, rounds: Vec::new(), peer, own_roots };
        let services = self.clone();
        Attestation { services, kind, csr, verifier, exchange, challenge: Vec::new() }.judge(now).await
    }

    async fn attest_by_token(&self, now: Now, payload: &[u8], csr: &[u8]) -> Result<AttestStep, AttestError> {
        let digest = avouch_store::sha256(payload);
        // A text that was never a token must not be told apart from one that is spent.
        let token = std::str::from_utf8(payload).map_err(|_| AttestError::TokenUnknown)?;
        let known = self.registry().token(&digest).is_some();
        let agent_id = match SpiffeId::agent(self.trust_domain(), JOIN_TOKEN, token) {
            Ok(id) => id,
            Err(e) if known => return Err(AttestError::TokenPath(e)),
            Err(_) => return Err(AttestError::TokenUnknown),
        };
        let proof = NodeProof { agent_id, selectors: SelectorSet::default(), can_reattest: false };
        self.admit(now, JOIN_TOKEN, proof, csr, Some(digest)).await
    }

    /// Signs and writes, unless the node may not join. The token is judged twice: before anything is signed, and
    /// in the write that spends it.
    async fn admit(
        &self,
        now: Now,
        kind: &str,
        proof: NodeProof,
        csr: &[u8],
        token: Option<[u8; 32]>,
    ) -> Result<AttestStep, AttestError> {
        let id = proof.agent_id;
        if id.trust_domain() != self.trust_domain() || id.is_server() || !id.is_reserved() {
            let text = format!("\"{id}\" is not an agent in trust domain \"{}\"", self.trust_domain());
            return Err(AttestError::AgentId(text));
        }
        nodes::may_attest(&self.registry(), now.wall, &id, token.as_ref())?;
        let csr: Csr = agent_csr(csr).map_err(|e| AttestError::Csr(e.reason()))?;
        let selectors = self.with_own_selector(&id, proof.selectors)?;
        let svid = self.sign_agent_svid(now, &id, &csr).await.map_err(AttestError::Sign)?;
        let attested = nodes::Attested {
            id: id.clone(),
            kind: kind.into(),
            serial: svid.serial.clone(),
            expires_at: svid.expires_at,
            selectors: selectors.clone(),
            can_reattest: proof.can_reattest,
            token,
        };
        self.0
            .writer
            .write(move |registry| nodes::attest(registry, now.wall, attested.id.as_str(), &attested))
            .await??;
        Ok(AttestStep::Done(Attested { svid, reattestable: proof.can_reattest, selectors }))
    }

    fn with_own_selector(&self, id: &SpiffeId, given: SelectorSet) -> Result<SelectorSet, AttestError> {
        if !self.settings().agent_spiffe_id_as_selector {
            return Ok(given);
        }
        let own = Selector::new("spiffe_id", id.as_str()).map_err(|e| AttestError::AgentId(e.to_string()))?;
        SelectorSet::new(given.iter().cloned().chain([own])).map_err(|e| AttestError::AgentId(e.to_string()))
    }
}
