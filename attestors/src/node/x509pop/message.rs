//! The JSON forms of x509pop, byte for byte those of SPIRE, and the signature over both nonces.
//!
//! Never: no trust decision here.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits::X509POP_NONCE;

/// First message: the certificates, leaf first.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Payload {
    #[serde(deserialize_with = "null_is_empty")]
    pub certificates: Vec<Bytes>,
}

/// The server's challenge: exactly one member is set, as the kind of key says.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Challenge {
    #[serde(default)]
    pub rsa_signature: Option<Nonce>,
    #[serde(default)]
    pub ecdsa_signature: Option<Nonce>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Nonce {
    pub nonce: Bytes,
}

/// The agent's answer, with the member of the challenge.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Response {
    #[serde(default)]
    pub rsa_signature: Option<RsaAnswer>,
    #[serde(default)]
    pub ecdsa_signature: Option<EcdsaAnswer>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RsaAnswer {
    pub nonce: Bytes,
    pub signature: Bytes,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EcdsaAnswer {
    pub nonce: Bytes,
    /// Big-endian, without leading zero bytes.
    pub r: Bytes,
    pub s: Bytes,
}

/// Bytes that stand in JSON as standard base64 with padding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        serializer.serialize_str(&base64::engine::general_purpose::STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
        base64::engine::general_purpose::STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Bytes>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a message of at most `limit` bytes.
///
/// # Errors
/// A text that says what was wrong.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8], limit: usize) -> Result<T, String> {
    if bytes.len() > limit {
        return Err(format!("message has {} bytes, expected at most {limit}", bytes.len()));
    }
    serde_json::from_slice(bytes).map_err(|e| e.to_string())
}

/// Writes a message.
///
/// # Errors
/// A text, never for the messages above.
pub(super) fn write(message: &impl Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(message).map_err(|e| e.to_string())
}

/// A fresh nonce.
///
/// # Errors
/// A text if the system has no randomness to give.
pub(super) fn nonce() -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; X509POP_NONCE];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "no randomness from the system".to_owned())?;
    Ok(bytes)
}

/// What is signed: both nonces, the server's first. Its SHA-256 is the digest of the signature, so an API
/// that hashes its input gets these bytes and not their hash.
pub(super) fn signed_bytes(challenge: &[u8], response: &[u8]) -> Vec<u8> {
    [challenge, response].concat()
}

/// Lower hex of the SHA-1 of a certificate, the name SPIRE gives it.
pub(super) fn fingerprint(der: &[u8]) -> String {
    hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, der))
}

/// An ECDSA signature as ASN.1 SEQUENCE of two INTEGERs, from big-endian halves with or without leading zeros;
/// `None` if a half is zero or longer than the field of any curve here (66 bytes, P-521).
pub(super) fn ecdsa_asn1(r: &[u8], s: &[u8]) -> Option<Vec<u8>> {
    let mut body = integer(r)?;
    body.extend(integer(s)?);
    let len = u8::try_from(body.len()).ok()?;
    let mut out = vec![0x30];
    if len > 127 {
        out.push(0x81);
    }
    out.push(len);
    out.extend(body);
    Some(out)
}

fn integer(half: &[u8]) -> Option<Vec<u8>> {
    let digits = minimal(half);
    let first = *digits.first()?;
    if digits.len() > 66 {
        return None;
    }
    let sign = usize::from(first > 127);
    let mut out = vec![0x02, u8::try_from(digits.len() + sign).ok()?];
    out.resize(out.len() + sign, 0);
    out.extend_from_slice(digits);
    Some(out)
}

/// Big-endian digits without leading zeros.
pub(super) fn minimal(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|b| **b == 0).count();
    digits.get(zeros..).unwrap_or_default()
}
