//! Too much of everything, from processes that may ask: crowds, greed, connections that stall, frames that never end.
//! The agent answers all it can, bounds what it keeps, and leaves a quiet process beside the flood unharmed.

use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use avouch_proto::types;
use avouch_tests::daemon::{Daemon, binary};
use avouch_tests::workload::Workload;
use avouch_tests::{World, within};
use h2::client::SendRequest;
use nix::sys::resource::{Resource, getrlimit};
use prost::bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tonic::Code;

/// Longest wait of a quiet process beside any flood, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(10);
/// What HTTP/2 clients say first, and an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// What a part of the flood has to say at its end.
struct Report {
    refused: usize,
    /// Ascending.
    latencies: Vec<Duration>,
    text: String,
}

impl Report {
    async fn of(caller: &Daemon) -> Self {
        let line = caller.line("done ").await;
        let mut numbers = line.split_whitespace().skip(1).map(|n| n.parse::<u64>().unwrap());
        let refused = usize::try_from(numbers.next().unwrap()).unwrap();
        let mut latencies: Vec<_> = numbers.map(Duration::from_micros).collect();
        latencies.sort_unstable();
        Self { refused, latencies, text: caller.log() }
    }

    fn percentile(&self, percent: usize) -> Duration {
        self.latencies[(self.latencies.len() * percent / 100).min(self.latencies.len() - 1)]
    }

    fn tell(&self, what: &str) {
        let (half, most, last) = (self.percentile(50), self.percentile(99), self.percentile(100));
        println!("{what}: {} answered, p50 {half:?}, p99 {most:?}, slowest {last:?}", self.latencies.len());
    }
}

fn caller(words: &[&str], socket: &Path, count: usize) -> (Daemon, std::io::PipeWriter) {
    let (start, hold) = std::io::pipe().unwrap();
    let mut command = std::process::Command::new(binary("avouch-caller"));
    command.args(words).arg(socket).arg(count.to_string());
    (Daemon::spawn_with("caller", &mut command, start.into()), hold)
}

/// Fetches by a process that does nothing but that: none is refused, none waits long.
async fn quiet_is_unharmed(world: &World, beside: &str) {
    let (quiet, _) = caller(&["quiet"], &world.agent.socket, 50);
    let report = Report::of(&quiet).await;
    assert_eq!(report.refused, 0, "beside {beside}: {}", report.text);
    report.tell(&format!("quiet beside {beside}"));
    assert!(report.percentile(100) < PATIENCE, "beside {beside}");
}

/// Resident memory of the agent, in kilobytes.
fn memory(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.agent.daemon().pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A world with one identity for this user, whose agent has given it out already.
async fn world() -> (World, types::Entry) {
    let world = World::start().await;
    let web = world.grant("/web").await;
    world.agent.workload().await.fetch_x509().await.unwrap();
    (world, web)
}

/// A connection that is written to and never read.
struct Deaf(UnixStream);

impl AsyncRead for Deaf {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Speaks HTTP/2 over a connection; takes as much as anybody wants to send.
async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(io: S) -> SendRequest<Bytes> {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(1 << 30)
        .initial_connection_window_size(1 << 30)
        .max_send_buffer_size(1 << 30);
    let (requests, connection) = builder.handshake(io).await.unwrap();
    tokio::spawn(connection);
    requests
}

fn ask(path: &str) -> http::Request<()> {
    let request = http::Request::post(format!("http://localhost{path}"));
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    request.header("workload.spiffe.io", "true").body(()).unwrap()
}

/// The head of a message of this length.
fn head(length: usize) -> Vec<u8> {
    let mut head = vec![0];
    head.extend(u32::try_from(length).unwrap().to_be_bytes());
    head
}

const STREAM: &str = "/SpiffeWorkloadAPI/FetchX509SVID";

/// Starts the world's agent again with room for so many open files.
async fn limit_descriptors(world: &mut World, descriptors: u64) {
    world.agent.stop().await;
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n \"$0\" && exec \"$@\""]).arg(descriptors.to_string());
    command.arg(binary("avouch-agent")).args(["run", "-config"]).arg(&world.agent.config);
    world.agent.adopt(Daemon::spawn("agent", &mut command)).await;
}

#[tokio::test]
async fn ten_thousand_connections_of_one_user_at_once_are_all_answered_within_twenty_thousand_descriptors() {
    const PROCESSES: usize = 20;
    const DESCRIPTORS: u64 = 20_000;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let descriptors = DESCRIPTORS.min(most);
    let each = usize::try_from(descriptors).unwrap() / 2 / PROCESSES;
    if most < DESCRIPTORS {
        println!("not ten thousand: only {most} open files are allowed here");
    }
    let (mut world, _) = world().await;
    limit_descriptors(&mut world, descriptors).await;
    world.agent.workload().await.fetch_x509().await.unwrap();
    let before = memory(&world);
    let crowd: Vec<_> = (0..PROCESSES).map(|_| caller(&["crowd"], &world.agent.socket, each)).collect();
    let (crowd, holds): (Vec<_>, Vec<_>) = crowd.into_iter().unzip();
    drop(holds); // they begin
    let mut all = Report { refused: 0, latencies: Vec::new(), text: String::new() };
    for process in &crowd {
        let report = Report::of(process).await;
        assert_eq!(report.refused, 0, "{}", report.text);
        all.latencies.extend(report.latencies);
    }
    all.latencies.sort_unstable();
    assert_eq!(all.latencies.len(), PROCESSES * each);
    all.tell("crowd");
    println!("{} kB for each connection", (memory(&world) - before) / (PROCESSES * each) as u64);
    quiet_is_unharmed(&world, "ten thousand connections").await;
}

