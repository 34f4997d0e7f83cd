//! SPIFFE bundle documents (JWK sets): write ours, read anybody's.
//!
//! One odd key in a foreign document is left out, never fatal; an empty document is valid and distrusts all
//! (TDB-16). Never guesses the trust domain from the content (TDB-18).

use std::collections::BTreeSet;
use std::sync::Arc;

use avouch_domain::{Bundle, JwtAuthority, TrustDomain, X509Authority};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value};

use crate::json;
use crate::jwk::{self, Jwk, JwkError};
use crate::key::{PublicAlgorithm, PublicKey};
use crate::limits::BUNDLE_DOCUMENT_MAX;
use crate::x509::facts::CertFacts;

const X509_SVID: &str = "x509-svid";
const JWT_SVID: &str = "jwt-svid";

/// Why a whole document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleDocError {
    #[error("bundle document has {0} bytes, expected at most {BUNDLE_DOCUMENT_MAX}")]
    TooLong(usize),
    #[error("bundle document is no JSON object: {0}")]
    Json(String),
    /// TDB-10, TDB-11.
    #[error("bundle document has no array \"keys\"")]
    NoKeys,
    /// TDB-04, TDB-06, TDB-08.
    #[error("bundle document's {0:?} is no integer of at least 0")]
    NotAnInteger(&'static str),
}

/// Why one key of a document was left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SkipReason {
    #[error("is no JSON object")]
    NotAnObject,
    /// TDB-12, TDB-13, TDB-15.
    #[error("has use {0:?}")]
    Use(String),
    /// X509-37.
    #[error("has no certificate in x5c")]
    NoCertificate,
    #[error("has an unreadable certificate: {0}")]
    Certificate(String),
    /// X509-36.
    #[error("differs from the key of its certificate")]
    KeyMismatch,
    /// JWT-24.
    #[error("has no kid")]
    NoKeyId,
    #[error("repeats another key")]
    Repeated,
    /// CL-30: no client verifies tokens with it.
    #[error("is of a type that signs no JWT-SVIDs")]
    NotForJwt,
    #[error(transparent)]
    Jwk(#[from] JwkError),
}

/// One key that was left out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key {index} {reason}")]
pub struct Skipped {
    /// Position in `keys`, from 0.
    pub index: usize,
    pub reason: SkipReason,
}

#[derive(Serialize)]
struct Document {
    keys: Vec<Jwk>,
    #[serde(skip_serializing_if = "is_zero")]
    spiffe_sequence: u64,
    #[serde(skip_serializing_if = "is_zero")]
    spiffe_refresh_hint: u64,
}

#[derive(Serialize)]
struct KeySet {
    keys: Vec<Jwk>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde calls")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The SPIFFE bundle document: X.509 authorities in bundle order, then JWT authorities by key ID; 4-space indent,
/// no newline at the end. Sequence and refresh hint are left out when zero. Authorities that can't be read are
/// left out.
#[must_use]
pub fn spiffe_document(bundle: &Bundle) -> String {
    let x509 = bundle.x509_authorities.iter().filter_map(x509_jwk);
    let keys = x509.chain(jwt_jwks(bundle, Some(JWT_SVID))).collect();
    let spiffe_refresh_hint = u64::try_from(bundle.refresh_hint).unwrap_or(0);
    let document = Document { keys, spiffe_sequence: bundle.sequence_number, spiffe_refresh_hint };
    String::from_utf8(pretty(&document)).unwrap_or_default()
}

/// What the Workload API hands out for validating JWT-SVIDs: JWT keys alone, by key ID, no SPIFFE members.
#[must_use]
pub fn workload_jwks(bundle: &Bundle) -> Vec<u8> {
    pretty(&KeySet { keys: jwt_jwks(bundle, None) })
}

fn x509_jwk(authority: &X509Authority) -> Option<Jwk> {
    let key = CertFacts::parse(&authority.der).ok()?.public_key().ok()?;
    let x5c = Some([STANDARD.encode(&authority.der)]);
    Some(Jwk { usage: Some(X509_SVID), x5c, ..Jwk::new(&key) })
}

fn jwt_jwks(bundle: &Bundle, usage: Option<&'static str>) -> Vec<Jwk> {
    let mut authorities: Vec<_> = bundle.jwt_authorities.iter().collect();
    authorities.sort_by(|a, b| a.key_id.cmp(&b.key_id));
    let jwk = |authority: &&JwtAuthority| {
        let key = PublicKey::from_pkix(&authority.public_key).ok().filter(signs_jwt)?;
        Some(Jwk { usage, kid: Some(authority.key_id.to_string()), ..Jwk::new(&key) })
    };
    authorities.iter().filter_map(jwk).collect()
}

fn signs_jwt(key: &PublicKey) -> bool {
    key.algorithm() != PublicAlgorithm::Ed25519
}

fn pretty(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    let mut serializer = Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"    "));
    // Writing plain strings and numbers into memory can't fail.
    let _ = value.serialize(&mut serializer);
    out
}

/// Reads a document as the bundle of `domain`. A key without `use` is left out (TDB-12): for the Workload API's form
/// see [`parse_workload_jwks`].
///
/// # Errors
/// [`BundleDocError`] if the document as a whole can't be used; then keep the bundle you have (TDB-11).
pub fn parse(domain: &TrustDomain, document: &[u8]) -> Result<Bundle, BundleDocError> {
    parse_with_notes(domain, document).map(|(bundle, _)| bundle)
}

