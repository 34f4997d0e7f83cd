//! Flags in the style of Go, which users of SPIRE have in their scripts: `-x v`, `-x=v`, `--x v`, `-bool`.
//!
//! Never accepts an unknown flag, and never guesses what a value means.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::config::duration::parse_go;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Text,
    Int,
    Duration,
    Texts,
    CommaTexts,
}

#[derive(Clone, Debug)]
struct Flag {
    name: &'static str,
    kind: Kind,
    default: String,
    help: &'static str,
}

/// The flags one command knows.
#[derive(Clone, Debug)]
pub struct FlagSet {
    name: &'static str,
    flags: Vec<Flag>,
}

/// Why the arguments can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// `-h` was given; holds the usage text.
    #[error("flag: help requested")]
    Help(String),
    /// One argument is wrong; `message` is Go's text.
    #[error("{message}")]
    Bad { message: String, usage: String },
}

impl FlagSet {
    /// No flags yet. `name` is the command's words, as the usage text shows them.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, flags: Vec::new() }
    }

    /// A text.
    #[must_use]
    pub fn text(self, name: &'static str, default: &str, help: &'static str) -> Self {
        self.with(name, Kind::Text, default, help)
    }

    /// A switch: `-x`, `-x=true` or `-x=false`.
    #[must_use]
    pub fn bool(self, name: &'static str, default: bool, help: &'static str) -> Self {
        self.with(name, Kind::Bool, if default { "true" } else { "false" }, help)
    }

    /// A whole number.
    #[must_use]
    pub fn int(self, name: &'static str, default: i64, help: &'static str) -> Self {
        self.with(name, Kind::Int, &default.to_string(), help)
    }

    /// A length of time in Go's form, such as `1h30m`.
    #[must_use]
    pub fn duration(self, name: &'static str, default: &str, help: &'static str) -> Self {
        self.with(name, Kind::Duration, default, help)
    }

    /// A text that may be given several times.
    #[must_use]
    pub fn texts(self, name: &'static str, help: &'static str) -> Self {
        self.with(name, Kind::Texts, "", help)
    }

    /// Texts joined by commas; may be given several times.
    #[must_use]
    pub fn comma_texts(self, name: &'static str, help: &'static str) -> Self {
        self.with(name, Kind::CommaTexts, "", help)
    }

    fn with(mut self, name: &'static str, kind: Kind, default: &str, help: &'static str) -> Self {
        self.flags.push(Flag { name, kind, default: default.to_owned(), help });
        self
    }

    /// The usage text, flags in alphabetical order.
    #[must_use]
    pub fn usage(&self) -> String {
        let mut flags: Vec<_> = self.flags.iter().collect();
        flags.sort_by_key(|f| f.name);
        let mut text = format!("Usage of {}:\n", self.name);
        for flag in flags {
            let kind = match flag.kind {
                Kind::Bool => "",
                Kind::Text => " string",
                Kind::Int => " int",
                Kind::Duration => " duration",
                Kind::Texts | Kind::CommaTexts => " value",
            };
            let _ = write!(text, "  -{}{kind}\n    \t{}", flag.name, flag.help);
            match (flag.kind, flag.default.as_str()) {
                (_, "" | "false" | "0") => {}
                (Kind::Text, default) => {
                    let _ = write!(text, " (default {default:?})");
                }
                (_, default) => {
                    let _ = write!(text, " (default {default})");
                }
            }
            text.push('\n');
        }
        text
    }

    /// Reads `args` up to the first that is no flag, or `--`.
    ///
    /// # Errors
    /// Help was asked for, or an argument is wrong.
    pub fn parse(&self, args: &[String]) -> Result<Flags, FlagError> {
        let mut flags = Flags { given: BTreeMap::new(), known: self.flags.clone(), rest: Vec::new() };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let Some(name) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                flags.rest.push(arg.clone());
                break;
            };
            if name.is_empty() {
                // `--` ends the flags, `-` alone is a value (standard input).
                flags.rest.extend((arg == "-").then(|| arg.clone()));
                break;
            }
            if name.starts_with(['-', '=']) {
                return Err(self.bad(format!("bad flag syntax: {arg}")));
            }
            let (name, value) = match name.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (name, None),
            };
            let Some(flag) = self.flags.iter().find(|f| f.name == name) else {
                if matches!(name, "h" | "help") {
                    return Err(FlagError::Help(self.usage()));
                }
                return Err(self.bad(format!("flag provided but not defined: -{name}")));
            };
            let value = match (value, flag.kind) {
                (Some(value), _) => value,
                (None, Kind::Bool) => "true".to_owned(),
                (None, _) => args
                    .next()
                    .cloned()
                    .ok_or_else(|| self.bad(format!("flag needs an argument: -{name}")))?,
            };
            self.check(flag, &value)?;
            flags.take(flag, value);
        }
        flags.rest.extend(args.cloned());
        Ok(flags)
    }

    fn check(&self, flag: &Flag, value: &str) -> Result<(), FlagError> {
        let (what, fits) = match flag.kind {
            Kind::Bool => (" boolean", parse_bool(value).is_some()),
            Kind::Int => ("", parse_int(value).is_some()),
            Kind::Duration => ("", parse_go(value).is_ok()),
            Kind::Text | Kind::Texts | Kind::CommaTexts => ("", true),
        };
        if fits {
            return Ok(());
        }
        let place = if flag.kind == Kind::Bool { "for" } else { "for flag" };
        Err(self.bad(format!("invalid{what} value {value:?} {place} -{}: parse error", flag.name)))
    }

    fn bad(&self, message: String) -> FlagError {
        FlagError::Bad { message, usage: self.usage() }
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Decimal, or hexadecimal with `0x`, as Go's base 0 reads it.
fn parse_int(text: &str) -> Option<i64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

/// The flags of one call. Asking for a name that the set does not know gives the empty value.
#[derive(Clone, Debug)]
pub struct Flags {
    given: BTreeMap<&'static str, Vec<String>>,
    known: Vec<Flag>,
    rest: Vec<String>,
}

impl Flags {
    fn take(&mut self, flag: &Flag, value: String) {
        let values = self.given.entry(flag.name).or_default();
        match flag.kind {
            Kind::Texts => values.push(value),
            Kind::CommaTexts => values.extend(value.split(',').map(str::to_owned)),
            _ => *values = vec![value],
        }
    }

    /// The last value given, or the default.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        let given = self.given.get(name).and_then(|v| v.last());
        let default = || self.known.iter().find(|f| f.name == name).map(|f| &f.default);
        given.or_else(default).map_or("", String::as_str)
    }

    #[must_use]
    pub fn bool(&self, name: &str) -> bool {
        parse_bool(self.text(name)).unwrap_or(false)
    }

    #[must_use]
    pub fn int(&self, name: &str) -> i64 {
        parse_int(self.text(name)).unwrap_or(0)
    }

    /// Nanoseconds.
    #[must_use]
    pub fn duration_ns(&self, name: &str) -> i64 {
        parse_go(self.text(name)).unwrap_or(0)
    }

    /// All values given, in order.
    #[must_use]
    pub fn texts(&self, name: &str) -> &[String] {
        self.given.get(name).map_or(&[], Vec::as_slice)
    }

    /// Was it given at all?
    #[must_use]
    pub fn is_set(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// The arguments after the flags.
    #[must_use]
    pub fn rest(&self) -> &[String] {
        &self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> FlagSet {
        FlagSet::new("thing do")
            .text("socketPath", "/tmp/x.sock", "Where it listens")
            .bool("admin", false, "Admin")
            .int("ttl", 600, "Seconds")
            .duration("timeout", "5s", "How long")
            .texts("selector", "A selector")
            .comma_texts("audience", "Audiences")
    }

    fn parse(args: &[&str]) -> Result<Flags, FlagError> {
        set().parse(&args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
    }

    fn message(args: &[&str]) -> String {
        parse(args).unwrap_err().to_string()
    }

    #[test]
    fn one_dash_two_dashes_and_equals_mean_the_same() {
        for args in [["-ttl", "7"].as_slice(), &["--ttl", "7"], &["-ttl=7"], &["--ttl=7"], &["-ttl=0x7"]] {
            assert_eq!(parse(args).unwrap().int("ttl"), 7, "{args:?}");
        }
    }

    #[test]
    fn a_switch_takes_its_value_only_after_equals() {
        let flags = parse(&["-admin", "false"]).unwrap();
        assert!(flags.bool("admin"));
        assert_eq!(flags.rest(), ["false"]);
        assert!(!parse(&["-admin=false"]).unwrap().bool("admin"));
    }

    #[test]
    fn an_absent_flag_has_its_default() {
        let flags = parse(&[]).unwrap();
        assert_eq!((flags.text("socketPath"), flags.int("ttl")), ("/tmp/x.sock", 600));
        assert_eq!(flags.duration_ns("timeout"), 5_000_000_000);
        assert!(!flags.is_set("ttl"));
    }

    #[test]
    fn repeats_are_kept_where_they_mean_something() {
        let flags = parse(&["-selector", "a:1", "-selector=b:2", "-ttl", "1", "-ttl", "2"]).unwrap();
        assert_eq!(flags.texts("selector"), ["a:1", "b:2"]);
        assert_eq!(flags.int("ttl"), 2);
        assert_eq!(
            parse(&["-audience", "a,b", "-audience", "c"]).unwrap().texts("audience"),
            ["a", "b", "c"]
        );
    }

    #[test]
    fn errors_have_gos_words() {
        assert_eq!(message(&["-nope"]), "flag provided but not defined: -nope");
        assert_eq!(message(&["-ttl"]), "flag needs an argument: -ttl");
        assert_eq!(message(&["-ttl", "x"]), "invalid value \"x\" for flag -ttl: parse error");
        assert_eq!(message(&["-admin=x"]), "invalid boolean value \"x\" for -admin: parse error");
        assert_eq!(message(&["-=x"]), "bad flag syntax: -=x");
        assert_eq!(message(&["---ttl"]), "bad flag syntax: ---ttl");
    }

    #[test]
    fn a_dash_alone_is_a_value_and_two_end_the_flags() {
        assert_eq!(parse(&["-selector", "-"]).unwrap().texts("selector"), ["-"]);
        assert_eq!(parse(&["--", "-ttl"]).unwrap().rest(), ["-ttl"]);
    }

    #[test]
    fn help_shows_every_flag_with_its_default() {
        let Err(FlagError::Help(usage)) = parse(&["-h"]) else { panic!("no help") };
        assert!(usage.starts_with("Usage of thing do:\n  -admin\n    \tAdmin\n"), "{usage}");
        assert!(usage.contains("  -socketPath string\n    \tWhere it listens (default \"/tmp/x.sock\")\n"));
        assert!(usage.contains("  -ttl int\n    \tSeconds (default 600)\n"));
    }
}
