//! SPIFFE Trust Domain and Bundle: what the daemons publish, and what they make of the documents of others.

use avouch_credential::bundle_doc;
use avouch_credential::key::PrivateKey;
use avouch_domain::{KeyType, TrustDomain};
use avouch_proto::{bundle_v1, types};
use avouch_tests::forge::{Authority, Token};
use avouch_tests::world::my_uid;
use avouch_tests::{Server, World, cli, conforms, entry};
use base64::Engine as _;
use serde_json::{Value, json};
use tonic::Code;

use crate::x509_issue::document;

/// A JWT authority whose key the test has.
pub struct JwtKey {
    pub kid: String,
    pub pkcs8: Vec<u8>,
    pub pkix: Vec<u8>,
}

impl JwtKey {
    pub fn fresh(kid: &str) -> Self {
        let key = PrivateKey::generate(KeyType::EcP256).unwrap();
        Self { kid: kid.into(), pkcs8: key.pkcs8().to_vec(), pkix: key.public_key().pkix().to_vec() }
    }
}

/// Sets the bundle of another trust domain.
pub async fn federate(server: &Server, domain: &str, x509: &[&[u8]], jwt: &[&JwtKey]) {
    let bundle = types::Bundle {
        trust_domain: domain.into(),
        x509_authorities: x509
            .iter()
            .map(|d| types::X509Certificate { asn1: d.to_vec(), tainted: false })
            .collect(),
        jwt_authorities: jwt
            .iter()
            .map(|k| types::JwtKey {
                key_id: k.kid.clone(),
                public_key: k.pkix.clone(),
                expires_at: 0,
                tainted: false,
            })
            .collect(),
        ..Default::default()
    };
    let request = bundle_v1::BatchSetFederatedBundleRequest { bundle: vec![bundle], output_mask: None };
    let answer = server.bundles().await.batch_set_federated_bundle(request).await.unwrap().into_inner();
    assert_eq!(answer.results[0].status.as_ref().unwrap().code, 0);
}

/// A foreign bundle as the command line prints it.
async fn foreign_document(server: &Server, domain: &str) -> Value {
    let socket = server.socket.to_str().unwrap();
    let args = ["bundle", "list", "-id", domain, "-format", "spiffe", "-socketPath", socket];
    let said = cli::run("avouch-server", args).await;
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"))
}

/// Hands a document to the server by its command line; the bundle it made of it.
async fn import(server: &Server, document: &Value) -> Result<types::Bundle, cli::Said> {
    let path = server.dir.path().join("foreign.json");
    std::fs::write(&path, document.to_string()).unwrap();
    let socket = server.socket.to_str().unwrap();
    let args = [
        "bundle",
        "set",
        "-id",
        "other.org",
        "-format",
        "spiffe",
        "-path",
        path.to_str().unwrap(),
        "-socketPath",
        socket,
    ];
    let said = cli::run("avouch-server", args).await;
    if said.code != 0 {
        return Err(said);
    }
    let request =
        bundle_v1::GetFederatedBundleRequest { trust_domain: "other.org".into(), output_mask: None };
    Ok(server.bundles().await.get_federated_bundle(request).await.unwrap().into_inner())
}

fn x509_jwk(authority: &Authority) -> Value {
    let domain = TrustDomain::new("other.org").unwrap();
    let bundle = avouch_domain::Bundle {
        x509_authorities: vec![avouch_domain::X509Authority {
            der: authority.der.clone().into(),
            tainted: false,
        }],
        ..avouch_domain::Bundle::empty(domain)
    };
    let text = bundle_doc::spiffe_document(&bundle);
    serde_json::from_str::<Value>(&text).unwrap()["keys"][0].clone()
}

