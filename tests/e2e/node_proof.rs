//! Rules that look at how long ago a node proved itself, with a node that can prove itself again.

use std::path::Path;

use avouch_tests::node_pki::PkiWorld;
use avouch_tests::{ServerOptions, World, eventually};

use crate::coder::Scene;

const RULE: &str = r#"
@id("write.proved")
forbid (principal is AiAgent, action == Action::"tool.call", resource == Tool::"files/write_file")
unless { context has proof_age && context.proof_age < 86400 };
"#;
const EXAMPLES: &str = r#"
[[example]]
rule = "write.proved"
expect = "deny"
request = { kind = "ai_agent", preset = "coding-agent", action = "tool.call", resource = "files/write_file", proof_age = 86400 }

[[example]]
rule = "write.proved"
expect = "allow"
request = { kind = "ai_agent", preset = "coding-agent", action = "tool.call", resource = "files/write_file" }
"#;

fn append(path: &Path, more: &str) {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    std::fs::write(path, format!("{text}{more}")).unwrap();
}

#[tokio::test]
async fn a_node_whose_proof_nobody_knows_proves_itself_anew_before_a_rule_lets_it_write() {
    let PkiWorld { agent, server, pki: _pki } = PkiWorld::start(ServerOptions::default()).await;
    let mut scene = Scene::start_in(World { agent, server }).await;
    let change = |folder: &Path| {
        append(&folder.join("more.cedar"), RULE);
        append(&folder.join("more.examples.toml"), EXAMPLES);
    };
    scene.change_rules(change).await;
    let mut client = scene.client(&[]).await;
    assert_eq!((client.write("a").await.as_str(), scene.calls()), ("done", 1), "it has just proved itself");
    drop(client);

    // What it holds on its disk says who it is, and not when the node was looked at.
    scene.world.agent.stop().await;
    scene.world.agent.restart().await;
    let mut client = scene.client(&[]).await;
    let denied = client.write("b").await;
    assert!(
        denied.contains("nobody here knows when") && denied.contains("call again in a moment"),
        "{denied}"
    );
    assert_eq!(scene.calls(), 1);
    eventually("a node that has proved itself anew", async || {
        (scene.client(&[]).await.write("c").await == "done").then_some(())
    })
    .await;
    assert_eq!(scene.calls(), 2);
}
