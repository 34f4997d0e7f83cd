//! What is proved by what somebody presented at a gate: whose it is, and within which task.
//!
//! A task token is for one resource, a JWT-SVID for the gate's own SPIFFE ID; a certificate counts only where a handshake with
//! the gate proved it. Never takes anything of another trust domain.

use std::sync::Arc;

use avouch_domain::{Bundle, Presented, SpiffeId, Timestamp};

use crate::jwt::task::{self, TaskClaims};
use crate::jwt::verify::{JwtKeys, verify};
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

/// Verifies what was presented with the authorities of this bundle.
///
/// # Errors
/// Why it does not hold.
pub fn prove(presented: &Presented, own: &Bundle, at: At<'_>, now: Timestamp) -> Result<Proof, String> {
    let certified = match presented.chain.is_empty() {
        true => None,
        false if !at.handshakes => {
            return Err("a certificate alone proves nothing, and this gate speaks no TLS".to_owned());
        }
        false => Some(by_chain(&presented.chain, own, now)?),
    };
    let Some((identity, serial)) = certified else { return by_token(&presented.token, own, at, now) };
    if presented.token.is_empty() {
        return Ok(Proof { identity, task: None, token: None, serial: Some(serial) });
    }
    if !task::is_task_token(&presented.token) {
        return Err("beside a certificate only a task token says more".to_owned());
    }
    let proof = by_token(&presented.token, own, at, now)?;
    if proof.identity != identity {
        return Err(format!("the task token is {}'s, and the certificate {identity}'s", proof.identity));
    }
    Ok(Proof { serial: Some(serial), ..proof })
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
