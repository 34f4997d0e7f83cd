//! Messages of JSON-RPC 2.0 as the Model Context Protocol writes them: one on a line, objects only, no batches.
//!
//! Reads the envelope strictly and writes answers. Never knows a method.

use std::fmt;

use avouch_credential::json::Names;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::json::parse;
use crate::gate::limits::{DEPTH_MAX, ID_MAX, ID_NUMBER_MAX, QUOTE_MAX, SERVER_DEPTH_MAX};
use crate::gate::{Side, quote};

/// The line is no JSON.
pub const PARSE_ERROR: i32 = -32700;
/// It is JSON, but no message, or one that could be read in two ways.
pub const INVALID_REQUEST: i32 = -32600;
/// A method that is not there, or that the gate does not let through.
pub const METHOD_NOT_FOUND: i32 = -32601;
/// An unknown tool, or parameters that can't be.
pub const INVALID_PARAMS: i32 = -32602;
/// Something behind the gate did not work.
pub const INTERNAL_ERROR: i32 = -32603;
/// A revision that is not spoken; the code of revision 2026-07-28.
pub const UNSUPPORTED_VERSION: i32 = -32022;

/// The ID of a request, for comparing. `1` and `"1"` are two IDs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    Number(i64),
    Text(String),
}

impl Id {
    /// Reads an ID.
    pub fn read(value: &Value) -> Result<Self, String> {
        let number = value.as_i64().filter(|n| n.unsigned_abs() <= ID_NUMBER_MAX.unsigned_abs());
        match (value, number) {
            (_, Some(number)) => Ok(Self::Number(number)),
            (Value::String(text), _) if text.len() <= ID_MAX => Ok(Self::Text(text.clone())),
            _ => Err(format!("an ID is a whole number below 2^53 or a text of at most {ID_MAX} bytes")),
        }
    }

    fn value(&self) -> Value {
        match self {
            Self::Number(number) => (*number).into(),
            Self::Text(text) => text.as_str().into(),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "\"{}\"", quote(text, QUOTE_MAX)),
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    Request {
        id: Id,
        method: String,
        params: Map<String, Value>,
    },
    Notification {
        method: String,
        params: Map<String, Value>,
    },
    /// An answer. `result` is nothing if it tells of an error.
    Answer {
        /// Nothing if the other side could not say which request it was.
        id: Option<Id>,
        result: Option<Map<String, Value>>,
    },
}

/// Why a line is no message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    /// The ID, if one can be made out beyond doubt.
    pub id: Option<Id>,
    pub code: i32,
    pub text: String,
}

/// Reads a line of one side, without its line end.
///
/// # Errors
/// What is wrong with it, and which request it was, if that can be known.
pub fn read(line: &[u8], from: Side) -> Result<Message, Unread> {
    let (depth, names) = match from {
        Side::AiAgent => (DEPTH_MAX, Names::Folded),
        Side::ToolServer => (SERVER_DEPTH_MAX, Names::Exact),
    };
    let value = parse(line, depth, names).map_err(|fault| Unread {
        id: if fault.syntax { None } else { salvage(line) },
        code: if fault.syntax { PARSE_ERROR } else { INVALID_REQUEST },
        text: fault.text,
    })?;
    let invalid = |id: Option<Id>, text: &str| Unread { id, code: INVALID_REQUEST, text: text.to_owned() };
    let mut map = match value {
        Value::Object(map) => map,
        Value::Array(_) => return Err(invalid(None, "a batch; send each message on a line of its own")),
        _ => return Err(invalid(None, "a message is an object")),
    };
    let id = map.remove("id").map(|id| if id.is_null() { Ok(None) } else { Id::read(&id).map(Some) });
    let id = id.transpose().map_err(|e| invalid(None, &e))?;
    let known = id.clone().flatten();
    let wrong = |text: &str| invalid(known.clone(), text);
    if map.remove("jsonrpc") != Some("2.0".into()) {
        return Err(wrong("\"jsonrpc\" is not \"2.0\""));
    }
    let method = match map.remove("method") {
        Some(Value::String(method)) => Some(method),
        None => None,
        Some(_) => return Err(wrong("\"method\" is no text")),
    };
    let Some(method) = method else { return answer(map, id, &wrong) };
    let params = match map.remove("params") {
        Some(Value::Object(params)) => params,
        None => Map::new(),
        Some(_) => return Err(wrong("\"params\" is no object")),
    };
    if let Some(name) = map.keys().next() {
        return Err(wrong(&format!("\"{}\" has no place in a message", quote(name, QUOTE_MAX))));
    }
    match id {
        Some(Some(id)) => Ok(Message::Request { id, method, params }),
        Some(None) => Err(wrong("the ID of a request is null")),
        None => Ok(Message::Notification { method, params }),
    }
}

