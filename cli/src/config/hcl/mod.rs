//! HCL 1 and its JSON form, as one document of ordered items.
//!
//! Labels are levels: `KeyManager "disk" { … }` is the item `KeyManager` holding the item `disk`, which is what the
//! JSON form says too. Never drops, merges or reorders items: that is for those who know the keys.

mod json;
mod lexer;
mod parser;
mod print;
#[cfg(test)]
mod tests;

use crate::config::limits::TEXT_MAX;

pub use print::print;

/// Line and column in the text, both from 1, columns in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pos {
    pub line: usize,
    pub column: usize,
}

/// The name of an item.
#[derive(Clone, Debug)]
pub struct Key {
    pub text: String,
    pub pos: Pos,
}

/// A name and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub key: Key,
    pub value: Node,
}

/// Items in their order, repeats kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    pub items: Vec<Item>,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub value: Value,
    pub pos: Pos,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// JSON only.
    Null,
    Bool(bool),
    /// An integer as written: decimal, `0x…` or octal `0…`, maybe with a minus.
    Number(String),
    /// A number with a point or an exponent, as written.
    Float(String),
    Text(String),
    List(Vec<Node>),
    Object(Object),
}

/// A whole text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    pub root: Object,
}

/// Equal if the texts are; the place does not matter.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// Equal if the values are; the place does not matter.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// The text is no HCL and no JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("At {}:{}: {problem}", pos.line, pos.column)]
pub struct HclError {
    pub pos: Pos,
    pub problem: String,
}

impl HclError {
    fn new(pos: Pos, problem: impl Into<String>) -> Self {
        Self { pos, problem: problem.into() }
    }
}

/// Parses a text: JSON if it begins with a brace, else HCL 1.
///
/// # Errors
/// The first mistake with its place; also a text over 1 MiB or nested more than 64 levels.
pub fn parse(text: &str) -> Result<Document, HclError> {
    let start = Pos { line: 1, column: 1 };
    if text.len() > TEXT_MAX {
        return Err(HclError::new(
            start,
            format!("the text has {} bytes, at most {TEXT_MAX} are read", text.len()),
        ));
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let root = if text.trim_start().starts_with('{') { json::parse(text)? } else { parser::parse(text)? };
    Ok(Document { root })
}
