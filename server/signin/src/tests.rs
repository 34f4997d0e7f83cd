//! Tests of the ID token and of what is asked: each rule broken alone.

use std::sync::LazyLock;
use std::time::Duration;

use avouch_domain::{Issuer, Timestamp};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::document::Document;
use crate::flow::Flow;
use crate::keys::KeySet;
use crate::limits::TOKEN_MAX;
use crate::token::{Expected, Verified, verify};
use crate::{Client, TokenError, Wanted};

const ISSUER: &str = "https://idp.example.org/a";
const NOW: i64 = 1_800_000_000;

enum Pair {
    Rsa(&'static RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// A key of a provider.
pub(crate) struct Signer {
    id: &'static str,
    pair: Pair,
    /// The algorithm that the key set says.
    says: Option<&'static str>,
}

static RSA: LazyLock<RsaKeyPair> = LazyLock::new(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap());

impl Signer {
    pub(crate) fn rsa(id: &'static str) -> Self {
        Self { id, pair: Pair::Rsa(&RSA), says: None }
    }

    pub(crate) fn for_alone(self, algorithm: &'static str) -> Self {
        Self { says: Some(algorithm), ..self }
    }

    pub(crate) fn ec(id: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { id, pair: Pair::Ec(pair), says: None }
    }

    fn ed(id: &'static str) -> Self {
        Self { id, pair: Pair::Ed(Ed25519KeyPair::generate().unwrap()), says: None }
    }

    pub(crate) fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut key = match &self.pair {
            Pair::Rsa(pair) => {
                let public = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                json!({
                    "kty": "RSA",
                    "n": text(n.big_endian_without_leading_zero()),
                    "e": text(e.big_endian_without_leading_zero()),
                })
            }
            Pair::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            Pair::Ed(pair) => json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())}),
        };
        key["kid"] = self.id.into();
        key["use"] = "sig".into();
        if let Some(says) = self.says {
            key["alg"] = says.into();
        }
        key
    }

    fn rsa_signature(pair: &RsaKeyPair, how: &'static dyn RsaEncoding, text: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(how, &SystemRandom::new(), text, &mut signature).unwrap();
        signature
    }

    fn sign(&self, algorithm: &str, text: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::Rsa(pair) if algorithm == "PS256" => Self::rsa_signature(pair, &RSA_PSS_SHA256, text),
            Pair::Rsa(pair) => Self::rsa_signature(pair, &RSA_PKCS1_SHA256, text),
            Pair::Ec(pair) => pair.sign(&SystemRandom::new(), text).unwrap().as_ref().to_vec(),
            Pair::Ed(pair) => pair.sign(text).as_ref().to_vec(),
        }
    }

    fn token(&self, algorithm: &str, claims: &Value) -> String {
        self.token_with(&json!({"alg": algorithm, "kid": self.id}), claims)
    }

    fn token_with(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        let algorithm = header["alg"].as_str().unwrap_or_default().to_owned();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.sign(&algorithm, signed.as_bytes())))
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

pub(crate) fn key_set(signers: &[&Signer]) -> Vec<u8> {
    let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "sub": "248289761001", "aud": "avouch", "nonce": "n-0S6_WzA2Mj",
        "iat": NOW - 1, "exp": NOW + 3600, "auth_time": NOW - 20, "email": "eve@example.org",
    })
}

fn verified(token: &str, keys: &KeySet) -> Result<Verified, TokenError> {
    let issuer = Issuer::new(ISSUER).unwrap();
    let expected = Expected {
        issuer: &issuer,
        client_id: "avouch",
        nonce: "n-0S6_WzA2Mj",
        signed_in_after: Timestamp::from_secs(NOW - 300),
    };
    verify(token, keys, &expected, Timestamp::from_secs(NOW))
}

/// What becomes of a token with one claim changed; `null` removes it.
fn with(name: &str, value: Value) -> Result<Verified, TokenError> {
    let signer = Signer::rsa("k");
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    verified(&signer.token("RS256", &claims), &KeySet::read(&key_set(&[&signer])).unwrap())
}

