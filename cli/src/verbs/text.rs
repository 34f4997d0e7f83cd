//! Texts as Go and gRPC print them, which scripts around SPIRE read.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tonic::Status;

use crate::rpc::code_name;

fn utc(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A time in UTC as Go prints it: `2026-11-22 11:26:51 +0000 UTC`.
#[must_use]
pub fn go_time(seconds: i64) -> String {
    let t = utc(seconds);
    let (date, clock) = (t.date(), t.to_hms());
    let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} +0000 UTC", clock.0, clock.1, clock.2)
}

/// A time in UTC by RFC 3339, in whole seconds.
#[must_use]
pub fn rfc3339(seconds: i64) -> String {
    utc(seconds).format(&Rfc3339).unwrap_or_default()
}

/// A length of time as Go prints it: `2.84ms`, `18s`, `1h0m3s`.
#[must_use]
pub fn go_duration(nanoseconds: u64) -> String {
    let fraction = |unit: u64, name: &str| {
        let (whole, mut rest, mut scale) = (nanoseconds / unit, nanoseconds % unit, unit);
        let mut digits = String::new();
        while rest > 0 {
            scale /= 10;
            digits.push(char::from_digit(u32::try_from(rest / scale).unwrap_or(0), 10).unwrap_or('0'));
            rest %= scale;
        }
        if digits.is_empty() { format!("{whole}{name}") } else { format!("{whole}.{digits}{name}") }
    };
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => fraction(1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(1_000_000, "ms"),
        _ => {
            let minutes = nanoseconds / 60_000_000_000;
            let seconds = go_seconds(nanoseconds % 60_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, m) => format!("{m}m{seconds}"),
                (h, m) => format!("{h}h{m}m{seconds}"),
            }
        }
    }
}

fn go_seconds(nanoseconds: u64) -> String {
    let (whole, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    if rest == 0 {
        return format!("{whole}s");
    }
    let digits = format!("{rest:09}");
    format!("{whole}.{}s", digits.trim_end_matches('0'))
}

/// `1 entry`, `2 entries`.
#[must_use]
pub fn count(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// `rpc error: code = NotFound desc = agent not found`.
#[must_use]
pub fn rpc_error(status: &Status) -> String {
    format!("rpc error: code = {} desc = {}", code_name(status.code()), status.message())
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn times_read_as_go_prints_them() {
        assert_eq!(go_time(1_795_346_661), "2026-11-22 11:24:21 +0000 UTC");
        assert_eq!(go_time(4_102_444_800), "2100-01-01 00:00:00 +0000 UTC");
        assert_eq!(rfc3339(1_795_346_661), "2026-11-22T11:24:21Z");
    }

    #[test]
    fn durations_read_as_go_prints_them() {
        for (ns, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (2_840_000, "2.84ms"),
            (18_000_000_000, "18s"),
            (1_050_000_000, "1.05s"),
            (3_603_000_000_000, "1h0m3s"),
            (60_000_000_000, "1m0s"),
        ] {
            assert_eq!(go_duration(ns), text);
        }
    }

    #[test]
    fn a_refusal_reads_as_grpc_for_go_prints_it() {
        let status = Status::not_found("agent not found");
        assert_eq!(rpc_error(&status), "rpc error: code = NotFound desc = agent not found");
        assert_eq!(code_name(Code::Cancelled), "Canceled");
    }
}
