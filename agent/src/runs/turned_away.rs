//! How often it is recorded that a user was let run nothing: enough to be noticed, too little to fill a disk.

use std::collections::BTreeMap;

use avouch_domain::Tick;

use crate::limits::{TURNED_AWAY_MAX, TURNED_AWAY_PERIOD, TURNED_AWAY_USERS_MAX};

/// Nobody's number: users for whom there is no room count together.
const OTHERS: u32 = u32::MAX;

/// What was recorded of each user in the period that runs.
#[derive(Debug, Default)]
pub(super) struct TurnedAway(BTreeMap<u32, Period>);

#[derive(Debug)]
struct Period {
    began: Tick,
    recorded: u32,
    /// Not recorded since the last record.
    silent: u32,
}

impl TurnedAway {
    /// Whether this one is recorded, and how many before it were not.
    pub(super) fn take(&mut self, uid: u32, now: Tick) -> Option<u32> {
        let over = |period: &Period| now.since(period.began) >= TURNED_AWAY_PERIOD;
        if !self.0.contains_key(&uid) && self.0.len() >= TURNED_AWAY_USERS_MAX {
            self.0.retain(|_, period| !over(period));
        }
        let room = self.0.len() < TURNED_AWAY_USERS_MAX || self.0.contains_key(&uid);
        let period = self.0.entry(if room { uid } else { OTHERS }).or_insert(Period {
            began: now,
            recorded: 0,
            silent: 0,
        });
        if over(period) {
            *period = Period { began: now, recorded: 0, silent: period.silent };
        }
        if period.recorded >= TURNED_AWAY_MAX {
            period.silent = period.silent.saturating_add(1);
            return None;
        }
        period.recorded += 1;
        Some(std::mem::take(&mut period.silent))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(time: Duration) -> Tick {
        Tick(u64::try_from(time.as_millis()).unwrap())
    }

    #[test]
    fn of_a_flood_the_first_few_are_recorded_and_the_next_period_says_how_many_were_not() {
        let mut away = TurnedAway::default();
        let flood: Vec<_> =
            (0..TURNED_AWAY_MAX + 7).filter_map(|_| away.take(1, at(Duration::ZERO))).collect();
        assert_eq!(flood, vec![0; TURNED_AWAY_MAX as usize]);
        assert_eq!(away.take(2, at(Duration::ZERO)), Some(0), "another user is another matter");
        assert_eq!(away.take(1, at(TURNED_AWAY_PERIOD)), Some(7));
        assert_eq!(away.take(1, at(TURNED_AWAY_PERIOD)), Some(0));
    }

    #[test]
    fn users_without_number_take_no_memory_without_limit() {
        let mut away = TurnedAway::default();
        let users = u32::try_from(TURNED_AWAY_USERS_MAX).unwrap();
        assert!((0..users).all(|uid| away.take(uid, at(Duration::ZERO)).is_some()));
        let more: Vec<_> = (users..3 * users).filter_map(|uid| away.take(uid, at(Duration::ZERO))).collect();
        assert_eq!(more.len(), TURNED_AWAY_MAX as usize, "those without room count together");
        assert_eq!(away.0.len(), TURNED_AWAY_USERS_MAX + 1);
        assert_eq!(away.take(users, at(TURNED_AWAY_PERIOD)), Some(0), "who was long ago makes room");
    }
}
