//! Rows about the records of a node: what one costs beside the bare write of its bytes, and how fast they are checked.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use avouch_agent::metrics::Metrics;
use avouch_agent::records::{Durability, Parts, Records, Room};
use avouch_credential::ledger::{ChainReader, hash_of, node_line};
use avouch_domain::fixtures::id;
use avouch_domain::{ChainId, NodeChain, NodeEvent, Note, Stand, Timestamp};

use crate::report::{Bar, Report, Yard};
use crate::yardstick::measure;

/// Records of one verification.
const MANY: u64 = 20_000;
/// Callers that wait for the disk at once.
const CALLERS: u64 = 64;
/// Records that each of them writes.
const EACH: u64 = 50;

fn source() -> avouch_domain::SpiffeId {
    id("/spire/agent/x509pop/5d3c1a7f0e9b4c2d8a6f1b3e5d7c9a0b2c4e6f80")
}

/// A decision as long as they are.
fn note() -> Note {
    let detail = [
        ("outcome", "deny"),
        ("reason", "no_rule_allows"),
        ("task", "tsk_5b1f0c2e9d8a47b3"),
        ("instance", "ins_0f3a6c9d2e5b8a71"),
        ("rules", "17"),
    ];
    Note {
        event: NodeEvent::Decision,
        actor: "spiffe://example.org/test/coder".into(),
        subject: "files/read_file".into(),
        detail: detail.into_iter().map(|(name, value)| (name, value.to_owned())).collect(),
    }
}

fn records(folder: &std::path::Path) -> Records {
    let room = Room { spool: u64::MAX, segment: 4 << 20 };
    let (metrics, clock) = (Metrics::plain(), avouch_agent::clock::now);
    let records =
        Records::start(Parts { folder: folder.join("records"), room, metrics, clock, version: "bench" });
    let records = records.expect("a thread");
    records.bind(&source()).expect("a chain");
    records
}

/// All rows of this part.
pub async fn run(report: &Report) {
    let folder = tempfile::tempdir().expect("a folder");
    let chain = NodeChain { source: source(), id: ChainId::new([7; 8]) };
    let line = node_line(&chain, &Stand::default(), Timestamp(0), &note()).expect("a line");
    append(report, folder.path(), &line);
    synced(report, folder.path()).await;
    verify(report, &chain);
}

fn append(report: &Report, folder: &std::path::Path, line: &str) {
    let mut bytes = line.as_bytes().to_vec();
    bytes.push(b'\n');
    let path = folder.join("bare");
    let mut bare: File = OpenOptions::new().append(true).create(true).open(&path).expect("a file");
    let bare = measure(|| bare.write_all(&bytes).expect("a write"));
    std::fs::remove_file(&path).expect("its end");
    let (records, note) = (records(folder), note());
    let mut count = 0_u64;
    let begun = Instant::now();
    let each = measure(|| {
        // Nothing is waited for, so the first poll is the answer.
        let appended =
            pin!(records.append(&note, Durability::Soon)).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(appended, Poll::Ready(Ok(_))), "{appended:?}");
        count += 1;
    });
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    records.close();
    let yard = Yard { name: "bare write", value: bare };
    report.ratio(&format!("a record of {} bytes appended: CPU", bytes.len()), each, yard, Bar::AtMost(6.0));
    report.plain("records appended by one caller", rate, "/s", Bar::AtLeast(20_000.0));
}

async fn synced(report: &Report, folder: &std::path::Path) {
    let place = folder.join("synced");
    let path = folder.join("sync");
    let mut file = File::create(&path).expect("a file");
    let begun = Instant::now();
    for _ in 0..EACH {
        file.write_all(b"x").and_then(|()| file.sync_data()).expect("a sync");
    }
    let sync = begun.elapsed().as_secs_f64() * 1e6 / EACH as f64;
    let records = records(&place);
    let mut callers = tokio::task::JoinSet::new();
    let begun = Instant::now();
    for _ in 0..CALLERS {
        let records = records.clone();
        callers.spawn(async move {
            for _ in 0..EACH {
                records.append(&note(), Durability::Synced).await.expect("a record");
            }
        });
    }
    callers.join_all().await;
    let each = begun.elapsed().as_secs_f64() * 1e6 / (CALLERS * EACH) as f64;
    tokio::task::spawn_blocking(move || records.close()).await.expect("the end");
    let yard = Yard { name: "sync of the disk", value: sync };
    report.ratio(&format!("a record on disk, {CALLERS} callers: each"), each, yard, Bar::AtMost(0.5));
}

fn verify(report: &Report, chain: &NodeChain) {
    let (note, mut stand, mut lines) = (note(), Stand::default(), Vec::new());
    for seq in 1..=MANY {
        let line = node_line(chain, &stand, Timestamp(0), &note).expect("a line");
        stand = Stand { seq, hash: hash_of(&line) };
        lines.push(line);
    }
    let micros = measure(|| {
        let mut reader = ChainReader::from(chain.clone(), 1);
        for line in &lines {
            std::hint::black_box(reader.line(line).expect("it holds"));
        }
    });
    let rate = MANY as f64 * 1e6 / micros;
    report.plain("records verified on one core", rate, "/s", Bar::AtLeast(300_000.0));
}
