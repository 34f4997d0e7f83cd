//! What the clock of one host shows: it may run fast or slow, stand still, be set wrong, and be set right again.
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
    /// What it shows for as long as it stands still.
    frozen: Option<Timestamp>,
}

impl Clock {
    /// What this host sees at the true moment `now`.
    pub fn see(&self, now: Now) -> Now {
        let wall = self.frozen.unwrap_or_else(|| Timestamp(now.wall.0 + self.deviation(now.mono)));
        Now { wall, mono: now.mono }
    }

    fn deviation(&self, mono: Tick) -> i64 {
        let passed = i64::try_from(mono.0 - self.since).unwrap_or(0);
        self.ahead + passed.saturating_mul(self.drift) / 1_000_000
    }

    /// Sets it forward or back.
    pub fn jump(&mut self, now: Now, by: i64) {
        let ahead = self.see(now).wall.0 - now.wall.0 + by;
        let frozen = self.frozen.map(|at| Timestamp(at.0 + by));
        *self = Self { ahead, since: now.mono.0, frozen, ..*self };
    }

    /// Lets it run fast or slow from now on.
    pub fn run_at(&mut self, now: Now, drift: i64) {
        *self = Self { ahead: self.deviation(now.mono), drift, since: now.mono.0, ..*self };
    }

    /// It stands still from now on.
    pub fn freeze(&mut self, now: Now) {
        self.frozen = Some(self.see(now).wall);
    }

    /// The host was suspended for so many milliseconds: what it shows is read anew from the hardware.
    pub fn resume(&mut self, slept: u64) {
        self.frozen = self.frozen.map(|at| Timestamp(at.0 + i64::try_from(slept).unwrap_or(0)));
    }

    /// It goes on from where it stood.
    pub fn thaw(&mut self, now: Now) {
        if let Some(at) = self.frozen.take() {
            *self = Self { ahead: at.0 - now.wall.0, since: now.mono.0, ..*self };
        }
    }
}
