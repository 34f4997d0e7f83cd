//! A call that takes a person's yes: with real daemons, a real tool server behind the gate, and several local users.

use std::path::Path;
use std::time::Duration;

use avouch_tests::daemon::binary;
use serde_json::Value;

use crate::coder::Scene;
use crate::governed::{BEN, as_user, can_be_others, json as read};

const RULE: &str = r#"
@id("write.asks")
@ask("person")
forbid (principal is AiAgent, action == Action::"tool.call", resource == Tool::"files/write_file")
unless { context.yes.person && context.yes.age <= 900 };
"#;
const EXAMPLES: &str = r#"
[[example]]
rule = "write.asks"
expect = "ask"
request = { kind = "ai_agent", preset = "coding-agent", action = "tool.call", resource = "files/write_file" }

[[example]]
rule = "write.asks"
expect = "allow"
request = { kind = "ai_agent", preset = "coding-agent", action = "tool.call", resource = "files/write_file", yes = ["person"] }
"#;

/// A scene where writing takes the yes of a person other than the owner.
pub(super) async fn scene() -> Scene {
    scene_with(RULE).await
}

async fn scene_with(rule: &str) -> Scene {
    let scene = Scene::start().await;
    let change = |folder: &Path| {
        std::fs::write(folder.join("asks.cedar"), rule).unwrap();
        std::fs::write(folder.join("asks.examples.toml"), EXAMPLES).unwrap();
    };
    scene.change_rules(change).await;
    scene
}

