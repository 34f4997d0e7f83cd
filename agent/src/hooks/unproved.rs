//! One record for each hook and period of tokens that do not hold, with the number of those before it.
//!
//! Never fills the spool: whoever reaches a hook can send it as many as it takes.

use std::collections::BTreeMap;

use avouch_domain::Tick;
use avouch_rules::limits::GATES_MAX;
use parking_lot::Mutex;

use crate::limits::UNPROVED_PERIOD;

/// By the gate's name: as many as there are gates in the rules at most.
#[derive(Debug, Default)]
pub(super) struct Unproved {
    seen: Mutex<BTreeMap<String, Seen>>,
}

#[derive(Debug)]
struct Seen {
    at: Tick,
    since: u64,
}

impl Unproved {
    /// How many went unrecorded since the last record, if one is due.
    pub(super) fn due(&self, gate: &str, now: Tick) -> Option<u64> {
        let seen = &mut *self.seen.lock();
        if let Some(last) = seen.get_mut(gate)
            && now.since(last.at) < UNPROVED_PERIOD
        {
            last.since += 1;
            return None;
        }
        if seen.len() >= GATES_MAX {
            // Gates of earlier rules.
            seen.retain(|_, last| now.since(last.at) < UNPROVED_PERIOD);
            if seen.len() >= GATES_MAX {
                return None;
            }
        }
        let before = seen.insert(gate.to_owned(), Seen { at: now, since: 0 });
        Some(before.map_or(0, |before| before.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_for_each_hook_and_period_that_counts_the_rest() {
        let unproved = Unproved::default();
        assert_eq!(unproved.due("git", Tick(0)), Some(0));
        assert_eq!((unproved.due("git", Tick(1)), unproved.due("git", Tick(2))), (None, None));
        assert_eq!(unproved.due("vault", Tick(2)), Some(0));
        let later = Tick(u64::try_from(UNPROVED_PERIOD.as_millis()).unwrap());
        assert_eq!(unproved.due("git", later), Some(2));
    }
}