/// A document with one good authority and one odd JWK keeps the good one and nothing of the odd one.
async fn odd_key_is_left_out(odd: Value) {
    let server = Server::start().await;
    let good = Authority::fresh("spiffe://other.org");
    let bundle = import(&server, &json!({"keys": [odd.clone(), x509_jwk(&good)]})).await;
    let bundle = bundle.unwrap_or_else(|said| panic!("{odd}: {said:?}"));
    let kept: Vec<_> = bundle.x509_authorities.iter().map(|a| a.asn1.clone()).collect();
    assert_eq!(kept, [good.der], "{odd}");
    assert!(bundle.jwt_authorities.is_empty(), "{odd}");
}

fn without(mut value: Value, name: &str) -> Value {
    value.as_object_mut().unwrap().remove(name);
    value
}

fn with(mut value: Value, name: &str, new: Value) -> Value {
    value[name] = new;
    value
}

#[tokio::test]
async fn a_bundle_is_one_json_object() {
    conforms!("TDB-01", "TDB-10");
    let document = document(&*World::shared().await).await;
    assert!(document.is_object() && document["keys"].is_array(), "{document}");
}

#[tokio::test]
async fn a_document_with_keys_alone_is_taken() {
    conforms!("TDB-02");
    let server = Server::start().await;
    let good = Authority::fresh("spiffe://other.org");
    let bundle = import(&server, &json!({"keys": [x509_jwk(&good)]})).await.unwrap();
    assert_eq!(bundle.x509_authorities[0].asn1, good.der);
}

#[tokio::test]
async fn the_sequence_number_rises_with_each_change() {
    conforms!("TDB-04", "TDB-05");
    let world = World::start().await;
    let sequence = async || document(&world).await["spiffe_sequence"].as_u64().expect("an integer");
    let mut last = sequence().await;
    let mut bundles = world.server.bundles().await;
    let certificate = Authority::fresh("spiffe://example.org").der;
    let added_certificate = bundle_v1::AppendBundleRequest {
        x509_authorities: vec![types::X509Certificate { asn1: certificate, tainted: false }],
        ..Default::default()
    };
    let key = JwtKey::fresh("extra");
    let jwt = types::JwtKey { key_id: key.kid, public_key: key.pkix, expires_at: 0, tainted: false };
    let added_key = bundle_v1::AppendBundleRequest { jwt_authorities: vec![jwt], ..Default::default() };
    for change in [added_certificate, added_key] {
        bundles.append_bundle(change.clone()).await.unwrap();
        let next = sequence().await;
        assert!(next > last, "{last} to {next}");
        bundles.append_bundle(change).await.unwrap();
        assert_eq!(sequence().await, next, "nothing new, no change");
        last = next;
    }
}

#[tokio::test]
async fn sequence_numbers_are_read_exactly() {
    conforms!("TDB-06");
    let server = Server::start().await;
    let good = x509_jwk(&Authority::fresh("spiffe://other.org"));
    for number in [9_007_199_254_740_993_u64, 9_223_372_036_854_775_807] {
        let document = json!({"keys": [good], "spiffe_sequence": number});
        assert_eq!(import(&server, &document).await.unwrap().sequence_number, number);
    }
}

#[tokio::test]
async fn the_refresh_hint_is_a_whole_number() {
    conforms!("TDB-08");
    let server = Server::start().await;
    let good = x509_jwk(&Authority::fresh("spiffe://other.org"));
    import(&server, &json!({"keys": [good], "spiffe_refresh_hint": 77})).await.unwrap();
    assert_eq!(foreign_document(&server, "other.org").await["spiffe_refresh_hint"], json!(77));
}

#[tokio::test]
async fn an_empty_bundle_still_has_its_list() {
    conforms!("TDB-10");
    let server = Server::start().await;
    federate(&server, "empty.org", &[], &[]).await;
    assert_eq!(foreign_document(&server, "empty.org").await["keys"], json!([]));
}

#[tokio::test]
async fn a_document_without_keys_is_no_bundle() {
    conforms!("TDB-11");
    let server = Server::start().await;
    for document in [json!({}), json!({"keys": null}), json!([])] {
        let said = import(&server, &document).await.expect_err("no bundle");
        assert_eq!(said.code, 1, "{document}: {said:?}");
    }
}

