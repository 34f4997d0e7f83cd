//! Credentials made by hand: tokens and certificates with exactly one thing wrong, signed by a real authority's key.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::{Value, json};

/// Seconds since the Unix epoch. The tests' one look at a clock: what they forge must be of now.
#[allow(clippy::disallowed_methods)]
pub fn now() -> i64 {
    i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs())
        .unwrap()
}

/// A token to be signed; change what should be wrong.
#[derive(Clone, Debug)]
pub struct Token {
    pub header: Value,
    pub claims: Value,
}

impl Token {
    /// A good token for `id`, audience `x`, valid for five minutes.
    pub fn new(kid: &str, id: &str) -> Self {
        Self {
            header: json!({"alg": "ES256", "kid": kid, "typ": "JWT"}),
            claims: json!({"aud": ["x"], "exp": now() + 300, "iat": now(), "sub": id}),
        }
    }

    #[must_use]
    pub fn with_header(mut self, name: &str, value: Value) -> Self {
        set(&mut self.header, name, value);
        self
    }

    /// `Value::Null` takes the claim out.
    #[must_use]
    pub fn with_claim(mut self, name: &str, value: Value) -> Self {
        set(&mut self.claims, name, value);
        self
    }

    /// The first two parts.
    pub fn unsigned(&self) -> String {
        let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
        format!("{}.{}", part(&self.header), part(&self.claims))
    }

    /// Compact form, signed by a P-256 key (PKCS#8) whatever the header says.
    pub fn sign(&self, pkcs8: &[u8]) -> String {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8).unwrap();
        let text = self.unsigned();
        let signature = key.sign(&SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

fn set(object: &mut Value, name: &str, value: Value) {
    let object = object.as_object_mut().unwrap();
    if value.is_null() {
        object.remove(name);
    } else {
        object.insert(name.to_owned(), value);
    }
}

/// Header and claims of a compact token, without any check.
pub fn open(token: &str) -> (Value, Value) {
    let mut parts = token.split('.').map(|p| URL_SAFE_NO_PAD.decode(p).unwrap());
    let mut json = || serde_json::from_slice(&parts.next().unwrap()).unwrap();
    (json(), json())
}

/// An X.509 authority whose key the test has.
pub struct Authority {
    pub der: Vec<u8>,
    pub key: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// A leaf and its key.
pub struct Leaf {
    pub der: Vec<u8>,
    pub key: Vec<u8>,
}

impl Authority {
    /// From a certificate and its key (PKCS#8).
    pub fn from_parts(der: &[u8], key: &[u8]) -> Self {
        let pair = KeyPair::try_from(key).unwrap();
        let issuer = Issuer::from_ca_cert_der(&der.to_vec().into(), pair).unwrap();
        Self { der: der.to_vec(), key: key.to_vec(), issuer }
    }

    /// A fresh self-signed authority with this URI SAN.
    pub fn fresh(id: &str) -> Self {
        Self::fresh_with(id, |_| {})
    }

    /// As [`Authority::fresh`], with a change.
    pub fn fresh_with(id: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let pair = KeyPair::generate().unwrap();
        let mut params = authority_params(id);
        change(&mut params);
        let der = params.self_signed(&pair).unwrap().der().to_vec();
        Self::from_parts(&der, &pair.serialize_der())
    }

    /// An authority below this one.
    pub fn below(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let pair = KeyPair::generate().unwrap();
        let mut params = authority_params("spiffe://example.org");
        params.distinguished_name.push(DnType::CommonName, "intermediate");
        change(&mut params);
        let der = params.signed_by(&pair, &self.issuer).unwrap().der().to_vec();
        Self::from_parts(&der, &pair.serialize_der())
    }

    /// A good leaf for `id`.
    pub fn leaf(&self, id: &str) -> Leaf {
        self.leaf_with(id, |_| {})
    }

    /// A leaf with something changed.
    pub fn leaf_with(&self, id: &str, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let pair = KeyPair::generate().unwrap();
        let mut params = leaf_params(id);
        change(&mut params);
        Leaf { der: params.signed_by(&pair, &self.issuer).unwrap().der().to_vec(), key: pair.serialize_der() }
    }
}

fn authority_params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri(id)];
    params.distinguished_name.push(DnType::OrganizationName, "FORGED");
    params
}

fn leaf_params(id: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![uri(id)];
    params.use_authority_key_identifier_extension = true;
    params
}

/// A URI SAN.
pub fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}
