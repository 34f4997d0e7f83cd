//! When to try again: growing pauses, spread by seeded jitter so that many agents never return in step.
//!
//! Never asks a clock or a random source: the seed is given at birth, pauses are lengths the caller adds to its
//! own monotonic time.

use std::time::Duration;

/// Deterministic spread: the same seed gives the same numbers (SplitMix64).
///
/// Not for secrets.
#[derive(Clone, Debug)]
pub struct Jitter {
    state: u64,
}

impl Jitter {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A share of one million, from 0 to 999,999.
    fn millionth(&mut self) -> u64 {
        self.next() % 1_000_000
    }

    /// A length from zero up to, not including, `width`.
    pub fn within(&mut self, width: Duration) -> Duration {
        let nanos = width.as_nanos() * u128::from(self.millionth()) / 1_000_000;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// `length` moved by up to a tenth, either way.
    pub fn around(&mut self, length: Duration) -> Duration {
        let tenth = length / 10;
        length.saturating_sub(tenth) + self.within(tenth * 2)
    }

    /// A new generator that shares nothing with this one but its seed.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }
}

/// Where a sequence of pauses begins, how it grows, and where it stops growing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Pause after the first failure, before jitter.
    pub first: Duration,
    /// No pause is longer than this, jitter apart.
    pub most: Duration,
    /// Growth in percent: 150 = half as long again after each failure.
    pub growth_percent: u32,
}

impl Policy {
    /// The pause after `failures` failures in a row (1 = the first), before jitter.
    #[must_use]
    pub fn pause(&self, failures: u32) -> Duration {
        let mut pause = self.first;
        for _ in 1..failures {
            if pause >= self.most {
                break;
            }
            pause = pause.saturating_mul(self.growth_percent) / 100;
        }
        pause.min(self.most)
    }
}

/// One sequence of failures.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: Policy,
    failures: u32,
}

impl Backoff {
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, failures: 0 }
    }

    /// Counts a failure and names the pause before the next try: half of it sure, half of it spread, so that a
    /// fleet cut off at one moment comes back over half the pause.
    pub fn failed(&mut self, jitter: &mut Jitter) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let pause = self.policy.pause(self.failures);
        pause / 2 + jitter.within(pause / 2)
    }

    /// Forgets the failures.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy =
        Policy { first: Duration::from_secs(1), most: Duration::from_secs(10), growth_percent: 200 };

    #[test]
    fn pauses_grow_up_to_the_limit() {
        let pauses: Vec<_> = (1..7).map(|n| POLICY.pause(n).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
        assert_eq!(POLICY.pause(u32::MAX), POLICY.most);
    }

    #[test]
    fn a_pause_is_spread_over_its_second_half() {
        let mut jitter = Jitter::new(7);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let pause = Backoff::new(POLICY).failed(&mut jitter);
            assert!(pause >= Duration::from_millis(500) && pause < Duration::from_secs(1), "{pause:?}");
            seen.insert(pause.as_millis() / 100);
        }
        assert_eq!(seen.len(), 5, "every tenth of the second half is used: {seen:?}");
    }

    #[test]
    fn success_starts_the_sequence_anew() {
        let mut jitter = Jitter::new(1);
        let mut backoff = Backoff::new(POLICY);
        for _ in 0..5 {
            backoff.failed(&mut jitter);
        }
        backoff.succeeded();
        assert!(backoff.failed(&mut jitter) < Duration::from_secs(1));
    }

    #[test]
    fn one_seed_gives_one_sequence() {
        let draw = |seed| {
            let mut jitter = Jitter::new(seed);
            (0..8).map(|_| jitter.within(Duration::from_secs(60))).collect::<Vec<_>>()
        };
        assert_eq!(draw(3), draw(3));
        assert_ne!(draw(3), draw(4));
    }

    #[test]
    fn around_stays_within_a_tenth() {
        let mut jitter = Jitter::new(9);
        for _ in 0..200 {
            let length = jitter.around(Duration::from_secs(5));
            assert!((4500..5500).contains(&length.as_millis()), "{length:?}");
        }
    }

    proptest! {
        #[test]
        fn a_pause_never_leaves_its_bounds(
            first in 1..10_000u64,
            more in 0..1_000_000u64,
            growth_percent in 100..400u32,
            failures in 1..200usize,
            seed in any::<u64>(),
        ) {
            let (first, most) = (Duration::from_millis(first), Duration::from_millis(first + more));
            let (mut backoff, mut jitter) =
                (Backoff::new(Policy { first, most, growth_percent }), Jitter::new(seed));
            for _ in 0..failures {
                let pause = backoff.failed(&mut jitter);
                prop_assert!(pause >= first / 2 && pause <= most, "{pause:?}");
            }
        }
    }
}
