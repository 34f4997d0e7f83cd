//! What the clock of one host shows: it may run fast or slow, be set wrong, and be set right again.
//!
//! Never bends monotonic time, which is the same everywhere.

use avouch_domain::{Now, Tick, Timestamp};

/// The wall clock of one host, as a deviation from the true time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Milliseconds ahead of the true time at `since`.
    ahead: i64,
    /// Millionths by which it runs fast.
    drift: i64,
    since: u64,
}

impl Clock {
    /// What this host sees at the true moment `now`.
    pub fn see(&self, now: Now) -> Now {
        Now { wall: Timestamp(now.wall.0 + self.deviation(now.mono)), mono: now.mono }
    }

    fn deviation(&self, mono: Tick) -> i64 {
        let passed = i64::try_from(mono.0 - self.since).unwrap_or(0);
        self.ahead + passed.saturating_mul(self.drift) / 1_000_000
    }

    /// Sets it forward or back.
    pub fn jump(&mut self, mono: Tick, by: i64) {
        *self = Self { ahead: self.deviation(mono) + by, since: mono.0, ..*self };
    }

    /// Lets it run fast or slow from now on.
    pub fn run_at(&mut self, mono: Tick, drift: i64) {
        *self = Self { ahead: self.deviation(mono), drift, since: mono.0 };
    }
}
