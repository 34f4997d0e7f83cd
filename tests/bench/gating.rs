//! Rows about the MCP gate: a call through it beside the same proxy that allows everything without asking.
//!
//! Both have the same client and the same tool server, each a process of this binary.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use avouch::gate::hello::{Answer, Hello};
use avouch::gate::{
    Ask, Decided, Decider, GateDefinition, GateEvent, Judge, SOCKET_VARIABLE, Tool, Verdict, host, mcp,
};
use avouch_tests::daemon::binary;
use avouch_tests::{World, cli, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::process::cpu;
use crate::report::{Bar, Report, Yard, median, quantile};

/// This binary as the tool server.
pub const TOOLS_WORD: &str = "gated-tools";
/// This binary as the client.
pub const CLIENT_WORD: &str = "gated-client";

/// Tells a client whose CPU clock to read.
const AGENT_VARIABLE: &str = "BENCH_AGENT";

/// The gate's name.
pub const GATE: &str = "bench";
/// Calls one after the other.
const CALLS: u32 = 1_000;
/// Connections of the open loop.
const CONNECTIONS: u32 = 16;
/// Calls of the open loop in a second, all connections together.
pub const RATE: u32 = 1_000;
/// How long the open loop lasts.
const SECONDS: u32 = 3;
/// Samples of each kind; the middle one counts.
const SAMPLES: usize = 5;

/// Serves one tool on standard input and output until the input ends.
pub fn tools() {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let message: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        let result = match message["method"].as_str() {
            Some("initialize") => json!({
                "protocolVersion": message["params"]["protocolVersion"], "capabilities": { "tools": {} },
                "serverInfo": { "name": "bench", "version": "1" },
            }),
            Some("tools/list") => json!({ "tools": [
                { "name": "read_file", "description": "Reads a file", "inputSchema": { "type": "object" } }
            ] }),
            Some("tools/call") => json!({ "content": [{ "type": "text", "text": "x".repeat(1024) }] }),
            _ => continue,
        };
        writeln!(out, "{}", json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }))
            .expect("a reader");
        out.flush().expect("a reader");
    }
}

/// One connection to the gate.
struct Client {
    stream: BufReader<UnixStream>,
    next: u64,
}

impl Client {
    async fn open(socket: &Path) -> Self {
        let mut stream = BufReader::new(UnixStream::connect(socket).await.expect("the gates"));
        stream.write_all(&Hello::to(GATE).line()).await.expect("a gate");
        let mut line = String::new();
        stream.read_line(&mut line).await.expect("an answer");
        assert_eq!(Answer::read(line.trim_end().as_bytes()).map(|answer| answer.refused), Ok(None));
        let mut client = Self { stream, next: 0 };
        let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {} });
        client.ask("initialize", hello).await;
        client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
        client.ask("tools/list", json!({})).await;
        client
    }

    async fn send(&mut self, message: &Value) {
        self.stream.write_all(format!("{message}\n").as_bytes()).await.expect("a gate");
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.next, "method": method, "params": params })).await;
        loop {
            let mut line = String::new();
            assert_ne!(self.stream.read_line(&mut line).await.expect("an answer"), 0, "the gate ended");
            let answer: Value = serde_json::from_str(&line).expect("JSON");
            if answer["id"] == self.next {
                return answer;
            }
        }
    }
}

/// A connection to a gate.
pub trait Calls: Send + 'static {
    /// One call, which must be allowed.
    fn call(&mut self) -> impl Future<Output = ()> + Send;
}

impl Calls for Client {
    async fn call(&mut self) {
        let answer =
            self.ask("tools/call", json!({ "name": "read_file", "arguments": { "path": "a" } })).await;
        assert!(answer["result"]["isError"].is_null() && answer["result"].is_object(), "{answer}");
    }
}

/// Calls as it is told by the environment, and prints what it took.
pub async fn client() {
    let socket = PathBuf::from(std::env::var_os(SOCKET_VARIABLE).expect("the gates of a run"));
    measure(RATE, async || Client::open(&socket).await).await;
}

/// How many calls [`measure`] makes, but for what `open` does.
pub fn asked_at(rate: u32) -> u32 {
    CALLS / 10 + CALLS + SECONDS * rate / CONNECTIONS * CONNECTIONS
}

/// Calls one after the other, then at a rate over many connections, and prints what it took.
pub async fn measure<C: Calls>(rate: u32, open: impl AsyncFn() -> C) {
    let mut one = open().await;
    // What the start of the run costs, the hash of this binary above all, is no part of a call.
    let agent = std::env::var(AGENT_VARIABLE).ok().and_then(|pid| pid.parse().ok());
    let before = agent.map(cpu);
    for _ in 0..CALLS / 10 {
        one.call().await;
    }
    let begun = Instant::now();
    for _ in 0..CALLS {
        one.call().await;
    }
    let micros = begun.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS);
    drop(one);
    let mut all = JoinSet::new();
    let begin = Instant::now() + Duration::from_millis(500);
    for n in 0..CONNECTIONS {
        let mut client = open().await;
        let begin = begin + Duration::from_secs(1) * n / rate;
        all.spawn(async move {
            let mut waits = Vec::new();
            for n in 0..SECONDS * rate / CONNECTIONS {
                let due = begin + Duration::from_secs(1) * CONNECTIONS / rate * n;
                tokio::time::sleep_until(due.into()).await;
                client.call().await;
                // From when it was due: what waits behind another call has waited.
                waits.push(due.elapsed().as_secs_f64() * 1e3);
            }
            waits
        });
    }
    let waits: Vec<f64> = all.join_all().await.into_iter().flatten().collect();
    let spent = agent.zip(before).map(|(agent, before)| (cpu(agent) - before).as_secs_f64());
    println!("{}", json!({ "micros": micros, "p99": quantile(&waits, 0.99), "cpu": spent }));
}

