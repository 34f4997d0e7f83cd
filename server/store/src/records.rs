//! Reading the log, and keeping the heads that are signed over it. Appending is part of a commit.
//!
//! Never changes a record that is written.

use avouch_credential::ledger::{Hash, SignedHead};
use avouch_domain::Timestamp;
use rusqlite::{Connection, Row as Columns};

use crate::commit::last_record;
use crate::error::StoreError;
use crate::limits::{HEADS_KEPT, RECORD_PAGE_MAX};

/// One record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// Rises by one with every record; read on after the last one seen.
    pub seq: u64,
    /// [`avouch_credential::ledger::read_line`] reads it.
    pub line: String,
}

/// A stretch of the log and the heads that name a record of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stretch {
    /// Ascending.
    pub records: Vec<StoredRecord>,
    /// Ascending.
    pub heads: Vec<SignedHead>,
}

/// Reads records after a number, oldest first.
pub(crate) fn read(conn: &Connection, after: u64, limit: usize) -> Result<Stretch, StoreError> {
    // One snapshot for both tables; no other transaction is open between two jobs of a connection.
    let tx = conn.unchecked_transaction()?;
    let limit = i64::try_from(limit.min(RECORD_PAGE_MAX)).unwrap_or(i64::MAX);
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let records: Vec<StoredRecord> = tx
        .prepare_cached("SELECT seq, line FROM records WHERE seq > ?1 ORDER BY seq LIMIT ?2")?
        .query_map([after, limit], |r| {
            Ok(StoredRecord { seq: r.get::<_, i64>(0)?.cast_unsigned(), line: r.get(1)? })
        })?
        .collect::<Result<_, _>>()?;
    let last = records.last().map_or(after, |record| record.seq.cast_signed());
    let heads = tx
        .prepare_cached(
            "SELECT seq, hash, at, key, signature FROM record_heads WHERE seq > ?1 AND seq <= ?2 ORDER BY seq",
        )?
        .query_map([after, last], read_head)?
        .collect::<Result<_, _>>()?;
    tx.commit()?;
    Ok(Stretch { records, heads })
}

fn read_head(columns: &Columns<'_>) -> rusqlite::Result<SignedHead> {
    Ok(SignedHead {
        seq: columns.get::<_, i64>(0)?.cast_unsigned(),
        hash: columns.get(1)?,
        at: Timestamp(columns.get(2)?),
        key: columns.get(3)?,
        signature: columns.get(4)?,
    })
}

/// The number and hash of the last record, if no head names it yet.
pub(crate) fn unsigned(conn: &Connection) -> Result<Option<(u64, Hash)>, StoreError> {
    let signed: Option<i64> =
        conn.prepare_cached("SELECT max(seq) FROM record_heads")?.query_row((), |r| r.get(0))?;
    let (seq, hash) = last_record(conn)?;
    let signed = signed.map_or(0, i64::cast_unsigned);
    Ok((seq > signed).then_some((seq, hash)))
}

/// Keeps a head. One that names the same record is replaced: two servers may sign at once.
pub(crate) fn keep_head(conn: &Connection, head: &SignedHead) -> Result<(), StoreError> {
    conn.prepare_cached(
        "INSERT INTO record_heads (seq, hash, at, key, signature) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (seq) DO UPDATE SET hash = excluded.hash, at = excluded.at, key = excluded.key, \
         signature = excluded.signature",
    )?
    .execute((head.seq.cast_signed(), head.hash, head.at.0, &head.key, &head.signature))?;
    conn.prepare_cached(
        "DELETE FROM record_heads WHERE seq < (SELECT seq FROM record_heads ORDER BY seq DESC LIMIT 1 OFFSET ?1)",
    )?
    .execute([HEADS_KEPT])?;
    Ok(())
}
