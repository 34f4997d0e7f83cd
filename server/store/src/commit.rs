//! Writing plans: the locked counter, the rows, the chained change log and the records, in one transaction.
//!
//! Never writes half a plan, and never a plan that was made at another position than the counter's.

use std::collections::{BTreeMap, BTreeSet};

use avouch_credential::ledger::{self, FIRST_PREVIOUS, Hash};
use avouch_domain::{AuditRow, Change, Epoch, Head, LogPosition, Plan, Revision, RowKey};
use aws_lc_rs::digest;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};

use crate::error::{CommitError, StoreError};
use crate::folders;
use crate::limits::RECORDS_KEPT;
use crate::row;
use crate::texts;

/// Reads the counter row. Inside a write transaction the row is locked, so the answer holds until its end.
pub(crate) fn position(conn: &Connection) -> Result<LogPosition, StoreError> {
    let mut statement =
        conn.prepare_cached("SELECT epoch_started, epoch_random, revision, head FROM meta WHERE id = 1")?;
    let position = statement.query_row((), |r| {
        Ok(LogPosition {
            epoch: Epoch { started: r.get(0)?, random: r.get::<_, i64>(1)?.cast_unsigned() },
            revision: Revision(r.get::<_, i64>(2)?.cast_unsigned()),
            head: Head(r.get(3)?),
        })
    })?;
    Ok(position)
}

/// Writes plans made one after the other from `base` in one transaction: all of them or, after an error, none.
pub(crate) fn commit(
    conn: &mut Connection,
    base: LogPosition,
    plans: &[Plan],
    kept: u64,
) -> Result<Vec<LogPosition>, CommitError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let start = position(&tx)?;
    if base != start {
        return Err(CommitError::Behind(start));
    }
    let positions = write_plans(&tx, start, plans)?;
    finish(tx, start, positions.last().copied().unwrap_or(start), kept)?;
    Ok(positions)
}

fn finish(tx: Transaction<'_>, start: LogPosition, now: LogPosition, kept: u64) -> Result<(), StoreError> {
    if now != start {
        tx.prepare_cached("UPDATE meta SET revision = ?1, head = ?2 WHERE id = 1")?
            .execute((now.revision.0.cast_signed(), now.head.0))?;
        prune_changes(&tx, kept)?;
    }
    prune_records(&tx)?;
    tx.commit()?;
    Ok(())
}

fn write_plans(
    conn: &Connection,
    base: LogPosition,
    plans: &[Plan],
) -> Result<Vec<LogPosition>, CommitError> {
    let mut now = base;
    let mut positions = Vec::with_capacity(plans.len());
    let mut log = Log { conn, last: None };
    for plan in plans {
        check(plan)?;
        if !plan.is_empty() {
            now.revision = now.revision.next();
            now.head = write_plan(conn, plan, now)?;
        }
        for row in &plan.audit {
            log.append(now.revision, row)?;
        }
        positions.push(now);
    }
    Ok(positions)
}

/// The log must tell of every row touched, else those who follow it would miss rows.
fn check(plan: &Plan) -> Result<(), CommitError> {
    let refuse = |key: &RowKey, problem| Err(CommitError::Plan { key: key.clone(), problem });
    let puts: BTreeSet<RowKey> = plan.puts.iter().map(avouch_domain::Row::key).collect();
    let deletes: BTreeSet<RowKey> = plan.deletes.iter().cloned().collect();
    if let Some(key) = puts.intersection(&deletes).next() {
        return refuse(key, "is both put and deleted");
    }
    let mut told = BTreeSet::new();
    for change in &plan.changes {
        let touched = if change.deleted { &deletes } else { &puts };
        if !touched.contains(&change.key) {
            return refuse(&change.key, "has a change without the put or delete that it tells of");
        }
        told.insert(&change.key);
    }
    match puts.iter().chain(&deletes).find(|key| !told.contains(key)) {
        Some(key) => refuse(key, "is put or deleted without a change that tells of it"),
        None => Ok(()),
    }
}

