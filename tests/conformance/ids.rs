//! SPIFFE-ID: what an ID is, at every door: entries of the server, requests and tokens at the agent.

use avouch_credential::x509::verify::{TrustRoots, verify_svid};
use avouch_domain::{SpiffeId, Timestamp, TrustDomain};
use avouch_proto::types;
use avouch_tests::forge::{Authority, Token, now, open};
use avouch_tests::server::wire_id;
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, Server, ServerOptions, World, cli, conforms, entry};
use tonic::Code;

/// None of these may pass as an ID: not in the parser, nor as the ID of an entry, nor as the ID that a workload asks
/// for, nor as the subject of a token signed by the real key.
async fn refused_everywhere(texts: &[&str]) {
    let world = World::shared().await;
    let mut workload = world.agent.workload().await;
    let (kid, key) = jwt_key(&world.server).await;
    for text in texts {
        assert!(SpiffeId::parse(text).is_err(), "parser: {text:?}");
        let as_entry =
            types::Entry { spiffe_id: Some(wire_id(text)), ..entry(&world.agent.id, "/x", &["unix:uid:0"]) };
        let status = world.server.try_create(as_entry).await.expect_err(text);
        assert_eq!(Code::from_i32(status.code), Code::InvalidArgument, "entry {text:?}: {}", status.message);
        let status = workload.jwt(&["x"], text).await.expect_err(text);
        assert_eq!(status.code(), Code::InvalidArgument, "request {text:?}: {status:?}");
        let token = Token::new(&kid, text).sign(&key);
        let status = workload.validate("x", &token).await.expect_err(text);
        assert_eq!(status.code(), Code::InvalidArgument, "token {text:?}: {status:?}");
    }
}

/// The active JWT key of a server: its ID and PKCS#8.
pub async fn jwt_key(server: &Server) -> (String, Vec<u8>) {
    (server.bundle().await.jwt_authorities[0].key_id.clone(), server.key("JWT-Signer-A"))
}

#[tokio::test]
async fn the_scheme_is_spiffe() {
    conforms!("ID-01");
    refused_everywhere(&["http://example.org/a", "spiffe:/example.org/a", "//example.org/a"]).await;
}

#[tokio::test]
async fn the_trust_domain_is_not_empty() {
    conforms!("ID-02");
    refused_everywhere(&["spiffe://", "spiffe:///a"]).await;
}

#[tokio::test]
async fn there_is_no_query() {
    conforms!("ID-03");
    refused_everywhere(&["spiffe://example.org/a?x=1", "spiffe://example.org/a?"]).await;
}

#[tokio::test]
async fn there_is_no_fragment() {
    conforms!("ID-04");
    refused_everywhere(&["spiffe://example.org/a#f", "spiffe://example.org/a#"]).await;
}

#[tokio::test]
async fn there_is_no_user_information() {
    conforms!("ID-05");
    refused_everywhere(&[
        "spiffe://u@example.org/a",
        "spiffe://u:p@example.org/a",
        "spiffe://@example.org/a",
    ])
    .await;
}

#[tokio::test]
async fn there_is_no_port() {
    conforms!("ID-06");
    refused_everywhere(&["spiffe://example.org:8080/a", "spiffe://example.org:/a"]).await;
}

#[tokio::test]
async fn names_are_lower_case_and_never_folded() {
    conforms!("ID-07", "ID-21");
    refused_everywhere(&["spiffe://Example.org/a", "SPIFFE://example.org/a"]).await;
    let options = ServerOptions { trust_domain: "Example.org".into(), ..ServerOptions::default() };
    let prepared = Server::prepare(&options);
    let said =
        cli::run("avouch-server", ["validate".as_ref(), "-config".as_ref(), prepared.config.as_os_str()])
            .await;
    assert_eq!(said.code, 1, "{said:?}");
}

#[tokio::test]
async fn names_have_few_kinds_of_characters() {
    conforms!("ID-08");
    refused_everywhere(&[
        "spiffe://example.org!/a",
        "spiffe://td*/a",
        "spiffe://[::1]/a",
        "spiffe://tä.org/a",
        "spiffe://td,x/a",
    ])
    .await;
    for name in ["a_b-c.d", "1.2.3.4", "-", "_", ".", ".."] {
        assert!(TrustDomain::new(name).is_ok(), "{name}");
    }
}

