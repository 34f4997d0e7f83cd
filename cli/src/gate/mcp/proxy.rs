//! The machine of the MCP gate: lines of both sides and decisions in, lines and questions out.
//!
//! A call goes on only after an allow, with the bytes that were decided. Every request that can be read is answered once;
//! one that its sender cancelled need not be. Never waits, never asks a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use avouch_domain::CallResult;
use avouch_domain::limits::REQUEST_TEXT_MAX;
use avouch_rules::{Params, TOOL_CALL};
use serde_json::{Map, Value};

use super::answers;
use super::handshake::{self, UnknownRevision};
use super::json::canonical;
use super::message::{
    self, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, Id, METHOD_NOT_FOUND, Message, Unread,
};
use super::params;
use super::tools::{Listed, Listing, META_VERSION, Seen};
use crate::gate::limits::{HELD_MAX, PENDING_MAX, QUOTE_MAX};
use crate::gate::{Ask, Decided, Did, Due, GateDefinition, GateEvent, Happened, Side, Verdict, quote};

/// The member of `_meta` by which a client knows what a notification of progress is about.
const PROGRESS_TOKEN: &str = "progressToken";
/// What IDs of the gate's own requests begin with.
pub(super) const OWN: &str = "avouch-gate-";

/// Which call or list a decision belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    id: Id,
    /// IDs come again once they are answered; this does not.
    serial: u64,
}

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A line for the AI agent, without its line end.
    ToClient(Vec<u8>),
    /// A line for the tool server, without its line end.
    ToServer(Vec<u8>),
    /// Have it decided; then [`Proxy::decided`].
    Decide(Ticket, Ask),
    /// Find out which of these resources may be called; then [`Proxy::may`].
    May(Ticket, Vec<String>),
    /// A listing began; [`Proxy::overdue`] with this number when its time is up.
    Wait(u64),
    /// Hand it over.
    Note(GateEvent),
    /// A receipt: have it told.
    Did(Did),
}

/// A call that has not gone on yet.
#[derive(Debug)]
pub(super) struct Call {
    pub line: Vec<u8>,
    pub tool: String,
    pub ask: Ask,
    /// The revision that the request names for itself.
    pub revision: Option<String>,
    /// The receipt that is to be given, since it was decided.
    pub due: Option<Due>,
}

/// Where a request of the AI agent stands.
#[derive(Debug)]
pub(super) enum Pending {
    /// With the server; what is changed in the answer.
    Passed(Passed),
    /// A call that waits for a listing; `allowed` if it was decided already.
    Held { call: Call, allowed: bool },
    /// A call that is being decided.
    Deciding { call: Call },
    /// With the server, after an allow.
    Called { tool: String, revision: Option<String>, did: Option<Did> },
    /// A list that waits for a listing.
    List { revision: Option<String> },
    /// A list that waits for the word on which of these may be called.
    Showing { tools: Vec<Listed>, revision: Option<String> },
}

/// What is changed in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    Plain,
    Initialize,
    Discover,
}

/// The gate's own listing.
#[derive(Debug)]
pub(super) struct Run {
    pub number: u64,
    pub id: Id,
    pub listing: Listing,
    pub revision: Option<String>,
    /// The server said meanwhile that its tools changed.
    pub changed: bool,
    pub restarts: u32,
}

/// The machine.
#[derive(Debug)]
pub struct Proxy {
    pub(super) gate: Arc<GateDefinition>,
    /// The handshake of the older revision is over.
    pub(super) ready: bool,
    pub(super) welcomed: bool,
    pub(super) pending: BTreeMap<Id, (u64, Pending)>,
    pub(super) serial: u64,
    /// What the server says its tools are; nothing if it was not asked yet, or said that they changed.
    pub(super) seen: Option<BTreeMap<String, Seen>>,
    pub(super) run: Option<Run>,
    /// The tools of the list that the AI agent was shown last.
    shown: Option<BTreeSet<String>>,
    /// Changes that were told already.
    pub(super) told: BTreeMap<String, Seen>,
}