#[test]
fn a_token_that_holds_says_who_signed_in_and_when() {
    for (signer, algorithm) in [
        (Signer::rsa("k"), "RS256"),
        (Signer::rsa("k"), "PS256"),
        (Signer::ec("k"), "ES256"),
        (Signer::ed("k"), "EdDSA"),
    ] {
        let keys = KeySet::read(&key_set(&[&signer])).unwrap();
        let verified = verified(&signer.token(algorithm, &claims()), &keys).unwrap();
        let (issuer, subject) = (verified.sign_in.issuer.as_str(), verified.sign_in.subject.as_str());
        assert_eq!((issuer, subject), (ISSUER, "248289761001"), "{algorithm}");
        assert_eq!(verified.at, Timestamp::from_secs(NOW - 20));
    }
}

#[test]
fn another_issuer_is_refused_byte_by_byte() {
    for other in ["https://idp.example.org/a/", "https://idp.example.org", "https://IDP.example.org/a", ""] {
        assert_eq!(with("iss", other.into()), Err(TokenError::Issuer), "{other}");
    }
    assert_eq!(with("iss", Value::Null), Err(TokenError::Claim("iss")));
}

#[test]
fn a_token_for_somebody_else_is_refused() {
    assert!(with("aud", json!(["avouch"])).is_ok());
    for other in [json!("other"), json!(["other"]), json!([]), json!("avouch2")] {
        assert_eq!(with("aud", other.clone()), Err(TokenError::Audience), "{other}");
    }
    for none in [Value::Null, json!(7), json!([7])] {
        assert_eq!(with("aud", none.clone()), Err(TokenError::Claim("aud")), "{none}");
    }
}

#[test]
fn of_several_audiences_the_token_was_given_to_this_one() {
    let signer = Signer::rsa("k");
    let keys = KeySet::read(&key_set(&[&signer])).unwrap();
    let with = |aud: Value, azp: Value| {
        let mut claims = claims();
        claims["aud"] = aud;
        if azp != Value::Null {
            claims["azp"] = azp;
        }
        verified(&signer.token("RS256", &claims), &keys)
    };
    let several = json!(["avouch", "other"]);
    assert!(with(several.clone(), "avouch".into()).is_ok());
    assert_eq!(with(several.clone(), Value::Null), Err(TokenError::Party));
    assert_eq!(with(several, "other".into()), Err(TokenError::Party));
    assert_eq!(with("avouch".into(), "other".into()), Err(TokenError::Party));
    assert_eq!(with("avouch".into(), json!(7)), Err(TokenError::Claim("azp")));
}

#[test]
fn a_token_that_has_expired_is_refused_after_a_minutes_leeway() {
    assert!(with("exp", (NOW - 59).into()).is_ok());
    assert_eq!(with("exp", (NOW - 60).into()), Err(TokenError::Expired));
    assert_eq!(with("exp", i64::MIN.into()), Err(TokenError::Expired));
    for none in [Value::Null, "9999999999".into()] {
        assert_eq!(with("exp", none), Err(TokenError::Claim("exp")));
    }
}

#[test]
fn a_token_from_the_future_is_refused() {
    assert!(with("iat", (NOW + 60).into()).is_ok());
    assert_eq!(with("iat", (NOW + 61).into()), Err(TokenError::Future("iat")));
    assert_eq!(with("iat", Value::Null), Err(TokenError::Claim("iat")));
    assert_eq!(with("auth_time", (NOW + 61).into()), Err(TokenError::Future("auth_time")));
    assert_eq!(with("auth_time", json!(1e300)), Err(TokenError::Future("auth_time")));
}

#[test]
fn a_token_that_answers_another_question_is_refused() {
    for other in ["", "n-0S6_WzA2M", "n-0S6_WzA2Mk", "n-0S6_WzA2Mj "] {
        assert_eq!(with("nonce", other.into()), Err(TokenError::Nonce), "{other}");
    }
    assert_eq!(with("nonce", Value::Null), Err(TokenError::Claim("nonce")));
}

#[test]
fn a_token_says_when_somebody_signed_in_and_not_too_long_ago() {
    assert_eq!(with("auth_time", Value::Null), Err(TokenError::Claim("auth_time")));
    assert_eq!(with("auth_time", "1".into()), Err(TokenError::Claim("auth_time")));
    assert_eq!(with("auth_time", (NOW - 361).into()), Err(TokenError::Old));
    assert!(with("auth_time", (NOW - 360).into()).is_ok(), "a minute of leeway");
    let at = |value: Value| with("auth_time", value).unwrap().at;
    assert_eq!(at(json!(NOW + 30)), Timestamp::from_secs(NOW), "never later than now");
    assert_eq!(at(json!(f64::from(1_799_999_990_u32) + 0.75)), Timestamp::from_secs(1_799_999_990));
}

