//! What holds for database files: modes, sharing, damage, other people's files, newer files, restore.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use avouch_domain::{Epoch, Plan, Row, Timestamp};
use rusqlite::Connection;

use super::kit::*;
use crate::{CommitError, Db, Lost, Store, StoreError, TailError, backup, restore};

const EPOCH: Epoch = Epoch { started: 1, random: 2 };

/// Every file of a folder with its bytes, side files of a look apart.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    fs::read_dir(folder)
        .unwrap()
        .map(|f| f.unwrap().path())
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&p).unwrap()))
        .filter(|(name, _)| !name.ends_with("-shm") && !name.ends_with("-wal"))
        .collect()
}

/// The names in a folder, side files too.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A closed database with a few rows.
fn filled(path: &Path) -> avouch_domain::LogPosition {
    let mut db = Db::open(path, EPOCH).unwrap();
    let base = db.position().unwrap();
    let plans: Vec<_> = (0..50).map(|n| moved(&format!("e{n}"))).collect();
    last(&db.commit(base, &plans).unwrap())
}

#[test]
fn a_database_is_readable_by_owner_and_group_at_most() {
    let (_folder, path) = place();
    filled(&path);
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o137, 0, "{mode:o}");
}

#[test]
fn a_database_opened_again_shows_the_same_epoch_position_and_rows() {
    let (_folder, path) = place();
    let end = filled(&path);
    let image = Db::open(&path, Epoch { started: 9, random: 9 }).unwrap().image(NOW).unwrap();
    assert_eq!((image.position, image.rows.len(), image.position.epoch), (end, 50, EPOCH));
}

#[test]
fn a_path_may_hold_what_means_something_in_an_uri() {
    let (folder, _) = place();
    let path = folder.path().join("a b%41?mode=memory#c.sqlite3");
    let end = filled(&path);
    assert_eq!(Db::open(&path, EPOCH).unwrap().position().unwrap(), end);
}

#[test]
fn a_commit_waits_until_the_disk_has_it() {
    let (_folder, path) = place();
    let db = Db::open(&path, EPOCH).unwrap();
    let ask = |name: &str| -> String {
        let text = |r: &rusqlite::Row<'_>| r.get::<_, rusqlite::types::Value>(0);
        format!("{:?}", db.connection().pragma_query_value(None, name, text).unwrap())
    };
    // 2 = FULL: each transaction of the write-ahead log is flushed before it counts.
    assert_eq!((ask("synchronous"), ask("journal_mode")), ("Integer(2)".into(), "Text(\"wal\")".into()));
}

#[test]
fn a_newer_database_is_refused_with_both_versions_and_nothing_is_touched() {
    let (folder, path) = place();
    filled(&path);
    Connection::open(&path).unwrap().execute("UPDATE meta SET schema = 99", ()).unwrap();
    let before = contents(folder.path());
    let error = Db::open(&path, EPOCH).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, known: 8, .. }), "{error}");
    assert!(error.to_string().contains("schema 99") && error.to_string().contains("schema 8 "), "{error}");
    assert_eq!(contents(folder.path()), before);
    assert_eq!(names(folder.path()), ["data.sqlite3", "data.sqlite3.lock"], "not even a side file is made");
}

#[test]
fn a_database_of_another_program_is_refused_and_nothing_is_touched() {
    let (folder, path) = place();
    Connection::open(&path).unwrap().execute("CREATE TABLE attested_node_entries (id TEXT)", ()).unwrap();
    let before = contents(folder.path());
    let error = Db::open(&path, EPOCH).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn a_file_that_is_no_database_is_refused_and_nothing_is_touched() {
    let (folder, path) = place();
    fs::write(&path, "not a database, but long enough to look like one\n".repeat(200)).unwrap();
    let before = contents(folder.path());
    let error = Db::open(&path, EPOCH).unwrap_err();
    assert!(matches!(error, StoreError::Foreign { .. }), "{error}");
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn a_torn_database_is_refused_and_nothing_is_touched() {
    let (folder, path) = place();
    filled(&path);
    let whole = fs::read(&path).unwrap();
    for keep in [100, 4096, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..keep]).unwrap();
        let before = contents(folder.path());
        let opened = Db::open(&path, EPOCH);
        assert!(matches!(opened, Err(StoreError::Corrupt { .. })), "{keep}: {opened:?}");
        assert_eq!(contents(folder.path()), before, "{keep}");
    }
}

#[test]
fn a_corrupt_page_is_refused_and_nothing_is_touched() {
    let (folder, path) = place();
    filled(&path);
    let mut bytes = fs::read(&path).unwrap();
    let pages = bytes.len() / 4096;
    for page in 1..pages {
        bytes[page * 4096..page * 4096 + 64].fill(0xee);
    }
    fs::write(&path, &bytes).unwrap();
    let before = contents(folder.path());
    let error = Db::open(&path, EPOCH).map(drop).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert_eq!(contents(folder.path()), before);
}

