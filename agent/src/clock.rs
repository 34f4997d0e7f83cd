//! The one place of the agent that asks the clocks of the machine. Everything else is told the time.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use avouch_domain::{Now, Tick, Timestamp};

/// Wall and monotonic time of this moment. A wall clock before 1970 counts as 1970.
#[must_use]
#[allow(clippy::disallowed_methods)]
pub fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let mono = START.get_or_init(Instant::now).elapsed();
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        wall: Timestamp(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
        mono: Tick(u64::try_from(mono.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// Monotonic time of this moment.
#[must_use]
pub fn tick() -> Tick {
    now().mono
}

/// The server's clock as last seen, carried forward by monotonic time.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerClock {
    seen: Option<(Timestamp, Tick)>,
    skew_ms: i64,
}

impl ServerClock {
    /// Notes what the server's clock says at `now`.
    pub fn saw(&mut self, server: Timestamp, now: Now) {
        self.seen = Some((server, now.mono));
        self.skew_ms = server.0.saturating_sub(now.wall.0);
    }

    /// Server time minus ours when last seen, in milliseconds.
    #[must_use]
    pub fn skew_ms(&self) -> i64 {
        self.skew_ms
    }

    /// `now` with the later of both clocks as wall time: "expired" means by the later one, so that a clock set
    /// back on this machine prolongs nothing.
    #[must_use]
    pub fn later(&self, now: Now) -> Now {
        match self.seen {
            Some((server, at)) => Now { wall: now.wall.max(server + now.mono.since(at)), mono: now.mono },
            None => now,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_set_back_prolongs_nothing() {
        let mut clock = ServerClock::default();
        let start = Now { wall: Timestamp::from_secs(1000), mono: Tick(0) };
        clock.saw(Timestamp::from_secs(1000), start);
        let set_back = Now { wall: Timestamp::from_secs(10), mono: Tick(0) + Duration::from_secs(60) };
        assert_eq!(clock.later(set_back).wall, Timestamp::from_secs(1060));
        let ahead = Now { wall: Timestamp::from_secs(5000), mono: Tick(0) };
        assert_eq!(clock.later(ahead).wall, Timestamp::from_secs(5000));
    }
}
