//! The machine's other ear: what the tool server says, and the gate's own listing of its tools.
//!
//! Only an answer that somebody waits for passes, once. Never takes a tool for what it is not called for.

use avouch_domain::CallResult;
use serde_json::{Map, Value, json};

use super::answers;
use super::handshake;
use super::message::{self, INTERNAL_ERROR, Id, METHOD_NOT_FOUND, Message};
use super::proxy::{Effect, OWN, Passed, Pending, Proxy, Run, refuse, unsent};
use super::tools::{self, Listed, Listing, Next, Seen};
use crate::gate::limits::{LISTING_RESTARTS_MAX, LISTING_TIME_MAX, QUOTE_MAX};
use crate::gate::{Did, Happened, Side, quote};

impl Proxy {
    /// Takes a line of the tool server, without its line end.
    pub fn from_server(&mut self, line: &[u8]) -> Vec<Effect> {
        if line.is_empty() {
            return Vec::new();
        }
        match message::read(line, Side::ToolServer) {
            Ok(Message::Answer { id: Some(id), result }) => self.answer(line, &id, result),
            Ok(Message::Answer { id: None, .. }) => Vec::new(),
            Ok(Message::Request { id, method, .. }) => self.asked(&id, &method),
            Ok(Message::Notification { method, .. }) => self.told(line, &method),
            Err(unread) => {
                let why = unread.text;
                let mut effects =
                    vec![self.note(Happened::Unreadable { from: Side::ToolServer, why: why.clone() })];
                effects.extend(unread.id.map(|id| self.lost(&id, &why)).unwrap_or_default());
                effects
            }
        }
    }

    /// An answer came that can't be passed on.
    fn lost(&mut self, id: &Id, why: &str) -> Vec<Effect> {
        let text = format!("the tool server's answer could not be read: {why}");
        if self.run.as_ref().is_some_and(|run| run.id == *id) {
            return self.no_listing(&text);
        }
        let with_server = |pending: &Pending| matches!(pending, Pending::Passed(_) | Pending::Called { .. });
        if self.pending.get(id).is_some_and(|(_, pending)| with_server(pending)) {
            let lost = self.pending.remove(id).and_then(|(_, pending)| receipt(pending));
            return refuse(Some(id), INTERNAL_ERROR, &text).into_iter().chain(lost).collect();
        }
        Vec::new()
    }

    fn asked(&self, id: &Id, method: &str) -> Vec<Effect> {
        if method == "ping" {
            return vec![Effect::ToServer(message::result(id, json!({})))];
        }
        let method = quote(method, QUOTE_MAX);
        let text = format!("the gate does not pass on {method}");
        let said = message::error(Some(id), METHOD_NOT_FOUND, &text, None);
        vec![Effect::ToServer(said), self.note(Happened::RefusedMethod { from: Side::ToolServer, method })]
    }

    fn told(&mut self, line: &[u8], method: &str) -> Vec<Effect> {
        match method {
            "notifications/tools/list_changed" => {
                self.seen = None;
                if let Some(run) = &mut self.run {
                    run.changed = true;
                }
                vec![Effect::ToClient(line.to_vec())]
            }
            "notifications/message"
            | "notifications/progress"
            | "notifications/subscriptions/acknowledged" => {
                vec![Effect::ToClient(line.to_vec())]
            }
            _ => Vec::new(),
        }
    }

    fn answer(&mut self, line: &[u8], id: &Id, result: Option<Map<String, Value>>) -> Vec<Effect> {
        if self.run.as_ref().is_some_and(|run| run.id == *id) {
            return self.page(result, line.len());
        }
        let with_server = |pending: &Pending| matches!(pending, Pending::Passed(_) | Pending::Called { .. });
        if !self.pending.get(id).is_some_and(|(_, pending)| with_server(pending)) {
            return Vec::new();
        }
        let Some((_, pending)) = self.pending.remove(id) else { return Vec::new() };
        let said = match (pending, result) {
            (Pending::Passed(Passed::Initialize), Some(result)) => match handshake::welcome(result) {
                Ok(result) => {
                    self.welcomed = true;
                    message::result(id, result)
                }
                Err(unknown) => return self.unknown_revision(id, &unknown, Side::ToolServer),
            },
            (Pending::Passed(Passed::Discover), Some(result)) => match handshake::discovered(result) {
                Ok(result) => message::result(id, result),
                Err(unknown) => return self.unknown_revision(id, &unknown, Side::ToolServer),
            },
            (Pending::Called { tool, revision, did }, result) => {
                return self.called(line, id, (tool, revision, did), result);
            }
            _ => line.to_vec(),
        };
        vec![Effect::ToClient(said)]
    }

