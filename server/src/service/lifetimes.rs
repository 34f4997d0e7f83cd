//! Which SVID lifetimes the authorities can't always give, told with the numbers.
//!
//! Never changes a lifetime: an SVID that would outlive its authority is cut when it is signed.

use std::time::Duration;

use avouch_domain::Entry;
use avouch_engine::rotation::timing::{ACTIVATE_BEFORE_MAX, longest_uncut};

use super::Settings;

/// A lifetime that is cut short at times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// The key or field that asks for it.
    pub key: &'static str,
    pub ttl: Duration,
    pub ca_ttl: Duration,
}

impl Cut {
    fn of(key: &'static str, ttl: Duration, ca_ttl: Duration) -> Option<Self> {
        (ttl > longest_uncut(ca_ttl)).then_some(Self { key, ttl, ca_ttl })
    }

    /// What happens, and what helps.
    pub(super) fn text(&self) -> String {
        let (key, ttl, left) = (self.key, self.ttl.as_secs(), longest_uncut(self.ca_ttl).as_secs());
        let help = if self.ttl > ACTIVATE_BEFORE_MAX {
            format!("more than {} s can't be promised", ACTIVATE_BEFORE_MAX.as_secs())
        } else {
            format!("use a ca_ttl of at least {} s", ttl.saturating_mul(6))
        };
        format!(
            "SVIDs may end earlier than {key} says ({ttl} s): with a ca_ttl of {} s an authority hands over with {left} s left; {help}",
            self.ca_ttl.as_secs(),
        )
    }
}

/// Of the configuration.
pub(super) fn of_settings(settings: &Settings) -> Vec<Cut> {
    let svids = [
        ("default_x509_svid_ttl", settings.x509_svid_ttl),
        ("agent_ttl", settings.agent_ttl),
        ("default_jwt_svid_ttl", settings.jwt_svid_ttl),
    ];
    svids.into_iter().filter_map(|(key, ttl)| Cut::of(key, ttl, settings.ca_ttl)).collect()
}

/// Of an entry that asks for lifetimes of its own.
pub(super) fn of_entry(settings: &Settings, entry: &Entry) -> Vec<Cut> {
    let svids = [("x509_svid_ttl", entry.x509_svid_ttl), ("jwt_svid_ttl", entry.jwt_svid_ttl)];
    svids
        .into_iter()
        .filter(|(_, ttl)| ttl.0 > 0)
        .filter_map(|(key, ttl)| Cut::of(key, ttl.or(Duration::ZERO), settings.ca_ttl))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_lifetime_of_up_to_a_sixth_of_the_authoritys_is_never_cut() {
        assert_eq!(Cut::of("agent_ttl", 4 * HOUR, 24 * HOUR), None);
        assert!(Cut::of("agent_ttl", 4 * HOUR + Duration::from_secs(1), 24 * HOUR).is_some());
    }

    #[test]
    fn the_warning_has_all_numbers_and_what_to_set() {
        let cut = Cut::of("agent_ttl", 6 * HOUR, 24 * HOUR).unwrap();
        assert_eq!(
            cut.text(),
            "SVIDs may end earlier than agent_ttl says (21600 s): with a ca_ttl of 86400 s an authority hands over \
             with 14400 s left; use a ca_ttl of at least 129600 s"
        );
    }

    #[test]
    fn a_lifetime_that_no_authority_can_give_is_not_promised_for_a_longer_ca_ttl() {
        let text = Cut::of("agent_ttl", 200 * HOUR, 10_000 * HOUR).unwrap().text();
        assert!(text.ends_with("with 604800 s left; more than 604800 s can't be promised"), "{text}");
    }
}
