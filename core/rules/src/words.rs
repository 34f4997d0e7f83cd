//! The closed lists of words that rules, catalogues and requests share, each with its stable name.
//!
//! Never: a word that a folder may add to.

use std::str::FromStr;

pub use avouch_domain::{Environment, Kind};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// How rules call a kind: `principal is AiAgent`.
pub(crate) fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Service => "Service",
        Kind::Machine => "Machine",
        Kind::Pipeline => "Pipeline",
        Kind::AiAgent => "AiAgent",
        Kind::Helper => "Helper",
    }
}

/// Reads a word of a closed list by its stable name.
pub(crate) fn word<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(from: D) -> Result<T, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|e| D::Error::custom(format!("unknown variant `{}`, {e}", text.escape_default())))
}

/// As [`word`], of a field that may be left out.
pub(crate) fn word_or_none<'de, D: Deserializer<'de>, T: FromStr<Err = String>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    word(from).map(Some)
}

/// Where an identity stands. Only an active one may do anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Waits for its first yes.
    Proposed,
    #[default]
    Active,
    /// Comes back.
    Paused,
    /// Final.
    Stopped,
}

impl Standing {
    pub const ALL: [Self; 4] = [Self::Proposed, Self::Active, Self::Paused, Self::Stopped];

    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// How long a node decides by itself about a resource after the server was last heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alone {
    /// 10 s.
    Short,
    /// A minute.
    Middle,
    /// Ten minutes.
    Long,
    /// For services without end; for others ten minutes.
    Always,
}

impl Alone {
    pub const ALL: [Self; 4] = [Self::Short, Self::Middle, Self::Long, Self::Always];

    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Middle => "middle",
            Self::Long => "long",
            Self::Always => "always",
        }
    }
}

/// Who says yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// The owner of the identity.
    Owner,
    /// A person other than the owner.
    Person,
}

impl Who {
    pub const ALL: [Self; 2] = [Self::Owner, Self::Person];

    /// The stable name, which `@ask` carries.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Person => "person",
        }
    }
}

/// What a parameter of a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    String,
    Long,
    /// A set of strings.
    Set,
}

impl ParamKind {
    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Long => "long",
            Self::Set => "set",
        }
    }

    /// Reads what [`Self::name`] gives.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::String, Self::Long, Self::Set].into_iter().find(|kind| kind.name() == name)
    }

    /// How the schema of the rules calls it.
    pub(crate) fn schema_name(self) -> &'static str {
        match self {
            Self::String => "String",
            Self::Long => "Long",
            Self::Set => "Set<String>",
        }
    }
}

avouch_domain::named!(Alone, Standing, Who);

/// True for a name of a rule, a preset, an action, a domain or a parameter: lower-case words with dots, dashes and
/// underscores, beginning with a letter.
pub(crate) fn is_name(text: &str) -> bool {
    let inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-' | b'_');
    text.len() <= crate::limits::NAME_MAX
        && text.bytes().next().is_some_and(|c| c.is_ascii_lowercase())
        && text.bytes().all(inside)
}

/// A name that rules write after a dot: `context.params.max_rows`.
pub(crate) fn is_word(text: &str) -> bool {
    is_name(text)
        && !text.contains(['.', '-'])
        && !["if", "in", "is", "has", "like", "then", "else"].contains(&text)
}

/// What [`is_name`] expects, for messages.
pub(crate) const NAME_FORM: &str =
    "a name of at most 64 lower-case letters, digits, dots, dashes and underscores that begins with a letter";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_are_refused_with_the_list() {
        for standing in Standing::ALL {
            assert_eq!(standing.name().parse(), Ok(standing));
        }
        assert_eq!("boss".parse::<Who>(), Err("expected one of owner, person".to_owned()));
        assert!(is_name("files.read-only_2") && !is_name("Files") && !is_name("2x") && !is_name(""));
        assert!(!is_name(&"a".repeat(65)));
    }
}