#[tokio::test]
async fn an_unknown_type_or_use_is_left_out() {
    conforms!("TDB-12");
    let jwk = x509_jwk(&Authority::fresh("spiffe://other.org"));
    odd_key_is_left_out(json!({"kty": "OKP", "use": "x-new", "crv": "Ed25519", "x": "AA"})).await;
    odd_key_is_left_out(with(jwk, "use", json!("x-new"))).await;
    odd_key_is_left_out(json!({"kty": "quantum", "use": "jwt-svid", "kid": "q"})).await;
}

#[tokio::test]
async fn a_key_without_use_is_left_out() {
    conforms!("TDB-13");
    odd_key_is_left_out(without(x509_jwk(&Authority::fresh("spiffe://other.org")), "use")).await;
}

#[tokio::test]
async fn uses_are_case_sensitive() {
    conforms!("TDB-15");
    let jwk = x509_jwk(&Authority::fresh("spiffe://other.org"));
    odd_key_is_left_out(with(jwk, "use", json!("X509-SVID"))).await;
}

#[tokio::test]
async fn an_authority_without_certificate_is_left_out() {
    conforms!("X509-37");
    let jwk = x509_jwk(&Authority::fresh("spiffe://other.org"));
    odd_key_is_left_out(without(jwk.clone(), "x5c")).await;
    odd_key_is_left_out(with(jwk, "x5c", json!([]))).await;
}

#[tokio::test]
async fn of_several_certificates_the_first_counts() {
    conforms!("X509-38");
    let server = Server::start().await;
    let (first, second) = (Authority::fresh("spiffe://other.org"), Authority::fresh("spiffe://other.org"));
    let b64 = |der: &[u8]| base64::engine::general_purpose::STANDARD.encode(der);
    let jwk = with(x509_jwk(&first), "x5c", json!([b64(&first.der), b64(&second.der)]));
    let bundle = import(&server, &json!({"keys": [jwk]})).await.unwrap();
    assert_eq!(bundle.x509_authorities.iter().map(|a| &a.asn1).collect::<Vec<_>>(), [&first.der]);
}

#[tokio::test]
async fn keys_have_type_and_use_and_no_strange_members() {
    conforms!("TDB-14", "TDB-15", "TDB-17");
    let document = document(&*World::shared().await).await;
    for key in document["keys"].as_array().unwrap() {
        assert!(key["kty"].is_string() && key["use"].is_string(), "{key}");
        let known: &[&str] = match key["use"].as_str().unwrap() {
            "x509-svid" => &["kty", "use", "crv", "x", "y", "n", "e", "x5c"],
            "jwt-svid" => &["kty", "use", "crv", "x", "y", "n", "e", "kid"],
            other => panic!("use {other}"),
        };
        assert!(key.as_object().unwrap().keys().all(|k| known.contains(&k.as_str())), "{key}");
    }
}

#[tokio::test]
async fn an_emptied_bundle_invalidates_all_svids_of_its_trust_domain() {
    conforms!("TDB-16");
    let world = World::start().await;
    let (authority, key) = (Authority::fresh("spiffe://other.org"), JwtKey::fresh("k"));
    federate(&world.server, "other.org", &[&authority.der], &[&key]).await;
    let mut fed = entry(&world.agent.id, "/web", &[&my_uid()]);
    fed.federates_with = vec!["other.org".into()];
    world.server.create(fed).await;
    let mut workload = world.agent.workload().await;
    let mut bundles = workload.x509_bundle_stream().await.unwrap();
    bundles.until("the foreign bundle", |m| m.bundles.contains_key("spiffe://other.org")).await;
    let token = Token::new("k", "spiffe://other.org/a").sign(&key.pkcs8);
    workload.validate("x", &token).await.unwrap();
    federate(&world.server, "other.org", &[], &[]).await;
    bundles.until("no foreign authority", |m| !m.bundles.contains_key("spiffe://other.org")).await;
    assert_eq!(workload.validate("x", &token).await.unwrap_err().code(), Code::InvalidArgument);
}
