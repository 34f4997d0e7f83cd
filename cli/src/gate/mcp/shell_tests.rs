//! The shell of the machine, between two streams in memory.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, duplex, split};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::tests::gate;
use super::{End, Proxy, run};
use crate::gate::limits::{LINE_MAX, PENDING_MAX, QUEUE_END};
use crate::gate::lines::Lines;
use crate::gate::script::Script;

/// What fits into each stream: little, so that writing waits.
const PIPE: usize = 256;

struct Ends {
    client: BufReader<DuplexStream>,
    server: BufReader<DuplexStream>,
    stop: watch::Sender<bool>,
    running: JoinHandle<End>,
}

fn start(decider: Script, size: usize) -> Ends {
    let (client, near_client) = duplex(size);
    let (server, near_server) = duplex(size);
    let (stop, stopped) = watch::channel(false);
    let (from_client, to_client) = split(near_client);
    let (from_server, to_server) = split(near_server);
    let lines = Lines::new(from_client, LINE_MAX);
    let proxy = Proxy::new(Arc::new(gate()));
    let running =
        tokio::spawn(run(proxy, Arc::new(decider), (lines, to_client), (from_server, to_server), stopped));
    Ends { client: BufReader::new(client), server: BufReader::new(server), stop, running }
}

async fn say(to: &mut BufReader<DuplexStream>, message: Value) {
    to.get_mut().write_all(format!("{message}\n").as_bytes()).await.unwrap();
}

async fn hear(from: &mut BufReader<DuplexStream>) -> Value {
    let mut line = String::new();
    from.read_line(&mut line).await.unwrap();
    serde_json::from_str(&line).unwrap_or(Value::Null)
}

impl Ends {
    /// A call of `read` in the stateless revision, and the gate's listing before it.
    async fn call(&mut self) {
        let meta = json!({ super::tools::META_VERSION: "2026-07-28" });
        let params = json!({ "name": "read", "arguments": {}, "_meta": meta });
        say(&mut self.client, json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }))
            .await;
        let asked = hear(&mut self.server).await;
        assert_eq!(asked["method"], "tools/list");
        let schema = json!({ "type": "object", "properties": { "path": { "type": "string" } } });
        let tools = json!([{ "name": "read", "description": "Reads a file.", "inputSchema": schema }]);
        say(&mut self.server, json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "tools": tools } }))
            .await;
    }
}

fn ping(id: usize) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "ping", "params": { "filler": "x".repeat(1000) } })
}

