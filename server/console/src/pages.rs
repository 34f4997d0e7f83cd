//! One function per page: from what the governance service said to HTML.
//!
//! Never a request, a session or a clock: what a page shows was asked before. Everything that others wrote is escaped, and
//! texts of a request are shown by [`avouch_credential::shown`], as on a terminal.

#[cfg(test)]
mod fixtures;
mod home;
mod identities;
mod identity;
mod log;
#[cfg(test)]
mod markup;
mod moment;
mod parts;
mod plain;
mod proof;
mod requests;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeMap;

use avouch_credential::ledger::trace::Hop;
use avouch_credential::ledger::{LogError, LogSummary};
use avouch_domain::Timestamp;
use avouch_proto::governance_v1 as wire;

pub use home::home;
pub use identities::identities;
pub use identity::{identity, stopped};
pub use log::log;
pub use plain::{failed, leaving, sentence, signed_out, stranger};
pub use proof::{traced, verified};
pub use requests::requests;

/// The style sheet, at `/assets/console.css`.
pub const STYLE: &str = include_str!("../assets/console.css");
/// The script, at `/assets/console.js`. Every page works without it.
pub const SCRIPT: &str = include_str!("../assets/console.js");

/// What stands around each page of a person who is signed in.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub trust_domain: &'a str,
    /// Who is signed in.
    pub me: &'a wire::Person,
    /// The provider at which they signed in; `None`: by a local link.
    pub provider: Option<&'a str>,
    /// When they signed in; a yes takes a sign-in that is fresh.
    pub signed_in_at: Timestamp,
    /// Names of people by their IDs.
    pub names: &'a BTreeMap<String, String>,
    /// Goes with every form, in the field `token`.
    pub form_token: &'a str,
    pub now: Timestamp,
    pub overview: &'a wire::OverviewResponse,
}

/// What the first page shows.
#[derive(Clone, Copy, Debug)]
pub struct Home<'a> {
    /// Names without an owner, the first few; the overview has their number.
    pub found: &'a [wire::Found],
    /// Emergencies that wait or are open, the first few, newest first.
    pub emergencies: &'a [wire::Emergency],
    /// Requests that wait, the first few.
    pub waiting: &'a [wire::Request],
    /// What was refused lately, newest first.
    pub refused: &'a [Happened],
    /// Rules in force; absent: none were published.
    pub rules: Option<&'a wire::PublishedRules>,
}

/// The table of identities.
#[derive(Clone, Copy, Debug)]
pub struct Identities<'a> {
    pub rows: &'a [wire::Identity],
    /// As the URL has it.
    pub filter: &'a Filter,
    /// Empty: the last page.
    pub next_page_token: &'a str,
    pub people: &'a [wire::Person],
    /// What a bulk action did to each identity; empty: none was done.
    pub done: &'a [Done],
}

/// What the table is narrowed to; empty = all. The names of the fields are those in the URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub standing: String,
    pub kind: String,
    pub env: String,
    /// ID of a person.
    pub owner: String,
    /// Not empty: only those that nobody uses.
    pub unused: String,
    pub page: String,
}

/// How one identity of a bulk action fared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub spiffe_id: String,
    /// Empty: it was done.
    pub error: String,
}

/// One identity with what is known about it.
#[derive(Clone, Copy, Debug)]
pub struct IdentityView<'a> {
    pub identity: &'a wire::Identity,
    pub entry_ids: &'a [String],
    pub agent_ids: &'a [String],
    pub grants: &'a [wire::Grant],
    /// What its instances asked lately and how it was decided, newest first.
    pub used: &'a [Happened],
    pub people: &'a [wire::Person],
    /// What was just done or refused, in one sentence; empty: nothing.
    pub notice: &'a str,
}

/// A request with its text, whose hash was checked.
#[derive(Clone, Debug)]
pub struct Card {
    pub request: wire::Request,
    pub identity: Option<wire::Identity>,
    /// Of the task that asks.
    pub task: String,
    /// What would be done, as [`avouch_credential::shown::laid_out`] lays it out.
    pub shown: String,
}

/// The page of requests.
#[derive(Clone, Copy, Debug)]
pub struct Requests<'a> {
    /// Those that wait, and yeses that were not used yet.
    pub cards: &'a [Card],
    /// How many more there are, or are not shown because their text is not the one that was hashed.
    pub more: usize,
    /// Those that ended in the last day.
    pub past: &'a [wire::Request],
    /// What was just said or refused, in one sentence; empty: nothing.
    pub notice: &'a str,
    /// The sign-in is too old for a yes.
    pub stale: bool,
}

/// A record of the server or of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// SPIFFE ID of the node; empty: the server.
    pub source: String,
    /// Number of its chain; 0: the server's log.
    pub chain: u64,
    pub seq: u64,
    /// RFC 3339.
    pub at: String,
    pub event: String,
    /// ID of a person or an instance, a SPIFFE ID, or another word.
    pub actor: String,
    pub subject: String,
    /// By name, in the order of the record.
    pub detail: Vec<(String, String)>,
}

/// A stretch of the log.
#[derive(Clone, Copy, Debug)]
pub struct Log<'a> {
    /// Newest first.
    pub records: &'a [Happened],
    /// Chains of nodes, newest first.
    pub chains: &'a [wire::NodeChain],
    /// Number of the chain that is shown; 0: the server's log.
    pub chain: u64,
    /// Where the older records begin: the value of `before` in the URL; 0: there are none.
    pub older: u64,
    /// The newest signed head; absent: none yet.
    pub head: Option<&'a wire::Head>,
}

/// What became of checking a part of the log.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a> {
    pub whose: &'a str,
    /// 0: the server's log.
    pub chain: u64,
    pub checked: Result<&'a LogSummary, &'a LogError>,
}

/// Who is behind a decision.
#[derive(Clone, Copy, Debug)]
pub struct Traced<'a> {
    /// SPIFFE ID of the node that decided.
    pub source: &'a str,
    pub chain: u64,
    /// Number of the decision.
    pub record: u64,
    /// The hops, or why nothing is traced.
    pub hops: Result<&'a [Hop], &'a LogError>,
}
