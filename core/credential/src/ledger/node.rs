//! Records of node agents: their lines, how each is bound to the one before, and their signed heads.
//!
//! A line names its node and its chain, so that no record can be passed off as another node's. Never changes the form of a
//! line: lines that are written once are hashed for ever. Lines of the server have form 1, these have form 2.

use std::borrow::Cow;
use std::fmt;

use avouch_domain::{KeptHead, NodeChain, NodeHead, Note, Receipt, Stand, Timestamp};
use aws_lc_rs::digest::{SHA256, digest};
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::head::{HeadError, check_signature};
use super::record::{Detail, FIRST_PREVIOUS, Hash, RecordError, hash_of, time_text};
use super::verify::Broken;
use crate::limits::{RECORD_DETAILS_MAX, RECORD_MAX};
use crate::signer::{SignError, Signer};
use crate::x509::facts::CertFacts;

/// The form of lines that this code writes and reads.
const VERSION: u32 = 2;

#[derive(Serialize)]
struct Written<'a> {
    v: u32,
    source: &'a str,
    chain: &'a str,
    seq: u64,
    prev: &'a str,
    at: &'a str,
    event: &'a str,
    actor: &'a str,
    subject: &'a str,
    detail: Detail<'a>,
}

/// A record of a node, read from its line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeRecord<'a> {
    v: u32,
    /// SPIFFE ID of the node.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    #[serde(borrow)]
    pub chain: Cow<'a, str>,
    /// From 1, without gaps.
    pub seq: u64,
    /// Hash of the record before, as it is written.
    #[serde(borrow)]
    pub prev: Cow<'a, str>,
    #[serde(borrow)]
    pub at: Cow<'a, str>,
    /// Stable name of what happened.
    #[serde(borrow)]
    pub event: Cow<'a, str>,
    #[serde(borrow)]
    pub actor: Cow<'a, str>,
    #[serde(borrow)]
    pub subject: Cow<'a, str>,
    #[serde(borrow)]
    detail: Details<'a>,
}

impl NodeRecord<'_> {
    /// What else there is to say, in the order of the line.
    pub fn details(&self) -> impl Iterator<Item = (&str, &str)> {
        self.detail.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Hash of the record before.
    ///
    /// # Errors
    /// [`RecordError::Previous`].
    pub fn previous(&self) -> Result<Hash, RecordError> {
        let mut previous = FIRST_PREVIOUS;
        hex::decode_to_slice(self.prev.as_bytes(), &mut previous).map_err(|_| RecordError::Previous)?;
        Ok(previous)
    }
}

/// Names and values; no name stands twice.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Details<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// A text that is borrowed where the line has it as it is.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Details<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DetailsVisitor).map(Self)
    }
}

struct DetailsVisitor;

impl<'de> Visitor<'de> for DetailsVisitor {
    type Value = Vec<(Cow<'de, str>, Cow<'de, str>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut details: Self::Value = Vec::new();
        while let Some((Text(name), Text(value))) = access.next_entry()? {
            if details.len() == RECORD_DETAILS_MAX {
                return Err(A::Error::custom(format_args!("more than {RECORD_DETAILS_MAX} details")));
            }
            if details.iter().any(|(other, _)| *other == name) {
                return Err(A::Error::custom(format_args!("member {name:?} stands twice")));
            }
            details.push((name, value));
        }
        Ok(details)
    }
}

/// The line of a record, without a line break.
///
/// # Errors
/// [`RecordError::TooLong`], too many details, or a time that no calendar has.
pub fn node_line(
    chain: &NodeChain,
    before: &Stand,
    at: Timestamp,
    note: &Note,
) -> Result<String, RecordError> {
    if note.detail.len() > RECORD_DETAILS_MAX {
        return Err(RecordError::Form(format!("it has {} details", note.detail.len())));
    }
    let written = Written {
        v: VERSION,
        source: chain.source.as_str(),
        chain: &chain.id.to_string(),
        seq: before.seq.saturating_add(1),
        prev: &hex::encode(before.hash),
        at: &time_text(at)?,
        event: note.event.name(),
        actor: &note.actor,
        subject: &note.subject,
        detail: Detail(&note.detail),
    };
    let line = serde_json::to_string(&written).map_err(|e| RecordError::Form(e.to_string()))?;
    if line.len() > RECORD_MAX { Err(RecordError::TooLong(line.len())) } else { Ok(line) }
}

/// Reads a line of a node.
///
/// # Errors
/// [`RecordError`].
pub fn read_node_line(line: &str) -> Result<NodeRecord<'_>, RecordError> {
    if line.len() > RECORD_MAX {
        return Err(RecordError::TooLong(line.len()));
    }
    let record: NodeRecord<'_> = serde_json::from_str(line).map_err(|e| RecordError::Form(e.to_string()))?;
    if record.v == VERSION { Ok(record) } else { Err(RecordError::Version(record.v)) }
}

/// Follows a chain line by line.
#[derive(Clone, Debug)]
pub struct ChainReader {
    chain: NodeChain,
    id: String,
    next: u64,
    /// `None`: the first line is taken as given.
    previous: Option<Hash>,
}

