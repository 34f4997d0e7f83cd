//! Documents to typed values, by tables of keys and with SPIRE's typing rules: keys in any case, repeated blocks are
//! one, the last value wins, a quoted number is a number, but a quoted or numeric bool is refused.
//!
//! Never passes over a key it does not know. Never holds a default: that is for the reader of the values.

use std::time::Duration;

use super::duration::parse_go;
use super::hcl::{self, Document, Item, Node, Object, Pos, Value};
use super::limits::GUESS_MAX;
use super::table::{KeySpec, Kind, State, Table};

/// A document says something that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("unknown configuration detected: {}", list(.0))]
    Unknown(Vec<UnknownKey>),
    #[error("not supported yet: {}", .0.join(", "))]
    NotYet(Vec<String>),
    /// In the words of SPIRE's decoder.
    #[error("{0}")]
    Type(String),
    #[error("could not parse {path}: {problem}")]
    Duration { path: String, problem: String },
}

/// A key that no table has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownKey {
    /// Path of its block; empty = top level.
    pub section: String,
    pub key: String,
    pub line: usize,
    pub did_you_mean: Option<String>,
}

impl std::fmt::Display for UnknownKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let section = if self.section.is_empty() { "the top level" } else { &self.section };
        write!(f, "`{}` in {section}, line {}", self.key, self.line)?;
        match &self.did_you_mean {
            Some(word) => write!(f, " (did you mean `{word}`?)"),
            None => Ok(()),
        }
    }
}

fn list(keys: &[UnknownKey]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Checks a whole document against its table and gives access to it.
///
/// # Errors
/// The first value of a wrong type; else all unknown keys; else all keys that are not supported yet.
pub fn read<'a>(document: &'a Document, root: &'static Table) -> Result<Section<'a>, ConfigError> {
    Section { objects: vec![&document.root], path: String::new() }.retype(root)
}

/// One block, or several that are one.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    objects: Vec<&'a Object>,
    path: String,
}

impl<'a> Section<'a> {
    /// Checks everything in this block against a table: for blocks that another table holds as [`Kind::Any`].
    ///
    /// # Errors
    /// As [`read`].
    pub fn retype(&self, table: &'static Table) -> Result<Self, ConfigError> {
        let mut check = Check::default();
        for object in &self.objects {
            check.object(object, table, &self.path)?;
        }
        check.unknown.dedup();
        if !check.unknown.is_empty() {
            return Err(ConfigError::Unknown(check.unknown));
        }
        if !check.not_yet.is_empty() {
            return Err(ConfigError::NotYet(check.not_yet));
        }
        Ok(self.clone())
    }

