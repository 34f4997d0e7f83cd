//! Records that nodes send: kept as they came, one chain after the other.
//!
//! Never changes a line that is kept, and never keeps one that does not go on where its chain stands. Whether lines are a
//! chain, and who signed, was checked before.

use avouch_domain::{KeptHead, NodeHead, Receipt, SpiffeId, Stand, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row as Columns, TransactionBehavior};

use crate::error::StoreError;
use crate::limits::{
    CHAIN_PAGE_MAX, CHAINS_PER_DAY, FINDINGS_PER_CHAIN, NODE_HEADS_KEPT, NODE_RECORDS_KEPT, RECORD_PAGE_MAX,
};
use crate::records::StoredRecord;
use crate::uses;

/// A stretch of one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeBatch {
    pub source: SpiffeId,
    pub chain: String,
    /// What the first line holds of the one before.
    pub before: Stand,
    /// Ascending without gaps.
    pub records: Vec<StoredRecord>,
    /// Over the last line.
    pub head: KeptHead,
    /// What is missing before the first line is lost.
    pub gap: bool,
    /// Identities that the records tell are used; `None`: they say nothing of use.
    pub used: Option<Vec<SpiffeId>>,
    pub at: Timestamp,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// All of it is on disk.
    Yes {
        stand: Stand,
        /// It is the first of its chain.
        began: bool,
        /// Where the chain stood before a gap that was accepted.
        gap_after: Option<u64>,
    },
    /// It does not go on where the chain stands.
    Gap { stand: Stand },
    /// Another record is kept under this number.
    Conflict { seq: u64, stand: Stand },
    /// The node began too many chains, or told of too many gaps.
    TooMany,
}

/// A chain as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredChain {
    pub number: u64,
    pub source: String,
    pub chain: String,
    /// The first record that is kept; 0: none.
    pub first: u64,
    pub last: u64,
    pub began_at: Timestamp,
}

/// A stretch of a node's chain and the heads that name a record of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStretch {
    /// Ascending.
    pub records: Vec<StoredRecord>,
    /// Ascending.
    pub heads: Vec<KeptHead>,
}

/// A chain while it is written to.
struct Chain {
    number: i64,
    stand: Stand,
    findings: i64,
    began: bool,
}

fn sql(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn find(conn: &Connection, source: &SpiffeId, chain: &str) -> Result<Option<Chain>, StoreError> {
    let found = conn
        .prepare_cached(
            "SELECT number, seq, hash, findings FROM node_chains WHERE source = ?1 AND chain = ?2",
        )?
        .query_row((source.as_str(), chain), |r| {
            let stand = Stand { seq: r.get::<_, i64>(1)?.cast_unsigned(), hash: r.get(2)? };
            Ok(Chain { number: r.get(0)?, stand, findings: r.get(3)?, began: false })
        })
        .optional()?;
    Ok(found)
}

/// Where a chain stands; before its first record if it is not known.
pub(crate) fn stand(conn: &Connection, source: &SpiffeId, chain: &str) -> Result<Stand, StoreError> {
    Ok(find(conn, source, chain)?.map(|chain| chain.stand).unwrap_or_default())
}

/// Keeps batches in one transaction: each of them as a whole or not at all.
pub(crate) fn keep(conn: &mut Connection, batches: &[NodeBatch]) -> Result<Vec<Kept>, StoreError> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let kept = batches.iter().map(|batch| keep_one(&tx, batch)).collect::<Result<_, _>>()?;
    tx.commit()?;
    Ok(kept)
}

/// Counts a gap or a conflict of a chain; false if there were so many that the log tells of no more.
pub(crate) fn count_finding(conn: &Connection, source: &SpiffeId, chain: &str) -> Result<bool, StoreError> {
    let changed = conn
        .prepare_cached(
            "UPDATE node_chains SET findings = findings + 1 WHERE source = ?1 AND chain = ?2 AND findings < ?3",
        )?
        .execute((source.as_str(), chain, FINDINGS_PER_CHAIN))?;
    Ok(changed > 0)
}

