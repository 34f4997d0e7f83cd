//! Private keys that sign SVIDs, and public keys in PKIX form.
//!
//! Private bytes live in zeroized memory, are never printed, and leave only through [`PrivateKey::pkcs8`].

use std::fmt;
use std::sync::Arc;

use avouch_domain::KeyType;
use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1, ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair,
    VerificationAlgorithm,
};
use rustls_pki_types::alg_id;
use zeroize::Zeroizing;

use crate::der::{self, SEQUENCE};
use crate::limits::{RSA_BITS_MAX, RSA_BITS_MIN};
use crate::signer::{SignError, Signer};

/// Why a key can't be made or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("key generation failed")]
    Generation,
    #[error("not a PKCS#8 key of a supported type: expected EC P-256, EC P-384, RSA 2048 or RSA 4096")]
    Private,
    #[error("malformed public key: {0}")]
    Malformed(String),
    #[error(
        "unsupported public key type: expected EC P-256, P-384 or P-521, Ed25519, or RSA of 2048 to 8192 bits"
    )]
    Unsupported,
    #[error("RSA key has {0} bits, expected 2048 to 8192")]
    RsaSize(usize),
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

/// A private key of one of the four [`KeyType`]s, kept in memory.
pub struct PrivateKey {
    pair: Pair,
    key_type: KeyType,
    public: PublicKey,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl PrivateKey {
    /// Makes a new key. RSA takes tens of milliseconds to seconds: not for a reactor thread.
    ///
    /// # Errors
    /// [`KeyError::Generation`] if the library fails.
    pub fn generate(key_type: KeyType) -> Result<Self, KeyError> {
        let pkcs8 = match key_type {
            KeyType::EcP256 => generate_ec(&ECDSA_P256_SHA256_ASN1_SIGNING)?,
            KeyType::EcP384 => generate_ec(&ECDSA_P384_SHA384_ASN1_SIGNING)?,
            KeyType::Rsa2048 => generate_rsa(KeySize::Rsa2048)?,
            KeyType::Rsa4096 => generate_rsa(KeySize::Rsa4096)?,
        };
        Self::from_pkcs8(&pkcs8)
    }

    /// Reads a PKCS#8 DER key.
    ///
    /// # Errors
    /// [`KeyError::Private`] if it is none, or of a type that signs no SVIDs.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, KeyError> {
        let (pair, key_type, spki) = if let Ok(pair) = read_ec(&ECDSA_P256_SHA256_ASN1_SIGNING, bytes) {
            let spki = ec_pkix(&alg_id::ECDSA_P256, &pair);
            (Pair::Ec(pair), KeyType::EcP256, spki)
        } else if let Ok(pair) = read_ec(&ECDSA_P384_SHA384_ASN1_SIGNING, bytes) {
            let spki = ec_pkix(&alg_id::ECDSA_P384, &pair);
            (Pair::Ec(pair), KeyType::EcP384, spki)
        } else {
            let pair = RsaKeyPair::from_pkcs8(bytes).map_err(|_| KeyError::Private)?;
            let key_type = match pair.public_modulus_len() {
                256 => KeyType::Rsa2048,
                512 => KeyType::Rsa4096,
                _ => return Err(KeyError::Private),
            };
            let spki = pkix(&alg_id::RSA_ENCRYPTION, pair.public_key().as_ref());
            (Pair::Rsa(Box::new(pair)), key_type, spki)
        };
        let public = PublicKey::from_pkix(&spki)?;
        Ok(Self { pair, key_type, public, pkcs8: Zeroizing::new(bytes.to_vec()) })
    }

    /// PKCS#8 DER of the key, in memory that is wiped when dropped.
    #[must_use]
    pub fn pkcs8(&self) -> Zeroizing<Vec<u8>> {
        self.pkcs8.clone()
    }

    #[must_use]
    pub fn key_type(&self) -> KeyType {
        self.key_type
    }

    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }
}

impl Signer for PrivateKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let failed = |_| SignError::Failed("the cryptography library refused the key".to_owned());
        match &self.pair {
            Pair::Ec(pair) => Ok(pair.sign(&SystemRandom::new(), message).map_err(failed)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
                    .map_err(failed)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey").field("key_type", &self.key_type).finish_non_exhaustive()
    }
}

/// Kind of a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublicAlgorithm {
    EcP256,
    EcP384,
    EcP521,
    Rsa,
    Ed25519,
}

