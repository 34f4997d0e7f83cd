//! SPIFFE Workload API: what single answers hold.

use avouch_domain::{Timestamp, fixtures};
use avouch_proto::types;
use avouch_proto::workload as wire;
use avouch_tests::forge::{now, open};
use avouch_tests::world::my_uid;
use avouch_tests::{AgentOptions, ServerOptions, World, cli, conforms, entry, within};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use prost_types::value::Kind;
use serde_json::Value;
use tonic::Code;

async fn x509() -> wire::X509svidResponse {
    World::shared().await.agent.workload().await.fetch_x509().await.unwrap()
}

#[tokio::test]
async fn both_profiles_are_served() {
    conforms!("WA-01");
    let world = World::shared().await;
    let mut workload = world.agent.workload().await;
    workload.fetch_x509().await.unwrap();
    workload.x509_bundles().await.unwrap();
    let token = workload.jwt(&["x"], "").await.unwrap().remove(0);
    workload.jwt_bundle_stream().await.unwrap().next().await.unwrap();
    workload.validate("x", &token.svid).await.unwrap();
}

#[tokio::test]
async fn each_caller_gets_its_own_identity() {
    conforms!("WA-06");
    let options = AgentOptions { unix: "discover_workload_path = true".into(), ..AgentOptions::default() };
    let world = World::start_with(ServerOptions::default(), options).await;
    let me = std::env::current_exe().unwrap();
    let other = std::fs::canonicalize(avouch_tests::daemon::binary("avouch-agent")).unwrap();
    for (path, exe) in [("/test", me), ("/verb", other)] {
        world.server.create(entry(&world.agent.id, path, &[&format!("unix:path:{}", exe.display())])).await;
    }
    let answer = world.agent.workload().await.fetch_x509().await.unwrap();
    let ids: Vec<_> = answer.svids.iter().map(|s| s.spiffe_id.as_str()).collect();
    assert_eq!(ids, ["spiffe://example.org/test"]);
    let socket = world.agent.socket.to_str().unwrap();
    let said = cli::run("avouch-agent", ["api", "fetch", "x509", "-socketPath", socket]).await;
    assert!(said.out.contains("spiffe://example.org/verb") && !said.out.contains("/test"), "{said:?}");
}

#[tokio::test]
async fn a_first_message_comes_at_once() {
    conforms!("WA-11");
    let world = World::shared().await;
    let mut workload = world.agent.workload().await;
    workload.fetch_x509().await.unwrap();
    let second = std::time::Duration::from_secs(1);
    for _ in 0..10 {
        tokio::time::timeout(second, workload.fetch_x509()).await.expect("within a second").unwrap();
        tokio::time::timeout(second, workload.x509_bundles()).await.expect("within a second").unwrap();
    }
}

#[tokio::test]
async fn requests_without_a_mandatory_field_are_refused() {
    conforms!("WA-16");
    let world = World::shared().await;
    let mut workload = world.agent.workload().await;
    for audience in [&[][..], &[""]] {
        assert_eq!(
            workload.jwt(audience, "").await.unwrap_err().code(),
            Code::InvalidArgument,
            "{audience:?}"
        );
    }
    for (audience, svid) in [("", "x"), ("x", "")] {
        let status = workload.validate(audience, svid).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{audience:?} {svid:?}");
    }
}

#[tokio::test]
async fn x509_bundles_hold_x509_authorities() {
    conforms!("WA-19", "WA-31", "WA-33");
    let world = World::shared().await;
    let bundles = world.agent.workload().await.x509_bundles().await.unwrap().bundles;
    let authorities = world.server.bundle().await.x509_authorities;
    assert_eq!(bundles.keys().collect::<Vec<_>>(), ["spiffe://example.org"]);
    let together: Vec<u8> = authorities.into_iter().flat_map(|a| a.asn1).collect();
    assert_eq!(bundles["spiffe://example.org"], together);
}

#[tokio::test]
async fn an_answer_has_one_full_svid_for_each_identity() {
    conforms!("WA-20", "WA-21", "WA-22");
    let svids = x509().await.svids;
    let ids: Vec<_> = svids.iter().map(|s| s.spiffe_id.as_str()).collect();
    assert_eq!(ids, ["spiffe://example.org/one", "spiffe://example.org/two"]);
    for svid in svids {
        assert!(!svid.x509_svid.is_empty() && !svid.x509_svid_key.is_empty() && !svid.bundle.is_empty());
    }
}

#[tokio::test]
async fn the_chain_begins_with_the_leaf_and_has_no_root() {
    conforms!("WA-23", "WA-25");
    for svid in x509().await.svids {
        let chain = avouch_credential::x509::facts::split_chain(&svid.x509_svid).unwrap();
        let roots = crate::x509_validate::roots(&[&svid.bundle]);
        let at = Timestamp::from_secs(now());
        let id =
            avouch_credential::x509::verify::verify_svid(&chain, &roots, &fixtures::domain(), at).unwrap();
        assert_eq!(id.as_str(), svid.spiffe_id);
        assert!(!chain.contains(&svid.bundle), "the root is not in the chain");
    }
}

#[tokio::test]
async fn the_key_is_the_leafs() {
    conforms!("WA-24");
    for svid in x509().await.svids {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &svid.x509_svid_key).unwrap();
        let signature = key.sign(&SystemRandom::new(), b"message").unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&svid.x509_svid).unwrap();
        let public = leaf.public_key().subject_public_key.data.to_vec();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public)
            .verify(b"message", signature.as_ref())
            .unwrap();
    }
}