fn keep_one(conn: &Connection, batch: &NodeBatch) -> Result<Kept, StoreError> {
    let (Some(first), Some(last)) = (batch.records.first(), batch.records.last()) else {
        return Ok(Kept::Gap { stand: stand(conn, &batch.source, &batch.chain)? });
    };
    let chain = match find(conn, &batch.source, &batch.chain)? {
        Some(chain) => chain,
        None if begun_lately(conn, batch)? >= CHAINS_PER_DAY => return Ok(Kept::TooMany),
        None if first.seq != 1 && !batch.gap => return Ok(Kept::Gap { stand: Stand::default() }),
        None => begin(conn, batch)?,
    };
    let known = chain.stand;
    if let Some(seq) = conflict(conn, &chain, batch)? {
        return Ok(Kept::Conflict { seq, stand: known });
    }
    let gap_after = (first.seq > known.seq.saturating_add(1)).then_some(known.seq);
    if gap_after.is_some() && !batch.gap {
        return Ok(Kept::Gap { stand: known });
    }
    if gap_after.is_some() && chain.findings >= FINDINGS_PER_CHAIN {
        return Ok(Kept::TooMany);
    }
    if last.seq <= known.seq {
        return Ok(Kept::Yes { stand: known, began: false, gap_after: None });
    }
    insert(conn, &chain, batch)?;
    if let Some(used) = &batch.used {
        uses::keep(conn, &batch.source, used, batch.at)?;
    }
    Ok(Kept::Yes { stand: batch.head.head.stand, began: chain.began, gap_after })
}

/// Chains that the node began within a day.
fn begun_lately(conn: &Connection, batch: &NodeBatch) -> Result<u32, StoreError> {
    let since = batch.at.0.saturating_sub(24 * 3600 * 1000);
    let count = conn
        .prepare_cached("SELECT count(*) FROM node_chains WHERE source = ?1 AND began_at > ?2")?
        .query_row((batch.source.as_str(), since), |r| r.get(0))?;
    Ok(count)
}

fn begin(conn: &Connection, batch: &NodeBatch) -> Result<Chain, StoreError> {
    let stand = Stand::default();
    conn.prepare_cached(
        "INSERT INTO node_chains (source, chain, seq, hash, began_at, findings) VALUES (?1, ?2, 0, ?3, ?4, 0)",
    )?
    .execute((batch.source.as_str(), &batch.chain, stand.hash, batch.at.0))?;
    Ok(Chain { number: conn.last_insert_rowid(), stand, findings: 0, began: true })
}

/// The first number under which another record is kept.
fn conflict(conn: &Connection, chain: &Chain, batch: &NodeBatch) -> Result<Option<u64>, StoreError> {
    let known = chain.stand;
    let mut kept = conn.prepare_cached("SELECT line FROM node_records WHERE number = ?1 AND seq = ?2")?;
    for record in batch.records.iter().take_while(|record| record.seq <= known.seq) {
        let line: Option<String> =
            kept.query_row((chain.number, sql(record.seq)), |r| r.get(0)).optional()?;
        // What was pruned can't be compared.
        if line.is_some_and(|line| line != record.line) {
            return Ok(Some(record.seq));
        }
    }
    let goes_on = batch.before.seq == known.seq && batch.before.hash != known.hash;
    Ok(goes_on.then_some(known.seq))
}

fn insert(conn: &Connection, chain: &Chain, batch: &NodeBatch) -> Result<(), StoreError> {
    let mut put = conn.prepare_cached("INSERT INTO node_records (number, seq, line) VALUES (?1, ?2, ?3)")?;
    for record in batch.records.iter().filter(|record| record.seq > chain.stand.seq) {
        put.execute((chain.number, sql(record.seq), &record.line))?;
    }
    let KeptHead { head, receipt } = &batch.head;
    let seq = sql(head.stand.seq);
    conn.prepare_cached(
        "INSERT INTO node_heads (number, seq, hash, at, certificate, signature, key, receipt) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute((
        chain.number,
        seq,
        head.stand.hash,
        head.at.0,
        &head.certificate,
        &head.signature,
        &receipt.key,
        &receipt.signature,
    ))?;
    conn.prepare_cached("UPDATE node_chains SET seq = ?2, hash = ?3 WHERE number = ?1")?.execute((
        chain.number,
        seq,
        head.stand.hash,
    ))?;
    prune(conn, chain.number, seq)
}

