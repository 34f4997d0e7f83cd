//! Verbs on the log.

use std::io::BufRead as _;
use std::path::Path;

use avouch_credential::ledger::{Header, SignedHead, Summary, Verifier};
use avouch_credential::x509::pem;
use avouch_domain::{Timestamp, TrustDomain};
use avouch_proto::governance_v1 as wire;
use serde_json::{Value, json};

use super::{AuditVerb, Failure, Place, Session};
use crate::exit::{FAILED, FINDING};
use crate::out::Out;

/// Longest line of an exported log that is read, in bytes.
const LINE_MAX: u64 = 64 * 1024;

pub(super) async fn run(session: &mut Session<'_>, verb: AuditVerb) -> Result<(), Failure> {
    match verb {
        AuditVerb::Export => {
            let mut log = Log::new();
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
            let mut log = Log::new();
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

/// The server's log as the lines of an export.
struct Log {
    after: u64,
    begun: bool,
}

impl Log {
    fn new() -> Self {
        Self { after: 0, begun: false }
    }

    /// The next lines; `None` at the end.
    async fn next(&mut self, session: &mut Session<'_>) -> Result<Option<Vec<String>>, Failure> {
        let request = wire::ListRecordsRequest { after: self.after, ..Default::default() };
        let page = session.client.list_records(request).await?.into_inner();
        let mut lines = Vec::with_capacity(page.lines.len() + page.heads.len() + 1);
        if !self.begun {
            self.begun = true;
            let domain = TrustDomain::new(&page.trust_domain)
                .map_err(|e| Failure::new(FAILED, format!("the server's trust domain: {e}")))?;
            lines.push(Header::new(&domain, page.first.max(1)).line());
        } else if page.lines.is_empty() {
            return Ok(None);
        }
        let mut heads = page.heads.into_iter().peekable();
        for (seq, line) in (page.first..).zip(page.lines) {
            lines.push(line);
            self.after = seq;
            while let Some(head) = heads.next_if(|head| head.seq <= seq) {
                lines.push(head_of(head)?.line());
            }
        }
        Ok(Some(lines))
    }
}

fn head_of(head: wire::Head) -> Result<SignedHead, Failure> {
    let hash =
        head.hash.try_into().map_err(|_| Failure::new(FAILED, "a head has a hash of another length"))?;
    Ok(SignedHead {
        seq: head.seq,
        hash,
        at: Timestamp(head.at_ms),
        key: head.key,
        signature: head.signature,
    })
}

/// A log under examination.
struct Check {
    key: Option<Vec<u8>>,
    verifier: Option<Verifier>,
}

impl Check {
    fn new(key: Option<&Path>) -> Result<Self, Failure> {
        let key = key.map(|path| {
            let read = std::fs::read(path).map_err(|e| e.to_string());
            read.and_then(|text| pem::public_key(&text).map_err(|e| e.to_string()))
                .map_err(|e| Failure::new(FAILED, format!("{}: {e}", path.display())))
        });
        Ok(Self { key: key.transpose()?, verifier: None })
    }

    fn line(&mut self, line: &str) -> Result<(), Failure> {
        match &mut self.verifier {
            Some(verifier) => {
                verifier.line(line).map_err(|e| Failure::new(FINDING, format!("the log does not hold: {e}")))
            }
            None => {
                let begun = Verifier::begin(line, self.key.take());
                self.verifier = Some(begun.map_err(|e| Failure::new(FAILED, e))?);
                Ok(())
            }
        }
    }

    fn finish(self) -> Result<Summary, Failure> {
        let verifier =
            self.verifier.ok_or_else(|| Failure::new(FAILED, "it is empty, expected an exported log"))?;
        Ok(verifier.finish())
    }
}

/// Verifies an exported log without a server.
pub(super) fn verify_file(
    file: &Path,
    key: Option<&Path>,
    place: &Place,
    out: &mut Out,
) -> Result<(), Failure> {
    let unreadable = |e: std::io::Error| Failure::new(FAILED, format!("{}: {e}", file.display()));
    let mut check = Check::new(key)?;
    let mut reader = std::io::BufReader::new(std::fs::File::open(file).map_err(unreadable)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read =
            std::io::Read::take(&mut reader, LINE_MAX).read_until(b'\n', &mut line).map_err(unreadable)?;
        if read == 0 {
            break;
        }
        let text = std::str::from_utf8(&line)
            .map_err(|_| Failure::new(FINDING, "the log does not hold: a line is no text"))?;
        check.line(text.strip_suffix('\n').unwrap_or(text))?;
    }
    let summary = check.finish()?;
    if place.json {
        out.line(&json_of(&summary).to_string());
    } else {
        out.say(&text_of(&summary));
    }
    Ok(())
}

fn text_of(summary: &Summary) -> String {
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

fn json_of(summary: &Summary) -> Value {
    json!({
        "records": summary.records, "first": summary.first, "last": summary.last,
        "signed_to": summary.signed_to, "heads": summary.heads,
        "keys": summary.keys.iter().map(|key| fingerprint(key)).collect::<Vec<_>>(),
    })
}
