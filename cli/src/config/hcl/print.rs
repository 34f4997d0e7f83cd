//! Items to HCL 1 text, the form in which plugins get their settings.
//!
//! What is printed parses to the same items, except that JSON's null, which HCL 1 lacks, becomes an empty block.

use super::{Node, Object, Value};

/// HCL 1 text of an object's items, one per line.
#[must_use]
pub fn print(object: &Object) -> String {
    let mut out = String::new();
    items(&mut out, object, 0);
    out
}

fn items(out: &mut String, object: &Object, depth: usize) {
    for item in &object.items {
        indent(out, depth);
        let word = item.key.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && item.key.text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if word {
            out.push_str(&item.key.text);
        } else {
            quote(out, &item.key.text);
        }
        out.push_str(" = ");
        value(out, &item.value, depth);
        out.push('\n');
    }
}

fn value(out: &mut String, node: &Node, depth: usize) {
    match &node.value {
        Value::Null => out.push_str("{}"),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Number(text) | Value::Float(text) => out.push_str(text),
        Value::Text(text) => quote(out, text),
        Value::List(list) => {
            out.push('[');
            for (n, node) in list.iter().enumerate() {
                if n > 0 {
                    out.push_str(", ");
                }
                value(out, node, depth);
            }
            out.push(']');
        }
        Value::Object(object) if object.items.is_empty() => out.push_str("{}"),
        Value::Object(object) => {
            out.push_str("{\n");
            items(out, object, depth + 1);
            indent(out, depth);
            out.push('}');
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    (0..depth).for_each(|_| out.push_str("    "));
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Else it would begin an interpolation, which may not end.
            '$' if chars.peek() == Some(&'{') => out.push_str("\\u0024"),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}
