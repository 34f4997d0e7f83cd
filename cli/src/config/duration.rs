//! Durations as Go writes them: `1h30m`, `500ms`, `-1.5s`.
//!
//! Never accepts a unit that Go does not: a day is `24h`.

const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Nanoseconds of a Go duration, which may be negative.
///
/// # Errors
/// The message of Go's `time.ParseDuration`.
pub fn parse_go(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = split(rest, |c| c.is_ascii_digit());
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split(after, |c| c.is_ascii_digit()),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let (unit, after) = split(after, |c| c != '.' && !c.is_ascii_digit());
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| i128::from(*scale));
        let scale = scale.ok_or_else(|| format!("time: unknown unit {unit:?} in duration {text:?}"))?;
        total += number(whole).ok_or_else(invalid)? * scale + part(fraction, scale);
        rest = after;
    }
    let signed = if negative { -total } else { total };
    i64::try_from(signed).map_err(|_| invalid())
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// Digits as a number that an `i64` holds; none are zero.
fn number(digits: &str) -> Option<i128> {
    if digits.is_empty() { Some(0) } else { digits.parse::<i64>().ok().map(i128::from) }
}

/// The digits behind the point, in units; what is below a nanosecond is cut.
fn part(digits: &str, scale: i128) -> i128 {
    let digits = digits.get(..digits.len().min(18)).unwrap_or_default();
    let tens = (0..digits.len()).fold(1i128, |tens, _| tens * 10);
    number(digits).unwrap_or(0) * scale / tens
}

#[cfg(test)]
mod tests {
    use super::parse_go;

    #[test]
    fn units_add_up() {
        for (text, nanos) in [
            ("0", 0),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5ms", 500_000),
            ("5.s", 5_000_000_000),
            ("-2us", -2_000),
            ("+3µs", 3_000),
            ("1ns", 1),
        ] {
            assert_eq!(parse_go(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn mistakes_are_told_in_gos_words() {
        for (text, message) in [
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("10", "time: missing unit in duration \"10\""),
            ("", "time: invalid duration \"\""),
            ("x", "time: invalid duration \"x\""),
            (".s", "time: invalid duration \".s\""),
            ("3000000h", "time: invalid duration \"3000000h\""),
            ("99999999999999999999s", "time: invalid duration \"99999999999999999999s\""),
        ] {
            assert_eq!(parse_go(text), Err(message.to_owned()), "{text}");
        }
    }
}
