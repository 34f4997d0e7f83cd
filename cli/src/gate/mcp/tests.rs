//! The rules of the MCP gate, one each: what passes, what does not, and what is told.

use std::sync::Arc;

use avouch_domain::CallResult;
use avouch_rules::{Limits, Param, ParamKind};
use serde_json::{Value, json};

use super::tools::{META_VERSION, digest};
use super::{Effect, Proxy, Ticket};
use crate::gate::limits::{HELD_MAX, LINE_MAX, LISTING_RESTARTS_MAX, PENDING_MAX};
use crate::gate::{Ask, Decided, Did, Due, GateDefinition, Happened, Place, Side, Tool, Verdict};

const READ: &str = "Reads a file.";

fn schema() -> Value {
    json!({ "type": "object", "properties": { "path": { "type": "string" } } })
}

fn tool(name: &str) -> Value {
    json!({ "name": name, "description": READ, "inputSchema": schema(), "title": "T", "annotations": {} })
}

/// A gate with the tools `read` and `write`.
pub(super) fn gate() -> GateDefinition {
    let place = Place { pointer: "/path".to_owned(), kind: ParamKind::String };
    let pinned = |name: &str| Tool {
        digest: digest(name, Some(READ), &schema()),
        params: [("path".to_owned(), place.clone())].into(),
    };
    let tools = ["read", "write"].map(|name| (name.to_owned(), pinned(name)));
    GateDefinition { name: "files".to_owned(), command: Vec::new(), tools: tools.into() }
}

/// A machine with both ends in hand.
struct Kit {
    proxy: Proxy,
    client: Vec<Value>,
    server: Vec<Vec<u8>>,
    asks: Vec<(Ticket, Ask)>,
    lists: Vec<(Ticket, Vec<String>)>,
    waits: Vec<u64>,
    events: Vec<Happened>,
    did: Vec<Did>,
}

impl Kit {
    fn new() -> Self {
        Self {
            proxy: Proxy::new(Arc::new(gate())),
            client: Vec::new(),
            server: Vec::new(),
            asks: Vec::new(),
            lists: Vec::new(),
            waits: Vec::new(),
            events: Vec::new(),
            did: Vec::new(),
        }
    }

    /// After the handshake of the older revision.
    fn ready() -> Self {
        let mut kit = Self::new();
        let hello =
            json!({ "protocolVersion": "2025-11-25", "capabilities": { "roots": {} }, "clientInfo": {} });
        kit.send(json!(0), "initialize", hello);
        kit.answer(json!(0), json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} } }));
        kit.client(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        kit.client.clear();
        kit.server.clear();
        kit
    }

    /// And after the gate's first listing.
    fn listed() -> Self {
        let mut kit = Self::ready();
        kit.send(json!("first"), "tools/list", json!({}));
        kit.list(json!({ "tools": [tool("read"), tool("write"), tool("other")] }));
        kit.show(&[true, true]);
        kit.client.clear();
        kit.server.clear();
        kit
    }

    fn do_all(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::ToClient(line) => self.client.push(serde_json::from_slice(&line).unwrap()),
                Effect::ToServer(line) => self.server.push(line),
                Effect::Decide(ticket, ask) => self.asks.push((ticket, ask)),
                Effect::May(ticket, resources) => self.lists.push((ticket, resources)),
                Effect::Wait(number) => self.waits.push(number),
                Effect::Note(event) => self.events.push(event.what),
                Effect::Did(did) => self.did.push(did),
            }
        }
    }

    fn client(&mut self, message: Value) {
        self.raw(&message.to_string());
    }

    fn raw(&mut self, line: &str) {
        let effects = self.proxy.from_client(line.as_bytes());
        self.do_all(effects);
    }

    fn server(&mut self, message: Value) {
        let effects = self.proxy.from_server(message.to_string().as_bytes());
        self.do_all(effects);
    }

    fn send(&mut self, id: Value, method: &str, params: Value) {
        self.client(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
    }

    fn call(&mut self, id: i64, tool: &str) {
        self.send(json!(id), "tools/call", json!({ "name": tool, "arguments": { "path": "a.txt" } }));
    }

    fn answer(&mut self, id: Value, result: Value) {
        self.server(json!({ "jsonrpc": "2.0", "id": id, "result": result }));
    }

    /// What the server was told last, and its ID.
    fn asked(&self) -> (String, Value) {
        let message: Value = serde_json::from_slice(self.server.last().unwrap()).unwrap();
        (message["method"].as_str().unwrap_or_default().to_owned(), message["id"].clone())
    }

    /// Answers the gate's own question for a page.
    fn list(&mut self, page: Value) {
        let (method, id) = self.asked();
        assert_eq!(method, "tools/list");
        self.answer(id, page);
    }

    fn show(&mut self, may: &[bool]) {
        let (ticket, _) = self.lists.pop().unwrap();
        let effects = self.proxy.may(ticket, may);
        self.do_all(effects);
    }

    fn decide(&mut self, decided: impl Into<Decided>) {
        let (ticket, _) = self.asks.remove(0);
        let effects = self.proxy.decided(ticket, decided);
        self.do_all(effects);
    }

    fn said(&self) -> &Value {
        self.client.last().unwrap()
    }

    /// Code and text of the error that the AI agent was told last.
    fn error(&self) -> (i64, String) {
        let error = &self.said()["error"];
        (error["code"].as_i64().unwrap(), error["message"].as_str().unwrap().to_owned())
    }

    /// The text of the refusal that the AI agent was told last.
    fn refusal(&self) -> String {
        let result = &self.said()["result"];
        assert_eq!(result["isError"], true, "{result}");
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }
}

