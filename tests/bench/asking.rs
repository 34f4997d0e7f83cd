//! Rows about code that asks for itself: a decision over the agent's socket in JSON.

use std::path::{Path, PathBuf};

use avouch::access_place::VARIABLE;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::gating::{Calls, GATE, Gated, TOOLS_WORD, asked_at, measure};
use crate::process::SAMPLES;
use crate::report::{Bar, Report, median};

/// This binary as the client.
pub const CLIENT_WORD: &str = "asking-client";
/// Decisions of the open loop in a second, all connections together.
const RATE: u32 = 2_000;
/// Between the head of an answer and its body.
const BLANK: &[u8] = b"\r\n\r\n";

/// One connection to the decision API.
struct Client {
    stream: UnixStream,
    request: Vec<u8>,
    held: Vec<u8>,
}

impl Client {
    async fn open(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.expect("the decision API");
        let body = format!(
            r#"{{"action":{{"name":"tool.call"}},"resource":{{"type":"Tool","id":"{GATE}/read_file","properties":{{"path":"a"}}}}}}"#
        );
        let head = format!(
            "POST /access/v1/evaluation HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Self { stream, request: format!("{head}{body}").into_bytes(), held: Vec::new() }
    }
}

/// The body, if all of it is there.
fn body(held: &[u8]) -> Option<&[u8]> {
    let head = held.windows(BLANK.len()).position(|four| four == BLANK)?;
    let lines = std::str::from_utf8(&held[..head]).expect("a head").lines();
    let length = lines.filter_map(|line| line.strip_prefix("content-length: ")).next().expect("a length");
    held.get(head + BLANK.len()..head + BLANK.len() + length.parse::<usize>().expect("a number"))
}

impl Calls for Client {
    async fn call(&mut self) {
        self.stream.write_all(&self.request).await.expect("the agent");
        self.held.clear();
        loop {
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).await.expect("an answer");
            assert_ne!(count, 0, "the agent ended: {}", String::from_utf8_lossy(&self.held));
            self.held.extend(&bytes[..count]);
            if let Some(body) = body(&self.held) {
                let answer: Value = serde_json::from_slice(body).expect("JSON");
                assert_eq!(answer["decision"], true, "{answer}");
                return;
            }
        }
    }
}

/// Asks as the environment says where, and prints what it took.
pub async fn client() {
    let socket = PathBuf::from(std::env::var_os(VARIABLE).expect("the decision API of a run"));
    measure(RATE, async || Client::open(&socket).await).await;
}

/// All rows of this part.
pub async fn run(report: &Report) {
    let itself = std::env::current_exe().expect("this binary");
    let gated = Gated::start().await;
    gated.add(&format!("gate add mcp {GATE} -- {} {TOOLS_WORD}", itself.display())).await;
    let (mut micros, mut p99, mut of_a_core) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let took = gated.took(&itself, CLIENT_WORD).await;
        micros.push(took.micros);
        p99.push(took.p99);
        assert!(took.cpu > 0.0, "nothing was read of the node agent's CPU");
        of_a_core.push(f64::from(asked_at(RATE)) / took.cpu);
    }
    report.plain(
        "decision over the socket, JSON: a core of the agent",
        median(of_a_core),
        "a second",
        Bar::AtLeast(10_000.0),
    );
    report.plain("the same, one after the other", median(micros), "us", Bar::Free);
    report.plain("the same, 2,000 a second over 16 connections: p99", median(p99), "ms", Bar::AtMost(1.0));
}
