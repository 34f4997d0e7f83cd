//! The keys of a provider (RFC 7517), and the algorithms with which they may have signed.
//!
//! Never a symmetric algorithm or none: the list here is all that there is. A key serves the one algorithm of its type that the
//! token names, and no other if the provider says which.

use avouch_credential::json;
use avouch_credential::jwk;
use avouch_credential::key::{PublicAlgorithm, PublicKey};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::{Map, Value};

use crate::error::SignInFailed;
use crate::limits::KEYS_MAX;

/// How a token may be signed.
pub(crate) struct Algorithm {
    pub(crate) name: &'static str,
    key: PublicAlgorithm,
    verification: &'static dyn VerificationAlgorithm,
}

/// All of them.
pub(crate) static ALGORITHMS: [Algorithm; 4] = [
    Algorithm { name: "RS256", key: PublicAlgorithm::Rsa, verification: &RSA_PKCS1_2048_8192_SHA256 },
    Algorithm { name: "PS256", key: PublicAlgorithm::Rsa, verification: &RSA_PSS_2048_8192_SHA256 },
    Algorithm { name: "ES256", key: PublicAlgorithm::EcP256, verification: &ECDSA_P256_SHA256_FIXED },
    Algorithm { name: "EdDSA", key: PublicAlgorithm::Ed25519, verification: &ED25519 },
];

impl Algorithm {
    pub(crate) fn of(name: &str) -> Option<&'static Self> {
        ALGORITHMS.iter().find(|algorithm| algorithm.name == name)
    }

    pub(crate) fn holds(&self, key: &PublicKey, signed: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.verification, key.raw()).verify(signed, signature).is_ok()
    }
}

/// The keys with which a provider signs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    id: String,
    /// The only algorithm that it serves; `None`: the provider does not say.
    algorithm: Option<String>,
    key: PublicKey,
}

impl KeySet {
    /// Reads a key set. Keys of kinds that are not known here, and those for encryption, are left out.
    ///
    /// # Errors
    /// [`SignInFailed::Answer`].
    pub fn read(bytes: &[u8]) -> Result<Self, SignInFailed> {
        let wrong = |why: &str| SignInFailed::Answer(format!("its keys: {why}"));
        let document = json::object(bytes).map_err(|_| wrong("no JSON object"))?;
        let keys = document.get("keys").and_then(Value::as_array).ok_or_else(|| wrong("no list \"keys\""))?;
        if keys.len() > KEYS_MAX {
            return Err(wrong(&format!("{} of them, expected at most {KEYS_MAX}", keys.len())));
        }
        Ok(Self(keys.iter().filter_map(Value::as_object).filter_map(read_key).collect()))
    }

    /// The key that a token names, if it serves this algorithm.
    pub(crate) fn find(&self, id: &str, algorithm: &Algorithm) -> Option<&PublicKey> {
        let serves = |key: &&Key| {
            key.id == id
                && key.key.algorithm() == algorithm.key
                && key.algorithm.as_deref().is_none_or(|only| only == algorithm.name)
        };
        self.0.iter().find(serves).map(|key| &key.key)
    }
}

fn read_key(members: &Map<String, Value>) -> Option<Key> {
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|usage| usage != "sig") {
        return None;
    }
    let verifies = |operations: &Vec<Value>| operations.iter().any(|one| one == "verify");
    if members.get("key_ops").is_some_and(|ops| !ops.as_array().is_some_and(verifies)) {
        return None;
    }
    let id = text("kid").filter(|id| !id.is_empty())?.to_owned();
    let key = jwk::read(members).ok()?;
    Some(Key { id, algorithm: text("alg").map(str::to_owned), key })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Signer, key_set};

    #[test]
    fn a_key_serves_the_algorithm_of_its_type_and_what_the_provider_says() {
        let (rsa, ec) = (Signer::rsa("a"), Signer::ec("b"));
        let keys = KeySet::read(&key_set(&[&rsa, &ec])).unwrap();
        let find = |id: &str, name: &str| keys.find(id, Algorithm::of(name).unwrap()).is_some();
        assert!(find("a", "RS256") && find("a", "PS256") && find("b", "ES256"));
        assert!(!find("a", "ES256") && !find("b", "RS256") && !find("c", "RS256") && !find("", "RS256"));
        let only = Signer::rsa("a").for_alone("PS256");
        let keys = KeySet::read(&key_set(&[&only])).unwrap();
        assert!(keys.find("a", Algorithm::of("RS256").unwrap()).is_none());
        assert!(keys.find("a", Algorithm::of("PS256").unwrap()).is_some());
    }

    #[test]
    fn what_is_no_key_to_verify_with_is_left_out() {
        let good = Signer::ec("b").jwk();
        let with = |name: &str, value: Value| {
            let mut key = good.clone();
            key.as_object_mut().unwrap().insert(name.into(), value);
            KeySet::read(serde_json::json!({ "keys": [key] }).to_string().as_bytes()).unwrap()
        };
        assert_eq!(with("x-note", "a".into()).0.len(), 1);
        for (name, value) in [
            ("use", Value::from("enc")),
            ("key_ops", serde_json::json!(["encrypt"])),
            ("key_ops", "verify".into()),
            ("kty", "oct".into()),
            ("kid", "".into()),
            ("d", "AA".into()),
            ("x", "AA".into()),
        ] {
            assert_eq!(with(name, value), KeySet::default(), "{name}");
        }
    }

    #[test]
    fn a_key_set_is_bounded() {
        for wrong in ["", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[],\"keys\":[]}"] {
            assert!(KeySet::read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let many = format!("{{\"keys\":[{}1]}}", "1,".repeat(KEYS_MAX));
        assert!(KeySet::read(many.as_bytes()).unwrap_err().to_string().contains("65 of them"));
    }

    #[test]
    fn no_algorithm_is_symmetric_or_none() {
        for name in ["none", "None", "", "HS256", "HS512", "RS1", "RS384", "ES384", "rs256"] {
            assert!(Algorithm::of(name).is_none(), "{name}");
        }
    }
}
