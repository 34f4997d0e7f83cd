//! What an MCP gate lets through to a real tool server, and what it keeps from it: counted by the tool server itself.

use std::path::Path;

use avouch::gate::limits::LINE_MAX;
use avouch_rules::limits::PARAM_TEXT_MAX;
use avouch_tests::{eventually, within};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::coder::{Client, Scene};

/// Writing is held to limits that are about answers with rows.
const RULE: &str = r#"
@id("write.limited")
@limit("max_rows=10")
permit (principal is AiAgent, action == Action::"tool.call", resource == Tool::"files/write_file");
"#;
const EXAMPLES: &str = r#"
[[example]]
rule = "write.limited"
expect = "limit"
request = { kind = "ai_agent", preset = "coding-agent", action = "tool.call", resource = "files/write_file" }

[[example]]
rule = "write.limited"
expect = "allow"
request = { kind = "ai_agent", preset = "coding-agent", action = "tool.call", resource = "files/read_file" }
"#;

/// The text of a result.
fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test]
async fn what_is_no_call_of_a_tool_reaches_no_tool_server() {
    let scene = Scene::start().await;
    let mut client = scene.client(&[]).await;
    for method in ["resources/list", "resources/read", "prompts/get", "tools/Call", "files/delete"] {
        let refused = client.ask(method, json!({ "name": "read_file" })).await;
        assert_eq!(refused["error"]["code"], -32601, "{method}: {refused}");
    }
    assert_eq!(text(&client.call("read_file").await), "done");
    assert_eq!(scene.calls(), 1);
    let others = scene.others();
    for word in ["resources", "prompts", "tools/Call", "files/delete"] {
        assert!(!others.contains(word), "{word}: {others}");
    }
}

#[tokio::test]
async fn a_call_within_limits_that_the_gate_can_not_hold_is_denied() {
    let scene = Scene::start().await;
    let change = |folder: &Path| {
        std::fs::write(folder.join("limits.cedar"), RULE).unwrap();
        std::fs::write(folder.join("limits.examples.toml"), EXAMPLES).unwrap();
    };
    scene.change_rules(change).await;
    let mut client = scene.client(&[]).await;
    let refused = client.write("a").await;
    assert!(refused.contains("max_rows=10") && refused.contains("which this gate can't hold"), "{refused}");
    assert_eq!(scene.calls(), 0);
    assert_eq!((text(&client.call("read_file").await), scene.calls()), ("done", 1));
}

/// A tool that fetches, from one host.
const HOSTS: &str = r#"
@id("fetch.hosts")
forbid (principal is AiAgent, action == Action::"tool.call", resource == Tool::"web/fetch")
unless { context.params has url && context.params.url like "https://docs.example.org/*" };
"#;
const HOSTS_EXAMPLES: &str = r#"
[[example]]
rule = "fetch.hosts"
expect = "deny"
request = { kind = "ai_agent", preset = "coding-agent", action = "tool.call", resource = "web/fetch", params = { url = "https://other.example.net/a" } }

[[example]]
rule = "fetch.hosts"
expect = "allow"
request = { kind = "ai_agent", preset = "coding-agent", action = "tool.call", resource = "web/fetch", params = { url = "https://docs.example.org/a" } }
"#;

/// A scene with a second gate, whose tool server has a tool that fetches, and a rule about its URL.
async fn fetching() -> Scene {
    let scene = Scene::start().await;
    let dir = scene.world.server.dir.path();
    let script = dir.join("web.sh");
    let server = std::fs::read_to_string(dir.join("server.sh")).unwrap();
    std::fs::write(&script, server.replace("read_file", "fetch")).unwrap();
    let (script, calls) = (script.to_str().unwrap(), scene.calls.to_str().unwrap());
    scene.good(&["gate", "add", "mcp", "web", "--", "sh", script, calls]).await;
    let change = |folder: &Path| {
        for (file, line, more) in [
            ("resources.toml", "id = \"web/fetch\"\n", "params = { url = \"string\" }\n"),
            ("gates.toml", "name = \"fetch\"\n", "pointers = { url = \"/url\" }\n"),
        ] {
            let text = std::fs::read_to_string(folder.join(file)).unwrap();
            let (before, after) = text.split_once(line).unwrap();
            std::fs::write(folder.join(file), format!("{before}{line}{more}{after}")).unwrap();
        }
        std::fs::write(folder.join("hosts.cedar"), HOSTS).unwrap();
        std::fs::write(folder.join("hosts.examples.toml"), HOSTS_EXAMPLES).unwrap();
    };
    scene.change_rules(change).await;
    eventually("the rules at the node", async || {
        scene.run(&["run", "coder", "--", "true"]).await.err.contains("rules 3").then_some(())
    })
    .await;
    scene
}