fn answer(
    mut map: Map<String, Value>,
    id: Option<Option<Id>>,
    wrong: &dyn Fn(&str) -> Unread,
) -> Result<Message, Unread> {
    let (result, error) = (map.remove("result"), map.remove("error"));
    if let Some(name) = map.keys().next() {
        return Err(wrong(&format!("\"{}\" has no place in an answer", quote(name, QUOTE_MAX))));
    }
    let id = id.flatten();
    match (result, error) {
        (Some(Value::Object(result)), None) if id.is_some() => {
            Ok(Message::Answer { id, result: Some(result) })
        }
        (None, Some(Value::Object(_))) => Ok(Message::Answer { id, result: None }),
        _ => Err(wrong("neither a request nor an answer: it needs a method, a result or an error")),
    }
}

/// The ID of a line whose inside can be read in two ways; nothing if the ID itself can.
fn salvage(line: &[u8]) -> Option<Id> {
    #[derive(Deserialize)]
    struct Head {
        id: Value,
    }
    let head: Head = serde_json::from_slice(line).ok()?;
    Id::read(&head.id).ok()
}

fn line(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// A line with an error. Without an ID it tells of a line that could not be read.
#[must_use]
pub fn error(id: Option<&Id>, code: i32, text: &str, data: Option<Value>) -> Vec<u8> {
    let mut error = json!({ "code": code, "message": text });
    if let (Some(data), Some(error)) = (data, error.as_object_mut()) {
        error.insert("data".to_owned(), data);
    }
    line(&json!({ "jsonrpc": "2.0", "id": id.map_or(Value::Null, Id::value), "error": error }))
}

/// A line with a result.
#[must_use]
pub fn result(id: &Id, result: Value) -> Vec<u8> {
    line(&json!({ "jsonrpc": "2.0", "id": id.value(), "result": result }))
}

/// A line with a request.
#[must_use]
pub fn request(id: &Id, method: &str, params: Value) -> Vec<u8> {
    line(&json!({ "jsonrpc": "2.0", "id": id.value(), "method": method, "params": params }))
}

/// A line with a notification.
#[must_use]
pub fn notification(method: &str) -> Vec<u8> {
    line(&json!({ "jsonrpc": "2.0", "method": method }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unread(text: &str) -> Unread {
        read(text.as_bytes(), Side::AiAgent).unwrap_err()
    }

    #[test]
    fn a_message_is_a_request_a_notification_or_an_answer() {
        let read = |text: &str| read(text.as_bytes(), Side::ToolServer).unwrap();
        let request = read(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
        assert!(matches!(request, Message::Request { id: Id::Number(1), .. }));
        let note = read(r#"{"jsonrpc":"2.0","method":"x","params":{"a":1}}"#);
        assert!(matches!(note, Message::Notification { params, .. } if params["a"] == 1));
        let answer = read(r#"{"jsonrpc":"2.0","id":"1","result":{}}"#);
        assert_eq!(answer, Message::Answer { id: Some(Id::Text("1".to_owned())), result: Some(Map::new()) });
        let error = read(r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"x"}}"#);
        assert_eq!(error, Message::Answer { id: None, result: None });
    }

    #[test]
    fn what_is_no_message_is_told_with_its_code() {
        for (text, code, told) in [
            ("{", PARSE_ERROR, "EOF"),
            ("[]", INVALID_REQUEST, "a batch"),
            (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, INVALID_REQUEST, "a batch"),
            ("3", INVALID_REQUEST, "a message is an object"),
            (r#"{"id":1,"method":"ping"}"#, INVALID_REQUEST, "\"jsonrpc\" is not"),
            (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, INVALID_REQUEST, "\"jsonrpc\" is not"),
            (r#"{"jsonrpc":"2.0","id":1,"method":2}"#, INVALID_REQUEST, "\"method\" is no text"),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","params":[]}"#,
                INVALID_REQUEST,
                "\"params\" is no object",
            ),
            (r#"{"jsonrpc":"2.0","id":1,"method":"x","more":1}"#, INVALID_REQUEST, "\"more\" has no place"),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"x","result":{}}"#,
                INVALID_REQUEST,
                "\"result\" has no place",
            ),
            (r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#, INVALID_REQUEST, "is null"),
            (r#"{"jsonrpc":"2.0","id":1.5,"method":"x"}"#, INVALID_REQUEST, "an ID is"),
            (r#"{"jsonrpc":"2.0","id":9007199254740993,"method":"x"}"#, INVALID_REQUEST, "an ID is"),
            (r#"{"jsonrpc":"2.0","id":1}"#, INVALID_REQUEST, "neither a request nor an answer"),
            (r#"{"jsonrpc":"2.0","id":1,"result":1}"#, INVALID_REQUEST, "neither"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, INVALID_REQUEST, "neither"),
        ] {
            let unread = unread(text);
            assert!(unread.code == code && unread.text.contains(told), "{text}: {unread:?}");
        }
    }

    #[test]
    fn the_request_that_could_not_be_read_is_named_if_its_id_can_be() {
        let inside = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","name":"b"}}"#;
        assert_eq!(unread(inside).id, Some(Id::Number(7)));
        assert_eq!(unread(r#"{"jsonrpc":"2.0","id":7,"id":8,"method":"x"}"#).id, None);
        assert_eq!(unread(r#"{"jsonrpc":"2.0","id":7,"method":"x","#).id, None);
    }
}