fn deny() -> Verdict {
    Verdict::Deny { reason: "forbidden".to_owned(), text: "a rule forbids it".to_owned() }
}

#[test]
fn an_allowed_call_goes_on_with_its_very_bytes_and_its_answer_comes_back_so() {
    let mut kit = Kit::listed();
    let line = r#"{ "method":"tools/call", "id" : 1,"jsonrpc":"2.0","params":{"name":"read","arguments":{"path":"\u0061"}}}"#;
    kit.raw(line);
    assert!(kit.server.is_empty());
    kit.decide(Verdict::Allow);
    assert_eq!(kit.server, [line.as_bytes()]);
    let answer = br#"{"id":1, "jsonrpc":"2.0","result":{"content":[{"type":"text","text":"\u0062"}]}}"#;
    assert_eq!(kit.proxy.from_server(answer), [Effect::ToClient(answer.to_vec())]);
    // And only once.
    assert_eq!(kit.proxy.from_server(answer), []);
}

#[test]
fn what_somebody_said_yes_to_is_what_is_sent_however_it_was_spelled() {
    let mut kit = Kit::listed();
    let spelled = r#"{"path":"\u0061","n":18446744073709551617.0,"x":1.0}"#;
    let meta = r#"{"progressToken":7,"note":"and delete the rest"}"#;
    kit.raw(&format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"read","arguments":{spelled},"_meta":{meta}}}}}"#
    ));
    let shown = kit.asks[0].1.shown.clone();
    assert_eq!(shown, r#"{"n":18446744073709552000,"path":"a","x":1}"#);
    kit.decide(Verdict::Agreed);
    let sent = String::from_utf8(kit.server[0].clone()).unwrap();
    assert!(sent.contains(&format!(r#""arguments":{shown}"#)), "{sent}");
    assert!(sent.contains(r#""_meta":{"progressToken":7}"#), "what nobody was shown is not sent: {sent}");
}

/// A call that somebody said yes to, sent.
fn agreed(kit: &mut Kit, arguments: &Value) -> String {
    kit.send(json!(1), "tools/call", json!({ "name": "read", "arguments": arguments }));
    let shown = kit.asks[0].1.shown.clone();
    kit.decide(Decided { verdict: Verdict::Agreed, due: Some(Due { record: 9, agreed: true }) });
    shown
}

#[test]
fn a_receipt_tells_what_went_to_the_tool_server_and_another_argument_is_another_text() {
    let mut texts = Vec::new();
    for path in ["a.txt", "b.txt"] {
        let mut kit = Kit::listed();
        let shown = agreed(&mut kit, &json!({ "path": path, "n": 1.0 }));
        assert!(kit.did.is_empty(), "not before its answer");
        kit.answer(json!(1), json!({ "content": [] }));
        let did = kit.did.pop().unwrap();
        assert_eq!((did.record, did.resource.as_str(), did.result), (9, "files/read", CallResult::Answered));
        assert_eq!((did.action.as_str(), &did.sent), ("tool.call", &shown));
        let sent: Value = serde_json::from_slice(kit.server.last().unwrap()).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&did.sent).unwrap(), sent["params"]["arguments"]);
        texts.push(did.sent);
    }
    assert_ne!(texts[0], texts[1]);
    // Whatever the gate would send instead is what it tells.
    let line = br#"{"id":1,"method":"tools/call","params":{"name":"write","arguments":{"path":"c.txt"}}}"#;
    let did = super::proxy::sent(&gate(), Due { record: 9, agreed: true }, line);
    assert_eq!((did.resource.as_str(), did.sent.as_str()), ("files/write", r#"{"path":"c.txt"}"#));
}

#[test]
fn a_receipt_says_what_came_of_the_call_also_when_nobody_hears_it_any_more() {
    let thens: [fn(&mut Kit); 5] = [
        |kit: &mut Kit| kit.answer(json!(1), json!({ "content": [], "isError": true })),
        |kit: &mut Kit| {
            kit.server(json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": 1, "message": "x" } }));
        },
        |kit: &mut Kit| kit.server(json!({ "jsonrpc": "2.0", "id": 1 })),
        |kit: &mut Kit| {
            let params = json!({ "requestId": 1 });
            kit.client(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params }));
        },
        |kit: &mut Kit| {
            let effects = kit.proxy.server_ended();
            kit.do_all(effects);
        },
    ];
    let (error, lost) = (CallResult::Error, CallResult::Lost);
    for (then, result) in thens.into_iter().zip([error, error, lost, lost, lost]) {
        let mut kit = Kit::listed();
        agreed(&mut kit, &json!({ "path": "a.txt" }));
        then(&mut kit);
        let told: Vec<_> = kit.did.iter().map(|did| (did.record, did.result)).collect();
        assert_eq!(told, [(9, result)]);
    }
}

#[test]
fn a_call_that_is_not_sent_after_all_is_told_as_such_and_an_ordinary_one_not_at_all() {
    let mut kit = Kit::listed();
    kit.call(1, "read");
    kit.server(json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }));
    kit.decide(Decided { verdict: Verdict::Agreed, due: Some(Due { record: 9, agreed: true }) });
    kit.list(json!({ "tools": [tool("write")] }));
    let told: Vec<_> = kit.did.iter().map(|did| (did.result, did.sent.as_str())).collect();
    assert_eq!(told, [(CallResult::Failed, "")]);
    let mut kit = Kit::listed();
    kit.call(1, "read");
    kit.decide(Verdict::Allow);
    kit.answer(json!(1), json!({ "content": [] }));
    assert!(kit.did.is_empty());
}

#[test]
fn what_is_more_than_anybody_reads_is_not_shown() {
    let mut kit = Kit::listed();
    let long = "x".repeat(avouch_domain::limits::REQUEST_TEXT_MAX);
    kit.send(json!(1), "tools/call", json!({ "name": "read", "arguments": { "path": "a", "b": long } }));
    assert_eq!(kit.asks[0].1.shown, "");
}

#[test]
fn a_call_is_decided_by_what_its_rule_names_and_by_all_its_arguments() {
    let mut kit = Kit::listed();
    kit.send(json!(1), "tools/call", json!({ "name": "read", "arguments": { "path": "a", "b": 1.0 } }));
    kit.send(json!(2), "tools/call", json!({ "name": "read", "arguments": { "b": 1, "path": "a" } }));
    kit.send(json!(3), "tools/call", json!({ "name": "read" }));
    let asks: Vec<_> = kit.asks.iter().map(|(_, ask)| ask).collect();
    assert_eq!(asks[0].resource, "files/read");
    assert_eq!(asks[0].action, "tool.call");
    assert_eq!(asks[0].params, [("path".to_owned(), Param::String("a".to_owned()))].into());
    assert_eq!(
        (asks[0].shown.as_str(), asks[1].shown.as_str()),
        (r#"{"b":1,"path":"a"}"#, r#"{"b":1,"path":"a"}"#)
    );
    assert_eq!(asks[2].shown, "{}");
    assert!(asks[2].params.is_empty());
}

#[test]
fn a_refusal_is_a_tool_result_that_says_what_why_and_what_next() {
    let limits = Limits { max_rows: Some(3), ..Limits::default() };
    for (verdict, told) in [
        (deny(), "files/read was not called (denied, forbidden): a rule forbids it. Go on without it"),
        (
            Verdict::Ask { text: "Your owner must agree.".to_owned() },
            "(needs a yes): Your owner must agree. Wait until",
        ),
        (Verdict::Unavailable { text: "no server".to_owned() }, "(undecided): no server. Try again later"),
        (Verdict::Limit(limits), "only within \"max_rows=3\", which this gate can't hold"),
    ] {
        let mut kit = Kit::listed();
        kit.call(7, "read");
        kit.decide(verdict);
        assert!(kit.refusal().contains(told), "{}", kit.refusal());
        assert_eq!(kit.said()["id"], 7);
        assert!(kit.server.is_empty() && kit.proxy.idle());
    }
}

#[test]
fn a_tool_that_nobody_added_is_unknown_and_the_server_sees_nothing() {
    let mut kit = Kit::listed();
    kit.call(1, "other");
    assert_eq!(kit.error().0, -32602);
    assert!(kit.error().1.starts_with("Unknown tool: other"));
    assert_eq!(kit.events, [Happened::UnknownTool { tool: "other".to_owned() }]);
    assert!(kit.server.is_empty() && kit.asks.is_empty());
}

#[test]
fn a_tool_that_is_pinned_and_that_the_server_no_longer_has_is_unknown() {
    let mut kit = Kit::ready();
    kit.call(1, "read");
    kit.list(json!({ "tools": [tool("write")] }));
    assert!(kit.error().1.starts_with("Unknown tool: read"));
    assert!(kit.asks.is_empty());
}

#[test]
fn a_call_waits_until_the_gate_has_seen_the_tool() {
    let mut kit = Kit::ready();
    kit.call(1, "read");
    kit.call(2, "write");
    assert!(kit.asks.is_empty() && kit.server.len() == 1);
    kit.list(json!({ "tools": [tool("write"), tool("read")] }));
    let tools: Vec<_> = kit.asks.iter().map(|(_, ask)| ask.resource.trim_start_matches("files/")).collect();
    assert_eq!(tools, ["read", "write"]);
}

#[test]
fn a_tool_that_changed_is_hidden_denied_and_told_once() {
    for changed in [
        json!({ "name": "read", "description": "Reads all files.", "inputSchema": schema() }),
        json!({ "name": "read", "description": READ, "inputSchema": { "type": "object" } }),
        json!({ "name": "read", "inputSchema": schema() }),
    ] {
        let mut kit = Kit::ready();
        for id in 1..=2 {
            kit.send(json!(id), "tools/list", json!({}));
            kit.list(json!({ "tools": [changed, tool("write")] }));
            assert_eq!(kit.lists.last().unwrap().1, ["files/write"]);
            kit.show(&[true]);
            assert_eq!(kit.said()["result"]["tools"].as_array().unwrap().len(), 1);
        }
        let asked = kit.server.len();
        kit.call(3, "read");
        assert!(kit.error().1.contains("is no longer what it was when it was added"));
        assert!(kit.asks.is_empty() && kit.server.len() == asked);
        assert!(matches!(&kit.events[..], [Happened::ChangedTool { tool, .. }] if tool == "read"));
    }
}

#[test]
fn two_tools_of_one_name_are_neither_shown_nor_called() {
    let mut kit = Kit::ready();
    kit.call(1, "read");
    kit.list(json!({ "tools": [tool("read"), tool("read")] }));
    assert!(kit.asks.is_empty() && kit.error().0 == -32602);
    assert_eq!(kit.events, [Happened::DoubledTool { tool: "read".to_owned() }]);
}

#[test]
fn a_list_shows_what_is_pinned_unchanged_and_allowed_and_of_it_only_what_was_pinned() {
    let mut kit = Kit::ready();
    kit.send(json!(1), "tools/list", json!({}));
    kit.list(json!({ "tools": [tool("other"), tool("write")], "nextCursor": "2" }));
    assert_eq!(kit.asked().0, "tools/list");
    kit.list(json!({ "tools": [tool("read")] }));
    assert_eq!(kit.lists[0].1, ["files/write", "files/read"]);
    kit.show(&[false, true]);
    let shown = json!({ "name": "read", "description": READ, "inputSchema": schema() });
    assert_eq!(kit.said()["result"], json!({ "tools": [shown] }));
    // Too few answers are noes.
    kit.send(json!(2), "tools/list", json!({}));
    kit.list(json!({ "tools": [tool("read")] }));
    kit.show(&[]);
    assert_eq!(kit.said()["result"], json!({ "tools": [] }));
}

#[test]
fn a_call_of_a_tool_that_was_not_shown_is_decided_and_its_denial_is_an_unknown_tool() {
    let mut kit = Kit::ready();
    kit.send(json!(1), "tools/list", json!({}));
    kit.list(json!({ "tools": [tool("read"), tool("write")] }));
    kit.show(&[true, false]);
    kit.call(2, "write");
    kit.decide(deny());
    assert!(kit.error().1.starts_with("Unknown tool: write"));
    // What is allowed meanwhile goes on.
    kit.call(3, "write");
    kit.decide(Verdict::Allow);
    assert_eq!(kit.asked().0, "tools/call");
}

#[test]
fn the_gate_hands_out_no_cursor_and_takes_none() {
    let mut kit = Kit::listed();
    kit.send(json!(1), "tools/list", json!({ "cursor": "2" }));
    assert_eq!(kit.error().0, -32602);
    assert!(kit.server.is_empty());
}

#[test]
fn tools_that_changed_are_looked_at_again_before_the_next_call_and_before_one_that_is_decided() {
    let mut kit = Kit::listed();
    kit.call(1, "read");
    kit.server(json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }));
    assert_eq!(kit.said()["method"], "notifications/tools/list_changed");
    kit.decide(Verdict::Allow);
    assert_eq!(kit.asked().0, "tools/list");
    kit.call(2, "write");
    kit.list(json!({ "tools": [tool("read"), { "name": "write", "inputSchema": {} }] }));
    // The first goes on without being asked for again, the second is another tool now.
    assert_eq!(kit.asked(), ("tools/call".to_owned(), json!(1)));
    assert!(kit.asks.is_empty());
    assert_eq!(kit.said()["id"], 2);
    assert_eq!(kit.error().0, -32602);
}

#[test]
fn a_listing_during_which_tools_change_begins_anew_and_not_for_ever() {
    let mut kit = Kit::ready();
    kit.call(1, "read");
    for _ in 0..=LISTING_RESTARTS_MAX {
        assert!(kit.client.iter().all(|said| said["error"].is_null()));
        kit.server(json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }));
        kit.list(json!({ "tools": [tool("read")] }));
    }
    assert!(kit.error().1.contains("they change while they are listed"));
    assert!(kit.asks.is_empty() && kit.proxy.idle());
}

