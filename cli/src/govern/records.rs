//! Verbs on the log: the server's records and those of the nodes.

use std::io::BufRead as _;
use std::path::Path;

use avouch_credential::ledger::{
    ChainSummary, Header, Log, LogError, LogSummary, NodeHeader, SignedHead, Summary, head_line,
};
use avouch_credential::x509::pem;
use avouch_domain::{
    ChainId, KeptHead, NodeChain, NodeHead, Receipt, SpiffeId, Stand, Timestamp, TrustDomain,
};
use avouch_proto::governance_v1 as wire;
use serde_json::{Value, json};

use super::{AuditVerb, Place, Session};
use crate::exit::{FAILED, FINDING};
use crate::failure::Failure;
use crate::out::Out;

/// Longest line of an exported log that is read, in bytes.
const LINE_MAX: u64 = 64 * 1024;

/// Whose records are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    All,
    Server,
    Node(SpiffeId),
}

impl Source {
    fn read(text: &str) -> Result<Self, Failure> {
        match text {
            "all" => Ok(Self::All),
            "server" => Ok(Self::Server),
            id => SpiffeId::parse(id).map(Self::Node).map_err(|e| {
                Failure::usage(format!(
                    "--source: expected all, server or the SPIFFE ID of an agent, got \"{id}\": {e}"
                ))
            }),
        }
    }
}

pub(super) async fn run(session: &mut Session<'_>, verb: AuditVerb) -> Result<(), Failure> {
    match verb {
        AuditVerb::Export { source } => {
            let mut log = Exported::of(session, &Source::read(&source)?).await?;
            while let Some(lines) = log.next(session).await? {
                for line in lines {
                    session.out.line(&line);
                }
            }
            Ok(())
        }
        AuditVerb::Key => key(session).await,
        // A file was verified before a server was asked for.
        AuditVerb::Verify { key, .. } => {
            let mut check = Check::new(key.as_deref())?;
            let mut log = Exported::of(session, &Source::All).await?;
            while let Some(lines) = log.next(session).await? {
                lines.iter().try_for_each(|line| check.line(line))?;
            }
            let summary = check.finish()?;
            session.print(|| json_of(&summary), || text_of(&summary));
            Ok(())
        }
    }
}

async fn key(session: &mut Session<'_>) -> Result<(), Failure> {
    let mut newest = None;
    let mut after = 0;
    loop {
        let request = wire::ListRecordsRequest { after, ..Default::default() };
        let page = session.client.list_records(request).await?.into_inner();
        newest = page.heads.into_iter().next_back().or(newest);
        if page.lines.is_empty() {
            break;
        }
        after = page.first + page.lines.len() as u64 - 1;
    }
    let Some(head) = newest else {
        return Err(Failure::new(FAILED, "no head is signed yet: try again in a second"));
    };
    session.out.say(&pem::encode(pem::PUBLIC_KEY, &head.key));
    Ok(())
}

/// One part of the log.
enum Part {
    Server,
    /// With the number by which the server knows it.
    Chain(u64, NodeChain),
}

/// The log as the lines of an export: the server's, then the nodes', in the order in which their chains began.
pub(super) struct Exported {
    /// Last first.
    parts: Vec<Part>,
    after: u64,
    begun: bool,
}

impl Exported {
    pub(super) async fn of(session: &mut Session<'_>, source: &Source) -> Result<Self, Failure> {
        let mut parts = Vec::new();
        if !matches!(source, Source::Node(_)) {
            parts.push(Part::Server);
        }
        let named = match source {
            Source::Server => return Ok(Self { parts, after: 0, begun: false }),
            Source::All => String::new(),
            Source::Node(id) => id.to_string(),
        };
        let mut after = 0;
        loop {
            let request = wire::ListChainsRequest { source: named.clone(), after };
            let page = session.client.list_chains(request).await?.into_inner().chains;
            let Some(last) = page.last() else { break };
            after = last.number;
            for chain in page.into_iter().filter(|chain| chain.first > 0) {
                parts.push(Part::Chain(chain.number, chain_of(&chain)?));
            }
        }
        if let (Source::Node(id), true) = (source, parts.is_empty()) {
            return Err(Failure::new(FAILED, format!("the server has no records of {id}")));
        }
        parts.reverse();
        Ok(Self { parts, after: 0, begun: false })
    }

