//! Scene 6: a tool server behind an MCP gate.

use serde_json::{Value, json};

use super::super::fault::{Fault, hold};
use super::super::teller::{Ran, at, number};
use super::Stage;

/// Where the text of a result is.
const TEXT: &str = "/result/content/0/text";
/// What the task may call.
const ALLOWED: [&str; 3] = ["search", "read_file", "summarise"];

pub(super) async fn three_of_six(stage: &mut Stage<'_>) -> Result<(), Fault> {
    let ran = calls(stage, &["search", "delete_file"]).await?;
    let mut listed = listed(&ran);
    listed.sort_unstable();
    let mut allowed = ALLOWED.map(str::to_owned);
    allowed.sort_unstable();
    hold(listed == allowed, "three tools", &listed)?;
    let (done, hidden) = (answer(&ran, 2), answer(&ran, 3));
    hold(at(&done, TEXT) == "done", "an allowed call to be done", &done)?;
    hold(hidden.pointer("/error/code").is_some(), "a hidden tool to be unknown", &hidden)?;
    let (searched, deleted) =
        (stage.estate.reached("tools", "search")?, stage.estate.reached("tools", "delete_file")?);
    hold((searched, deleted) == (1, 0), "one call at the tool server", (searched, deleted))?;
    stage.seen(&format!(
        "listed: {}; delete_file is an unknown tool; the server saw {deleted} of it",
        listed.join(", ")
    ));
    let changed = stage.estate.world.dir.join("seen/changed");
    std::fs::write(&changed, "").map_err(|why| Fault::File { what: "the tool's change", why })?;
    let ran = calls(stage, &["summarise"]).await?;
    let _ = std::fs::remove_file(&changed);
    let refused = answer(&ran, 2);
    let reached = stage.estate.reached("tools", "summarise")?;
    hold(at(&refused, TEXT) != "done" && reached == 0, "a changed tool to be refused", &refused)?;
    let noticed = stage
        .estate
        .until("the record of the changed tool", async || {
            let records = stage.estate.records().await?;
            Ok(records.iter().find(|record| at(record, "/event") == "tool.changed").map(number))
        })
        .await?;
    stage.seen(&format!("record {noticed}: summarise says of itself that it does more than before; the server saw {reached} of it"));
    Ok(())
}

/// An MCP client that says hello, lists, and calls these.
async fn calls(stage: &Stage<'_>, tools: &[&str]) -> Result<Ran, Fault> {
    let hello = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params":
        {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "script", "version": "1"}}});
    let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
    let call = |(number, name): (usize, &&str)| json!({"jsonrpc": "2.0", "id": number + 2, "method": "tools/call", "params": {"name": name, "arguments": {}}});
    let messages: Vec<_> =
        [hello, ready, list].into_iter().chain(tools.iter().enumerate().map(call)).collect();
    // It reads each answer before it sends the next, as a client does.
    let turns: Vec<_> = messages
        .iter()
        .map(|message| {
            let answered = message.get("id").is_some();
            format!(
                "echo '{message}' >&3; {}",
                if answered { "read -r line <&4; echo \"$line\"" } else { ":" }
            )
        })
        .collect();
    let script = format!(
        "mkfifo \"$TMPDIR/to\" \"$TMPDIR/from\"; avouch gate mcp tools < \"$TMPDIR/to\" > \"$TMPDIR/from\" &
         exec 3> \"$TMPDIR/to\" 4< \"$TMPDIR/from\"; {}; exec 3>&-; wait",
        turns.join("; ")
    );
    let named: Vec<_> =
        ALLOWED.iter().flat_map(|tool| ["--tools".to_owned(), format!("tools/{tool}")]).collect();
    let more: Vec<_> = ["--task", "fix-4711"].into_iter().chain(named.iter().map(String::as_str)).collect();
    stage.estate.run(0, "coder", &more, &script).await
}

fn answer(ran: &Ran, id: u64) -> Value {
    let messages = ran.said.out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages
        .into_iter()
        .find(|message| message.get("id").and_then(Value::as_u64) == Some(id))
        .unwrap_or_default()
}

fn listed(ran: &Ran) -> Vec<String> {
    let tools =
        answer(ran, 1).pointer("/result/tools").and_then(Value::as_array).cloned().unwrap_or_default();
    tools.iter().filter_map(|tool| tool.get("name").and_then(Value::as_str).map(str::to_owned)).collect()
}
