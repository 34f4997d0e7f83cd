//! When to replace a credential that still works.
//!
//! Never asks a clock: the moment is computed once, when the credential arrives, with jitter of a given seed.

use std::time::Duration;

use avouch_domain::Timestamp;

use crate::backoff::Jitter;

/// A longer life than the availability target is used in full only if this much is left for it.
const TARGET_MARGIN: Duration = Duration::from_secs(12 * 3600);
/// Renewals by availability target are spread over this long.
const TARGET_SPREAD: Duration = Duration::from_secs(600);

/// The moment to renew a credential that is valid from `begin` to `end`: when the life left is half of the whole
/// life, moved by up to a tenth of that half either way. With an availability target that the life exceeds by
/// more than 12 h: when the life left is the target plus up to 10 min.
///
/// A credential that is born dead is due at once (`begin`).
#[must_use]
pub fn renew_at(
    begin: Timestamp,
    end: Timestamp,
    target: Option<Duration>,
    jitter: &mut Jitter,
) -> Timestamp {
    let life = end.since(begin);
    if life.is_zero() {
        return begin;
    }
    let left = match target.filter(|t| life.saturating_sub(*t) > TARGET_MARGIN) {
        Some(target) => target + jitter.within(TARGET_SPREAD),
        None => jitter.around(life / 2),
    };
    end - left.min(life)
}

/// As [`renew_at`], for a credential that came at `now`: at least a quarter of the life left is used first. Lives
/// so short that half of them lies in the back-dated past would otherwise be renewed without a pause.
#[must_use]
pub fn renew_after(
    begin: Timestamp,
    end: Timestamp,
    target: Option<Duration>,
    now: Timestamp,
    jitter: &mut Jitter,
) -> Timestamp {
    renew_at(begin, end, target, jitter).max(now + end.since(now) / 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hours(n: u64) -> Duration {
        Duration::from_secs(n * 3600)
    }

    #[test]
    fn renews_near_half_life_and_never_in_step() {
        let mut jitter = Jitter::new(1);
        let (begin, end) = (Timestamp::from_secs(0), Timestamp::from_secs(3600));
        let moments: std::collections::BTreeSet<_> =
            (0..100).map(|_| renew_at(begin, end, None, &mut jitter).secs()).collect();
        assert!(moments.iter().all(|m| (1620..=1980).contains(m)), "{moments:?}");
        assert!(moments.len() > 50, "spread: {}", moments.len());
    }

    #[test]
    fn an_availability_target_keeps_that_much_life() {
        let mut jitter = Jitter::new(1);
        let end = Timestamp(0) + hours(72);
        let at = renew_at(Timestamp(0), end, Some(hours(24)), &mut jitter);
        let left = end.since(at);
        assert!(left >= hours(24) && left <= hours(24) + TARGET_SPREAD, "{left:?}");
    }

    #[test]
    fn a_life_too_short_for_the_target_uses_half_life() {
        let mut jitter = Jitter::new(1);
        let end = Timestamp(0) + hours(30);
        let left = end.since(renew_at(Timestamp(0), end, Some(hours(24)), &mut jitter));
        assert!(left < hours(17), "{left:?}");
    }

    #[test]
    fn a_credential_born_dead_is_due_at_once() {
        let at = Timestamp::from_secs(5);
        assert_eq!(renew_at(at, at, None, &mut Jitter::new(1)), at);
    }

    #[test]
    fn a_life_mostly_back_dated_is_not_renewed_without_a_pause() {
        let mut jitter = Jitter::new(1);
        let now = Timestamp::from_secs(100);
        let (begin, end) = (Timestamp::from_secs(90), Timestamp::from_secs(108));
        for _ in 0..100 {
            assert!(renew_after(begin, end, None, now, &mut jitter) >= Timestamp::from_secs(102));
        }
    }

    proptest! {
        #[test]
        fn a_credential_is_renewed_while_it_lives_and_never_without_a_pause(
            begin in 0..1_000_000i64,
            life in 1..10_000_000u64,
            used in 0..100u64,
            target in prop::option::of(0..200_000u64),
            seed in any::<u64>(),
        ) {
            let (begin, life) = (Timestamp(begin), Duration::from_millis(life));
            let (end, now) = (begin + life, begin + life * u32::try_from(used).unwrap() / 100);
            let target = target.map(Duration::from_secs);
            let at = renew_at(begin, end, target, &mut Jitter::new(seed));
            prop_assert!(at >= begin && at <= end);
            let after = renew_after(begin, end, target, now, &mut Jitter::new(seed));
            prop_assert!(after >= at && after <= end);
            prop_assert!(after >= now + end.since(now) / 4);
        }
    }
}
