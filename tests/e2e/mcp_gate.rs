//! What an MCP gate lets through to a real tool server, and what it keeps from it: counted by the tool server itself.

use std::path::Path;

use serde_json::{Value, json};

use crate::coder::Scene;

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