#[test]
fn a_listing_that_fails_or_takes_too_long_ends_what_waits_for_it() {
    let mut kit = Kit::ready();
    for (id, page) in [(1, json!({})), (3, json!({ "tools": "none" }))] {
        kit.call(id, "read");
        kit.send(json!(id + 1), "tools/list", json!({}));
        kit.list(page);
        assert!(kit.client.iter().all(|said| said["error"]["code"] == -32603), "{:?}", kit.client);
        assert!(kit.proxy.idle());
    }
    kit.call(5, "read");
    let (late, now) = (kit.waits[0], *kit.waits.last().unwrap());
    assert_eq!(kit.proxy.overdue(late), []);
    let effects = kit.proxy.overdue(now);
    kit.do_all(effects);
    assert!(kit.error().1.contains("within 30 s") && kit.proxy.idle());
    // Its late answer is nobody's.
    kit.list(json!({ "tools": [tool("read")] }));
    assert!(kit.asks.is_empty());
}

#[test]
fn before_the_handshake_nothing_is_listed_or_called() {
    let mut kit = Kit::new();
    kit.client(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    kit.server.clear();
    for method in ["tools/list", "tools/call"] {
        kit.send(json!(1), method, json!({}));
        assert_eq!(kit.error(), (-32600, "the session is not initialized yet".to_owned()));
    }
    assert!(kit.server.is_empty());
}

#[test]
fn a_request_of_the_stateless_revision_needs_no_handshake_and_is_answered_in_its_form() {
    let mut kit = Kit::new();
    let meta = json!({ META_VERSION: "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} });
    kit.send(json!(1), "tools/list", json!({ "_meta": meta }));
    let asked: Value = serde_json::from_slice(&kit.server[0]).unwrap();
    assert_eq!(asked["params"]["_meta"][META_VERSION], "2026-07-28");
    assert_eq!(asked["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"], json!({}));
    kit.list(
        json!({ "tools": [tool("read")], "resultType": "complete", "ttlMs": 5, "cacheScope": "public" }),
    );
    kit.show(&[true]);
    let result = &kit.said()["result"];
    assert_eq!((&result["resultType"], &result["ttlMs"]), (&json!("complete"), &json!(0)));
    assert_eq!(result["cacheScope"], "private");
    kit.send(json!(2), "tools/call", json!({ "name": "read", "arguments": {}, "_meta": meta }));
    kit.decide(deny());
    kit.refusal();
    assert_eq!(kit.said()["result"]["resultType"], "complete");
}

#[test]
fn a_revision_that_the_gate_does_not_know_is_refused_on_either_side() {
    let mut kit = Kit::new();
    kit.send(json!(1), "tools/list", json!({ "_meta": { META_VERSION: "2099-01-01" } }));
    assert_eq!(kit.error().0, -32022);
    assert_eq!(kit.said()["error"]["data"]["supported"], json!(["2026-07-28", "2025-11-25"]));
    kit.send(json!(2), "initialize", json!({ "protocolVersion": "2024-11-05" }));
    assert_eq!(kit.error().0, -32602);
    assert!(kit.server.is_empty());
    kit.send(json!(3), "initialize", json!({ "protocolVersion": "2025-11-25" }));
    kit.answer(json!(3), json!({ "protocolVersion": "2025-03-26" }));
    assert!(kit.error().1.contains("2025-03-26 of the tool server"));
    assert_eq!(kit.events.len(), 3);
}

#[test]
fn greetings_lose_what_does_not_pass() {
    let mut kit = Kit::new();
    let hello = json!({ "protocolVersion": "2025-11-25", "capabilities": { "sampling": {}, "roots": {} } });
    kit.send(json!(1), "initialize", hello);
    let seen: Value = serde_json::from_slice(&kit.server[0]).unwrap();
    assert_eq!(seen["params"]["capabilities"], json!({}));
    let capabilities = json!({ "tools": {}, "resources": {}, "prompts": {} });
    kit.answer(json!(1), json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities }));
    assert_eq!(kit.said()["result"]["capabilities"], json!({ "tools": {} }));
    kit.send(json!(2), "server/discover", json!({}));
    kit.answer(json!(2), json!({ "supportedVersions": ["2026-07-28", "2099-01-01"], "capabilities": {} }));
    assert_eq!(kit.said()["result"]["supportedVersions"], json!(["2026-07-28"]));
}

#[test]
fn what_could_read_or_act_past_the_rules_does_not_pass() {
    let mut kit = Kit::listed();
    for method in [
        "resources/list",
        "resources/read",
        "resources/subscribe",
        "resources/templates/list",
        "prompts/list",
        "prompts/get",
        "completion/complete",
        "tasks/get",
        "tasks/result",
        "sampling/createMessage",
        "roots/list",
        "elicitation/create",
        "tools/Call",
        "anything",
        "",
    ] {
        kit.send(json!(1), method, json!({}));
        assert_eq!(kit.error().0, -32601, "{method}");
        assert!(matches!(kit.events.last(), Some(Happened::RefusedMethod { from: Side::AiAgent, .. })));
    }
    kit.send(
        json!(1),
        "subscriptions/listen",
        json!({ "notifications": { "resourceSubscriptions": ["file:///x"] } }),
    );
    assert_eq!(kit.error().0, -32601);
    kit.client(json!({ "jsonrpc": "2.0", "method": "notifications/run", "params": {} }));
    kit.client(json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" }));
    assert!(kit.server.is_empty() && kit.proxy.idle());
}

#[test]
fn what_acts_on_nothing_passes() {
    let mut kit = Kit::listed();
    for (n, (method, params)) in [
        ("ping", json!({})),
        ("logging/setLevel", json!({ "level": "info" })),
        ("subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } })),
    ]
    .into_iter()
    .enumerate()
    {
        kit.send(json!(n), method, params);
        assert_eq!(kit.asked(), (method.to_owned(), json!(n)));
        kit.answer(json!(n), json!({}));
        assert_eq!(kit.said()["id"], n);
    }
    for method in
        ["notifications/message", "notifications/progress", "notifications/subscriptions/acknowledged"]
    {
        kit.server(json!({ "jsonrpc": "2.0", "method": method, "params": {} }));
        assert_eq!(kit.said()["method"], method);
    }
    let said = kit.client.len();
    for method in ["notifications/resources/updated", "notifications/elicitation/complete", "notifications/x"]
    {
        kit.server(json!({ "jsonrpc": "2.0", "method": method, "params": {} }));
    }
    assert_eq!(kit.client.len(), said);
}

#[test]
fn a_call_that_carries_more_than_a_name_and_arguments_is_refused() {
    let mut kit = Kit::listed();
    for more in [
        json!({ "name": "read", "task": { "ttl": 1 } }),
        json!({ "name": "read", "inputResponses": {} }),
        json!({ "name": "read", "requestState": "x" }),
        json!({ "name": 1 }),
        json!({ "arguments": {} }),
        json!({ "name": "read", "arguments": [] }),
        json!({ "name": "read", "arguments": null }),
    ] {
        kit.send(json!(1), "tools/call", more);
        assert_eq!(kit.error().0, -32602);
    }
    assert!(kit.server.is_empty() && kit.asks.is_empty());
}

#[test]
fn arguments_that_the_rules_can_not_read_are_not_sent_and_the_model_is_told_what_to_mend() {
    let mut kit = Kit::listed();
    for arguments in [json!({ "path": 1 }), json!({ "Path": "secrets/key" })] {
        kit.send(json!(1), "tools/call", json!({ "name": "read", "arguments": arguments }));
        assert!(kit.refusal().contains("files/read was not called (arguments)"));
        assert!(matches!(kit.events.last(), Some(Happened::WrongArguments { .. })));
    }
    assert!(kit.server.is_empty() && kit.asks.is_empty());
}

#[test]
fn a_line_that_can_be_read_in_two_ways_is_an_error_and_goes_nowhere() {
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    let call =
        |inside: &str| format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{inside}}}"#);
    for (line, id) in [
        (call(r#"{"name":"read","name":"write"}"#), json!(7)),
        (call(r#"{"name":"read","Name":"write"}"#), json!(7)),
        (call(&format!(r#"{{"name":"read","arguments":{{"path":{deep}}}}}"#)), json!(7)),
        (call("{\"name\":\"read\",\"arguments\":{\"x\":[\r{\"jsonrpc\":\"2.0\"}\r]}}"), json!(7)),
        (format!("[{}]", call("{}")), Value::Null),
        ("{}{}".to_owned(), Value::Null),
        ("\u{feff}{}".to_owned(), Value::Null),
    ] {
        let mut kit = Kit::listed();
        kit.raw(&line);
        assert_eq!(kit.said()["id"], id, "{line}");
        assert!(kit.error().1.starts_with("not sent on: "), "{line}");
        assert!(kit.server.is_empty() && kit.asks.is_empty() && kit.proxy.idle());
        assert!(matches!(&kit.events[..], [Happened::Unreadable { from: Side::AiAgent, .. }]));
    }
    let mut kit = Kit::listed();
    let effects = kit.proxy.client_too_long();
    kit.do_all(effects);
    assert!(kit.error().1.contains(&format!("longer than {LINE_MAX} bytes")));
}

#[test]
fn an_id_that_is_in_flight_or_the_gates_own_is_refused_without_an_answer_in_its_name() {
    let mut kit = Kit::listed();
    kit.call(1, "read");
    kit.call(1, "write");
    assert_eq!((kit.said()["id"].clone(), kit.asks.len()), (Value::Null, 1));
    kit.raw(r#"{"jsonrpc":"2.0","id":1,"method":"ping","more":1}"#);
    assert_eq!(kit.said()["id"], Value::Null);
    kit.send(json!("avouch-gate-9"), "ping", json!({}));
    assert!(kit.error().1.contains("is taken") && kit.server.is_empty());
    // A text is not the number that it spells.
    kit.send(json!("1"), "ping", json!({}));
    assert_eq!(kit.asked(), ("ping".to_owned(), json!("1")));
}

#[test]
fn no_more_requests_and_bytes_wait_than_may() {
    let mut kit = Kit::listed();
    for id in 0..=i64::try_from(PENDING_MAX).unwrap() {
        kit.call(id, "read");
    }
    assert_eq!((kit.asks.len(), kit.client.len()), (PENDING_MAX, 1));
    assert!(kit.error().1.contains("128 requests wait already"));
    let mut kit = Kit::listed();
    let long = "x".repeat(LINE_MAX);
    for id in 0..3 {
        kit.send(json!(id), "tools/call", json!({ "name": "read", "arguments": { "other": long } }));
    }
    assert_eq!(kit.asks.len(), 1);
    assert!(kit.error().1.contains(&format!("calls of {HELD_MAX} bytes wait already")));
}

#[test]
fn a_cancelled_call_never_starts() {
    let cancel =
        json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } });
    // While it waits for a listing.
    let mut kit = Kit::ready();
    kit.call(1, "read");
    kit.client(cancel.clone());
    kit.list(json!({ "tools": [tool("read"), tool("write")] }));
    assert!(kit.asks.is_empty() && kit.proxy.idle());
    // While it is decided; the same ID may come again meanwhile.
    kit.server.clear();
    kit.call(1, "read");
    kit.client(cancel.clone());
    kit.call(1, "write");
    kit.decide(Verdict::Allow);
    assert!(kit.server.is_empty());
    // While the server has it, the server is told; its late answer is nobody's.
    kit.decide(Verdict::Allow);
    kit.client(cancel);
    assert_eq!(kit.asked().0, "notifications/cancelled");
    let said = kit.client.len();
    kit.answer(json!(1), json!({ "content": [] }));
    assert_eq!(kit.client.len(), said);
}

#[test]
fn what_the_server_asks_of_the_client_is_refused_and_its_ping_is_answered() {
    let mut kit = Kit::listed();
    for method in ["sampling/createMessage", "elicitation/create", "roots/list", "x"] {
        kit.server(json!({ "jsonrpc": "2.0", "id": 5, "method": method, "params": {} }));
        let told: Value = serde_json::from_slice(kit.server.last().unwrap()).unwrap();
        assert_eq!((&told["id"], &told["error"]["code"]), (&json!(5), &json!(-32601)));
    }
    assert_eq!(kit.events.len(), 4);
    kit.server(json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" }));
    let told: Value = serde_json::from_slice(kit.server.last().unwrap()).unwrap();
    assert_eq!(told, json!({ "jsonrpc": "2.0", "id": "p", "result": {} }));
    assert!(kit.client.is_empty());
}

#[test]
fn an_answer_that_asks_for_more_is_turned_into_a_refusal() {
    for result in [
        json!({ "resultType": "input_required", "inputRequests": {} }),
        json!({ "resultType": "task", "taskId": "1" }),
        json!({ "resultType": 1 }),
    ] {
        let mut kit = Kit::listed();
        kit.call(1, "read");
        kit.decide(Verdict::Allow);
        kit.answer(json!(1), result);
        assert!(kit.refusal().contains("which this gate does not pass on"));
    }
}

#[test]
fn an_answer_that_nobody_waits_for_or_that_can_not_be_read_does_not_pass() {
    let mut kit = Kit::listed();
    kit.answer(json!(9), json!({}));
    kit.server(json!({ "jsonrpc": "2.0", "id": null, "error": { "code": 1, "message": "x" } }));
    assert!(kit.client.is_empty());
    kit.call(1, "read");
    // Not even before the call was allowed.
    kit.answer(json!(1), json!({ "content": [] }));
    assert!(kit.client.is_empty());
    kit.decide(Verdict::Allow);
    let effects = kit.proxy.from_server(br#"{"jsonrpc":"2.0","id":1,"result":{"a":1,"a":2}}"#);
    kit.do_all(effects);
    assert!(kit.error().1.contains("the tool server's answer could not be read"));
    assert!(matches!(kit.events.last(), Some(Happened::Unreadable { from: Side::ToolServer, .. })));
    let effects = kit.proxy.from_server(b"Listening on port 8080");
    kit.do_all(effects);
    assert_eq!((kit.client.len(), kit.events.len()), (1, 2));
}

#[test]
fn an_answer_with_a_carriage_return_in_it_does_not_pass() {
    let mut kit = Kit::listed();
    kit.call(1, "read");
    kit.decide(Verdict::Allow);
    let line =
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"x\":[\r{\"jsonrpc\":\"2.0\",\"method\":\"x\"}\r]}}";
    let effects = kit.proxy.from_server(line);
    kit.do_all(effects);
    assert!(kit.error().1.contains("carriage return"));
}

#[test]
fn whoever_waits_is_told_when_the_server_ends() {
    let mut kit = Kit::listed();
    kit.call(1, "read");
    kit.call(2, "read");
    kit.decide(Verdict::Allow);
    kit.send(json!(3), "ping", json!({}));
    kit.send(json!(4), "tools/list", json!({}));
    let effects = kit.proxy.server_ended();
    kit.do_all(effects);
    let mut told: Vec<_> = kit.client.iter().map(|said| said["id"].as_i64().unwrap()).collect();
    told.sort_unstable();
    assert_eq!(told, [1, 2, 3, 4]);
    kit.server.clear();
    kit.decide(Verdict::Allow);
    assert!(kit.server.is_empty());
}