#[tokio::test]
async fn a_greedy_process_takes_nothing_from_a_quiet_one() {
    let (world, _) = world().await;
    // As many connections as it gets, and questions without a pause on some of them.
    let mut open = Vec::new();
    for _ in 0..8_000 {
        let Ok(stream) = UnixStream::connect(&world.agent.socket).await else { break };
        open.push(stream);
    }
    let greed: Vec<_> = (0..64)
        .map(|n| {
            let socket = world.agent.socket.clone();
            tokio::spawn(async move {
                for round in 0_u64.. {
                    let Ok(mut workload) = Workload::connect(&socket).await else { continue };
                    let _ = workload.fetch_x509().await;
                    let _ = workload.jwt(&[&format!("audience-{n}-{round}")], "").await;
                    let _ = workload.validate("x", "no token").await;
                }
            })
        })
        .collect();
    quiet_is_unharmed(&world, "greed").await;
    greed.iter().for_each(tokio::task::JoinHandle::abort);
    println!("the greedy one opened {} connections", open.len());
}

#[tokio::test]
async fn clients_that_never_read_cost_little_and_delay_nobody() {
    const CONNECTIONS: usize = 20;
    const STREAMS: usize = 100;
    const CHANGES: usize = 150;
    let (world, mut web) = world().await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut requests = speak(Deaf(UnixStream::connect(&world.agent.socket).await.unwrap())).await;
        for _ in 0..STREAMS {
            requests = requests.ready().await.unwrap();
            let (answer, mut body) = requests.send_request(ask(STREAM), false).unwrap();
            body.send_data(head(0).into(), true).unwrap();
            open.push(answer);
        }
    }
    quiet_is_unharmed(&world, "clients that never read").await;
    let before = memory(&world);
    let mut workload = world.agent.workload().await;
    let mut stream = workload.x509().await.unwrap();
    for round in 0..CHANGES {
        web = world.server.update(types::Entry { hint: format!("hint-{round}"), ..web }).await;
        stream.until("the change", |m| m.svids[0].hint == format!("hint-{round}")).await;
    }
    let grown = memory(&world).saturating_sub(before);
    println!("{} streams, {CHANGES} changes: {grown} kB", CONNECTIONS * STREAMS);
    let each = grown / (CONNECTIONS * STREAMS) as u64;
    assert!(each < 32, "{each} kB for a stream that nobody reads");
    quiet_is_unharmed(&world, "full buffers").await;
}

