//! A whole exported log: the server's records and those of the nodes, one section after the other.
//!
//! Never takes a chain twice: a shorter twin behind the whole one would hide what was cut off. Names the source and the
//! number of the first record that does not hold.

use std::collections::BTreeSet;

use avouch_domain::{
    ChainId, KeptHead, NodeChain, NodeHead, Receipt, SpiffeId, Stand, Timestamp, TrustDomain,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::node::{ChainReader, check_kept_head};
use super::record::FIRST_PREVIOUS;
use super::verify::{BeginError, Broken, Summary, Unsigned, Verifier};
use crate::limits::{CHAINS_MAX, RECORD_MAX};

/// How every section begins.
const SECTION: &str = "{\"log\":";
/// How the head of a node begins.
const HEAD: &str = "{\"node_head\":";
/// How a node's section begins.
const NODE_SECTION: &str = "{\"log\":\"avouch.node-records.v1\"";
/// The name of the form of a node's section.
const FORM: &str = "avouch.node-records.v1";

/// The first line of a node's section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHeader {
    /// `avouch.node-records.v1`.
    pub log: String,
    pub source: String,
    pub chain: String,
    /// Number of the first record that follows.
    pub from: u64,
}

impl NodeHeader {
    #[must_use]
    pub fn new(chain: &NodeChain, from: u64) -> Self {
        let (source, chain) = (chain.source.to_string(), chain.id.to_string());
        Self { log: FORM.to_owned(), source, chain, from }
    }

    /// The line.
    #[must_use]
    pub fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    fn chain(&self) -> Result<NodeChain, String> {
        let source = SpiffeId::parse(&self.source).map_err(|e| format!("source: {e}"))?;
        let id = ChainId::from_text(&self.chain).ok_or("chain: expected 16 hexadecimal digits")?;
        Ok(NodeChain { source, id })
    }
}

#[derive(Serialize, Deserialize)]
struct HeadLine {
    node_head: HeadFields,
}

#[derive(Serialize, Deserialize)]
struct HeadFields {
    seq: u64,
    hash: String,
    /// Unix milliseconds.
    at: i64,
    /// Base64 of the DER.
    certificate: String,
    signature: String,
    /// The server's key and signature.
    receipt_key: String,
    receipt: String,
}

/// The line of a node's head.
#[must_use]
pub fn head_line(kept: &KeptHead) -> String {
    let KeptHead { head, receipt } = kept;
    let node_head = HeadFields {
        seq: head.stand.seq,
        hash: hex::encode(head.stand.hash),
        at: head.at.0,
        certificate: STANDARD.encode(&head.certificate),
        signature: STANDARD.encode(&head.signature),
        receipt_key: STANDARD.encode(&receipt.key),
        receipt: STANDARD.encode(&receipt.signature),
    };
    serde_json::to_string(&HeadLine { node_head }).unwrap_or_default()
}

fn read_head(line: &str) -> Result<KeptHead, String> {
    let HeadLine { node_head: head } = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let mut hash = FIRST_PREVIOUS;
    hex::decode_to_slice(&head.hash, &mut hash).map_err(|e| e.to_string())?;
    let bytes = |text: &str| STANDARD.decode(text).map_err(|e| e.to_string());
    Ok(KeptHead {
        head: NodeHead {
            stand: Stand { seq: head.seq, hash },
            at: Timestamp(head.at),
            certificate: bytes(&head.certificate)?,
            signature: bytes(&head.signature)?,
        },
        receipt: Receipt { key: bytes(&head.receipt_key)?, signature: bytes(&head.receipt)? },
    })
}

/// Why a log does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// It is no exported log.
    #[error("{0}")]
    Begin(BeginError),
    /// In the server's own records.
    #[error("{0}")]
    Server(Broken),
    #[error("{chain}: {problem}")]
    Node { chain: NodeChain, problem: Broken },
    #[error("{0} stands twice")]
    Twice(String),
    #[error("it is of trust domain {found}, the server's is {expected}")]
    TrustDomain { found: TrustDomain, expected: TrustDomain },
    #[error("it has more than {CHAINS_MAX} chains")]
    TooMany,
}

/// What was found in a node's chain that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSummary {
    pub chain: NodeChain,
    pub records: u64,
    pub first: Option<u64>,
    pub last: Option<u64>,
    pub heads: u64,
}

/// What was found in a log that holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSummary {
    /// `None`: the server's records are not in it.
    pub server: Option<Summary>,
    /// In the order of the log.
    pub nodes: Vec<ChainSummary>,
}

/// A node's section under examination.
#[derive(Debug)]
struct Section {
    reader: ChainReader,
    first: u64,
    unsigned: Unsigned,
    signed_to: Option<u64>,
    heads: u64,
}

#[derive(Debug)]
enum Current {
    Nothing,
    Server(Box<Verifier>),
    Node(Box<Section>),
}

/// See the module.
#[derive(Debug)]
pub struct Log {
    expected_key: Option<Vec<u8>>,
    domain: Option<TrustDomain>,
    current: Current,
    seen: BTreeSet<NodeChain>,
    summary: LogSummary,
}