/// [`parse`], with the keys that were left out, for the log.
///
/// # Errors
/// As [`parse`].
pub fn parse_with_notes(
    domain: &TrustDomain,
    document: &[u8],
) -> Result<(Bundle, Vec<Skipped>), BundleDocError> {
    let members = object(document)?;
    let mut bundle = Bundle::empty(domain.clone());
    bundle.sequence_number = integer(&members, "spiffe_sequence")?;
    let hint = integer(&members, "spiffe_refresh_hint")?;
    bundle.refresh_hint =
        i64::try_from(hint).map_err(|_| BundleDocError::NotAnInteger("spiffe_refresh_hint"))?;
    let skipped = KeyReader::new(&mut bundle, None).take_all(&members)?;
    Ok((bundle, skipped))
}

/// Reads what the Workload API hands out for validating JWT-SVIDs ([`workload_jwks`]): a key without `use` is a JWT
/// key. Certificates are left out, and so are sequence and refresh hint, which this form does not have.
///
/// # Errors
/// [`BundleDocError`] if the document as a whole can't be used.
pub fn parse_workload_jwks(domain: &TrustDomain, document: &[u8]) -> Result<Bundle, BundleDocError> {
    let members = object(document)?;
    let mut bundle = Bundle::empty(domain.clone());
    KeyReader::new(&mut bundle, Some(JWT_SVID)).take_all(&members)?;
    bundle.x509_authorities.clear();
    Ok(bundle)
}

fn object(document: &[u8]) -> Result<Map<String, Value>, BundleDocError> {
    if document.len() > BUNDLE_DOCUMENT_MAX {
        return Err(BundleDocError::TooLong(document.len()));
    }
    json::object(document).map_err(|e| BundleDocError::Json(e.to_string()))
}

fn integer(members: &Map<String, Value>, name: &'static str) -> Result<u64, BundleDocError> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(0),
        Some(value) => value.as_u64().ok_or(BundleDocError::NotAnInteger(name)),
    }
}

struct KeyReader<'a> {
    bundle: &'a mut Bundle,
    /// What a key without `use` is for.
    default_use: Option<&'static str>,
    certificates: BTreeSet<Arc<[u8]>>,
    key_ids: BTreeSet<Arc<str>>,
}

impl<'a> KeyReader<'a> {
    fn new(bundle: &'a mut Bundle, default_use: Option<&'static str>) -> Self {
        Self { bundle, default_use, certificates: BTreeSet::new(), key_ids: BTreeSet::new() }
    }

    /// Takes every key of the document that can be taken; the others come back.
    fn take_all(&mut self, document: &Map<String, Value>) -> Result<Vec<Skipped>, BundleDocError> {
        let keys = document.get("keys").and_then(Value::as_array).ok_or(BundleDocError::NoKeys)?;
        let skip = |(index, key)| self.take(key).err().map(|reason| Skipped { index, reason });
        Ok(keys.iter().enumerate().filter_map(skip).collect())
    }

    fn take(&mut self, key: &Value) -> Result<(), SkipReason> {
        let members = key.as_object().ok_or(SkipReason::NotAnObject)?;
        match members.get("use").map_or(self.default_use, Value::as_str) {
            Some(X509_SVID) => self.take_x509(members),
            Some(JWT_SVID) => self.take_jwt(members),
            other => Err(SkipReason::Use(other.unwrap_or_default().to_owned())),
        }
    }

    /// The first element of `x5c` is the authority (X509-38).
    fn take_x509(&mut self, members: &Map<String, Value>) -> Result<(), SkipReason> {
        let x5c = members.get("x5c").and_then(Value::as_array).and_then(|list| list.first());
        let text = x5c.and_then(Value::as_str).ok_or(SkipReason::NoCertificate)?;
        let certificate = |e: &dyn std::fmt::Display| SkipReason::Certificate(e.to_string());
        let der: Arc<[u8]> = STANDARD.decode(text).map_err(|e| certificate(&e))?.into();
        let key = CertFacts::parse(&der).map_err(|e| certificate(&e))?.public_key();
        if jwk::read(members)? != key.map_err(|e| certificate(&e))? {
            return Err(SkipReason::KeyMismatch);
        }
        if !self.certificates.insert(der.clone()) {
            return Err(SkipReason::Repeated);
        }
        self.bundle.x509_authorities.push(X509Authority { der, tainted: false });
        Ok(())
    }

    fn take_jwt(&mut self, members: &Map<String, Value>) -> Result<(), SkipReason> {
        let kid = members.get("kid").and_then(Value::as_str).filter(|kid| !kid.is_empty());
        let key_id: Arc<str> = kid.ok_or(SkipReason::NoKeyId)?.into();
        let key = jwk::read(members)?;
        if !signs_jwt(&key) {
            return Err(SkipReason::NotForJwt);
        }
        if !self.key_ids.insert(key_id.clone()) {
            return Err(SkipReason::Repeated);
        }
        let public_key = key.pkix().into();
        self.bundle.jwt_authorities.push(JwtAuthority {
            key_id,
            public_key,
            expires_at: None,
            tainted: false,
        });
        Ok(())
    }
}

#[cfg(test)]
#[path = "bundle_doc_tests.rs"]
mod tests;
