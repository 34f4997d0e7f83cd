//! Hosts the gate "notes" with a scripted decider, runs an MCP client inside it, and compares what the tool server saw.
//!
//! `gate-host SEEN SERVER... --- CLIENT...`: SERVER is started with `before` or `after` and the path SEEN at its end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // all of it is test code

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use avouch::gate::{
    Ask, Decided, Decider, GateDefinition, GateEvent, Happened, Judge, Place, SOCKET_VARIABLE, Tool, Verdict,
    host, mcp,
};
use avouch_rules::{Param, ParamKind};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::sync::oneshot;

/// The client has its own, shorter limits; this one only keeps a forgotten process from staying.
const LIMIT: Duration = Duration::from_secs(120);

/// Reading is allowed but for secrets, counting is, adding needs a yes, deleting is not even shown.
#[derive(Default)]
struct Script {
    decided: AtomicUsize,
    changed: AtomicUsize,
    others: AtomicUsize,
}

impl Judge for Script {
    async fn decide(&self, ask: Ask) -> Decided {
        self.decided.fetch_add(1, Ordering::SeqCst);
        let secret =
            matches!(ask.params.get("path"), Some(Param::String(path)) if path.starts_with("secret"));
        let verdict = match ask.resource.trim_start_matches("notes/") {
            "read" if !secret => Verdict::Allow,
            "count" if ask.params.get("most") == Some(&Param::Long(3)) => Verdict::Allow,
            "append" => Verdict::Ask { text: "a person has to agree".to_owned() },
            _ => Verdict::Deny { reason: "forbidden".to_owned(), text: "a rule forbids it".to_owned() },
        };
        verdict.into()
    }

    async fn note(&self, event: GateEvent) {
        let counter = match event.what {
            Happened::ChangedTool { .. } => &self.changed,
            _ => &self.others,
        };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

impl Decider for Script {
    async fn admit(&self, _connection: &UnixStream) -> Result<(), String> {
        Ok(())
    }

    async fn may(&self, resources: Vec<String>) -> Vec<bool> {
        resources.iter().map(|resource| resource != "notes/delete").collect()
    }
}

fn with(command: &[String], when: &str, seen: &str) -> Vec<String> {
    command.iter().cloned().chain([when.to_owned(), seen.to_owned()]).collect()
}

/// Adds all tools but `publish`, as they are before.
async fn pinned(server: &[String], seen: &str) -> BTreeMap<String, Tool> {
    let found = mcp::look(&with(server, "before", seen)).await.expect("the tool server can be looked at");
    assert_eq!(found.len(), 6, "{found:?}");
    let place = |pointer: &str, kind| Place { pointer: pointer.to_owned(), kind };
    let params = |tool: &str| match tool {
        "count" => [("most".to_owned(), place("/most", ParamKind::Long))].into(),
        _ => [("path".to_owned(), place("/path", ParamKind::String))].into(),
    };
    let tools = found.into_iter().filter(|tool| tool.name != "publish");
    tools.map(|tool| (tool.name.clone(), Tool { digest: tool.digest, params: params(&tool.name) })).collect()
}

#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (seen, words) = words.split_first().expect("SEEN");
    let cut = words.iter().position(|word| word == "---").expect("SERVER... --- CLIENT...");
    let (server, client) = (words.get(..cut).unwrap(), words.get(cut + 1..).unwrap());
    let gate = GateDefinition {
        name: "notes".to_owned(),
        command: with(server, "after", seen),
        tools: pinned(server, seen).await,
    };
    let socket = format!("{seen}.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let script = Arc::new(Script::default());
    let stopped = async {
        let _ = stopped.await;
    };
    let serving = tokio::spawn(host::serve(
        listener,
        [("notes".to_owned(), gate.into())].into(),
        script.clone(),
        stopped,
    ));
    let (program, arguments) = client.split_first().expect("CLIENT");
    let mut child = Command::new(program)
        .args(arguments)
        .env(SOCKET_VARIABLE, &socket)
        .kill_on_drop(true)
        .spawn()
        .expect("the client starts");
    let status = tokio::time::timeout(LIMIT, child.wait()).await.expect("the client ends in time").unwrap();
    assert!(status.success(), "the client saw something else: {status}");
    stop.send(()).unwrap();
    serving.await.unwrap();
    let calls = std::fs::read_to_string(seen).unwrap_or_default();
    assert_eq!(calls, "read a.txt\ncount 3\n", "what the tool server saw");
    // read, count, read, append and delete; `move` changed, `publish` and `none` are no tools.
    assert_eq!(script.decided.load(Ordering::SeqCst), 5, "decisions");
    assert_eq!(script.changed.load(Ordering::SeqCst), 1, "changes told");
    assert!(script.others.load(Ordering::SeqCst) >= 2, "other events");
    println!("the tool server saw 2 of 9 calls");
}
