//! X509-SVID, the issuer's rules: every certificate that the daemons make or show is looked at.

use avouch_credential::key::PrivateKey;
use avouch_credential::x509::csr::{CsrTemplate, build};
use avouch_credential::x509::name::Name;
use avouch_domain::KeyType;
use avouch_proto::svid_v1;
use avouch_proto::types;
use avouch_tests::server::wire_id;
use avouch_tests::{World, cli, conforms, entry, mtls};
use base64::Engine as _;
use serde_json::Value;
use tonic::Code;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, KeyUsage, ParsedExtension};
use x509_parser::oid_registry as oid;

/// The URI SANs of a certificate.
pub fn uri_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    names(certificate, |n| match n {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    })
}

fn names(
    certificate: &X509Certificate<'_>,
    pick: impl Fn(&GeneralName<'_>) -> Option<String>,
) -> Vec<String> {
    let san = certificate.subject_alternative_name().unwrap();
    san.map(|s| s.value.general_names.iter().filter_map(pick).collect()).unwrap_or_default()
}

fn key_usage<'a>(certificate: &'a X509Certificate<'_>) -> (bool, &'a KeyUsage) {
    let usage = certificate.key_usage().unwrap().expect("a key usage extension");
    (usage.critical, usage.value)
}

/// Mints an SVID for a CSR with this ID.
async fn mint(world: &World, id: Option<&str>) -> Result<Vec<u8>, tonic::Status> {
    let key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let id = id.map(|i| i.parse().unwrap());
    let template = CsrTemplate { subject: &Name::svid_default(), id: id.as_ref(), dns_names: &[] };
    let request = svid_v1::MintX509svidRequest { csr: build(&template, &key).unwrap(), ttl: 0 };
    let answer = world.server.svids().await.mint_x509svid(request).await?.into_inner();
    Ok(answer.svid.unwrap().cert_chain.remove(0))
}

/// All kinds of leaves: of a workload, minted, the server's own, the agent's own.
async fn leaves() -> Vec<(&'static str, Vec<u8>)> {
    let world = World::shared().await;
    let workload = world.agent.workload().await.fetch_x509().await.unwrap().svids.remove(0).x509_svid;
    let minted = mint(&world, Some("spiffe://example.org/minted")).await.unwrap();
    let (_, presented) = mtls::channel(world.server.address(), &[], &[]).await.unwrap();
    let server = presented.lock()[0].clone();
    let text = std::fs::read_to_string(world.agent.data_dir.join("agent-data.json")).unwrap();
    let data: Value = serde_json::from_str(&text).unwrap();
    let pem = base64::engine::general_purpose::STANDARD.decode(data["svid"][0].as_str().unwrap()).unwrap();
    let agent = avouch_credential::x509::pem::certificates(&pem).unwrap().remove(0);
    vec![("workload", workload), ("minted", minted), ("server", server), ("agent", agent)]
}

