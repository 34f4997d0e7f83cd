//! Whatever both sides say and whatever is decided: no byte of a call that was not allowed reaches the server, and every
//! request is answered once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::gate;
use super::tools::META_VERSION;
use super::{Effect, Proxy, Ticket};
use crate::gate::{Ask, Verdict};

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// The AI agent sends a request; the number picks what.
    Request(u8),
    /// The AI agent sends the words of a call in a form that no gate may take.
    Odd(u8),
    /// The server answers what it was asked longest ago; the number picks how.
    Answer(u8),
    /// The server says something by itself.
    Says(u8),
    /// What waits longest is decided.
    Decide(bool),
    Overdue,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => any::<u8>().prop_map(Step::Request),
        1 => any::<u8>().prop_map(Step::Odd),
        4 => any::<u8>().prop_map(Step::Answer),
        1 => any::<u8>().prop_map(Step::Says),
        4 => any::<bool>().prop_map(Step::Decide),
        1 => Just(Step::Overdue),
    ];
    proptest::collection::vec(step, 1..80)
}

/// Both ends of a machine, and what was said.
struct World {
    proxy: Proxy,
    /// IDs of what the server was asked and has not answered.
    open: Vec<(Value, String)>,
    asks: Vec<(Ticket, Ask)>,
    lists: Vec<(Ticket, usize)>,
    waits: Vec<u64>,
    /// Answers to the AI agent by ID.
    answers: BTreeMap<String, u32>,
    /// Marks of calls that reached the server, and of those that were allowed.
    arrived: BTreeSet<String>,
    allowed: BTreeSet<String>,
    marks: BTreeMap<String, String>,
    sent: BTreeSet<String>,
    next: u32,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            proxy: Proxy::new(Arc::new(gate())),
            open: Vec::new(),
            asks: Vec::new(),
            lists: Vec::new(),
            waits: Vec::new(),
            answers: BTreeMap::new(),
            arrived: BTreeSet::new(),
            allowed: BTreeSet::new(),
            marks: BTreeMap::new(),
            sent: BTreeSet::new(),
            next: 0,
        };
        let hello = json!({ "jsonrpc": "2.0", "id": "hello", "method": "initialize",
            "params": { "protocolVersion": "2025-11-25" } });
        world.client(&hello.to_string());
        world.answer(0);
        world.client(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string());
        world
    }

    fn take(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::ToClient(line) => {
                    let said: Value = serde_json::from_slice(&line).unwrap();
                    if said.get("method").is_none() {
                        *self.answers.entry(said["id"].to_string()).or_default() += 1;
                    }
                }
                Effect::ToServer(line) => self.arrive(&line),
                Effect::Decide(ticket, ask) => self.asks.push((ticket, ask)),
                Effect::May(ticket, resources) => self.lists.push((ticket, resources.len())),
                Effect::Wait(number) => self.waits.push(number),
                Effect::Note(_) | Effect::Did(_) => {}
            }
        }
    }

    fn arrive(&mut self, line: &[u8]) {
        let text = String::from_utf8(line.to_vec()).unwrap();
        for mark in text.split("mark-").skip(1) {
            self.arrived.insert(mark.split('-').next().unwrap().to_owned());
        }
        let message: Value = serde_json::from_slice(line).unwrap();
        if let (Some(id), Some(method)) = (message.get("id"), message["method"].as_str()) {
            self.open.push((id.clone(), method.to_owned()));
        }
    }

    fn client(&mut self, line: &str) {
        let effects = self.proxy.from_client(line.as_bytes());
        self.take(effects);
    }

    fn server(&mut self, message: &Value) {
        let effects = self.proxy.from_server(message.to_string().as_bytes());
        self.take(effects);
    }

    fn request(&mut self, pick: u8) {
        self.next += 1;
        let mark = format!("mark-{}-", self.next);
        let id = if pick.is_multiple_of(2) { json!(self.next) } else { json!(format!("id{}", self.next)) };
        let meta = json!({ META_VERSION: if pick.is_multiple_of(7) { "2099-01-01" } else { "2026-07-28" } });
        let arguments = json!({ "path": "a", "other": mark });
        let (method, mut params) = match pick % 8 {
            0 => ("ping", json!({})),
            1 => ("tools/list", json!({})),
            2 => ("resources/read", json!({ "uri": mark })),
            3 => ("tools/call", json!({ "name": "other", "arguments": arguments })),
            4 => ("tools/call", json!({ "name": "read", "arguments": { "path": 1, "other": mark } })),
            5 => ("tools/call", json!({ "name": "read", "arguments": arguments, "task": {} })),
            6 => ("tools/call", json!({ "name": "write", "arguments": arguments })),
            _ => ("tools/call", json!({ "name": "read", "arguments": arguments })),
        };
        if pick.is_multiple_of(3) {
            params["_meta"] = meta;
        }
        self.marks.insert(super::json::canonical(&arguments), self.next.to_string());
        self.sent.insert(id.to_string());
        self.client(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string());
    }

    fn odd(&mut self, pick: u8) {
        self.next += 1;
        let (id, mark) = (self.next, format!("mark-{}-", self.next));
        let call = format!(r#"{{"name":"read","arguments":{{"path":"{mark}"}}}}"#);
        let line = match pick % 6 {
            0 => format!(r#"[{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{call}}}]"#),
            1 => format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"ping","method":"tools/call","params":{call}}}"#
            ),
            2 => format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"ping\",\"params\":{{\"x\":[\r{call}\r]}}}}"
            ),
            3 => format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{call}"#),
            4 => format!(r#"{{"jsonrpc":"2.0","method":"tools/call","params":{call}}}"#),
            _ => format!(
                r#"{{"jsonrpc":"2.0","id":{id},"METHOD":"tools/call","method":"ping","params":{call}}}"#
            ),
        };
        self.client(&line);
    }

    fn answer(&mut self, pick: u8) {
        if self.open.is_empty() {
            return;
        }
        let (id, method) = self.open.remove(0);
        let tool = |name: &str, description: &str| {
            json!({ "name": name, "description": description,
                "inputSchema": { "type": "object", "properties": { "path": { "type": "string" } } } })
        };
        let result = match (method.as_str(), pick % 4) {
            ("initialize", _) => json!({ "protocolVersion": "2025-11-25", "capabilities": {} }),
            ("tools/list", 0) => json!({ "tools": [tool("read", "Reads a file.")], "nextCursor": "more" }),
            ("tools/list", 1) => {
                json!({ "tools": [tool("read", "Changed."), tool("write", "Reads a file.")] })
            }
            ("tools/list", _) => {
                json!({ "tools": [tool("read", "Reads a file."), tool("write", "Reads a file.")] })
            }
            (_, 0) => json!({ "resultType": "input_required" }),
            _ => json!({ "content": [] }),
        };
        let error = json!({ "jsonrpc": "2.0", "id": id, "error": { "code": 1, "message": "x" } });
        let result = json!({ "jsonrpc": "2.0", "id": id, "result": result });
        self.server(if pick % 16 == 15 { &error } else { &result });
    }

    fn says(&mut self, pick: u8) {
        self.server(&match pick % 4 {
            0 => json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }),
            1 => json!({ "jsonrpc": "2.0", "id": pick, "method": "sampling/createMessage" }),
            2 => json!({ "jsonrpc": "2.0", "id": self.next, "result": {} }),
            _ => json!({ "jsonrpc": "2.0", "id": pick }),
        });
    }

    fn decide(&mut self, yes: bool) {
        if !self.asks.is_empty() {
            let (ticket, ask) = self.asks.remove(0);
            let verdict = if yes {
                let mark = self.marks.get(&ask.shown).cloned();
                self.allowed.extend(mark);
                Verdict::Allow
            } else {
                Verdict::Deny { reason: "forbidden".to_owned(), text: "no".to_owned() }
            };
            let effects = self.proxy.decided(ticket, verdict);
            self.take(effects);
        } else if !self.lists.is_empty() {
            let (ticket, count) = self.lists.remove(0);
            let effects = self.proxy.may(ticket, &vec![yes; count]);
            self.take(effects);
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Request(pick) => self.request(*pick),
            Step::Odd(pick) => self.odd(*pick),
            Step::Answer(pick) => self.answer(*pick),
            Step::Says(pick) => self.says(*pick),
            Step::Decide(yes) => self.decide(*yes),
            Step::Overdue => {
                if let Some(number) = self.waits.last().copied() {
                    let effects = self.proxy.overdue(number);
                    self.take(effects);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn only_what_was_allowed_reaches_the_server_and_every_request_is_answered_once(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            prop_assert!(world.arrived.is_subset(&world.allowed), "{:?}", world.arrived);
        }
        let effects = world.proxy.server_ended();
        world.take(effects);
        for id in &world.sent {
            prop_assert_eq!(world.answers.get(id), Some(&1), "{}", id);
        }
        prop_assert!(world.proxy.idle());
        prop_assert!(world.answers.values().zip(world.answers.keys()).all(|(n, id)| *n == 1 || id == "null"));
    }
}
