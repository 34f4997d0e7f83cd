//! Verbs on the log: the server's records and those of the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead as _;
use std::path::Path;

use avouch_credential::ledger::{ChainSummary, Log, LogError, LogSummary, Salt, Summary};
use avouch_credential::x509::pem;
use avouch_domain::SpiffeId;
use avouch_proto::governance_v1 as wire;
use serde_json::{Value, json};

use super::{AuditVerb, Place, Session, matching};
use crate::exit::{FAILED, FINDING};
use crate::exported::{ExportError, Exported, Source};
use crate::failure::Failure;
use crate::out::Out;
use crate::secret_file;

/// Longest line of an exported log that is read, in bytes.
const LINE_MAX: u64 = 64 * 1024;

/// Reads whose records are wanted.
fn source(text: &str) -> Result<Source, Failure> {
    match text {
        "all" => Ok(Source::All),
        "server" => Ok(Source::Server),
        id => SpiffeId::parse(id).map(Source::Node).map_err(|e| {
            Failure::usage(format!(
                "--source: expected all, server or the SPIFFE ID of an agent, got \"{id}\": {e}"
            ))
        }),
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Status(status) => status.into(),
            other => Self::new(FAILED, other),
        }
    }
}

pub(super) async fn run(session: &mut Session<'_>, verb: AuditVerb) -> Result<(), Failure> {
    match verb {
        AuditVerb::Export { source } => {
            let mut log = Exported::of(&mut session.client, &self::source(&source)?).await?;
            while let Some(lines) = log.next(&mut session.client).await? {
                for line in lines {
                    session.out.line(&line);
                }
            }
            Ok(())
        }
        // What needs no server was done before one was asked for.
        AuditVerb::Argument { .. } => Ok(()),
        AuditVerb::Key => key(session).await,
        // A file was compared before a server was asked for.
        AuditVerb::Match { .. } => matching::run(session).await,
        // A file was verified before a server was asked for.
        AuditVerb::Verify { key, .. } => {
            let mut check = Check::new(key.as_deref())?;
            let mut log = Exported::of(&mut session.client, &Source::All).await?;
            while let Some(lines) = log.next(&mut session.client).await? {
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

/// What stands in records for these arguments, each `NAME=VALUE`, by the salt in a file.
pub(super) fn argument(
    file: &Path,
    arguments: &[String],
    place: &Place,
    out: &mut Out,
) -> Result<(), Failure> {
    let salt = secret_file::read(file).map_err(|e| Failure::new(FAILED, e))?;
    let salt =
        Salt::read(&salt.secret).map_err(|e| Failure::new(FAILED, format!("{}: {e}", file.display())))?;
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for argument in arguments {
        let (name, value) = argument
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("\"{argument}\": expected NAME=VALUE")))?;
        values.entry(name).or_default().insert(value);
    }
    let digests: BTreeMap<_, _> =
        values.into_iter().map(|(name, values)| (name, salt.digest(name, values))).collect();
    if place.json {
        out.line(&json!(digests).to_string());
    } else {
        digests.iter().for_each(|(name, digest)| out.line(&format!("{name}={digest}")));
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
