//! Rows about the HTTP gate: a request through it beside the same proxy that allows everything without asking.
//!
//! Both have the same client and the same upstream, each a process of this binary.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command as StdCommand, Stdio};
use std::sync::Arc;

use avouch::gate::http::{Api, Door, Route, Secret, serve};
use avouch_rules::{HTTP_READ, HttpMethod, Template, Upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::oneshot;

use crate::gating::{Calls, Everything, Gated, RATE, Took, compare, measure, took};
use crate::report::Report;

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
}

impl Calls for Client {
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
    measure(RATE, async || {
        let mut client = Client::open(&url).await;
        // Each has its connection to the upstream before it is measured.
        client.call().await;
        client
    })
    .await;
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
    gated.add(&format!("gate add http bench {url} --env-var {VARIABLE}")).await;
    let whats = [
        "HTTP request through the gate, one after the other",
        "p99 added at 1,000 requests/s over 16 connections",
    ];
    compare(
        report,
        whats,
        async || bare.took(&itself).await,
        async || gated.took(&itself, CLIENT_WORD).await,
    )
    .await;
}