impl PublicAlgorithm {
    /// Name for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EcP256 => "EC P-256",
            Self::EcP384 => "EC P-384",
            Self::EcP521 => "EC P-521",
            Self::Rsa => "RSA",
            Self::Ed25519 => "Ed25519",
        }
    }
}

/// A public key that is known to be well formed: point on its curve, modulus of a sane size. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    pkix: Arc<[u8]>,
    /// Length of the raw key at the end of `pkix`.
    raw: usize,
    algorithm: PublicAlgorithm,
}

impl PublicKey {
    /// Reads a PKIX key (DER `SubjectPublicKeyInfo`) with nothing behind it.
    ///
    /// # Errors
    /// [`KeyError`] if it is malformed, of an unsupported type, or an RSA key of a refused size.
    pub fn from_pkix(bytes: &[u8]) -> Result<Self, KeyError> {
        let malformed = |e: der::DerError| KeyError::Malformed(e.to_string());
        let mut inner = der::only(bytes, SEQUENCE).map_err(malformed)?.inside();
        let identifier = inner.expect(SEQUENCE).map_err(malformed)?;
        let raw = inner.bits().map_err(malformed)?;
        inner.end().map_err(malformed)?;
        let algorithm = algorithm_of(identifier.content).ok_or(KeyError::Unsupported)?;
        let check: &'static dyn VerificationAlgorithm = match algorithm {
            PublicAlgorithm::EcP256 => &ECDSA_P256_SHA256_ASN1,
            PublicAlgorithm::EcP384 => &ECDSA_P384_SHA384_ASN1,
            PublicAlgorithm::EcP521 => &ECDSA_P521_SHA512_ASN1,
            PublicAlgorithm::Ed25519 => &ED25519,
            PublicAlgorithm::Rsa => {
                check_rsa_size(raw)?;
                &RSA_PKCS1_2048_8192_SHA256
            }
        };
        ParsedPublicKey::new(check, raw).map_err(|e| KeyError::Malformed(e.to_string()))?;
        Ok(Self { pkix: bytes.into(), raw: raw.len(), algorithm })
    }

    /// Builds the key from its kind and raw content: an uncompressed point, an RSAPublicKey, 32 bytes.
    ///
    /// # Errors
    /// As [`Self::from_pkix`].
    pub fn from_raw(algorithm: PublicAlgorithm, raw: &[u8]) -> Result<Self, KeyError> {
        let identifier = match algorithm {
            PublicAlgorithm::EcP256 => alg_id::ECDSA_P256,
            PublicAlgorithm::EcP384 => alg_id::ECDSA_P384,
            PublicAlgorithm::EcP521 => alg_id::ECDSA_P521,
            PublicAlgorithm::Rsa => alg_id::RSA_ENCRYPTION,
            PublicAlgorithm::Ed25519 => alg_id::ED25519,
        };
        Self::from_pkix(&pkix(&identifier, raw))
    }

    /// The whole `SubjectPublicKeyInfo`, DER.
    #[must_use]
    pub fn pkix(&self) -> &[u8] {
        &self.pkix
    }

    /// The content of the BIT STRING: an EC point, an RSAPublicKey, 32 bytes of Ed25519.
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        self.pkix.get(self.pkix.len() - self.raw..).unwrap_or_default()
    }

    /// Subject key identifier: SHA-1 of [`Self::raw`] (RFC 5280 4.2.1.2, method 1).
    #[must_use]
    pub fn ski(&self) -> [u8; 20] {
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, self.raw());
        hash.as_ref().try_into().unwrap_or([0; 20])
    }

    #[must_use]
    pub fn algorithm(&self) -> PublicAlgorithm {
        self.algorithm
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm.name(), hex::encode(self.ski()))
    }
}

fn algorithm_of(identifier: &[u8]) -> Option<PublicAlgorithm> {
    [
        (alg_id::ECDSA_P256, PublicAlgorithm::EcP256),
        (alg_id::ECDSA_P384, PublicAlgorithm::EcP384),
        (alg_id::ECDSA_P521, PublicAlgorithm::EcP521),
        (alg_id::RSA_ENCRYPTION, PublicAlgorithm::Rsa),
        (alg_id::ED25519, PublicAlgorithm::Ed25519),
    ]
    .into_iter()
    .find_map(|(id, algorithm)| (id.as_ref() == identifier).then_some(algorithm))
}

