//! Following the change log.
//!
//! Never guesses: a position that the log can't vouch for is [`Lost`].

use std::collections::BTreeSet;

use avouch_domain::{Change, Head, LogPosition, Plan, Revision, Row, RowKey, SpiffeId};
use rusqlite::{Connection, OptionalExtension, Row as Columns};

use crate::commit;
use crate::error::{Lost, StoreError, TailError};
use crate::limits::TAIL_MAX;
use crate::row;

/// What happened after a position, in whole revisions.
#[derive(Clone, Debug)]
pub struct Tail {
    /// In order.
    pub changes: Vec<Change>,
    /// The rows that the changes name as they are now, which may be newer than `position`: read on until it is
    /// `latest` before planning. `None` = gone.
    pub rows: Vec<(RowKey, Option<Row>)>,
    /// After the last change in here.
    pub position: LogPosition,
    /// Where the store stands.
    pub latest: LogPosition,
}

impl Tail {
    /// The same as a plan that brings an image to `position`.
    #[must_use]
    pub fn into_plan(self) -> (Plan, LogPosition) {
        let mut plan = Plan { changes: self.changes, ..Plan::default() };
        for (key, row) in self.rows {
            match row {
                Some(row) => plan.puts.push(row),
                None => plan.deletes.push(key),
            }
        }
        (plan, self.position)
    }
}

/// Reads at least `limit` changes after `from`, if there are so many, to the end of a revision.
pub(crate) fn changes_since(
    conn: &mut Connection,
    from: LogPosition,
    limit: usize,
) -> Result<Tail, TailError> {
    let tx = conn.transaction()?; // one snapshot for the counter, the log and the rows
    let latest = commit::position(&tx)?;
    vouch(&tx, from, latest)?;
    let (changes, position) = read_changes(&tx, from, limit.clamp(1, TAIL_MAX))?;
    let keys: BTreeSet<&RowKey> = changes.iter().map(|c| &c.key).collect();
    let rows = keys
        .into_iter()
        .map(|key| Ok((key.clone(), row::get(&tx, key)?)))
        .collect::<Result<_, StoreError>>()?;
    tx.commit()?;
    Ok(Tail { changes, rows, position, latest })
}

/// Refuses a position that is not a point of this log, or from which changes are missing.
fn vouch(conn: &Connection, from: LogPosition, latest: LogPosition) -> Result<(), TailError> {
    if from.epoch != latest.epoch {
        return Err(TailError::Lost(Lost::Epoch));
    }
    if from.revision > latest.revision {
        return Err(TailError::Lost(Lost::Ahead));
    }
    let head =
        if from.revision == latest.revision { Some(latest.head) } else { head_at(conn, from.revision)? };
    match head {
        None => Err(TailError::Lost(Lost::Pruned)),
        Some(head) if head != from.head => Err(TailError::Lost(Lost::Head)),
        Some(_) => Ok(()),
    }
}

/// The head after a revision; `None` if the log begins later.
fn head_at(conn: &Connection, revision: Revision) -> Result<Option<Head>, StoreError> {
    if revision == Revision(0) {
        let first: Option<i64> =
            conn.prepare_cached("SELECT min(revision) FROM changes")?.query_row((), |r| r.get(0))?;
        return Ok((first == Some(1)).then(Head::default));
    }
    let head = conn
        .prepare_cached("SELECT head FROM changes WHERE revision = ?1 ORDER BY seq DESC LIMIT 1")?
        .query_row([revision.0.cast_signed()], |r| r.get(0))
        .optional()?;
    Ok(head.map(Head))
}

fn read_changes(
    conn: &Connection,
    from: LogPosition,
    limit: usize,
) -> Result<(Vec<Change>, LogPosition), StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT revision, kind, key, deleted, parent_before, parent_after, head FROM changes \
         WHERE revision > ?1 ORDER BY revision, seq",
    )?;
    let mut rows = statement.query([from.revision.0.cast_signed()])?;
    let mut changes = Vec::new();
    let mut position = from;
    while let Some(columns) = rows.next()? {
        let change = read_change(columns)?;
        if changes.len() >= limit && change.revision != position.revision {
            break;
        }
        position.revision = change.revision;
        position.head = Head(columns.get("head")?);
        changes.push(change);
    }
    Ok((changes, position))
}

fn read_change(columns: &Columns<'_>) -> Result<Change, StoreError> {
    let bad = |problem: String| StoreError::Row { table: "changes", problem };
    let parent = |column| -> Result<Option<SpiffeId>, StoreError> {
        let text: Option<String> = columns.get(column)?;
        text.map(|t| SpiffeId::parse(&t)).transpose().map_err(|e| bad(e.to_string()))
    };
    let key: String = columns.get("key")?;
    Ok(Change {
        revision: Revision(columns.get::<_, i64>("revision")?.cast_unsigned()),
        key: row::key_from_log(columns.get("kind")?, &key).map_err(|e| bad(e.to_string()))?,
        deleted: columns.get("deleted")?,
        parent_before: parent("parent_before")?,
        parent_after: parent("parent_after")?,
    })
}

/// Follows the chain through the whole log that is kept; the first link is taken as given once older ones are pruned.
pub(crate) fn verify_chain(conn: &Connection) -> Result<(), StoreError> {
    let bad = |problem: String| StoreError::Row { table: "changes", problem };
    let mut statement = conn.prepare("SELECT * FROM changes ORDER BY seq")?;
    let mut rows = statement.query(())?;
    let mut before: Option<(Revision, Head)> = Some((Revision(0), Head::default()));
    let mut first = true;
    while let Some(columns) = rows.next()? {
        let change = read_change(columns)?;
        let content: Option<[u8; 32]> = columns.get("content")?;
        let head = Head(columns.get("head")?);
        let begins_late = first && change.revision != Revision(1);
        first = false;
        if let Some((revision, last)) = before.filter(|_| !begins_late) {
            if change.revision != revision && change.revision != revision.next() {
                return Err(bad(format!("revision {} follows {}", change.revision.0, revision.0)));
            }
            if commit::chain(last, &change, content.as_ref()) != head {
                return Err(bad(format!(
                    "revision {} does not follow from the one before",
                    change.revision.0
                )));
            }
        }
        before = Some((change.revision, head));
    }
    let counter = commit::position(conn)?;
    match before {
        Some((revision, head)) if (revision, head) != (counter.revision, counter.head) => Err(bad(format!(
            "the log ends at revision {}, the counter is {}",
            revision.0, counter.revision.0
        ))),
        _ => Ok(()),
    }
}
