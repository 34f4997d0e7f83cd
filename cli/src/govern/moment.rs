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
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds: i64 = match unit {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        _ => return Err(wrong()),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    Ok(now.secs().saturating_add(seconds.saturating_mul(i64::from(number))))
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
    fn what_is_neither_is_a_wrong_call() {
        for wrong in ["", "d", "30", "-1d", "1.5h", "9999999999d", "soon", "1\u{e9}"] {
            assert_eq!(read(wrong, NOW).unwrap_err().code, crate::exit::USAGE, "{wrong}");
        }
    }
}
