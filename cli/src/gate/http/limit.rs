//! What is left of an answer within limits: so many rows, and of each these fields.
//!
//! Copies what is let through as the upstream wrote it and adds nothing but brackets. Never gives half of a row, or anything
//! that stands beside the rows.

use std::collections::BTreeSet;

use avouch_rules::Limits;
use serde::de::IgnoredAny;

/// How rows stand in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One JSON document.
    Json,
    /// A JSON value on each line.
    Lines,
}

impl Form {
    /// The form of a content type that rows can be taken from.
    #[must_use]
    pub fn of(content_type: &str) -> Option<Self> {
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match kind.as_str() {
            "application/json" => Some(Self::Json),
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines" => Some(Self::Lines),
            other if other.starts_with("application/") && other.ends_with("+json") => Some(Self::Json),
            _ => None,
        }
    }
}

/// What of an answer may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rows {
    pub most: Option<usize>,
    pub fields: Option<BTreeSet<String>>,
}

impl Rows {
    /// What the limits say of rows; `None` if they say nothing.
    #[must_use]
    pub fn of(limits: &Limits) -> Option<Self> {
        let most = limits.max_rows.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        (most.is_some() || limits.fields.is_some()).then(|| Self { most, fields: limits.fields.clone() })
    }

    /// What is left of an answer. `at`: where its rows are, if it is one document.
    ///
    /// # Errors
    /// One sentence on why nothing of it can be shown.
    pub fn left(&self, form: Form, at: &str, answer: &[u8]) -> Result<String, String> {
        let text = std::str::from_utf8(answer).map_err(|_| "the answer is not UTF-8".to_owned())?;
        match form {
            Form::Json => self.document(at, text),
            Form::Lines => self.lines(text),
        }
    }

    fn lines(&self, text: &str) -> Result<String, String> {
        let mut out = String::new();
        let rows = text.split('\n').map(str::trim_ascii).filter(|line| !line.is_empty());
        for row in rows.take(self.most.unwrap_or(usize::MAX)) {
            out.push_str(&self.row(valid(row)?)?);
            out.push('\n');
        }
        Ok(out)
    }

    fn document(&self, at: &str, text: &str) -> Result<String, String> {
        let (mut value, mut before, mut after) = (valid(text)?, String::new(), String::new());
        for token in at.split('/').skip(1).map(|token| token.replace("~1", "/").replace("~0", "~")) {
            let mut named = Vec::new();
            for (raw, member) in
                members(value).ok_or_else(|| format!("the answer has no object above {at}"))?
            {
                if name(raw)? == token {
                    named.push((raw, member));
                }
            }
            let [(raw, member)] = named[..] else {
                return Err(format!("the answer has not one value at {at}"));
            };
            before.push_str(&format!("{{{raw}:"));
            after.push('}');
            value = member;
        }
        let rows = match (elements(value), self.most) {
            (Some(rows), most) => {
                let rows = rows.into_iter().take(most.unwrap_or(usize::MAX));
                let rows: Vec<_> = rows.map(|row| self.row(row)).collect::<Result<_, _>>()?;
                format!("[{}]", rows.join(","))
            }
            // One alone.
            (None, None | Some(1..)) if value.starts_with('{') => self.row(value)?,
            (None, _) => return Err("the answer has no rows that could be shown".to_owned()),
        };
        Ok(format!("{before}{rows}{after}"))
    }

    fn row(&self, row: &str) -> Result<String, String> {
        let Some(fields) = &self.fields else { return Ok(row.to_owned()) };
        let members = members(row).ok_or("a row of the answer is no object, so it has no fields")?;
        let mut kept = Vec::new();
        for (raw, value) in members {
            if fields.contains(&name(raw)?) {
                kept.push(format!("{raw}:{value}"));
            }
        }
        Ok(format!("{{{}}}", kept.join(",")))
    }
}

/// The text of one JSON value, without what stands around it.
fn valid(text: &str) -> Result<&str, String> {
    let read: Result<IgnoredAny, _> = serde_json::from_str(text);
    read.map(|_| text.trim_ascii()).map_err(|e| format!("the answer is no JSON that can be read: {e}"))
}

/// A name as it is meant.
fn name(raw: &str) -> Result<String, String> {
    serde_json::from_str(raw).map_err(|e| format!("the answer has a name that can't be read: {e}"))
}

/// The values of a list; `None` if it is none. The text is known to be JSON.
fn elements(text: &str) -> Option<Vec<&str>> {
    let mut rest = text.strip_prefix('[')?.trim_ascii_start();
    let mut found = Vec::new();
    while !rest.starts_with(']') {
        let (value, after) = split_value(rest)?;
        found.push(value);
        rest = after.strip_prefix(',').unwrap_or(after).trim_ascii_start();
    }
    Some(found)
}

/// Names, as they are written, and values of an object; `None` if it is none. The text is known to be JSON.
fn members(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut rest = text.strip_prefix('{')?.trim_ascii_start();
    let mut found = Vec::new();
    while !rest.starts_with('}') {
        let (name, after) = split_value(rest)?;
        let (value, after) = split_value(after.strip_prefix(':')?.trim_ascii_start())?;
        found.push((name, value));
        rest = after.strip_prefix(',').unwrap_or(after).trim_ascii_start();
    }
    Some(found)
}