impl Proxy {
    /// A machine for one connection.
    #[must_use]
    pub fn new(gate: Arc<GateDefinition>) -> Self {
        Self {
            gate,
            ready: false,
            welcomed: false,
            pending: BTreeMap::new(),
            serial: 0,
            seen: None,
            run: None,
            shown: None,
            told: BTreeMap::new(),
        }
    }

    /// True if nobody waits for an answer.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes a line of the AI agent, without its line end.
    pub fn from_client(&mut self, line: &[u8]) -> Vec<Effect> {
        if line.is_empty() {
            return Vec::new();
        }
        match message::read(line, Side::AiAgent) {
            Ok(Message::Request { id, method, params }) => self.request(line, id, &method, params),
            Ok(Message::Notification { method, params }) => self.notification(line, &method, &params),
            // Nobody asked it anything.
            Ok(Message::Answer { .. }) => Vec::new(),
            Err(unread) => self.unread(unread),
        }
    }

    /// Says that a line of the AI agent was longer than a line may be, and was thrown away.
    pub fn client_too_long(&mut self) -> Vec<Effect> {
        let text = format!("the line is longer than {} bytes", crate::gate::limits::LINE_MAX);
        self.unread(Unread { id: None, code: INVALID_REQUEST, text })
    }

    fn unread(&mut self, Unread { id, code, text }: Unread) -> Vec<Effect> {
        let id = id.filter(|id| !self.pending.contains_key(id));
        let said = message::error(id.as_ref(), code, &format!("not sent on: {text}"), None);
        vec![Effect::ToClient(said), self.note(Happened::Unreadable { from: Side::AiAgent, why: text })]
    }

    fn request(&mut self, line: &[u8], id: Id, method: &str, params: Map<String, Value>) -> Vec<Effect> {
        let own = matches!(&id, Id::Text(text) if text.starts_with(OWN));
        if own || self.pending.contains_key(&id) {
            let text = format!("the ID {id} is taken; each request needs one of its own");
            return refuse(None, INVALID_REQUEST, &text);
        }
        if self.pending.len() >= PENDING_MAX {
            let text = format!("{PENDING_MAX} requests wait already; send it again after an answer");
            return refuse(Some(&id), INTERNAL_ERROR, &text);
        }
        let revision = match handshake::named(&params) {
            Ok(revision) => revision.map(str::to_owned),
            Err(unknown) => return self.unknown_revision(&id, &unknown, Side::AiAgent),
        };
        match method {
            "initialize" => match handshake::greeting(params) {
                Ok(params) => {
                    let line = message::request(&id, method, params);
                    self.pass(id, Passed::Initialize, line)
                }
                Err(unknown) => self.unknown_revision(&id, &unknown, Side::AiAgent),
            },
            "server/discover" => self.pass(id, Passed::Discover, line.to_vec()),
            "ping" | "logging/setLevel" => self.pass(id, Passed::Plain, line.to_vec()),
            "subscriptions/listen" if handshake::only_lists(&params) => {
                self.pass(id, Passed::Plain, line.to_vec())
            }
            "tools/list" | "tools/call" if revision.is_none() && !self.ready => {
                refuse(Some(&id), INVALID_REQUEST, "the session is not initialized yet")
            }
            "tools/list" => self.list(id, revision, &params),
            "tools/call" => self.call(line, id, revision, params),
            other => {
                let method = quote(other, QUOTE_MAX);
                let text = format!("the gate \"{}\" lets tools through, and not {method}", self.gate.name);
                let mut effects = refuse(Some(&id), METHOD_NOT_FOUND, &text);
                effects.push(self.note(Happened::RefusedMethod { from: Side::AiAgent, method }));
                effects
            }
        }
    }