/// What a client took: microseconds of a call, and the 99th percentile in milliseconds. And what all its calls took of the node
/// agent's CPU, in seconds; 0 without one.
pub struct Took {
    pub micros: f64,
    pub p99: f64,
    pub cpu: f64,
}

pub async fn took(command: &mut Command) -> Took {
    let done = command.stdin(Stdio::null()).output().await.expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let took: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    let number = |name: &str| took[name].as_f64().expect("a number");
    Took { micros: number("micros"), p99: number("p99"), cpu: took["cpu"].as_f64().unwrap_or_default() }
}

/// Allows everything.
pub struct Everything;

impl Decider for Everything {
    async fn admit(&self, _connection: &UnixStream) -> Result<(), String> {
        Ok(())
    }

    async fn may(&self, resources: Vec<String>) -> Vec<bool> {
        vec![true; resources.len()]
    }
}

impl Judge for Everything {
    async fn decide(&self, _ask: Ask) -> Decided {
        Verdict::Allow.into()
    }

    async fn note(&self, _event: GateEvent) {}
}

/// The proxy that asks nobody.
struct Bare {
    folder: tempfile::TempDir,
    _stop: oneshot::Sender<()>,
}

impl Bare {
    async fn start(server: &[String]) -> Self {
        let found = mcp::look(server).await.expect("the tool server can be looked at");
        let tool =
            |tool: mcp::PinnedTool| (tool.name, Tool { digest: tool.digest, params: Default::default() });
        let tools = found.into_iter().map(tool).collect();
        let gate = GateDefinition { name: GATE.to_owned(), command: server.to_vec(), tools };
        let folder = tempfile::tempdir().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("gates")).expect("a socket");
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        tokio::spawn(host::serve(
            listener,
            [(GATE.to_owned(), gate.into())].into(),
            Arc::new(Everything),
            stopped,
        ));
        Self { folder, _stop: stop }
    }

    async fn took(&self, itself: &Path) -> Took {
        let mut command = Command::new(itself);
        took(command.arg(CLIENT_WORD).env(SOCKET_VARIABLE, self.folder.path().join("gates"))).await
    }
}

/// A person's AI agent behind a gate, with a real server and a real agent.
pub struct Gated(World);

impl Gated {
    pub async fn start() -> Self {
        let gated = Self(crate::workload::world().await);
        gated.good("init Ada").await;
        gated.good("identity new coder --kind ai-agent --preset coding-agent --env test --purpose fix-bugs --ends 30d").await;
        gated
    }

    /// The words that tell `avouch` where server and agent are.
    pub fn places(&self) -> [&std::ffi::OsStr; 4] {
        let World { server, agent } = &self.0;
        let word = std::ffi::OsStr::new;
        [word("--server-socket"), server.socket.as_os_str(), word("--agent-socket"), agent.socket.as_os_str()]
    }

    /// Runs `avouch` with these words, none of which has a space in it.
    pub async fn run(&self, line: &str) -> cli::Said {
        let words = line.split(' ').map(std::ffi::OsStr::new);
        cli::run("avouch", self.places().into_iter().chain(words)).await
    }

    async fn good(&self, line: &str) {
        let said = self.run(line).await;
        assert_eq!(said.code, 0, "{line}: {said:?}");
    }

    /// Adds a gate, and waits until the node decides by it.
    pub async fn add(&self, line: &str) {
        self.good(line).await;
        eventually("the rules at the node", async || {
            let began = self.run("run coder -- true").await;
            (began.code == 0 && began.err.contains("rules 1")).then_some(())
        })
        .await;
    }

    /// Where own code asks.
    pub fn decisions(&self) -> PathBuf {
        avouch::access_place::beside(&self.0.agent.socket)
    }

    /// The process of the node agent.
    pub fn agent(&self) -> i32 {
        self.0.agent.daemon().pid()
    }

    pub async fn took(&self, itself: &Path, client: &str) -> Took {
        let mut command = Command::new(binary("avouch"));
        command.args(self.places()).args(["run", "coder", "--calls", "10000", "--"]);
        command.env(AGENT_VARIABLE, self.agent().to_string());
        took(command.arg(itself).arg(client)).await
    }
}

/// All rows of this part.
pub async fn run(report: &Report) {
    let itself = std::env::current_exe().expect("this binary");
    let server = [itself.display().to_string(), TOOLS_WORD.to_owned()];
    let (bare, gated) = (Bare::start(&server).await, Gated::start().await);
    gated.add(&format!("gate add mcp {GATE} -- {}", server.join(" "))).await;
    let whats =
        ["MCP call through the gate, one after the other", "p99 added at 1,000 calls/s over 16 connections"];
    compare(
        report,
        whats,
        async || bare.took(&itself).await,
        async || gated.took(&itself, CLIENT_WORD).await,
    )
    .await;
}

/// Both rows of a gate, beside the proxy that allows everything; they take turns.
pub async fn compare(
    report: &Report,
    [one, many]: [&str; 2],
    bare: impl AsyncFn() -> Took,
    gated: impl AsyncFn() -> Took,
) {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        without.push(bare().await);
        with.push(gated().await);
    }
    let micros = |all: &[Took]| median(all.iter().map(|took| took.micros).collect());
    let p99 = |all: &[Took]| median(all.iter().map(|took| took.p99).collect());
    let yard = Yard { name: "allow-all proxy", value: micros(&without) };
    report.ratio(one, micros(&with), yard, Bar::AtMost(2.0));
    let added = p99(&with) - p99(&without);
    report.plain(many, added, "ms", Bar::AtMost(2.0));
}
