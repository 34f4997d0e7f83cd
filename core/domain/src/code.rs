//! Codes: short words that rules and records name.
//!
//! Never free text: a code says nothing about a person.

use std::fmt;
use std::sync::Arc;

use crate::limits::CODE_MAX;

/// Why a text is no code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no code, expected 1 to {CODE_MAX} lowercase letters, digits and dashes, such as fix-bugs"
)]
pub struct CodeError(String);

/// A short word that stands for something: what an identity or a task is for, the preset it follows. Records name it, so
/// it holds no personal data.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(Arc<str>);

impl Code {
    /// # Errors
    /// [`CodeError`].
    pub fn new(text: &str) -> Result<Self, CodeError> {
        let fits = !text.is_empty() && text.len() <= CODE_MAX;
        if fits && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
            Ok(Self(text.into()))
        } else {
            Err(CodeError(text.chars().take(CODE_MAX).collect()))
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_short_and_plain() {
        assert_eq!(Code::new("fix-bugs").unwrap().as_str(), "fix-bugs");
        for wrong in ["", "Fix", "fix bugs", "a@example.org", &"x".repeat(CODE_MAX + 1)] {
            assert!(Code::new(wrong).is_err(), "{wrong}");
        }
    }
}
