//! A stop: confirmed by the nodes, bounded where one is silent, and drilled beforehand. With the real daemons.

use std::path::Path;
use std::time::Duration;

use avouch_tests::{eventually, within};
use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt as _;

use crate::coder::Scene;
use crate::governed::json as read;

#[tokio::test]
async fn a_pause_is_answered_when_the_node_has_confirmed_and_no_later_call_gets_through() {
    let scene = Scene::start().await;
    let mut client = scene.client(&[]).await;
    assert!(client.call("read_file").await["result"]["isError"].is_null());
    let paused = scene.good(&["pause", "coder"]).await.out;
    assert!(paused.contains("confirmed  1 of 1 nodes, the last after "), "{paused}");
    assert!(paused.contains("outside    who verifies by himself accepts its SVIDs until "), "{paused}");
    assert!(!paused.contains("silent"), "{paused}");
    let late = "{\"jsonrpc\":\"2.0\",\"id\":99,\"method\":\"tools/call\",\"params\":{\"name\":\"read_file\",\"arguments\":{}}}\n";
    // The gate may be gone already.
    let _ = client.to.write_all(late.as_bytes()).await;
    within("the end of the run", client.child.wait()).await.unwrap();
    assert_eq!(scene.calls(), 1, "what began after the answer did not reach the tool server");
    let shown = scene.good(&["identity", "show", "coder"]).await.out;
    assert!(shown.contains("1 of 1 nodes confirmed within"), "{shown}");
    scene.good(&["audit", "verify"]).await;
    let log = scene.good(&["audit", "export", "--source", "server"]).await.out;
    assert!(log.contains(r#""event":"stop_tried""#), "{log}");
}

#[tokio::test]
async fn a_drill_goes_to_every_node_and_stops_nothing_and_then_everything_that_is_required_holds() {
    let scene = Scene::start().await;
    let mut client = scene.client(&[]).await;
    let lacking = scene.run(&["verify", "--require", "owner,end,stop"]).await;
    assert_eq!(lacking.code, 3, "{lacking:?}");
    assert!(lacking.out.contains("stop never tried") && lacking.out.contains("--drill"), "{lacking:?}");
    let drilled = read(&scene.good(&["stop", "coder", "--drill", "--json"]).await);
    assert_eq!((&drilled["standing"], &drilled["stop_number"]), (&"active".into(), &0.into()));
    assert_eq!(
        (&drilled["nodes"][0]["confirmed"], &drilled["stop_tried"]["confirmed"]),
        (&true.into(), &1.into())
    );
    assert!(client.call("read_file").await["result"]["isError"].is_null(), "it goes on");
    scene.good(&["verify", "--require", "owner,end,stop"]).await;
}

#[tokio::test]
async fn a_silent_node_is_named_with_the_moment_until_which_it_may_go_on() {
    let scene = Scene::start().await;
    let client = scene.client(&[]).await;
    let agent = scene.world.agent.daemon();
    agent.signal(Signal::SIGSTOP);
    let drilled = scene.run(&["stop", "coder", "--drill"]).await;
    assert_eq!(drilled.code, 3, "{drilled:?}");
    let told = format!("silent     {}: decides by what it knows until ", scene.world.agent.id);
    assert!(drilled.out.contains("confirmed  0 of 1 nodes\n") && drilled.out.contains(&told), "{drilled:?}");
    let lacking = scene.run(&["verify", "--require", "stop"]).await;
    assert!(lacking.out.contains("stop not confirmed by every node"), "{lacking:?}");
    agent.signal(Signal::SIGCONT);
    eventually("a drill that all confirm", async || {
        let drilled = scene.run(&["stop", "coder", "--drill"]).await;
        (drilled.code == 0).then_some(())
    })
    .await;
    drop(client);
}

#[tokio::test]
async fn a_node_that_was_cut_off_while_something_was_stopped_stops_it_when_it_is_back() {
    let scene = Scene::start().await;
    let mut client = scene.client(&[]).await;
    assert!(allowed(client.call("read_file").await));
    let agent = scene.world.agent.daemon();
    agent.signal(Signal::SIGSTOP);
    let paused = scene.run(&["pause", "coder"]).await;
    assert!(paused.out.contains("confirmed  0 of 1 nodes\n"), "{paused:?}");
    assert!(paused.out.contains(&format!("silent     {}", scene.world.agent.id)), "{paused:?}");
    agent.signal(Signal::SIGCONT);
    within("the end of the run", client.child.wait()).await.unwrap();
    let again = scene.run(&["run", "coder", "--", "true"]).await;
    assert_eq!(again.code, 2, "{again:?}");
    assert_eq!(scene.calls(), 1);
}

/// Longer than what matters most is decided without the server.
pub(super) const SILENT: Duration = Duration::from_secs(11);

/// Makes one tool such.
pub(super) fn critical(folder: &Path) {
    let file = folder.join("resources.toml");
    let resources = std::fs::read_to_string(&file).unwrap();
    let (before, after) = resources.split_once("id = \"files/write_file\"").unwrap();
    std::fs::write(file, format!("{before}id = \"files/write_file\"\nalone = \"short\"{after}")).unwrap();
}

fn allowed(answer: serde_json::Value) -> bool {
    answer["result"]["isError"].is_null()
}

#[tokio::test]
async fn a_server_that_goes_away_on_purpose_records_that_and_stops_nobody_for_a_minute() {
    let mut scene = Scene::start().await;
    scene.change_rules(critical).await;
    let mut client = scene.client(&[]).await;
    assert!(allowed(client.call("write_file").await));
    // The node has asked at least once by now.
    tokio::time::sleep(Duration::from_secs(4)).await;
    scene.world.server.stop().await;
    tokio::time::sleep(SILENT + Duration::from_secs(4)).await;
    assert!(allowed(client.call("write_file").await), "it is decided alone for longer than 10 s");
    scene.world.server.restart().await;
    let log = scene.good(&["audit", "export", "--source", "server"]).await.out;
    let told: Vec<_> = log.lines().filter(|line| line.contains(r#""event":"server_leaving""#)).collect();
    assert!(told.len() == 1 && told[0].contains(r#""alone_longer_s":"60""#), "{log}");
    scene.good(&["audit", "verify"]).await;
}

#[tokio::test]
async fn a_server_that_is_silent_stops_first_what_matters_most_and_one_that_starts_anew_stops_nothing() {
    /// As long as a start takes at most that nobody announced.
    const RESTART: Duration = Duration::from_secs(5);
    let mut scene = Scene::start().await;
    scene.change_rules(critical).await;
    let mut client = scene.client(&[]).await;
    assert!(allowed(client.call("write_file").await));
    // The node has asked at least once by now.
    tokio::time::sleep(Duration::from_secs(4)).await;
    scene.world.server.daemon().kill().await;
    tokio::time::sleep(RESTART).await;
    assert!(allowed(client.call("write_file").await), "nothing stops within the time of a restart");
    tokio::time::sleep(SILENT - RESTART).await;
    let silent = client.call("write_file").await;
    let text = silent["result"]["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("server_silent)") && text.contains("10 s at most"), "{silent}");
    assert_eq!(scene.calls(), 2, "the tool server saw nothing of it");
    assert!(allowed(client.call("read_file").await), "what can be taken back goes on");
    assert_eq!(scene.calls(), 3);
    scene.world.server.restart().await;
    eventually("the server heard again", async || allowed(client.call("write_file").await).then_some(()))
        .await;
}
