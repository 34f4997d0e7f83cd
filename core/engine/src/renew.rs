//! When to replace a credential that still works.
//!
//! Never asks a clock: the moment is computed once, when the credential arrives, with jitter of a given seed.

use std::num::NonZeroU32;
use std::time::Duration;

use avouch_domain::{AuthorityId, Timestamp};

use crate::backoff::Jitter;

/// A longer life than the availability target is used in full only if this much is left for it.
const TARGET_MARGIN: Duration = Duration::from_secs(12 * 3600);
/// Renewals by availability target are spread over this long.
const TARGET_SPREAD: Duration = Duration::from_secs(600);

/// Replacements of a whole fleet are spread over this long at most, and so long if nobody tells how big it is.
pub const SPREAD_MAX: Duration = Duration::from_secs(30);
/// X509-SVIDs a second that a fleet asks of one server when all of them are replaced: a third of what a core signs, so
/// that new workloads are served as always.
const FLEET_RATE: u64 = 5_000;

/// How fast the SVIDs of an authority that is not relied on any more are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// They are of no use any more.
    AtOnce,
    /// They work still, and as many agents of one server have such; `None`: nobody knows how many.
    Among(Option<NonZeroU32>),
}

impl Pace {
    /// Over how long an agent spreads the replacement of `own` SVIDs: what the others need if each of them has as
    /// many. An agent that is alone does not wait (ADR 0012).
    #[must_use]
    pub fn spread(self, own: usize) -> Duration {
        match self {
            Self::AtOnce => Duration::ZERO,
            Self::Among(None) => SPREAD_MAX,
            Self::Among(Some(fleet)) => {
                let others =
                    u64::from(fleet.get() - 1).saturating_mul(u64::try_from(own).unwrap_or(u64::MAX));
                Duration::from_millis(others.saturating_mul(1000) / FLEET_RATE).min(SPREAD_MAX)
            }
        }
    }
}

/// Whether an SVID is to be replaced before its time: `issuers` signed its chain, `named` are the authorities of the
/// own bundle, with whether they are tainted.
#[must_use]
pub fn replace_early(issuers: &[AuthorityId], named: &[(AuthorityId, bool)]) -> Option<Pace> {
    // The authority between a root and an SVID is in no bundle.
    let mut of_ours = named.iter().filter(|(id, _)| issuers.contains(id)).peekable();
    if of_ours.peek().is_none() {
        return Some(Pace::AtOnce);
    }
    of_ours.any(|(_, tainted)| *tainted).then_some(Pace::Among(None))
}

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
    fn an_agent_alone_replaces_at_once_and_a_fleet_as_fast_as_its_server_signs() {
        let among = |fleet, own| Pace::Among(NonZeroU32::new(fleet)).spread(own);
        assert_eq!(among(1, 1000), Duration::ZERO);
        assert_eq!(among(101, 50), Duration::from_secs(1), "5,000 SVIDs of the others");
        assert_eq!(among(10_000, 100), SPREAD_MAX);
        assert_eq!(among(u32::MAX, usize::MAX), SPREAD_MAX);
        assert_eq!(Pace::Among(None).spread(1), SPREAD_MAX, "nobody tells how many there are");
        assert_eq!(Pace::AtOnce.spread(1000), Duration::ZERO);
    }

    #[test]
    fn an_svid_is_replaced_early_if_its_authority_is_tainted_and_at_once_if_it_has_left() {
        let (a, b): (AuthorityId, AuthorityId) = ("a".into(), "b".into());
        let named = |a_tainted| [(a.clone(), a_tainted), (b.clone(), false)];
        assert_eq!(replace_early(std::slice::from_ref(&a), &named(false)), None);
        assert_eq!(replace_early(std::slice::from_ref(&a), &named(true)), Some(Pace::Among(None)));
        assert_eq!(replace_early(std::slice::from_ref(&b), &named(true)), None);
        assert_eq!(replace_early(&["gone".into()], &named(false)), Some(Pace::AtOnce));
        assert_eq!(replace_early(&["between".into(), b.clone()], &named(false)), None);
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
