//! Records as fast as it can until somebody kills it, and says which records the disk has: what it says must be found in
//! the folder afterwards.
//!
//! Never stops by itself.
#![allow(clippy::print_stdout, clippy::expect_used, clippy::panic)] // it speaks to a test

use std::io::Write as _;

use avouch_agent::metrics::Metrics;
use avouch_agent::records::{Durability, Parts, Records};
use avouch_domain::{NodeEvent, Note, SpiffeId};

/// Callers that record at once.
const CALLERS: u64 = 8;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, source] = args.as_slice() else { panic!("usage: avouch-recorder FOLDER SPIFFE-ID") };
    let source = SpiffeId::parse(source).expect("a SPIFFE ID");
    let parts = Parts::below(folder.as_ref(), Metrics::plain(), avouch_agent::clock::now, "test");
    let records = Records::start(parts).expect("a thread");
    records.bind(&source).expect("a chain");
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let records = records.clone();
        callers.spawn(async move {
            let subject = format!("caller-{caller}");
            let note = Note { event: NodeEvent::Decision, actor: "test".into(), subject, detail: Vec::new() };
            loop {
                records.append(&note, Durability::Soon).await.expect("room");
                let seq = records.append(&note, Durability::Synced).await.expect("room").seq;
                // One write: a kill leaves a whole line or none.
                std::io::stdout().write_all(format!("synced {seq} {caller}\n").as_bytes()).expect("a reader");
            }
        });
    }
    callers.join_next().await;
}