/// The request that a refusal names.
pub(super) fn request_in(text: &str) -> String {
    let at = text.find("req_").unwrap_or_else(|| panic!("no request in: {text}"));
    text[at..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[tokio::test]
async fn the_owners_yes_is_refused_and_a_second_persons_fits_one_call_once() {
    if !can_be_others() {
        return;
    }
    let scene = scene().await;
    let server = &scene.world.server;
    scene.good(&["person", "add", "Ben Example", "--uid", &BEN.to_string()]).await;
    let mut client = scene.client(&["--task", "fix-4711"]).await;
    let waits = client.write("total = 0\n\u{1b}[2K").await;
    assert!(waits.contains("(needs a yes)") && waits.contains("`avouch ask show req_"), "{waits}");
    let id = request_in(&waits);
    let listed = read(&scene.good(&["ask", "list", "--json"]).await);
    assert_eq!((&listed["requests"][0]["id"], &listed["requests"][1]), (&id.as_str().into(), &Value::Null));
    let shown = as_user(server, BEN, &["ask", "show", &id]).await;
    for told in [
        "tool.call files/write_file",
        "ai agent of Ada Example, for fix-bugs, in test",
        "| total = 0",
        "\\u{1b}[2K",
    ] {
        assert!(shown.out.contains(told), "{told}: {shown:?}");
    }
    let own = scene.run(&["ask", "yes", &id]).await;
    assert_eq!(own.code, 2, "{own:?}");
    assert!(own.err.contains("the yes is another person's"), "{own:?}");
    let said = as_user(server, BEN, &["ask", "yes", &id]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let other = client.write("total = 1").await;
    assert!(request_in(&other) != id && scene.calls() == 0, "a yes to one text fits no other: {other}");
    assert_eq!(client.write("total = 0\n\u{1b}[2K").await, "done");
    let sent = std::fs::read_to_string(&scene.calls).unwrap();
    assert!(sent.contains(r#""arguments":{"content":"total = 0\n\u001b[2K","path":"main.py"}"#), "{sent}");
    let again = client.write("total = 0\n\u{1b}[2K").await;
    assert!(request_in(&again) != id && scene.calls() == 1, "it is used up: {again}");
    let events = avouch_tests::eventually("the decision in the log", async || {
        let log = scene.good(&["audit", "export", "--source", "all"]).await.out;
        let of = |line: &&str| line.contains(&id);
        let events: Vec<Value> =
            log.lines().filter(of).map(|line| serde_json::from_str(line).unwrap()).collect();
        let outcome = |event: &Value| event["detail"]["outcome"] == "allow";
        events.iter().any(outcome).then_some(events)
    })
    .await;
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    for told in ["request_asked", "request_yes", "request_spent", "decision"] {
        assert!(names.contains(&told), "{told}: {names:?}");
    }
    let yes = events.iter().find(|event| event["event"] == "request_yes").unwrap();
    assert_eq!(yes["detail"]["as"], "person");
    scene.good(&["audit", "verify"]).await;
    let allowed = events.iter().find(|event| event["detail"]["outcome"] == "allow").unwrap();
    let traced = scene.good(&["trace", &allowed["seq"].to_string()]).await.out;
    let told =
        traced.lines().find(|line| line.starts_with("said yes ")).unwrap_or_else(|| panic!("{traced}"));
    assert!(told.contains(&format!("to {id}, by Ben Example (")) && told.contains("(as person)"), "{told}");
}

#[tokio::test]
async fn who_is_alone_says_yes_to_himself_in_test_and_a_no_rests() {
    let scene = scene().await;
    let mut client = scene.client(&[]).await;
    let id = request_in(&client.write("x").await);
    scene.good(&["ask", "yes", &id]).await;
    assert_eq!(client.write("x").await, "done");
    let id = request_in(&client.write("y").await);
    scene.good(&["ask", "no", &id]).await;
    let rests = client.write("z").await;
    assert!(
        rests.contains("(undecided)") && rests.contains(&format!("{id} was answered with no")),
        "{rests}"
    );
    let again = scene.run(&["ask", "yes", &id]).await;
    assert_eq!(again.code, 1, "{again:?}");
    assert_eq!(scene.calls(), 1);
}

#[tokio::test]
async fn a_yes_that_is_older_than_the_rule_takes_lets_nothing_through() {
    /// Longer than the rule takes a yes for.
    const LATER: Duration = Duration::from_secs(8);
    let scene = scene_with(&RULE.replace("<= 900", "<= 6")).await;
    let mut client = scene.client(&[]).await;
    let id = request_in(&client.write("x").await);
    scene.good(&["ask", "yes", &id]).await;
    tokio::time::sleep(LATER).await;
    let late = client.write("x").await;
    let anew = request_in(&late);
    assert!(late.contains("(needs a yes)") && anew != id && scene.calls() == 0, "{late}");
    scene.good(&["ask", "yes", &anew]).await;
    assert_eq!((client.write("x").await.as_str(), scene.calls()), ("done", 1));
}

#[tokio::test]
async fn what_runs_as_an_ai_agent_answers_nothing_although_its_user_may() {
    let scene = scene().await;
    let places = scene.places();
    let avouch = binary("avouch");
    let admin = binary("avouch-server");
    let dir = scene.world.server.dir.path();
    let mut client = scene.client(&[]).await;
    let id = request_in(&client.write("x").await);
    let people = ["--server-socket", scene.world.server.people.to_str().unwrap(), "ask", "yes", &id];
    let mut tries: Vec<Vec<&str>> = vec![vec![avouch.to_str().unwrap()], vec![avouch.to_str().unwrap()]];
    tries[0].extend(places.iter().map(String::as_str).chain(["ask", "yes", &id]));
    tries[1].extend(people);
    tries.push(vec![
        admin.to_str().unwrap(),
        "entry",
        "show",
        "-socketPath",
        scene.world.server.socket.to_str().unwrap(),
    ]);
    for inside in tries {
        let script = format!("{} 2>&1", inside.join(" "));
        // Also when it has left its parents: the shell that started it is gone before it speaks.
        let (go, out) = (dir.join("go"), dir.join("out"));
        let orphan = format!(
            "rm -f {go}; mkfifo {go}; (setsid sh -c 'read on < {go}; {script} > {out}; echo done > {go}' &); echo on > {go}; \
             read done < {go}; cat {out}",
            go = go.display(),
            out = out.display()
        );
        for command in [script.clone(), orphan] {
            let said = scene.run(&["run", "coder", "--", "sh", "-c", &command]).await;
            assert!(said.out.contains("the caller descends from an `avouch run`"), "{command}: {said:?}");
        }
    }
    assert!(request_in(&client.write("x").await) == id && scene.calls() == 0, "it still waits");
}
