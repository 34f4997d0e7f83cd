//! A call that takes a grant: with real daemons, a real tool server behind the gate, and several local users.

use std::path::Path;

use serde_json::{Value, json};

use crate::coder::Scene;
use crate::governed::{BEN, as_user, can_be_others, json as read};

const PRESETS: &str = "[coding-agent]\nkind = \"ai_agent\"\nreach = [\"files\"]\n";
const RULE: &str = r#"
@id("write.granted")
@grant
permit (principal is AiAgent, action == Action::"tool.call", resource == Tool::"files/write_file")
when { context has task && context has grant };
"#;
const EXAMPLES: &str = r#"
[[example]]
rule = "write.granted"
expect = "allow"
request = { kind = "ai_agent", preset = "coding-agent", action = "tool.call", resource = "files/write_file", grant = true }

[[example]]
rule = "write.granted"
expect = "deny"
request = { kind = "ai_agent", preset = "coding-agent", action = "tool.call", resource = "files/read_file", grant = true }
"#;

/// A scene where writing takes a grant, and nothing else is allowed.
async fn scene() -> Scene {
    let scene = Scene::start().await;
    let change = |folder: &Path| {
        for file in std::fs::read_dir(folder).unwrap() {
            let file = file.unwrap().path();
            let name = file.file_name().unwrap().to_str().unwrap();
            if name.ends_with(".cedar") || name.ends_with("examples.toml") {
                std::fs::remove_file(file).unwrap();
            }
        }
        for (name, text) in [("presets.toml", PRESETS), ("grants.cedar", RULE), ("examples.toml", EXAMPLES)] {
            std::fs::write(folder.join(name), text).unwrap();
        }
    };
    scene.change_rules(change).await;
    scene
}

