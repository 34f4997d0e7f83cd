//! The log, newest first: the server's records, or those of one chain of a node.
//!
//! Never says that a record is true: what verifies the log, and traces a decision, stands beside it.

use askama::Template;
use avouch_credential::shown::plain;
use avouch_domain::Timestamp;
use avouch_proto::governance_v1 as wire;

use super::moment::{Moment, moment, recorded};
use super::parts::{Choice, Named, Page, Shell, named, who};
use super::words::path;
use super::{Frame, Happened, Log};

#[derive(Template)]
#[template(path = "log.html")]
struct LogPage<'a> {
    shell: Shell<'a>,
    whose: String,
    chain: u64,
    chains: Vec<Choice>,
    records: Vec<Row<'a>>,
    older: u64,
    head: Option<Head>,
}

struct Row<'a> {
    seq: u64,
    at: Moment,
    event: String,
    actor: String,
    /// The subject, if it is an identity.
    identity: Option<Named<'a>>,
    subject: String,
    detail: String,
    decision: bool,
}

struct Head {
    seq: u64,
    at: Moment,
    hash: String,
    key: String,
}

/// A stretch of the log.
///
/// # Errors
/// The page could not be written.
pub fn log(frame: &Frame<'_>, log: &Log<'_>) -> Result<String, askama::Error> {
    let chain = log.chains.iter().find(|chain| chain.number == log.chain);
    let whose = match (log.chain, chain) {
        (0, _) => "the server".to_owned(),
        (_, Some(chain)) => node(frame, chain),
        (number, None) => format!("chain {number} of a node"),
    };
    let records: Vec<_> = log.records.iter().map(|record| row(frame, record)).collect();
    LogPage {
        shell: Shell::new(frame, Page::Log, format!("log?chain={}", log.chain)),
        chains: chains(frame, log, &whose),
        whose,
        chain: log.chain,
        records,
        older: log.older,
        head: log.head.map(|head| Head {
            seq: head.seq,
            at: moment(Timestamp(head.at_ms).secs(), frame.now),
            hash: hex::encode(&head.hash),
            key: hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &head.key)),
        }),
    }
    .render()
}

fn node(frame: &Frame<'_>, chain: &wire::NodeChain) -> String {
    plain(&format!("{} (chain {})", path(&chain.source, frame.trust_domain), chain.chain))
}

fn chains(frame: &Frame<'_>, log: &Log<'_>, whose: &str) -> Vec<Choice> {
    let one =
        |number: u64, word: String| Choice { value: number.to_string(), word, chosen: number == log.chain };
    let mut chains = vec![one(0, "the server".to_owned())];
    chains.extend(log.chains.iter().map(|chain| {
        let records = match chain.last {
            0 => "no records".to_owned(),
            last => format!("records {} to {last}", chain.first),
        };
        one(chain.number, format!("{}, {records}", node(frame, chain)))
    }));
    if !chains.iter().any(|chain| chain.chosen) {
        chains.push(one(log.chain, whose.to_owned()));
    }
    chains
}

fn row<'a>(frame: &Frame<'_>, record: &'a Happened) -> Row<'a> {
    let of_identity = ["identity_", "stop_", "instance."].iter().any(|begin| record.event.starts_with(begin));
    let identity = of_identity && record.subject.starts_with("spiffe://");
    let detail = record.detail.iter().map(|(name, value)| plain(&format!("{name} {value}")));
    Row {
        seq: record.seq,
        at: recorded(&record.at, frame.now),
        event: plain(&record.event),
        actor: who(frame, path(&record.actor, frame.trust_domain)),
        identity: identity.then(|| named(frame, &record.subject)),
        subject: who(frame, path(&record.subject, frame.trust_domain)),
        detail: detail.collect::<Vec<_>>().join(", "),
        decision: record.chain > 0 && record.event == "decision",
    }
}