    /// The next lines; `None` at the end.
    pub(super) async fn next(&mut self, session: &mut Session<'_>) -> Result<Option<Vec<String>>, Failure> {
        let Some(part) = self.parts.last() else { return Ok(None) };
        let chain = match part {
            Part::Server => 0,
            Part::Chain(number, _) => *number,
        };
        let request = wire::ListRecordsRequest { after: self.after, limit: 0, chain };
        let page = session.client.list_records(request).await?.into_inner();
        let mut lines = Vec::with_capacity(page.lines.len() + page.heads.len() + 1);
        if !self.begun {
            self.begun = true;
            lines.push(match part {
                Part::Server => {
                    let domain = TrustDomain::new(&page.trust_domain)
                        .map_err(|e| Failure::new(FAILED, format!("the server's trust domain: {e}")))?;
                    Header::new(&domain, page.first.max(1)).line()
                }
                Part::Chain(_, chain) => NodeHeader::new(chain, page.first.max(1)).line(),
            });
        } else if page.lines.is_empty() {
            self.parts.pop();
            (self.after, self.begun) = (0, false);
            return Ok(Some(lines));
        }
        let mut heads = page.heads.into_iter().peekable();
        for (seq, line) in (page.first..).zip(page.lines) {
            lines.push(line);
            self.after = seq;
            while let Some(head) = heads.next_if(|head| head.seq <= seq) {
                lines.push(match part {
                    Part::Server => head_of(head)?.line(),
                    Part::Chain(..) => head_line(&kept_head_of(head)?),
                });
            }
        }
        Ok(Some(lines))
    }
}

fn chain_of(chain: &wire::NodeChain) -> Result<NodeChain, Failure> {
    let source = SpiffeId::parse(&chain.source)
        .map_err(|e| Failure::new(FAILED, format!("a chain is of \"{}\": {e}", chain.source)))?;
    let id = ChainId::from_text(&chain.chain)
        .ok_or_else(|| Failure::new(FAILED, format!("a chain has the name \"{}\"", chain.chain)))?;
    Ok(NodeChain { source, id })
}

fn hash_of(hash: Vec<u8>) -> Result<[u8; 32], Failure> {
    hash.try_into().map_err(|_| Failure::new(FAILED, "a head has a hash of another length"))
}

fn kept_head_of(head: wire::Head) -> Result<KeptHead, Failure> {
    Ok(KeptHead {
        head: NodeHead {
            stand: Stand { seq: head.seq, hash: hash_of(head.hash)? },
            at: Timestamp(head.at_ms),
            certificate: head.certificate,
            signature: head.node_signature,
        },
        receipt: Receipt { key: head.key, signature: head.signature },
    })
}

fn head_of(head: wire::Head) -> Result<SignedHead, Failure> {
    Ok(SignedHead {
        seq: head.seq,
        hash: hash_of(head.hash)?,
        at: Timestamp(head.at_ms),
        key: head.key,
        signature: head.signature,
    })
}

/// A log under examination.
pub(super) struct Check {
    log: Log,
    begun: bool,
}

impl Check {
    pub(super) fn new(key: Option<&Path>) -> Result<Self, Failure> {
        let key = key.map(|path| {
            let read = std::fs::read(path).map_err(|e| e.to_string());
            read.and_then(|text| pem::public_key(&text).map_err(|e| e.to_string()))
                .map_err(|e| Failure::new(FAILED, format!("{}: {e}", path.display())))
        });
        Ok(Self { log: Log::new(key.transpose()?), begun: false })
    }

