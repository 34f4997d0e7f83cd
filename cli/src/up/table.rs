//! What the screen says about the identities seen. Pure text: the time is an argument.

use avouch_domain::Timestamp;

use super::fetch::Seen;

/// One line about the first identity.
pub fn first(seen: &Seen, now: Timestamp) -> String {
    seen.identities.first().map_or_else(
        || "no identity yet".to_owned(),
        |i| {
            format!(
                "{}   valid {}   renews in about {}",
                i.id,
                left(i.not_after, now),
                left(half_life(i), now)
            )
        },
    )
}

/// The live table: a line per identity.
pub fn live(seen: &Seen, renewals: u64, now: Timestamp) -> String {
    let mut text = format!("{:<44} {:>8} {:>10}\n", "SPIFFE ID", "valid", "renews");
    for identity in &seen.identities {
        let line = format!(
            "{:<44} {:>8} {:>10}\n",
            identity.id.to_string(),
            left(identity.not_after, now),
            left(half_life(identity), now)
        );
        text.push_str(&line);
    }
    text.push_str(&format!("{renewals} updates pushed; Ctrl-C stops"));
    text
}

fn half_life(identity: &super::fetch::SeenIdentity) -> Timestamp {
    let span = identity.not_after.since(identity.not_before);
    identity.not_before + span / 2
}

/// Time left in the largest unit that says something: `59m`, `31s`; `now` when it is over.
fn left(until: Timestamp, now: Timestamp) -> String {
    match until.since(now).as_secs() {
        0 => "now".to_owned(),
        s @ 1..=119 => format!("{s}s"),
        s @ 120..=7199 => format!("{}m", s / 60),
        s => format!("{}h", s / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_is_told_in_the_unit_that_says_something() {
        let at = |s| left(Timestamp::from_secs(s), Timestamp::from_secs(0));
        assert_eq!(
            (at(0), at(59), at(3599), at(7200)),
            ("now".into(), "59s".into(), "59m".into(), "2h".into())
        );
    }
}
