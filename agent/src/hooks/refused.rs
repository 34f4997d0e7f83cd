//! How many refusals of one caller at a gate are recorded, each for itself: whoever has any SVID can ask without end, and a full
//! spool denies everybody.
//!
//! Never leaves one out that is not counted in the next record of that caller.

use std::collections::BTreeMap;

use avouch_domain::{SpiffeId, Tick};
use parking_lot::Mutex;

use crate::limits::{REFUSED_CALLERS_MAX, REFUSED_PERIOD, REFUSED_RECORDED_MAX};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Refused {
    seen: Mutex<BTreeMap<SpiffeId, Seen>>,
}

#[derive(Debug)]
struct Seen {
    since: Tick,
    recorded: u32,
    left_out: u64,
}

impl Refused {
    /// How many of this caller's went unrecorded since its last record, if one is due.
    pub(super) fn due(&self, caller: &SpiffeId, now: Tick) -> Option<u64> {
        let seen = &mut *self.seen.lock();
        if seen.len() >= REFUSED_CALLERS_MAX && !seen.contains_key(caller) {
            // What went unrecorded stays until it is told.
            seen.retain(|_, seen| seen.left_out > 0 || now.since(seen.since) < REFUSED_PERIOD);
            if seen.len() >= REFUSED_CALLERS_MAX {
                return None;
            }
        }
        let begun = Seen { since: now, recorded: 0, left_out: 0 };
        let of = seen.entry(caller.clone()).or_insert(begun);
        if now.since(of.since) >= REFUSED_PERIOD {
            (of.since, of.recorded) = (now, 0);
        }
        if of.recorded >= REFUSED_RECORDED_MAX {
            of.left_out += 1;
            return None;
        }
        of.recorded += 1;
        Some(std::mem::take(&mut of.left_out))
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::id;

    use super::*;

    #[test]
    fn so_many_of_each_caller_and_period_are_recorded_and_the_next_counts_the_rest() {
        let refused = Refused::default();
        for _ in 0..REFUSED_RECORDED_MAX {
            assert_eq!(refused.due(&id("/a"), Tick(0)), Some(0));
        }
        assert_eq!((refused.due(&id("/a"), Tick(1)), refused.due(&id("/a"), Tick(2))), (None, None));
        assert_eq!(refused.due(&id("/b"), Tick(2)), Some(0), "others are others");
        let later = Tick(u64::try_from(REFUSED_PERIOD.as_millis()).unwrap());
        assert_eq!(refused.due(&id("/a"), later), Some(2));
        assert_eq!(refused.due(&id("/a"), later), Some(0));
    }
}