    pub(super) fn line(&mut self, line: &str) -> Result<(), Failure> {
        // Before the first header it is no log at all.
        let begun = std::mem::replace(&mut self.begun, true);
        self.log.line(line).map_err(|e| match e {
            LogError::Begin(e) if !begun => Failure::new(FAILED, e),
            e => not_held(&e),
        })
    }

    pub(super) fn finish(self) -> Result<LogSummary, Failure> {
        if !self.begun {
            return Err(Failure::new(FAILED, "it is empty, expected an exported log"));
        }
        self.log.finish().map_err(|e| not_held(&e))
    }
}

fn not_held(error: &LogError) -> Failure {
    Failure::new(FINDING, format!("the log does not hold: {error}"))
}

/// Verifies an exported log without a server.
pub(super) fn verify_file(
    file: &Path,
    key: Option<&Path>,
    place: &Place,
    out: &mut Out,
) -> Result<(), Failure> {
    let mut check = Check::new(key)?;
    lines_of_file(file, |line| check.line(line))?;
    let summary = check.finish()?;
    if place.json {
        out.line(&json_of(&summary).to_string());
    } else {
        out.say(&text_of(&summary));
    }
    Ok(())
}

/// Reads an exported log, line by line.
pub(super) fn lines_of_file(
    file: &Path,
    mut each: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let unreadable = |e: std::io::Error| Failure::new(FAILED, format!("{}: {e}", file.display()));
    let mut reader = std::io::BufReader::new(std::fs::File::open(file).map_err(unreadable)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read =
            std::io::Read::take(&mut reader, LINE_MAX).read_until(b'\n', &mut line).map_err(unreadable)?;
        if read == 0 {
            return Ok(());
        }
        let text = std::str::from_utf8(&line)
            .map_err(|_| Failure::new(FINDING, "the log does not hold: a line is no text"))?;
        each(text.strip_suffix('\n').unwrap_or(text))?;
    }
}

fn text_of(summary: &LogSummary) -> String {
    let mut text = summary.server.as_ref().map_or_else(String::new, server_text);
    for node in &summary.nodes {
        let ChainSummary { chain, records, first, last, .. } = node;
        let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
        text.push_str(&format!(
            "{}: {records} records, {first} to {last}, no gap, no change, signed by the node (chain {}).\n",
            chain.source, chain.id
        ));
    }
    text
}

fn server_text(summary: &Summary) -> String {
    let (Some(first), Some(last)) = (summary.first, summary.last) else {
        return "The log is empty.\n".to_owned();
    };
    let mut text =
        format!("The log holds: {} records, {first} to {last}, no gap, no change.\n", summary.records);
    match summary.signed_to {
        Some(signed) if signed == last => {
            text.push_str(&format!("{} heads vouch for all of it.\n", summary.heads));
        }
        Some(signed) => text.push_str(&format!(
            "{} heads vouch for it up to record {signed}; the newest records are signed within a second or two.\n",
            summary.heads
        )),
        None => text.push_str("No head vouches for it: it proves nothing to anybody who did not write it.\n"),
    }
    for key in &summary.keys {
        text.push_str(&format!("Signed with the key whose SHA-256 is {}.\n", fingerprint(key)));
    }
    text
}

fn fingerprint(key: &[u8]) -> String {
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key))
}

fn json_of(summary: &LogSummary) -> Value {
    let nodes = summary.nodes.iter().map(|node| {
        json!({
            "source": node.chain.source.as_str(), "chain": node.chain.id.to_string(),
            "records": node.records, "first": node.first, "last": node.last, "heads": node.heads,
        })
    });
    let nodes: Vec<_> = nodes.collect();
    match &summary.server {
        Some(server) => json!({
            "records": server.records, "first": server.first, "last": server.last,
            "signed_to": server.signed_to, "heads": server.heads,
            "keys": server.keys.iter().map(|key| fingerprint(key)).collect::<Vec<_>>(),
            "nodes": nodes,
        }),
        None => json!({ "nodes": nodes }),
    }
}
