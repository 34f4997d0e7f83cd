//! Daemons that stop, start again, and what their callers see.

use avouch_tests::World;
use tonic::Code;

#[tokio::test]
async fn a_stopping_agent_ends_its_streams_as_unavailable_and_itself_with_success() {
    let mut world = World::start().await;
    world.grant("/web").await;
    let mut workload = world.agent.workload().await;
    let mut svids = workload.x509().await.unwrap();
    svids.next().await.unwrap();
    let mut bundles = workload.jwt_bundle_stream().await.unwrap();
    bundles.next().await.unwrap();
    let (ended, status) = tokio::join!(world.agent.stop(), svids.end());
    assert!(ended.success(), "{ended}");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(bundles.end().await.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_restarted_agent_keeps_its_node_and_answers_again() {
    let mut world = World::start().await;
    world.grant("/web").await;
    world.agent.stop().await;
    world.agent.restart().await;
    let answer = world.agent.workload().await.fetch_x509().await.unwrap();
    assert_eq!(answer.svids[0].spiffe_id, "spiffe://example.org/web");
    assert_eq!(world.server.nodes().await.len(), 1, "it did not attest as another node");
}

#[tokio::test]
async fn an_agent_serves_while_its_server_is_away_and_follows_it_after() {
    let mut world = World::start().await;
    world.grant("/web").await;
    let mut workload = world.agent.workload().await;
    let mut stream = workload.x509().await.unwrap();
    stream.next().await.unwrap();
    assert!(world.server.stop().await.success());
    let mut newcomer = world.agent.workload().await;
    assert_eq!(
        newcomer.fetch_x509().await.unwrap().svids.len(),
        1,
        "a new caller is answered from the cache"
    );
    world.server.restart().await;
    world.grant("/after").await;
    stream.until("the entry made after the restart", |m| m.svids.len() == 2).await;
}

#[tokio::test]
async fn a_restarted_server_keeps_its_authorities_and_entries() {
    let mut world = World::start().await;
    let entry = world.grant("/web").await;
    let before = world.server.bundle().await;
    world.server.stop().await;
    world.server.restart().await;
    let after = world.server.bundle().await;
    assert_eq!(before.x509_authorities, after.x509_authorities);
    assert_eq!(before.jwt_authorities, after.jwt_authorities);
    let asked = avouch_proto::entry_v1::GetEntryRequest { id: entry.id.clone(), output_mask: None };
    assert_eq!(world.server.entries().await.get_entry(asked).await.unwrap().into_inner(), entry);
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there_after() {
    let mut world = World::start().await;
    let entry = world.grant("/web").await;
    world.server.daemon().kill().await;
    world.server.restart().await;
    let asked = avouch_proto::entry_v1::GetEntryRequest { id: entry.id.clone(), output_mask: None };
    assert_eq!(world.server.entries().await.get_entry(asked).await.unwrap().into_inner(), entry);
}
