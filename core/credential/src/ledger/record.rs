//! One record: its line and its hash.
//!
//! Never changes the form of a line: lines that are written once are hashed for ever. A new form is a new `v`.

use avouch_domain::{AuditRow, Revision, Timestamp};
use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::limits::RECORD_MAX;

/// SHA-256 of a record.
pub type Hash = [u8; 32];

/// What stands in the place of the hash before the first record.
pub const FIRST_PREVIOUS: Hash = [0; 32];

/// The form of lines that this code writes.
const VERSION: u32 = 1;

/// RFC 3339 with milliseconds: one length, so that lines sort.
const TIME: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// A record that was read from its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// From 1, without gaps.
    pub seq: u64,
    /// Hash of the record before.
    pub previous: Hash,
    pub at: String,
    /// Revision of the change it tells of.
    pub revision: u64,
    /// Stable name of what happened.
    pub event: String,
    /// Who did it.
    pub actor: String,
    /// To what.
    pub subject: String,
    /// What else there is to say, by stable names.
    pub detail: Map<String, Value>,
}

/// Why a text is no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("it has {0} bytes, expected at most {RECORD_MAX}")]
    TooLong(usize),
    #[error("it is no record: {0}")]
    Form(String),
    #[error("its form is {0}: a newer avouch can read it, or it stands in the wrong place")]
    Version(u32),
    #[error("it is a record of {0}")]
    Foreign(String),
    #[error("its `prev` is no hash of 64 hex digits")]
    Previous,
}

#[derive(Serialize)]
struct Written<'a> {
    v: u32,
    seq: u64,
    prev: &'a str,
    at: &'a str,
    revision: u64,
    event: &'a str,
    actor: &'a str,
    subject: &'a str,
    detail: Detail<'a>,
}

/// Written as an object, in the order given.
pub(super) struct Detail<'a>(pub(super) &'a [(&'static str, String)]);

impl Serialize for Detail<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

#[derive(Deserialize)]
struct Read {
    v: u32,
    seq: u64,
    prev: String,
    at: String,
    revision: u64,
    event: String,
    actor: String,
    subject: String,
    detail: Map<String, Value>,
}

/// The line of a record, without a line break.
///
/// # Errors
/// [`RecordError::TooLong`], or a time that no calendar has.
pub fn line_of(seq: u64, previous: &Hash, revision: Revision, row: &AuditRow) -> Result<String, RecordError> {
    let written = Written {
        v: VERSION,
        seq,
        prev: &hex::encode(previous),
        at: &time_text(row.at)?,
        revision: revision.0,
        event: row.event.name(),
        actor: &row.actor,
        subject: &row.subject,
        detail: Detail(&row.detail),
    };
    let line = serde_json::to_string(&written).map_err(|e| RecordError::Form(e.to_string()))?;
    if line.len() > RECORD_MAX { Err(RecordError::TooLong(line.len())) } else { Ok(line) }
}

pub(super) fn time_text(at: Timestamp) -> Result<String, RecordError> {
    let nanos = i128::from(at.0) * 1_000_000;
    let moment =
        OffsetDateTime::from_unix_timestamp_nanos(nanos).map_err(|e| RecordError::Form(e.to_string()))?;
    moment.format(TIME).map_err(|e| RecordError::Form(e.to_string()))
}

/// Reads a line.
///
/// # Errors
/// [`RecordError`].
pub fn read_line(line: &str) -> Result<Record, RecordError> {
    if line.len() > RECORD_MAX {
        return Err(RecordError::TooLong(line.len()));
    }
    let object = crate::json::object(line.as_bytes()).map_err(|e| RecordError::Form(e.to_string()))?;
    let read = Read::deserialize(Value::Object(object)).map_err(|e| RecordError::Form(e.to_string()))?;
    if read.v != VERSION {
        return Err(RecordError::Version(read.v));
    }
    let mut previous = FIRST_PREVIOUS;
    hex::decode_to_slice(&read.prev, &mut previous).map_err(|_| RecordError::Previous)?;
    let Read { seq, at, revision, event, actor, subject, detail, .. } = read;
    Ok(Record { seq, previous, at, revision, event, actor, subject, detail })
}

/// The hash of a line (RFC 6962 2.1: SHA-256 over a zero byte and the leaf).
#[must_use]
pub fn hash_of(line: &str) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&[0]);
    context.update(line.as_bytes());
    let mut out = FIRST_PREVIOUS;
    out.copy_from_slice(context.finish().as_ref());
    out
}
