//! The one place of the server that asks a clock. Everything else is given a [`Now`] or a [`Clock`].

use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use avouch_domain::{Now, Tick, Timestamp};

/// A source of time, so that tests can bend it. The daemon uses [`now`].
pub type Clock = fn() -> Now;

/// Wall clock and monotonic time of the machine. The monotonic one counts from the first call.
#[must_use]
#[allow(clippy::disallowed_methods)]
pub fn now() -> Now {
    static START: OnceLock<tokio::time::Instant> = OnceLock::new();
    let wall = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mono = START.get_or_init(tokio::time::Instant::now).elapsed();
    Now {
        wall: Timestamp(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
        mono: Tick(u64::try_from(mono.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// What `work` gives, and how long it took.
pub async fn timed<T>(clock: Clock, work: impl Future<Output = T>) -> (T, Duration) {
    let begun = clock().mono;
    let done = work.await;
    (done, clock().mono.since(begun))
}

/// A time as it stands in log fields, in the form of SPIRE's: `2026-11-22 11:24:21 +0000 UTC`.
#[must_use]
pub fn log_time(at: Timestamp) -> String {
    let utc =
        time::OffsetDateTime::from_unix_timestamp(at.secs()).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let (hour, minute, second) = utc.to_hms();
    format!("{} {hour:02}:{minute:02}:{second:02} +0000 UTC", utc.date())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_in_a_log_field_has_spires_form() {
        assert_eq!(log_time(Timestamp(1_795_346_661_999)), "2026-11-22 11:24:21 +0000 UTC");
    }
}
