//! Properties: no path is decided as one thing and sent as another, and no limit ever widens.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::limit::{Form, Rows};
use super::target;

/// Bytes that make trouble in paths, and some that do not.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z0-9._~-]{1,4}",
        2 => Just("/".to_owned()),
        1 => prop_oneof![Just("."), Just(".."), Just("//"), Just("\\"), Just(";"), Just("?"), Just("#"), Just("%")].prop_map(str::to_owned),
        2 => any::<u8>().prop_map(|byte| format!("%{byte:02x}")),
        1 => any::<u8>().prop_map(|byte| format!("%25{byte:02x}")),
        1 => any::<char>().prop_map(|c| c.to_string()),
        1 => Just("&a=".to_owned()),
    ]
}

fn raw() -> impl Strategy<Value = String> {
    proptest::collection::vec(piece(), 0..10).prop_map(|pieces| format!("/{}", pieces.concat()))
}

/// What a lenient server makes of a path: it decodes until nothing changes, and follows what then looks like a way.
fn as_a_lenient_server_reads(path: &str) -> Vec<String> {
    let mut text = path.as_bytes().to_vec();
    for _ in 0..4 {
        let mut out = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let byte =
                (text[at] == b'%').then(|| std::str::from_utf8(text.get(at + 1..at + 3)?).ok()).flatten();
            match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                Some(byte) => {
                    out.push(byte);
                    at += 3;
                }
                None => {
                    out.push(text[at]);
                    at += 1;
                }
            }
        }
        text = out;
    }
    let text = String::from_utf8_lossy(&text).replace('\\', "/");
    let mut at = Vec::new();
    for word in text.split('/').map(|word| word.split([';', '?', '#', '\0']).next().unwrap()) {
        match word {
            "" | "." => {}
            ".." => drop(at.pop()),
            word => at.push(word.to_owned()),
        }
    }
    at
}

fn row() -> impl Strategy<Value = Value> {
    let value = prop_oneof![
        any::<i64>().prop_map(Value::from),
        "[a-c\"\\\\\\[\\]{},: ]{0,6}".prop_map(Value::from),
        Just(serde_json::json!({"a": [1, {"b": "]"}]})),
        Just(Value::Null),
    ];
    proptest::collection::btree_map("[a-d]", value, 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_sent_is_what_was_decided_whoever_reads_it(raw in raw()) {
        if let Ok(target) = target::read(&raw) {
            let written = target.written();
            prop_assert!(written.bytes().all(|c| c.is_ascii_graphic()), "{}", written);
            // Reading it again changes nothing, and neither does decoding it more often or following dots in it.
            prop_assert_eq!(&target::read(&written).unwrap(), &target);
            let path = written.split('?').next().unwrap();
            prop_assert_eq!(as_a_lenient_server_reads(path), target.path.segments.clone());
            prop_assert!(!target.path.segments.iter().any(|part| part == ".." || part.contains(['/', '\\', '\0'])));
        }
    }

    #[test]
    fn no_more_rows_and_no_other_fields_than_the_limits_say(
        rows in proptest::collection::vec(row(), 0..6),
        most in proptest::option::of(0..5_usize),
        fields in proptest::option::of(proptest::collection::btree_set("[a-d]".prop_map(String::from), 0..3)),
        lines in any::<bool>(), inside in any::<bool>()
    ) {
        let fields: Option<BTreeSet<String>> = fields;
        let limits = Rows { most, fields: fields.clone() };
        let (form, at, answer) = match (lines, inside) {
            (true, _) => (Form::Lines, "", rows.iter().map(|row| format!("{row}\n")).collect()),
            (false, false) => (Form::Json, "", Value::from(rows.clone()).to_string()),
            (false, true) => (Form::Json, "/x/y", serde_json::json!({"a": 1, "x": {"b": [2], "y": rows}}).to_string()),
        };
        let left = limits.left(form, at, answer.as_bytes()).unwrap();
        let left: Vec<Value> = match form {
            Form::Lines => left.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
            Form::Json => {
                let value: Value = serde_json::from_str(&left).unwrap();
                let value = if inside {
                    prop_assert_eq!(value.as_object().unwrap().len(), 1);
                    prop_assert_eq!(value["x"].as_object().unwrap().len(), 1);
                    value["x"]["y"].clone()
                } else {
                    value
                };
                value.as_array().unwrap().clone()
            }
        };
        prop_assert_eq!(left.len(), rows.len().min(most.unwrap_or(usize::MAX)));
        for (left, row) in left.iter().zip(&rows) {
            let expected: Map<_, _> = row.as_object().unwrap().iter()
                .filter(|(name, _)| fields.as_ref().is_none_or(|fields| fields.contains(*name)))
                .map(|(name, value)| (name.clone(), value.clone())).collect();
            prop_assert_eq!(left, &Value::Object(expected));
        }
    }
}
