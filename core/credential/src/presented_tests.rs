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
    fn prove(&self, handshakes: bool, token: &str, chain: &[Vec<u8>]) -> Result<Proof, String> {
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
    let refused = kit.prove(false, "", &kit.chain).unwrap_err();
    assert!(refused.contains("a certificate alone proves nothing"), "{refused}");
    let refused = kit.prove(false, &kit.task("api/read"), &kit.chain).unwrap_err();
    assert!(refused.contains("a certificate alone proves nothing"), "{refused}");
}

#[test]
fn a_task_token_beside_a_certificate_is_of_the_same_identity_and_for_the_same_resource() {
    let kit = kit();
    let proof = kit.prove(true, &kit.task("api/read"), &kit.chain).unwrap();
    assert_eq!(proof.task.unwrap().instance.as_ref(), "ins_0a1b");
    assert!(proof.serial.is_some() && proof.token.as_deref() == Some("J"));
    let refused = kit.prove(true, &kit.task("api/read"), &kit.other).unwrap_err();
    assert!(refused.contains("the certificate spiffe://example.org/test/gate's"), "{refused}");
    assert!(kit.prove(true, &kit.task("api/write"), &kit.chain).is_err(), "for another resource");
    let refused = kit.prove(true, &kit.jwt(), &kit.chain).unwrap_err();
    assert!(refused.contains("only a task token says more"), "{refused}");
    assert!(kit.prove(true, "junk", &kit.chain).is_err());
}

#[test]
fn tokens_alone_prove_what_they_did_before_and_nothing_proves_nothing() {
    let kit = kit();
    for handshakes in [true, false] {
        assert_eq!(kit.prove(handshakes, &kit.jwt(), &[]).unwrap().task, None);
        assert!(kit.prove(handshakes, &kit.task("api/read"), &[]).unwrap().task.is_some());
        assert!(kit.prove(handshakes, "", &[]).is_err());
    }
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
    let refused = kit.prove(true, "", &chain).unwrap_err();
    assert!(refused.contains("example.com"), "{refused}");
    let mut both = kit.own.clone();
    both.x509_authorities.push(X509Authority { der: authority(&elsewhere).der, tainted: false });
    let presented = Presented { chain, ..Presented::default() };
    let at = At { resource: "api/read", gate: &id(GATE), handshakes: true };
    assert!(prove(&presented, &both, at, NOW).is_err(), "whatever authorities the bundle has");
    assert!(kit.prove(true, "", &[b"junk".to_vec()]).is_err());
}
