//! Gates: what stands between an AI agent and its tools and web APIs. The supervisor of a run hosts them outside the AI
//! agent's process tree; inside it there is only a shim, or a URL.
//!
//! A gate asks a [`Decider`] and obeys it. Never decides itself, never lets through what it can't read, and never starts
//! anything that its definition does not name.

mod child;
mod did;
mod handed;
pub mod hello;
pub mod host;
pub mod http;
pub mod limits;
mod lines;
pub mod mcp;
#[cfg(test)]
mod script;
pub mod shared;
pub mod shim;
#[cfg(test)]
mod tests;
pub(crate) mod wire;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use avouch_rules::{Behind, Limits, ParamKind, Params, Rules};
use tokio::net::UnixStream;
use tokio::time::timeout;

pub use did::{Decided, Did, Due};
pub(crate) use did::{Teller, Telling};
use limits::DECISION_TIME_MAX;

/// The variable that names the socket of a run's gates.
pub const SOCKET_VARIABLE: &str = "AVOUCH_GATES";

/// A gate of a run, by what stands behind it.
#[derive(Debug)]
pub enum Definition {
    Tools(GateDefinition),
    Api(Arc<http::Api>),
}

impl From<GateDefinition> for Definition {
    fn from(gate: GateDefinition) -> Self {
        Self::Tools(gate)
    }
}

/// A gate in front of a tool server, and the tools that there are for the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GateDefinition {
    pub name: String,
    /// Program and arguments; no shell reads them.
    pub command: Vec<String>,
    /// The tools as they were when they were added, by name.
    pub tools: BTreeMap<String, Tool>,
}

/// A tool as it was when it was added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tool {
    /// See [`mcp::digest`].
    pub digest: [u8; 32],
    /// What rules want to know of a call, by the name of the parameter.
    pub params: BTreeMap<String, Place>,
}

/// Where in the arguments of a call a parameter stands, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// A JSON pointer (RFC 6901).
    pub pointer: String,
    pub kind: ParamKind,
}

/// The gates of a run by name.
pub type Gates = BTreeMap<String, Definition>;

impl GateDefinition {
    /// A gate of the rules in front of a tool server, with the parameters that the resources of its tools have.
    #[must_use]
    pub fn of(rules: &Rules, name: &str) -> Option<Self> {
        let Behind::Tools(gate) = &rules.gates().get(name)?.behind else { return None };
        let tool = |(tool, pinned): (&String, &avouch_rules::GateTool)| {
            let params = rules.catalogue().get(&format!("{name}/{tool}"))?.params.iter();
            let place = |(param, kind): (&String, &ParamKind)| {
                let pointer = pinned.pointers.get(param).cloned().unwrap_or_else(|| format!("/{param}"));
                (param.clone(), Place { pointer, kind: *kind })
            };
            Some((tool.clone(), Tool { digest: pinned.digest, params: params.map(place).collect() }))
        };
        let tools = gate.tools.iter().filter_map(tool).collect();
        Some(Self { name: name.to_owned(), command: gate.command.clone(), tools })
    }

    /// The ID of a tool in the catalogue.
    #[must_use]
    pub fn resource(&self, tool: &str) -> String {
        format!("{}/{tool}", self.name)
    }
}

/// A call that waits to be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    pub action: Cow<'static, str>,
    /// ID in the catalogue: the gate, `/`, the tool or what a route names.
    pub resource: String,
    /// What the rules want to know of the call.
    pub params: Params,
    /// All that would be done in its canonical form: what a person is shown if it takes one's yes. Empty if it is more
    /// than anybody reads, or can't be read.
    pub shown: String,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    /// Allowed, because somebody said yes to what the ask shows: nothing else is sent.
    Agreed,
    /// Allowed if the gate holds the answer to these. A gate that can't denies.
    Limit(Limits),
    Deny {
        /// A stable code.
        reason: String,
        /// One sentence for whoever asked.
        text: String,
    },
    /// Denied now; allowed once somebody said yes.
    Ask {
        /// What is missing and where to ask for it.
        text: String,
    },
    /// Nobody could decide, so it is denied.
    Unavailable {
        text: String,
    },
}

/// Who sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    AiAgent,
    ToolServer,
}

/// Something that a gate saw and that no decision tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateEvent {
    pub gate: String,
    pub what: Happened,
}

/// What a gate saw. Texts of others in it are cut and bare of control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happened {
    /// A tool was called that this gate does not have.
    UnknownTool { tool: String },
    /// Something was asked of a web API for which no route stands. The resource is one that no catalogue can have.
    UnknownRoute { action: &'static str, resource: String },
    /// A tool is no longer what it was when it was added; told once for each definition.
    ChangedTool { tool: String, pinned: [u8; 32], seen: [u8; 32] },
    /// The server lists two tools of one name; neither is called.
    DoubledTool { tool: String },
    /// Arguments that the rules want to know of are not what the catalogue says.
    WrongArguments { tool: String, why: String },
    /// A method that this gate does not let through.
    RefusedMethod { from: Side, method: String },
    /// A line that is no message, or not one that everybody reads alike.
    Unreadable { from: Side, why: String },
    /// A revision of the protocol that this gate does not know.
    UnknownRevision { from: Side, revision: String },
}

/// Decides what comes to a gate. Whoever makes it knows for whom.
///
/// Each answer must come in bounded time: then the gate denies.
pub trait Judge: Send + Sync {
    /// How long a gate waits for an answer.
    const TIME_MAX: Duration = DECISION_TIME_MAX;

    /// Decides a call, spends what it costs and records it.
    fn decide(&self, ask: Ask) -> impl Future<Output = Decided> + Send;

    /// Takes note of what no decision tells of.
    fn note(&self, event: GateEvent) -> impl Future<Output = ()> + Send;

    /// Takes the receipt of a decision that wanted one. Nobody waits for it, and whoever has nobody to tell wants none.
    fn did(&self, _did: Did) {}
}

/// Decides for one run. Whoever makes it knows which instance and which task the run is.
pub trait Decider: Judge + 'static {
    /// Whether this process may use the gates of the run; the reason if not. Asked once for each connection, before
    /// anything of it is read.
    fn admit(&self, connection: &UnixStream) -> impl Future<Output = Result<(), String>> + Send;

    /// For each of these resources, whether the task may call it at all. Nothing is spent, nothing recorded.
    fn may(&self, resources: Vec<String>) -> impl Future<Output = Vec<bool>> + Send;
}

/// Has a call decided. Nobody within the time is nobody at all.
async fn decided<D: Judge>(decider: &D, ask: Ask) -> Decided {
    let decided = timeout(D::TIME_MAX, decider.decide(ask)).await;
    let late = || format!("nobody decided within {} s", D::TIME_MAX.as_secs());
    decided.unwrap_or_else(|_| Verdict::Unavailable { text: late() }.into())
}

/// Hands over what a gate saw, and does not wait for ever until it is taken.
async fn noted<D: Judge>(decider: &D, event: GateEvent) {
    let _ = timeout(D::TIME_MAX, decider.note(event)).await;
}

/// Foreign text for a message: cut, and without control characters.
fn quote(text: &str, most: usize) -> String {
    let mut cut = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if cut.len() + c.len_utf8() > most {
            cut.push('…');
            break;
        }
        cut.push(c);
    }
    cut
}
