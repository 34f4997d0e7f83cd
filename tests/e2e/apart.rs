//! Two AI agents at one gate: never one name for both, and what stops one leaves the other alone.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use avouch_tests::{eventually, within};
use serde_json::{Value, json};

use crate::coder::{Client, Scene};

/// The words that register an AI agent of test under this name.
pub(super) fn registration(name: &str) -> Vec<String> {
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

/// Calls of one AI agent, one after the other and without a pause, each with the next number, until its gate is gone.
#[derive(Default)]
struct Busy {
    /// The number of the call that began last.
    last: AtomicU64,
    enough: AtomicBool,
}

impl Busy {
    /// What was answered. `who`: stands before the numbers, in an argument.
    async fn calls(&self, client: &mut Client, who: &str) -> Vec<Value> {
        let mut answers = Vec::new();
        while !self.enough.load(SeqCst) {
            let number = self.last.fetch_add(1, SeqCst) + 1;
            let call = json!({"name": "read_file", "arguments": {"path": format!("{who}-{number}")}});
            let Some(answer) = client.try_ask("tools/call", call).await else { break };
            answers.push(answer);
        }
        answers
    }
}

/// The numbers of the calls of one AI agent that reached the tool server.
fn reached(scene: &Scene, who: &str) -> Vec<u64> {
    let text = std::fs::read_to_string(&scene.calls).unwrap();
    let number = |line: &str| {
        let call: Value = serde_json::from_str(line).ok()?;
        let path = call["params"]["arguments"]["path"].as_str()?;
        path.strip_prefix(who)?.strip_prefix('-')?.parse::<u64>().ok()
    };
    text.lines().filter_map(number).collect()
}

#[tokio::test]
async fn while_one_is_paused_another_calls_on_and_no_later_call_of_the_one_gets_through() {
    /// Calls of the other one beside the paused one's, and after the pause.
    const MANY: u64 = 30;
    let scene = Scene::start().await;
    let words = registration("other");
    scene.good(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
    eventually("a place for the other one", async || {
        (scene.run(&["run", "other", "--", "true"]).await.code == 0).then_some(())
    })
    .await;
    let calls = ["--calls", "100000"];
    let (mut coder, mut other) = (scene.client(&calls).await, scene.client_of("other", &calls).await);
    let (one, two) = (Busy::default(), Busy::default());
    let pause = async {
        eventually("calls of both", async || {
            (one.last.load(SeqCst) > MANY && two.last.load(SeqCst) > MANY).then_some(())
        })
        .await;
        let (begun, before) = (avouch::clock::now().mono, two.last.load(SeqCst));
        let paused = scene.good(&["pause", "coder"]).await.out;
        let (last, after) = (one.last.load(SeqCst), two.last.load(SeqCst));
        let took = avouch::clock::now().mono.since(begun);
        println!("a pause was answered after {took:?}, {} calls of another meanwhile", after - before);
        assert!(paused.contains("confirmed  1 of 1 nodes"), "{paused}");
        eventually("more calls of the other", async || (two.last.load(SeqCst) > after + MANY).then_some(()))
            .await;
        one.enough.store(true, SeqCst);
        two.enough.store(true, SeqCst);
        last
    };
    let (_, answers, last) =
        tokio::join!(one.calls(&mut coder, "coder"), two.calls(&mut other, "other"), pause);
    within("the end of the paused run", coder.child.wait()).await.unwrap();
    let undone = answers.iter().find(|answer| answer["result"]["content"][0]["text"] != "done");
    assert_eq!(undone, None, "the other one met no error");
    assert_eq!(reached(&scene, "other"), (1..=two.last.load(SeqCst)).collect::<Vec<_>>());
    let through = reached(&scene, "coder");
    assert!(!through.is_empty() && through.iter().all(|number| *number <= last), "{last}: {through:?}");
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
