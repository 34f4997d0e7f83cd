//! Verify JWT-SVIDs with the keys of the subject's own trust domain.
//!
//! Never verifies with a key of another trust domain (JWT-27) or an algorithm that the key's type does not have
//! (JWT-05): a token says which key, the key says how. Messages are those users of SPIRE know.

use std::collections::BTreeMap;
use std::sync::Arc;

use avouch_domain::{Bundle, IdError, SpiffeId, Timestamp, TrustDomain};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::task::TYPE as TASK;
use crate::json;
use crate::key::{PublicAlgorithm, PublicKey};
use crate::limits::{JWT_LEEWAY, TOKEN_MAX};

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    #[error("audience must be specified")]
    NoExpectedAudience,
    #[error("svid must be specified")]
    NoToken,
    /// JWT-01, JWT-02, JWT-04, JWT-05.
    #[error("unable to parse JWT token: {0}")]
    Parse(String),
    /// JWT-06.
    #[error("token header missing key id")]
    NoKeyId,
    /// JWT-07.
    #[error("token header type is {0}, expected JWT or JOSE")]
    Type(String),
    #[error("token header type is {0}, expected {TASK}")]
    TaskType(String),
    /// JWT-09.
    #[error("token missing subject claim")]
    NoSubject,
    /// JWT-16.
    #[error("token missing exp claim")]
    NoExpiry,
    /// JWT-09.
    #[error("token has an invalid subject claim: {0}")]
    Subject(IdError),
    /// JWT-26, TDB-16.
    #[error("no keys found for trust domain \"{0}\"")]
    NoKeys(TrustDomain),
    /// JWT-27.
    #[error("public key {0:?} not found in trust domain \"{1}\"")]
    UnknownKey(String, TrustDomain),
    /// JWT-28.
    #[error("algorithm {0} does not fit public key {1:?}")]
    Algorithm(&'static str, String),
    #[error("token signature does not match")]
    Signature,
    /// JWT-11, JWT-12.
    #[error("expected audience in {} (audience={})", list(.expected), list(.found))]
    Audience { expected: Vec<String>, found: Vec<String> },
    /// JWT-18.
    #[error("token is not valid yet (nbf)")]
    NotYetValid,
    /// JWT-17.
    #[error("token has expired")]
    Expired,
    /// JWT-18.
    #[error("token was issued in the future (iat)")]
    IssuedInTheFuture,
}

/// Go's notation of a list of texts.
fn list(texts: &[String]) -> String {
    let quoted: Vec<_> = texts.iter().map(|t| format!("{t:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// The JWT authorities of some trust domains, made once per change of their bundles.
#[derive(Clone, Debug, Default)]
pub struct JwtKeys(BTreeMap<TrustDomain, BTreeMap<Arc<str>, PublicKey>>);

impl JwtKeys {
    /// Takes the JWT authorities and nothing else (JWT-25); keys that can't be read verify nothing.
    pub fn new<'a>(bundles: impl IntoIterator<Item = &'a Bundle>) -> Self {
        let keys = |bundle: &Bundle| {
            let readable = bundle.jwt_authorities.iter().filter_map(|authority| {
                Some((authority.key_id.clone(), PublicKey::from_pkix(&authority.public_key).ok()?))
            });
            (bundle.trust_domain.clone(), readable.collect())
        };
        Self(bundles.into_iter().map(keys).collect())
    }

    fn find(&self, domain: &TrustDomain, key_id: &str) -> Result<&PublicKey, JwtError> {
        let keys = self.0.get(domain).ok_or_else(|| JwtError::NoKeys(domain.clone()))?;
        keys.get(key_id).ok_or_else(|| JwtError::UnknownKey(key_id.to_owned(), domain.clone()))
    }
}

/// A token that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedJwt {
    pub id: SpiffeId,
    /// All claims as they stand; `aud` may be one text.
    pub claims: Map<String, Value>,
    /// `aud` as a list (JWT-13).
    pub audience: Vec<String>,
}

/// What a token says of itself. NOT verified.
#[derive(Clone, Debug, PartialEq)]
pub struct PeekedJwt {
    pub id: SpiffeId,
    pub key_id: String,
    pub audience: Vec<String>,
    pub issued_at: Option<Timestamp>,
    pub expires_at: Timestamp,
}

/// Verifies a token for any one of the audiences given; 60 seconds of clock difference are granted.
///
/// # Errors
/// The first rule broken.
pub fn verify(
    token: &str,
    keys: &JwtKeys,
    audience: &[String],
    now: Timestamp,
) -> Result<VerifiedJwt, JwtError> {
    if audience.is_empty() {
        return Err(JwtError::NoExpectedAudience);
    }
    let token = Token::parse(token, Typ::Svid)?;
    token.check_key(keys)?;
    if !token.audience.iter().any(|a| audience.contains(a)) {
        return Err(JwtError::Audience { expected: audience.to_vec(), found: token.audience });
    }
    if token.time("nbf")?.is_some_and(|begin| now + JWT_LEEWAY < begin) {
        return Err(JwtError::NotYetValid);
    }
    if token.expires_at + JWT_LEEWAY < now {
        return Err(JwtError::Expired);
    }
    if token.time("iat")?.is_some_and(|issued| now + JWT_LEEWAY < issued) {
        return Err(JwtError::IssuedInTheFuture);
    }
    Ok(VerifiedJwt { id: token.id, claims: token.claims, audience: token.audience })
}

/// Reads a token without verifying it: for one that our own server has just signed for us.
///
/// # Errors
/// [`JwtError`] if a required part is missing.
pub fn peek(token: &str) -> Result<PeekedJwt, JwtError> {
    let token = Token::parse(token, Typ::Svid)?;
    let issued_at = token.time("iat")?;
    let Token { id, key_id, audience, expires_at, .. } = token;
    Ok(PeekedJwt { id, key_id, audience, issued_at, expires_at })
}

/// What kind of token the header has to say it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typ {
    /// `JWT`, `JOSE` or nothing.
    Svid,
    /// [`super::task::TYPE`], and it must be said.
    Task,
}

