//! Moments as people write them.

use avouch_domain::Timestamp;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::failure::Failure;

/// Reads `30d`, `12h`, `45m` as that long from `now`, or a moment of RFC 3339. Gives seconds since 1970.
pub(super) fn read(text: &str, now: Timestamp) -> Result<i64, Failure> {
    let wrong =
        || Failure::usage(format!("\"{text}\" is no moment, expected 30d, 12h, 45m or 2027-01-31T00:00:00Z"));
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok(moment.unix_timestamp());
    }
    let seconds = seconds(text).ok_or_else(wrong)?;
    Ok(now.secs().saturating_add_unsigned(seconds))
}

/// As [`read`], and a day such as `2026-12-31`, which counts whole (UTC).
pub(super) fn until(text: &str, now: Timestamp) -> Result<i64, Failure> {
    if let Ok(day) = OffsetDateTime::parse(&format!("{text}T00:00:00Z"), &Rfc3339) {
        return Ok(day.unix_timestamp().saturating_add(86_400));
    }
    read(text, now)
}

/// Reads `30d`, `12h`, `45m` or `90s` as seconds.
pub(super) fn length(text: &str) -> Result<u64, Failure> {
    let wrong = || Failure::usage(format!("\"{text}\" is no length of time, expected 30d, 12h, 45m or 90s"));
    match text.strip_suffix('s') {
        Some(number) => number.parse::<u32>().map(u64::from).map_err(|_| wrong()),
        None => seconds(text).ok_or_else(wrong),
    }
}

/// Days, hours or minutes as seconds.
fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1))?;
    let seconds = match unit {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        _ => return None,
    };
    number.parse::<u32>().ok().map(|number| u64::from(number) * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    #[test]
    fn a_length_counts_from_now_and_a_moment_is_itself() {
        assert_eq!(read("30d", NOW).unwrap(), 1_000 + 30 * 86_400);
        assert_eq!(read("2h", NOW).unwrap(), 8_200);
        assert_eq!(read("1970-01-01T01:00:00Z", NOW).unwrap(), 3_600);
    }

    #[test]
    fn a_day_counts_whole_and_all_else_is_as_everywhere() {
        assert_eq!(until("1970-01-02", NOW).unwrap(), 2 * 86_400);
        assert_eq!(until("2h", NOW).unwrap(), 8_200);
        assert_eq!(until("1970-01-02T00:00:00Z", NOW).unwrap(), 86_400);
        assert_eq!(until("1970-13-02", NOW).unwrap_err().code, crate::exit::USAGE);
    }

    #[test]
    fn a_length_of_time_may_be_in_seconds() {
        assert_eq!((length("90s").unwrap(), length("2h").unwrap()), (90, 7_200));
        for wrong in ["", "s", "90", "-1s", "1970-01-01T01:00:00Z", "4294967296s"] {
            assert_eq!(length(wrong).unwrap_err().code, crate::exit::USAGE, "{wrong}");
        }
    }

    #[test]
    fn what_is_neither_is_a_wrong_call() {
        for wrong in ["", "d", "30", "-1d", "1.5h", "9999999999d", "soon", "1\u{e9}"] {
            assert_eq!(read(wrong, NOW).unwrap_err().code, crate::exit::USAGE, "{wrong}");
        }
    }
}
