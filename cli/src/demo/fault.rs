//! Why the demonstration could not go on.
//!
//! Never hides which it was: a line that does not hold is a finding about the product, everything else is not.

use std::io;

use crate::up::UpError;

/// Why the demonstration could not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Start(#[from] UpError),
    #[error("`{program}` is not there, and the demonstration takes it: install it, then start again")]
    Missing { program: &'static str },
    #[error("cannot start {name}: {why}")]
    Command { name: String, why: io::Error },
    #[error("{what}: {why}")]
    File { what: &'static str, why: io::Error },
    #[error("it was stopped before all scenes had been played")]
    Interrupted,
    #[error("{0}")]
    DoesNotHold(String),
}

impl Fault {
    /// True if a line did not hold.
    pub(super) fn is_finding(&self) -> bool {
        matches!(self, Self::DoesNotHold(_))
    }

    /// A line that does not hold: what was expected, and what came.
    pub(super) fn expected(what: &str, came: impl std::fmt::Debug) -> Self {
        Self::DoesNotHold(format!("expected {what}; came: {came:?}"))
    }
}

/// What must be there; else the line that does not hold.
pub(super) fn there<T>(found: Option<T>, what: &str) -> Result<T, Fault> {
    found.ok_or_else(|| Fault::expected(what, "nothing"))
}

/// Nothing if `holds`; else the line that does not.
pub(super) fn hold(holds: bool, what: &str, came: impl std::fmt::Debug) -> Result<(), Fault> {
    if holds { Ok(()) } else { Err(Fault::expected(what, came)) }
}