impl ChainReader {
    /// Goes on after a record that is known.
    #[must_use]
    pub fn after(chain: NodeChain, stand: Stand) -> Self {
        let id = chain.id.to_string();
        Self { chain, id, next: stand.seq.saturating_add(1), previous: Some(stand.hash) }
    }

    /// Begins with a record; what it holds of the one before is taken as given, unless it is the first of all.
    #[must_use]
    pub fn from(chain: NodeChain, first: u64) -> Self {
        let id = chain.id.to_string();
        Self { chain, id, next: first, previous: (first == 1).then_some(FIRST_PREVIOUS) }
    }

    /// Takes in the next line and gives the hash of the record before it and its own.
    ///
    /// # Errors
    /// [`Broken`]: what comes after it proves nothing.
    pub fn line(&mut self, line: &str) -> Result<(Hash, Hash), Broken> {
        let seq = self.next;
        let broken = |problem| Broken::Record { seq, problem };
        let record = read_node_line(line).map_err(broken)?;
        if record.source != self.chain.source.as_str() || record.chain != self.id {
            let found = format!("{} (chain {})", record.source, record.chain);
            return Err(broken(RecordError::Foreign(found.chars().take(256).collect())));
        }
        if record.seq != seq {
            return Err(Broken::Gap { expected: seq, found: record.seq });
        }
        let before = record.previous().map_err(broken)?;
        if self.previous.is_some_and(|previous| previous != before) {
            return Err(Broken::Chain { before: seq.saturating_sub(1), seq });
        }
        let hash = hash_of(line);
        self.previous = Some(hash);
        self.next = seq.saturating_add(1);
        Ok((before, hash))
    }

    /// The last record that was taken in, if any.
    #[must_use]
    pub fn stand(&self) -> Option<Stand> {
        self.previous.map(|hash| Stand { seq: self.next.saturating_sub(1), hash })
    }

    /// Number of the record that is expected next.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    #[must_use]
    pub fn chain(&self) -> &NodeChain {
        &self.chain
    }
}

/// The bytes that are signed: lines of text, so that nothing can be read in two ways.
fn statement(chain: &NodeChain, stand: &Stand, at: Timestamp) -> String {
    let (source, id, seq, hash) = (&chain.source, chain.id, stand.seq, hex::encode(stand.hash));
    format!("avouch node head v1\n{source}\n{id}\n{seq}\n{hash}\n{}\n", at.0)
}

/// Signs a head with the key of the agent's SVID, whose certificate goes with it.
///
/// # Errors
/// [`SignError`] if the key can't be used.
pub fn sign_node_head(
    chain: &NodeChain,
    stand: Stand,
    at: Timestamp,
    certificate: &[u8],
    signer: &dyn Signer,
) -> Result<NodeHead, SignError> {
    let signature = signer.sign(statement(chain, &stand, at).as_bytes())?;
    Ok(NodeHead { stand, at, certificate: certificate.to_vec(), signature })
}

/// Checks that the certificate names the node and that its key signed. Who signed the certificate is the server's to
/// know: it takes a head only over a connection that this certificate opened.
///
/// # Errors
/// [`HeadError`].
pub fn check_node_head(chain: &NodeChain, head: &NodeHead) -> Result<(), HeadError> {
    let unreadable = |e: &dyn fmt::Display| HeadError::Certificate(e.to_string());
    let facts = CertFacts::parse(&head.certificate).map_err(|e| unreadable(&e))?;
    let id = facts.spiffe_id().map_err(|e| unreadable(&e))?;
    if id != chain.source {
        return Err(HeadError::Certificate(format!("it names {id}, expected {}", chain.source)));
    }
    let signed = statement(chain, &head.stand, head.at);
    check_signature(&facts.public_key_pkix, &signed, &head.signature)
}

/// The bytes of a receipt.
fn receipt_statement(chain: &NodeChain, head: &NodeHead) -> String {
    let certificate = hex::encode(digest(&SHA256, &head.certificate));
    format!("avouch node receipt v1\n{certificate}\n{}", statement(chain, &head.stand, head.at))
}

/// Signs with the server's key that this head came with this certificate.
///
/// # Errors
/// [`SignError`] if the key can't be used.
pub fn sign_receipt(chain: &NodeChain, head: &NodeHead, signer: &dyn Signer) -> Result<Receipt, SignError> {
    let signature = signer.sign(receipt_statement(chain, head).as_bytes())?;
    Ok(Receipt { key: signer.public_key().pkix().to_vec(), signature })
}

/// Checks a head as the server keeps it, the node's signature and the server's; whether the key that comes along is the
/// server's is the reader's to know.
///
/// # Errors
/// [`HeadError`].
pub fn check_kept_head(chain: &NodeChain, kept: &KeptHead) -> Result<(), HeadError> {
    check_node_head(chain, &kept.head)?;
    check_signature(&kept.receipt.key, &receipt_statement(chain, &kept.head), &kept.receipt.signature)
        .map_err(|e| HeadError::Receipt(Box::new(e)))
}
