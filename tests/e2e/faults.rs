//! The real binaries under faults: killed at any moment, a disk that is full or read-only, too little memory.
//!
//! What may never happen is watched all the time; what must come back is waited for.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use avouch_proto::entry_v1::entry_client::EntryClient;
use avouch_proto::{entry_v1, types, workload as wire};
use avouch_tests::daemon::{Daemon, binary};
use avouch_tests::forge::now;
use avouch_tests::workload::Workload;
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, Server, ServerOptions, World, entry, uds, within};
use parking_lot::Mutex;
use tonic::Code;
use x509_parser::parse_x509_certificate;

/// Kills in one run; more by hand through `AVOUCH_KILLS`.
const KILLS: usize = 20;

fn create(entry: types::Entry) -> entry_v1::BatchCreateEntryRequest {
    entry_v1::BatchCreateEntryRequest { entries: vec![entry], output_mask: None }
}

/// What runs while daemons die: an admin who writes, and a workload that reads and judges.
#[derive(Default)]
struct Load {
    over: AtomicBool,
    /// Entries whose creation was acknowledged.
    acknowledged: Mutex<Vec<String>>,
    answers: AtomicUsize,
    /// What must never be seen.
    wrong: Mutex<Vec<String>>,
}

impl Load {
    async fn write(self: Arc<Self>, socket: std::path::PathBuf, parent: String) {
        let mut n = 0;
        while !self.over.load(Ordering::Relaxed) {
            let Ok(channel) = uds(&socket).await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            let mut client = EntryClient::new(channel);
            loop {
                n += 1;
                // For nobody here, so that the reader's answer stays what it is.
                let made = create(entry(&parent, &format!("/load/{n}"), &["unix:uid:4294967"]));
                let Ok(answer) = client.batch_create_entry(made).await else { break };
                let result = answer.into_inner().results.remove(0);
                if let Some(made) = result.entry {
                    self.acknowledged.lock().push(made.id);
                }
                if self.over.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    }

    async fn read(self: Arc<Self>, socket: std::path::PathBuf) {
        while !self.over.load(Ordering::Relaxed) {
            let Ok(mut workload) = Workload::connect(&socket).await else {
                tokio::time::sleep(Duration::from_millis(2)).await;
                continue;
            };
            match workload.fetch_x509().await {
                Ok(answer) => {
                    self.answers.fetch_add(1, Ordering::Relaxed);
                    self.judge(&answer);
                }
                // Not ready, or gone in the middle: the client tries again.
                Err(status)
                    if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) => {}
                Err(status) => self.wrong.lock().push(format!("refused: {status:?}")),
            }
        }
    }

    fn judge(&self, answer: &wire::X509svidResponse) {
        for svid in &answer.svids {
            if svid.spiffe_id != "spiffe://example.org/web" {
                self.wrong.lock().push(format!("another's identity: {}", svid.spiffe_id));
            }
            // The leaf comes first.
            match parse_x509_certificate(&svid.x509_svid)
                .map(|(_, leaf)| leaf.validity().not_after.timestamp())
            {
                Ok(end) if end > now() => {}
                Ok(end) => self.wrong.lock().push(format!("expired at {end}")),
                Err(error) => self.wrong.lock().push(format!("not a certificate: {error}")),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemons_killed_at_any_moment_under_load_lose_and_confuse_nothing() {
    let kills = std::env::var("AVOUCH_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(KILLS);
    let mut world = World::start().await;
    world.grant("/web").await;
    let load = Arc::new(Load::default());
    let writer = tokio::spawn(load.clone().write(world.server.socket.clone(), world.agent.id.clone()));
    let reader = tokio::spawn(load.clone().read(world.agent.socket.clone()));
    let mut worst = Duration::ZERO;
    let mut chance = 0x9e37_79b9_u32;
    for _ in 0..kills {
        chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // The moment is the point: somewhere in the load, not after an event.
        tokio::time::sleep(Duration::from_millis(u64::from(chance >> 24))).await;
        let victims = (chance >> 16) % 3;
        if victims != 0 {
            world.server.daemon().kill().await;
        }
        if victims != 1 {
            world.agent.daemon().kill().await;
        }
        let begun = tokio::time::Instant::now();
        if victims != 0 {
            world.server.restart().await;
        }
        if victims != 1 {
            world.agent.restart().await;
        }
        let before = load.answers.load(Ordering::Relaxed);
        avouch_tests::eventually("an answer after the kill", async || {
            (load.answers.load(Ordering::Relaxed) > before).then_some(())
        })
        .await;
        worst = worst.max(begun.elapsed());
    }
    load.over.store(true, Ordering::Relaxed);
    avouch_tests::within("the load's end", async { tokio::join!(writer, reader) }).await.0.unwrap();
    assert_eq!(*load.wrong.lock(), Vec::<String>::new());
    let acknowledged = load.acknowledged.lock().clone();
    let mut client = world.server.entries().await;
    for id in &acknowledged {
        let asked = entry_v1::GetEntryRequest { id: id.clone(), output_mask: None };
        client.get_entry(asked).await.unwrap_or_else(|e| panic!("{id} was acknowledged and is lost: {e:?}"));
    }
    println!(
        "{kills} kills: {} acknowledged entries, {} answers, service back within {worst:?} at worst",
        acknowledged.len(),
        load.answers.load(Ordering::Relaxed)
    );
    assert!(
        acknowledged.len() >= kills && load.answers.load(Ordering::Relaxed) >= kills,
        "there was no load"
    );
}

/// A small file system of its own on a folder; taken away when dropped.
struct Mount(std::path::PathBuf);

impl Mount {
    /// `None`, with a word on why, where file systems can't be mounted.
    fn new(folder: &Path, size: &str) -> Option<Self> {
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "none"]).arg(folder).output();
        if mounted.is_ok_and(|done| done.status.success()) {
            return Some(Self(folder.to_owned()));
        }
        println!("not run: mounting a file system needs root");
        None
    }

    fn remount(&self, how: &str) {
        let options = format!("remount,{how}");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

async fn try_create(server: &Server, path: &str) -> Result<(), tonic::Status> {
    let made = create(entry("spiffe://example.org/node", path, &["unix:uid:1"]));
    let answer = server.entries().await.batch_create_entry(made).await?.into_inner();
    let status = answer.results[0].status.clone().unwrap();
    match Code::from(status.code) {
        Code::Ok => Ok(()),
        code => Err(tonic::Status::new(code, status.message)),
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_serves_reads_and_is_forgotten_once_there_is_room() {
    let mut server = Server::prepare(&ServerOptions::default());
    let Some(_mount) = Mount::new(&server.data_dir(), "4m") else { return };
    server.restart().await;
    try_create(&server, "/before").await.unwrap();
    let filler = server.data_dir().join("filler");
    // The size of the file is the room that is left.
    let _ = std::fs::write(&filler, vec![0_u8; 8 << 20]);
    let mut refused = None;
    for n in 0..2000 {
        if let Err(status) = try_create(&server, &format!("/full/{n}")).await {
            refused = Some(status);
            break;
        }
    }
    let refused = refused.expect("a write that finds no room");
    assert!(refused.message().contains("full"), "{refused:?}");
    let count = entry_v1::CountEntriesRequest::default();
    let counted = server.entries().await.count_entries(count.clone()).await.unwrap().into_inner().count;
    assert!(counted > 0, "what is there can be read");
    std::fs::remove_file(&filler).unwrap();
    try_create(&server, "/after").await.unwrap();
    server.daemon().kill().await;
    server.restart().await;
    let after = server.entries().await.count_entries(count).await.unwrap().into_inner().count;
    assert_eq!(after, counted + 1, "the refused write left no trace and the others are there");
}

#[tokio::test]
async fn a_disk_that_turns_read_only_refuses_writes_and_stops_a_start_with_the_reason() {
    let mut server = Server::prepare(&ServerOptions::default());
    let Some(mount) = Mount::new(&server.data_dir(), "16m") else { return };
    server.restart().await;
    try_create(&server, "/before").await.unwrap();
    server.stop().await;
    mount.remount("ro");
    let daemon = server.spawn();
    let ended = daemon.end().await;
    let log = daemon.log();
    assert_eq!(ended.code(), Some(1), "{log}");
    assert!(log.to_lowercase().contains("read-only"), "{log}");
    mount.remount("rw");
    server.restart().await;
    try_create(&server, "/after").await.unwrap();
}

/// Makes a process wait this long in each flush to the disk, until dropped.
async fn slow_disk(pid: i32, pause: Duration) -> Option<Daemon> {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("not run: strace is not installed (apt-get install strace)");
        return None;
    }
    let calls = "fsync,fdatasync";
    let inject = format!("inject={calls}:delay_exit={}", pause.as_micros());
    let mut strace = Command::new("strace");
    strace.args(["-f", "-e", &format!("trace={calls}"), "-e", &inject, "-p", &pid.to_string()]);
    let daemon = Daemon::spawn("strace", &mut strace);
    daemon.line("attached").await;
    Some(daemon)
}

#[tokio::test]
async fn a_slow_disk_delays_writes_and_nothing_else() {
    const FLUSH: Duration = Duration::from_secs(3);
    let world = World::start().await;
    world.grant("/web").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    assert_eq!(stream.next().await.unwrap().svids.len(), 1);
    let Some(_server) = slow_disk(world.server.daemon().pid(), FLUSH).await else { return };
    let Some(_agent) = slow_disk(world.agent.daemon().pid(), FLUSH).await else { return };
    let (mut entries, parent) = (world.server.entries().await, world.agent.id.clone());
    let write = tokio::spawn(async move {
        let made = create(entry(&parent, "/slow", &[&my_uid()]));
        entries.batch_create_entry(made).await.unwrap().into_inner().results.remove(0)
    });
    let count = entry_v1::CountEntriesRequest::default();
    world.server.entries().await.count_entries(count).await.unwrap();
    world.agent.workload().await.fetch_x509().await.unwrap();
    let token = world.agent.workload().await.jwt(&["never asked before"], "").await.unwrap();
    assert_eq!(token.len(), 1, "the server signs, too");
    assert!(!write.is_finished(), "all of this was done while the disk was busy");
    assert_eq!(within("the write", write).await.unwrap().status.unwrap().code, 0);
    stream.until("what was written", |m| m.svids.len() == 2).await;
}

#[tokio::test]
async fn connections_that_use_up_the_servers_descriptors_keep_nobody_else_out() {
    const DESCRIPTORS: usize = 256;
    let mut server = Server::prepare(&ServerOptions::default());
    let mut few = Command::new("sh");
    few.args(["-c", &format!("ulimit -n {DESCRIPTORS} && exec \"$0\" run -config \"$1\"")]);
    let few = few.arg(binary("avouch-server")).arg(&server.config);
    server.adopt(Daemon::spawn("server", few)).await;
    let mut agent = Agent::start(&server).await;
    let mut flood = Vec::new();
    for _ in 0..2 * DESCRIPTORS {
        flood.push(tokio::net::TcpStream::connect(server.address()).await.unwrap());
    }
    server.daemon().line("Too many connections: one is closed").await;
    // An admin comes, the store is written, and the agent that was there hears of it.
    server.create(entry(&agent.id, "/web", &[&my_uid()])).await;
    assert_eq!(agent.workload().await.fetch_x509().await.unwrap().svids.len(), 1);
    assert!(!server.daemon().log().contains("Unable to accept a connection"), "descriptors are left");
    drop(flood);
    agent.stop().await;
    agent.restart().await;
    assert_eq!(agent.workload().await.fetch_x509().await.unwrap().svids.len(), 1);
}

/// A control group of its own with a limit of memory; taken away when dropped.
struct Memory(std::path::PathBuf);

impl Memory {
    fn new(name: &str, bytes: usize) -> Option<Self> {
        let tree = Path::new("/sys/fs/cgroup");
        let (folder, file) = if tree.join("memory").is_dir() {
            (tree.join("memory").join(name), "memory.limit_in_bytes")
        } else {
            (tree.join(name), "memory.max")
        };
        let made = std::fs::create_dir(&folder).and_then(|()| {
            let group = Self(folder.clone());
            std::fs::write(folder.join(file), bytes.to_string()).map(|()| group)
        });
        made.map_err(|error| println!("not run: a control group with a memory limit needs root: {error}"))
            .ok()
    }

    fn take(&self, pid: i32) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[tokio::test]
async fn sixty_four_mebibytes_are_enough_for_an_agent_with_ten_thousand_entries() {
    const ENTRIES: usize = 10_000;
    let name = format!("avouch-e2e-{}", std::process::id());
    let Some(group) = Memory::new(&name, 64 << 20) else { return };
    let server = Server::start().await;
    let proof = Proof::JoinToken(server.token().await);
    let mut agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    let one = |n| entry(&agent.id, &format!("/e/{n}"), &[&format!("unix:uid:{}", n + 1_000_000)]);
    server.create_all((0..ENTRIES).map(one).collect()).await;
    server.create(entry(&agent.id, "/web", &[&my_uid()])).await;
    let daemon = agent.spawn();
    group.take(daemon.pid());
    agent.adopt(daemon).await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        let mut stream = agent.workload().await.x509().await.unwrap();
        assert_eq!(stream.next().await.unwrap().svids.len(), 1);
        streams.push(stream);
    }
    assert!(agent.daemon().status().is_none());
    agent.stop().await;
}
