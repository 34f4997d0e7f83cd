//! The closed lists of words that rules, catalogues and requests share, each with its stable name.
//!
//! Never: a word that a folder may add to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an identity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Service,
    Machine,
    Pipeline,
    AiAgent,
    /// A person's helper: acts on one person's behalf.
    Helper,
}

impl Kind {
    /// In the order of the slices of a resource.
    pub const ALL: [Self; 5] = [Self::Service, Self::Machine, Self::Pipeline, Self::AiAgent, Self::Helper];

    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Machine => "machine",
            Self::Pipeline => "pipeline",
            Self::AiAgent => "ai_agent",
            Self::Helper => "helper",
        }
    }

    /// How rules call it: `principal is AiAgent`.
    #[must_use]
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::Machine => "Machine",
            Self::Pipeline => "Pipeline",
            Self::AiAgent => "AiAgent",
            Self::Helper => "Helper",
        }
    }
}

/// Where an identity acts and where a resource lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    Test,
    Staging,
    Prod,
}

impl Environment {
    pub const ALL: [Self; 3] = [Self::Test, Self::Staging, Self::Prod];

    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Staging => "staging",
            Self::Prod => "prod",
        }
    }
}

/// Where an identity stands. Only an active one may do anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
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

/// Who says yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
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

    /// How the schema of the rules calls it.
    pub(crate) fn schema_name(self) -> &'static str {
        match self {
            Self::String => "String",
            Self::Long => "Long",
            Self::Set => "Set<String>",
        }
    }
}

macro_rules! named {
    ($($word:ty),*) => {$(
        impl fmt::Display for $word {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl std::str::FromStr for $word {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.into_iter().find(|word| word.name() == text).ok_or_else(|| {
                    let known: Vec<_> = Self::ALL.iter().map(|word| word.name()).collect();
                    format!("expected one of {}", known.join(", "))
                })
            }
        }
    )*};
}

named!(Kind, Environment, Standing, Who);

/// True for a name of a rule, a preset, an action, a domain or a parameter: lower-case words with dots, dashes and
/// underscores, beginning with a letter.
pub(crate) fn is_name(text: &str) -> bool {
    let inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'.' | b'-' | b'_');
    text.len() <= crate::limits::NAME_MAX
        && text.bytes().next().is_some_and(|c| c.is_ascii_lowercase())
        && text.bytes().all(inside)
}

/// What [`is_name`] expects, for messages.
pub(crate) const NAME_FORM: &str =
    "a name of at most 64 lower-case letters, digits, dots, dashes and underscores that begins with a letter";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written_and_others_are_refused_with_the_list() {
        for kind in Kind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
        }
        for standing in Standing::ALL {
            assert_eq!(standing.name().parse(), Ok(standing));
        }
        assert_eq!("prd".parse::<Environment>(), Err("expected one of test, staging, prod".to_owned()));
        assert!(is_name("files.read-only_2") && !is_name("Files") && !is_name("2x") && !is_name(""));
        assert!(!is_name(&"a".repeat(65)));
    }
}
