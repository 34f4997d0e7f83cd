//! Moments as a page shows them: in UTC, and how far away they are.
//!
//! Never asks a clock, and never fails: what is no moment is shown as it came.

use askama::Template;
use avouch_credential::shown::plain;
use avouch_domain::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::datetime;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const LAST: OffsetDateTime = datetime!(9999-12-31 23:59:59 UTC);

/// A moment, and how far it is from now.
#[derive(Debug, Template)]
#[template(
    source = r#"<time datetime="{{ text }}">{{ text }}</time> <small>{{ far }}</small>"#,
    ext = "html"
)]
pub(super) struct Moment {
    /// RFC 3339, in whole seconds.
    text: String,
    /// `in 12 days`, `3 minutes ago`.
    far: String,
}

/// Its own template escapes it.
impl askama::filters::HtmlSafe for Moment {}

/// A moment of a long table: the day, and how far it is from now.
#[derive(Debug, Template)]
#[template(source = r#"<time datetime="{{ text }}">{{ day }}</time>, {{ far }}"#, ext = "html")]
pub(super) struct Day {
    text: String,
    day: String,
    far: String,
}

/// Its own template escapes it.
impl askama::filters::HtmlSafe for Day {}

/// A moment of a long table that was: how far it is from now, and for who looks closer the moment.
#[derive(Debug, Template)]
#[template(source = r#"<time datetime="{{ text }}">{{ far }}</time>"#, ext = "html")]
pub(super) struct Far {
    text: String,
    far: String,
}

/// Its own template escapes it.
impl askama::filters::HtmlSafe for Far {}

/// The moment of these seconds since 1970.
pub(super) fn moment(seconds: i64, now: Timestamp) -> Moment {
    Moment { text: rfc3339(seconds), far: far(seconds, now) }
}

/// The day of these seconds since 1970.
pub(super) fn day(seconds: i64, now: Timestamp) -> Day {
    let text = rfc3339(seconds);
    Day { day: date(seconds), text, far: far(seconds, now) }
}

/// The day of these seconds since 1970, without more.
pub(super) fn date(seconds: i64) -> String {
    rfc3339(seconds).chars().take(10).collect()
}

/// How far these seconds since 1970 are from now.
pub(super) fn words_of(seconds: i64, now: Timestamp) -> Far {
    Far { text: rfc3339(seconds), far: far(seconds, now) }
}

/// The moment of a record.
pub(super) fn recorded(text: &str, now: Timestamp) -> Moment {
    match seconds_of(text) {
        Some(seconds) => moment(seconds, now),
        None => Moment { text: plain(text), far: String::new() },
    }
}

/// In UTC, in whole seconds. What lies beyond the years that RFC 3339 has is shown as their last second.
pub(super) fn rfc3339(seconds: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(LAST);
    moment.format(&Rfc3339).unwrap_or_default()
}

/// Seconds since 1970 of a moment by RFC 3339.
fn seconds_of(text: &str) -> Option<i64> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp)
}

/// How many units that is, rounded.
fn nearest(apart: u64, unit: u64) -> u64 {
    apart.saturating_add(unit / 2) / unit
}

/// How far away it is, in words.
fn far(seconds: i64, now: Timestamp) -> String {
    let apart = seconds.abs_diff(now.secs());
    let (number, unit) = match apart {
        0 => return "now".to_owned(),
        1..MINUTE => (apart, "second"),
        MINUTE..HOUR => (nearest(apart, MINUTE), "minute"),
        HOUR..=172_799 => (nearest(apart, HOUR), "hour"),
        172_800..=63_071_999 => (nearest(apart, DAY), "day"),
        _ => (nearest(apart, 365 * DAY), "year"),
    };
    let many = if number == 1 { "" } else { "s" };
    if seconds > now.secs() {
        format!("in {number} {unit}{many}")
    } else {
        format!("{number} {unit}{many} ago")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_and_read_by_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_346_661, "2026-11-22T11:24:21Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!((rfc3339(seconds).as_str(), seconds_of(text)), (text, Some(seconds)));
        }
        assert_eq!(seconds_of("2026-11-22T11:24:21.123Z"), Some(1_795_346_661));
        assert_eq!(rfc3339(i64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn what_is_no_moment_is_shown_as_it_came() {
        for wrong in [
            "",
            "soon",
            "2026-11-22",
            "2026-11-22T11:24:21",
            "2026-11-2\u{e9}T11:24:21Z",
            "+026-11-22T11:24:21Z",
        ] {
            assert_eq!(seconds_of(wrong), None, "{wrong}");
        }
        assert_eq!(recorded("soon\u{202e}", Timestamp(0)).text, "soon\\u{202e}");
    }

    #[test]
    fn how_far_away_it_is_is_said_in_the_largest_unit_rounded() {
        let far = |apart: i64| far(1_000_000 + apart, Timestamp::from_secs(1_000_000));
        assert_eq!((far(0), far(1), far(-59)), ("now".into(), "in 1 second".into(), "59 seconds ago".into()));
        assert_eq!((far(60), far(-7_200)), ("in 1 minute".into(), "2 hours ago".into()));
        assert_eq!((far(47 * 3_600), far(12 * 86_400)), ("in 47 hours".into(), "in 12 days".into()));
        assert_eq!(far(30 * 86_400 - 5), "in 30 days", "a page takes a moment to be made");
        assert_eq!(far(-800 * 86_400), "2 years ago");
    }
}
