//! Cases: what something is given for, by the name that it has elsewhere.
//!
//! Never free text, and never asked about: whether a case is open is known where it is kept.

use std::fmt;
use std::sync::Arc;

use crate::limits::CASE_MAX;

/// Why a text names no case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" names no case, expected 1 to {CASE_MAX} letters, digits, dots, dashes and underscores, a letter or digit first, such as PROC-88"
)]
pub struct CaseError(String);

/// A purchase, a change, an order: something that is open elsewhere and is closed some day. Records name it, so it holds no
/// personal data. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Case(Arc<str>);

impl Case {
    /// # Errors
    /// [`CaseError`].
    pub fn new(text: &str) -> Result<Self, CaseError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if begins && text.len() <= CASE_MAX && text.bytes().all(plain) {
            Ok(Self(text.into()))
        } else {
            Err(CaseError(text.chars().take(CASE_MAX).collect()))
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_named_as_it_is_elsewhere_in_plain_letters() {
        for right in ["PROC-88", "4711", "change_2026.11"] {
            assert_eq!(Case::new(right).unwrap().as_str(), right);
        }
        for wrong in ["", "-88", "PROC 88", "PROC/88", "\u{e9}", &"x".repeat(CASE_MAX + 1)] {
            assert!(Case::new(wrong).is_err(), "{wrong}");
        }
    }
}