#[tokio::test]
async fn nothing_in_a_name_is_decoded() {
    conforms!("ID-09");
    refused_everywhere(&["spiffe://%65xample.org/a", "spiffe://example%2Eorg/a"]).await;
}

#[tokio::test]
async fn a_name_that_looks_like_an_address_is_a_name() {
    conforms!("ID-10");
    let options = ServerOptions { trust_domain: "10.0.0.1".into(), ..ServerOptions::default() };
    let server = Server::start_with(options).await;
    let agent = Agent::start(&server).await;
    let id = Some(wire_id("spiffe://10.0.0.1/web"));
    let parent_id = Some(wire_id(&agent.id));
    server.create(types::Entry { spiffe_id: id, parent_id, ..entry(&agent.id, "/web", &[&my_uid()]) }).await;
    let mut workload = agent.workload().await;
    assert_eq!(workload.fetch_x509().await.unwrap().svids[0].spiffe_id, "spiffe://10.0.0.1/web");
    let token = &workload.jwt(&["x"], "").await.unwrap()[0];
    assert_eq!(workload.validate("x", &token.svid).await.unwrap().spiffe_id, "spiffe://10.0.0.1/web");
}

#[tokio::test]
async fn nothing_in_a_path_is_decoded() {
    conforms!("ID-11");
    refused_everywhere(&["spiffe://example.org/a%2Fb", "spiffe://example.org/%61"]).await;
}

#[tokio::test]
async fn no_segment_is_empty() {
    conforms!("ID-12");
    refused_everywhere(&["spiffe://example.org//a", "spiffe://example.org/a//b"]).await;
}

#[tokio::test]
async fn no_segment_is_one_or_two_dots() {
    conforms!("ID-13");
    refused_everywhere(&[
        "spiffe://example.org/a/./b",
        "spiffe://example.org/a/..",
        "spiffe://example.org/.",
        "spiffe://example.org/..",
    ])
    .await;
    for good in ["spiffe://example.org/...", "spiffe://example.org/.a", "spiffe://example.org/a..b"] {
        assert!(SpiffeId::parse(good).is_ok(), "{good}");
    }
}

#[tokio::test]
async fn no_path_ends_in_a_slash() {
    conforms!("ID-14");
    refused_everywhere(&["spiffe://example.org/", "spiffe://example.org/a/"]).await;
    assert!(SpiffeId::parse("spiffe://example.org").is_ok());
}

#[tokio::test]
async fn segments_have_few_kinds_of_characters() {
    conforms!("ID-15");
    refused_everywhere(&[
        "spiffe://example.org/a b",
        "spiffe://example.org/a:b",
        "spiffe://example.org/a@b",
        "spiffe://example.org/a~b",
        "spiffe://example.org/é",
        "spiffe://example.org/a\\b",
        "spiffe://example.org/a\0",
    ])
    .await;
}

/// An ID of example.org with so many bytes.
fn long_id(bytes: usize) -> String {
    let base = "spiffe://example.org/";
    format!("{base}{}", "a".repeat(bytes - base.len()))
}

#[tokio::test]
async fn an_id_of_2048_bytes_works_from_entry_to_validation() {
    conforms!("ID-16", "ID-17");
    let world = World::start().await;
    let with_id = |id: &str| types::Entry {
        spiffe_id: Some(wire_id(id)),
        ..entry(&world.agent.id, "/x", &[&my_uid()])
    };
    let status = world.server.try_create(with_id(&long_id(2049))).await.unwrap_err();
    assert_eq!(Code::from_i32(status.code), Code::InvalidArgument);
    let id = long_id(2048);
    world.server.create(with_id(&id)).await;
    let mut workload = world.agent.workload().await;
    assert_eq!(workload.fetch_x509().await.unwrap().svids[0].spiffe_id, id);
    let token = workload.jwt(&["x"], &id).await.unwrap().remove(0).svid;
    assert_eq!(workload.validate("x", &token).await.unwrap().spiffe_id, id);
}

#[tokio::test]
async fn a_name_has_at_most_255_bytes() {
    conforms!("ID-18");
    for (length, code) in [(255, 0), (256, 1)] {
        let options = ServerOptions { trust_domain: "a".repeat(length), ..ServerOptions::default() };
        let config = Server::prepare(&options).config.clone();
        let prepared = Server::prepare(&options);
        drop(config);
        let args = ["validate".as_ref(), "-config".as_ref(), prepared.config.as_os_str()];
        assert_eq!(cli::run("avouch-server", args).await.code, code, "{length}");
    }
}

