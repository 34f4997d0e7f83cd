//! What the log proves: whether a part of it holds, and who is behind a decision.
//!
//! Never says more than was read, and traces nothing in a log that does not hold.

use askama::Template;
use avouch_credential::ledger::trace::Hop;
use avouch_credential::ledger::{LogError, LogSummary, Summary};
use avouch_credential::shown::plain;

use super::parts::{Page, Shell};
use super::words::path;
use super::{Frame, Traced, Verified};

#[derive(Template)]
#[template(path = "verified.html")]
struct VerifiedPage<'a> {
    shell: Shell<'a>,
    whose: String,
    chain: u64,
    /// Where it does not hold.
    broken: Option<String>,
    records: String,
    vouched: String,
    keys: Vec<String>,
}

#[derive(Template)]
#[template(path = "traced.html")]
struct TracedPage<'a> {
    shell: Shell<'a>,
    whose: String,
    chain: u64,
    record: u64,
    broken: Option<String>,
    hops: Vec<Step>,
    unknown: usize,
}

struct Step {
    name: &'static str,
    what: String,
    /// Empty: no record says.
    proof: String,
}

/// Whether records hold.
///
/// # Errors
/// The page could not be written.
pub fn verified(frame: &Frame<'_>, shown: &Verified<'_>) -> Result<String, askama::Error> {
    let (records, vouched, keys) = match shown.checked {
        Ok(summary) => told(summary),
        Err(_) => (String::new(), String::new(), Vec::new()),
    };
    VerifiedPage {
        shell: Shell::new(frame, Page::Log, format!("verify?chain={}", shown.chain)),
        whose: plain(path(shown.whose, frame.trust_domain)),
        chain: shown.chain,
        broken: broken(shown.checked.err()),
        records,
        vouched,
        keys,
    }
    .render()
}

fn broken(error: Option<&LogError>) -> Option<String> {
    error.map(|error| plain(&error.to_string()))
}

/// How many there are, what vouches for them, and the keys.
fn told(summary: &LogSummary) -> (String, String, Vec<String>) {
    let stretch = |records: u64, first: Option<u64>, last: Option<u64>| match (first, last) {
        (Some(first), Some(last)) => format!("{records} records, {first} to {last}"),
        _ => "No record".to_owned(),
    };
    if let Some(Summary { records, first, last, signed_to, heads, keys, .. }) = &summary.server {
        let vouched = match signed_to {
            Some(signed) if Some(*signed) == *last => format!("{heads} signed heads vouch for all of them."),
            Some(signed) => format!(
                "{heads} signed heads vouch for them up to record {signed}; the newest are signed within a second or two."
            ),
            None => "No signed head vouches for them.".to_owned(),
        };
        let print = |key: &Vec<u8>| hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key));
        return (stretch(*records, *first, *last), vouched, keys.iter().map(print).collect());
    }
    let Some(node) = summary.nodes.first() else {
        return ("No record".to_owned(), "Nothing vouches for nothing.".to_owned(), Vec::new());
    };
    let vouched = format!(
        "{} heads, signed by the node and countersigned by the server, vouch for all of them.",
        node.heads
    );
    (stretch(node.records, node.first, node.last), vouched, Vec::new())
}

/// Who is behind a decision.
///
/// # Errors
/// The page could not be written.
pub fn traced(frame: &Frame<'_>, shown: &Traced<'_>) -> Result<String, askama::Error> {
    let hops: Vec<_> = shown.hops.iter().flat_map(|hops| hops.iter()).map(|hop| step(frame, hop)).collect();
    TracedPage {
        shell: Shell::new(frame, Page::Log, format!("trace?chain={}&record={}", shown.chain, shown.record)),
        whose: plain(path(shown.source, frame.trust_domain)),
        chain: shown.chain,
        record: shown.record,
        broken: broken(shown.hops.err()),
        unknown: hops.iter().filter(|step| step.proof.is_empty()).count(),
        hops,
    }
    .render()
}

fn step(frame: &Frame<'_>, hop: &Hop) -> Step {
    match &hop.known {
        Some((what, seen)) => Step {
            name: hop.name,
            what: plain(what),
            proof: plain(&format!("record {} of {}", seen.seq, path(&seen.source, frame.trust_domain))),
        },
        None => Step { name: hop.name, what: "unknown".to_owned(), proof: String::new() },
    }
}