/// A node that writes without end loses its own oldest records, nobody else's.
fn prune(conn: &Connection, number: i64, last: i64) -> Result<(), StoreError> {
    conn.prepare_cached("DELETE FROM node_records WHERE number = ?1 AND seq <= ?2")?
        .execute((number, last - NODE_RECORDS_KEPT))?;
    conn.prepare_cached(
        "DELETE FROM node_heads WHERE number = ?1 AND seq < \
         (SELECT seq FROM node_heads WHERE number = ?1 ORDER BY seq DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute((number, NODE_HEADS_KEPT))?;
    Ok(())
}

/// Chains after a number, all or those of one node.
pub(crate) fn chains(
    conn: &Connection,
    source: Option<&SpiffeId>,
    after: u64,
) -> Result<Vec<StoredChain>, StoreError> {
    let source = source.map(SpiffeId::as_str);
    let mut statement = conn.prepare_cached(
        "SELECT number, source, chain, seq, began_at, \
         coalesce((SELECT min(seq) FROM node_records r WHERE r.number = c.number), 0) \
         FROM node_chains c WHERE number > ?1 AND (?2 IS NULL OR source = ?2) ORDER BY number LIMIT ?3",
    )?;
    let rows = statement.query_map((sql(after), source, CHAIN_PAGE_MAX), |r| {
        Ok(StoredChain {
            number: r.get::<_, i64>(0)?.cast_unsigned(),
            source: r.get(1)?,
            chain: r.get(2)?,
            last: r.get::<_, i64>(3)?.cast_unsigned(),
            began_at: Timestamp(r.get(4)?),
            first: r.get::<_, i64>(5)?.cast_unsigned(),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Records of a chain after a number, oldest first.
pub(crate) fn read(
    conn: &Connection,
    number: u64,
    after: u64,
    limit: usize,
) -> Result<NodeStretch, StoreError> {
    // One snapshot for both tables; no other transaction is open between two jobs of a connection.
    let tx = conn.unchecked_transaction()?;
    let (number, after) = (sql(number), sql(after));
    let limit = i64::try_from(limit.min(RECORD_PAGE_MAX)).unwrap_or(i64::MAX);
    let records: Vec<StoredRecord> = tx
        .prepare_cached(
            "SELECT seq, line FROM node_records WHERE number = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
        )?
        .query_map([number, after, limit], |r| {
            Ok(StoredRecord { seq: r.get::<_, i64>(0)?.cast_unsigned(), line: r.get(1)? })
        })?
        .collect::<Result<_, _>>()?;
    let last = records.last().map_or(after, |record| sql(record.seq));
    let heads = tx
        .prepare_cached(
            "SELECT seq, hash, at, certificate, signature, key, receipt FROM node_heads \
             WHERE number = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq",
        )?
        .query_map([number, after, last], read_head)?
        .collect::<Result<_, _>>()?;
    tx.commit()?;
    Ok(NodeStretch { records, heads })
}

fn read_head(columns: &Columns<'_>) -> rusqlite::Result<KeptHead> {
    let head = NodeHead {
        stand: Stand { seq: columns.get::<_, i64>(0)?.cast_unsigned(), hash: columns.get(1)? },
        at: Timestamp(columns.get(2)?),
        certificate: columns.get(3)?,
        signature: columns.get(4)?,
    };
    Ok(KeptHead { head, receipt: Receipt { key: columns.get(5)?, signature: columns.get(6)? } })
}