#[test]
fn a_row_that_breaks_a_rule_is_named_and_not_dropped() {
    let (_folder, path) = place();
    filled(&path);
    Connection::open(&path)
        .unwrap()
        .execute("UPDATE entries SET selectors = '[]' WHERE id = 'e7'", ())
        .unwrap();
    let error = Store::open(&path, NOW).map(drop).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("entries") && text.contains("selector list is empty"), "{text}");
}

#[test]
fn a_changed_log_is_found() {
    let (_folder, path) = place();
    filled(&path);
    Connection::open(&path)
        .unwrap()
        .execute("UPDATE changes SET key = 'other' WHERE revision = 20", ())
        .unwrap();
    let error = Db::open(&path, EPOCH).unwrap().verify_chain().unwrap_err();
    assert!(error.to_string().contains("revision 20"), "{error}");
}

#[test]
fn histories_that_differ_only_in_content_have_different_heads() {
    let mut one = Db::in_memory(EPOCH).unwrap();
    let mut two = one.copy().unwrap();
    let base = one.position().unwrap();
    let mut parts = an_entry("a").to_parts();
    parts.hint = "other".into();
    let other = Row::Entry(avouch_domain::Entry::new(parts).unwrap());
    let first = last(&one.commit(base, &[put([Row::Entry(an_entry("a"))])]).unwrap());
    let second = last(&two.commit(base, &[put([other])]).unwrap());
    assert_eq!(first.revision, second.revision);
    assert_ne!(first.head, second.head);
}

#[test]
fn lost_commits_show_as_another_head() {
    let mut db = Db::in_memory(EPOCH).unwrap();
    let base = db.position().unwrap();
    let mut older = db.copy().unwrap();
    let seen = last(&db.commit(base, &[moved("a")]).unwrap());
    older.commit(base, &[moved("b"), moved("c")]).unwrap();
    assert!(matches!(older.changes_since(seen, 9), Err(TailError::Lost(Lost::Head))));
}

#[tokio::test]
async fn two_servers_on_one_file_follow_each_other() {
    let (_folder, path) = place();
    let (one, image) = Store::open(&path, NOW).unwrap();
    let (two, same) = Store::open(&path, NOW).unwrap();
    assert_eq!(image.position, same.position);
    let first = last(&one.commit(image.position, vec![moved("a")]).await.unwrap());
    let refused = two.commit(image.position, vec![moved("b")]).await;
    assert!(matches!(refused, Err(CommitError::Behind(p)) if p == first), "{refused:?}");
    let tail = two.changes_since(image.position, 10).await.unwrap();
    assert_eq!((tail.position, tail.rows.len()), (first, 1));
    let second = last(&two.commit(first, vec![moved("b")]).await.unwrap());
    assert_eq!(one.position().await.unwrap(), second);
}

#[test]
fn servers_that_create_one_file_together_agree_on_its_epoch() {
    let (_folder, path) = place();
    let epochs: Vec<Epoch> = std::thread::scope(|scope| {
        let open = |n| {
            let path = &path;
            scope.spawn(move || {
                Db::open(path, Epoch { started: n, random: 0 }).unwrap().position().unwrap().epoch
            })
        };
        let threads: Vec<_> = (0..4).map(open).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    assert!(epochs.windows(2).all(|pair| pair[0] == pair[1]), "{epochs:?}");
}

#[tokio::test]
async fn a_backup_beside_a_writing_server_is_one_moment_of_it() {
    let (folder, path) = place();
    let (store, image) = Store::open(&path, NOW).unwrap();
    let mut base = image.position;
    let plans: Vec<_> = (0..3000).map(|n| moved(&format!("e{n}"))).collect();
    base = last(&store.commit(base, plans).await.unwrap());
    let to = folder.path().join("backup");
    let (writer, seen) = (store.clone(), std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0)));
    let (reports, handle) = (seen.clone(), tokio::runtime::Handle::current());
    let from = path.clone();
    let target = to.clone();
    let position = tokio::task::spawn_blocking(move || {
        let mut writes = 0;
        backup(&from, &target, |done, all| {
            assert!(done <= all);
            reports.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            writes += 1;
            // A commit between two steps of the copy.
            base =
                last(&handle.block_on(writer.commit(base, vec![moved(&format!("late{writes}"))])).unwrap());
        })
        .unwrap()
    })
    .await
    .unwrap();
    assert!(seen.load(std::sync::atomic::Ordering::Relaxed) > 1);
    let mut copy = Db::open(&to, EPOCH).unwrap();
    assert_eq!((copy.position().unwrap(), copy.image(NOW).unwrap().rows.len()), (position, 3000));
    assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(store.position().await.unwrap().revision > position.revision);
}