#[test]
fn a_token_names_an_account_that_can_be_kept() {
    for wrong in [json!(""), json!("\u{e9}"), json!("x".repeat(256)), json!("a\nb")] {
        assert!(matches!(with("sub", wrong.clone()), Err(TokenError::Subject(_))), "{wrong}");
    }
    assert_eq!(with("sub", Value::Null), Err(TokenError::Claim("sub")), "no address stands in for it");
}

#[test]
fn no_token_without_a_signature_or_with_a_symmetric_one_holds() {
    let signer = Signer::rsa("k");
    let keys = KeySet::read(&key_set(&[&signer])).unwrap();
    for name in ["none", "None", "", "HS256", "RS512", "ES384"] {
        let token = signer.token_with(&json!({"alg": name, "kid": "k"}), &claims());
        assert_eq!(verified(&token, &keys), Err(TokenError::Algorithm), "{name}");
    }
    // The public key as a secret that everybody knows.
    let signed = unsigned(&json!({"alg": "HS256", "kid": "k"}), &claims());
    let secret = hmac::Key::new(hmac::HMAC_SHA256, RSA.public_key().as_ref());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&secret, signed.as_bytes())));
    assert_eq!(verified(&token, &keys), Err(TokenError::Algorithm));
    let bare = format!("{}.", unsigned(&json!({"alg": "RS256", "kid": "k"}), &claims()));
    assert_eq!(verified(&bare, &keys), Err(TokenError::Signature));
}

#[test]
fn an_algorithm_that_does_not_fit_the_key_is_refused() {
    let (rsa, ec) = (Signer::rsa("k"), Signer::ec("k"));
    let only_ec = KeySet::read(&key_set(&[&ec])).unwrap();
    assert_eq!(verified(&rsa.token("RS256", &claims()), &only_ec), Err(TokenError::UnknownKey));
    let pss = Signer::rsa("k").for_alone("PS256");
    let only_pss = KeySet::read(&key_set(&[&pss])).unwrap();
    assert_eq!(verified(&rsa.token("RS256", &claims()), &only_pss), Err(TokenError::UnknownKey));
    let both = KeySet::read(&key_set(&[&ec, &rsa])).unwrap();
    assert!(verified(&rsa.token("RS256", &claims()), &both).is_ok(), "one name for two keys");
}

#[test]
fn a_token_of_another_key_or_with_other_claims_is_refused() {
    let (ours, theirs) = (Signer::ec("k"), Signer::ec("k"));
    let keys = KeySet::read(&key_set(&[&ours])).unwrap();
    assert_eq!(verified(&theirs.token("ES256", &claims()), &keys), Err(TokenError::Signature));
    let token = ours.token("ES256", &claims());
    let mut parts: Vec<_> = token.split('.').collect();
    let other = URL_SAFE_NO_PAD.encode(claims().to_string().replace("248289761001", "1"));
    parts[1] = &other;
    assert_eq!(verified(&parts.join("."), &keys), Err(TokenError::Signature));
    let unknown = Signer::ec("other").token("ES256", &claims());
    assert_eq!(verified(&unknown, &keys), Err(TokenError::UnknownKey));
    let nameless = ours.token_with(&json!({"alg": "ES256"}), &claims());
    assert_eq!(verified(&nameless, &keys), Err(TokenError::NoKeyId));
}

#[test]
fn what_is_no_token_is_refused() {
    let signer = Signer::ec("k");
    let keys = KeySet::read(&key_set(&[&signer])).unwrap();
    let long = "a".repeat(TOKEN_MAX + 1);
    for wrong in ["", ".", "a.b", "a.b.c.d", "e30.e30", "{}.{}.{}", "bm9uZQ.e30.e30", long.as_str()] {
        assert!(matches!(verified(wrong, &keys), Err(TokenError::Form(_))), "{wrong}");
    }
    let critical = json!({"alg": "ES256", "kid": "k", "crit": ["exp"]});
    assert!(matches!(verified(&signer.token_with(&critical, &claims()), &keys), Err(TokenError::Form(_))));
    let twice = claims().to_string().replacen('{', "{\"sub\":\"1\",", 1);
    let header = URL_SAFE_NO_PAD.encode(json!({"alg": "ES256", "kid": "k"}).to_string());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(twice));
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signer.sign("ES256", signed.as_bytes())));
    assert!(matches!(verified(&token, &keys), Err(TokenError::Form(_))), "a claim that stands twice");
}