pub(super) struct Token<'a> {
    algorithm: &'static Algorithm,
    key_id: String,
    signed: &'a str,
    signature: Vec<u8>,
    pub(super) id: SpiffeId,
    pub(super) audience: Vec<String>,
    pub(super) expires_at: Timestamp,
    pub(super) claims: Map<String, Value>,
}

struct Algorithm {
    name: &'static str,
    key: PublicAlgorithm,
    verification: &'static dyn VerificationAlgorithm,
}

/// The nine algorithms of JWT-04 and the one kind of key that each goes with.
static ALGORITHMS: [Algorithm; 9] = [
    Algorithm { name: "ES256", key: PublicAlgorithm::EcP256, verification: &ECDSA_P256_SHA256_FIXED },
    Algorithm { name: "ES384", key: PublicAlgorithm::EcP384, verification: &ECDSA_P384_SHA384_FIXED },
    Algorithm { name: "ES512", key: PublicAlgorithm::EcP521, verification: &ECDSA_P521_SHA512_FIXED },
    Algorithm { name: "RS256", key: PublicAlgorithm::Rsa, verification: &RSA_PKCS1_2048_8192_SHA256 },
    Algorithm { name: "RS384", key: PublicAlgorithm::Rsa, verification: &RSA_PKCS1_2048_8192_SHA384 },
    Algorithm { name: "RS512", key: PublicAlgorithm::Rsa, verification: &RSA_PKCS1_2048_8192_SHA512 },
    Algorithm { name: "PS256", key: PublicAlgorithm::Rsa, verification: &RSA_PSS_2048_8192_SHA256 },
    Algorithm { name: "PS384", key: PublicAlgorithm::Rsa, verification: &RSA_PSS_2048_8192_SHA384 },
    Algorithm { name: "PS512", key: PublicAlgorithm::Rsa, verification: &RSA_PSS_2048_8192_SHA512 },
];

impl<'a> Token<'a> {
    /// Reads the compact form and everything a token must have.
    pub(super) fn parse(token: &'a str, typ: Typ) -> Result<Self, JwtError> {
        if token.is_empty() {
            return Err(JwtError::NoToken);
        }
        if token.len() > TOKEN_MAX {
            return Err(parse_error(format!("{} bytes, expected at most {TOKEN_MAX}", token.len())));
        }
        let form = || parse_error("compact JWS format must have three parts");
        let (signed, signature) = token.rsplit_once('.').ok_or_else(form)?;
        let (header, claims) = signed.split_once('.').filter(|(_, c)| !c.contains('.')).ok_or_else(form)?;
        let (header, signature) = (decode_object(header)?, decode(signature)?);
        let algorithm = check_header(&header, typ)?;
        let key_id = match header.get("kid") {
            None => return Err(JwtError::NoKeyId),
            Some(kid) => kid.as_str().ok_or_else(|| parse_error("header kid is no text"))?.to_owned(),
        };
        if key_id.is_empty() {
            return Err(JwtError::NoKeyId);
        }
        let claims = decode_object(claims)?;
        let subject = match claims.get("sub") {
            None | Some(Value::Null) => return Err(JwtError::NoSubject),
            Some(sub) => sub.as_str().ok_or_else(|| parse_error("claim sub is no text"))?,
        };
        if subject.is_empty() {
            return Err(JwtError::NoSubject);
        }
        let expires_at = time_claim(&claims, "exp")?.ok_or(JwtError::NoExpiry)?;
        let id = SpiffeId::parse(subject).map_err(JwtError::Subject)?;
        let audience = audience_claim(&claims)?;
        Ok(Self { algorithm, key_id, signed, signature, id, audience, expires_at, claims })
    }

