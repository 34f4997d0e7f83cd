//! Owners are demanded from a moment on: what has none is warned of first, withheld then, and given back by an adoption.

use std::time::Duration;

use avouch_proto::entry_v1;
use avouch_tests::{Server, World, eventually};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::Code;

use crate::governed::{avouch, first_person, good};

/// Writes into the configuration from when on owners are demanded; gives the moment.
fn demand(server: &Server, from: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(from).unwrap().format(&Rfc3339).unwrap();
    let text = std::fs::read_to_string(&server.config).unwrap();
    let key = format!("owners_demanded_from = \"{moment}\"\n  ratelimit {{");
    std::fs::write(&server.config, text.replacen("ratelimit {", &key, 1)).unwrap();
    moment
}

#[tokio::test]
async fn what_has_no_owner_is_warned_of_then_withheld_and_still_listed_and_an_adoption_gives_it_back() {
    let mut world = World::start().await;
    first_person(&world.server).await;
    let before = world.grant("/billing/web").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    stream.next().await.unwrap();

    world.server.stop().await;
    let moment = demand(&world.server, (avouch::clock::now().wall + Duration::from_secs(6)).secs());
    world.server.restart().await;
    let found = good(&world.server, &["found"]).await;
    assert_eq!(found[0]["withheld_from"], Value::from(moment.as_str()));
    let told = avouch(&world.server, &["verify", "--require", "owner"]).await;
    assert!(told.out.contains(&format!("withheld from {moment} on")), "{told:?}");
    eventually("a warning at the start", async || {
        world.server.daemon().log().contains("`avouch adopt` gives them an owner").then_some(())
    })
    .await;

    // The stream lives on over the restart of the server, and ends when the moment comes.
    let ended = stream.end().await;
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended}");
    let listed = world.server.entries().await.list_entries(entry_v1::ListEntriesRequest::default()).await;
    assert_eq!(listed.unwrap().into_inner().entries, [before]);

    world.grant("/late").await;
    eventually("a warning of the new entry", async || {
        world.server.daemon().log().contains("Nobody owns what this entry gives out").then_some(())
    })
    .await;
    let asked = world.agent.workload().await.fetch_x509().await.unwrap_err();
    assert_eq!(asked.code(), Code::PermissionDenied, "nobody owns the new one either: {asked}");

    let adopt = ["adopt", "--path", "/billing/", "--kind", "service", "--env", "prod"];
    let adopt = adopt
        .iter()
        .chain(&["--purpose", "billing", "--ends", "365d", "--owner", "Ada Example", "--apply"])
        .copied();
    good(&world.server, &adopt.collect::<Vec<_>>()).await;
    let back =
        eventually("the adopted SVID", async || world.agent.workload().await.fetch_x509().await.ok()).await;
    let names: Vec<_> = back.svids.iter().map(|svid| svid.spiffe_id.as_str()).collect();
    assert_eq!(names, ["spiffe://example.org/billing/web"]);
}
