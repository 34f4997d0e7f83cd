//! Follows a log line by line and says where it first breaks.
//!
//! Never trusts an order or a number: each record must hold the hash of the one before, each head must name a record
//! that was read, and a key that the reader did not expect is refused.

use std::collections::{BTreeSet, VecDeque};

use avouch_domain::TrustDomain;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::head::HeadError;
use super::head::SignedHead;
use super::record::{FIRST_PREVIOUS, Hash, RecordError, hash_of, read_line};
use crate::limits::{HEAD_GAP_MAX, RECORD_MAX};

/// The first line of an exported log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// `avouch.records.v1`.
    pub log: String,
    pub trust_domain: String,
    /// Number of the first record that follows.
    pub from: u64,
}

/// The name of the form that this code writes and reads.
const FORM: &str = "avouch.records.v1";

#[derive(Serialize, Deserialize)]
struct HeadLine {
    head: HeadFields,
}

#[derive(Serialize, Deserialize)]
struct HeadFields {
    seq: u64,
    hash: String,
    /// Unix milliseconds.
    at: i64,
    key: String,
    signature: String,
}

/// Why a text is no exported log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    #[error("its first line is no header of a log: {0}")]
    Header(String),
    #[error("its form is \"{0}\", expected \"{FORM}\"")]
    Form(String),
    #[error("its trust domain: {0}")]
    TrustDomain(String),
}

/// Where a log breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("record {seq}: {problem}")]
    Record { seq: u64, problem: RecordError },
    #[error("record {expected} is missing: {found} follows")]
    Gap { expected: u64, found: u64 },
    #[error("record {before} was changed: record {seq} was written after another one")]
    Chain { before: u64, seq: u64 },
    #[error("the head of record {seq}: {problem}")]
    Head { seq: u64, problem: HeadError },
    #[error("a line after record {seq} is no head: {problem}")]
    HeadForm { seq: u64, problem: String },
    #[error("the head of record {seq} was signed over another record")]
    HeadHash { seq: u64 },
    #[error("the head of record {seq} stands after record {last}")]
    HeadPlace { seq: u64, last: u64 },
    #[error("the head of record {seq} is signed with a key that was not expected")]
    ForeignKey { seq: u64 },
    #[error("record {seq} and those after it are signed by no head")]
    Unsigned { seq: u64 },
}

/// What was found in a log that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub records: u64,
    pub first: Option<u64>,
    pub last: Option<u64>,
    /// The last record that a head vouches for.
    pub signed_to: Option<u64>,
    pub heads: u64,
    /// The keys of the heads (PKIX), ascending.
    pub keys: BTreeSet<Vec<u8>>,
}

/// Hashes of the last records, which a head may still name.
#[derive(Debug, Default)]
pub(super) struct Unsigned(VecDeque<Hash>);

impl Unsigned {
    pub(super) fn push(&mut self, hash: Hash) {
        if self.0.len() == HEAD_GAP_MAX {
            self.0.pop_front();
        }
        self.0.push_back(hash);
    }

