//! What an AI agent is told: lists, errors, and refusals that a model can act on.
//!
//! A refusal says what was not done, why in a word, and what to do next. Never the text of a rule.

use serde_json::{Value, json};

use super::message::{self, INVALID_PARAMS, Id};
use super::tools::Listed;
use crate::gate::limits::TEXT_MAX;
use crate::gate::{Verdict, quote};

/// Why a call is not sent on; nothing if it is.
pub fn denied(resource: &str, verdict: &Verdict) -> Option<String> {
    let text = |text: &str| quote(text.trim_end_matches('.'), TEXT_MAX);
    match verdict {
        Verdict::Allow | Verdict::Agreed => None,
        Verdict::Limit(limits) => Some(format!(
            "{resource} was not called (limit): it is allowed only within \"{limits}\", which this gate can't hold a \
             tool to. Go on without it; another way of asking will not help."
        )),
        Verdict::Deny { reason, text: why } => Some(format!(
            "{resource} was not called (denied, {}): {}. Go on without it, or tell the person you work for; calling \
             it again will not help.",
            quote(reason, TEXT_MAX),
            text(why)
        )),
        Verdict::Ask { text: why } => Some(format!(
            "{resource} was not called yet (needs a yes): {}. Wait until a person has said yes, then call it again \
             with exactly the same arguments.",
            text(why)
        )),
        Verdict::Unavailable { text: why } => Some(format!(
            "{resource} was not called (undecided): {}. Try again later; nothing has been done.",
            text(why)
        )),
    }
}

/// Why a call can't be decided.
pub fn wrong(resource: &str, why: &str) -> String {
    format!("{resource} was not called (arguments): {why}. Correct it and call again.")
}

/// A tool result that tells of a refusal. `stateless`: in the form of revision 2026-07-28.
pub fn refusal(id: &Id, stateless: bool, text: &str) -> Vec<u8> {
    let mut result = json!({ "content": [{ "type": "text", "text": text }], "isError": true });
    if let (true, Some(map)) = (stateless, result.as_object_mut()) {
        map.insert("resultType".to_owned(), "complete".into());
    }
    message::result(id, result)
}

/// What comes of calling a tool that is not there, or must not be known to be.
pub fn unknown_tool(id: &Id, tool: &str) -> Vec<u8> {
    let text = format!("Unknown tool: {tool}; tools/list shows those that can be called");
    message::error(Some(id), INVALID_PARAMS, &text, None)
}

/// What comes of calling a tool that is not what it was.
pub fn changed_tool(id: &Id, gate: &str, tool: &str) -> Vec<u8> {
    let text = format!(
        "Unknown tool: {tool} is no longer what it was when it was added to the gate \"{gate}\"; go on without it, and \
         tell the person you work for that it has to be looked at and added anew"
    );
    message::error(Some(id), INVALID_PARAMS, &text, None)
}

/// A list of tools. It is good for nobody else and for no other moment: what may be called can change.
pub fn list(id: &Id, stateless: bool, tools: Vec<Listed>) -> Vec<u8> {
    let tools: Vec<Value> = tools.into_iter().map(|tool| tool.shown).collect();
    let mut result = json!({ "tools": tools });
    if let (true, Some(map)) = (stateless, result.as_object_mut()) {
        map.insert("resultType".to_owned(), "complete".into());
        map.insert("ttlMs".to_owned(), 0.into());
        map.insert("cacheScope".to_owned(), "private".into());
    }
    message::result(id, result)
}
