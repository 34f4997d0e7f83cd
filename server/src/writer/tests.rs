//! Rules of the one writer, one per test, on a real store.

use std::path::Path;

use avouch_domain::fixtures::{entry, node};
use avouch_domain::{AuditEvent, AuditRow, Change, Now, Revision, Row, Tick, Timestamp};

use super::*;
use crate::metrics::Metrics;

fn clock() -> Now {
    Now { wall: Timestamp(1_000_000), mono: Tick(0) }
}

fn put(row: Row) -> Plan {
    Plan {
        changes: vec![Change {
            revision: Revision(0),
            key: row.key(),
            deleted: false,
            parent_before: None,
            parent_after: None,
        }],
        folders: Vec::new(),
        texts: Vec::new(),
        audit: vec![AuditRow {
            at: Timestamp(0),
            event: AuditEvent::EntryCreated,
            actor: "test".into(),
            subject: "x".into(),
            detail: Vec::new(),
        }],
        puts: vec![row],
        deletes: vec![],
    }
}

fn start(path: &Path, name: &str) -> (Writer, CancellationToken) {
    let (writer, stop, _) = start_counted(path, name);
    (writer, stop)
}

fn start_counted(path: &Path, name: &str) -> (Writer, CancellationToken, Metrics) {
    let metrics = Metrics::plain();
    let (store, image) = Datastore::open(path, metrics.clone(), clock).unwrap();
    let stop = CancellationToken::new();
    let holder = Holder::Server(name.into());
    let registry = Registry::from_image(image);
    (Writer::start(store, registry, holder, clock, stop.clone()).0, stop, metrics)
}

#[tokio::test]
async fn writes_that_wait_together_each_take_a_revision_and_see_those_before_them() {
    let (writer, _stop) = start(Path::new(":memory:"), "s");
    let write = |i: usize| {
        writer.write(move |registry: &Registry| {
            let row = Row::Entry(entry(&format!("e{i}"), "/x", "/p", &[&format!("u:{i}")]));
            (put(row), registry.entry_count())
        })
    };
    let seen = tokio::join!(write(0), write(1), write(2));
    assert_eq!((seen.0.unwrap(), seen.1.unwrap(), seen.2.unwrap()), (0, 1, 2));
    assert_eq!(writer.registry().position().revision, Revision(3));
    assert_eq!(*writer.subscribe().borrow(), writer.registry().position());
}

#[tokio::test]
async fn a_write_that_changes_nothing_takes_no_revision() {
    let (writer, _stop) = start(Path::new(":memory:"), "s");
    assert_eq!(writer.write(|_| (Plan::default(), 7)).await, Ok(7));
    assert_eq!(writer.registry().position().revision, Revision(0));
}

#[tokio::test]
async fn two_servers_on_one_store_plan_again_instead_of_losing_a_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let ((one, _s1), (two, _s2)) = (start(&path, "one"), start(&path, "two"));
    for i in 0..10 {
        let server = if i % 2 == 0 { &one } else { &two };
        let before = server
            .write(move |registry| {
                let row = Row::Node(node(&format!("/spire/agent/t/{i}"), &[], 10));
                (put(row), registry.node_count())
            })
            .await;
        assert_eq!(before, Ok(i), "each plan sees what the other server wrote");
    }
    let mut positions = one.subscribe();
    while one.registry().node_count() < 10 {
        positions.changed().await.unwrap();
    }
    assert_eq!(one.registry().position(), two.registry().position());
}

#[tokio::test]
async fn what_another_server_wrote_counts_as_a_reload_and_what_came_too_late_as_aborted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let (one, _s1, metrics) = start_counted(&path, "one");
    let (two, _s2) = start(&path, "two");
    for (server, name) in [(&two, "e0"), (&one, "e1")] {
        let row = Row::Entry(entry(name, "/x", "/p", &["u:1"]));
        server.write(move |_| (put(row.clone()), ())).await.unwrap();
    }
    let page = metrics.registry().render();
    for line in [
        // At the start, and when it was behind.
        "spire_server_entry_cache_reload{status=\"OK\"} 2",
        "spire_server_datastore_image_fetch{status=\"OK\"} 1",
        "spire_server_datastore_change_list{status=\"OK\"} 1",
        "spire_server_datastore_commit{status=\"Aborted\"} 1",
        "spire_server_datastore_commit{status=\"OK\"} 1",
        "spire_server_datastore_registration_entry_create{status=\"OK\"} 1",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in:\n{page}");
    }
}

#[tokio::test]
async fn a_stopped_writer_answers_what_is_queued_and_refuses_the_rest() {
    let (writer, stop) = start(Path::new(":memory:"), "s");
    stop.cancel();
    let mut last = writer.write(|_| (Plan::default(), ())).await;
    while last.is_ok() {
        tokio::task::yield_now().await;
        last = writer.write(|_| (Plan::default(), ())).await;
    }
    assert_eq!(last, Err(WriteError::Stopped));
}
