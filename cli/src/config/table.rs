//! Tables of configuration keys: what each is called, holds, means, defaults to, and if it is built.
//!
//! From one table come the check for unknown keys, the typed reading, the example file and the list of keys that are
//! not supported yet, so these can't drift apart. Never holds a value.

/// The keys of one block.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// As errors name the block; empty for the whole file.
    pub name: &'static str,
    pub keys: &'static [KeySpec],
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct KeySpec {
    pub key: &'static str,
    pub kind: Kind,
    /// An HCL literal; empty = none.
    pub default: &'static str,
    /// Empty = none.
    pub unit: &'static str,
    pub meaning: &'static str,
    pub state: State,
    /// Written uncommented in the example file, with `default` as its value.
    pub live: bool,
    /// What the example file shows below a labelled key.
    pub plugins: &'static [Plugin],
}

/// What a key holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Text,
    Int,
    Float,
    Bool,
    Duration,
    /// A list of strings.
    Texts,
    /// A block; written twice, the two are one.
    Block(&'static Table),
    /// A block that may come several times.
    Blocks(&'static Table),
    /// Blocks told apart by a label: `NodeAttestor "join_token" { … }`.
    Labelled(&'static Table),
    /// A block that somebody else looks into.
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Built,
    /// SPIRE has it, we refuse it unless it asks for nothing.
    NotYet,
}

/// A plugin in the example file.
#[derive(Clone, Copy, Debug)]
pub struct Plugin {
    pub name: &'static str,
    /// Its `plugin_data`; `None` = has no settings.
    pub data: Option<&'static Table>,
    /// Written uncommented.
    pub live: bool,
}

impl KeySpec {
    #[must_use]
    pub const fn text(key: &'static str, default: &'static str, meaning: &'static str) -> Self {
        Self::new(key, Kind::Text, default, meaning)
    }

    #[must_use]
    pub const fn int(key: &'static str, default: &'static str, meaning: &'static str) -> Self {
        Self::new(key, Kind::Int, default, meaning)
    }

    #[must_use]
    pub const fn float(key: &'static str, default: &'static str, meaning: &'static str) -> Self {
        Self::new(key, Kind::Float, default, meaning)
    }

    #[must_use]
    pub const fn bool(key: &'static str, default: &'static str, meaning: &'static str) -> Self {
        Self::new(key, Kind::Bool, default, meaning)
    }

    #[must_use]
    pub const fn duration(key: &'static str, default: &'static str, meaning: &'static str) -> Self {
        Self::new(key, Kind::Duration, default, meaning)
    }

    #[must_use]
    pub const fn texts(key: &'static str, default: &'static str, meaning: &'static str) -> Self {
        Self::new(key, Kind::Texts, default, meaning)
    }

    #[must_use]
    pub const fn block(key: &'static str, table: &'static Table, meaning: &'static str) -> Self {
        Self::new(key, Kind::Block(table), "", meaning)
    }

    #[must_use]
    pub const fn blocks(key: &'static str, table: &'static Table, meaning: &'static str) -> Self {
        Self::new(key, Kind::Blocks(table), "", meaning)
    }

    #[must_use]
    pub const fn labelled(key: &'static str, table: &'static Table, meaning: &'static str) -> Self {
        Self::new(key, Kind::Labelled(table), "", meaning)
    }

    #[must_use]
    pub const fn any(key: &'static str, meaning: &'static str) -> Self {
        Self::new(key, Kind::Any, "", meaning)
    }

    #[must_use]
    pub const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    #[must_use]
    pub const fn not_yet(self) -> Self {
        Self { state: State::NotYet, ..self }
    }

    #[must_use]
    pub const fn live(self) -> Self {
        Self { live: true, ..self }
    }

    #[must_use]
    pub const fn plugins(self, plugins: &'static [Plugin]) -> Self {
        Self { plugins, ..self }
    }

    const fn new(key: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Self {
        Self { key, kind, default, unit: "", meaning, state: State::Built, live: false, plugins: &[] }
    }
}

impl Table {
    /// The key of this name, in any case.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<&'static KeySpec> {
        self.keys.iter().find(|spec| spec.key.eq_ignore_ascii_case(key))
    }
}

/// Dotted paths of the keys that are refused with "not supported yet", sorted.
#[must_use]
pub fn not_yet_keys(table: &Table) -> Vec<String> {
    let mut found = Vec::new();
    collect_not_yet(table, "", &mut found);
    found.sort();
    found.dedup();
    found
}

fn collect_not_yet(table: &Table, path: &str, found: &mut Vec<String>) {
    for spec in table.keys {
        let path = format!("{path}{}", spec.key);
        match (spec.state, spec.kind) {
            (State::NotYet, _) => found.push(path),
            (State::Built, Kind::Block(inner) | Kind::Blocks(inner) | Kind::Labelled(inner)) => {
                collect_not_yet(inner, &format!("{path}."), found);
            }
            (State::Built, _) => {}
        }
    }
}

/// The example file: every built key with its meaning, unit and default. A line that begins with `#` and no space is a
/// key left at its default; taking the `#` away changes nothing until the value is changed.
#[must_use]
pub fn example(table: &Table) -> String {
    let mut page = Page { out: String::new(), depth: 0, off: false };
    page.comment(
        "Every key stands here with its meaning, its unit if it has one, and its default. Take away the",
    );
    page.comment("`#` before a key to set it.");
    page.keys(table);
    page.out
}

/// Widest comment in the example file, in characters without its indentation.
const COMMENT_WIDTH: usize = 96;

struct Page {
    out: String,
    depth: usize,
    /// Inside of a block that is commented out.
    off: bool,
}

impl Page {
    fn keys(&mut self, table: &Table) {
        for spec in table.keys.iter().filter(|spec| spec.state == State::Built) {
            if !self.out.ends_with("{\n") {
                self.out.push('\n');
            }
            self.key(spec);
        }
    }

    fn key(&mut self, spec: &KeySpec) {
        let unit = if spec.unit.is_empty() { String::new() } else { format!(" Unit: {}.", spec.unit) };
        self.comment(&format!("{}{unit}", spec.meaning));
        match spec.kind {
            Kind::Block(table) | Kind::Blocks(table) => {
                self.block(&format!("{} {{", spec.key), spec.live, |page| page.keys(table));
            }
            Kind::Labelled(table) => self.plugins(spec, table),
            Kind::Any => self.line(&format!("{} {{}}", spec.key), spec.live),
            _ => {
                let value = if spec.default.is_empty() { placeholder(spec.kind) } else { spec.default };
                self.line(&format!("{} = {value}", spec.key), spec.live);
            }
        }
    }

    fn plugins(&mut self, spec: &KeySpec, table: &Table) {
        for (n, plugin) in spec.plugins.iter().enumerate() {
            if n > 0 {
                self.out.push('\n');
            }
            self.block(&format!("{} \"{}\" {{", spec.key, plugin.name), plugin.live, |page| {
                match plugin.data {
                    Some(data) => page.block("plugin_data {", true, |page| page.keys(data)),
                    None => page.line("plugin_data {}", true),
                }
                // What all plugins have is told once.
                let common = table.keys.iter().filter(|k| n == 0 && k.state == State::Built);
                for spec in common.filter(|k| !matches!(k.kind, Kind::Any)) {
                    page.out.push('\n');
                    page.key(spec);
                }
            });
        }
    }

    fn block(&mut self, head: &str, live: bool, inside: impl FnOnce(&mut Self)) {
        let outer = self.off;
        self.off |= !live;
        self.line(head, true);
        self.depth += 1;
        inside(self);
        self.depth -= 1;
        self.line("}", true);
        self.off = outer;
    }

    fn line(&mut self, text: &str, live: bool) {
        self.indent();
        if self.off || !live {
            self.out.push('#');
        }
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn comment(&mut self, text: &str) {
        let mut line = String::from("#");
        for word in text.split_whitespace() {
            if line.len() + 1 + word.len() > COMMENT_WIDTH {
                self.flush(&mut line);
            }
            line.push(' ');
            line.push_str(word);
        }
        self.flush(&mut line);
    }

    fn flush(&mut self, line: &mut String) {
        self.indent();
        self.out.push_str(line);
        self.out.push('\n');
        line.truncate(1);
    }

    fn indent(&mut self) {
        (0..self.depth).for_each(|_| self.out.push_str("    "));
    }
}

/// What the example file shows for a key without a default.
fn placeholder(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "0",
        Kind::Float => "0.0",
        Kind::Bool => "false",
        Kind::Duration => "\"1h\"",
        Kind::Texts => "[]",
        _ => "\"\"",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{decode, hcl};

    static INNER: Table = Table {
        name: "inner",
        keys: &[
            KeySpec::bool("on", "true", "Turns it on."),
            KeySpec::duration("wait", "", "How long.").unit("Go duration"),
            KeySpec::int("later", "", "Not there.").not_yet(),
        ],
    };
    static PLUGIN: Table = Table {
        name: "plugin",
        keys: &[
            KeySpec::any("plugin_data", "Settings."),
            KeySpec::bool("enabled", "true", "False leaves it out."),
        ],
    };
    static DATA: Table = Table { name: "d", keys: &[KeySpec::text("path", "\"/x\"", "A file.").live()] };
    static FILE: Table = Table {
        name: "",
        keys: &[
            KeySpec::block("inner", &INNER, "A block that is off."),
            KeySpec::text("name", "\"n\"", "A name.").live(),
            KeySpec::texts("gone", "[]", "Not there.").not_yet(),
            KeySpec::labelled("Kind", &PLUGIN, "Plugins.").plugins(&[
                Plugin { name: "a", data: Some(&DATA), live: true },
                Plugin { name: "b", data: None, live: false },
            ]),
        ],
    };

    #[test]
    fn the_keys_not_built_are_listed_with_their_paths() {
        assert_eq!(not_yet_keys(&FILE), ["gone", "inner.later"]);
    }

    #[test]
    fn the_example_shows_each_built_key_with_meaning_unit_and_default() {
        let text = example(&FILE);
        let body = text.split_once("to set it.\n").unwrap().1;
        let expected = "
# A block that is off.
#inner {
    # Turns it on.
    #on = true

    # How long. Unit: Go duration.
    #wait = \"1h\"
#}

# A name.
name = \"n\"

# Plugins.
Kind \"a\" {
    plugin_data {
        # A file.
        path = \"/x\"
    }

    # False leaves it out.
    #enabled = true
}

#Kind \"b\" {
    #plugin_data {}
#}
";
        assert_eq!(body, expected);
    }

    #[test]
    fn the_example_is_valid_as_it_is_and_with_every_key_uncommented() {
        let text = example(&FILE);
        let all: String = text
            .lines()
            .map(|line| {
                let key = line.trim_start().strip_prefix('#').filter(|rest| !rest.starts_with(' '));
                format!("{}\n", key.unwrap_or(line))
            })
            .collect();
        for text in [text, all] {
            decode::read(&hcl::parse(&text).unwrap(), &FILE).unwrap();
        }
    }
}