#[tokio::test]
async fn of_two_equal_hints_one_is_handed_out() {
    conforms!("WA-26");
    let world = World::start().await;
    for (id, hint) in [("e1", "same"), ("e2", "same"), ("e3", "")] {
        let mut made = entry(&world.agent.id, &format!("/{id}"), &[&my_uid()]);
        made.id = id.into();
        made.hint = hint.into();
        world.server.create(made).await;
    }
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    let answer =
        stream.until("the entry without a hint", |m| m.svids.iter().any(|s| s.hint.is_empty())).await;
    let mut hints: Vec<_> = answer.svids.iter().map(|s| s.hint.as_str()).filter(|h| !h.is_empty()).collect();
    let count = hints.len();
    hints.dedup();
    assert_eq!((hints.len(), count), (1, 1), "{:?}", answer.svids);
}

#[tokio::test]
async fn audiences_are_copied_in_order() {
    conforms!("WA-35");
    let world = World::shared().await;
    let mut workload = world.agent.workload().await;
    for token in workload.jwt(&["b", "a", "c"], "").await.unwrap() {
        assert_eq!(open(&token.svid).1["aud"], serde_json::json!(["b", "a", "c"]));
    }
}

#[tokio::test]
async fn without_an_id_all_identities_get_a_token() {
    conforms!("WA-36", "WA-38");
    let world = World::shared().await;
    let tokens = world.agent.workload().await.jwt(&["x"], "").await.unwrap();
    let ids: Vec<_> = tokens.iter().map(|t| t.spiffe_id.as_str()).collect();
    assert_eq!(ids, ["spiffe://example.org/one", "spiffe://example.org/two"]);
    assert!(tokens.iter().all(|t| !t.svid.is_empty()));
}

#[tokio::test]
async fn with_an_id_that_identity_alone_gets_a_token() {
    conforms!("WA-37");
    let world = World::shared().await;
    let tokens = world.agent.workload().await.jwt(&["x"], "spiffe://example.org/two").await.unwrap();
    assert_eq!(tokens.len(), 1);
    assert_eq!(open(&tokens[0].svid).1["sub"], "spiffe://example.org/two");
}

#[tokio::test]
async fn an_id_that_the_caller_has_not_is_refused() {
    conforms!("WA-39");
    let world = World::shared().await;
    let mut workload = world.agent.workload().await;
    let status = workload.jwt(&["x"], "spiffe://example.org/not-mine").await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
    assert_eq!(workload.jwt(&["x"], "not an id").await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn jwt_bundles_are_sets_of_jwt_authorities() {
    conforms!("WA-40", "WA-33");
    let world = World::shared().await;
    let mut stream = world.agent.workload().await.jwt_bundle_stream().await.unwrap();
    let bundles = stream.next().await.unwrap().bundles;
    let set: Value = serde_json::from_slice(&bundles["spiffe://example.org"]).unwrap();
    let expected: Vec<_> =
        world.server.bundle().await.jwt_authorities.into_iter().map(|a| a.key_id).collect();
    let keys = set["keys"].as_array().unwrap();
    let ids: Vec<_> = keys.iter().map(|k| k["kid"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids, expected);
    for key in keys {
        assert!(key.get("x5c").is_none(), "{key}");
        assert!(key.get("use").is_none_or(|u| u == "jwt-svid"), "{key}");
    }
}

#[tokio::test]
async fn validation_answers_with_id_and_claims() {
    conforms!("WA-41");
    let world = World::shared().await;
    let mut workload = world.agent.workload().await;
    let token = workload.jwt(&["x", "y"], "spiffe://example.org/one").await.unwrap().remove(0).svid;
    let answer = workload.validate("y", &token).await.unwrap();
    assert_eq!(answer.spiffe_id, "spiffe://example.org/one");
    let claims = answer.claims.unwrap().fields;
    let kind = |name: &str| claims[name].kind.clone().unwrap();
    assert_eq!(kind("sub"), Kind::StringValue("spiffe://example.org/one".into()));
    assert!(matches!(kind("aud"), Kind::ListValue(list) if list.values.len() == 2));
    assert!(matches!(kind("exp"), Kind::NumberValue(exp) if exp > 0.0));
}

#[tokio::test]
async fn tokens_that_are_not_valid_are_invalid_arguments() {
    conforms!("WA-42");
    let world = World::shared().await;
    let mut workload = world.agent.workload().await;
    let token = workload.jwt(&["x"], "").await.unwrap().remove(0).svid;
    for (audience, svid) in [("other", token.clone()), ("x", format!("{token}x")), ("x", "no token".into())] {
        assert_eq!(workload.validate(audience, &svid).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn the_default_identity_stays_the_first() {
    conforms!("WA-50");
    let order = async || x509().await.svids.into_iter().map(|s| s.spiffe_id).collect::<Vec<_>>();
    let first = order().await;
    for _ in 0..5 {
        assert_eq!(order().await, first);
    }
}

#[tokio::test]
async fn a_hint_has_1024_bytes_at_most_and_is_passed_on_as_it_is() {
    conforms!("WA-51", "WA-52");
    let world = World::start().await;
    let with_hint = |hint: String| types::Entry { hint, ..entry(&world.agent.id, "/web", &[&my_uid()]) };
    let status = world.server.try_create(with_hint("h".repeat(1025))).await.unwrap_err();
    assert_eq!(Code::from_i32(status.code), Code::InvalidArgument);
    let hint = format!(" ä\u{1f511} {}", "h".repeat(1016));
    assert_eq!(hint.len(), 1024);
    world.server.create(with_hint(hint.clone())).await;
    let answer = within("an answer", world.agent.workload().await.fetch_x509()).await.unwrap();
    assert_eq!(answer.svids[0].hint, hint);
}
