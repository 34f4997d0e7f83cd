//! What is presented at a gate, proved and not.

use std::sync::Arc;
use std::time::Duration;

use avouch_domain::{Code, JwtAuthority, KeyType, X509Authority};

use super::*;
use crate::fixtures::{HOUR, NOW, authority, domain, id, issuer, key, svid};
use crate::jwt::issue::{JwtIssuer, JwtTemplate};
use crate::jwt::task::TaskTemplate;

const CODER: &str = "spiffe://example.org/test/coder";
const GATE: &str = "spiffe://example.org/test/gate";

/// A trust domain, a token and a certificate of the coder's, and a certificate of somebody else's.
struct Kit {
    own: Bundle,
    jwt: JwtIssuer,
    chain: Vec<Vec<u8>>,
    other: Vec<Vec<u8>>,
}

fn kit() -> Kit {
    let (x509, signing) = (issuer("example.org"), Arc::new(key(KeyType::EcP256)));
    let mut own = Bundle::empty(domain("example.org"));
    own.x509_authorities.push(authority(&x509));
    own.jwt_authorities.push(JwtAuthority {
        key_id: "K".into(),
        public_key: signing.public_key().pkix().into(),
        expires_at: None,
        tainted: false,
    });
    let chain = |name: &str| svid(&x509, name).chain.iter().map(|der| der.to_vec()).collect();
    let jwt = JwtIssuer::new("K", signing, NOW + HOUR).unwrap();
    Kit { chain: chain(CODER), other: chain(GATE), own, jwt }
}

impl Kit {
    fn task(&self, resource: &str) -> String {
        let claims = TaskClaims {
            id: id(CODER),
            task: Code::new("fix-4711").unwrap(),
            instance: "ins_0a1b".into(),
            purpose: Code::new("fix-bugs").unwrap(),
            stop_number: 0,
        };
        let template =
            TaskTemplate { claims: &claims, resource, issuer: None, jti: "J", now: NOW, end: NOW + HOUR };
        task::sign(&self.jwt, &template).unwrap().token.to_string()
    }

    fn jwt(&self) -> String {
        let (id, audience, ttl) = (id(CODER), [GATE.to_owned()], Duration::from_secs(60));
        let template = JwtTemplate { id: &id, audience: &audience, issuer: None, jti: None, now: NOW, ttl };
        self.jwt.sign(&template).unwrap().token.to_string()
    }

    /// At a gate in front of `api/read`.
    fn prove(&self, handshakes: bool, token: &str, chain: &[Vec<u8>]) -> Result<Proof, Unproved> {
        let presented = Presented { chain: chain.to_vec(), ..Presented::token(token) };
        prove(&presented, &self.own, At { resource: "api/read", gate: &id(GATE), handshakes }, NOW)
    }
}

#[test]
fn a_certificate_counts_only_where_a_handshake_proved_it() {
    let kit = kit();
    let proof = kit.prove(true, "", &kit.chain).unwrap();
    assert_eq!((proof.identity, proof.task, proof.token), (id(CODER), None, None));
    assert!(proof.serial.is_some_and(|serial| serial.bytes().all(|c| c.is_ascii_digit())));
    for token in [String::new(), kit.task("api/read")] {
        let refused = kit.prove(false, &token, &kit.chain).unwrap_err().to_string();
        assert!(refused.contains("the certificate does not hold: alone it proves nothing"), "{refused}");
    }
}

#[test]
fn a_task_token_beside_a_certificate_is_of_the_same_identity_and_for_the_same_resource() {
    let kit = kit();
    let proof = kit.prove(true, &kit.task("api/read"), &kit.chain).unwrap();
    assert_eq!(proof.task.unwrap().instance.as_ref(), "ins_0a1b");
    assert!(proof.serial.is_some() && proof.token.as_deref() == Some("J"));
    let refused = |token: &str, chain: &[Vec<u8>]| match kit.prove(true, token, chain) {
        Err(Unproved::Token(why)) => why,
        other => panic!("{other:?}"),
    };
    let of_another = refused(&kit.task("api/read"), &kit.other);
    assert!(of_another.contains("the certificate spiffe://example.org/test/gate's"), "{of_another}");
    refused(&kit.task("api/write"), &kit.chain);
    for token in [kit.jwt().as_str(), "junk"] {
        assert!(refused(token, &kit.chain).contains("only a task token says more"));
    }
}

#[test]
fn a_token_alone_is_for_hooks_and_never_for_a_gate_that_shakes_hands() {
    let kit = kit();
    assert_eq!(kit.prove(false, &kit.jwt(), &[]).unwrap().task, None);
    assert!(kit.prove(false, &kit.task("api/read"), &[]).unwrap().task.is_some());
    for token in [kit.jwt(), kit.task("api/read"), String::new()] {
        assert!(matches!(kit.prove(true, &token, &[]), Err(Unproved::Certificate(_))), "{token}");
    }
    assert!(matches!(kit.prove(false, "", &[]), Err(Unproved::Token(_))), "nothing proves nothing");
}

#[test]
fn what_is_too_long_is_not_looked_at() {
    let kit = kit();
    let long = kit.prove(false, &"a".repeat(PRESENTED_TOKEN_MAX + 1), &[]).unwrap_err().to_string();
    assert!(long.contains("expected at most 16384"), "{long}");
    let long = kit.prove(true, "", &[vec![0; PRESENTED_CHAIN_MAX + 1]]).unwrap_err().to_string();
    assert!(long.contains("expected at most 32768"), "{long}");
}

#[test]
fn a_chain_of_another_authority_or_with_another_trust_domain_proves_nothing() {
    let kit = kit();
    let foreign = issuer("example.org");
    let chain: Vec<_> = svid(&foreign, CODER).chain.iter().map(|der| der.to_vec()).collect();
    assert!(kit.prove(true, "", &chain).is_err());
    let elsewhere = issuer("example.com");
    let chain: Vec<_> =
        svid(&elsewhere, "spiffe://example.com/x").chain.iter().map(|der| der.to_vec()).collect();
    let refused = kit.prove(true, "", &chain).unwrap_err().to_string();
    assert!(refused.contains("example.com"), "{refused}");
    let mut both = kit.own.clone();
    both.x509_authorities.push(X509Authority { der: authority(&elsewhere).der, tainted: false });
    let presented = Presented { chain, ..Presented::default() };
    let at = At { resource: "api/read", gate: &id(GATE), handshakes: true };
    assert!(prove(&presented, &both, at, NOW).is_err(), "whatever authorities the bundle has");
    assert!(kit.prove(true, "", &[b"junk".to_vec()]).is_err());
}