    /// Finds the record that a head names; `last` is the newest. What it vouches for needs no other head.
    pub(super) fn name(&mut self, seq: u64, hash: &Hash, last: u64) -> Result<(), Broken> {
        // Counted from the newest: a head names the last record or one of those before it.
        let back = last.checked_sub(seq).and_then(|back| usize::try_from(back).ok());
        let place = back.and_then(|back| self.0.len().checked_sub(back.checked_add(1)?));
        let Some(place) = place else { return Err(Broken::HeadPlace { seq, last }) };
        if self.0.get(place) != Some(hash) {
            return Err(Broken::HeadHash { seq });
        }
        self.0.drain(..=place);
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub struct Verifier {
    domain: TrustDomain,
    expected_key: Option<Vec<u8>>,
    first: u64,
    next: u64,
    last_hash: Option<Hash>,
    unsigned: Unsigned,
    summary: Summary,
}

impl Header {
    #[must_use]
    pub fn new(domain: &TrustDomain, from: u64) -> Self {
        Self { log: FORM.to_owned(), trust_domain: domain.to_string(), from }
    }

    /// The line.
    #[must_use]
    pub fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl SignedHead {
    /// The line of an exported log.
    #[must_use]
    pub fn line(&self) -> String {
        let head = HeadFields {
            seq: self.seq,
            hash: hex::encode(self.hash),
            at: self.at.0,
            key: STANDARD.encode(&self.key),
            signature: STANDARD.encode(&self.signature),
        };
        serde_json::to_string(&HeadLine { head }).unwrap_or_default()
    }

    fn from_line(line: &str) -> Result<Self, String> {
        let HeadLine { head } = serde_json::from_str(line).map_err(|e| e.to_string())?;
        let mut hash = FIRST_PREVIOUS;
        hex::decode_to_slice(&head.hash, &mut hash).map_err(|e| e.to_string())?;
        Ok(Self {
            seq: head.seq,
            hash,
            at: avouch_domain::Timestamp(head.at),
            key: STANDARD.decode(&head.key).map_err(|e| e.to_string())?,
            signature: STANDARD.decode(&head.signature).map_err(|e| e.to_string())?,
        })
    }
}

impl Verifier {
    /// Begins with the first line. `expected_key` (PKIX): the only key that may have signed.
    ///
    /// # Errors
    /// [`BeginError`].
    pub fn begin(line: &str, expected_key: Option<Vec<u8>>) -> Result<Self, BeginError> {
        let header: Header = serde_json::from_str(line).map_err(|e| BeginError::Header(e.to_string()))?;
        if header.log != FORM {
            return Err(BeginError::Form(header.log.chars().take(64).collect()));
        }
        let domain =
            TrustDomain::new(&header.trust_domain).map_err(|e| BeginError::TrustDomain(e.to_string()))?;
        let summary =
            Summary { records: 0, first: None, last: None, signed_to: None, heads: 0, keys: BTreeSet::new() };
        Ok(Self {
            domain,
            expected_key,
            first: header.from,
            next: header.from,
            last_hash: None,
            unsigned: Unsigned::default(),
            summary,
        })
    }

    pub(super) fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Takes in the next line.
    ///
    /// # Errors
    /// [`Broken`]: what comes after it proves nothing.
    pub fn line(&mut self, line: &str) -> Result<(), Broken> {
        if line.starts_with("{\"head\"") { self.head(line) } else { self.record(line) }
    }

    fn record(&mut self, line: &str) -> Result<(), Broken> {
        let seq = self.next;
        let record = read_line(line).map_err(|problem| Broken::Record { seq, problem })?;
        if record.seq != seq {
            return Err(Broken::Gap { expected: seq, found: record.seq });
        }
        // The first record of all follows on nothing; of a log whose beginning was pruned, it is taken as given.
        let previous = if seq == 1 { Some(FIRST_PREVIOUS) } else { self.last_hash };
        if previous.is_some_and(|previous| previous != record.previous) {
            return Err(Broken::Chain { before: seq.saturating_sub(1), seq });
        }
        let hash = hash_of(line);
        self.last_hash = Some(hash);
        self.unsigned.push(hash);
        self.next = seq.saturating_add(1);
        self.summary.records += 1;
        self.summary.first = Some(self.first);
        self.summary.last = Some(seq);
        Ok(())
    }

    fn head(&mut self, line: &str) -> Result<(), Broken> {
        let last = self.next.saturating_sub(1);
        if line.len() > RECORD_MAX {
            return Err(Broken::HeadForm { seq: last, problem: "it is too long".into() });
        }
        let head = SignedHead::from_line(line).map_err(|problem| Broken::HeadForm { seq: last, problem })?;
        let seq = head.seq;
        self.unsigned.name(seq, &head.hash, last)?;
        head.check(&self.domain).map_err(|e| Broken::Head { seq, problem: e.into() })?;
        if self.expected_key.as_ref().is_some_and(|key| *key != head.key) {
            return Err(Broken::ForeignKey { seq });
        }
        self.summary.signed_to = Some(seq);
        self.summary.heads += 1;
        self.summary.keys.insert(head.key);
        Ok(())
    }

    /// What the lines so far amount to.
    #[must_use]
    pub fn finish(self) -> Summary {
        self.summary
    }
}
