//! Takes out of a call's arguments what the rules want to know.
//!
//! A value of another type, or under a name that only looks alike, is refused: the tool server might read it where the
//! rules saw nothing. A value that is not there is not there.

use std::collections::BTreeSet;

use avouch_credential::json::folded;
use avouch_rules::limits::{PARAM_SET_MAX, PARAM_TEXT_MAX};
use avouch_rules::{Param, ParamKind, Params};
use serde_json::{Map, Value};

use crate::gate::limits::QUOTE_MAX;
use crate::gate::{Tool, quote};

/// The parameters of a call.
///
/// # Errors
/// One sentence on what is wrong with which argument.
pub fn extract(tool: &Tool, arguments: &Map<String, Value>) -> Result<Params, String> {
    let mut params = Params::new();
    for (name, place) in &tool.params {
        if let Some(value) = find(arguments, &place.pointer)? {
            let param = read(value, place.kind).map_err(|e| format!("the argument {} {e}", place.pointer))?;
            params.insert(name.clone(), param);
        }
    }
    Ok(params)
}

/// What a JSON pointer (RFC 6901) points at.
fn find<'a>(arguments: &'a Map<String, Value>, pointer: &str) -> Result<Option<&'a Value>, String> {
    let mut tokens = pointer.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~"));
    let Some(first) = tokens.next() else { return Ok(None) };
    let mut at = member(arguments, &first)?;
    for token in tokens {
        at = match at {
            Some(Value::Object(map)) => member(map, &token)?,
            Some(Value::Array(list)) => index(&token).and_then(|n| list.get(n)),
            _ => None,
        };
    }
    Ok(at)
}

fn member<'a>(map: &'a Map<String, Value>, name: &str) -> Result<Option<&'a Value>, String> {
    if let Some(value) = map.get(name) {
        return Ok(Some(value));
    }
    let alike = folded(name);
    match map.keys().find(|key| folded(key) == alike) {
        None => Ok(None),
        Some(key) => Err(format!("the argument \"{}\" is to be spelled \"{name}\"", quote(key, QUOTE_MAX))),
    }
}

fn index(token: &str) -> Option<usize> {
    // As RFC 6901 has it: no sign, no leading zero.
    let plain = token == "0" || !token.starts_with(['0', '+']);
    token.parse().ok().filter(|_| plain)
}

fn read(value: &Value, kind: ParamKind) -> Result<Param, String> {
    let text = |value: &Value| value.as_str().filter(|t| t.len() <= PARAM_TEXT_MAX).map(str::to_owned);
    let read = match (kind, value) {
        (ParamKind::Long, value) => value.as_i64().map(Param::Long),
        (ParamKind::String, value) => text(value).map(Param::String),
        (ParamKind::Set, Value::Array(list)) if list.len() <= PARAM_SET_MAX => {
            list.iter().map(text).collect::<Option<BTreeSet<_>>>().map(Param::Set)
        }
        (ParamKind::Set, _) => None,
    };
    read.ok_or_else(|| match kind {
        ParamKind::Long => "is no whole number of 64 bits".to_owned(),
        ParamKind::String => format!("is no text of at most {PARAM_TEXT_MAX} bytes"),
        ParamKind::Set => {
            format!("is no list of at most {PARAM_SET_MAX} texts of at most {PARAM_TEXT_MAX} bytes")
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gate::Place;

    fn taken(pointer: &str, kind: ParamKind, arguments: Value) -> Result<Option<Param>, String> {
        let place = Place { pointer: pointer.to_owned(), kind };
        let tool = Tool { params: [("it".to_owned(), place)].into(), ..Tool::default() };
        extract(&tool, arguments.as_object().unwrap()).map(|mut params| params.remove("it"))
    }

    #[test]
    fn a_parameter_is_taken_from_where_its_pointer_points() {
        let text = |text: &str| Ok(Some(Param::String(text.to_owned())));
        let string = ParamKind::String;
        assert_eq!(taken("/path", string, json!({ "path": "x" })), text("x"));
        assert_eq!(taken("/a~1b/1/~0", string, json!({ "a/b": [0, { "~": "x" }] })), text("x"));
        assert_eq!(taken("/n", ParamKind::Long, json!({ "n": -3 })), Ok(Some(Param::Long(-3))));
        let set = ["a".to_owned(), "b".to_owned()].into();
        assert_eq!(taken("/s", ParamKind::Set, json!({ "s": ["b", "a", "b"] })), Ok(Some(Param::Set(set))));
        for arguments in
            [json!({}), json!({ "path": [] }), json!({ "path": 1 }), json!({ "path": { "b": 1 } })]
        {
            assert_eq!(taken("/path/a", string, arguments), Ok(None));
        }
        for token in ["01", "+1", "-", "-1", "9"] {
            assert_eq!(
                taken(&format!("/l/{token}"), string, json!({ "l": ["a", "b"] })),
                Ok(None),
                "{token}"
            );
        }
    }

    #[test]
    fn an_argument_of_another_type_or_size_is_refused() {
        for (kind, value) in [
            (ParamKind::String, json!(null)),
            (ParamKind::String, json!(1)),
            (ParamKind::String, json!(["x"])),
            (ParamKind::String, json!("x".repeat(PARAM_TEXT_MAX + 1))),
            (ParamKind::Long, json!(1.5)),
            (ParamKind::Long, json!(1.0)),
            (ParamKind::Long, json!("1")),
            (ParamKind::Long, json!(u64::MAX)),
            (ParamKind::Set, json!("x")),
            (ParamKind::Set, json!(["x", 1])),
            (ParamKind::Set, json!(vec!["x"; PARAM_SET_MAX + 1])),
        ] {
            let error = taken("/it", kind, json!({ "it": value })).unwrap_err();
            assert!(error.starts_with("the argument /it is no "), "{error}");
        }
    }

    #[test]
    fn an_argument_that_only_looks_like_one_is_refused() {
        for name in ["Path", "PATH", "pa\u{1e6b}h"] {
            let found = taken("/path", ParamKind::String, json!({ name: "secrets/key" }));
            assert_eq!(found.is_err(), name.is_ascii(), "{name}: {found:?}");
        }
        let found = taken("/\u{17f}ize", ParamKind::Long, json!({ "size": 1 }));
        assert!(found.unwrap_err().contains("is to be spelled"));
        assert!(taken("/a/path", ParamKind::String, json!({ "a": { "pATH": 1 } })).is_err());
    }
}
