//! Emergencies: what an identity may do for half an hour at most, because two people said so, whatever the rules lack.
//!
//! Never opened by one person, and never widened: what it is for stands when it is asked, and its end never moves away once
//! it is open. Never asks a clock.

use std::sync::Arc;
use std::time::Duration;

use crate::opaque_id::opaque_id;
use crate::person::PersonId;
use crate::request::Said;
use crate::spiffe_id::SpiffeId;
use crate::time::Timestamp;

opaque_id! {
    /// The name of an emergency: `em_` and lowercase letters or digits. Cheap to clone.
    EmergencyId, "emergency", "em_"
}

/// One action on one resource that one identity may do in an emergency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emergency {
    pub id: EmergencyId,
    pub identity: SpiffeId,
    /// Who owned the identity when it was asked: it is for that owner's identity and no other's.
    pub owner: PersonId,
    /// Of the identity when it was asked: a pause ends it.
    pub stop_number: u64,
    pub action: Arc<str>,
    /// ID in the catalogue.
    pub resource: Arc<str>,
    /// As [`crate::why`] takes it.
    pub why: Arc<str>,
    pub asked: Said,
    /// From when on it is agreed to.
    pub lasts: Duration,
    /// The second person. `None`: it waits for one, and nothing comes of it.
    pub agreed: Option<Said>,
    /// Until when it waits, or is open.
    pub ends_at: Timestamp,
    /// Who ended it before.
    pub ended: Option<Said>,
}

/// Where an emergency stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmergencyStanding {
    /// For a second person.
    Waits,
    Open,
    /// Its time has passed, or it does not count any more: a pause, another owner, or one of the two has left.
    Over,
    /// Somebody ended it.
    Ended,
}

impl EmergencyStanding {
    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waits => "waits",
            Self::Open => "open",
            Self::Over => "over",
            Self::Ended => "ended",
        }
    }
}

impl Emergency {
    /// From when on nothing can come of it any more, by itself.
    #[must_use]
    pub fn over_at(&self) -> Timestamp {
        self.ended.as_ref().map_or(self.ends_at, |said| said.at.min(self.ends_at))
    }

    /// Where it stands. `counts`: whether it is for the identity as it is now, and the people who opened it are still there.
    #[must_use]
    pub fn standing(&self, wall: Timestamp, counts: bool) -> EmergencyStanding {
        if self.ended.is_some() {
            EmergencyStanding::Ended
        } else if wall >= self.ends_at || !counts {
            EmergencyStanding::Over
        } else if self.agreed.is_some() {
            EmergencyStanding::Open
        } else {
            EmergencyStanding::Waits
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{emergency, person_id};

    #[test]
    fn an_emergency_waits_until_a_second_person_agrees_and_is_open_until_its_end() {
        let waits = Emergency { ends_at: Timestamp(10), ..emergency("em_a", "/test/a") };
        let at = |emergency: &Emergency, wall, counts| emergency.standing(Timestamp(wall), counts).name();
        assert_eq!(
            (at(&waits, 9, true), at(&waits, 10, true), at(&waits, 9, false)),
            ("waits", "over", "over")
        );
        let agreed = Some(Said { by: person_id("per_b"), at: Timestamp(1) });
        let open = Emergency { agreed, ..waits };
        assert_eq!((at(&open, 9, true), at(&open, 10, true), at(&open, 9, false)), ("open", "over", "over"));
        let ended =
            Emergency { ended: Some(Said { by: person_id("per_a"), at: Timestamp(5) }), ..open.clone() };
        assert_eq!(at(&ended, 20, false), "ended", "who ended it stays named");
        assert_eq!((open.over_at(), ended.over_at()), (Timestamp(10), Timestamp(5)));
    }
}
