//! What something lacks and somebody accepts until a moment, for a reason.
//!
//! Never says that it is lacking: that is found anew each time. Never asks a clock.

use std::sync::Arc;

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

/// One finding about one name that somebody accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Of an identity, or of what has none.
    pub name: SpiffeId,
    pub what: Finding,
    /// From then on it counts again.
    pub until: Timestamp,
    /// As [`crate::why`] takes it.
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
    fn every_finding_is_read_back_from_its_name() {
        for finding in Finding::ALL {
            assert_eq!(finding.name().parse::<Finding>(), Ok(finding));
        }
        assert_eq!("end".parse::<Finding>(), Err("expected one of owner, confirmed, stop".to_owned()));
    }
}
