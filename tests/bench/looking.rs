//! Rows about the pages: how long a person waits for one, with 100,000 identities.

use std::time::Instant;

use avouch_proto::governance_v1::governance_client::GovernanceClient;
use avouch_proto::governance_v1::{AdoptRequest, InitRequest, OpenPagesRequest};
use avouch_tests::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::transport::Channel;

use crate::issuing::production;
use crate::registry::{MANY, create};
use crate::report::{Bar, Report, quantile};

/// Looks at each page.
const LOOKS: usize = 50;
/// Between the head of an answer and its body.
const BLANK: &[u8] = b"\r\n\r\n";
/// Longest wait for a page of identities (ms).
const WAIT: Bar = Bar::AtMost(1_000.0);

/// One connection of a browser.
struct Browser {
    stream: TcpStream,
    host: String,
    cookie: String,
    /// The first part of its paths.
    room: String,
}

impl Browser {
    /// Follows a link.
    async fn open(url: &str) -> Self {
        let (host, path) = url.trim_start_matches("http://").split_once('/').expect("a path");
        let stream = TcpStream::connect(host).await.expect("the pages");
        let mut browser = Self { stream, host: host.to_owned(), cookie: String::new(), room: String::new() };
        let head = browser.get(&format!("/{path}")).await.0;
        let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
        let room = head.lines().find_map(|line| line.strip_prefix("location: /")).expect("a room");
        browser.room = room.trim_end_matches('/').to_owned();
        browser.cookie = cookie.split(';').next().unwrap_or_default().to_owned();
        browser
    }

    /// Head and body of an answer.
    async fn get(&mut self, path: &str) -> (String, Vec<u8>) {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {}\r\ncookie: {}\r\n\r\n", self.host, self.cookie);
        self.stream.write_all(request.as_bytes()).await.expect("the pages");
        let mut held = Vec::new();
        loop {
            let mut bytes = [0; 65_536];
            let count = self.stream.read(&mut bytes).await.expect("an answer");
            assert_ne!(count, 0, "the server ended");
            held.extend(&bytes[..count]);
            let Some(blank) = held.windows(BLANK.len()).position(|four| four == BLANK) else { continue };
            let body = blank + BLANK.len();
            let head = String::from_utf8_lossy(&held[..blank]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if held.len() == body + length.map_or(0, |length| length.parse().expect("a number")) {
                return (head, held.split_off(body));
            }
        }
    }
}

/// A server with so many owned identities, and its people's client.
async fn governed() -> (Server, GovernanceClient<Channel>) {
    let server = Server::start_with(production()).await;
    let mut people = GovernanceClient::new(server.channel().await).max_decoding_message_size(usize::MAX);
    let me = people.init(InitRequest { name: "Ada Example".into() }).await.expect("a person").into_inner();
    let parent = "spiffe://example.org/spire/agent/x509pop/none";
    for from in (0..MANY).step_by(10_000) {
        create(&server, parent, from, from + 10_000).await;
    }
    let adopt = AdoptRequest {
        path_prefix: "/e/".into(),
        owner: me.id,
        kind: "service".into(),
        environment: "test".into(),
        purpose: "load".into(),
        ends_at: avouch::clock::now().wall.secs() + 86_400,
        dry_run: false,
    };
    while people.adopt(adopt.clone()).await.expect("an adoption").into_inner().more {}
    (server, people)
}

/// All rows of this part.
pub async fn run(report: &Report) {
    let (_server, mut people) = governed().await;
    let link = people.open_pages(OpenPagesRequest {}).await.expect("a link").into_inner();
    let mut browser = Browser::open(&link.url).await;
    for (what, path) in [
        ("Identities, the first page of 100,000", "/identities"),
        ("Identities, narrowed to none of 100,000", "/identities?standing=stopped"),
        ("Home with 100,000 identities", "/"),
    ] {
        let mut waits = Vec::new();
        let mut bytes = 0;
        for _ in 0..LOOKS {
            let begun = Instant::now();
            let (head, body) = browser.get(&format!("/{}{path}", browser.room.clone())).await;
            waits.push(begun.elapsed().as_secs_f64() * 1e3);
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            bytes = body.len();
        }
        report.plain(&format!("{what}: whole page, p99"), quantile(&waits, 0.99), "ms", WAIT);
        #[allow(clippy::cast_precision_loss)] // some thousands
        report.plain(&format!("{what}: size"), bytes as f64 / 1024.0, "KiB", Bar::AtMost(60.0));
    }
}
