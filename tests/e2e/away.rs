//! What workloads get while the server is away: everything cached that still lives, and nothing else.

use std::time::Duration;

use avouch_proto::types;
use avouch_tests::forge::{now, open};
use avouch_tests::world::my_uid;
use avouch_tests::{World, entry, eventually};
use tonic::Code;

/// How long a stream must stay silent to count as silent.
const SILENCE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn cached_tokens_are_handed_out_and_new_ones_are_unavailable() {
    let mut world = World::start().await;
    world.grant("/web").await;
    let mut workload = world.agent.workload().await;
    workload.fetch_x509().await.unwrap();
    let before = workload.jwt(&["cached"], "").await.unwrap();
    world.server.stop().await;
    let mut newcomer = world.agent.workload().await;
    assert_eq!(newcomer.jwt(&["cached"], "").await.unwrap(), before);
    let status = newcomer.jwt(&["never asked for before"], "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.message().starts_with("could not fetch JWT-SVID: "), "{status:?}");
    newcomer.validate("cached", &before[0].svid).await.unwrap();
    newcomer.x509_bundles().await.unwrap();
}

#[tokio::test]
async fn nothing_expired_is_handed_out() {
    const LIFE: i32 = 6;
    let mut world = World::start().await;
    let short = types::Entry {
        x509_svid_ttl: LIFE,
        jwt_svid_ttl: LIFE,
        ..entry(&world.agent.id, "/short", &[&my_uid()])
    };
    world.server.create(short).await;
    let mut workload = world.agent.workload().await;
    workload.fetch_x509().await.unwrap();
    let token = workload.jwt(&["x"], "").await.unwrap().remove(0).svid;
    world.server.stop().await;
    // Each answer on the way is alive when it comes; at the end there is none.
    let end = open(&token).1["exp"].as_i64().unwrap();
    let status = eventually("the end of the token", async || match workload.jwt(&["x"], "").await {
        Ok(tokens) => {
            let exp = open(&tokens[0].svid).1["exp"].as_i64().unwrap();
            assert!(exp >= now(), "handed out {} s after its end", now() - exp);
            None
        }
        Err(status) => Some(status),
    })
    .await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(now() >= end - 1, "refused {} s before its end", end - now());
    eventually("the end of the SVID", async || (now() > end + 1).then_some(())).await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    let silent = tokio::time::timeout(SILENCE, stream.0.message()).await.is_err();
    assert!(silent, "entitled, but there is nothing alive to hand out");
    world.server.restart().await;
    let answer = stream.next().await.unwrap();
    assert_eq!(
        answer.svids[0].spiffe_id, "spiffe://example.org/short",
        "served as soon as the server is back"
    );
}