#[tokio::test]
async fn case_makes_another_identity() {
    conforms!("ID-19");
    let world = World::shared().await;
    let mut workload = world.agent.workload().await;
    assert_eq!(workload.jwt(&["x"], "spiffe://example.org/one").await.unwrap().len(), 1);
    let status = workload.jwt(&["x"], "spiffe://example.org/One").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_healthy_server_has_an_authority() {
    conforms!("ID-22");
    // Start waits for health and nothing else.
    let server = Server::start().await;
    assert!(!server.bundle().await.x509_authorities.is_empty());
}

#[tokio::test]
async fn the_authority_is_a_self_signed_svid_of_the_bare_trust_domain() {
    conforms!("ID-23", "ID-24", "ID-25", "ID-26");
    let world = World::shared().await;
    let der = &world.server.bundle().await.x509_authorities[0].asn1;
    let (_, certificate) = x509_parser::parse_x509_certificate(der).unwrap();
    assert_eq!(crate::x509_issue::uri_names(&certificate), ["spiffe://example.org"]);
    assert_eq!(certificate.issuer(), certificate.subject());
    certificate.verify_signature(None).unwrap();
}

#[tokio::test]
async fn a_changed_id_breaks_the_signature() {
    conforms!("ID-27");
    let world = World::shared().await;
    let mut workload = world.agent.workload().await;
    let svid = workload.fetch_x509().await.unwrap().svids.remove(0);
    let roots = crate::x509_validate::roots(&[&svid.bundle]);
    let domain = avouch_domain::fixtures::domain();
    let at = Timestamp::from_secs(now());
    verify_svid(&[&svid.x509_svid], &roots, &domain, at).unwrap();
    let text = b"spiffe://example.org/one";
    let place = svid.x509_svid.windows(text.len()).position(|w| w == text).unwrap();
    let mut changed = svid.x509_svid.clone();
    changed[place + text.len() - 1] = b'f';
    assert!(verify_svid(&[&changed], &roots, &domain, at).is_err());

    let token = workload.jwt(&["x"], &svid.spiffe_id).await.unwrap().remove(0).svid;
    let (header, mut claims) = open(&token);
    claims["sub"] = "spiffe://example.org/onf".into();
    let signature = token.rsplit_once('.').unwrap().1;
    let changed = format!("{}.{signature}", Token { header, claims }.unsigned());
    assert_eq!(workload.validate("x", &changed).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn other_documents_are_no_svids() {
    conforms!("ID-28");
    let world = World::shared().await;
    let (kid, key) = jwt_key(&world.server).await;
    let mut workload = world.agent.workload().await;
    for typ in ["wit+jwt", "at+jwt", "ssh"] {
        let token = Token::new(&kid, "spiffe://example.org/a").with_header("typ", typ.into()).sign(&key);
        assert_eq!(workload.validate("x", &token).await.unwrap_err().code(), Code::InvalidArgument, "{typ}");
    }
    let bundle = world.server.bundle().await.x509_authorities[0].asn1.clone();
    let roots = crate::x509_validate::roots(&[&bundle]);
    let ssh = b"\0\0\0\x28ecdsa-sha2-nistp256-cert-v01@openssh.com spiffe://example.org/a";
    assert!(
        verify_svid(&[ssh], &roots, &avouch_domain::fixtures::domain(), Timestamp::from_secs(now())).is_err()
    );
}

#[tokio::test]
async fn an_authority_vouches_for_its_own_trust_domain_only() {
    conforms!("ID-29", "X509-30");
    let server = Server::start().await;
    let foreign = Authority::fresh("spiffe://other.org");
    crate::bundle::federate(&server, "other.org", &[&foreign.der], &[]).await;
    let leaf = foreign.leaf("spiffe://example.org/a");
    assert!(!crate::x509_validate::server_takes(&server, std::slice::from_ref(&leaf.der), &leaf.key).await);
    let none = TrustRoots::new(&[]);
    let at = Timestamp::from_secs(now());
    assert!(verify_svid(&[&leaf.der], &none, &avouch_domain::fixtures::domain(), at).is_err());
}
