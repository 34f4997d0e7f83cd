//! The one place of this crate that asks the clocks of the machine. Everything else is told the time.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use avouch_domain::{Now, Tick, Timestamp};

/// Wall time since the Unix epoch; zero if the machine's clock is before it.
#[allow(clippy::disallowed_methods)]
fn wall() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Wall and monotonic time of this moment.
#[must_use]
#[allow(clippy::disallowed_methods)]
pub fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let mono = START.get_or_init(Instant::now).elapsed();
    Now {
        wall: Timestamp(i64::try_from(wall().as_millis()).unwrap_or(i64::MAX)),
        mono: Tick(u64::try_from(mono.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// This moment in UTC as RFC 3339, with nanoseconds (trailing zeros cut) or whole seconds.
#[must_use]
pub fn rfc3339(with_nanoseconds: bool) -> String {
    let wall = wall();
    let nanos = if with_nanoseconds { wall.subsec_nanos() } else { 0 };
    i64::try_from(wall.as_secs())
        .ok()
        .and_then(|secs| time::OffsetDateTime::from_unix_timestamp(secs).ok())
        .and_then(|t| t.replace_nanosecond(nanos).ok())
        .and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_default()
}