fn check_rsa_size(raw: &[u8]) -> Result<(), KeyError> {
    let malformed = |e: der::DerError| KeyError::Malformed(e.to_string());
    let modulus = der::only(raw, SEQUENCE).and_then(|s| s.inside().unsigned()).map_err(malformed)?;
    let spare = modulus.first().map_or(0, |b| b.leading_zeros() as usize);
    let bits = modulus.len() * 8 - spare;
    if (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) { Ok(()) } else { Err(KeyError::RsaSize(bits)) }
}

fn pkix(identifier: &[u8], raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + 32);
    der::element(&mut out, SEQUENCE, |out| {
        der::primitive(out, SEQUENCE, identifier);
        der::bit_string(out, raw);
    });
    out
}

fn ec_pkix(identifier: &[u8], pair: &EcdsaKeyPair) -> Vec<u8> {
    pkix(identifier, pair.public_key().as_ref())
}

/// Reads an EC key only if the PKCS#8 names this curve (CL-14).
fn read_ec(algorithm: &'static EcdsaSigningAlgorithm, bytes: &[u8]) -> Result<EcdsaKeyPair, KeyError> {
    EcdsaKeyPair::from_pkcs8(algorithm, bytes).map_err(|_| KeyError::Private)
}

fn generate_ec(algorithm: &'static EcdsaSigningAlgorithm) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let pair = EcdsaKeyPair::generate(algorithm).map_err(|_| KeyError::Generation)?;
    let document = pair.to_pkcs8v1().map_err(|_| KeyError::Generation)?;
    Ok(Zeroizing::new(document.as_ref().to_vec()))
}

fn generate_rsa(size: KeySize) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let pair = RsaKeyPair::generate(size).map_err(|_| KeyError::Generation)?;
    let document = pair.as_der().map_err(|_| KeyError::Generation)?;
    Ok(Zeroizing::new(document.as_ref().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::UnparsedPublicKey;

    #[test]
    fn every_key_type_survives_its_pkcs8_form_and_signs() {
        for (key_type, algorithm) in [
            (KeyType::EcP256, &ECDSA_P256_SHA256_ASN1 as &'static dyn VerificationAlgorithm),
            (KeyType::EcP384, &ECDSA_P384_SHA384_ASN1),
            (KeyType::Rsa2048, &RSA_PKCS1_2048_8192_SHA256),
        ] {
            let key = PrivateKey::generate(key_type).unwrap();
            let again = PrivateKey::from_pkcs8(&key.pkcs8()).unwrap();
            assert_eq!((again.key_type(), again.public_key()), (key_type, key.public_key()));
            let signature = again.sign(b"message").unwrap();
            UnparsedPublicKey::new(algorithm, key.public_key().raw()).verify(b"message", &signature).unwrap();
        }
    }

    #[test]
    fn a_p256_key_has_the_138_bytes_that_go_writes() {
        assert_eq!(PrivateKey::generate(KeyType::EcP256).unwrap().pkcs8().len(), 138);
    }

    #[test]
    fn a_public_key_survives_its_raw_form() {
        let key = PrivateKey::generate(KeyType::EcP384).unwrap();
        let public = key.public_key();
        assert_eq!(PublicKey::from_raw(public.algorithm(), public.raw()).as_ref(), Ok(public));
    }

    #[test]
    fn a_point_off_the_curve_is_refused() {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let mut raw = key.public_key().raw().to_vec();
        raw[40] ^= 1;
        assert!(matches!(PublicKey::from_raw(PublicAlgorithm::EcP256, &raw), Err(KeyError::Malformed(_))));
    }

    #[test]
    fn a_short_rsa_modulus_is_refused() {
        let mut raw = Vec::new();
        der::element(&mut raw, SEQUENCE, |out| {
            der::unsigned(out, &[0xff; 128]);
            der::unsigned(out, &[1, 0, 1]);
        });
        assert_eq!(PublicKey::from_raw(PublicAlgorithm::Rsa, &raw), Err(KeyError::RsaSize(1024)));
    }

    #[test]
    fn bytes_behind_a_public_key_are_refused() {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        let mut bytes = key.public_key().pkix().to_vec();
        bytes.push(0);
        assert!(PublicKey::from_pkix(&bytes).is_err());
    }

    #[test]
    fn a_private_key_is_not_printed() {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        assert_eq!(format!("{key:?}"), "PrivateKey { key_type: EcP256, .. }");
    }
}
