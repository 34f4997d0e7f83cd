//! Grants: what an identity may do because somebody gave it for a time and a number of uses.
//!
//! Never widened once given: its uses only rise, and its end never moves away. Never asks a clock.

use std::sync::Arc;

use crate::case::Case;
use crate::limits::{AGAIN_WITHIN, GRANT_KEYS_MAX};
use crate::opaque_id::opaque_id;
use crate::person::PersonId;
use crate::request::Said;
use crate::spiffe_id::SpiffeId;
use crate::time::Timestamp;

opaque_id! {
    /// The name of a grant: `gr_` and lowercase letters or digits. Cheap to clone.
    GrantId, "grant", "gr_"
}

/// One use of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantUse {
    /// Of the call that used it: made again with the same key, it is the same call.
    pub key: [u8; 16],
    pub at: Timestamp,
}

/// One action on one resource, given to one identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub id: GrantId,
    /// Who may use it.
    pub identity: SpiffeId,
    /// Who owned the identity when it was given: it was given to that owner's identity and no other's.
    pub owner: PersonId,
    /// Of the identity when it was given: a pause ends it.
    pub stop_number: u64,
    pub action: Arc<str>,
    /// ID in the catalogue.
    pub resource: Arc<str>,
    pub given: Said,
    pub ends_at: Timestamp,
    /// At least one.
    pub max_uses: u32,
    /// At most `max_uses`.
    pub uses: u32,
    /// The newest uses, oldest first.
    pub keys: Vec<GrantUse>,
    /// Who took it back.
    pub ended: Option<Said>,
    /// What it is for: when that is closed, it is taken back. Never changes.
    pub case: Option<Case>,
}

/// Where a grant stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantStanding {
    Open,
    UsedUp,
    /// Taken back.
    Ended,
    /// Its time has passed, or it does not count any more: a pause, another owner, or who gave it has left.
    Lapsed,
}

impl GrantStanding {
    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::UsedUp => "used_up",
            Self::Ended => "ended",
            Self::Lapsed => "lapsed",
        }
    }
}

impl Grant {
    /// From when on nothing can come of it any more, by itself.
    #[must_use]
    pub fn over_at(&self) -> Timestamp {
        let used_up = self.keys.last().filter(|_| self.uses_left() == 0).map(|last| last.at);
        let over = self.ended.as_ref().map(|said| said.at).into_iter().chain(used_up);
        over.chain([self.ends_at]).min().unwrap_or(self.ends_at)
    }

    #[must_use]
    pub fn uses_left(&self) -> u32 {
        self.max_uses.saturating_sub(self.uses)
    }

    /// Where it stands. `counts`: whether it is for the identity as it is now, and from somebody who may give it still.
    #[must_use]
    pub fn standing(&self, wall: Timestamp, counts: bool) -> GrantStanding {
        if self.ended.is_some() {
            GrantStanding::Ended
        } else if self.uses_left() == 0 {
            GrantStanding::UsedUp
        } else if wall >= self.ends_at || !counts {
            GrantStanding::Lapsed
        } else {
            GrantStanding::Open
        }
    }

    /// True if the call with this key has used it a short time ago.
    #[must_use]
    pub fn was_used_by(&self, key: [u8; 16], wall: Timestamp) -> bool {
        self.keys.iter().any(|using| using.key == key && wall.since(using.at) < AGAIN_WITHIN)
    }

    /// Used once more. A key that is forgotten costs who repeats its call another use, and never gives one.
    #[must_use]
    pub fn used(mut self, key: [u8; 16], wall: Timestamp) -> Self {
        self.uses = self.uses.saturating_add(1).min(self.max_uses);
        self.keys.retain(|using| wall.since(using.at) < AGAIN_WITHIN);
        if self.keys.len() >= GRANT_KEYS_MAX {
            self.keys.remove(0);
        }
        self.keys.push(GrantUse { key, at: wall });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{grant, person_id};

    #[test]
    fn a_grant_is_open_until_it_is_used_up_taken_back_or_over() {
        let open = Grant { ends_at: Timestamp(10), ..grant("gr_a", "/test/a") };
        let at = |grant: &Grant, wall, counts| grant.standing(Timestamp(wall), counts).name();
        assert_eq!(
            (at(&open, 9, true), at(&open, 10, true), at(&open, 9, false)),
            ("open", "lapsed", "lapsed")
        );
        let used = open.clone().used([1; 16], Timestamp(5));
        assert_eq!((at(&used, 6, true), used.uses_left()), ("used_up", 0));
        let ended = Grant { ended: Some(Said { by: person_id("per_a"), at: Timestamp(1) }), ..used };
        assert_eq!(at(&ended, 20, false), "ended", "who took it back stays named");
    }

    #[test]
    fn it_is_over_with_its_last_use_when_it_is_taken_back_or_at_its_end() {
        let open = Grant { max_uses: 2, ..grant("gr_a", "/test/a") };
        let once = open.clone().used([1; 16], Timestamp(5));
        assert_eq!((open.over_at(), once.over_at()), (open.ends_at, open.ends_at));
        assert_eq!(once.clone().used([2; 16], Timestamp(7)).over_at(), Timestamp(7));
        let ended = Grant { ended: Some(Said { by: person_id("per_a"), at: Timestamp(6) }), ..once };
        assert_eq!(ended.over_at(), Timestamp(6));
    }

    #[test]
    fn uses_are_counted_to_the_last_and_never_beyond_it() {
        let mut two = Grant { max_uses: 2, ..grant("gr_a", "/test/a") };
        for n in 0..5 {
            two = two.used([n; 16], Timestamp(0));
        }
        assert_eq!((two.uses, two.uses_left()), (2, 0));
    }

    #[test]
    fn a_call_is_known_by_its_key_for_a_while_and_few_keys_are_kept() {
        let many = Grant { max_uses: 1000, ..grant("gr_a", "/test/a") };
        let used = many.used([7; 16], Timestamp(0));
        assert!(used.was_used_by([7; 16], Timestamp(0)) && !used.was_used_by([8; 16], Timestamp(0)));
        assert!(!used.was_used_by([7; 16], Timestamp(0) + AGAIN_WITHIN), "later it is another call");
        let mut full = used;
        for n in 0..=u8::try_from(GRANT_KEYS_MAX).unwrap() {
            full = full.used([n; 16], Timestamp(1));
        }
        assert_eq!(full.keys.len(), GRANT_KEYS_MAX);
    }
}
