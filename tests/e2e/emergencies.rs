//! An emergency that two people open: with real daemons, a real tool server behind the gate, and several local users.

use avouch_tests::eventually;
use serde_json::{Value, json};

use crate::coder::{Client, Scene};
use crate::governed::{BEN, as_user, can_be_others, json as read};

const PRESETS: &str = "[coding-agent]\nkind = \"ai_agent\"\nreach = [\"files\"]\n";

/// A scene where nothing is allowed, and a second person is there.
async fn scene() -> Scene {
    let scene = Scene::start().await;
    let change = |folder: &std::path::Path| {
        for file in std::fs::read_dir(folder).unwrap() {
            let file = file.unwrap().path();
            let name = file.file_name().unwrap().to_str().unwrap();
            if name.ends_with(".cedar") || name.ends_with("examples.toml") {
                std::fs::remove_file(file).unwrap();
            }
        }
        std::fs::write(folder.join("presets.toml"), PRESETS).unwrap();
    };
    scene.change_rules(change).await;
    eventually("the rules at the node", async || {
        let began = scene.run(&["run", "coder", "--", "true"]).await;
        began.err.contains("rules 2").then_some(())
    })
    .await;
    scene.good(&["person", "add", "Ben Example", "--uid", &BEN.to_string()]).await;
    scene
}

/// Ada asks for her AI agent to write; the ID of what waits.
async fn ask(scene: &Scene) -> String {
    let ask = ["emergency", "ask", "coder", "files/write_file", "--for", "20m", "--why", "the site is down"];
    let asked = scene.good(&ask).await.out;
    assert!(
        asked.contains("waits for a second person") && asked.contains("`avouch emergency agree em_"),
        "{asked}"
    );
    asked.split(' ').next().unwrap().to_owned()
}

async fn agree(scene: &Scene, id: &str) {
    let agreed = as_user(&scene.world.server, BEN, &["emergency", "agree", id]).await;
    assert!(agreed.code == 0 && agreed.out.contains("may tool.call files/write_file until"), "{agreed:?}");
}

/// What a call of `read_file` comes to.
async fn reading(client: &mut Client) -> String {
    client.call("read_file").await.to_string()
}

#[tokio::test]
async fn what_no_rule_allows_takes_two_people_and_a_named_resource_and_one_ends_it() {
    if !can_be_others() {
        return;
    }
    let scene = scene().await;
    let mut client = scene.client(&["--task", "fix-4711"]).await;
    assert!(client.write("a").await.contains("no_rule)"));
    let id = ask(&scene).await;
    assert!(client.write("a").await.contains("no_rule)"), "one person is not enough");
    let same = scene.run(&["emergency", "agree", &id]).await;
    assert!(same.code == 2 && same.err.contains("another person agrees"), "{same:?}");
    for (wrong, code) in [
        (["emergency", "ask", "coder", "files/nothing", "--why", "x"].as_slice(), 1),
        (&["emergency", "ask", "coder", "files/write_file", "--why", "x", "--for", "31m"], 64),
        (&["emergency", "ask", "coder", "files/write_file", "--why", ""], 64),
    ] {
        let said = scene.run(wrong).await;
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{wrong:?}: {said:?}");
    }
    agree(&scene, &id).await;
    // Who was denied a moment ago is not told of it at once.
    eventually("a call that gets through", async || (client.write("a").await == "done").then_some(())).await;
    assert_eq!(scene.calls(), 1);
    assert!(reading(&mut client).await.contains("no_rule)"), "another resource stays denied");
    let listed = read(&scene.good(&["emergency", "list", "coder", "--json"]).await);
    let first = &listed["emergencies"][0];
    assert_eq!((&first["id"], &first["standing"]), (&json!(id), &json!("open")));
    let table = scene.good(&["emergency", "list"]).await.out;
    assert!(
        ["Ada Example", "Ben Example", "the site is down"].iter().all(|text| table.contains(text)),
        "{table}"
    );
    let decision = eventually("the decision in the log", async || {
        let log = scene.good(&["audit", "export", "--source", "all"]).await.out;
        let mut lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.find(|line| line["event"] == "decision" && line["detail"]["emergency"] == id.as_str())
    })
    .await;
    let detail = &decision["detail"];
    assert_eq!((&detail["reason"], &detail["outcome"]), (&json!("emergency"), &json!("allow")));
    let traced = scene.good(&["trace", &decision["seq"].to_string()]).await.out;
    let asked = traced.contains(&format!("{id}, asked by Ada Example ("));
    assert!(asked && traced.contains(", agreed by Ben Example ("), "{traced}");
    scene.good(&["emergency", "end", &id]).await;
    assert!(
        client.write("a").await.contains("no_rule)") && scene.calls() == 1,
        "whoever ends it is one person"
    );
    assert_eq!(scene.run(&["emergency", "end", &id]).await.code, 1, "once");
    let log = scene.good(&["audit", "export", "--source", "server"]).await.out;
    for event in ["emergency_asked", "emergency_agreed", "emergency_ended"] {
        assert!(log.contains(event), "{event}");
    }
    assert!(!log.contains("the site is down"), "no free text in a record");
    scene.good(&["audit", "verify"]).await;
}

#[tokio::test]
async fn a_pause_ends_an_emergency_and_a_resume_does_not_bring_it_back() {
    if !can_be_others() {
        return;
    }
    let scene = scene().await;
    let id = ask(&scene).await;
    agree(&scene, &id).await;
    let mut client = scene.client(&[]).await;
    assert_eq!(client.write("a").await, "done");
    drop(client);
    scene.good(&["pause", "coder"]).await;
    scene.good(&["resume", "coder"]).await;
    let mut client = scene.client(&[]).await;
    assert!(client.write("a").await.contains("no_rule)") && scene.calls() == 1, "the pause ended it");
    let all = read(&scene.good(&["emergency", "list", "--all", "--json"]).await);
    assert_eq!(all["emergencies"][0]["standing"], "over");
    let again = as_user(&scene.world.server, BEN, &["emergency", "agree", &id]).await;
    assert!(again.code == 1 && again.err.contains("it is over"), "{again:?}");
}
