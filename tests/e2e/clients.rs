//! The Rust `spiffe` client, unmodified, against the agent.

use std::time::Duration;

use avouch_tests::world::my_uid;
use avouch_tests::{Agent, Server, World, entry, eventually, within};
use spiffe::{WorkloadApiClient, X509Source};
use tokio_stream::StreamExt as _;

async fn client(agent: &Agent) -> WorkloadApiClient {
    WorkloadApiClient::connect_to(agent.endpoint()).await.unwrap()
}

#[tokio::test]
async fn a_join_token_an_entry_and_a_client_make_a_verified_x509_svid() {
    let world = World::start().await;
    world.grant("/web").await;
    let context = within("an X509-SVID", client(&world.agent).await.fetch_x509_context()).await.unwrap();
    let svid = context.default_svid().unwrap();
    assert_eq!(svid.spiffe_id().to_string(), "spiffe://example.org/web");
    let chain: Vec<_> = svid.cert_chain().iter().map(|c| c.as_ref().to_vec()).collect();
    let bundle = world.server.bundle().await;
    let roots: Vec<_> = bundle
        .x509_authorities
        .iter()
        .map(|a| avouch_credential::x509::facts::check_authority(&a.asn1).unwrap())
        .collect();
    let roots = avouch_credential::x509::verify::TrustRoots::new(&roots);
    let now = avouch_domain::Timestamp::from_secs(avouch_tests::forge::now());
    let domain = avouch_domain::fixtures::domain();
    let id = avouch_credential::x509::verify::verify_svid(&chain, &roots, &domain, now).unwrap();
    assert_eq!(id.as_str(), "spiffe://example.org/web");
}

#[tokio::test]
async fn a_client_fetches_and_validates_jwt_svids() {
    let world = World::start().await;
    world.grant("/web").await;
    let client = client(&world.agent).await;
    let svid = within("a JWT-SVID", client.fetch_jwt_svid(["a", "b"], None)).await.unwrap();
    assert_eq!(svid.spiffe_id().to_string(), "spiffe://example.org/web");
    assert_eq!(svid.audience(), ["a", "b"]);
    let claims = within("validation", client.validate_jwt_token("b", svid.token())).await.unwrap();
    assert_eq!(claims.spiffe_id().to_string(), "spiffe://example.org/web");
    assert!(within("validation", client.validate_jwt_token("c", svid.token())).await.is_err());
}

#[tokio::test]
async fn a_client_reads_both_bundles() {
    let world = World::start().await;
    world.grant("/web").await;
    let client = client(&world.agent).await;
    let domain = spiffe::TrustDomain::new("example.org").unwrap();
    let x509 = within("X.509 bundles", client.fetch_x509_bundles()).await.unwrap();
    assert_eq!(x509.get(&domain).unwrap().authorities().len(), 1);
    let jwt = within("JWT bundles", client.fetch_jwt_bundles()).await.unwrap();
    assert!(jwt.get(&domain).is_some());
}

#[tokio::test]
async fn a_source_survives_a_restart_of_the_agent() {
    let mut world = World::start().await;
    world.grant("/web").await;
    let building = X509Source::builder()
        .endpoint(world.agent.endpoint())
        .reconnect_backoff(Duration::from_millis(20), Duration::from_millis(100))
        .build();
    let source = within("a source", building).await.unwrap();
    assert_eq!(source.svid().unwrap().spiffe_id().to_string(), "spiffe://example.org/web");
    assert!(world.agent.stop().await.success());
    world.agent.restart().await;
    let after = world.server.create(entry(&world.agent.id, "/later", &[&my_uid()])).await;
    assert!(!after.id.is_empty());
    eventually("the source to see the new identity", async || {
        let context = source.x509_context().ok()?;
        context.svids().iter().any(|s| s.spiffe_id().to_string().ends_with("/later")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_may_be_there_before_the_agent() {
    let server = Server::start().await;
    let token = server.token().await;
    let proof = avouch_tests::Proof::JoinToken(token);
    let mut agent = Agent::prepare(&server, "a", &proof, &avouch_tests::AgentOptions::default()).await;
    server.create(entry(&agent.id, "/web", &[&my_uid()])).await;
    let endpoint = agent.endpoint();
    let early = tokio::spawn(
        X509Source::builder()
            .endpoint(endpoint)
            .reconnect_backoff(Duration::from_millis(20), Duration::from_millis(100))
            .build(),
    );
    agent.restart().await;
    let source = within("a source", early).await.unwrap().unwrap();
    assert_eq!(source.svid().unwrap().spiffe_id().to_string(), "spiffe://example.org/web");
}

#[tokio::test]
async fn a_watching_client_sees_an_update() {
    let world = World::start().await;
    world.grant("/web").await;
    let client = client(&world.agent).await;
    let mut contexts = within("a stream", client.stream_x509_contexts()).await.unwrap();
    let first = within("the first context", contexts.next()).await.unwrap().unwrap();
    assert_eq!(first.svids().len(), 1);
    world.grant("/second").await;
    let second = within("the second context", contexts.next()).await.unwrap().unwrap();
    assert_eq!(second.svids().len(), 2);
}
