//! What a node agent writes into a log of its own: events, notes, the chain they stand in, and what of it is shipped.
//!
//! Never holds a secret, a name of a person or free text: who and what are IDs, details have stable names.

use std::fmt;

use crate::spiffe_id::SpiffeId;
use crate::time::Timestamp;

/// What happened on a node. The text form is the stable name in the log; nothing else can be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeEvent {
    /// The agent began a life and knows who it is.
    AgentStart,
    /// A process is the live form of an identity from now on.
    InstanceStart,
    InstanceEnd,
    /// A process wanted to be an instance and may not.
    InstanceRefused,
    TaskOpen,
    /// A process of a run asked for a task token, and got it or not.
    TaskToken,
    TaskEnd,
    /// A gate asked, and this was the answer.
    Decision,
    /// A gate says what it did after a decision.
    CallDone,
    /// A tool is not what it was when it was added.
    ToolChanged,
    /// Records are missing, or may be: what was cut, set aside or lost.
    SpoolGap,
    /// An AI agent asked for another identity's SVID.
    SvidRefused,
    /// An identity was used for the first time in a day: an SVID was handed out, or a decision asked for.
    IdentityUsed,
}

/// What `agent.start` says in its detail `tells`: this agent records the use of identities, so that none recorded means none used.
pub const TELLS_USE: &str = "use";

impl NodeEvent {
    pub const ALL: [Self; 13] = [
        Self::AgentStart,
        Self::InstanceStart,
        Self::InstanceEnd,
        Self::InstanceRefused,
        Self::TaskOpen,
        Self::TaskToken,
        Self::TaskEnd,
        Self::Decision,
        Self::CallDone,
        Self::ToolChanged,
        Self::SpoolGap,
        Self::SvidRefused,
        Self::IdentityUsed,
    ];

    /// Stable name, such as `task.open`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AgentStart => "agent.start",
            Self::InstanceStart => "instance.start",
            Self::InstanceEnd => "instance.end",
            Self::InstanceRefused => "instance.refused",
            Self::TaskOpen => "task.open",
            Self::TaskToken => "task.token",
            Self::TaskEnd => "task.end",
            Self::Decision => "decision",
            Self::CallDone => "call.done",
            Self::ToolChanged => "tool.changed",
            Self::SpoolGap => "spool.gap",
            Self::SvidRefused => "svid.refused",
            Self::IdentityUsed => "identity.used",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }
}

/// What came of a call that a gate was allowed to send. The text form is the stable name in the log and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallResult {
    /// It was sent and answered.
    Answered,
    /// It was sent, and the tool server says that it did not work out.
    Error,
    /// It was never sent.
    Failed,
    /// It was sent, and nobody knows what came of it.
    Lost,
}

impl CallResult {
    pub const ALL: [Self; 4] = [Self::Answered, Self::Error, Self::Failed, Self::Lost];

    /// Stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Error => "error",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }

    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|result| result.name() == name)
    }
}

/// What is to be recorded; number, time and place in the chain come with the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub event: NodeEvent,
    /// Who: a SPIFFE ID, an instance's ID, or `agent`.
    pub actor: String,
    /// To what.
    pub subject: String,
    /// What else there is to say, by stable names.
    pub detail: Vec<(&'static str, String)>,
}

/// Random bits that tell the chains of one node apart: each begins at 1 and never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId([u8; 8]);

impl ChainId {
    #[must_use]
    pub const fn new(bits: [u8; 8]) -> Self {
        Self(bits)
    }

    /// Reads 16 hexadecimal digits in lower case.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let plain = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let bits = u64::from_str_radix(text, 16).ok().filter(|_| plain)?;
        Some(Self(bits.to_be_bytes()))
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// One unbroken chain of records of one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeChain {
    /// The agent's SPIFFE ID.
    pub source: SpiffeId,
    pub id: ChainId,
}

impl fmt::Display for NodeChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (chain {})", self.source, self.id)
    }
}

/// Where a chain stands: its last record and that one's hash. 0 and zeros: before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stand {
    pub seq: u64,
    pub hash: [u8; 32],
}

/// A node's signed statement "record N of this chain has hash H".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeHead {
    pub stand: Stand,
    pub at: Timestamp,
    /// The agent's X.509-SVID at that moment, DER: whose key signed.
    pub certificate: Vec<u8>,
    /// ASN.1 form.
    pub signature: Vec<u8>,
}

/// The server's signature over a node's head and its certificate: it took both over a connection that this certificate
/// opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// PKIX, DER.
    pub key: Vec<u8>,
    /// ASN.1 form.
    pub signature: Vec<u8>,
}

/// A node's head as the server keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptHead {
    pub head: NodeHead,
    pub receipt: Receipt,
}

/// A stretch of a chain on its way to the server. Without lines it asks where the server stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipment {
    pub chain: ChainId,
    /// Number of the first line.
    pub first: u64,
    /// One after the other, as they are hashed.
    pub lines: Vec<String>,
    /// Over the last line.
    pub head: Option<NodeHead>,
    /// The records between the server's last and the first of these are lost on the node.
    pub gap: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_has_a_name_of_its_own_that_is_read_back() {
        for event in NodeEvent::ALL {
            assert_eq!(NodeEvent::from_name(event.name()), Some(event));
        }
        assert_eq!(NodeEvent::from_name("entry_created"), None);
        for result in CallResult::ALL {
            assert_eq!(CallResult::from_name(result.name()), Some(result));
        }
        assert_eq!(CallResult::from_name("done"), None);
    }

    #[test]
    fn a_chain_is_written_in_one_way_only() {
        let chain = ChainId::new([0, 1, 2, 3, 0xfc, 0xfd, 0xfe, 0xff]);
        assert_eq!(chain.to_string(), "00010203fcfdfeff");
        assert_eq!(ChainId::from_text("00010203fcfdfeff"), Some(chain));
        for bad in ["", "0", "00010203FCFDFEFF", "+0010203fcfdfeff", "00010203fcfdfeff0"] {
            assert_eq!(ChainId::from_text(bad), None, "{bad}");
        }
    }
}
