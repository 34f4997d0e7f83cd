//! The one place of the agent that asks the clocks of the machine. Everything else is told the time.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use avouch_domain::{Now, Tick, Timestamp};
use nix::time::{ClockId, clock_gettime};

/// Wall time and time since the machine's start of this moment; the latter goes on while the machine sleeps. A wall
/// clock before 1970 counts as 1970.
#[must_use]
#[allow(clippy::disallowed_methods)]
pub fn now() -> Now {
    // Every kernel that runs this program has this clock.
    let mono = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        wall: Timestamp(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
        mono: Tick(u64::try_from(mono.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// Which start of the machine this is; empty if the kernel does not say.
#[must_use]
pub fn boot_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        text.trim().to_owned()
    })
}

/// A moment as it is kept over restarts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    pub wall: Timestamp,
    /// Since the start of the machine that `boot` names.
    pub mono: Tick,
    pub boot: String,
}

impl Moment {
    /// What time it is at least, whatever the wall clock says: the moment, and what has passed since as far as this
    /// machine knows.
    #[must_use]
    pub fn carried(&self, now: Now, boot: &str) -> Timestamp {
        let same_start = !boot.is_empty() && self.boot == boot;
        self.wall + if same_start { now.mono.since(self.mono) } else { Duration::ZERO }
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
    /// `seen` is what an earlier life knew: it holds until the server is heard.
    remembered: bool,
}

impl ServerClock {
    /// Notes what the server's clock says at `now`.
    pub fn saw(&mut self, server: Timestamp, now: Now) {
        self.seen = Some((server, now.mono));
        self.skew_ms = server.0.saturating_sub(now.wall.0);
        self.remembered = false;
    }

    /// Notes what time it is at least, as an earlier life knew.
    pub fn remember(&mut self, least: Timestamp, now: Now) {
        (self.seen, self.remembered) = (Some((least, now.mono)), true);
    }

    /// The server answers. What an earlier life knew is forgotten, so that one whose clock was far ahead is not
    /// followed for ever.
    pub fn heard(&mut self) {
        if std::mem::take(&mut self.remembered) {
            self.seen = None;
        }
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
    use super::*;

    #[test]
    fn a_clock_set_back_over_a_restart_prolongs_nothing() {
        let kept = Moment { wall: Timestamp::from_secs(1000), mono: Tick(5000), boot: "b".into() };
        let restarted = Now { wall: Timestamp::from_secs(10), mono: Tick(65_000) };
        assert_eq!(kept.carried(restarted, "b"), Timestamp::from_secs(1060));
        let rebooted = Now { wall: Timestamp::from_secs(10), mono: Tick(65_000) };
        assert_eq!(
            kept.carried(rebooted, "c"),
            Timestamp::from_secs(1000),
            "how long it was off nobody knows"
        );
        let mut clock = ServerClock::default();
        clock.remember(kept.carried(restarted, "b"), restarted);
        assert_eq!(clock.later(restarted).wall, Timestamp::from_secs(1060));
    }

    #[test]
    fn what_an_earlier_life_knew_of_the_time_ends_when_the_server_is_heard() {
        let now = Now { wall: Timestamp::from_secs(1000), mono: Tick(0) };
        let mut clock = ServerClock::default();
        clock.remember(Timestamp::from_secs(9000), now);
        clock.heard();
        assert_eq!(clock.later(now), now);
        clock.saw(Timestamp::from_secs(1001), now);
        clock.heard();
        assert_eq!(clock.later(now).wall, Timestamp::from_secs(1001), "the server's own word stays");
    }

    #[test]
    fn the_monotonic_clock_counts_from_the_start_of_the_machine() {
        let up = std::fs::read_to_string("/proc/uptime").unwrap();
        let up: f64 = up.split(' ').next().unwrap().parse().unwrap();
        assert!((tick().0 as f64 / 1000.0 - up).abs() < 60.0);
        assert_eq!(boot_id().len(), 36);
    }

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