#[tokio::test]
async fn a_restore_under_a_running_server_is_refused() {
    let (folder, path) = place();
    let (store, _) = Store::open(&path, NOW).unwrap();
    let copy = folder.path().join("backup");
    store.backup(copy.clone(), |_, _| {}).await.unwrap();
    let refused = restore(&copy, &path, NOW, |_, _| {});
    assert!(matches!(refused, Err(StoreError::InUse { .. })), "{refused:?}");
    store.close().await;
    assert!(restore(&copy, &path, NOW, |_, _| {}).is_ok());
}

#[test]
fn a_second_restore_of_one_backup_is_newer_than_the_first_even_if_the_clock_went_back() {
    let (folder, path) = place();
    filled(&path);
    let copy = folder.path().join("backup");
    backup(&path, &copy, |_, _| {}).unwrap();
    let first = restore(&copy, &path, Timestamp(NOW.0 + 3_600_000), |_, _| {}).unwrap();
    // Agents have seen the first restore's epoch, which the backup knows nothing of.
    let second = restore(&copy, &path, NOW, |_, _| {}).unwrap();
    assert!(second.position.epoch > first.position.epoch, "{second:?} after {first:?}");
}

#[test]
fn a_restore_has_a_newer_epoch_and_sets_the_old_database_aside() {
    let (folder, path) = place();
    let end = filled(&path);
    let copy = folder.path().join("backup");
    backup(&path, &copy, |_, _| {}).unwrap();
    let late = last(&Db::open(&path, EPOCH).unwrap().commit(end, &[moved("late")]).unwrap());
    // A clock that went back must not make an epoch that agents take for an old one.
    let restored = restore(&copy, &path, Timestamp(0), |_, _| {}).unwrap();
    assert!(restored.position.epoch > end.epoch);
    assert_eq!((restored.position.revision, restored.position.head), (end.revision, end.head));
    let mut db = Db::open(&path, EPOCH).unwrap();
    assert_eq!((db.position().unwrap(), db.image(NOW).unwrap().rows.len()), (restored.position, 50));
    assert!(matches!(db.changes_since(late, 9), Err(TailError::Lost(Lost::Epoch))));
    let aside = Db::open(&restored.set_aside.unwrap(), EPOCH).unwrap();
    assert_eq!(aside.position().unwrap(), late);
}

#[test]
fn a_damaged_backup_is_refused_and_the_database_stays() {
    let (folder, path) = place();
    let end = filled(&path);
    let copy = folder.path().join("backup");
    backup(&path, &copy, |_, _| {}).unwrap();
    let whole = fs::read(&copy).unwrap();
    fs::write(&copy, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(restore(&copy, &path, NOW, |_, _| {}), Err(StoreError::Corrupt { .. })));
    assert!(matches!(
        restore(&folder.path().join("none"), &path, NOW, |_, _| {}),
        Err(StoreError::Io { .. })
    ));
    assert_eq!(Db::open(&path, EPOCH).unwrap().position().unwrap(), end);
}

#[test]
fn a_failed_copy_leaves_no_file_behind() {
    let (folder, path) = place();
    filled(&path);
    let missing = folder.path().join("no such folder").join("backup");
    assert!(matches!(backup(&path, &missing, |_, _| {}), Err(StoreError::Io { .. })));
    let names = contents(folder.path());
    assert_eq!(names.keys().map(String::as_str).collect::<Vec<_>>(), ["data.sqlite3", "data.sqlite3.lock"]);
}

#[test]
fn a_plan_that_is_refused_leaves_nothing_of_those_before_it_either() {
    let mut db = Db::in_memory(EPOCH).unwrap();
    let base = db.position().unwrap();
    let hidden = Plan { changes: Vec::new(), audit: vec![audit_row("hidden")], ..moved("c") };
    assert!(matches!(db.commit(base, &[moved("b"), hidden]), Err(CommitError::Plan { .. })));
    assert!(db.image(NOW).unwrap().rows.is_empty() && db.records(0, 9).unwrap().records.is_empty());
    assert_eq!(db.position().unwrap(), base);
    db.verify_chain().unwrap();
}

#[test]
fn a_full_disk_fails_the_commit_whole_and_the_next_one_works() {
    let mut db = Db::in_memory(EPOCH).unwrap();
    let base = db.position().unwrap();
    let pages: i64 = db.connection().query_row("PRAGMA page_count", (), |r| r.get(0)).unwrap();
    db.connection().pragma_update(None, "max_page_count", pages + 2).unwrap();
    let plans: Vec<_> = (0..100).map(|n| moved(&format!("e{n}"))).collect();
    assert!(matches!(db.commit(base, &plans), Err(CommitError::Store(_))));
    assert_eq!(db.position().unwrap(), base);
    db.connection().pragma_update(None, "max_page_count", 1_000_000).unwrap();
    assert_eq!(db.commit(base, &plans).unwrap().len(), 100);
    db.verify_chain().unwrap();
}