fn client(secret: Option<&str>) -> Client {
    Client {
        issuer: Issuer::new(ISSUER).unwrap(),
        id: "av:ouch".into(),
        secret: secret.map(|secret| secret.to_owned().into()),
        redirect: "http://127.0.0.1:8090/signed-in".into(),
        after: "http://127.0.0.1:8090/".into(),
        roots: Vec::new(),
    }
}

fn document(methods: &[&str]) -> Document {
    let document = json!({
        "issuer": ISSUER,
        "authorization_endpoint": "https://idp.example.org/a/auth?tenant=1",
        "token_endpoint": "https://idp.example.org/a/token",
        "jwks_uri": "https://idp.example.org/a/keys",
        "token_endpoint_auth_methods_supported": methods,
    });
    Document::read(document.to_string().as_bytes(), &Issuer::new(ISSUER).unwrap()).unwrap()
}

fn fields(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

fn get<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

#[test]
fn what_is_asked_names_one_flow_and_its_code_takes_the_secret_that_was_not_sent() {
    let now = Timestamp::from_secs(NOW);
    let within = Wanted::Within(Duration::from_secs(3600));
    let flow = Flow::new(within, now).unwrap();
    let url = flow.url(&document(&[]), &client(None), within, "s t");
    let asked = fields(url.split_once('?').unwrap().1);
    for (name, value) in [
        ("tenant", "1"),
        ("response_type", "code"),
        ("scope", "openid"),
        ("client_id", "av:ouch"),
        ("redirect_uri", "http://127.0.0.1:8090/signed-in"),
        ("state", "s t"),
        ("code_challenge_method", "S256"),
        ("max_age", "3600"),
    ] {
        assert_eq!(get(&asked, name), Some(value), "{name}");
    }
    assert_eq!((get(&asked, "nonce"), get(&asked, "prompt")), (Some(flow.nonce()), None));
    let form = flow.form(&document(&[]), &client(None), "c").unwrap();
    let sent = fields(&form.body);
    let verifier = get(&sent, "code_verifier").unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
    assert_eq!(get(&asked, "code_challenge"), Some(URL_SAFE_NO_PAD.encode(digest).as_str()));
    assert!(verifier.len() >= 43 && !url.contains(verifier));
    let other = Flow::new(within, now).unwrap();
    assert_ne!(other.nonce(), flow.nonce());
    assert!(!format!("{flow:?}").contains(flow.nonce()));
}

#[test]
fn a_fresh_sign_in_makes_the_provider_ask_and_takes_none_from_before() {
    let now = Timestamp::from_secs(NOW);
    let fresh = Flow::new(Wanted::Fresh, now).unwrap();
    assert_eq!(fresh.signed_in_after(), now);
    let url = fresh.url(&document(&[]), &client(None), Wanted::Fresh, "s");
    let asked = fields(url.split_once('?').unwrap().1);
    assert_eq!((get(&asked, "prompt"), get(&asked, "max_age")), (Some("login"), Some("0")));
}

#[test]
fn a_secret_goes_into_the_header_unless_the_provider_takes_it_in_the_form_alone() {
    let flow = Flow::new(Wanted::Fresh, Timestamp::from_secs(NOW)).unwrap();
    let basic = ["client_secret_basic", "client_secret_post"];
    let form = flow.form(&document(&basic), &client(Some("s+cret")), "c").unwrap();
    let header = form.authorization.unwrap();
    let expected = base64::engine::general_purpose::STANDARD.encode("av%3Aouch:s%2Bcret");
    assert_eq!(header.to_str().unwrap(), format!("Basic {expected}"));
    assert!(header.is_sensitive() && !form.body.contains("cret"));
    let form = flow.form(&document(&["client_secret_post"]), &client(Some("s+cret")), "c").unwrap();
    assert_eq!(get(&fields(&form.body), "client_secret"), Some("s+cret"));
    assert!(form.authorization.is_none());
    let public = flow.form(&document(&basic), &client(None), "c").unwrap();
    assert!(public.authorization.is_none() && get(&fields(&public.body), "client_secret").is_none());
    assert!(!format!("{:?}", client(Some("s+cret"))).contains("cret"));
}
