//! SPIFFE Workload API: what streams send when something changes.

use avouch_proto::{types, workload as wire};
use avouch_tests::daemon::{Daemon, binary};
use avouch_tests::forge::Authority;
use avouch_tests::world::my_uid;
use avouch_tests::{World, conforms, entry};
use tonic::Code;

use crate::fake::{Fake, answer};

#[tokio::test]
async fn each_message_is_the_whole_state() {
    conforms!("WA-09", "WA-10");
    let world = World::start().await;
    let foreign = Authority::fresh("spiffe://other.org");
    crate::bundle::federate(&world.server, "other.org", &[&foreign.der], &[]).await;
    let mut one = entry(&world.agent.id, "/one", &[&my_uid()]);
    one.federates_with = vec!["other.org".into()];
    world.server.create(one).await;
    let two = world.grant("/two").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    let before = stream.until("both", |m| m.svids.len() == 2 && m.federated_bundles.len() == 1).await;
    world.server.update(types::Entry { hint: "changed".into(), ..two }).await;
    let changed = |m: &wire::X509svidResponse| m.svids.iter().any(|s| s.hint == "changed");
    let message = stream.until("the change", changed).await;
    assert_eq!(message.svids.len(), 2, "the other identity is there too");
    assert_eq!(message.federated_bundles["spiffe://other.org"], foreign.der);
    // The changed entry is signed anew, in this message or the next; from then on nothing changes.
    let old = |svid: &wire::X509svid| before.svids.iter().any(|b| b.x509_svid == svid.x509_svid);
    let settled = |m: &wire::X509svidResponse| m.svids.iter().any(|s| s.hint == "changed" && !old(s));
    let message = match settled(&message) {
        true => message,
        false => stream.until("the SVID of the changed entry", settled).await,
    };
    let late = world.agent.workload().await.fetch_x509().await.unwrap();
    assert_eq!(late, message, "who comes later sees the same");
}

#[tokio::test]
async fn what_is_taken_away_is_missing_and_after_the_last_the_stream_ends() {
    conforms!("WA-29", "WA-20");
    let world = World::start().await;
    let one = world.grant("/one").await;
    let two = world.grant("/two").await;
    let mut workload = world.agent.workload().await;
    let mut stream = workload.x509().await.unwrap();
    let mut bundles = workload.x509_bundle_stream().await.unwrap();
    stream.until("both", |m| m.svids.len() == 2).await;
    world.server.delete(&one.id).await;
    let left = stream.until("one", |m| m.svids.len() == 1).await;
    assert_eq!(left.svids[0].spiffe_id, "spiffe://example.org/two");
    world.server.delete(&two.id).await;
    loop {
        match stream.next().await {
            Ok(message) => assert!(!message.svids.is_empty(), "never an empty list"),
            Err(status) => {
                assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
                break;
            }
        }
    }
    assert_eq!(bundles.end().await.code(), Code::PermissionDenied);
    world.grant("/again").await;
    assert_eq!(workload.fetch_x509().await.unwrap().svids.len(), 1, "granted again, answered again");
}

#[tokio::test]
async fn our_client_forgets_what_a_later_message_leaves_out() {
    conforms!("WA-13");
    let fake = Fake::start().await;
    let mut command = std::process::Command::new(binary("avouch-agent"));
    let watch = Daemon::spawn("watch", command.args(["api", "watch", "-socketPath"]).arg(&fake.socket));
    fake.say(answer("the-hint"));
    watch.line("the-hint").await;
    fake.say(answer(""));
    let mut third = answer("the-end");
    third.svids[0].spiffe_id = "spiffe://example.org/fake".into();
    fake.say(third);
    watch.line("the-end").await;
    let log = watch.log();
    let (_, after_first) = log.split_once("the-hint").unwrap();
    assert!(!after_first.contains("the-hint"), "{log}");
    let (second, _) = after_first.split_once("the-end").unwrap();
    assert_eq!(second.matches("Received 1 svid after ").count(), 2, "{log}");
}
