//! From facts to one cause. Pure: the same facts give the same cause.
//!
//! If several entries give the ID, the one that came furthest is the one explained.

use avouch_domain::{Entry, SelectorSet, SpiffeId, Timestamp};

use super::causes::Cause;
use super::process::ProcessFacts;

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
    /// As typed.
    pub asked: String,
    pub process: Option<ProcessFacts>,
    pub socket: SocketState,
    /// Or why it did not answer.
    pub agent: Result<AgentFacts, String>,
    /// Or why it did not answer.
    pub server: Result<ServerFacts, String>,
}

/// The cause and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub cause: Cause,
    pub details: Vec<String>,
}

fn finding(cause: Cause, detail: impl Into<String>) -> Finding {
    Finding { cause, details: vec![detail.into()] }
}

/// Finds the cause.
#[must_use]
pub fn diagnose(facts: &Facts) -> Finding {
    let id = match facts.asked.parse::<SpiffeId>() {
        Ok(id) => id,
        Err(e) => return finding(Cause::MalformedId, format!("{}: {e}", facts.asked)),
    };
    let Some(process) = &facts.process else {
        return finding(Cause::ProcessGone, format!("pid {}", facts.pid));
    };
    match &facts.socket {
        SocketState::Missing => return Finding { cause: Cause::SocketMissing, details: Vec::new() },
        SocketState::Refused => return Finding { cause: Cause::SocketRefused, details: Vec::new() },
        SocketState::Denied(why) => return finding(Cause::SocketDenied, why.as_str()),
        SocketState::Answers => {}
    }
    let agent = match &facts.agent {
        Ok(agent) => agent,
        Err(why) => return finding(Cause::AgentUnreachable, why.as_str()),
    };
    let server = match &facts.server {
        Ok(server) => server,
        Err(why) => return finding(Cause::ServerUnreachable, why.as_str()),
    };
    if id.trust_domain() != agent.id.trust_domain() {
        return finding(Cause::ForeignTrustDomain, format!("agent: {}", agent.id));
    }
    if id.is_reserved() {
        return finding(Cause::ReservedId, id.path());
    }
    let named = format!("agent: {}", agent.id);
    match server.agent {
        None => return finding(Cause::AgentNotAttested, named),
        Some(known) if known.banned => return finding(Cause::AgentBanned, named),
        Some(_) if agent.expires_at <= facts.now => return finding(Cause::AgentExpired, named),
        Some(_) => {}
    }
    let judged = server.entries.iter().map(|seen| judge(seen, agent, process, facts.now));
    let best = judged.max_by_key(|f| progress(f.cause));
    best.unwrap_or_else(|| Finding { cause: Cause::NoEntry, details: Vec::new() })
}

/// How far an entry came: the order of causes is the order of the checks, and what is granted passed them all.
fn progress(cause: Cause) -> (bool, Cause) {
    (cause == Cause::Granted, cause)
}

fn judge(seen: &SeenEntry, agent: &AgentFacts, process: &ProcessFacts, now: Timestamp) -> Finding {
    let entry = &seen.entry;
    let named = format!("entry: {}", entry.id);
    let with = |cause, detail: String| Finding { cause, details: vec![named.clone(), detail] };
    if entry.is_node_alias() {
        return finding(Cause::NodeAlias, named);
    }
    if entry.is_expired(now) {
        return finding(Cause::EntryExpired, named);
    }
    let parent = format!("parent: {}", entry.parent_id);
    match seen.parent {
        Parent::Missing => return with(Cause::ParentMissing, parent),
        Parent::OfAnother => return with(Cause::OtherAgent, format!("{parent}; agent: {}", agent.id)),
        Parent::OfThisAgent => {}
    }
    if entry.store_svid {
        return finding(Cause::StoredSvid, named);
    }
    if let Some(selector) = entry.selectors.iter().find(|s| s.kind() != "unix") {
        return with(Cause::ForeignSelector, format!("selector: {selector}"));
    }
    let missing: Vec<_> =
        entry.selectors.iter().filter(|s| !process.selectors.contains(s)).map(ToString::to_string).collect();
    if !missing.is_empty() {
        let mut finding = with(Cause::SelectorMissing, format!("missing: {}", missing.join(", ")));
        finding.details.push(format!("the process has: {}", list(&process.selectors)));
        return finding;
    }
    if agent.last_sync < entry.created_at {
        return finding(Cause::AgentBehind, named);
    }
    let mut granted = finding(Cause::Granted, named);
    let by_path =
        entry.selectors.iter().any(|s| s.value().starts_with("path:") || s.value().starts_with("sha256:"));
    if by_path {
        granted
            .details
            .push("as long as the agent's unix attestor has discover_workload_path = true".to_owned());
    }
    granted
}

fn list(set: &SelectorSet) -> String {
    set.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "diagnose_tests.rs"]
mod tests;
