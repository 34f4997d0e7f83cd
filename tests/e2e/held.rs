//! What the runs of an identity are held to: which code they have, and how many there are at a time.

use std::path::{Path, PathBuf};

use avouch_tests::server::entry;
use avouch_tests::world::my_uid;
use avouch_tests::{eventually, within};
use serde_json::Value;
use tonic::Code;

use crate::coder::Scene;

/// A script in the scene's folder that says this.
fn script(scene: &Scene, says: &str) -> PathBuf {
    let path = scene.world.server.dir.path().join("agent.sh");
    std::fs::write(&path, format!("echo {says}\n")).unwrap();
    path
}

async fn started(scene: &Scene, script: &Path) -> avouch_tests::cli::Said {
    scene.run(&["--json", "run", "coder", "--", "sh", script.to_str().unwrap()]).await
}

/// The digest of the code that a run has.
async fn digest(scene: &Scene, script: &Path) -> String {
    let said = started(scene, script).await;
    let told = said.err.lines().find_map(|line| serde_json::from_str::<Value>(line).ok());
    told.unwrap_or_else(|| panic!("{said:?}"))["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_ai_agent_that_is_begun_with_other_code_is_refused_and_paused_everywhere_until_a_person_says_so() {
    let scene = Scene::start().await;
    let file = script(&scene, "first");
    let first = digest(&scene, &file).await;
    let mut client = scene.client(&[]).await;
    scene.good(&["identity", "set", "coder", "--code", &first]).await;
    assert_eq!(started(&scene, &file).await.out, "first\n");

    script(&scene, "second");
    let refused = started(&scene, &file).await;
    assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{refused:?}");
    assert!(refused.err.contains(&first) && refused.err.contains("paused for it"), "{refused:?}");
    let ended = within("the end of its other run", client.child.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(143), "told to end by SIGTERM");
    let shown = scene.good(&["identity", "show", "coder"]).await.out;
    assert!(shown.contains("paused (other_code)") && shown.contains(&first), "{shown}");

    let (_, next) = refused.err.split_once("--code ").unwrap();
    let second: String = next.chars().take_while(char::is_ascii_hexdigit).collect();
    scene.good(&["identity", "set", "coder", "--code", &second]).await;
    scene.good(&["resume", "coder"]).await;
    let again = eventually("the node to have heard of the resume", async || {
        let again = started(&scene, &file).await;
        (again.code == 0).then_some(again)
    })
    .await;
    assert_eq!(again.out, "second\n");
}

#[tokio::test]
async fn an_identity_has_no_more_runs_at_a_time_than_it_may_have() {
    let scene = Scene::start().await;
    let mut client = scene.client(&[]).await;
    scene.good(&["identity", "set", "coder", "--runs", "1"]).await;
    let refused = scene.run(&["run", "coder", "--", "true"]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("has 1 runs on this node"), "{refused:?}");
    let answer = client.call("read_file").await;
    assert_eq!(answer["result"]["content"][0]["text"], "done", "the one that runs goes on: {answer}");

    drop(client.to);
    within("the end of the client", client.child.wait()).await.unwrap();
    eventually("the node to have heard of its end", async || {
        (scene.run(&["run", "coder", "--", "true"]).await.code == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_entry_that_somebody_makes_asks_for_a_run() {
    let scene = Scene::start().await;
    let server = &scene.world.server;
    let selector = format!("run:{}:spiffe://example.org/test/coder", nix::unistd::geteuid());
    let parent = &scene.world.agent.id;
    let refused = server.try_create(entry(parent, "/payroll", &[&selector])).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidArgument as i32, "{refused:?}");
    assert!(refused.message.contains("avouch identity place"), "{refused:?}");
}

#[tokio::test]
async fn no_entry_of_an_ai_agent_fits_the_processes_of_another_identity() {
    let scene = Scene::start().await;
    let server = &scene.world.server;
    scene.world.grant("/web").await;
    let parent = &scene.world.agent.id;
    let refused = server.try_create(entry(parent, "/test/coder", &[&my_uid()])).await.unwrap_err();
    assert_eq!(refused.code, Code::InvalidArgument as i32, "{refused:?}");
    assert!(refused.message.contains("spiffe://example.org/web"), "{refused:?}");
}
