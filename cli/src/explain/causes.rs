//! The table of causes: why a process does not get a SPIFFE ID. One row each, with its name, its sentence, the next
//! step and the exit code.
//!
//! Every row is produced by a test with real binaries that expects its sentence (`tests/e2e/explain.rs`).

use crate::exit::{DENIED, PENDING, UNREACHABLE};

/// Why a process does not get a SPIFFE ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    ProcessGone,
    SocketMissing,
    SocketDeserted,
    SocketDenied,
    AgentUnreachable,
    AgentStarting,
    ServerUnreachable,
    ForeignTrustDomain,
    ReservedId,
    AgentUnknown,
    AgentBanned,
    AgentExpired,
    NoEntry,
    NodeAlias,
    ParentMissing,
    OtherAgent,
    StoredSvid,
    UnseenSelector,
    SelectorMissing,
    AgentBehind,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub cause: Cause,
    /// Stable name, for scripts.
    pub name: &'static str,
    pub sentence: &'static str,
    /// What to do next.
    pub next: &'static str,
    /// Of [`crate::exit`]; pending: it will come by itself.
    pub exit: u8,
}

const fn row(cause: Cause, name: &'static str, exit: u8, sentence: &'static str, next: &'static str) -> Row {
    Row { cause, name, sentence, next, exit }
}

/// All causes, in the order in which they are looked for; the order of [`Cause`].
pub const TABLE: [Row; 20] = [
    row(
        Cause::ProcessGone,
        "process_gone",
        DENIED,
        "no such process runs now",
        "check the process ID; a restarted process has a new one",
    ),
    row(
        Cause::SocketMissing,
        "socket_missing",
        UNREACHABLE,
        "the agent's Workload API socket does not exist",
        "start the agent, or name its socket with --agent-socket",
    ),
    row(
        Cause::SocketDeserted,
        "socket_deserted",
        UNREACHABLE,
        "the Workload API socket is there, but nobody listens on it",
        "start the agent; the socket is left over from one that ended",
    ),
    row(
        Cause::SocketDenied,
        "socket_denied",
        DENIED,
        "the process may not open the Workload API socket",
        "give its user write permission on the socket and search permission on the folders above it",
    ),
    row(
        Cause::AgentUnreachable,
        "agent_unreachable",
        UNREACHABLE,
        "the agent's administration socket does not answer",
        "set admin_socket_path in the agent's configuration, or name the socket with --admin-socket",
    ),
    row(
        Cause::AgentStarting,
        "agent_starting",
        PENDING,
        "the agent runs, but the server has not admitted it yet",
        "look into the agent's log: it says what it waits for, such as the server or a join token",
    ),
    row(
        Cause::ServerUnreachable,
        "server_unreachable",
        UNREACHABLE,
        "the server's private socket does not answer",
        "run this where the server's socket is, or name it with --server-socket",
    ),
    row(
        Cause::ForeignTrustDomain,
        "foreign_trust_domain",
        DENIED,
        "the SPIFFE ID belongs to another trust domain than the agent",
        "ask an agent of that trust domain",
    ),
    row(
        Cause::ReservedId,
        "reserved_id",
        DENIED,
        "paths below /spire are for servers and agents, never for workloads",
        "register another path",
    ),
    row(
        Cause::AgentUnknown,
        "agent_unknown",
        DENIED,
        "the server does not know this agent: it was evicted or belongs to another server",
        "let the agent attest again, with a new join token if it uses one",
    ),
    row(
        Cause::AgentBanned,
        "agent_banned",
        DENIED,
        "the agent is banned",
        "lift the ban with `avouch-server agent evict`, then let the agent attest again",
    ),
    row(
        Cause::AgentExpired,
        "agent_expired",
        DENIED,
        "the agent's own SVID has expired",
        "look at the agent's connection to the server: without it nothing is renewed",
    ),
    row(
        Cause::NoEntry,
        "no_entry",
        DENIED,
        "no registration entry gives this SPIFFE ID",
        "create one with `avouch-server entry create`",
    ),
    row(
        Cause::NodeAlias,
        "node_alias",
        DENIED,
        "the entry's parent is the server, so it names agents and is never given to a workload",
        "create an entry whose parent is the agent or this alias",
    ),
    row(
        Cause::ParentMissing,
        "parent_missing",
        DENIED,
        "the entry's parent is neither a known agent nor given by another entry",
        "correct the entry's -parentID",
    ),
    row(
        Cause::OtherAgent,
        "other_agent",
        DENIED,
        "the entry's parent is not this agent and not one of its aliases",
        "run the process beside that agent, or make an entry below this one",
    ),
    row(
        Cause::StoredSvid,
        "stored_svid",
        DENIED,
        "the entry's SVIDs go into a store, not to workloads",
        "read the SVID from the store, or make an entry without -storeSVID",
    ),
    row(
        Cause::UnseenSelector,
        "unseen_selector",
        DENIED,
        "the entry asks for a selector that this agent does not look for",
        "configure the attestor of that kind; path and sha256 need discover_workload_path = true",
    ),
    row(
        Cause::SelectorMissing,
        "selector_missing",
        DENIED,
        "the process lacks a selector that the entry asks for",
        "correct the entry's selectors, or start the process so that it has them",
    ),
    row(
        Cause::AgentBehind,
        "agent_behind",
        PENDING,
        "everything fits, but the agent has not heard from the server since the entry was made",
        "wait a moment; if it lasts, look at the agent's connection to the server",
    ),
];

impl Cause {
    /// The row of this cause.
    #[must_use]
    pub fn row(self) -> &'static Row {
        const NONE: Row =
            row(Cause::AgentBehind, "unknown", 1, "the cause has no row", "report this as a fault");
        TABLE.iter().find(|r| r.cause == self).unwrap_or(&NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_one_row_in_the_order_of_the_enum() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.cause as usize, at, "{}", row.name);
        }
        assert_eq!(Cause::AgentBehind as usize, TABLE.len() - 1);
        let mut names: Vec<_> = TABLE.iter().map(|r| r.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 20);
    }
}
