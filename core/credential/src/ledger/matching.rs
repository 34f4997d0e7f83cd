//! Whether what was done is what was agreed to, as the lines of a log tell it: the server's records of who said yes to which hash,
//! beside what the nodes' gates said they sent.
//!
//! Never says more than the records do. Whether the log holds is somebody else's to check.

use std::collections::BTreeMap;

use avouch_domain::CallResult;
use thiserror::Error;

use super::{read_line, read_node_line};

/// The log has nothing to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the log has no records of the server, which say what was agreed to: export it with --source all")]
pub struct NoServer;

/// Where something stands that was agreed to, or that was done as if it were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// What the gate sent is what was agreed to.
    Matched,
    /// The gate sent something else.
    Otherwise,
    /// It was used, and no gate says what it did: a hook, or one that lost its receipt.
    NoReceipt,
    /// A gate says that it used it, and nobody had given it.
    Without,
    /// It was agreed to, and nothing was sent.
    NotUsed,
    /// The server's older records are gone, and with them what was agreed to.
    Older,
}

impl State {
    /// For people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Otherwise => "done otherwise",
            Self::NoReceipt => "agreed, no receipt (hook)",
            Self::Without => "done without a yes",
            Self::NotUsed => "not used",
            Self::Older => "older than the log",
        }
    }

    /// Stable name, for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Otherwise => "done_otherwise",
            Self::NoReceipt => "no_receipt",
            Self::Without => "done_without_a_yes",
            Self::NotUsed => "not_used",
            Self::Older => "older",
        }
    }

    /// True if it should not be so.
    #[must_use]
    pub fn is_finding(self) -> bool {
        matches!(self, Self::Otherwise | Self::Without)
    }
}

/// A receipt, and the record that it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// SPIFFE ID of the node.
    pub source: String,
    pub seq: u64,
    /// Number of the decision's record, at the same node.
    pub of: u64,
    pub action: String,
    pub resource: String,
    pub result: String,
    /// Of what was sent; empty: none.
    pub hash: String,
}

/// A request or a grant, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Of the request or the grant.
    pub id: String,
    pub state: State,
    pub action: String,
    pub resource: String,
    /// Of what was agreed to; empty for a grant.
    pub hash: String,
    /// Who said yes, or gave it: opaque IDs.
    pub by: Vec<String>,
    /// As the gates say.
    pub done: Vec<Done>,
}

/// A request or a grant, as the server's records have it.
#[derive(Debug, Default)]
struct Agreed {
    action: String,
    resource: String,
    hash: String,
    node: String,
    by: Vec<String>,
    /// All that it takes was said, or it was given, and nobody took it back.
    open: bool,
    /// How often it was used.
    used: usize,
}

/// Compares line by line. Lines of server and nodes come in any order.
#[derive(Debug, Default)]
pub struct Matching {
    /// Number of the server's first record in the log; 0: none.
    first: u64,
    agreed: BTreeMap<String, Agreed>,
    done: BTreeMap<String, Vec<Done>>,
}

impl Matching {
    /// The next line of the server's records.
    pub fn server_line(&mut self, line: &str) {
        let Ok(record) = read_line(line) else { return };
        if self.first == 0 {
            self.first = record.seq;
        }
        let text =
            |name: &str| record.detail.get(name).and_then(|it| it.as_str()).unwrap_or_default().to_owned();
        if !matches!(record.event.split_once('_'), Some(("request" | "grant", _))) {
            return;
        }
        let agreed = self.agreed.entry(record.subject.clone()).or_default();
        for (name, into) in [
            ("action", &mut agreed.action),
            ("resource", &mut agreed.resource),
            ("hash", &mut agreed.hash),
            ("node", &mut agreed.node),
        ] {
            let said = text(name);
            if !said.is_empty() {
                *into = said;
            }
        }
        match record.event.as_str() {
            "request_yes" => {
                agreed.by.push(record.actor.clone());
                agreed.open = text("state") == "yes";
            }
            // It waits anew: somebody's yes does not count any more.
            "request_asked" | "request_no" | "grant_ended" => agreed.open = false,
            "request_spent" | "grant_used" => agreed.used += 1,
            "grant_given" => {
                agreed.by.push(record.actor.clone());
                agreed.open = true;
            }
            _ => {}
        }
    }

    /// The next line of the nodes' records.
    pub fn node_line(&mut self, line: &str) {
        let Ok(record) = read_node_line(line) else { return };
        if record.event != "call.done" {
            return;
        }
        let text = |name: &str| record.details().find(|(of, _)| *of == name).map_or("", |(_, value)| value);
        let done = Done {
            source: record.source.to_string(),
            seq: record.seq,
            of: text("of").parse().unwrap_or_default(),
            action: text("action").to_owned(),
            resource: record.subject.to_string(),
            result: text("result").to_owned(),
            hash: text("hash").to_owned(),
        };
        for id in [text("request"), text("grant")].into_iter().filter(|id| !id.is_empty()) {
            // A grant says nothing of what is sent.
            let hash = if id == text("request") { done.hash.clone() } else { String::new() };
            self.done.entry(id.to_owned()).or_default().push(Done { hash, ..done.clone() });
        }
    }

    /// What came of each, by its ID.
    ///
    /// # Errors
    /// [`NoServer`].
    pub fn finish(mut self) -> Result<Vec<Match>, NoServer> {
        if self.first == 0 {
            return Err(NoServer);
        }
        let whole = self.first == 1;
        for id in self.done.keys() {
            self.agreed.entry(id.clone()).or_default();
        }
        let matches = self.agreed.into_iter().filter_map(|(id, agreed)| {
            let done = self.done.remove(&id).unwrap_or_default();
            let state = agreed.state(&done, whole)?;
            let Agreed { action, resource, hash, by, .. } = agreed;
            Some(Match { id, state, action, resource, hash, by, done })
        });
        Ok(matches.collect())
    }
}

impl Agreed {
    /// `None`: nobody agreed to it, and nobody did it.
    fn state(&self, done: &[Done], whole: bool) -> Option<State> {
        let failed = |done: &&Done| done.result == CallResult::Failed.name();
        let sent: Vec<&Done> = done.iter().filter(|done| !failed(done)).collect();
        if sent.is_empty() {
            return match (self.used, self.open) {
                (0, false) => None,
                (0, true) => Some(State::NotUsed),
                (used, _) if used == done.len() => Some(State::NotUsed),
                _ => Some(State::NoReceipt),
            };
        }
        // With its first record the server may have lost who agreed.
        if self.used == 0 && !whole && self.by.is_empty() {
            return Some(State::Older);
        }
        if self.used == 0 {
            return Some(State::Without);
        }
        if !sent.iter().all(|done| self.fits(done)) {
            return Some(State::Otherwise);
        }
        Some(match (done.len(), whole) {
            // One yes, or one use, is for one call.
            (n, true) if n > self.used => State::Without,
            (n, _) if n < self.used => State::NoReceipt,
            _ => State::Matched,
        })
    }

    /// True if that is what was agreed to. What the server's records do not say any more binds nothing.
    fn fits(&self, done: &Done) -> bool {
        let same = |agreed: &str, done: &str| agreed.is_empty() || agreed == done;
        same(&self.action, &done.action)
            && same(&self.resource, &done.resource)
            && same(&self.node, &done.source)
            && same(&self.hash, &done.hash)
    }
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
