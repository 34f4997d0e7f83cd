//! Rows about the HTTP gate: a request through it beside the same proxy that allows everything without asking.
//!
//! Both have the same client and the same upstream, each a process of this binary.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command as StdCommand, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use avouch::gate::http::{Api, Door, Route, Secret, serve};
use avouch_rules::{HTTP_READ, HttpMethod, Template, Upstream};
use avouch_tests::eventually;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::gating::{CALLS, CONNECTIONS, Everything, Gated, RATE, SAMPLES, SECONDS, Took, took};
use crate::report::{Bar, Report, Yard, median, quantile};

/// This binary as the upstream.
pub const API_WORD: &str = "gated-api";
/// This binary as the client.
pub const CLIENT_WORD: &str = "gated-http-client";

/// The variable that says where the gate is.
const VARIABLE: &str = "BENCH_URL";
/// Bytes of an answer.
const BODY: usize = 1024;

/// Serves one answer on a port that it prints, until it is killed.
pub async fn api() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("an address").port());
    let body = "x".repeat(BODY);
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY}\r\n\r\n{body}");
    let answer: Arc<[u8]> = answer.into_bytes().into();
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let answer = answer.clone();
        tokio::spawn(async move {
            let (mut bytes, mut held) = ([0; 4096], Vec::new());
            while let Ok(count) = stream.read(&mut bytes).await {
                if count == 0 {
                    return;
                }
                held.extend(&bytes[..count]);
                // Requests without a body, one after the other.
                if held.ends_with(b"\r\n\r\n") {
                    held.clear();
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            }
        });
    }
}

/// One connection to the gate.
struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    held: Vec<u8>,
}

impl Client {
    async fn open(url: &str) -> Self {
        let (place, path) = url.strip_prefix("http://").expect("a URL").split_once('/').expect("a key");
        let stream = TcpStream::connect(place).await.expect("the gate");
        stream.set_nodelay(true).expect("a socket");
        let request = format!("GET /{path}/things/7 HTTP/1.1\r\nhost: {place}\r\n\r\n").into_bytes();
        Self { stream, request, held: Vec::new() }
    }

    async fn call(&mut self) {
        self.stream.write_all(&self.request).await.expect("a gate");
        self.held.clear();
        loop {
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).await.expect("an answer");
            assert_ne!(count, 0, "the gate ended: {}", String::from_utf8_lossy(&self.held));
            self.held.extend(&bytes[..count]);
            let head = self.held.windows(4).position(|four| four == b"\r\n\r\n");
            if head.is_some_and(|head| self.held.len() >= head + 4 + BODY) {
                assert!(self.held.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.held));
                return;
            }
            assert!(self.held.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&self.held));
        }
    }
}

/// Calls the gate that the environment names, and prints what it took.
pub async fn client() {
    let url = std::env::var(VARIABLE).expect("the gate of a run");
    let mut one = Client::open(&url).await;
    for _ in 0..CALLS / 10 {
        one.call().await;
    }
    let begun = Instant::now();
    for _ in 0..CALLS {
        one.call().await;
    }
    let micros = begun.elapsed().as_secs_f64() * 1e6 / CALLS as f64;
    drop(one);
    let mut all = JoinSet::new();
    let begin = Instant::now() + Duration::from_millis(500);
    for n in 0..CONNECTIONS {
        let mut client = Client::open(&url).await;
        // Each has its connection to the upstream before it is measured.
        client.call().await;
        let begin = begin + Duration::from_secs(1) * n / RATE;
        all.spawn(async move {
            let mut waits = Vec::new();
            for n in 0..SECONDS * RATE / CONNECTIONS {
                let due = begin + Duration::from_secs(1) * CONNECTIONS / RATE * n;
                tokio::time::sleep_until(due.into()).await;
                client.call().await;
                waits.push(due.elapsed().as_secs_f64() * 1e3);
            }
            waits
        });
    }
    let waits: Vec<f64> = all.join_all().await.into_iter().flatten().collect();
    println!("{}", json!({ "micros": micros, "p99": quantile(&waits, 0.99) }));
}

/// The upstream, killed when it is dropped.
struct UpstreamProcess(Child);

impl UpstreamProcess {
    fn start(itself: &Path) -> (Self, String) {
        let mut child = StdCommand::new(itself)
            .arg(API_WORD)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the upstream starts");
        let mut port = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut port).expect("its port");
        (Self(child), format!("http://127.0.0.1:{}", port.trim()))
    }
}

impl Drop for UpstreamProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The proxy that asks nobody.
struct Bare {
    url: String,
    _stop: oneshot::Sender<()>,
    _folder: tempfile::TempDir,
}

impl Bare {
    fn start(upstream: &str) -> Self {
        let route = Route {
            method: HttpMethod::Get,
            path: Template::parse("/{path..}").expect("a template"),
            resource: "bench/read".to_owned(),
            action: HTTP_READ.to_owned(),
            params: [("path".to_owned(), avouch_rules::ParamKind::String)].into(),
            query: Default::default(),
            other_query: true,
            rows_at: String::new(),
        };
        let api = Api {
            name: "bench".to_owned(),
            upstream: Upstream::parse(upstream).expect("an upstream"),
            env_var: VARIABLE.to_owned(),
            ca: None,
            secret: Secret::None,
            routes: vec![route],
        };
        let folder = tempfile::tempdir().expect("a folder");
        let door = Door::open(Arc::new(api), folder.path().join("http.sock")).expect("a door");
        let [(_, url), _] = door.variables();
        let (stop, stopped) = oneshot::channel();
        // A thread of its own with a runtime of its own, as in the supervisor of a run.
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(vec![door], Arc::new(Everything), async {
                let _ = stopped.await;
            }))
        });
        Self { url, _stop: stop, _folder: folder }
    }

    async fn took(&self, itself: &Path) -> Took {
        took(Command::new(itself).arg(CLIENT_WORD).env(VARIABLE, &self.url)).await
    }
}

/// The rows.
pub async fn run(report: &Report) {
    let itself = std::env::current_exe().expect("this binary");
    let (_upstream, url) = UpstreamProcess::start(&itself);
    let (bare, gated) = (Bare::start(&url), Gated::start().await);
    gated.good(&format!("gate add http bench {url} --env-var {VARIABLE}")).await;
    eventually("the rules at the node", async || {
        let began = gated.run("run coder -- true").await;
        (began.code == 0 && began.err.contains("rules 1")).then_some(())
    })
    .await;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        without.push(bare.took(&itself).await);
        with.push(gated.took(&itself, CLIENT_WORD).await);
    }
    let micros = |all: &[Took]| median(all.iter().map(|took| took.micros).collect());
    let p99 = |all: &[Took]| median(all.iter().map(|took| took.p99).collect());
    let yard = Yard { name: "allow-all proxy", value: micros(&without) };
    report.ratio("HTTP request through the gate, one after the other", micros(&with), yard, Bar::AtMost(2.0));
    let added = p99(&with) - p99(&without);
    report.plain("p99 added at 1,000 requests/s over 16 connections", added, "ms", Bar::AtMost(2.0));
}