    /// The answer to a call, and its receipt.
    fn called(
        &self,
        line: &[u8],
        id: &Id,
        (tool, revision, did): (String, Option<String>, Option<Did>),
        result: Option<Map<String, Value>>,
    ) -> Vec<Effect> {
        let failed = |result: &Map<String, Value>| result.get("isError") == Some(&Value::Bool(true));
        let (said, came) = match &result {
            None => (line.to_vec(), CallResult::Error),
            Some(result) => match unfinished(result) {
                Some(kind) => {
                    let resource = self.gate.resource(&tool);
                    let why = format!(
                        "the tool answered \"{}\", which this gate does not pass on",
                        quote(&kind, QUOTE_MAX)
                    );
                    let said = answers::refusal(id, revision.is_some(), &answers::wrong(&resource, &why));
                    (said, CallResult::Error)
                }
                None if failed(result) => (line.to_vec(), CallResult::Error),
                None => (line.to_vec(), CallResult::Answered),
            },
        };
        let did = did.map(|did| Effect::Did(Did { result: came, ..did }));
        [Effect::ToClient(said)].into_iter().chain(did).collect()
    }

    /// Begins a listing, unless one is under way.
    pub(super) fn start_listing(&mut self, revision: Option<String>) -> Vec<Effect> {
        if self.run.is_some() {
            return Vec::new();
        }
        self.begin(revision, 0)
    }

    fn begin(&mut self, revision: Option<String>, restarts: u32) -> Vec<Effect> {
        let (number, id) = self.own_id();
        let question = tools::question(&id, None, revision.as_deref());
        self.run = Some(Run { number, id, listing: Listing::default(), revision, changed: false, restarts });
        vec![Effect::ToServer(question), Effect::Wait(number)]
    }

    fn own_id(&mut self) -> (u64, Id) {
        self.serial += 1;
        (self.serial, Id::Text(format!("{OWN}{}", self.serial)))
    }

    /// Takes a page of the gate's own listing.
    fn page(&mut self, result: Option<Map<String, Value>>, bytes: usize) -> Vec<Effect> {
        let Some(mut run) = self.run.take() else { return Vec::new() };
        let next = match result {
            Some(result) => run.listing.page(result, bytes),
            None => Err("it answered with an error".to_owned()),
        };
        match next {
            Err(why) => self.no_listing(&format!("the tool server did not list its tools: {why}")),
            Ok(Next::Page(cursor)) => {
                let (_, id) = self.own_id();
                let question = tools::question(&id, Some(&cursor), run.revision.as_deref());
                self.run = Some(Run { id, ..run });
                vec![Effect::ToServer(question)]
            }
            Ok(Next::Done(_)) if run.changed && run.restarts < LISTING_RESTARTS_MAX => {
                self.begin(run.revision, run.restarts + 1)
            }
            Ok(Next::Done(_)) if run.changed => {
                self.no_listing("the tool server did not list its tools: they change while they are listed")
            }
            Ok(Next::Done(tools)) => self.listed(tools),
        }
    }

    /// The time of a listing is up.
    pub fn overdue(&mut self, number: u64) -> Vec<Effect> {
        if self.run.as_ref().is_none_or(|run| run.number != number) {
            return Vec::new();
        }
        let seconds = LISTING_TIME_MAX.as_secs();
        self.no_listing(&format!("the tool server did not list its tools within {seconds} s"))
    }