/// What comes of a call of the tool that fetches.
async fn fetched(client: &mut Client, arguments: Value) -> String {
    let answer = client.ask("tools/call", json!({ "name": "fetch", "arguments": arguments })).await;
    text(&answer).to_owned()
}

#[tokio::test]
async fn a_tool_that_fetches_does_so_from_the_host_that_a_rule_names_and_from_no_other() {
    let scene = fetching().await;
    let mut client = scene.client_at("web", "coder", &[]).await;
    for url in [
        "https://other.example.net/a",
        "http://docs.example.org/a",
        "https://docs.example.org.example.net/a",
        "https://docs.example.org@other.example.net/a",
        "https://docs.example.org:8443/a",
        "//docs.example.org/a",
        "",
    ] {
        let refused = fetched(&mut client, json!({ "url": url })).await;
        assert!(refused.contains("(denied, ") && refused.contains("(rule fetch.hosts)"), "{url}: {refused}");
    }
    let unsaid = fetched(&mut client, json!({})).await;
    assert!(unsaid.contains("(rule fetch.hosts)"), "{unsaid}");
    // Nor where the tool server could read what the rule did not see.
    for arguments in [
        json!({ "url": "https://docs.example.org/a", "URL": "https://other.example.net/a" }),
        json!({ "url": ["https://docs.example.org/a", "https://other.example.net/a"] }),
    ] {
        let answer = client.ask("tools/call", json!({ "name": "fetch", "arguments": arguments })).await;
        let refused = answer["error"].is_object() || answer["result"]["isError"] == true;
        assert!(refused, "{answer}");
    }
    assert_eq!(scene.calls(), 0);
    let done = fetched(&mut client, json!({ "url": "https://docs.example.org/a" })).await;
    assert_eq!((done.as_str(), scene.calls()), ("done", 1));
}

#[tokio::test]
async fn an_argument_stands_in_its_record_as_a_digest_that_only_the_salt_of_its_day_tells() {
    const URL: &str = "https://docs.example.org/a";
    let scene = fetching().await;
    let mut client = scene.client_at("web", "coder", &[]).await;
    assert_eq!(fetched(&mut client, json!({ "url": URL })).await, "done");
    let salts = std::fs::read_dir(scene.world.agent.data_dir.join("salts")).unwrap();
    let salt = salts.map(|entry| entry.unwrap().path()).next().unwrap();
    assert!(salt.to_str().unwrap().contains("/salts/20"), "it is called by its day: {}", salt.display());
    let told = async |argument: &str| {
        let said = scene.good(&["audit", "argument", "--salt", salt.to_str().unwrap(), argument]).await;
        said.out.trim_end().to_owned()
    };
    let (called, other) = (told(&format!("url={URL}")).await, told("url=https://docs.example.org/b").await);
    let log = eventually("the decision in the log", async || {
        let log = scene.run(&["audit", "export", "--source", "all"]).await.out;
        log.contains("\"event\":\"decision\"").then_some(log)
    })
    .await;
    assert!(log.contains(&format!("\"arguments\":\"{called}\"")), "{called}: {log}");
    assert!(!log.contains(&other) && !log.contains("docs.example.org/a"), "{log}");
}

#[tokio::test]
async fn a_call_too_long_to_be_judged_is_refused_and_reaches_no_tool_server() {
    let scene = fetching().await;
    let mut client = scene.client_at("web", "coder", &[]).await;
    // It begins as the rule wants it: only its length is against it.
    let url = |bytes: usize| format!("{:a<bytes$}", "https://docs.example.org/");
    let refused = fetched(&mut client, json!({ "url": url(PARAM_TEXT_MAX + 1) })).await;
    let told = format!("(arguments): the argument /url is no text of at most {PARAM_TEXT_MAX} bytes");
    assert!(refused.contains(&told), "{refused}");
    let arguments = json!({ "url": url(100), "body": "x".repeat(LINE_MAX) });
    let params = json!({ "name": "fetch", "arguments": arguments });
    let call = json!({ "jsonrpc": "2.0", "id": "long", "method": "tools/call", "params": params });
    let line = format!("{call}\n");
    within("the gate to take the line", client.to.write_all(line.as_bytes())).await.unwrap();
    let refused = client.hear().await.unwrap();
    let told = refused["error"]["message"].as_str().unwrap_or_else(|| panic!("{refused}"));
    assert!(told.contains(&format!("the line is longer than {LINE_MAX} bytes")), "{told}");
    assert_eq!(scene.calls(), 0);
    let done = fetched(&mut client, json!({ "url": url(PARAM_TEXT_MAX) })).await;
    assert_eq!((done.as_str(), scene.calls()), ("done", 1));
}
