//! JSON to items, order and repeats kept.

use super::lexer::Cursor;
use super::{HclError, Item, Key, Node, Object, Value};
use crate::config::limits::DEPTH_MAX;

/// Reads a whole text, which is one object.
pub(super) fn parse(text: &str) -> Result<Object, HclError> {
    let mut cursor = Cursor::new(text);
    let root = value(&mut cursor, 0)?;
    blank(&mut cursor);
    if cursor.peek().is_some() {
        return Err(cursor.error("expected the end of the text"));
    }
    match root.value {
        Value::Object(root) => Ok(root),
        _ => Err(HclError::new(root.pos, "expected an object")),
    }
}

fn blank(cursor: &mut Cursor<'_>) {
    cursor.take_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n'));
}

fn value(cursor: &mut Cursor<'_>, depth: usize) -> Result<Node, HclError> {
    blank(cursor);
    let pos = cursor.pos();
    if depth > DEPTH_MAX {
        return Err(cursor.error(format!("nested more than {DEPTH_MAX} levels")));
    }
    let value = match cursor.peek() {
        Some('{') => Value::Object(object(cursor, depth)?),
        Some('[') => Value::List(list(cursor, depth)?),
        Some('"') => Value::Text(text(cursor)?),
        Some('-' | '0'..='9') => number(cursor)?,
        _ if cursor.take("true") => Value::Bool(true),
        _ if cursor.take("false") => Value::Bool(false),
        _ if cursor.take("null") => Value::Null,
        _ => return Err(cursor.error("expected a value")),
    };
    Ok(Node { value, pos })
}

fn object(cursor: &mut Cursor<'_>, depth: usize) -> Result<Object, HclError> {
    let mut object = Object::default();
    cursor.next();
    blank(cursor);
    if cursor.take("}") {
        return Ok(object);
    }
    loop {
        blank(cursor);
        let pos = cursor.pos();
        if cursor.peek() != Some('"') {
            return Err(cursor.error("expected a key in quotes"));
        }
        let key = Key { text: text(cursor)?, pos };
        blank(cursor);
        if !cursor.take(":") {
            return Err(cursor.error("expected `:`"));
        }
        object.items.push(Item { key, value: value(cursor, depth + 1)? });
        blank(cursor);
        if cursor.take("}") {
            return Ok(object);
        }
        if !cursor.take(",") {
            return Err(cursor.error("expected `,` or `}`"));
        }
    }
}

fn list(cursor: &mut Cursor<'_>, depth: usize) -> Result<Vec<Node>, HclError> {
    let mut list = Vec::new();
    cursor.next();
    blank(cursor);
    if cursor.take("]") {
        return Ok(list);
    }
    loop {
        list.push(value(cursor, depth + 1)?);
        blank(cursor);
        if cursor.take("]") {
            return Ok(list);
        }
        if !cursor.take(",") {
            return Err(cursor.error("expected `,` or `]`"));
        }
    }
}

fn number(cursor: &mut Cursor<'_>) -> Result<Value, HclError> {
    let pos = cursor.pos();
    let text = cursor.take_while(|c| matches!(c, '-' | '+' | '.' | 'e' | 'E' | '0'..='9'));
    // JSON's own rules: no leading zeros or plus, digits on both sides of the point.
    if serde_json::from_str::<serde_json::Number>(&text).is_err() {
        return Err(HclError::new(pos, format!("`{text}` is no number")));
    }
    let float = text.contains(['.', 'e', 'E']);
    Ok(if float { Value::Float(text) } else { Value::Number(text) })
}

fn text(cursor: &mut Cursor<'_>) -> Result<String, HclError> {
    let start = cursor.pos();
    let mut raw = String::new();
    raw.extend(cursor.next());
    loop {
        let Some(c) = cursor.next() else { return Err(HclError::new(start, "string not terminated")) };
        raw.push(c);
        match c {
            '"' => break,
            '\\' => raw.extend(cursor.next()),
            _ => {}
        }
    }
    serde_json::from_str(&raw)
        .map_err(|_| HclError::new(start, "string with an unknown escape or a control character"))
}