    /// Nobody gets a list, and no call goes on.
    fn no_listing(&mut self, text: &str) -> Vec<Effect> {
        self.run = None;
        let waits = |pending: &Pending| matches!(pending, Pending::Held { .. } | Pending::List { .. });
        self.give_up(waits, text)
    }

    /// Tells them that nothing comes any more, and gives their receipts.
    fn give_up(&mut self, which: impl Fn(&Pending) -> bool, text: &str) -> Vec<Effect> {
        let told = |(id, pending): (Id, Pending)| {
            refuse(Some(&id), INTERNAL_ERROR, text).into_iter().chain(receipt(pending))
        };
        self.take(which).into_iter().flat_map(told).collect()
    }

    /// Those that wait, in the order in which they came.
    fn take(&mut self, which: impl Fn(&Pending) -> bool) -> Vec<(Id, Pending)> {
        let mut ids: Vec<_> = self
            .pending
            .iter()
            .filter(|(_, (_, p))| which(p))
            .map(|(id, (serial, _))| (*serial, id.clone()))
            .collect();
        ids.sort_unstable();
        ids.into_iter().filter_map(|(_, id)| self.pending.remove(&id).map(|(_, p)| (id, p))).collect()
    }

    fn listed(&mut self, tools: Vec<Listed>) -> Vec<Effect> {
        let seen = tools::by_name(&tools);
        let pinned: Vec<_> =
            self.gate.tools.iter().map(|(name, tool)| (name.clone(), Seen::Once(tool.digest))).collect();
        let mut effects = Vec::new();
        for (name, pinned) in pinned {
            if let Some(now) = seen.get(&name).filter(|now| **now != pinned) {
                effects.extend(self.tell_changed(&name, *now));
            }
        }
        let offered = tools.into_iter().filter(|tool| {
            let pinned = self.gate.tools.get(&tool.name).map(|tool| Seen::Once(tool.digest));
            seen.get(&tool.name).copied() == pinned
        });
        let offered: Vec<_> = offered.collect();
        self.seen = Some(seen);
        let waits = |pending: &Pending| matches!(pending, Pending::Held { .. } | Pending::List { .. });
        for (id, pending) in self.take(waits) {
            match pending {
                Pending::Held { call, allowed } => effects.extend(self.go_on(id, call, allowed)),
                Pending::List { revision } => {
                    let resources = offered.iter().map(|tool| self.gate.resource(&tool.name)).collect();
                    let ticket = self.wait(id, Pending::Showing { tools: offered.clone(), revision });
                    effects.push(Effect::May(ticket, resources));
                }
                _ => {}
            }
        }
        effects
    }

    /// Tells of a change once.
    pub(super) fn tell_changed(&mut self, tool: &str, seen: Seen) -> Option<Effect> {
        let pinned = self.gate.tools.get(tool)?.digest;
        if self.told.insert(tool.to_owned(), seen) == Some(seen) {
            return None;
        }
        let tool = tool.to_owned();
        Some(self.note(match seen {
            Seen::Once(seen) => Happened::ChangedTool { tool, pinned, seen },
            Seen::Twice => Happened::DoubledTool { tool },
        }))
    }

    /// The connection to the tool server ended: everybody who waits is told.
    pub fn server_ended(&mut self) -> Vec<Effect> {
        self.run = None;
        let text = "the tool server ended before it answered; start the gate again";
        self.give_up(|_| true, text)
    }
}

/// The receipt of a call of which nothing is heard any more, if one is to be given.
fn receipt(pending: Pending) -> Option<Effect> {
    match pending {
        Pending::Called { did, .. } => did.map(Effect::Did),
        Pending::Held { call, .. } => unsent(call.due),
        _ => None,
    }
}

/// What a result is instead of finished.
fn unfinished(result: &Map<String, Value>) -> Option<String> {
    match result.get("resultType") {
        None => None,
        Some(Value::String(kind)) if kind == "complete" => None,
        Some(Value::String(kind)) => Some(kind.clone()),
        Some(_) => Some("a result of no type".to_owned()),
    }
}
