//! JWT-SVID, the validator's rules: forged tokens at the Workload API. Each is signed by the server's own key unless
//! the signature is the fault, so that nothing but the fault can be the reason.

use std::sync::Arc;

use avouch_tests::forge::{Token, now, open};
use avouch_tests::{Server, World, conforms};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tonic::Code;

use crate::ids::jwt_key;

const ID: &str = "spiffe://example.org/forged";

/// The shared world with the makings of a good token. Whoever forges holds the world: the key dies with it.
struct Forge {
    world: Arc<World>,
    kid: String,
    key: Vec<u8>,
}

impl Forge {
    async fn open() -> Self {
        let world = World::shared().await;
        let (kid, key) = jwt_key(&world.server).await;
        Self { world, kid, key }
    }

    /// A good token, not signed yet.
    fn token(&self) -> Token {
        Token::new(&self.kid, ID)
    }

    fn sign(&self, token: &Token) -> String {
        token.sign(&self.key)
    }

    async fn judge(&self, token: &str) -> Result<(), Code> {
        let answer = self.world.agent.workload().await.validate("x", token).await;
        answer.map(|_| ()).map_err(|s| s.code())
    }

    async fn takes(&self, token: &Token) {
        assert_eq!(self.judge(&self.sign(token)).await, Ok(()), "{token:?}");
    }

    async fn refuses(&self, token: &str) {
        assert_eq!(self.judge(token).await, Err(Code::InvalidArgument), "{token}");
    }

    /// A good token passes; with each of these changes it does not.
    async fn faults(&self, changes: impl IntoIterator<Item = (&'static str, &'static str, Value)>) {
        self.takes(&self.token()).await;
        for (part, name, value) in changes {
            let token = self.token();
            let token =
                if part == "header" { token.with_header(name, value) } else { token.with_claim(name, value) };
            self.refuses(&self.sign(&token)).await;
        }
    }
}

async fn faults(changes: impl IntoIterator<Item = (&'static str, &'static str, Value)>) {
    Forge::open().await.faults(changes).await;
}

#[tokio::test]
async fn json_serialization_is_refused() {
    conforms!("JWT-01", "JWT-02");
    let forge = Forge::open().await;
    let token = forge.sign(&forge.token());
    let parts: Vec<_> = token.split('.').collect();
    let flat = json!({"protected": parts[0], "payload": parts[1], "signature": parts[2]});
    let general =
        json!({"payload": parts[1], "signatures": [{"protected": parts[0], "signature": parts[2]}]});
    for form in
        [flat.to_string(), general.to_string(), format!("{}.{}", parts[0], parts[1]), token.clone() + ".x"]
    {
        forge.refuses(&form).await;
    }
}

