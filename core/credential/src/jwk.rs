//! Public keys as JSON Web Keys (RFC 7517, 7518, 8037).
//!
//! Never reads or writes a private member: a key that shows one is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::der::{self, SEQUENCE};
use crate::key::{PublicAlgorithm, PublicKey};

/// Why a JWK gives no public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    #[error("unknown key type {0:?}")]
    KeyType(String),
    #[error("unknown curve {0:?}")]
    Curve(String),
    #[error("member {0:?} is missing or malformed")]
    Member(&'static str),
    #[error("key shows private members")]
    Private,
    #[error("{0}")]
    Key(String),
}

/// The members of one key, in the order in which they are written; absent ones are left out.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Jwk {
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<&'static str>,
    pub kty: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crv: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x5c: Option<[String; 1]>,
}

impl Jwk {
    /// The key members alone. Coordinates have full width, RSA numbers no leading zeros.
    pub(crate) fn new(key: &PublicKey) -> Self {
        let text = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
        if key.algorithm() == PublicAlgorithm::Rsa {
            let (n, e) = rsa_numbers(key.raw()).unwrap_or_default();
            return Self { kty: "RSA", n: text(n), e: text(e), ..Self::default() };
        }
        match curve_of(key.algorithm()) {
            Some((crv, width)) => {
                let (x, y) = key.raw().get(1..).and_then(|p| p.split_at_checked(width)).unwrap_or_default();
                Self { kty: "EC", crv: Some(crv), x: text(x), y: text(y), ..Self::default() }
            }
            None => Self { kty: "OKP", crv: Some("Ed25519"), x: text(key.raw()), ..Self::default() },
        }
    }
}

/// Reads the key members of a JWK; others are not looked at.
///
/// # Errors
/// [`JwkError`], also for private members.
pub fn read(members: &Map<String, Value>) -> Result<PublicKey, JwkError> {
    if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|name| members.contains_key(*name)) {
        return Err(JwkError::Private);
    }
    let kty = members.get("kty").and_then(Value::as_str).ok_or(JwkError::Member("kty"))?;
    let (algorithm, raw) = match kty {
        "RSA" => (PublicAlgorithm::Rsa, read_rsa(members)?),
        "EC" => read_ec(members)?,
        "OKP" => match members.get("crv").and_then(Value::as_str) {
            Some("Ed25519") => (PublicAlgorithm::Ed25519, bytes(members, "x")?),
            other => return Err(JwkError::Curve(other.unwrap_or_default().to_owned())),
        },
        other => return Err(JwkError::KeyType(other.to_owned())),
    };
    PublicKey::from_raw(algorithm, &raw).map_err(|e| JwkError::Key(e.to_string()))
}

fn read_rsa(members: &Map<String, Value>) -> Result<Vec<u8>, JwkError> {
    let (n, e) = (bytes(members, "n")?, bytes(members, "e")?);
    let mut raw = Vec::with_capacity(n.len() + 16);
    der::element(&mut raw, SEQUENCE, |out| {
        der::unsigned(out, &n);
        der::unsigned(out, &e);
    });
    Ok(raw)
}

fn read_ec(members: &Map<String, Value>) -> Result<(PublicAlgorithm, Vec<u8>), JwkError> {
    let crv = members.get("crv").and_then(Value::as_str).ok_or(JwkError::Member("crv"))?;
    let (algorithm, width) = [PublicAlgorithm::EcP256, PublicAlgorithm::EcP384, PublicAlgorithm::EcP521]
        .into_iter()
        .find_map(|a| curve_of(a).filter(|(name, _)| *name == crv).map(|(_, width)| (a, width)))
        .ok_or_else(|| JwkError::Curve(crv.to_owned()))?;
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = bytes(members, name)?;
        if coordinate.len() != width {
            return Err(JwkError::Member(name));
        }
        point.extend(coordinate);
    }
    Ok((algorithm, point))
}

fn bytes(members: &Map<String, Value>, name: &'static str) -> Result<Vec<u8>, JwkError> {
    let text = members.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
    text.and_then(|t| URL_SAFE_NO_PAD.decode(t).ok()).ok_or(JwkError::Member(name))
}

fn curve_of(algorithm: PublicAlgorithm) -> Option<(&'static str, usize)> {
    match algorithm {
        PublicAlgorithm::EcP256 => Some(("P-256", 32)),
        PublicAlgorithm::EcP384 => Some(("P-384", 48)),
        PublicAlgorithm::EcP521 => Some(("P-521", 66)),
        PublicAlgorithm::Rsa | PublicAlgorithm::Ed25519 => None,
    }
}

fn rsa_numbers(raw: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut inner = der::only(raw, SEQUENCE).ok()?.inside();
    Some((inner.unsigned().ok()?, inner.unsigned().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::key;
    use avouch_domain::KeyType;

    fn written(key: &PublicKey) -> Map<String, Value> {
        match serde_json::to_value(Jwk::new(key)).unwrap() {
            Value::Object(members) => members,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn keys_survive_their_json_form() {
        for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
            let key = key(key_type);
            assert_eq!(read(&written(key.public_key())).as_ref(), Ok(key.public_key()));
        }
    }

    #[test]
    fn rsa_numbers_have_no_leading_zero() {
        let members = written(key(KeyType::Rsa2048).public_key());
        assert_eq!(members["e"], "AQAB");
        assert_eq!(URL_SAFE_NO_PAD.decode(members["n"].as_str().unwrap()).unwrap().len(), 256);
    }

    #[test]
    fn private_members_are_refused() {
        let mut members = written(key(KeyType::EcP256).public_key());
        members.insert("d".into(), "AA".into());
        assert_eq!(read(&members), Err(JwkError::Private));
    }

    #[test]
    fn coordinates_have_full_width() {
        let mut members = written(key(KeyType::EcP256).public_key());
        members.insert("x".into(), URL_SAFE_NO_PAD.encode([1; 31]).into());
        assert_eq!(read(&members), Err(JwkError::Member("x")));
    }

    #[test]
    fn unknown_key_types_and_curves_are_named() {
        let mut members = written(key(KeyType::EcP256).public_key());
        members.insert("crv".into(), "secp256k1".into());
        assert_eq!(read(&members), Err(JwkError::Curve("secp256k1".into())));
        members.insert("kty".into(), "oct".into());
        assert_eq!(read(&members), Err(JwkError::KeyType("oct".into())));
    }
}
