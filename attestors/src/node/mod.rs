//! Node attestation: a prover on the agent and a verifier on the server, side by side per kind.
//!
//! Never: no transport and no store here. The server carries the bytes and writes the node; it also spends
//! join tokens itself, in the write that makes the node, so join_token has no verifier.

pub mod join_token;
pub mod x509pop;

use std::net::IpAddr;
use std::sync::Arc;

use avouch_domain::{Now, SelectorSet, SpiffeId};
use zeroize::Zeroizing;

use crate::Boxed;

/// Why an agent can't prove its node.
#[derive(Debug, thiserror::Error)]
#[error("nodeattestor({name}): {message}")]
pub struct ProveError {
    pub name: &'static str,
    pub message: String,
}

/// The agent's side of one kind of node attestation.
pub trait NodeProver: Send {
    /// The attestation type on the wire, as in the configuration.
    fn name(&self) -> &'static str;

    /// Begins an attestation: the first payload. May hold a secret.
    fn open(&mut self) -> Boxed<'_, Result<Zeroizing<Vec<u8>>, ProveError>>;

    /// Answers one challenge of the server.
    fn answer<'a>(&'a mut self, challenge: &'a [u8]) -> Boxed<'a, Result<Vec<u8>, ProveError>>;
}

/// One challenge and what came back.
#[derive(Clone, Debug)]
pub struct Round {
    pub challenge: Vec<u8>,
    pub response: Vec<u8>,
}

/// All that was said in one attestation so far.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub payload: Vec<u8>,
    pub rounds: Vec<Round>,
    /// Where the agent's connection comes from.
    pub peer: Option<IpAddr>,
    /// Roots of the own trust domain at this moment (DER), for who takes its SVIDs as proof.
    pub own_roots: Vec<Arc<[u8]>>,
}

/// What the verifier wants next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Send this challenge, push the answer as a [`Round`], judge again.
    Ask(Vec<u8>),
    Accept(NodeProof),
}

/// What an accepted attestation proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeProof {
    pub agent_id: SpiffeId,
    pub selectors: SelectorSet,
    /// The same node may prove itself again instead of renewing.
    pub can_reattest: bool,
}

/// Which kind of refusal, for the status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not a message of the protocol, or over a limit (InvalidArgument).
    Malformed,
    /// Well-formed, but proves nothing (PermissionDenied).
    Refused,
    /// Not to be decided here (Internal).
    Internal,
}

/// Why a verifier does not accept. The text goes to the agent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nodeattestor({name}): {message}")]
pub struct VerifyError {
    pub name: &'static str,
    pub reason: Reason,
    pub message: String,
}

/// The server's side of one kind of node attestation. Keeps no state between calls: the whole exchange is
/// given each time, and a response counts only for the challenge it stands beside.
pub trait NodeVerifier: Send + Sync {
    /// The attestation type on the wire, as in the configuration.
    fn name(&self) -> &'static str;

    /// Judges what was said so far.
    fn judge<'a>(&'a self, seen: &'a Exchange, now: Now) -> Boxed<'a, Result<Step, VerifyError>>;
}