impl Log {
    /// `expected_key` (PKIX): the only key that may have signed the server's heads and receipts.
    #[must_use]
    pub fn new(expected_key: Option<Vec<u8>>) -> Self {
        let (current, seen) = (Current::Nothing, BTreeSet::new());
        Self { expected_key, domain: None, current, seen, summary: LogSummary::default() }
    }

    /// Takes in the next line.
    ///
    /// # Errors
    /// [`LogError`]: what comes after it proves nothing.
    pub fn line(&mut self, line: &str) -> Result<(), LogError> {
        if line.starts_with(SECTION) {
            self.close()?;
            return self.begin(line);
        }
        match &mut self.current {
            Current::Server(verifier) => verifier.line(line).map_err(LogError::Server),
            Current::Node(section) => {
                section.line(line, self.expected_key.as_deref()).map_err(|problem| section.broken(problem))
            }
            Current::Nothing => {
                Err(LogError::Begin(BeginError::Header("it begins with something else".into())))
            }
        }
    }

    /// What the lines so far amount to.
    ///
    /// # Errors
    /// [`LogError`] if the last section does not end as it must.
    pub fn finish(mut self) -> Result<LogSummary, LogError> {
        self.close()?;
        Ok(self.summary)
    }

    fn begin(&mut self, line: &str) -> Result<(), LogError> {
        if line.len() > RECORD_MAX {
            return Err(LogError::Begin(BeginError::Header("it is too long".into())));
        }
        if !line.starts_with(NODE_SECTION) {
            if self.summary.server.is_some() {
                return Err(LogError::Twice("the server's log".into()));
            }
            let verifier = Verifier::begin(line, self.expected_key.clone()).map_err(LogError::Begin)?;
            self.same_domain(verifier.domain().clone())?;
            self.current = Current::Server(Box::new(verifier));
            return Ok(());
        }
        let header: NodeHeader =
            serde_json::from_str(line).map_err(|e| LogError::Begin(BeginError::Header(e.to_string())))?;
        if header.log != FORM {
            return Err(LogError::Begin(BeginError::Form(header.log.chars().take(64).collect())));
        }
        let chain = header.chain().map_err(|e| LogError::Begin(BeginError::Header(e)))?;
        self.same_domain(chain.source.trust_domain().clone())?;
        if self.seen.len() == CHAINS_MAX {
            return Err(LogError::TooMany);
        }
        if !self.seen.insert(chain.clone()) {
            return Err(LogError::Twice(chain.to_string()));
        }
        let first = header.from.max(1);
        self.current = Current::Node(Box::new(Section {
            reader: ChainReader::from(chain, first),
            first,
            unsigned: Unsigned::default(),
            signed_to: None,
            heads: 0,
        }));
        Ok(())
    }

    /// All sections are of one trust domain.
    fn same_domain(&mut self, found: TrustDomain) -> Result<(), LogError> {
        match &self.domain {
            Some(expected) if *expected != found => {
                Err(LogError::TrustDomain { found, expected: expected.clone() })
            }
            Some(_) => Ok(()),
            None => {
                self.domain = Some(found);
                Ok(())
            }
        }
    }

    fn close(&mut self) -> Result<(), LogError> {
        match std::mem::replace(&mut self.current, Current::Nothing) {
            Current::Nothing => {}
            Current::Server(verifier) => self.summary.server = Some(verifier.finish()),
            Current::Node(section) => self.summary.nodes.push(section.finish()?),
        }
        Ok(())
    }
}

impl Section {
    fn broken(&self, problem: Broken) -> LogError {
        LogError::Node { chain: self.reader.chain().clone(), problem }
    }

    fn line(&mut self, line: &str, expected_key: Option<&[u8]>) -> Result<(), Broken> {
        if !line.starts_with(HEAD) {
            let (_, hash) = self.reader.line(line)?;
            self.unsigned.push(hash);
            return Ok(());
        }
        let last = self.reader.next().saturating_sub(1);
        if line.len() > RECORD_MAX {
            return Err(Broken::HeadForm { seq: last, problem: "it is too long".into() });
        }
        let kept = read_head(line).map_err(|problem| Broken::HeadForm { seq: last, problem })?;
        let Stand { seq, hash } = kept.head.stand;
        self.unsigned.name(seq, &hash, last)?;
        check_kept_head(self.reader.chain(), &kept).map_err(|problem| Broken::Head { seq, problem })?;
        if expected_key.is_some_and(|key| *key != *kept.receipt.key) {
            return Err(Broken::ForeignKey { seq });
        }
        self.signed_to = Some(seq);
        self.heads += 1;
        Ok(())
    }

    /// Whatever a node ships has a head: a record without one was put in.
    fn finish(self) -> Result<ChainSummary, LogError> {
        let records = self.reader.next().saturating_sub(self.first);
        let last = (records > 0).then(|| self.reader.next().saturating_sub(1));
        if last != self.signed_to {
            let seq = self.signed_to.map_or(self.first, |signed| signed.saturating_add(1));
            return Err(self.broken(Broken::Unsigned { seq }));
        }
        let first = last.map(|_| self.first);
        Ok(ChainSummary { chain: self.reader.chain().clone(), records, first, last, heads: self.heads })
    }
}
