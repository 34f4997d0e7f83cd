//! JWT-SVID, the issuer's rules: tokens fetched by a workload and tokens minted by an admin.

use avouch_proto::svid_v1;
use avouch_tests::forge::{now, open};
use avouch_tests::server::wire_id;
use avouch_tests::{World, conforms};
use serde_json::Value;
use tonic::Code;

async fn minted(world: &World, audience: &[&str]) -> Result<String, tonic::Status> {
    let request = svid_v1::MintJwtsvidRequest {
        id: Some(wire_id("spiffe://example.org/minted")),
        audience: audience.iter().map(ToString::to_string).collect(),
        ttl: 0,
    };
    Ok(world.server.svids().await.mint_jwtsvid(request).await?.into_inner().svid.unwrap().token)
}

/// Tokens for audience `x` with the ID each is for.
async fn tokens() -> Vec<(String, String)> {
    let world = World::shared().await;
    let mut workload = world.agent.workload().await;
    let fetched = workload.jwt(&["x"], "").await.unwrap();
    let mut tokens: Vec<_> = fetched.into_iter().map(|t| (t.spiffe_id, t.svid)).collect();
    tokens.push(("spiffe://example.org/minted".into(), minted(&world, &["x"]).await.unwrap()));
    tokens
}

async fn each(check: impl Fn(&str, &Value, &Value)) {
    for (id, token) in tokens().await {
        let (header, claims) = open(&token);
        check(&id, &header, &claims);
    }
}

#[tokio::test]
async fn tokens_are_compact() {
    conforms!("JWT-01");
    for (_, token) in tokens().await {
        let parts: Vec<_> = token.split('.').collect();
        assert_eq!(parts.len(), 3);
        let url = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert!(parts.iter().all(|p| !p.is_empty() && p.chars().all(url)), "{token}");
    }
}

#[tokio::test]
async fn the_header_has_three_members_at_most() {
    conforms!("JWT-03", "JWT-07");
    each(|id, header, _| {
        let known = ["alg", "kid", "typ"];
        assert!(header.as_object().unwrap().keys().all(|k| known.contains(&k.as_str())), "{id}: {header}");
        assert_eq!(header["typ"], "JWT", "{id}");
    })
    .await;
}

#[tokio::test]
async fn the_algorithm_is_allowed_and_fits_the_key() {
    conforms!("JWT-04", "JWT-28");
    each(|id, header, _| assert_eq!(header["alg"], "ES256", "{id}: the default key is P-256")).await;
}

#[tokio::test]
async fn the_key_id_is_one_of_the_bundle() {
    conforms!("JWT-06");
    let world = World::shared().await;
    let known: Vec<_> = world.server.bundle().await.jwt_authorities.into_iter().map(|a| a.key_id).collect();
    each(|id, header, _| assert!(known.iter().any(|k| header["kid"] == k.as_str()), "{id}: {header}")).await;
}

#[tokio::test]
async fn the_subject_is_the_workloads_id() {
    conforms!("JWT-08");
    each(|id, _, claims| assert_eq!(claims["sub"], id)).await;
}

#[tokio::test]
async fn there_is_an_audience_and_without_one_no_token() {
    conforms!("JWT-10");
    each(|id, _, claims| assert_eq!(claims["aud"], serde_json::json!(["x"]), "{id}")).await;
    let world = World::shared().await;
    for audience in [&[][..], &[""]] {
        assert_eq!(minted(&world, audience).await.unwrap_err().code(), Code::InvalidArgument, "{audience:?}");
        let status = world.agent.workload().await.jwt(audience, "").await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{audience:?}");
    }
}

#[tokio::test]
async fn there_is_an_end_in_whole_seconds() {
    conforms!("JWT-15");
    each(|id, _, claims| {
        let end = claims["exp"].as_i64().unwrap_or_else(|| panic!("{id}: {claims}"));
        assert!(end > now() && end <= now() + 301, "{id}: five minutes by default");
    })
    .await;
}

#[tokio::test]
async fn the_bundle_document_names_jwt_authorities() {
    conforms!("JWT-23", "JWT-24");
    let world = World::shared().await;
    let keys = crate::x509_issue::keys_of(&crate::x509_issue::document(&world).await, "jwt-svid");
    let mut ids: Vec<_> = keys.iter().map(|k| k["kid"].as_str().unwrap().to_owned()).collect();
    assert!(!ids.is_empty() && ids.iter().all(|i| !i.is_empty()));
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), keys.len(), "each key has its own");
}