fn write_plan(conn: &Connection, plan: &Plan, now: LogPosition) -> Result<Head, StoreError> {
    let mut contents = BTreeMap::new();
    for row in &plan.puts {
        contents.insert(row.key(), row::put(conn, row)?);
    }
    for key in &plan.deletes {
        if let RowKey::Request(id) = key {
            texts::forget(conn, id)?;
        }
        row::delete(conn, key)?;
    }
    if !plan.folders.is_empty() {
        plan.folders.iter().try_for_each(|folder| folders::keep(conn, folder))?;
        folders::prune(conn)?;
    }
    plan.texts.iter().try_for_each(|text| texts::keep(conn, text))?;
    let mut head = now.head;
    let mut insert = conn.prepare_cached(
        "INSERT INTO changes (revision, kind, key, deleted, parent_before, parent_after, content, head) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    for change in &plan.changes {
        let content = contents.get(&change.key);
        let change = Change { revision: now.revision, ..change.clone() };
        head = chain(head, &change, content);
        let (kind, key) = row::key_to_log(&change.key);
        insert.execute((
            now.revision.0.cast_signed(),
            kind,
            key,
            change.deleted,
            change.parent_before.as_ref().map(avouch_domain::SpiffeId::as_str),
            change.parent_after.as_ref().map(avouch_domain::SpiffeId::as_str),
            content,
            head.0,
        ))?;
    }
    Ok(head)
}

/// The next head: SHA-256 over the one before, the change, and the digest of the row it left. The row is in it so that
/// two histories which changed one key differently at one revision have two heads.
pub(crate) fn chain(before: Head, change: &Change, content: Option<&[u8; 32]>) -> Head {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&before.0);
    let mut part = |bytes: Option<&[u8]>| match bytes {
        None => context.update(&[0]),
        Some(bytes) => {
            context.update(&[1]);
            context.update(&(bytes.len() as u64).to_be_bytes());
            context.update(bytes);
        }
    };
    let (kind, key) = row::key_to_log(&change.key);
    part(Some(&change.revision.0.to_be_bytes()));
    part(Some(&kind.to_be_bytes()));
    part(Some(key.as_bytes()));
    part(Some(&[u8::from(change.deleted)]));
    part(change.parent_before.as_ref().map(|id| id.as_str().as_bytes()));
    part(change.parent_after.as_ref().map(|id| id.as_str().as_bytes()));
    part(content.map(<[u8; 32]>::as_slice));
    let mut head = [0; 32];
    head.copy_from_slice(context.finish().as_ref());
    Head(head)
}

/// The number and hash of the last record; those before the first if there is none.
pub(crate) fn last_record(conn: &Connection) -> Result<(u64, Hash), StoreError> {
    let last = conn
        .prepare_cached("SELECT seq, hash FROM records ORDER BY seq DESC LIMIT 1")?
        .query_row((), |r| Ok((r.get::<_, i64>(0)?.cast_unsigned(), r.get(1)?)))
        .optional()?;
    Ok(last.unwrap_or((0, FIRST_PREVIOUS)))
}

/// The end of the log while a transaction writes to it.
struct Log<'a> {
    conn: &'a Connection,
    /// Read at the first record.
    last: Option<(u64, Hash)>,
}

impl Log<'_> {
    fn append(&mut self, revision: Revision, row: &AuditRow) -> Result<(), StoreError> {
        let (last, previous) = match self.last {
            Some(last) => last,
            None => last_record(self.conn)?,
        };
        let seq = last + 1;
        let line = ledger::line_of(seq, &previous, revision, row)
            .map_err(|e| StoreError::Row { table: "records", problem: e.to_string() })?;
        let hash = ledger::hash_of(&line);
        self.conn.prepare_cached("INSERT INTO records (seq, line, hash) VALUES (?1, ?2, ?3)")?.execute((
            seq.cast_signed(),
            line,
            hash,
        ))?;
        self.last = Some((seq, hash));
        Ok(())
    }
}

/// Drops the oldest revisions, whole, while at least `kept` changes stay.
fn prune_changes(conn: &Connection, kept: u64) -> Result<(), StoreError> {
    let kept = i64::try_from(kept).unwrap_or(i64::MAX);
    let oldest_kept: Option<i64> = conn
        .prepare_cached("SELECT revision FROM changes WHERE seq = (SELECT max(seq) FROM changes) - ?1 + 1")?
        .query_row([kept.max(1)], |r| r.get(0))
        .optional()?;
    if let Some(revision) = oldest_kept {
        conn.prepare_cached("DELETE FROM changes WHERE revision < ?1")?.execute([revision])?;
    }
    Ok(())
}

fn prune_records(conn: &Connection) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM records WHERE seq <= (SELECT max(seq) FROM records) - ?1")?
        .execute([RECORDS_KEPT])?;
    Ok(())
}