async fn each_leaf(check: impl Fn(&str, &X509Certificate<'_>)) {
    for (name, der) in leaves().await {
        let (rest, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert!(rest.is_empty(), "{name}: bytes after the certificate");
        check(name, &certificate);
    }
}

async fn authority() -> Vec<u8> {
    World::shared().await.server.bundle().await.x509_authorities[0].asn1.clone()
}

#[tokio::test]
async fn a_leaf_has_exactly_one_uri_name() {
    conforms!("X509-01");
    each_leaf(|name, c| assert_eq!(uri_names(c).len(), 1, "{name}")).await;
}

#[tokio::test]
async fn dns_names_stand_beside_the_uri() {
    conforms!("X509-04");
    let world = World::shared().await;
    let svid = world.agent.workload().await.fetch_x509().await.unwrap().svids.remove(0);
    let (_, certificate) = x509_parser::parse_x509_certificate(&svid.x509_svid).unwrap();
    let dns = names(&certificate, |n| match n {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        _ => None,
    });
    assert_eq!(dns, ["one.example.org", "eins.example.org"]);
    assert_eq!(uri_names(&certificate), ["spiffe://example.org/one"]);
}

#[tokio::test]
async fn no_leaf_is_issued_without_a_path() {
    conforms!("X509-05");
    let world = World::shared().await;
    let status = mint(&world, Some("spiffe://example.org")).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let bare = types::Entry {
        spiffe_id: Some(wire_id("spiffe://example.org")),
        ..entry(&world.agent.id, "/x", &["unix:uid:0"])
    };
    let status = world.server.try_create(bare).await.unwrap_err();
    assert_eq!(Code::from_i32(status.code), Code::InvalidArgument);
}

#[tokio::test]
async fn an_empty_subject_needs_a_critical_san() {
    conforms!("X509-06");
    each_leaf(|name, c| {
        let critical = c.subject_alternative_name().unwrap().unwrap().critical;
        assert!(critical || c.subject().iter().count() > 0, "{name}");
    })
    .await;
}

#[tokio::test]
async fn an_authority_is_an_svid_without_a_path() {
    conforms!("X509-07", "X509-08", "X509-09");
    let der = authority().await;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert_eq!(uri_names(&certificate), ["spiffe://example.org"]);
}

#[tokio::test]
async fn an_authority_says_that_it_is_one() {
    conforms!("X509-11");
    let der = authority().await;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(certificate.basic_constraints().unwrap().unwrap().value.ca);
}

#[tokio::test]
async fn a_leaf_is_no_authority() {
    conforms!("X509-12");
    each_leaf(|name, c| assert!(!c.is_ca(), "{name}")).await;
}

#[tokio::test]
async fn key_usage_is_there_and_critical() {
    conforms!("X509-15", "X509-16");
    each_leaf(|name, c| assert!(key_usage(c).0, "{name}")).await;
    let der = authority().await;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(key_usage(&certificate).0);
}

#[tokio::test]
async fn an_authority_signs_certificates_and_does_nothing_of_a_leafs() {
    conforms!("X509-17", "X509-21");
    let der = authority().await;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    let usage = key_usage(&certificate).1;
    assert!(usage.key_cert_sign());
    assert!(!usage.digital_signature() && !usage.key_encipherment() && !usage.key_agreement());
}

#[tokio::test]
async fn a_leaf_makes_signatures_but_signs_no_certificates() {
    conforms!("X509-18", "X509-20");
    each_leaf(|name, c| {
        let usage = key_usage(c).1;
        assert!(usage.digital_signature(), "{name}");
        assert!(!usage.key_cert_sign() && !usage.crl_sign(), "{name}");
    })
    .await;
}

#[tokio::test]
async fn a_leaf_may_be_server_and_client() {
    conforms!("X509-22", "X509-23");
    each_leaf(|name, c| {
        let usage = c.extended_key_usage().unwrap().expect("an extended key usage").value;
        assert!(usage.server_auth && usage.client_auth, "{name}");
    })
    .await;
    let der = authority().await;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(certificate.extended_key_usage().unwrap().is_none(), "an authority has none");
}

#[tokio::test]
async fn the_server_never_shows_its_authority_as_its_own_certificate() {
    conforms!("X509-10");
    let world = World::shared().await;
    let (_, presented) = mtls::channel(world.server.address(), &[], &[]).await.unwrap();
    let chain = presented.lock().clone();
    let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    assert_eq!(uri_names(&leaf), ["spiffe://example.org/spire/server"]);
    assert!(!leaf.is_ca());
}

/// The own bundle's document as the command line prints it.
pub async fn document(world: &World) -> Value {
    let socket = world.server.socket.to_str().unwrap();
    let said =
        cli::run("avouch-server", ["bundle", "show", "-format", "spiffe", "-socketPath", socket]).await;
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"))
}

/// The JWKs of a use.
pub fn keys_of(document: &Value, usage: &str) -> Vec<Value> {
    document["keys"].as_array().unwrap().iter().filter(|k| k["use"] == usage).cloned().collect()
}

#[tokio::test]
async fn the_bundle_document_names_x509_authorities() {
    conforms!("X509-31", "X509-32", "X509-34");
    let world = World::shared().await;
    let keys = keys_of(&document(&world).await, "x509-svid");
    assert_eq!(keys.len(), world.server.bundle().await.x509_authorities.len());
    for key in keys {
        assert!(key.get("kid").is_none(), "{key}");
        assert_eq!(key["x5c"].as_array().unwrap().len(), 1, "{key}");
    }
}

#[tokio::test]
async fn x5c_is_the_certificate_with_the_key_that_stands_beside_it() {
    conforms!("X509-33", "X509-35", "X509-36");
    let world = World::shared().await;
    let keys = keys_of(&document(&world).await, "x509-svid");
    let text = keys[0]["x5c"][0].as_str().unwrap();
    let der = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
    assert_eq!(der, world.server.bundle().await.x509_authorities[0].asn1);
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
    certificate.verify_signature(None).unwrap();
    let url = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let half = |name: &str| url.decode(keys[0][name].as_str().unwrap()).unwrap();
    let point = [vec![4], half("x"), half("y")].concat();
    assert_eq!(certificate.public_key().subject_public_key.data.as_ref(), point);
    assert_eq!((keys[0]["kty"].as_str(), keys[0]["crv"].as_str()), (Some("EC"), Some("P-256")));
}

#[tokio::test]
async fn certificates_have_the_extensions_of_the_profile_and_no_others() {
    let known = [
        oid::OID_X509_EXT_KEY_USAGE,
        oid::OID_X509_EXT_EXTENDED_KEY_USAGE,
        oid::OID_X509_EXT_BASIC_CONSTRAINTS,
        oid::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER,
        oid::OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER,
        oid::OID_X509_EXT_SUBJECT_ALT_NAME,
    ];
    each_leaf(|name, c| {
        for extension in c.extensions() {
            assert!(known.contains(&extension.oid), "{name}: {}", extension.oid);
            assert!(!matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. }), "{name}");
        }
    })
    .await;
}
