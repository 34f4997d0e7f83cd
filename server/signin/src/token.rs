//! ID tokens (OpenID Connect Core 3.1.3.7): whether one holds, and what it says.
//!
//! Never looks at an address, a name or a group in it: who somebody is, issuer and subject say.

use avouch_credential::json;
use avouch_domain::{Issuer, SignIn, Subject, Timestamp};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::error::TokenError;
use crate::keys::{Algorithm, KeySet};
use crate::limits::{LEEWAY, TOKEN_MAX};

/// What a token has to be.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    pub issuer: &'a Issuer,
    pub client_id: &'a str,
    pub nonce: &'a str,
    /// The oldest sign-in at the provider that will do.
    pub signed_in_after: Timestamp,
}

/// Who signed in, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub sign_in: SignIn,
    /// Never later than now.
    pub at: Timestamp,
}

/// Checks a token against the keys of its provider.
///
/// # Errors
/// The first rule broken.
pub fn verify(
    token: &str,
    keys: &KeySet,
    expected: &Expected<'_>,
    now: Timestamp,
) -> Result<Verified, TokenError> {
    if token.len() > TOKEN_MAX {
        return Err(TokenError::Form("it is too long"));
    }
    let parts = || TokenError::Form("expected three parts");
    let (signed, signature) = token.rsplit_once('.').ok_or_else(parts)?;
    let (header, claims) =
        signed.split_once('.').filter(|(_, claims)| !claims.contains('.')).ok_or_else(parts)?;
    let (header, signature) = (object(header)?, decode(signature)?);
    let name = header.get("alg").and_then(Value::as_str).unwrap_or_default();
    let algorithm = Algorithm::of(name).ok_or(TokenError::Algorithm)?;
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(TokenError::Form("its header has parameters that are not known here"));
    }
    let id = header.get("kid").and_then(Value::as_str).filter(|id| !id.is_empty());
    let key = keys.find(id.ok_or(TokenError::NoKeyId)?, algorithm).ok_or(TokenError::UnknownKey)?;
    if !algorithm.holds(key, signed.as_bytes(), &signature) {
        return Err(TokenError::Signature);
    }
    judge(&object(claims)?, expected, now)
}

/// What the claims of a token say whose signature holds.
fn judge(
    claims: &Map<String, Value>,
    expected: &Expected<'_>,
    now: Timestamp,
) -> Result<Verified, TokenError> {
    if text(claims, "iss")? != expected.issuer.as_str() {
        return Err(TokenError::Issuer);
    }
    let audience = audience(claims)?;
    if !audience.contains(&expected.client_id) {
        return Err(TokenError::Audience);
    }
    let party = claims.get("azp").map(|_| text(claims, "azp")).transpose()?;
    if (audience.len() > 1 && party.is_none()) || party.is_some_and(|party| party != expected.client_id) {
        return Err(TokenError::Party);
    }
    if time(claims, "exp")? + LEEWAY <= now {
        return Err(TokenError::Expired);
    }
    let (issued, at) = (time(claims, "iat")?, time(claims, "auth_time")?);
    let ahead = [("iat", issued), ("auth_time", at)].into_iter().find(|(_, moment)| *moment > now + LEEWAY);
    if let Some((claim, _)) = ahead {
        return Err(TokenError::Future(claim));
    }
    let nonce = text(claims, "nonce")?;
    if verify_slices_are_equal(nonce.as_bytes(), expected.nonce.as_bytes()).is_err() {
        return Err(TokenError::Nonce);
    }
    let subject = Subject::new(text(claims, "sub")?).map_err(|e| TokenError::Subject(e.to_string()))?;
    if at + LEEWAY < expected.signed_in_after {
        return Err(TokenError::Old);
    }
    Ok(Verified { sign_in: SignIn { issuer: expected.issuer.clone(), subject }, at: at.min(now) })
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Form("a part is no base64url"))
}

fn object(part: &str) -> Result<Map<String, Value>, TokenError> {
    json::object(&decode(part)?).map_err(|_| TokenError::Form("a part is no JSON object"))
}

fn text<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<&'a str, TokenError> {
    claims.get(name).and_then(Value::as_str).ok_or(TokenError::Claim(name))
}

/// Seconds, of which some providers write fractions: those are left out, so that nothing is younger than it is.
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Timestamp, TokenError> {
    let number = claims.get(name).and_then(Value::as_number).ok_or(TokenError::Claim(name))?;
    #[expect(clippy::cast_possible_truncation, reason = "a float beyond the range saturates")]
    let seconds = number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds.floor() as i64));
    seconds.map(Timestamp::from_secs).ok_or(TokenError::Claim(name))
}

fn audience(claims: &Map<String, Value>) -> Result<Vec<&str>, TokenError> {
    let wrong = TokenError::Claim("aud");
    match claims.get("aud") {
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(many)) => many.iter().map(Value::as_str).collect::<Option<_>>().ok_or(wrong),
        _ => Err(wrong),
    }
}