    /// A string; a number is its text.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<String> {
        as_text(self.last(key)?).map(str::to_owned)
    }

    /// An integer, also from a string, also hexadecimal (`0x`) or octal (`0`).
    #[must_use]
    pub fn int(&self, key: &str) -> Option<i64> {
        parse_int(as_text(self.last(key)?)?).ok()
    }

    #[must_use]
    pub fn float(&self, key: &str) -> Option<f64> {
        match &self.last(key)?.value {
            Value::Number(text) | Value::Float(text) => text.parse().ok(),
            _ => None,
        }
    }

    #[must_use]
    pub fn bool(&self, key: &str) -> Option<bool> {
        match self.last(key)?.value {
            Value::Bool(b) => Some(b),
            _ => None,
        }
    }

    /// A list of strings; numbers are their text.
    #[must_use]
    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        match &self.last(key)?.value {
            Value::List(list) => Some(list.iter().filter_map(as_text).map(str::to_owned).collect()),
            _ => None,
        }
    }

    /// A duration in Go's form.
    ///
    /// # Errors
    /// [`ConfigError::Duration`] for another form or a negative one.
    pub fn duration(&self, key: &str) -> Result<Option<Duration>, ConfigError> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let nanos = parse_go(&text)
            .and_then(|nanos| u64::try_from(nanos).map_err(|_| format!("duration {text:?} is negative")));
        match nanos {
            Ok(nanos) => Ok(Some(Duration::from_nanos(nanos))),
            Err(problem) => Err(ConfigError::Duration { path: join(&self.path, key), problem }),
        }
    }

    /// A block; several of one name are one. `None` if there is none, or only JSON's null.
    #[must_use]
    pub fn block(&self, key: &str) -> Option<Self> {
        let objects: Vec<_> = self.items(key).flat_map(|item| objects(&item.value)).collect();
        (!objects.is_empty()).then(|| Self { objects, path: join(&self.path, key) })
    }

    /// Blocks of one name, one by one.
    #[must_use]
    pub fn blocks(&self, key: &str) -> Vec<Self> {
        let path = join(&self.path, key);
        let objects = self.items(key).flat_map(|item| objects(&item.value));
        objects.map(|object| Self { objects: vec![object], path: path.clone() }).collect()
    }

    /// Labels and their blocks in file order. A label that comes twice is told twice.
    #[must_use]
    pub fn labelled(&self, key: &str) -> Vec<(String, Self)> {
        let path = join(&self.path, key);
        let labels = self.items(key).flat_map(|item| objects(&item.value)).flat_map(|object| &object.items);
        labels
            .filter(|item| !item.key.text.is_empty())
            .map(|item| {
                let label = item.key.text.clone();
                let section = Self { objects: objects(&item.value), path: join(&path, &label) };
                (label, section)
            })
            .collect()
    }

    /// A block that this table does not look into; `None` also if it is null or empty.
    #[must_use]
    pub fn any(&self, key: &str) -> Option<Self> {
        self.block(key).filter(|section| !section.is_empty())
    }

    /// True if the key is there, with whatever value but null.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.last(key).is_some()
    }

    /// Where the value that counts stands.
    #[must_use]
    pub fn pos(&self, key: &str) -> Option<Pos> {
        self.last(key).map(|node| node.pos)
    }

    /// Dotted, such as `server.ca_subject`; empty = top level.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.iter().all(|object| object.items.is_empty())
    }

    /// The items of this block as HCL 1 text, the form in which external plugins get them.
    #[must_use]
    pub fn print(&self) -> String {
        self.objects.iter().map(|object| hcl::print(object)).collect()
    }

    fn items(&self, key: &str) -> impl Iterator<Item = &'a Item> {
        let all = self.objects.iter().flat_map(|object| &object.items);
        let found: Vec<&Item> = all.filter(|item| item.key.text.eq_ignore_ascii_case(key)).collect();
        found.into_iter()
    }

    fn last(&self, key: &str) -> Option<&'a Node> {
        self.items(key).map(|item| &item.value).filter(|node| node.value != Value::Null).last()
    }
}

/// The objects of a block's value: itself, or those of the list around them that JSON writers make.
fn objects(node: &Node) -> Vec<&Object> {
    match &node.value {
        Value::Object(object) => vec![object],
        Value::List(list) => list.iter().flat_map(objects).collect(),
        _ => Vec::new(),
    }
}

fn as_text(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text(text) | Value::Number(text) => Some(text),
        _ => None,
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// An integer as Go's `ParseInt` with base 0 reads it.
fn parse_int(text: &str) -> Result<i64, String> {
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, lower.get(2..)),
        [b'0', b'b', ..] => (2, lower.get(2..)),
        [b'0', b'o', ..] => (8, lower.get(2..)),
        [b'0', _, ..] => (8, lower.get(1..)),
        _ => (10, Some(lower.as_str())),
    };
    let failed = |why| format!("strconv.ParseInt: parsing {text:?}: {why}");
    let digits = digits.filter(|d| !d.is_empty() && d.chars().all(|c| c.is_digit(radix)));
    let digits = digits.ok_or_else(|| failed("invalid syntax"))?;
    let sign = if negative { "-" } else { "" };
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|_| failed("value out of range"))
}

/// What a walk over a document finds.
#[derive(Default)]
struct Check {
    unknown: Vec<UnknownKey>,
    not_yet: Vec<String>,
}

impl Check {
    fn object(&mut self, object: &Object, table: &'static Table, path: &str) -> Result<(), ConfigError> {
        for item in &object.items {
            let Some(spec) = table.find(&item.key.text) else {
                self.unknown.push(unknown(item, table, path));
                continue;
            };
            let path = join(path, spec.key);
            match spec.state {
                State::Built => self.value(&item.value, spec.kind, &path)?,
                State::NotYet if asks_nothing(spec, &item.value) => {}
                State::NotYet if self.not_yet.contains(&path) => {}
                State::NotYet => self.not_yet.push(path),
            }
        }
        Ok(())
    }

