//! From facts to one verdict. Pure: the same facts give the same verdict.
//!
//! If several entries give the ID, the one that came furthest is the one explained.

use std::time::Duration;

use avouch_domain::{Entry, Selector, SelectorSet, SpiffeId, Timestamp};

use super::causes::Cause;
use super::process::ProcessFacts;

/// An agent that did not hear from the server for this long is cut off: the server says something every ten seconds.
const SILENCE: Duration = Duration::from_secs(30);

/// How the Workload API socket looks from the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketState {
    Missing,
    Refused,
    /// The process may not open it; says what stands in the way.
    Denied(String),
    Answers,
}

/// What the agent says of itself.
#[derive(Clone, Debug)]
pub struct AgentFacts {
    pub id: SpiffeId,
    /// End of its own SVID.
    pub expires_at: Timestamp,
    pub last_sync: Timestamp,
    /// Does its unix attestor look at the binary of a process? `None` if its configuration can't be read from here.
    pub looks_at_binaries: Option<bool>,
}

/// Why nothing is known of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAgent {
    /// It answers, but has no SVID.
    Starting,
    /// It does not answer; says why.
    Unreachable(String),
}

/// What the server says.
#[derive(Clone, Debug, Default)]
pub struct ServerFacts {
    /// The agent as the server knows it: banned or not.
    pub agent: Option<KnownAgent>,
    /// Entries that give the ID.
    pub entries: Vec<SeenEntry>,
}

/// The agent's row on the server.
#[derive(Clone, Copy, Debug)]
pub struct KnownAgent {
    pub banned: bool,
}

/// An entry and where its parent stands to the agent.
#[derive(Clone, Debug)]
pub struct SeenEntry {
    pub entry: Entry,
    pub parent: Parent,
}

/// Where an entry's parent stands to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// The agent, one of its aliases, or below them.
    OfThisAgent,
    OfAnother,
    Missing,
}

/// Everything that was found out.
#[derive(Clone, Debug)]
pub struct Facts {
    pub now: Timestamp,
    pub pid: i32,
    pub id: SpiffeId,
    pub process: Option<ProcessFacts>,
    pub socket: SocketState,
    pub agent: Result<AgentFacts, NoAgent>,
    /// Or why it did not answer.
    pub server: Result<ServerFacts, String>,
}

/// Gets it or does not, and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// `None`: the process gets the ID.
    pub cause: Option<Cause>,
    pub details: Vec<String>,
}

fn refused(cause: Cause, detail: impl Into<String>) -> Verdict {
    Verdict { cause: Some(cause), details: vec![detail.into()] }
}

/// Finds the verdict.
#[must_use]
pub fn diagnose(facts: &Facts) -> Verdict {
    let Some(process) = &facts.process else {
        return refused(Cause::ProcessGone, format!("pid {}", facts.pid));
    };
    match &facts.socket {
        SocketState::Missing => return Verdict { cause: Some(Cause::SocketMissing), details: Vec::new() },
        SocketState::Refused => return Verdict { cause: Some(Cause::SocketDeserted), details: Vec::new() },
        SocketState::Denied(why) => return refused(Cause::SocketDenied, why.as_str()),
        SocketState::Answers => {}
    }
    let agent = match &facts.agent {
        Ok(agent) => agent,
        Err(NoAgent::Starting) => return refused(Cause::AgentStarting, "the agent has no SVID of its own"),
        Err(NoAgent::Unreachable(why)) => return refused(Cause::AgentUnreachable, why.as_str()),
    };
    let server = match &facts.server {
        Ok(server) => server,
        Err(why) => return refused(Cause::ServerUnreachable, why.as_str()),
    };
    let named = format!("agent: {}", agent.id);
    if facts.id.trust_domain() != agent.id.trust_domain() {
        return refused(Cause::ForeignTrustDomain, named);
    }
    if facts.id.is_reserved() {
        return refused(Cause::ReservedId, facts.id.path());
    }
    match server.agent {
        None => return refused(Cause::AgentUnknown, named),
        Some(known) if known.banned => return refused(Cause::AgentBanned, named),
        Some(_) if agent.expires_at <= facts.now => return refused(Cause::AgentExpired, named),
        Some(_) => {}
    }
    let judged = server.entries.iter().map(|seen| judge(seen, agent, process, facts.now));
    let best = judged.max_by_key(progress);
    best.unwrap_or_else(|| refused(Cause::NoEntry, named))
}

/// How far an entry came: the order of causes is the order of the checks, and what is granted passed them all.
fn progress(verdict: &Verdict) -> (bool, Option<Cause>) {
    (verdict.cause.is_none(), verdict.cause)
}

fn judge(seen: &SeenEntry, agent: &AgentFacts, process: &ProcessFacts, now: Timestamp) -> Verdict {
    let entry = &seen.entry;
    let named = format!("entry: {}", entry.id);
    let with = |cause, detail: String| Verdict { cause: Some(cause), details: vec![named.clone(), detail] };
    // Our server takes an entry away when it ends; others keep it for a while.
    if entry.is_expired(now) {
        return refused(Cause::NoEntry, format!("{named}, which has ended"));
    }
    if entry.is_node_alias() {
        return refused(Cause::NodeAlias, named);
    }
    let parent = format!("parent: {}", entry.parent_id);
    match seen.parent {
        Parent::Missing => return with(Cause::ParentMissing, parent),
        Parent::OfAnother => return with(Cause::OtherAgent, format!("{parent}; agent: {}", agent.id)),
        Parent::OfThisAgent => {}
    }
    if entry.store_svid {
        return refused(Cause::StoredSvid, named);
    }
    let unseen =
        |s: &&Selector| s.kind() != "unix" || (of_binary(s) && agent.looks_at_binaries == Some(false));
    if let Some(selector) = entry.selectors.iter().find(unseen) {
        return with(Cause::UnseenSelector, format!("selector: {selector}"));
    }
    let missing: Vec<&Selector> = entry.selectors.iter().filter(|s| !process.selectors.contains(s)).collect();
    if !missing.is_empty() {
        let texts: Vec<_> = missing.iter().map(ToString::to_string).collect();
        let mut verdict = with(Cause::SelectorMissing, format!("missing: {}", texts.join(", ")));
        verdict.details.push(format!("the process has: {}", list(&process.selectors)));
        if !process.binary_seen && missing.iter().any(|s| of_binary(s)) {
            verdict.details.push("its binary can't be read by you: ask again as root".to_owned());
        }
        return verdict;
    }
    if agent.last_sync < entry.created_at {
        return refused(Cause::AgentBehind, named);
    }
    granted(entry, agent, now)
}

/// The unix attestor's selectors that need a look at the binary.
fn of_binary(selector: &Selector) -> bool {
    selector.value().starts_with("path:") || selector.value().starts_with("sha256:")
}

fn granted(entry: &Entry, agent: &AgentFacts, now: Timestamp) -> Verdict {
    let mut details = vec![format!("entry: {}", entry.id)];
    if agent.looks_at_binaries.is_none() && entry.selectors.iter().any(of_binary) {
        details.push("if the agent's unix attestor has discover_workload_path = true".to_owned());
    }
    let silence = now.since(agent.last_sync);
    if silence > SILENCE {
        details.push(format!(
            "the agent has not heard from the server for {} s and does not know what changed since",
            silence.as_secs()
        ));
    }
    Verdict { cause: None, details }
}

fn list(set: &SelectorSet) -> String {
    set.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "diagnose_tests.rs"]
mod tests;
