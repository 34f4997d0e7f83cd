//! Two AI agents at one gate: never one name for both, and what stops one leaves the other alone.

use std::collections::BTreeSet;

use avouch_tests::{eventually, within};
use serde_json::Value;

use crate::coder::{Client, Scene};

/// The words that register an AI agent of test under this name.
fn registration(name: &str) -> Vec<String> {
    let words = format!(
        "identity new {name} --kind ai-agent --preset coding-agent --env test --purpose fix-bugs --ends 30d"
    );
    words.split(' ').map(str::to_owned).collect()
}

/// Calls a tool that is allowed, and must be done.
async fn done(client: &mut Client) {
    let answer = client.call("read_file").await;
    assert_eq!(answer["result"]["content"][0]["text"], "done", "{answer}");
}

#[tokio::test]
async fn no_second_ai_agent_takes_a_name_and_a_pause_of_one_ends_no_call_of_another() {
    /// Calls of the other one after the pause.
    const MANY: usize = 50;
    let scene = Scene::start().await;
    let mut coder = scene.client(&[]).await;
    done(&mut coder).await;
    let register = async |name: &str| {
        let words = registration(name);
        scene.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    for name in ["coder", "spiffe://example.org/test/coder"] {
        let again = register(name).await;
        assert_eq!(again.code, 1, "{again:?}");
    }
    done(&mut coder).await;
    let made = register("other").await;
    assert_eq!(made.code, 0, "{made:?}");
    eventually("a place for the other one", async || {
        (scene.run(&["run", "other", "--", "true"]).await.code == 0).then_some(())
    })
    .await;
    let mut other = scene.client_of("other", &[]).await;
    done(&mut other).await;
    let paused = scene.good(&["pause", "coder"]).await.out;
    assert!(paused.contains("confirmed  1 of 1 nodes"), "{paused}");
    for _ in 0..MANY {
        done(&mut other).await;
    }
    let ended = within("the end of the paused run", coder.child.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(143), "told to end by SIGTERM");
    assert_eq!(scene.calls(), 3 + MANY, "two of the paused one, before; all of the other");
}

#[tokio::test]
async fn two_runs_of_one_identity_are_told_apart_in_the_log() {
    let scene = Scene::start().await;
    let (mut one, mut other) = (scene.client(&[]).await, scene.client(&[]).await);
    for _ in 0..2 {
        done(&mut one).await;
        done(&mut other).await;
    }
    let actors = eventually("four decisions in the log", async || {
        let log = scene.run(&["audit", "export", "--source", "all"]).await.out;
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let decisions = lines.filter(|line| line["event"] == "decision");
        let actors: Vec<_> = decisions.map(|line| line["actor"].as_str().unwrap().to_owned()).collect();
        (actors.len() == 4).then_some(actors)
    })
    .await;
    let runs: BTreeSet<_> = actors.iter().collect();
    assert!(runs.len() == 2 && runs.iter().all(|run| run.starts_with("ins_")), "{actors:?}");
    assert!(runs.iter().all(|run| actors.iter().filter(|actor| actor == run).count() == 2), "{actors:?}");
}