    fn pass(&mut self, id: Id, passed: Passed, line: Vec<u8>) -> Vec<Effect> {
        self.wait(id, Pending::Passed(passed));
        vec![Effect::ToServer(line)]
    }

    fn list(&mut self, id: Id, revision: Option<String>, params: &Map<String, Value>) -> Vec<Effect> {
        // The gate lists everything on one page and hands out no cursor.
        if params.keys().any(|name| name != "_meta") {
            return refuse(Some(&id), INVALID_PARAMS, "unknown cursor: all tools stand on the first page");
        }
        self.wait(id, Pending::List { revision: revision.clone() });
        self.start_listing(revision)
    }

    fn call(
        &mut self,
        line: &[u8],
        id: Id,
        revision: Option<String>,
        mut params: Map<String, Value>,
    ) -> Vec<Effect> {
        let named = ["name", "arguments", "_meta"];
        // What is not known might act: a task that outlives its call, an answer to a question that nobody passed on.
        if let Some(other) = params.keys().find(|name| !named.contains(&name.as_str())) {
            let text = format!("\"{}\" of a call does not pass this gate", quote(other, QUOTE_MAX));
            return refuse(Some(&id), INVALID_PARAMS, &text);
        }
        let Some(Value::String(name)) = params.remove("name") else {
            return refuse(Some(&id), INVALID_PARAMS, "\"name\" of a call is no text");
        };
        let arguments = match params.remove("arguments") {
            Some(Value::Object(arguments)) => arguments,
            None => Map::new(),
            Some(_) => return refuse(Some(&id), INVALID_PARAMS, "\"arguments\" of a call is no object"),
        };
        let Some(tool) = self.gate.tools.get(&name) else {
            let tool = quote(&name, QUOTE_MAX);
            let mut effects = vec![Effect::ToClient(answers::unknown_tool(&id, &tool))];
            effects.push(self.note(Happened::UnknownTool { tool }));
            return effects;
        };
        let params = match params::extract(tool, &arguments) {
            Ok(params) => params,
            Err(why) => {
                let said = answers::refusal(
                    &id,
                    revision.is_some(),
                    &answers::wrong(&self.gate.resource(&name), &why),
                );
                return vec![Effect::ToClient(said), self.note(Happened::WrongArguments { tool: name, why })];
            }
        };
        if self.held() + line.len() > HELD_MAX {
            let text = format!("calls of {HELD_MAX} bytes wait already; send it again after an answer");
            return refuse(Some(&id), INTERNAL_ERROR, &text);
        }
        let ask = Ask {
            action: TOOL_CALL.into(),
            resource: self.gate.resource(&name),
            params,
            shown: shown(&Value::Object(arguments)),
        };
        let call = Call { line: line.to_vec(), tool: name, ask, revision: revision.clone(), due: None };
        if self.seen.is_none() {
            self.wait(id, Pending::Held { call, allowed: false });
            return self.start_listing(revision);
        }
        self.go_on(id, call, false)
    }

    /// Bytes of the calls that wait.
    fn held(&self) -> usize {
        let bytes = |(_, pending): &(u64, Pending)| match pending {
            Pending::Held { call, .. } | Pending::Deciding { call } => call.line.len(),
            _ => 0,
        };
        self.pending.values().map(bytes).sum()
    }