#[tokio::test]
async fn other_algorithms_are_refused() {
    conforms!("JWT-05");
    let forge = Forge::open().await;
    forge.faults(["none", "es256", "EdDSA", "ES256K"].map(|alg| ("header", "alg", json!(alg)))).await;
    let none = forge.token().with_header("alg", json!("none"));
    forge.refuses(&format!("{}.", none.unsigned())).await;
    // The classic: the public key, taken as the secret of an HMAC.
    let public = &forge.world.server.bundle().await.jwt_authorities[0].public_key;
    let token = forge.token().with_header("alg", json!("HS256")).unsigned();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, public), token.as_bytes());
    forge.refuses(&format!("{token}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))).await;
}

#[tokio::test]
async fn other_types_are_refused() {
    conforms!("JWT-07");
    let forge = Forge::open().await;
    forge.faults(["at+jwt", "wit+jwt", "jwt", ""].map(|typ| ("header", "typ", json!(typ)))).await;
    for typ in [json!("JOSE"), Value::Null] {
        forge.takes(&forge.token().with_header("typ", typ)).await;
    }
}

#[tokio::test]
async fn a_token_without_an_id_as_subject_is_refused() {
    conforms!("JWT-09");
    faults([json!("alice"), json!(""), json!(7), Value::Null].map(|sub| ("claims", "sub", sub))).await;
}

#[tokio::test]
async fn a_token_without_audience_is_refused() {
    conforms!("JWT-11");
    faults([json!([]), json!(""), Value::Null].map(|aud| ("claims", "aud", aud))).await;
}

#[tokio::test]
async fn a_token_for_another_audience_is_refused() {
    conforms!("JWT-12");
    let forge = Forge::open().await;
    let others = [json!(["y"]), json!(["X"]), json!(["x/"]), json!("xx")];
    forge.faults(others.map(|aud| ("claims", "aud", aud))).await;
    forge.takes(&forge.token().with_claim("aud", json!(["y", "x"]))).await;
}

#[tokio::test]
async fn an_audience_may_be_one_text() {
    conforms!("JWT-13");
    let forge = Forge::open().await;
    forge.takes(&forge.token().with_claim("aud", json!("x"))).await;
}

#[tokio::test]
async fn a_token_without_end_is_refused() {
    conforms!("JWT-16");
    faults([json!("soon"), Value::Null].map(|exp| ("claims", "exp", exp))).await;
}

#[tokio::test]
async fn an_expired_token_is_refused_past_a_minute_of_leeway() {
    conforms!("JWT-17");
    let forge = Forge::open().await;
    forge.faults([600, 120].map(|ago| ("claims", "exp", json!(now() - ago)))).await;
    forge.takes(&forge.token().with_claim("exp", json!(now() - 30))).await;
}

#[tokio::test]
async fn a_token_of_the_future_is_refused() {
    conforms!("JWT-18");
    let forge = Forge::open().await;
    forge.faults([3600, 120].map(|ahead| ("claims", "nbf", json!(now() + ahead)))).await;
    forge.takes(&forge.token().with_claim("nbf", json!(now() + 30))).await;
}

#[tokio::test]
async fn a_token_may_be_validated_twice() {
    conforms!("JWT-21");
    let forge = Forge::open().await;
    let token = forge.sign(&forge.token().with_claim("jti", json!("once")));
    assert_eq!((forge.judge(&token).await, forge.judge(&token).await), (Ok(()), Ok(())));
}

#[tokio::test]
async fn keys_of_other_uses_verify_nothing() {
    conforms!("JWT-25");
    let forge = Forge::open().await;
    let x509 = forge.world.server.key("x509-CA-A");
    let authority = &forge.world.server.bundle().await.x509_authorities[0].asn1;
    let authority = avouch_credential::x509::facts::authority_id(authority).unwrap();
    for kid in [&forge.kid, &authority, ""] {
        forge.refuses(&Token::new(kid, ID).sign(&x509)).await;
    }
}

#[tokio::test]
async fn without_jwt_authorities_no_token_is_valid() {
    conforms!("JWT-26", "WA-43");
    let forge = Forge::open().await;
    forge.takes(&forge.token()).await;
    forge.refuses(&forge.sign(&Token::new(&forge.kid, "spiffe://unknown.org/a"))).await;
}

#[tokio::test]
async fn the_key_is_of_the_subjects_trust_domain() {
    conforms!("JWT-27", "WA-43");
    let server = Server::start().await;
    let agent = avouch_tests::Agent::start(&server).await;
    let (kid, own) = jwt_key(&server).await;
    // The other trust domain has a key of the same name.
    let theirs = crate::bundle::JwtKey::fresh(&kid);
    crate::bundle::federate(&server, "other.org", &[], &[&theirs]).await;
    let mut entry = avouch_tests::entry(&agent.id, "/web", &[&avouch_tests::world::my_uid()]);
    entry.federates_with = vec!["other.org".into()];
    server.create(entry).await;
    let mut workload = agent.workload().await;
    let mut bundles = workload.jwt_bundle_stream().await.unwrap();
    bundles.until("the foreign bundle", |m| m.bundles.contains_key("spiffe://other.org")).await;
    let mut judge = async |id: &str, key: &[u8]| {
        workload
            .validate("x", &Token::new(&kid, id).sign(key))
            .await
            .map(|a| a.spiffe_id)
            .map_err(|s| s.code())
    };
    assert_eq!(judge("spiffe://other.org/a", &theirs.pkcs8).await, Ok("spiffe://other.org/a".into()));
    assert_eq!(judge("spiffe://other.org/a", &own).await, Err(Code::InvalidArgument));
    assert_eq!(judge("spiffe://example.org/a", &theirs.pkcs8).await, Err(Code::InvalidArgument));
    assert_eq!(judge("spiffe://example.org/a", &own).await, Ok("spiffe://example.org/a".into()));
}

#[tokio::test]
async fn a_changed_claim_breaks_the_signature() {
    conforms!("ID-27");
    let forge = Forge::open().await;
    let token = forge.sign(&forge.token());
    let (header, mut claims) = open(&token);
    claims["exp"] = json!(now() + 9999);
    let signature = token.rsplit_once('.').unwrap().1;
    forge.refuses(&format!("{}.{signature}", Token { header, claims }.unsigned())).await;
}
