//! Which schema a file has, and the way forward from it.
//!
//! Never goes back, and never touches a file that is damaged, newer, or somebody else's.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use avouch_domain::Epoch;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior};

use crate::error::StoreError;
use crate::limits::BUSY_TIMEOUT;
use crate::lock::beside;

/// Forward steps; the schema number is the count of those done.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_first.sql"),
    include_str!("../migrations/0002_requests.sql"),
    include_str!("../migrations/0003_grants.sql"),
    include_str!("../migrations/0004_stops.sql"),
    include_str!("../migrations/0005_sign_ins.sql"),
    include_str!("../migrations/0006_uses.sql"),
    include_str!("../migrations/0007_code.sql"),
    include_str!("../migrations/0008_emergencies.sql"),
    include_str!("../migrations/0009_accepted.sql"),
];
/// The step before which nobody asked what is used.
const USES_STEP: i64 = 5;
/// As the first migration writes it: "AVOU".
const APPLICATION_ID: i64 = 1_096_175_445;
/// How every SQLite file begins.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Every page size of SQLite is a multiple.
const SMALLEST_PAGE: u64 = 512;

/// The schema that this binary writes.
pub(crate) fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing yet, or a file that holds nothing.
    Fresh,
    /// A sound database with this schema, at most [`known`].
    Schema(i64),
}

/// Looks at a file without changing it.
pub(crate) fn inspect(path: &Path) -> Result<Found, StoreError> {
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Fresh),
        Err(e) => return Err(StoreError::io(path)(e)),
        Ok(facts) if facts.len() == 0 => return Ok(Found::Fresh),
        Ok(facts) => {
            refuse_foreign(path)?;
            refuse_torn_end(path, facts.len())?;
        }
    }
    look(path).map_err(|e| e.in_file(path))
}

fn refuse_foreign(path: &Path) -> Result<(), StoreError> {
    let mut start = Vec::new();
    let file = File::open(path).map_err(StoreError::io(path))?;
    file.take(MAGIC.len() as u64).read_to_end(&mut start).map_err(StoreError::io(path))?;
    if start == MAGIC { Ok(()) } else { Err(StoreError::Foreign { path: path.to_owned() }) }
}

/// SQLite reads the missing end of a last page as zeros. Without a write-ahead log, which a crash leaves and which
/// mends such a page, a file that is not whole pages was cut.
fn refuse_torn_end(path: &Path, length: u64) -> Result<(), StoreError> {
    let log = std::fs::metadata(beside(path, "-wal")).map_or(0, |facts| facts.len());
    if log > 0 || length.is_multiple_of(SMALLEST_PAGE) {
        return Ok(());
    }
    Err(StoreError::Corrupt {
        path: path.to_owned(),
        problem: format!("its {length} bytes are not whole pages"),
    })
}

fn look(path: &Path) -> Result<Found, StoreError> {
    let found = identify(&open_untouched(path)?, path)?;
    if let Found::Schema(_) = found {
        check(&open_to_read(path)?, path)?;
    }
    Ok(found)
}

fn identify(conn: &Connection, path: &Path) -> Result<Found, StoreError> {
    let tables: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", (), |r| r.get(0))?;
    if tables == 0 {
        return Ok(Found::Fresh);
    }
    let application: i64 = conn.pragma_query_value(None, "application_id", |r| r.get(0))?;
    if application != APPLICATION_ID {
        return Err(StoreError::Foreign { path: path.to_owned() });
    }
    let found = schema(conn)?;
    if found > known() {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: known() });
    }
    Ok(Found::Schema(found))
}

/// Opens a file so that not even SQLite's side files are made beside it. Only if there is no write-ahead log, which
/// would have to be read too, and only for a short look: another server may begin to write.
fn open_untouched(path: &Path) -> Result<Connection, StoreError> {
    // Two slashes would begin a host name.
    let text = path.to_str().filter(|text| !text.starts_with("//") && !beside(path, "-wal").exists());
    let Some(text) = text else { return open_to_read(path) };
    let escaped = text.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Ok(Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)?)
}

/// Opens an existing file so that nothing in it can change.
pub(crate) fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    Ok(conn)
}

