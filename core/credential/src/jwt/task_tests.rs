//! Task tokens of our own and forged ones.

use std::sync::Arc;

use avouch_domain::{Bundle, Code, JwtAuthority, KeyType};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::issue::{JwtIssueError, JwtIssuer, JwtTemplate};
use super::task::{self, TYPE, TaskClaims, TaskError, TaskTemplate, VerifiedTask, audience, is_task_token};
use super::verify::{self, JwtError, JwtKeys};
use crate::fixtures::{HOUR, NOW, domain, id, key};
use crate::key::PrivateKey;

const CODER: &str = "spiffe://example.org/test/coder";
const RESOURCE: &str = "git/pay";

struct Authority {
    key: Arc<PrivateKey>,
    keys: JwtKeys,
}

fn authority() -> Authority {
    let key = Arc::new(key(KeyType::EcP256));
    let mut bundle = Bundle::empty(domain("example.org"));
    bundle.jwt_authorities.push(JwtAuthority {
        key_id: "K".into(),
        public_key: key.public_key().pkix().into(),
        expires_at: None,
        tainted: false,
    });
    Authority { keys: JwtKeys::new([&bundle]), key }
}

fn claims() -> TaskClaims {
    TaskClaims {
        id: id(CODER),
        task: Code::new("fix-4711").unwrap(),
        instance: "ins_0a1b".into(),
        purpose: Code::new("fix-bugs").unwrap(),
        stop_number: 3,
    }
}

fn template(claims: &TaskClaims) -> TaskTemplate<'_> {
    TaskTemplate { claims, resource: RESOURCE, issuer: None, jti: "J", now: NOW, end: NOW + HOUR }
}

impl Authority {
    fn issuer(&self) -> JwtIssuer {
        JwtIssuer::new("K", self.key.clone(), NOW + HOUR).unwrap()
    }

    fn token(&self) -> String {
        task::sign(&self.issuer(), &template(&claims())).unwrap().token.to_string()
    }

    fn verify(&self, token: &str) -> Result<VerifiedTask, TaskError> {
        task::verify(token, &self.keys, RESOURCE, NOW)
    }