    /// Verifies the signature with the key that the token names, of its subject's trust domain.
    pub(super) fn check_key(&self, keys: &JwtKeys) -> Result<(), JwtError> {
        let key = keys.find(self.id.trust_domain(), &self.key_id)?;
        if key.algorithm() != self.algorithm.key {
            return Err(JwtError::Algorithm(self.algorithm.name, self.key_id.clone()));
        }
        UnparsedPublicKey::new(self.algorithm.verification, key.raw())
            .verify(self.signed.as_bytes(), &self.signature)
            .map_err(|_| JwtError::Signature)
    }

    pub(super) fn time(&self, claim: &str) -> Result<Option<Timestamp>, JwtError> {
        time_claim(&self.claims, claim)
    }
}

fn parse_error(reason: impl Into<String>) -> JwtError {
    JwtError::Parse(reason.into())
}

fn decode(part: &str) -> Result<Vec<u8>, JwtError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|e| parse_error(format!("part is no unpadded base64url: {e}")))
}

fn decode_object(part: &str) -> Result<Map<String, Value>, JwtError> {
    json::object(&decode(part)?).map_err(|e| parse_error(format!("part is no JSON object: {e}")))
}

/// `alg` on the list, `typ` right if there, nothing critical that would have to be understood.
fn check_header(header: &Map<String, Value>, typ: Typ) -> Result<&'static Algorithm, JwtError> {
    let name = header.get("alg").and_then(Value::as_str).unwrap_or_default();
    let algorithm = ALGORITHMS
        .iter()
        .find(|a| a.name == name)
        .ok_or_else(|| parse_error(format!("unexpected signature algorithm {name:?}")))?;
    if header.contains_key("crit") || header.contains_key("b64") {
        return Err(parse_error("critical header parameters are not supported"));
    }
    match (typ, header.get("typ")) {
        (Typ::Svid, None) => Ok(algorithm),
        (Typ::Svid, Some(said)) if said == "JWT" || said == "JOSE" => Ok(algorithm),
        (Typ::Svid, Some(other)) => Err(JwtError::Type(other.to_string())),
        (Typ::Task, Some(said)) if said == TASK => Ok(algorithm),
        (Typ::Task, other) => Err(JwtError::TaskType(other.map_or("missing".to_owned(), Value::to_string))),
    }
}

/// True if a token says that it is a task token. NOT verified; nothing but the header is read.
pub(super) fn says_task(token: &str) -> bool {
    let header = token.split('.').next().filter(|_| token.len() <= TOKEN_MAX);
    header
        .and_then(|header| decode_object(header).ok())
        .is_some_and(|h| h.get("typ").is_some_and(|t| t == TASK))
}

/// A NumericDate: integer, or with a fraction (RFC 7519 2).
fn time_claim(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, JwtError> {
    let number = match claims.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_number().ok_or_else(|| parse_error(format!("claim {name} is no number")))?,
    };
    if let Some(secs) = number.as_i64() {
        return Ok(Some(Timestamp::from_secs(secs)));
    }
    #[expect(clippy::cast_possible_truncation, reason = "a float beyond the range saturates")]
    let millis = number.as_f64().map(|secs| Timestamp((secs * 1000.0) as i64));
    Ok(millis)
}

fn audience_claim(claims: &Map<String, Value>) -> Result<Vec<String>, JwtError> {
    let no_text = || parse_error("claim aud is neither a text nor a list of texts");
    match claims.get("aud") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(many)) => {
            many.iter().map(|a| a.as_str().map(str::to_owned).ok_or_else(no_text)).collect()
        }
        Some(_) => Err(no_text()),
    }
}
