//! What something lacks and somebody accepts until a moment, for a reason.
//!
//! Never says that it is lacking: that is found anew each time. Never asks a clock.

use std::sync::Arc;

use crate::limits::ACCEPTED_WHY_MAX;
use crate::request::Said;
use crate::spiffe_id::SpiffeId;
use crate::time::Timestamp;

/// What something may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Finding {
    /// An identity, and so an owner: entries give out the name and nobody answers for it.
    Owner,
    /// Its owner's word after an adoption.
    Confirmed,
    /// A stop that was tried lately and that every node confirmed.
    Stop,
}

impl Finding {
    pub const ALL: [Self; 3] = [Self::Owner, Self::Confirmed, Self::Stop];

    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Confirmed => "confirmed",
            Self::Stop => "stop",
        }
    }
}

crate::named!(Finding);

/// Why a text is no reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WhyError {
    #[error("the reason has {0} bytes, expected 1 to {ACCEPTED_WHY_MAX}")]
    Length(usize),
    #[error("the reason holds a control character, expected one line of text")]
    Character,
}

/// Checks why somebody accepts something, in their words.
///
/// # Errors
/// [`WhyError`].
pub fn accepted_why(text: &str) -> Result<Arc<str>, WhyError> {
    if text.trim().is_empty() || text.len() > ACCEPTED_WHY_MAX {
        return Err(WhyError::Length(text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(WhyError::Character);
    }
    Ok(text.into())
}

/// One finding about one name that somebody accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Of an identity, or of what has none.
    pub name: SpiffeId,
    pub what: Finding,
    /// From then on it counts again.
    pub until: Timestamp,
    /// One line for people. No record holds it.
    pub why: Arc<str>,
    pub said: Said,
}

impl Accepted {
    /// True if it is accepted still.
    #[must_use]
    pub fn holds(&self, wall: Timestamp) -> bool {
        wall < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::accepted;

    #[test]
    fn it_holds_until_its_moment_and_not_then() {
        let accepted = Accepted { until: Timestamp(10), ..accepted("/test/a", Finding::Stop) };
        assert!(accepted.holds(Timestamp(9)) && !accepted.holds(Timestamp(10)));
    }

    #[test]
    fn a_reason_is_one_line_that_says_something() {
        assert_eq!(&*accepted_why("moves in May").unwrap(), "moves in May");
        assert_eq!(accepted_why(""), Err(WhyError::Length(0)));
        assert_eq!(accepted_why("  "), Err(WhyError::Length(2)));
        assert_eq!(accepted_why(&"x".repeat(ACCEPTED_WHY_MAX + 1)), Err(WhyError::Length(257)));
        assert_eq!(accepted_why("a\nb"), Err(WhyError::Character));
    }

    #[test]
    fn every_finding_is_read_back_from_its_name() {
        for finding in Finding::ALL {
            assert_eq!(finding.name().parse::<Finding>(), Ok(finding));
        }
        assert_eq!("end".parse::<Finding>(), Err("expected one of owner, confirmed, stop".to_owned()));
    }
}