/// The first value of a text and what comes after it, both without space before them.
fn split_value(text: &str) -> Option<(&str, &str)> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, c) in text.bytes().enumerate() {
        let ends_here = match c {
            _ if escaped => {
                escaped = false;
                false
            }
            b'\\' if quoted => {
                escaped = true;
                false
            }
            b'"' => {
                quoted = !quoted;
                !quoted && depth == 0
            }
            _ if quoted => false,
            b'[' | b'{' => {
                depth += 1;
                false
            }
            b']' | b'}' => {
                // Of what is around it.
                if depth == 0 {
                    return cut(text, at);
                }
                depth -= 1;
                depth == 0
            }
            b',' | b' ' | b'\t' | b'\r' | b'\n' if depth == 0 => return cut(text, at),
            _ => false,
        };
        if ends_here {
            return cut(text, at + 1);
        }
    }
    cut(text, text.len())
}

fn cut(text: &str, at: usize) -> Option<(&str, &str)> {
    let (value, after) = text.split_at_checked(at)?;
    (!value.is_empty()).then(|| (value, after.trim_ascii_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(most: Option<usize>, fields: &[&str]) -> Rows {
        let fields = fields.iter().map(|field| (*field).to_owned()).collect();
        Rows { most, fields: Some(fields).filter(|fields: &BTreeSet<_>| !fields.is_empty()) }
    }

    #[test]
    fn so_many_rows_and_these_fields_are_left_as_they_were_written() {
        let answer = r#" [ {"a": 1.50, "b": "x,]}\"", "c": [1,{"a":2}]} , {"a":90071992547409931,"b":null}, {"a":3} ] "#;
        for (rows, left) in [
            (rows(Some(2), &["a"]), r#"[{"a":1.50},{"a":90071992547409931}]"#),
            (rows(None, &["b", "z"]), r#"[{"b":"x,]}\""},{"b":null},{}]"#),
            (rows(Some(1), &[]), r#"[{"a": 1.50, "b": "x,]}\"", "c": [1,{"a":2}]}]"#),
            (rows(Some(0), &["a"]), "[]"),
            (rows(Some(9), &["c"]), r#"[{"c":[1,{"a":2}]},{},{}]"#),
        ] {
            assert_eq!(rows.left(Form::Json, "", answer.as_bytes()).unwrap(), left);
        }
    }

    #[test]
    fn what_stands_beside_the_rows_is_not_shown() {
        let answer = r#"{"total": 50000, "data": {"debug": "x", "items": [{"a":1,"b":2}], "more": [1]}}"#;
        let left = rows(Some(1), &["a"]).left(Form::Json, "/data/items", answer.as_bytes()).unwrap();
        assert_eq!(left, r#"{"data":{"items":[{"a":1}]}}"#);
        let one = rows(Some(1), &["a"]).left(Form::Json, "", br#"{"a":1,"b":2}"#).unwrap();
        assert_eq!(one, r#"{"a":1}"#, "one alone is a row");
    }

    #[test]
    fn lines_are_rows() {
        let answer = b"{\"a\":1,\"b\":2}\r\n\n{\"a\":3}\n{\"a\":4}\nno json";
        let left = rows(Some(2), &["a"]).left(Form::Lines, "", answer).unwrap();
        assert_eq!(left, "{\"a\":1}\n{\"a\":3}\n");
        assert!(rows(None, &["a"]).left(Form::Lines, "", answer).unwrap_err().contains("no JSON"));
    }

    #[test]
    fn a_name_is_the_same_however_it_is_escaped() {
        let left = rows(None, &["a"]).left(Form::Json, "", br#"[{"\u0061":1,"\u0062":2}]"#).unwrap();
        assert_eq!(left, r#"[{"\u0061":1}]"#);
    }

    #[test]
    fn what_has_no_rows_is_not_shown() {
        for (at, answer) in [
            ("", "1"),
            ("", "\"text\""),
            ("", "null"),
            ("", "[1,2]"),
            ("", "[[1]]"),
            ("", "[{\"a\":1}"),
            ("", "[{\"a\":1}] x"),
            ("", ""),
            ("/items", "[]"),
            ("/items", "{}"),
            ("/items", "{\"items\":1}"),
            ("/items", "{\"items\":[],\"items\":[{\"a\":1}]}"),
        ] {
            assert!(rows(Some(1), &["a"]).left(Form::Json, at, answer.as_bytes()).is_err(), "{at} {answer}");
        }
        assert!(rows(Some(0), &[]).left(Form::Json, "", b"{\"a\":1}").is_err());
        // However deep: nobody here calls himself for it.
        let deep = format!("[{}1{}]", "[".repeat(9_999), "]".repeat(9_999));
        assert_eq!(rows(Some(1), &[]).left(Form::Json, "", deep.as_bytes()), Ok(deep));
    }

    #[test]
    fn rows_are_taken_from_json_and_from_lines_of_it_only() {
        assert_eq!(Form::of("application/json; charset=utf-8"), Some(Form::Json));
        assert_eq!(Form::of("application/vnd.api+json"), Some(Form::Json));
        assert_eq!(Form::of("Application/X-NDJSON"), Some(Form::Lines));
        for other in ["text/html", "text/csv", "", "application/octet-stream", "text/json"] {
            assert_eq!(Form::of(other), None, "{other}");
        }
    }
}