    /// Takes a call on whose tool the server's present word is known: has it decided, or sends it if it was.
    pub(super) fn go_on(&mut self, id: Id, call: Call, allowed: bool) -> Vec<Effect> {
        let tool = &call.tool;
        let pinned = self.gate.tools.get(tool).map(|tool| Seen::Once(tool.digest));
        match self.seen.as_ref().and_then(|seen| seen.get(tool)) {
            None => {
                let said = Effect::ToClient(answers::unknown_tool(&id, tool));
                [said].into_iter().chain(unsent(call.due)).collect()
            }
            Some(seen) if Some(*seen) != pinned => {
                let seen = *seen;
                let mut effects = vec![Effect::ToClient(answers::changed_tool(&id, &self.gate.name, tool))];
                effects.extend(self.tell_changed(&call.tool, seen));
                effects.extend(unsent(call.due));
                effects
            }
            Some(_) if allowed => {
                let Call { line, tool, revision, due, .. } = call;
                let did = due.map(|due| sent(&self.gate, due, &line));
                self.wait(id, Pending::Called { tool, revision, did });
                vec![Effect::ToServer(line)]
            }
            Some(_) => {
                let ask = call.ask.clone();
                let ticket = self.wait(id, Pending::Deciding { call });
                vec![Effect::Decide(ticket, ask)]
            }
        }
    }

    /// Takes the decision on a call.
    pub fn decided(&mut self, ticket: Ticket, decided: impl Into<Decided>) -> Vec<Effect> {
        let Decided { mut verdict, due } = decided.into();
        // Cancelled meanwhile: what was allowed never starts.
        let Some((id, Pending::Deciding { mut call })) = self.returned(ticket) else {
            return unsent(due).into_iter().collect();
        };
        call.due = due;
        if verdict == Verdict::Agreed {
            match as_shown(&call.line, &call.ask.shown) {
                Some(line) => call.line = line,
                None => {
                    verdict = Verdict::Unavailable { text: "what was agreed to can't be sent".to_owned() }
                }
            }
        }
        let Some(text) = answers::denied(&call.ask.resource, &verdict) else {
            if self.seen.is_some() {
                return self.go_on(id, call, true);
            }
            let revision = call.revision.clone();
            self.wait(id, Pending::Held { call, allowed: true });
            return self.start_listing(revision);
        };
        // A tool that was not on the list is no tool that could have been called.
        if self.shown.as_ref().is_some_and(|shown| !shown.contains(&call.tool)) {
            let said = Effect::ToClient(answers::unknown_tool(&id, &call.tool));
            return [said].into_iter().chain(unsent(due)).collect();
        }
        let said = Effect::ToClient(answers::refusal(&id, call.revision.is_some(), &text));
        [said].into_iter().chain(unsent(due)).collect()
    }

    /// Takes the word on which resources may be called, in the order of [`Effect::May`].
    pub fn may(&mut self, ticket: Ticket, may: &[bool]) -> Vec<Effect> {
        let Some((id, Pending::Showing { tools, revision })) = self.returned(ticket) else {
            return Vec::new();
        };
        let allowed = may.iter().copied().chain(std::iter::repeat(false));
        let tools: Vec<_> =
            tools.into_iter().zip(allowed).filter_map(|(tool, may)| may.then_some(tool)).collect();
        self.shown = Some(tools.iter().map(|tool| tool.name.clone()).collect());
        vec![Effect::ToClient(answers::list(&id, revision.is_some(), tools))]
    }

    fn notification(&mut self, line: &[u8], method: &str, params: &Map<String, Value>) -> Vec<Effect> {
        match method {
            "notifications/initialized" => {
                self.ready |= self.welcomed;
                vec![Effect::ToServer(line.to_vec())]
            }
            "notifications/progress" => vec![Effect::ToServer(line.to_vec())],
            "notifications/cancelled" => self.cancelled(line, params),
            // What the server may not ask for can't change for it either.
            "notifications/roots/list_changed" => Vec::new(),
            other => {
                let method = quote(other, QUOTE_MAX);
                vec![self.note(Happened::RefusedMethod { from: Side::AiAgent, method })]
            }
        }
    }

    fn cancelled(&mut self, line: &[u8], params: &Map<String, Value>) -> Vec<Effect> {
        let Some(Ok(id)) = params.get("requestId").map(Id::read) else { return Vec::new() };
        match self.pending.remove(&id).map(|(_, pending)| pending) {
            Some(Pending::Passed(_)) => vec![Effect::ToServer(line.to_vec())],
            // It may be done all the same, and nobody hears of it.
            Some(Pending::Called { did, .. }) => {
                [Effect::ToServer(line.to_vec())].into_iter().chain(did.map(Effect::Did)).collect()
            }
            Some(Pending::Held { call, .. }) => unsent(call.due).into_iter().collect(),
            _ => Vec::new(),
        }
    }