#[tokio::test]
async fn a_call_passes_from_end_to_end() {
    let mut ends = start(Script::default(), PIPE);
    ends.call().await;
    assert_eq!(hear(&mut ends.server).await["method"], "tools/call");
    say(&mut ends.server, json!({ "jsonrpc": "2.0", "id": 1, "result": { "content": [] } })).await;
    assert_eq!(hear(&mut ends.client).await["result"], json!({ "content": [] }));
    drop(ends.client);
    assert_eq!(ends.running.await.unwrap(), End::AiAgent);
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_does_not_come_is_a_denial() {
    let mut ends = start(Script { hangs: true, ..Script::default() }, PIPE);
    ends.call().await;
    let result = hear(&mut ends.client).await["result"].clone();
    assert_eq!(result["isError"], true);
    assert!(
        result["content"][0]["text"].as_str().unwrap().contains("nobody decided within 10 s"),
        "{result}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_list_its_tools_is_not_waited_for() {
    let mut ends = start(Script::default(), PIPE);
    let meta = json!({ super::tools::META_VERSION: "2026-07-28" });
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": { "_meta": meta } });
    say(&mut ends.client, list).await;
    assert!(hear(&mut ends.client).await["error"]["message"].as_str().unwrap().contains("within 30 s"));
}

#[tokio::test]
async fn a_server_that_writes_before_it_reads_on_is_still_heard() {
    let ends = start(Script::default(), PIPE);
    let (count, (from, mut to)) = (PENDING_MAX, split(ends.client.into_inner()));
    let writer = tokio::spawn(async move {
        for id in 0..count {
            to.write_all(format!("{}\n", ping(id)).as_bytes()).await.unwrap();
        }
        to
    });
    let mut server = ends.server;
    let echo = tokio::spawn(async move {
        for _ in 0..count {
            let asked = hear(&mut server).await;
            let filler = "y".repeat(4000);
            say(&mut server, json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "filler": filler } }))
                .await;
        }
        server
    });
    let mut client = BufReader::new(from);
    for _ in 0..count {
        let mut line = String::new();
        client.read_line(&mut line).await.unwrap();
        assert!(line.len() > 50, "{line}");
    }
    drop((writer.await.unwrap(), echo.await.unwrap()));
    drop(client);
    ends.running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn answers_under_way_are_waited_for_when_the_agent_has_said_its_last() {
    let mut ends = start(Script::default(), 4096);
    say(&mut ends.client, ping(1)).await;
    ends.client.get_mut().shutdown().await.unwrap();
    assert_eq!(hear(&mut ends.server).await["id"], 1);
    say(&mut ends.server, json!({ "jsonrpc": "2.0", "id": 1, "result": {} })).await;
    assert_eq!(hear(&mut ends.client).await["id"], 1);
    assert_eq!(ends.running.await.unwrap(), End::AiAgent);
    // And not for ever.
    let mut ends = start(Script::default(), 4096);
    say(&mut ends.client, ping(1)).await;
    ends.client.get_mut().shutdown().await.unwrap();
    assert_eq!(ends.running.await.unwrap(), End::AiAgent);
}

#[tokio::test]
async fn whoever_waits_is_told_when_the_server_ends_or_the_run_is_stopped() {
    let mut ends = start(Script::default(), 4096);
    say(&mut ends.client, ping(1)).await;
    hear(&mut ends.server).await;
    drop(ends.server);
    assert!(
        hear(&mut ends.client).await["error"]["message"].as_str().unwrap().contains("the tool server ended")
    );
    assert_eq!(ends.running.await.unwrap(), End::ToolServer);
    let mut ends = start(Script::default(), 4096);
    say(&mut ends.client, ping(2)).await;
    hear(&mut ends.server).await;
    ends.stop.send_replace(true);
    assert_eq!(hear(&mut ends.client).await["id"], 2);
    assert_eq!(ends.running.await.unwrap(), End::Stopped);
}

#[tokio::test]
async fn a_server_that_asks_on_and_reads_nothing_is_given_up() {
    let ends = start(Script::default(), 64 * 1024);
    let (_unread, mut to) = split(ends.server.into_inner());
    let ask = format!("{}\n", json!({ "jsonrpc": "2.0", "id": "x".repeat(250), "method": "ping" }));
    let flood = tokio::spawn(async move {
        let mut said = 0;
        while said < 4 * QUEUE_END && to.write_all(ask.as_bytes()).await.is_ok() {
            said += ask.len();
        }
        said
    });
    assert_eq!(ends.running.await.unwrap(), End::ToolServer);
    drop(_unread);
    assert!(flood.await.unwrap() < 4 * QUEUE_END);
}

#[tokio::test]
async fn a_line_of_the_agent_that_is_too_long_is_told_and_the_next_one_passes() {
    let ends = start(Script::default(), 64 * 1024);
    let (from, mut to) = split(ends.client.into_inner());
    let writer = tokio::spawn(async move {
        to.write_all(&vec![b'x'; LINE_MAX + 1]).await.unwrap();
        to.write_all(format!("\n{}\n", ping(1)).as_bytes()).await.unwrap();
        to
    });
    let mut server = ends.server;
    assert_eq!(hear(&mut server).await["method"], "ping");
    let mut line = String::new();
    BufReader::new(from).read_line(&mut line).await.unwrap();
    assert!(line.contains("longer than"), "{line}");
    drop(writer.await.unwrap());
}