/// The ID in what `avouch grant give` says.
fn grant_in(said: &str) -> String {
    said.split(':').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_grant_of_a_second_person_lets_as_many_calls_through_as_it_has_uses() {
    if !can_be_others() {
        return;
    }
    let scene = scene().await;
    let server = &scene.world.server;
    scene.good(&["person", "add", "Ben Example", "--uid", &BEN.to_string()]).await;
    let mut client = scene.client(&["--task", "fix-4711"]).await;
    let refused = client.write("a").await;
    assert!(refused.contains("no_grant)") && refused.contains("`avouch grant give"), "{refused}");
    let own = scene.run(&["grant", "give", "coder", "files/write_file"]).await;
    assert_eq!(own.code, 2, "{own:?}");
    assert!(own.err.contains("another person's"), "{own:?}");
    for (wrong, code) in [
        (["grant", "give", "coder", "files/nothing"].as_slice(), 1),
        (&["grant", "give", "coder", "files/write_file", "--action", "read"], 64),
        (&["grant", "give", "coder", "files/write_file", "--uses", "0"], 64),
        (&["grant", "give", "coder", "files/write_file", "--for", "60d"], 64),
    ] {
        let said = as_user(server, BEN, wrong).await;
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{wrong:?}: {said:?}");
    }
    let given = as_user(server, BEN, &["grant", "give", "coder", "files/write_file", "--uses", "2"]).await;
    assert!(given.code == 0 && given.out.contains("may tool.call files/write_file 2 times"), "{given:?}");
    let id = grant_in(&given.out);
    assert_eq!((client.write("a").await, client.write("a").await), ("done".to_owned(), "done".to_owned()));
    let spent = client.write("a").await;
    assert!(spent.contains("no_grant)") && scene.calls() == 2, "{spent}");
    assert_eq!(read(&scene.good(&["grant", "list", "--json"]).await)["grants"], json!([]));
    let all = read(&scene.good(&["grant", "list", "coder", "--all", "--json"]).await);
    let standing = |name: &str| all["grants"][0][name].clone();
    assert_eq!(
        (standing("id"), standing("standing"), standing("uses")),
        (json!(id), json!("used_up"), json!(2))
    );
    let decision = avouch_tests::eventually("the decision in the log", async || {
        let log = scene.good(&["audit", "export", "--source", "all"]).await.out;
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut used = lines.filter(|line| line["detail"]["grant"] == id.as_str());
        used.next()
    })
    .await;
    let traced = scene.good(&["trace", &decision["seq"].to_string()]).await.out;
    assert!(traced.contains(&format!("{id}, given by Ben Example")), "{traced}");
    scene.good(&["audit", "verify"]).await;
}

#[tokio::test]
async fn a_grant_that_is_taken_back_or_whose_identity_was_paused_lets_nothing_through() {
    let scene = scene().await;
    let give = async || {
        let more = ["--uses", "9", "--for", "1h"];
        grant_in(
            &scene
                .good(&[&["grant", "give", "coder", "files/write_file"], more.as_slice()].concat())
                .await
                .out,
        )
    };
    let mut client = scene.client(&[]).await;
    let id = give().await;
    assert_eq!(client.write("a").await, "done", "who is alone in test gives it to their own");
    scene.good(&["grant", "end", &id]).await;
    assert!(client.write("a").await.contains("no_grant)"));
    assert_eq!(scene.run(&["grant", "end", &id]).await.code, 1, "once");
    give().await;
    assert_eq!(client.write("a").await, "done");
    drop(client);
    scene.good(&["pause", "coder"]).await;
    scene.good(&["resume", "coder"]).await;
    let mut client = scene.client(&[]).await;
    assert!(client.write("a").await.contains("no_grant)"), "the pause ended it");
    assert_eq!(scene.calls(), 2);
}

#[tokio::test]
async fn of_two_gates_that_race_for_the_last_use_one_wins() {
    let scene = scene().await;
    let (mut one, mut other) = (scene.client(&[]).await, scene.client(&[]).await);
    for round in 1..=10 {
        scene.good(&["grant", "give", "coder", "files/write_file"]).await;
        let (a, b) = tokio::join!(one.write("a"), other.write("a"));
        let through = [&a, &b].iter().filter(|text| **text == "done").count();
        assert_eq!((through, scene.calls()), (1, round), "{a} / {b}");
    }
}

#[tokio::test]
async fn a_grant_ends_when_its_identity_passes_to_a_successor_and_is_given_anew() {
    let scene = scene().await;
    scene.good(&["person", "add", "Ben Example", "--uid", &BEN.to_string()]).await;
    let to_ben = ["identity", "set", "coder", "--owner", "Ben Example", "--successor", "Ada Example"];
    scene.good(&to_ben).await;
    let give = ["grant", "give", "coder", "files/write_file", "--uses", "9"];
    scene.good(&give).await;
    let mut client = scene.client(&[]).await;
    assert_eq!((client.write("a").await.as_str(), scene.calls()), ("done", 1));
    let left = scene.good(&["person", "leave", "Ben Example", "--apply"]).await;
    let refused = client.write("a").await;
    assert!(refused.contains("no_grant)") && scene.calls() == 1, "{refused}: {left:?}");
    let shown = read(&scene.good(&["identity", "show", "coder", "--json"]).await);
    assert_eq!(shown["standing"], "active", "it passed to Ada: {shown}");
    // The grant was given to Ben's, so it takes another.
    scene.good(&give).await;
    assert_eq!((client.write("a").await.as_str(), scene.calls()), ("done", 2));
}

#[tokio::test]
async fn when_a_case_is_closed_what_was_given_for_it_lets_nothing_through_and_the_rest_goes_on() {
    let scene = scene().await;
    let of = ["--kind", "ai-agent", "--preset", "coding-agent", "--env", "test", "--purpose", "fix-bugs"];
    scene.good(&[&["identity", "new", "buyer", "--ends", "30d"], of.as_slice()].concat()).await;
    avouch_tests::eventually("a place for the other one", async || {
        (scene.run(&["run", "buyer", "--", "true"]).await.code == 0).then_some(())
    })
    .await;
    let give = async |name: &str, case: &str| {
        let words =
            ["grant", "give", name, "files/write_file", "--uses", "9", "--for", "29d", "--case", case];
        scene.good(&words).await.out
    };
    let first = give("coder", "PROC-88").await;
    assert!(first.contains(", for PROC-88; "), "{first}");
    give("coder", "PROC-88").await;
    give("buyer", "PROC-89").await;
    let (mut coder, mut buyer) = (scene.client(&[]).await, scene.client_of("buyer", &[]).await);
    assert_eq!((coder.write("a").await, buyer.write("a").await), ("done".to_owned(), "done".to_owned()));

    assert_eq!(scene.run(&["grant", "end", "--case", "PROC-90"]).await.code, 1, "nothing is for it");
    assert_eq!(scene.run(&["grant", "end", "--case", "PROC 88"]).await.code, 64);
    assert_eq!(scene.run(&["grant", "end"]).await.code, 64);
    let closed = read(&scene.good(&["grant", "end", "--case", "PROC-88", "--json"]).await);
    assert_eq!(closed, json!({"case": "PROC-88", "ended": 2}));
    let refused = coder.write("a").await;
    assert!(refused.contains("no_grant)"), "{refused}");
    assert_eq!((buyer.write("a").await.as_str(), scene.calls()), ("done", 3));
    let again = read(&scene.good(&["grant", "end", "--case", "PROC-88", "--json"]).await);
    assert_eq!(again["ended"], 0);

    // The same name, given later, opens nothing that was closed.
    give("buyer", "PROC-88").await;
    assert!(coder.write("a").await.contains("no_grant)"));
    for (more, standings) in [
        (["grant", "list", "--case", "PROC-88", "--json"].as_slice(), json!(["open"])),
        (&["grant", "list", "--case", "PROC-88", "--json", "--all"], json!(["open", "ended", "ended"])),
        (&["grant", "list", "coder", "--json"], json!([])),
    ] {
        let listed = read(&scene.good(more).await);
        let shown: Vec<_> =
            listed["grants"].as_array().unwrap().iter().map(|grant| &grant["standing"]).collect();
        assert_eq!(json!(shown), standings, "{more:?}: {listed}");
    }
    let log = scene.good(&["audit", "export", "--source", "server"]).await.out;
    let ended = log.lines().filter(|line| line.contains("\"grant_ended\"") && line.contains("PROC-88"));
    assert_eq!(ended.count(), 2, "{log}");
}
