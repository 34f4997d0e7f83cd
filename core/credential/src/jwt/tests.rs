//! Tokens of our own and forged ones.

use std::sync::Arc;

use avouch_domain::{Bundle, JwtAuthority, JwtSvid, KeyType, Timestamp};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::issue::{JwtIssueError, JwtIssuer, JwtTemplate};
use super::verify::{JwtError, JwtKeys, VerifiedJwt, peek, verify};
use crate::fixtures::{HOUR, NOW, domain, id, key};
use crate::key::PrivateKey;
use crate::signer::Signer;

const WEB: &str = "spiffe://example.org/web";

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|t| (*t).to_owned()).collect()
}

fn bundle_of(name: &str, kid: &str, key: &PrivateKey) -> Bundle {
    let mut bundle = Bundle::empty(domain(name));
    bundle.jwt_authorities.push(JwtAuthority {
        key_id: kid.into(),
        public_key: key.public_key().pkix().into(),
        expires_at: None,
        tainted: false,
    });
    bundle
}

/// An authority "K" of example.org.
struct Authority {
    key: Arc<PrivateKey>,
    keys: JwtKeys,
}

fn authority(key_type: KeyType) -> Authority {
    let key = Arc::new(key(key_type));
    Authority { keys: JwtKeys::new([&bundle_of("example.org", "K", &key)]), key }
}

impl Authority {
    fn issuer(&self) -> JwtIssuer {
        JwtIssuer::new("K", self.key.clone(), NOW + HOUR).unwrap()
    }

    fn token(&self, audience: &[&str]) -> JwtSvid {
        let (id, audience) = (id(WEB), texts(audience));
        let template = JwtTemplate { audience: &audience, ..template(&id) };
        self.issuer().sign(&template).unwrap()
    }

