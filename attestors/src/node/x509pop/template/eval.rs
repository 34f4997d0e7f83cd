//! What fields and functions give: those of SPIRE's list that make sense of one certificate, with its meanings.
//!
//! Never: no function reads anything but its arguments.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};

use super::{Call, Facts, Operand, Pipeline, Value};

/// Names of the functions, sorted.
pub(super) const FUNCTIONS: &[&str] = &[
    "default",
    "first",
    "index",
    "join",
    "last",
    "lower",
    "nospace",
    "replace",
    "sha1sum",
    "sha256sum",
    "substr",
    "trim",
    "trimAll",
    "trimPrefix",
    "trimSuffix",
    "trunc",
    "upper",
];

pub(super) fn pipeline(calls: &Pipeline, facts: &Facts) -> Result<Value, String> {
    let mut piped = None;
    for call in calls {
        piped = Some(match call {
            Call::Value(value) => operand(value, facts)?,
            Call::Function { name, arguments } => {
                let mut values =
                    arguments.iter().map(|a| operand(a, facts)).collect::<Result<Vec<_>, _>>()?;
                values.extend(piped);
                function(name, &values).map_err(|e| format!("{name}: {e}"))?
            }
        });
    }
    piped.ok_or_else(|| "nothing to show".to_owned())
}

/// A value that can stand in a path.
pub(super) fn text(value: Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::List(list) => {
            Err(format!("a list of {} can't stand in a path: pick one with first, index or join", list.len()))
        }
        Value::Map(_) => Err("a group of fields can't stand in a path: name one of them".to_owned()),
    }
}

fn operand(operand: &Operand, facts: &Facts) -> Result<Value, String> {
    match operand {
        Operand::Text(text) => Ok(Value::Text(text.clone())),
        Operand::Number(number) => Ok(Value::Number(*number)),
        Operand::Group(group) => pipeline(group, facts),
        Operand::Field(path) => {
            let missing = || format!("the certificate has no .{}", path.join("."));
            let (first, parts) = path.split_first().ok_or_else(missing)?;
            let mut value = facts.get(first).ok_or_else(missing)?;
            for part in parts {
                let Value::Map(members) = value else { return Err(missing()) };
                value = members.get(part).ok_or_else(missing)?;
            }
            Ok(value.clone())
        }
    }
}

fn function(name: &str, values: &[Value]) -> Result<Value, String> {
    use Value::{List, Map, Number, Text};
    let text = |text: &str| Ok(Text(text.to_owned()));
    match (name, values) {
        ("lower", [Text(s)]) => text(&s.to_lowercase()),
        ("upper", [Text(s)]) => text(&s.to_uppercase()),
        ("trim", [Text(s)]) => text(s.trim()),
        ("nospace", [Text(s)]) => text(&s.split_whitespace().collect::<String>()),
        ("trimPrefix", [Text(prefix), Text(s)]) => text(s.strip_prefix(prefix.as_str()).unwrap_or(s)),
        ("trimSuffix", [Text(suffix), Text(s)]) => text(s.strip_suffix(suffix.as_str()).unwrap_or(s)),
        ("trimAll", [Text(cut), Text(s)]) => text(s.trim_matches(|c| cut.contains(c))),
        ("replace", [Text(old), Text(new), Text(s)]) => text(&s.replace(old.as_str(), new)),
        ("trunc", [Number(n), Text(s)]) => text(trunc(*n, s)?),
        ("substr", [Number(start), Number(end), Text(s)]) => text(substr(*start, *end, s)?),
        ("default", [Text(other), Text(s)]) => text(if s.is_empty() { other } else { s }),
        ("sha1sum", [Text(s)]) => text(&hex::encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, s.as_bytes()))),
        ("sha256sum", [Text(s)]) => text(&hex::encode(digest(&SHA256, s.as_bytes()))),
        ("join", [Text(between), List(list)]) => text(&list.join(between)),
        ("first", [List(list)]) => text(list.first().ok_or("the list is empty")?),
        ("last", [List(list)]) => text(list.last().ok_or("the list is empty")?),
        ("index", [List(list), Number(at)]) => {
            let found = usize::try_from(*at).ok().and_then(|at| list.get(at));
            text(found.ok_or_else(|| format!("the list has {} members, no number {at}", list.len()))?)
        }
        ("index", [Map(members), Text(key)]) => {
            members.get(key).cloned().ok_or_else(|| format!("the certificate has no {key:?}"))
        }
        _ => Err("wrong number or kind of arguments".to_owned()),
    }
}

/// The first `n` bytes, or the last if `n` is below zero.
fn trunc(n: i64, s: &str) -> Result<&str, String> {
    let count = usize::try_from(n.unsigned_abs()).unwrap_or(usize::MAX);
    let cut = if count >= s.len() {
        Some(s)
    } else if n < 0 {
        s.get(s.len() - count..)
    } else {
        s.get(..count)
    };
    cut.ok_or_else(|| "cuts a letter in two".to_owned())
}

/// From `start` to `end`; below zero means from the beginning and to the end.
fn substr(start: i64, end: i64, s: &str) -> Result<&str, String> {
    let start = usize::try_from(start).unwrap_or(0).min(s.len());
    let end = usize::try_from(end).unwrap_or(s.len()).min(s.len());
    s.get(start..end).ok_or_else(|| format!("no text from {start} to {end}"))
}
