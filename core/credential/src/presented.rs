//! What is proved by what somebody presented at a gate: whose it is, and within which task.
//!
//! A task token is for one resource, a JWT-SVID for the gate's own SPIFFE ID; a certificate counts only where a handshake with
//! the gate proved it. Never takes anything of another trust domain.

use std::sync::Arc;

use avouch_domain::{Bundle, Presented, SpiffeId, Timestamp};

use crate::jwt::task::{self, TaskClaims};
use crate::jwt::verify::{JwtKeys, verify};
use crate::limits::{PRESENTED_CHAIN_MAX, PRESENTED_TOKEN_MAX};
use crate::x509::facts::CertFacts;
use crate::x509::verify::{TrustRoots, verify_svid};

/// The gate at which something was presented.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// ID of the resource in the catalogue.
    pub resource: &'a str,
    /// The workload that is the gate.
    pub gate: &'a SpiffeId,
    /// The gate speaks TLS with whoever comes.
    pub handshakes: bool,
}

/// What something that holds says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    pub identity: SpiffeId,
    /// `None`: a JWT-SVID or a certificate, which know of no task.
    pub task: Option<TaskClaims>,
    /// `jti` of a task token.
    pub token: Option<Arc<str>>,
    /// Serial number of a certificate, in decimal.
    pub serial: Option<String>,
}

/// Why what was presented does not hold. Each says which of both is to be shown anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unproved {
    #[error("the certificate does not hold: {0}")]
    Certificate(String),
    #[error("the token does not hold: {0}")]
    Token(String),
}

/// Verifies what was presented with the authorities of this bundle. A gate that speaks TLS takes nobody without the certificate
/// of its handshake, and no other gate takes a certificate, which everybody can read.
///
/// # Errors
/// [`Unproved`].
pub fn prove(presented: &Presented, own: &Bundle, at: At<'_>, now: Timestamp) -> Result<Proof, Unproved> {
    let Presented { token, chain } = presented;
    bounded(token.len(), PRESENTED_TOKEN_MAX).map_err(Unproved::Token)?;
    bounded(chain.iter().map(Vec::len).sum(), PRESENTED_CHAIN_MAX).map_err(Unproved::Certificate)?;
    match (at.handshakes, chain.is_empty()) {
        (false, true) => return by_token(token, own, at, now).map_err(Unproved::Token),
        (false, false) => {
            let why = "alone it proves nothing, and this gate speaks no TLS".to_owned();
            return Err(Unproved::Certificate(why));
        }
        (true, true) => return Err(Unproved::Certificate("none was shown in a handshake".to_owned())),
        (true, false) => {}
    }
    let (identity, serial) = by_chain(chain, own, now).map_err(Unproved::Certificate)?;
    if token.is_empty() {
        return Ok(Proof { identity, task: None, token: None, serial: Some(serial) });
    }
    if !task::is_task_token(token) {
        return Err(Unproved::Token("beside a certificate only a task token says more".to_owned()));
    }
    let proof = by_token(token, own, at, now).map_err(Unproved::Token)?;
    if proof.identity != identity {
        return Err(Unproved::Token(format!("it is {}'s, and the certificate {identity}'s", proof.identity)));
    }
    Ok(Proof { serial: Some(serial), ..proof })
}

/// Nothing is parsed that is longer than it can be.
fn bounded(had: usize, most: usize) -> Result<(), String> {
    if had > most { Err(format!("{had} bytes, expected at most {most}")) } else { Ok(()) }
}

fn by_chain(chain: &[Vec<u8>], own: &Bundle, now: Timestamp) -> Result<(SpiffeId, String), String> {
    let roots = TrustRoots::new(&own.x509_authorities);
    let identity = verify_svid(chain, &roots, &own.trust_domain, now).map_err(|e| e.to_string())?;
    let leaf = chain.first().map(Vec::as_slice).unwrap_or_default();
    let facts = CertFacts::parse(leaf).map_err(|e| e.to_string())?;
    Ok((identity, facts.serial_decimal))
}

fn by_token(token: &str, own: &Bundle, at: At<'_>, now: Timestamp) -> Result<Proof, String> {
    let keys = JwtKeys::new([own]);
    if task::is_task_token(token) {
        let held = task::verify(token, &keys, at.resource, now).map_err(|e| e.to_string())?;
        let (identity, token) = (held.claims.id.clone(), Some(held.jti));
        return Ok(Proof { identity, task: Some(held.claims), token, serial: None });
    }
    let held = verify(token, &keys, &[at.gate.to_string()], now).map_err(|e| e.to_string())?;
    Ok(Proof { identity: held.id, task: None, token: None, serial: None })
}

#[cfg(test)]
#[path = "presented_tests.rs"]
mod tests;
