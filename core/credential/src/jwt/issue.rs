//! Sign JWT-SVIDs, and with the same key what else there is of tokens.
//!
//! The header holds `alg`, `kid` and `typ` and nothing else (JWT-03); tokens never outlive their key (JWT-19).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::{JwtSvid, SpiffeId, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::der::{self, SEQUENCE};
use crate::key::PublicAlgorithm;
use crate::signer::{SignError, Signer};

/// Why no token was signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtIssueError {
    #[error(transparent)]
    Sign(#[from] SignError),
    /// JWT-10.
    #[error("at least one audience is required")]
    NoAudience,
    #[error("JWT signing key has no key ID")]
    NoKeyId,
    #[error("JWT signing key has expired")]
    KeyExpired,
}

/// A JWT signing key with its ID and end, prepared once.
pub struct JwtIssuer {
    key_id: Arc<str>,
    /// Encoded header of a JWT-SVID and its dot.
    header: String,
    /// Encoded header of a task token and its dot.
    task_header: String,
    /// Width of each half of an ECDSA signature; `None` for RSA.
    width: Option<usize>,
    not_after: Timestamp,
    signer: Arc<dyn Signer>,
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    kid: &'a str,
    typ: &'static str,
}

/// Members stand in the order of their names.
#[derive(Serialize)]
struct Claims<'a> {
    aud: Vec<&'a str>,
    exp: i64,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
    sub: &'a str,
}

/// What one token says.
#[derive(Clone, Copy, Debug)]
pub struct JwtTemplate<'a> {
    pub id: &'a SpiffeId,
    /// Kept in this order; empty texts are dropped.
    pub audience: &'a [String],
    /// `iss`, if the server has one configured.
    pub issuer: Option<&'a str>,
    /// From [`crate::random::jti`], if the entry asks for it.
    pub jti: Option<&'a str>,
    pub now: Timestamp,
    pub ttl: Duration,
}

impl JwtIssuer {
    /// The algorithm follows from the key (JWT-28): P-256 ES256, P-384 ES384, RSA RS256.
    ///
    /// # Errors
    /// [`JwtIssueError::NoKeyId`], or [`SignError::Unsupported`] for another type of key.
    pub fn new(key_id: &str, signer: Arc<dyn Signer>, not_after: Timestamp) -> Result<Self, JwtIssueError> {
        if key_id.is_empty() {
            return Err(JwtIssueError::NoKeyId);
        }
        let (alg, width) = match signer.public_key().algorithm() {
            PublicAlgorithm::EcP256 => ("ES256", Some(32)),
            PublicAlgorithm::EcP384 => ("ES384", Some(48)),
            PublicAlgorithm::Rsa => ("RS256", None),
            other => return Err(SignError::Unsupported(other.name()).into()),
        };
        let header = |typ| encode(&Header { alg, kid: key_id, typ }).map(|header| format!("{header}."));
        let (header, task_header) = (header("JWT")?, header(super::task::TYPE)?);
        Ok(Self { key_id: key_id.into(), header, task_header, width, not_after, signer })
    }

    /// Signs one token: valid from now, to the second, until `now + ttl` or the key's end.
    ///
    /// # Errors
    /// [`JwtIssueError`].
    pub fn sign(&self, template: &JwtTemplate<'_>) -> Result<JwtSvid, JwtIssueError> {
        let aud: Vec<_> = template.audience.iter().map(String::as_str).filter(|a| !a.is_empty()).collect();
        if aud.is_empty() {
            return Err(JwtIssueError::NoAudience);
        }
        if template.now >= self.not_after {
            return Err(JwtIssueError::KeyExpired);
        }
        let iat = template.now.secs();
        let exp = (template.now + template.ttl).min(self.not_after).secs();
        let claims =
            Claims { aud, exp, iat, iss: template.issuer, jti: template.jti, sub: template.id.as_str() };
        let token = self.compact(&self.header, &claims)?;
        Ok(JwtSvid {
            id: template.id.clone(),
            token: Arc::new(token),
            issued_at: Timestamp::from_secs(iat),
            expires_at: Timestamp::from_secs(exp),
        })
    }

    /// Signs the claims of a task token.
    pub(super) fn task(&self, claims: &impl Serialize) -> Result<Zeroizing<String>, JwtIssueError> {
        self.compact(&self.task_header, claims)
    }

    /// The compact form of these claims. `header`: encoded, with its dot.
    fn compact(&self, header: &str, claims: &impl Serialize) -> Result<Zeroizing<String>, JwtIssueError> {
        let claims = encode(claims)?;
        let mut token = Zeroizing::new(String::with_capacity(header.len() + claims.len() + 700));
        token.push_str(header);
        token.push_str(&claims);
        let signature = self.signer.sign(token.as_bytes())?;
        let signature = match self.width {
            Some(width) => fixed_width(&signature, width)?,
            None => signature,
        };
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(&signature, &mut token);
        Ok(token)
    }

    #[must_use]
    pub fn key_id(&self) -> &Arc<str> {
        &self.key_id
    }

    /// End of the key.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

impl fmt::Debug for JwtIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtIssuer").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

fn encode(value: &impl Serialize) -> Result<String, SignError> {
    let json = serde_json::to_vec(value).map_err(|e| SignError::Failed(e.to_string()))?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

/// ASN.1 ECDSA signature to the two numbers at full width, as JWS wants it (RFC 7518 3.4).
fn fixed_width(signature: &[u8], width: usize) -> Result<Vec<u8>, SignError> {
    let malformed = || SignError::Failed("the key made a malformed ECDSA signature".to_owned());
    let mut numbers = der::only(signature, SEQUENCE).map_err(|_| malformed())?.inside();
    let mut out = Vec::with_capacity(2 * width);
    for _ in 0..2 {
        let number = numbers.unsigned().map_err(|_| malformed())?;
        let padding = width.checked_sub(number.len()).ok_or_else(malformed)?;
        out.resize(out.len() + padding, 0);
        out.extend_from_slice(number);
    }
    numbers.end().map_err(|_| malformed())?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers_of_a_signature_are_padded() {
        let asn1 = [0x30, 0x07, 0x02, 0x01, 0x05, 0x02, 0x02, 0x00, 0x80];
        assert_eq!(fixed_width(&asn1, 3), Ok(vec![0, 0, 5, 0, 0, 0x80]));
        assert!(fixed_width(&asn1, 0).is_err());
    }
}
