//! When authorities are prepared, put to use and pruned: SPIRE's rules in one place.
//!
//! Never asks for anything but the two ends of a validity.

use std::time::Duration;

use avouch_domain::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest time before its end that a successor is prepared.
pub const PREPARE_BEFORE_MAX: Duration = Duration::from_secs(30 * DAY.as_secs());
/// Longest time before its end that a successor signs.
pub const ACTIVATE_BEFORE_MAX: Duration = Duration::from_secs(7 * DAY.as_secs());
/// How long an ended authority stays in the bundle: clocks differ, and SVIDs end with their authority.
pub const KEEP_AFTER_END: Duration = DAY;
/// How often ended authorities are looked for.
pub const PRUNE_EVERY: Duration = Duration::from_secs(6 * 60 * 60);
/// How long to wait after a step failed.
pub const RETRY_AFTER: Duration = Duration::from_secs(5);

/// When to prepare the successor: at `notAfter - min(lifetime / 2, 30 d)`.
#[must_use]
pub fn prepare_at(issued_at: Timestamp, not_after: Timestamp) -> Timestamp {
    not_after - (not_after.since(issued_at) / 2).min(PREPARE_BEFORE_MAX)
}

/// When the successor signs: at `notAfter - min(lifetime / 6, 7 d)`.
#[must_use]
pub fn activate_at(issued_at: Timestamp, not_after: Timestamp) -> Timestamp {
    not_after - (not_after.since(issued_at) / 6).min(ACTIVATE_BEFORE_MAX)
}

/// The longest SVID lifetime that is never cut short by the end of its authority: what is left of an authority
/// when its successor takes over.
#[must_use]
pub fn longest_uncut(ca_ttl: Duration) -> Duration {
    (ca_ttl / 6).min(ACTIVATE_BEFORE_MAX)
}

/// When to look for an SVID's replacement: half-way through its validity.
#[must_use]
pub fn half_life(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    not_before + not_after.since(not_before) / 2
}