    pub(super) fn unknown_revision(&self, id: &Id, unknown: &UnknownRevision, from: Side) -> Vec<Effect> {
        let whose = if from == Side::AiAgent { "" } else { " of the tool server" };
        let text = format!(
            "unsupported protocol version {}{whose}; the gate speaks {}",
            unknown.revision,
            handshake::REVISIONS.join(" and ")
        );
        let said = message::error(Some(id), unknown.code, &text, Some(unknown.data()));
        let revision = unknown.revision.clone();
        vec![Effect::ToClient(said), self.note(Happened::UnknownRevision { from, revision })]
    }

    /// Remembers where a request stands.
    pub(super) fn wait(&mut self, id: Id, pending: Pending) -> Ticket {
        self.serial += 1;
        self.pending.insert(id.clone(), (self.serial, pending));
        Ticket { id, serial: self.serial }
    }

    /// What a ticket was given for, unless it is over.
    fn returned(&mut self, Ticket { id, serial }: Ticket) -> Option<(Id, Pending)> {
        let waits = self.pending.get(&id).is_some_and(|(s, _)| *s == serial);
        waits.then(|| self.pending.remove(&id)).flatten().map(|(_, pending)| (id, pending))
    }

    pub(super) fn note(&self, what: Happened) -> Effect {
        Effect::Note(GateEvent { gate: self.gate.name.clone(), what })
    }
}

/// All arguments in one form, unless they are more than anybody reads.
fn shown(arguments: &Value) -> String {
    let text = canonical(arguments);
    if text.len() > REQUEST_TEXT_MAX { String::new() } else { text }
}

/// The receipt of a call, from the very line that goes to the tool server. What comes of it is not known yet.
pub(super) fn sent(gate: &GateDefinition, due: Due, line: &[u8]) -> Did {
    let call: Value = serde_json::from_slice(line).unwrap_or_default();
    let tool = call.pointer("/params/name").and_then(Value::as_str).unwrap_or_default();
    let none = Value::Object(Map::new());
    let arguments = call.pointer("/params/arguments").unwrap_or(&none);
    Did {
        record: due.record,
        action: TOOL_CALL.to_owned(),
        resource: gate.resource(tool),
        params: Params::new(),
        sent: if due.agreed { shown(arguments) } else { String::new() },
        result: CallResult::Lost,
        status: 0,
    }
}

/// The receipt of a call that is not sent after all, if one is to be given.
pub(super) fn unsent(due: Option<Due>) -> Option<Effect> {
    due.map(|due| Effect::Did(Did::nothing(due)))
}

/// The call with the arguments in the very words that somebody said yes to: however the AI agent spelled a number, the
/// server reads what the person read.
fn as_shown(line: &[u8], shown: &str) -> Option<Vec<u8>> {
    let mut call: Value = serde_json::from_slice(line).ok()?;
    let arguments = serde_json::from_str(shown).ok()?;
    let params = call.get_mut("params")?.as_object_mut()?;
    params.insert("arguments".to_owned(), arguments);
    // Nobody was shown the rest, and a tool may read it.
    if let Some(meta) = params.get_mut("_meta").and_then(Value::as_object_mut) {
        meta.retain(|name, value| name == META_VERSION || (name == PROGRESS_TOKEN && value.is_number()));
    }
    let line = canonical(&call);
    line.contains(shown).then(|| line.into_bytes())
}

pub(super) fn refuse(id: Option<&Id>, code: i32, text: &str) -> Vec<Effect> {
    vec![Effect::ToClient(message::error(id, code, text, None))]
}