    fn value(&mut self, node: &Node, kind: Kind, path: &str) -> Result<(), ConfigError> {
        match (kind, &node.value) {
            (_, Value::Null) | (Kind::Any, _) => Ok(()),
            (Kind::Text | Kind::Duration, Value::Text(_) | Value::Number(_)) => Ok(()),
            (Kind::Text | Kind::Duration, _) => {
                wrong(node, &format!("root.{path}: unknown type for string {}", type_name(node)))
            }
            (Kind::Int, Value::Text(text) | Value::Number(text)) => {
                parse_int(text).map(drop).map_err(ConfigError::Type)
            }
            (Kind::Float, Value::Number(_) | Value::Float(_)) | (Kind::Bool, Value::Bool(_)) => Ok(()),
            (Kind::Int | Kind::Float | Kind::Bool, _) => {
                wrong(node, &format!("root.{path}: unknown type {}", type_name(node)))
            }
            (Kind::Texts, Value::List(list)) => {
                list.iter().try_for_each(|node| self.value(node, Kind::Text, path))
            }
            (Kind::Texts, _) => wrong(node, &format!("unknown slice type: {}", type_name(node))),
            (Kind::Block(table) | Kind::Blocks(table), Value::Object(object)) => {
                self.object(object, table, path)
            }
            (Kind::Labelled(table), Value::Object(object)) => object.items.iter().try_for_each(|item| {
                self.value(&item.value, Kind::Block(table), &join(path, &item.key.text))
            }),
            (Kind::Block(_) | Kind::Blocks(_) | Kind::Labelled(_), Value::List(list)) => {
                list.iter().try_for_each(|node| self.value(node, kind, path))
            }
            (Kind::Block(_) | Kind::Blocks(_) | Kind::Labelled(_), _) => {
                wrong(node, &format!("root.{path}: not an object type for struct ({})", type_name(node)))
            }
        }
    }
}

fn wrong(node: &Node, problem: &str) -> Result<(), ConfigError> {
    Err(ConfigError::Type(format!("At {}:{}: {problem}", node.pos.line, node.pos.column)))
}

/// As SPIRE's decoder names the kind of a value.
fn type_name(node: &Node) -> &'static str {
    match node.value {
        Value::List(_) => "*ast.ListType",
        Value::Object(_) => "*ast.ObjectType",
        _ => "*ast.LiteralType",
    }
}

/// True for a key that is not built but set to what holds anyway: charts write such keys.
fn asks_nothing(spec: &KeySpec, node: &Node) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Text(text) if text.is_empty() => true,
        Value::List(list) if list.is_empty() => true,
        _ if objects(node).iter().any(|object| object.items.is_empty()) => {
            objects(node).iter().all(|object| object.items.is_empty())
        }
        _ if spec.default.is_empty() => false,
        _ => {
            let default = hcl::parse(&format!("default = {}", spec.default)).unwrap_or_default();
            let default = default.root.items.first().map(|item| &item.value);
            default.is_some_and(|d| d == node || (as_text(d).is_some() && as_text(d) == as_text(node)))
        }
    }
}

fn unknown(item: &Item, table: &'static Table, path: &str) -> UnknownKey {
    UnknownKey {
        section: path.to_owned(),
        key: item.key.text.clone(),
        line: item.key.pos.line,
        did_you_mean: nearest(&item.key.text, table.keys.iter().map(|spec| spec.key)).map(str::to_owned),
    }
}

/// The candidate that differs least from a word, if it is near enough to be meant.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > GUESS_MAX {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    let near = candidates.map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate));
    near.filter(|(steps, _)| *steps <= allowed)
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, candidate)| candidate)
}

/// Letters to add, remove or replace on the way from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (n, a) in from.chars().enumerate() {
        let mut left = n + 1;
        let mut next = vec![left];
        for (b, above) in to.iter().zip(row.windows(2)) {
            let [diagonal, up] = above else { continue };
            left = (diagonal + usize::from(a != *b)).min(up + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests;
