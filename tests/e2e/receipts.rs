//! What a gate did, beside what was agreed to: with real daemons, a real tool server and the log that they write.

use avouch_tests::eventually;
use serde_json::Value;

use crate::asks::{request_in, scene};
use crate::coder::{Client, Scene};

/// What `avouch audit match` says of a request, once it says this.
async fn told(scene: &Scene, id: &str, state: &str) -> Value {
    eventually("the word of the log on a request", async || {
        let said = scene.run(&["audit", "match", "--json"]).await;
        let found: Value = serde_json::from_str(&said.out).ok()?;
        let of = |one: &&Value| one["id"] == id;
        let one = found["matches"].as_array()?.iter().find(of)?.clone();
        (one["state"] == state && said.code == 0).then_some(one)
    })
    .await
}

#[tokio::test]
async fn what_a_gate_sent_matches_what_a_person_agreed_to_and_nothing_of_it_stands_in_the_log() {
    let scene = scene().await;
    let mut client = scene.client(&["--task", "fix-4711"]).await;
    let used = request_in(&client.write("total = 0").await);
    let unused = request_in(&client.write("total = 1").await);
    for id in [&used, &unused] {
        scene.good(&["ask", "yes", id]).await;
    }
    assert_eq!(client.write("total = 0").await, "done");
    let matched = told(&scene, &used, "matched").await;
    assert_eq!(matched["done"].as_array().unwrap().len(), 1, "{matched}");
    assert_eq!(matched["done"][0]["result"], "answered");
    assert_eq!(matched["done"][0]["hash"], matched["hash"]);
    told(&scene, &unused, "not_used").await;
    let log = scene.good(&["audit", "export"]).await.out;
    assert!(log.contains("\"call.done\"") && !log.contains("total = 0"), "{log}");
    let file = scene.world.server.dir.path().join("records.jsonl");
    std::fs::write(&file, &log).unwrap();
    let text = scene.good(&["audit", "match", "--offline", file.to_str().unwrap()]).await.out;
    for told in [used.as_str(), "matched", unused.as_str(), "not used", "files/write_file"] {
        assert!(text.contains(told), "{told}: {text}");
    }
    scene.good(&["audit", "verify"]).await;
}

#[tokio::test]
async fn a_receipt_gets_out_before_a_run_ends() {
    let scene = scene().await;
    let mut client = scene.client(&[]).await;
    let id = request_in(&client.write("x").await);
    scene.good(&["ask", "yes", &id]).await;
    assert_eq!(client.write("x").await, "done");
    // The shim ends with its input, and the run with the shim.
    let Client { mut child, to, .. } = client;
    drop(to);
    assert!(child.wait().await.unwrap().success());
    told(&scene, &id, "matched").await;
}
