//! What the sync machine is told and what it asks for. Values only.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::{Bundle, Entry, EntryId, LogPosition, Revision, Timestamp, TrustDomain};
use imbl::OrdMap;

/// How one agent follows.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time between polls of a server that knows no stream.
    pub poll_interval: Duration,
    /// Poll with SyncAuthorizedEntries; false: fetch all entries each time.
    pub sync_entries: bool,
    /// Seed of the jitter.
    pub seed: u64,
}

/// Numbers the streams of one life of the machine; a late word from an older one is ignored.
pub type StreamId = u64;

/// Which state of an entry is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub revision: i64,
    pub created_at: Timestamp,
}

/// The entries held, by ID. Cloned in constant time: a call takes it along as it is.
pub type Known = OrdMap<EntryId, Version>;

/// Why the server does not serve this agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentRefusal {
    Expired,
    NotAttested,
    NotActive,
    MustReattest,
    Banned,
}

/// How a call ended that brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server does not know the method.
    Unimplemented,
    /// The server does not serve this agent.
    Refused(AgentRefusal),
    /// Everything else; the reason.
    Away(String),
}

/// Whether the agent is welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeStanding {
    Active,
    Banned,
    Evicted,
}

/// One message of the stream.
#[derive(Clone, Debug)]
pub enum Frame {
    Welcome {
        server_time: Timestamp,
        /// Agents that follow this server, this one counted; `None`: it does not tell.
        agents: Option<NonZeroU32>,
    },
    /// Part of everything the agent is entitled to.
    Snapshot {
        entries: Vec<Entry>,
        unchanged: Vec<EntryId>,
        position: LogPosition,
        last: bool,
    },
    Delta {
        upserts: Vec<Entry>,
        removed: Vec<EntryId>,
        position: LogPosition,
    },
    BundleNotice {
        domain: TrustDomain,
        digest: Vec<u8>,
        removed: bool,
    },
    Node(NodeStanding),
    Heartbeat {
        server_time: Timestamp,
        position: Option<LogPosition>,
        /// As in `Welcome`.
        agents: Option<NonZeroU32>,
    },
    /// The answer to the question with this number, behind everything that was sent before it.
    Renewed(u64),
    /// The server goes away on purpose: what is decided alone may be for so much longer.
    Away(Duration),
    /// The server can't continue from where the agent stands: a snapshot follows.
    Resync {
        reason: String,
        /// What the agent followed is not in the server's log.
        history_differs: bool,
    },
}

/// What a poll brought: the whole truth of that moment.
#[derive(Clone, Debug, Default)]
pub struct Polled {
    /// Entries that are new or different.
    pub entries: Vec<Entry>,
    /// Entries held already that are the same.
    pub unchanged: Vec<EntryId>,
    /// The own bundle and those of the domains federated with.
    pub bundles: Vec<Bundle>,
    /// Foreign bundles the server has no more.
    pub bundles_gone: Vec<TrustDomain>,
}

#[derive(Debug)]
pub enum Input {
    /// What an earlier life held, told before the first `Start`. It is no sync: the server is still to be heard.
    Restore {
        position: Option<LogPosition>,
        known: Known,
    },
    /// The agent has a (new) SVID: follow with it. An open stream is replaced.
    Start,
    Frame {
        stream: StreamId,
        frame: Frame,
    },
    /// Answer to `OpenFollow`, whenever the stream ends by itself.
    FollowEnded {
        stream: StreamId,
        failure: Failure,
    },
    /// Answer to `FetchBundles`: those that exist.
    BundlesFetched {
        bundles: Vec<Bundle>,
    },
    BundlesFailed,
    /// Answers to `Poll`.
    Polled(Polled),
    PollFailed(Failure),
    /// Another call was refused: nothing is tried until `Start`.
    Refused(AgentRefusal),
    Tick,
}

#[derive(Debug)]
pub enum Effect {
    /// Open the stream; frames and its end are inputs that carry its number.
    OpenFollow {
        stream: StreamId,
        position: Option<LogPosition>,
        known: Known,
    },
    /// Not answered; nothing of this stream is heeded any more.
    CloseFollow {
        stream: StreamId,
    },
    /// Not answered.
    Ack {
        stream: StreamId,
        revision: Revision,
    },
    FetchBundles {
        domains: Vec<TrustDomain>,
    },
    /// One round of the SPIRE protocol: entries, own bundle, federated bundles.
    Poll {
        whole: bool,
        known: Known,
    },
    /// For the cache. Not answered, like all below.
    Entries {
        upserts: Vec<Entry>,
        removed: Vec<EntryId>,
    },
    Bundles {
        upserts: Vec<Arc<Bundle>>,
        removed: Vec<TrustDomain>,
    },
    /// The first full sync is applied.
    Synced,
    /// The server answers (again).
    Connected,
    /// The server answered the question with this number, and everything that it had sent before is applied.
    Renewed(u64),
    /// The server goes away on purpose, everything that it had sent before is applied, and what is decided alone may be for so
    /// much longer.
    Away(Duration),
    /// The server's clock, just now.
    ServerTime(Timestamp),
    /// The agent must attest again, or stop. Nothing is tried until `Start`.
    Refused(AgentRefusal),
    /// The server tells everything anew because this agent has fallen behind: daily life.
    Resync(String),
    /// Something an operator should know: the server and this agent do not have one history.
    Alarm(String),
}