    /// Signs any header and claims; ES256 keys only.
    fn forge(&self, header: &serde_json::Value, claims: &str) -> String {
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
        let pair = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(
            &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            &self.key.pkcs8(),
        )
        .unwrap();
        let signature = pair.sign(&aws_lc_rs::rand::SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn verify(&self, token: &str) -> Result<VerifiedJwt, JwtError> {
        verify(token, &self.keys, &texts(&["x"]), NOW)
    }

    /// The answer to good claims with some replaced; null takes one out.
    fn claims(&self, changes: &[(&str, serde_json::Value)]) -> Result<VerifiedJwt, JwtError> {
        let mut claims = json!({"aud": ["x"], "exp": NOW.secs() + 60, "sub": WEB});
        for (name, value) in changes {
            claims[*name] = value.clone();
        }
        self.verify(&self.forge(&header(), &claims.to_string()))
    }

    /// The answer to a good token under another header.
    fn header(&self, header: serde_json::Value) -> Result<VerifiedJwt, JwtError> {
        let claims = json!({"aud": ["x"], "exp": NOW.secs() + 60, "sub": WEB});
        self.verify(&self.forge(&header, &claims.to_string()))
    }
}

fn template(id: &avouch_domain::SpiffeId) -> JwtTemplate<'_> {
    JwtTemplate { id, audience: &[], issuer: None, jti: None, now: NOW, ttl: HOUR / 12 }
}

fn header() -> serde_json::Value {
    json!({"alg": "ES256", "kid": "K", "typ": "JWT"})
}

fn part(token: &str, index: usize) -> String {
    let part = token.split('.').nth(index).unwrap();
    String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn header_and_claims_have_spires_form() {
    let authority = authority(KeyType::EcP256);
    let token = authority.token(&["b", "", "a"]);
    assert_eq!(part(&token.token, 0), r#"{"alg":"ES256","kid":"K","typ":"JWT"}"#);
    let (iat, exp) = (NOW.secs(), NOW.secs() + 300);
    assert_eq!(
        part(&token.token, 1),
        format!(r#"{{"aud":["b","a"],"exp":{exp},"iat":{iat},"sub":"{WEB}"}}"#)
    );
    assert_eq!((token.issued_at.secs(), token.expires_at.secs()), (iat, exp));
}

#[test]
fn issuer_and_token_id_stand_in_the_order_of_their_names() {
    let id = id(WEB);
    let audience = texts(&["q"]);
    let template =
        JwtTemplate { issuer: Some("https://i"), jti: Some("J"), audience: &audience, ..template(&id) };
    let token = authority(KeyType::EcP256).issuer().sign(&template).unwrap();
    let claims = part(&token.token, 1);
    let (iat, exp) = (NOW.secs(), NOW.secs() + 300);
    assert_eq!(
        claims,
        format!(r#"{{"aud":["q"],"exp":{exp},"iat":{iat},"iss":"https://i","jti":"J","sub":"{WEB}"}}"#)
    );
}

#[test]
fn tokens_of_every_key_type_verify() {
    for (key_type, alg) in
        [(KeyType::EcP256, "ES256"), (KeyType::EcP384, "ES384"), (KeyType::Rsa2048, "RS256")]
    {
        let authority = authority(key_type);
        let token = authority.token(&["x"]);
        assert!(part(&token.token, 0).contains(alg));
        let verified = authority.verify(&token.token).unwrap();
        assert_eq!((verified.id, verified.audience), (id(WEB), texts(&["x"])));
    }
}

#[test]
fn a_token_never_outlives_its_key() {
    let authority = authority(KeyType::EcP256);
    let (id, audience) = (id(WEB), texts(&["x"]));
    let long = JwtTemplate { audience: &audience, ttl: HOUR * 9, ..template(&id) };
    assert_eq!(authority.issuer().sign(&long).unwrap().expires_at, Timestamp::from_secs((NOW + HOUR).secs()));
    let late = JwtTemplate { now: NOW + HOUR, ..long };
    assert_eq!(authority.issuer().sign(&late), Err(JwtIssueError::KeyExpired));
}

#[test]
fn jwt_10_an_audience_is_required() {
    let authority = authority(KeyType::EcP256);
    for audience in [texts(&[]), texts(&[""])] {
        let id = id(WEB);
        let refused = authority.issuer().sign(&JwtTemplate { audience: &audience, ..template(&id) });
        assert_eq!(refused.unwrap_err().to_string(), "at least one audience is required");
    }
}

#[test]
fn a_caller_states_audience_and_token() {
    let authority = authority(KeyType::EcP256);
    let none = verify("t", &authority.keys, &[], NOW).unwrap_err();
    assert_eq!(none.to_string(), "audience must be specified");
    assert_eq!(authority.verify("").unwrap_err().to_string(), "svid must be specified");
}

#[test]
fn jwt_02_only_the_compact_form_is_read() {
    let authority = authority(KeyType::EcP256);
    for bad in ["a", "a.b", "a.b.c.d", r#"{"payload":"","signatures":[]}"#, "..", "e30.e30.="] {
        let error = authority.verify(bad).unwrap_err().to_string();
        assert!(error.starts_with("unable to parse JWT token: "), "{bad}: {error}");
    }
}

#[test]
fn jwt_05_algorithms_off_the_list_are_refused_before_anything_else() {
    let authority = authority(KeyType::EcP256);
    for alg in ["none", "HS256", "EdDSA", "es256", ""] {
        let error = authority.header(json!({"alg": alg, "typ": "x"})).unwrap_err().to_string();
        assert_eq!(error, format!("unable to parse JWT token: unexpected signature algorithm {alg:?}"));
    }
}

#[test]
fn jwt_05_an_algorithm_has_to_fit_the_type_of_the_key() {
    let authority = authority(KeyType::EcP256);
    for alg in ["RS256", "PS256", "ES384", "ES512"] {
        let error = authority.header(json!({"alg": alg, "kid": "K"})).unwrap_err();
        assert!(matches!(error, JwtError::Algorithm(..)), "{alg}");
    }
}

#[test]
fn jwt_06_a_key_id_is_required() {
    let authority = authority(KeyType::EcP256);
    for header in [json!({"alg": "ES256"}), json!({"alg": "ES256", "kid": ""})] {
        assert_eq!(authority.header(header).unwrap_err().to_string(), "token header missing key id");
    }
}

#[test]
fn jwt_07_a_type_is_jwt_or_jose() {
    let authority = authority(KeyType::EcP256);
    for ok in [json!("JWT"), json!("JOSE")] {
        assert!(authority.header(json!({"alg": "ES256", "kid": "K", "typ": ok})).is_ok());
    }
    assert!(authority.header(json!({"alg": "ES256", "kid": "K"})).is_ok());
    for bad in [json!("at+jwt"), json!("wit+jwt"), json!("jwt"), json!(1)] {
        let error = authority.header(json!({"alg": "ES256", "kid": "K", "typ": bad})).unwrap_err();
        assert!(matches!(error, JwtError::Type(_)), "{bad}");
    }
}

#[test]
fn critical_header_parameters_are_refused() {
    let authority = authority(KeyType::EcP256);
    assert!(authority.header(json!({"alg": "ES256", "kid": "K", "crit": ["x"], "x": 1})).is_err());
}

#[test]
fn jwt_09_the_subject_is_a_spiffe_id() {
    let authority = authority(KeyType::EcP256);
    for none in [json!(null), json!("")] {
        let error = authority.claims(&[("sub", none)]).unwrap_err();
        assert_eq!(error.to_string(), "token missing subject claim");
    }
    let error = authority.claims(&[("sub", json!("alice"))]).unwrap_err();
    assert_eq!(error.to_string(), "token has an invalid subject claim: scheme is missing or invalid");
}

#[test]
fn jwt_11_a_token_without_audience_is_refused() {
    let authority = authority(KeyType::EcP256);
    for none in [json!(null), json!([])] {
        let error = authority.claims(&[("aud", none)]).unwrap_err();
        assert_eq!(error.to_string(), r#"expected audience in ["x"] (audience=[])"#);
    }
}

#[test]
fn jwt_12_audiences_are_compared_exactly() {
    let authority = authority(KeyType::EcP256);
    let error = authority.claims(&[("aud", json!(["b", "a"]))]).unwrap_err();
    assert_eq!(error.to_string(), r#"expected audience in ["x"] (audience=["b" "a"])"#);
    for near in ["X", "x/", " x"] {
        assert!(authority.claims(&[("aud", json!([near]))]).is_err());
    }
    assert!(authority.claims(&[("aud", json!(["a", "x"]))]).is_ok());
}

#[test]
fn jwt_13_an_audience_may_be_one_text() {
    let verified = authority(KeyType::EcP256).claims(&[("aud", json!("x"))]).unwrap();
    assert_eq!((verified.audience, &verified.claims["aud"]), (texts(&["x"]), &json!("x")));
}

#[test]
fn jwt_16_an_end_is_required() {
    let error = authority(KeyType::EcP256).claims(&[("exp", json!(null))]).unwrap_err();
    assert_eq!(error.to_string(), "token missing exp claim");
}

#[test]
fn jwt_17_a_minute_of_leeway_is_granted_after_the_end() {
    let authority = authority(KeyType::EcP256);
    let at = |secs: i64| authority.claims(&[("exp", json!(NOW.secs() + secs))]);
    assert!(at(-59).is_ok());
    assert_eq!(at(-61).unwrap_err().to_string(), "token has expired");
}

#[test]
fn jwt_18_the_beginning_counts_if_stated() {
    let authority = authority(KeyType::EcP256);
    assert!(authority.claims(&[("nbf", json!(NOW.secs() + 60))]).is_ok());
    assert_eq!(authority.claims(&[("nbf", json!(NOW.secs() + 62))]), Err(JwtError::NotYetValid));
    assert_eq!(authority.claims(&[("iat", json!(NOW.secs() + 62))]), Err(JwtError::IssuedInTheFuture));
}

#[test]
fn times_may_have_a_fraction() {
    assert!(authority(KeyType::EcP256).claims(&[("exp", json!(1e12))]).is_ok());
    assert!(authority(KeyType::EcP256).claims(&[("exp", json!("soon"))]).is_err());
}

#[test]
fn jwt_20_other_claims_survive() {
    let verified = authority(KeyType::EcP256).claims(&[("org.example", json!({"a": 1}))]).unwrap();
    assert_eq!(verified.claims["org.example"], json!({"a": 1}));
}

#[test]
fn jwt_26_an_unknown_trust_domain_has_no_keys() {
    let authority = authority(KeyType::EcP256);
    let error = authority.claims(&[("sub", json!("spiffe://other.org/a"))]).unwrap_err();
    assert_eq!(error.to_string(), r#"no keys found for trust domain "other.org""#);
}

#[test]
fn jwt_27_the_key_is_one_of_the_subjects_trust_domain() {
    let (own, other) = (key(KeyType::EcP256), key(KeyType::EcP256));
    let bundles = [bundle_of("example.org", "K", &own), bundle_of("other.org", "K", &other)];
    let forger = Authority { key: Arc::new(other), keys: JwtKeys::new(&bundles) };
    assert_eq!(forger.claims(&[]), Err(JwtError::Signature));
    assert!(forger.claims(&[("sub", json!("spiffe://other.org/a"))]).is_ok());
}

#[test]
fn an_unknown_key_is_named() {
    let authority = authority(KeyType::EcP256);
    let error = authority.header(json!({"alg": "ES256", "kid": "other"})).unwrap_err();
    assert_eq!(error.to_string(), r#"public key "other" not found in trust domain "example.org""#);
}

#[test]
fn a_changed_token_fails_its_signature() {
    let authority = authority(KeyType::EcP256);
    let token = authority.token(&["x"]).token.to_string();
    let mut parts: Vec<_> = token.split('.').map(str::to_owned).collect();
    parts[1] = URL_SAFE_NO_PAD.encode(part(&token, 1).replace("/web", "/db"));
    assert_eq!(authority.verify(&parts.join(".")), Err(JwtError::Signature));
}

#[test]
fn a_signature_in_asn1_form_is_refused() {
    let authority = authority(KeyType::EcP256);
    let token = authority.token(&["x"]).token.to_string();
    let signed = token.rsplit_once('.').unwrap().0;
    let signature = authority.key.sign(signed.as_bytes()).unwrap();
    let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
    assert_eq!(authority.verify(&forged), Err(JwtError::Signature));
}

#[test]
fn a_claim_that_stands_twice_is_refused() {
    let authority = authority(KeyType::EcP256);
    let claims = format!(r#"{{"aud":"x","exp":9999999999,"sub":"{WEB}","sub":"spiffe://example.org/db"}}"#);
    assert!(matches!(authority.verify(&authority.forge(&header(), &claims)), Err(JwtError::Parse(_))));
}

#[test]
fn a_long_token_is_not_read() {
    let error = authority(KeyType::EcP256).verify(&"a".repeat(65_537)).unwrap_err();
    assert_eq!(error.to_string(), "unable to parse JWT token: 65537 bytes, expected at most 65536");
}

#[test]
fn a_token_of_our_own_server_is_read_unverified() {
    let token = authority(KeyType::EcP256).token(&["b", "a"]);
    let peeked = peek(&token.token).unwrap();
    assert_eq!((peeked.id, peeked.audience, &*peeked.key_id), (id(WEB), texts(&["b", "a"]), "K"));
    assert_eq!((peeked.issued_at, peeked.expires_at), (Some(token.issued_at), token.expires_at));
}

#[test]
fn rsa_tokens_with_pss_and_longer_digests_verify() {
    use aws_lc_rs::signature as s;
    let authority = authority(KeyType::Rsa2048);
    let pair = s::RsaKeyPair::from_pkcs8(&authority.key.pkcs8()).unwrap();
    let algorithms: [(&str, &'static dyn s::RsaEncoding); 5] = [
        ("RS384", &s::RSA_PKCS1_SHA384),
        ("RS512", &s::RSA_PKCS1_SHA512),
        ("PS256", &s::RSA_PSS_SHA256),
        ("PS384", &s::RSA_PSS_SHA384),
        ("PS512", &s::RSA_PSS_SHA512),
    ];
    for (alg, encoding) in algorithms {
        let header = json!({"alg": alg, "kid": "K"}).to_string();
        let claims = json!({"aud": "x", "exp": NOW.secs(), "sub": WEB}).to_string();
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let mut signature = vec![0; 256];
        let random = aws_lc_rs::rand::SystemRandom::new();
        pair.sign(encoding, &random, signed.as_bytes(), &mut signature).unwrap();
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        assert!(authority.verify(&token).is_ok(), "{alg}");
    }
}
