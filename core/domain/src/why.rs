//! Why somebody does something out of the ordinary, in their words: for people to read, and in no record.
//!
//! Never more than one line.

use std::sync::Arc;

use crate::limits::WHY_MAX;

/// Why a text is no reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyError {
    #[error("the reason has {0} bytes, expected 1 to {WHY_MAX}: say why in a few words")]
    Length(usize),
    #[error("the reason holds a control character, expected one line of text")]
    Character,
}

/// Reads a reason: one line that says something.
///
/// # Errors
/// [`WhyError`].
pub fn why(text: &str) -> Result<Arc<str>, WhyError> {
    if text.trim().is_empty() || text.len() > WHY_MAX {
        return Err(WhyError::Length(text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(WhyError::Character);
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_that_says_something() {
        assert_eq!(&*why("the queue is stuck").unwrap(), "the queue is stuck");
        assert_eq!(why(""), Err(WhyError::Length(0)));
        assert_eq!(why("  "), Err(WhyError::Length(2)));
        assert_eq!(why(&"x".repeat(WHY_MAX + 1)), Err(WhyError::Length(WHY_MAX + 1)));
        assert_eq!(why("a\nb"), Err(WhyError::Character));
    }
}