    /// Signs any header and claims.
    fn forge(&self, header: &Value, claims: &str) -> String {
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

    /// The answer to good claims with one replaced; null takes it out.
    fn with(&self, name: &str, value: Value) -> Result<VerifiedTask, TaskError> {
        let mut all = json!({"aud": [audience(RESOURCE)], "exp": NOW.secs() + 60, "iat": NOW.secs(), "jti": "J",
            "instance": "ins_0a1b", "purpose": "fix-bugs", "stop": 3, "sub": CODER, "task": "fix-4711"});
        all[name] = value;
        if all[name].is_null() {
            all.as_object_mut().unwrap().remove(name);
        }
        self.verify(&self.forge(&header(), &all.to_string()))
    }
}

fn header() -> Value {
    json!({"alg": "ES256", "kid": "K", "typ": TYPE})
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[test]
fn what_is_signed_is_read_back_and_ends_after_five_minutes() {
    let authority = authority();
    let signed = task::sign(&authority.issuer(), &template(&claims())).unwrap();
    assert_eq!(part(&signed.token, 0), header());
    assert_eq!(
        part(&signed.token, 1),
        json!({"aud": ["avouch-resource:git/pay"], "exp": NOW.secs() + 300, "iat": NOW.secs(), "instance": "ins_0a1b",
            "jti": "J", "purpose": "fix-bugs", "stop": 3, "sub": CODER, "task": "fix-4711"})
    );
    let read = authority.verify(&signed.token).unwrap();
    assert_eq!(read, VerifiedTask { claims: claims(), jti: "J".into() });
    assert!(is_task_token(&signed.token));
    assert!(!format!("{signed:?}").contains(signed.token.as_str()));
    let last = task::verify(&signed.token, &authority.keys, RESOURCE, NOW + HOUR / 12);
    assert_eq!(last, Err(TaskError::Expired));
}

#[test]
fn a_token_outlives_neither_its_key_nor_its_identity() {
    let (authority, claims) = (authority(), claims());
    let minute = HOUR / 60;
    let short = TaskTemplate { end: NOW + minute, ..template(&claims) };
    let exp = |signed: task::TaskToken| signed.expires_at.secs() - NOW.secs();
    assert_eq!(exp(task::sign(&authority.issuer(), &short).unwrap()), 60);
    let late = TaskTemplate { now: NOW + HOUR - minute, end: NOW + HOUR * 2, ..template(&claims) };
    assert_eq!(exp(task::sign(&authority.issuer(), &late).unwrap()), 3600);
    let over = TaskTemplate { now: NOW + HOUR, ..late };
    assert_eq!(task::sign(&authority.issuer(), &over).unwrap_err(), JwtIssueError::KeyExpired);
}

#[test]
fn a_task_token_is_no_jwt_svid_and_a_jwt_svid_no_task_token() {
    let authority = authority();
    let task = authority.token();
    let as_svid = verify::verify(&task, &authority.keys, &[audience(RESOURCE)], NOW);
    assert!(matches!(as_svid, Err(JwtError::Type(_))), "{as_svid:?}");
    let (id, audience) = (id(CODER), [audience(RESOURCE)]);
    let svid =
        JwtTemplate { id: &id, audience: &audience, issuer: None, jti: Some("J"), now: NOW, ttl: HOUR / 60 };
    let svid = authority.issuer().sign(&svid).unwrap();
    let as_task = authority.verify(&svid.token);
    assert!(matches!(as_task, Err(TaskError::Jwt(JwtError::TaskType(_)))), "{as_task:?}");
    assert!(!is_task_token(&svid.token) && !is_task_token("") && !is_task_token("e30.x"));
}

#[test]
fn another_type_and_a_missing_one_are_refused() {
    let authority = authority();
    let good = part(&authority.token(), 1).to_string();
    for typ in [json!("JWT"), json!("at+jwt"), json!("AVOUCH-TASK+JWT"), json!(1), json!(null)] {
        let refused =
            authority.verify(&authority.forge(&json!({"alg": "ES256", "kid": "K", "typ": typ}), &good));
        assert!(matches!(refused, Err(TaskError::Jwt(JwtError::TaskType(_)))), "{typ}: {refused:?}");
    }
    let bare = authority.verify(&authority.forge(&json!({"alg": "ES256", "kid": "K"}), &good)).unwrap_err();
    assert_eq!(bare.to_string(), "token header type is missing, expected avouch-task+jwt");
}

#[test]
fn algorithms_without_a_key_of_theirs_are_refused() {
    let authority = authority();
    let good = part(&authority.token(), 1).to_string();
    for alg in ["none", "HS256", "EdDSA", "RS256", ""] {
        let forged = authority.forge(&json!({"alg": alg, "kid": "K", "typ": TYPE}), &good);
        assert!(matches!(authority.verify(&forged), Err(TaskError::Jwt(_))), "{alg}");
    }
    let unsigned = format!("{}.", authority.token().rsplit_once('.').unwrap().0);
    assert_eq!(authority.verify(&unsigned), Err(TaskError::Jwt(JwtError::Signature)));
}

#[test]
fn another_key_another_trust_domain_and_a_changed_claim_are_refused() {
    let (mine, other) = (authority(), authority());
    assert_eq!(mine.verify(&other.token()), Err(TaskError::Jwt(JwtError::Signature)));
    let foreign = mine.with("sub", json!("spiffe://other.org/test/coder"));
    assert_eq!(foreign, Err(TaskError::Jwt(JwtError::NoKeys(domain("other.org")))));
    let token = mine.token();
    let mut parts: Vec<_> = token.split('.').map(str::to_owned).collect();
    let claims = part(&token, 1).to_string().replace("\"stop\":3", "\"stop\":4");
    parts[1] = URL_SAFE_NO_PAD.encode(claims);
    assert_eq!(mine.verify(&parts.join(".")), Err(TaskError::Jwt(JwtError::Signature)));
}

#[test]
fn a_token_is_for_one_resource_and_no_other() {
    let authority = authority();
    for aud in [
        json!("avouch-resource:git/other"),
        json!(["avouch-resource:git/pay", "avouch-resource:git/other"]),
        json!(["git/pay"]),
        json!([]),
        json!(null),
    ] {
        let refused = authority.with("aud", aud.clone());
        assert!(matches!(refused, Err(TaskError::Audience { .. })), "{aud}: {refused:?}");
    }
    assert!(authority.with("aud", json!("avouch-resource:git/pay")).is_ok(), "one text is a list of one");
}

#[test]
fn its_time_is_kept_to_the_second() {
    let authority = authority();
    let now = NOW.secs();
    for (name, value, error) in [
        ("exp", now - 1, TaskError::Expired),
        ("exp", now, TaskError::Expired),
        ("exp", now + 301, TaskError::TooLong),
        ("iat", now + 62, TaskError::IssuedInTheFuture),
        ("iat", now - 241, TaskError::TooLong),
    ] {
        assert_eq!(authority.with(name, json!(value)), Err(error), "{name} {value}");
    }
    assert!(
        authority.with("exp", json!(now + 300)).is_ok() && authority.with("iat", json!(now + 30)).is_ok()
    );
    assert_eq!(authority.with("exp", json!(null)), Err(TaskError::Jwt(JwtError::NoExpiry)));
    assert_eq!(authority.with("iat", json!(null)), Err(TaskError::Claim("iat")));
}

#[test]
fn each_claim_is_there_and_in_its_form() {
    let authority = authority();
    for (name, values) in [
        ("jti", vec![json!(null), json!(""), json!(7)]),
        ("task", vec![json!(null), json!("Fix it"), json!(7)]),
        ("instance", vec![json!(null), json!("ins_"), json!("ins_XY"), json!("uid:0"), json!("ins_\n")]),
        ("purpose", vec![json!(null), json!("")]),
        ("stop", vec![json!(null), json!(-1), json!("3"), json!(1.5)]),
    ] {
        for value in values {
            assert_eq!(authority.with(name, value.clone()), Err(TaskError::Claim(name)), "{name} {value}");
        }
    }
    assert_eq!(authority.with("sub", json!(null)), Err(TaskError::Jwt(JwtError::NoSubject)));
}

#[test]
fn a_claim_that_stands_twice_and_a_long_token_are_refused() {
    let authority = authority();
    let good = part(&authority.token(), 1).to_string();
    let twice = good.replace("\"stop\":3", "\"stop\":3,\"stop\":4");
    assert!(matches!(
        authority.verify(&authority.forge(&header(), &twice)),
        Err(TaskError::Jwt(JwtError::Parse(_)))
    ));
    let long = "a".repeat(65_537);
    assert!(!is_task_token(&long));
    assert!(matches!(authority.verify(&long), Err(TaskError::Jwt(JwtError::Parse(_)))));
}