#[tokio::test]
async fn connections_that_say_nothing_or_little_delay_nobody() {
    let (world, _) = world().await;
    let mut open = Vec::new();
    for n in 0..1500 {
        let mut stream = UnixStream::connect(&world.agent.socket).await.unwrap();
        match n % 3 {
            0 => {}
            1 => stream.write_all(PREFACE).await.unwrap(),
            _ => stream.write_all(&PREFACE[..10]).await.unwrap(),
        }
        open.push(stream);
    }
    // Headers byte by byte, for as long as anybody listens.
    let loris: Vec<_> = (0..50)
        .map(|_| {
            let socket = world.agent.socket.clone();
            tokio::spawn(async move {
                let mut stream = UnixStream::connect(&socket).await.unwrap();
                stream.write_all(PREFACE).await.unwrap();
                stream.write_all(&[0, 0x3f, 0xff, 1, 4, 0, 0, 0, 1]).await.unwrap();
                loop {
                    stream.write_all(&[0]).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();
    quiet_is_unharmed(&world, "silence and slowness").await;
    loris.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn requests_that_are_never_finished_are_ended_and_kept_small() {
    const CONNECTIONS: usize = 8;
    const STREAMS: usize = 100;
    let (world, _) = world().await;
    let before = memory(&world);
    let mut open = Vec::new();
    // The biggest message that the library would take by itself, then the biggest that the agent takes.
    let health = "/grpc.health.v1.Health/Check";
    for (path, length) in [
        (health, 4 << 20),
        (health, 4 << 10),
        (STREAM, 64 << 10),
        ("/SpiffeWorkloadAPI/ValidateJWTSVID", 64 << 10),
    ] {
        for _ in 0..CONNECTIONS {
            let mut requests = speak(UnixStream::connect(&world.agent.socket).await.unwrap()).await;
            for _ in 0..STREAMS {
                requests = requests.ready().await.unwrap();
                let (answer, mut body) = requests.send_request(ask(path), false).unwrap();
                // All of it but the last byte.
                body.send_data([head(length), vec![7; length - 1]].concat().into(), false).unwrap();
                open.push((answer, body));
            }
        }
        quiet_is_unharmed(&world, "unfinished requests").await;
    }
    let grown = memory(&world).saturating_sub(before);
    println!("{} requests without an end: {grown} kB", open.len());
    assert!(grown < 300_000, "{grown} kB");
    let (answer, _) = open.pop().unwrap();
    let answer = within("the end of a request that has none", answer).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "4", "{answer:?}");
}

/// Connects, sends, and reads until the agent has closed the connection.
async fn is_closed_after(world: &World, what: &str, bytes: &[u8]) {
    let mut stream = UnixStream::connect(&world.agent.socket).await.unwrap();
    let talk = async {
        let (mut from, mut to) = stream.split();
        let mut heard = Vec::new();
        // The agent may close before it has read all of it.
        let (_, _) = tokio::join!(to.write_all(bytes), from.read_to_end(&mut heard));
    };
    within(&format!("the end of {what}"), talk).await;
}

/// A HEADERS frame that is not the end of its headers.
fn headers(stream: u32, block: &[u8]) -> Vec<u8> {
    frame(1, 0, stream, block)
}

fn frame(kind: u8, flags: u8, stream: u32, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
}

#[tokio::test]
async fn headers_without_an_end_and_frames_that_are_none_end_their_connection() {
    let (world, _) = world().await;
    let before = memory(&world);
    // A literal field with a long value, over and over.
    let field = [&[0x40, 1, b'x', 0x7f, 0x81, 0x7f][..], &[b'v'; 16_383]].concat();
    let block = &field[..16_000];
    let mut endless = [PREFACE, &headers(1, block)].concat();
    for _ in 0..5_000 {
        endless.extend(frame(9, 0, 1, &[0x20; 16_000])); // CONTINUATION
    }
    for _ in 0..3 {
        is_closed_after(&world, "headers without an end", &endless).await;
    }
    let empty: Vec<u8> = [PREFACE, &headers(1, &[])].concat();
    let empties = [empty, frame(9, 0, 1, &[]).repeat(500_000)].concat();
    is_closed_after(&world, "empty continuations", &empties).await;
    is_closed_after(&world, "a frame over the size limit", &[PREFACE, &[0xff; 9]].concat()).await;
    is_closed_after(&world, "another protocol", &[b'G'; 4096]).await;
    let grown = memory(&world).saturating_sub(before);
    println!("headers without an end: {grown} kB");
    assert!(grown < 50_000, "{grown} kB");
    quiet_is_unharmed(&world, "broken frames").await;
}

#[tokio::test]
async fn streams_that_are_reset_as_soon_as_they_are_open_end_their_connection() {
    let (world, _) = world().await;
    let mut requests = speak(UnixStream::connect(&world.agent.socket).await.unwrap()).await;
    let mut opened = 0;
    let end = loop {
        requests = match within("room for a stream", requests.ready()).await {
            Ok(requests) => requests,
            Err(end) => break end,
        };
        match requests.send_request(ask(STREAM), false) {
            Ok((_, mut body)) => body.send_reset(h2::Reason::CANCEL),
            Err(end) => break end,
        }
        opened += 1;
        assert!(opened < 1_000_000, "nobody ends it");
        if opened % 100 == 0 {
            tokio::task::yield_now().await;
        }
    };
    println!("after {opened} streams: {end}");
    quiet_is_unharmed(&world, "streams that are reset").await;
}

/// Calls in a row: the last costs no more than the first. AVOUCH_CALLS sets another number, such as
/// 1000000 by hand.
#[tokio::test]
async fn calls_in_a_row_leave_nothing_behind() {
    const CLIENTS: usize = 8;
    let calls: usize = std::env::var("AVOUCH_CALLS").map_or(50_000, |n| n.parse().unwrap());
    let (world, _) = world().await;
    let world = &world;
    let row = async |calls: usize| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let socket = world.agent.socket.clone();
                tokio::spawn(async move {
                    let mut workload = Workload::connect(&socket).await.unwrap();
                    for n in 0..calls / CLIENTS {
                        match n % 4 {
                            0 => drop(workload.jwt(&["audience"], "").await.unwrap()),
                            1 => {
                                let status = workload.validate("x", "no token").await.unwrap_err();
                                assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
                            }
                            2 => drop(workload.x509_bundles().await.unwrap()),
                            _ => drop(workload.fetch_x509().await.unwrap()),
                        }
                        if n % 500 == 499 {
                            workload = Workload::connect(&socket).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        memory(world)
    };
    let warm = row(calls / 10).await;
    let end = row(calls).await;
    println!("{warm} kB after {} calls, {end} kB after {calls} more", calls / 10);
    assert!(end < warm + 20_000, "{} kB for {calls} calls", end - warm);
    quiet_is_unharmed(world, "calls in a row").await;
}