/// Reads every page and says if the file is damaged.
pub(crate) fn check(conn: &Connection, path: &Path) -> Result<(), StoreError> {
    let verdict: String = conn.query_row("PRAGMA quick_check(1)", (), |r| r.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    // SQLite heads its list with a line of its own.
    let problem = verdict.lines().last().unwrap_or_default().to_owned();
    Err(StoreError::Corrupt { path: path.to_owned(), problem })
}

fn schema(conn: &Connection) -> Result<i64, StoreError> {
    let exists: Option<i64> = conn
        .query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'meta'", (), |r| r.get(0))
        .optional()?;
    if exists.is_none() {
        return Ok(0);
    }
    Ok(conn.query_row("SELECT schema FROM meta WHERE id = 1", (), |r| r.get(0))?)
}

/// Brings a database to the schema of this binary, each step in its own transaction; `fresh` becomes the epoch of a
/// database that was empty.
pub(crate) fn migrate(conn: &mut Connection, fresh: Epoch) -> Result<(), StoreError> {
    migrate_by(conn, fresh, MIGRATIONS)
}

fn migrate_by(conn: &mut Connection, fresh: Epoch, steps: &[&str]) -> Result<(), StoreError> {
    for (done, sql) in (0i64..).zip(steps) {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Asked again under the write lock: another process may have been first.
        if schema(&tx)? > done {
            continue;
        }
        tx.execute_batch(sql)?;
        if done == 0 {
            tx.execute(
                "INSERT INTO meta (id, schema, epoch_started, epoch_random, revision, head) \
                 VALUES (1, 0, ?1, ?2, 0, zeroblob(32))",
                (fresh.started, fresh.random.cast_signed()),
            )?;
        }
        if done == USES_STEP {
            tx.execute("UPDATE meta SET uses_since = ?1 WHERE id = 1", [fresh.started])?;
        }
        tx.execute("UPDATE meta SET schema = ?1 WHERE id = 1", [done + 1])?;
        tx.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Epoch = Epoch { started: 1, random: 2 };
    const FIRST: &str = MIGRATIONS[0];

    fn tables(conn: &Connection) -> Vec<String> {
        let sql = "SELECT name FROM sqlite_schema WHERE name IN ('second', 'third') ORDER BY name";
        let mut statement = conn.prepare(sql).unwrap();
        statement.query_map((), |r| r.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn every_step_in_the_folder_is_done() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap();
        let mut files: Vec<_> = folder.map(|file| file.unwrap().path()).collect();
        files.sort();
        let texts: Vec<_> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
        assert_eq!(texts, MIGRATIONS);
    }

    #[test]
    fn a_database_of_the_first_schema_keeps_its_rows() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate_by(&mut conn, FRESH, &MIGRATIONS[..1]).unwrap();
        conn.execute_batch(
            "INSERT INTO people (id, name, security, state, added_at) VALUES ('per_a', 'A', 1, 'active', 0);
             INSERT INTO identities (spiffe_id, kind, environment, purpose, owner, ends_at, standing, stop_number, added_by, \
             added_at) VALUES ('spiffe://example.org/test/a', 'service', 'test', 'x', 'per_a', 9, 'active', 0, 'per_a', 0);",
        )
        .unwrap();
        migrate(&mut conn, FRESH).unwrap();
        let rows = crate::row::all(&conn).unwrap();
        let untried = |row: &avouch_domain::Row| matches!(row, avouch_domain::Row::Identity(identity) if identity.stop_tried.is_none());
        assert!(rows.len() == 2 && rows.iter().any(untried), "{rows:?}");
    }

    #[test]
    fn each_step_is_done_once_and_in_order() {
        let mut conn = Connection::open_in_memory().unwrap();
        migrate_by(&mut conn, FRESH, &[FIRST]).unwrap();
        let steps = [FIRST, "CREATE TABLE second (x)", "ALTER TABLE second RENAME TO third"];
        for _ in 0..2 {
            migrate_by(&mut conn, FRESH, &steps).unwrap();
            assert_eq!((schema(&conn).unwrap(), tables(&conn)), (3, vec!["third".to_owned()]));
        }
        migrate_by(&mut conn, FRESH, &[FIRST]).unwrap();
        assert_eq!(schema(&conn).unwrap(), 3, "there is no way back");
    }

    #[test]
    fn a_step_that_fails_leaves_nothing_of_itself_and_can_be_done_later() {
        let mut conn = Connection::open_in_memory().unwrap();
        let broken = "CREATE TABLE third (x); INSERT INTO nowhere VALUES (1)";
        let failed = migrate_by(&mut conn, FRESH, &[FIRST, "CREATE TABLE second (x)", broken]);
        assert!(failed.is_err());
        assert_eq!((schema(&conn).unwrap(), tables(&conn)), (2, vec!["second".to_owned()]));
        migrate_by(&mut conn, FRESH, &[FIRST, "no step is done twice", "CREATE TABLE third (x)"]).unwrap();
        assert_eq!(schema(&conn).unwrap(), 3);
    }
}
