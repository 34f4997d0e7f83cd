//! Filters of the list and count calls.
//!
//! Never treats an unreadable filter as "no filter", save one text that SPIRE's clients rely on (see
//! [`AgentFilter::expires_before`]).

use std::collections::BTreeSet;

use avouch_domain::{SelectorSet, SpiffeId, Timestamp, TrustDomain};

use super::ConvertError;
use super::ids::{member_id, trust_domain, workload_id};
use super::selectors::selector_set;
use crate::{agent_v1, entry_v1, types};

/// How a set is held against the filter's set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// The same set.
    Exact,
    /// Nothing beyond the filter's set.
    Subset,
    /// At least the filter's set.
    Superset,
    /// Something in common.
    Any,
}

/// Which entries a caller wants; `None` = any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EntryFilter {
    pub hint: Option<String>,
    pub parent_id: Option<SpiffeId>,
    pub spiffe_id: Option<SpiffeId>,
    pub selectors: Option<(Match, SelectorSet)>,
    pub federates_with: Option<(Match, BTreeSet<TrustDomain>)>,
    pub downstream: Option<bool>,
}

impl EntryFilter {
    /// Reads the filter of a list call, in SPIRE's order of checks.
    ///
    /// # Errors
    /// The whole message for the caller, such as "malformed parent ID filter: …".
    pub fn of_list(
        domain: &TrustDomain,
        wire: Option<&entry_v1::list_entries_request::Filter>,
    ) -> Result<Self, ConvertError> {
        let Some(f) = wire else { return Ok(Self::default()) };
        let hint = f.by_hint.as_deref();
        let federates_with = f.by_federates_with.as_ref();
        let ids = (f.by_parent_id.as_ref(), f.by_spiffe_id.as_ref());
        Self::read(domain, hint, ids, f.by_selectors.as_ref(), federates_with, f.by_downstream)
    }

    /// Reads the filter of a count call; see [`Self::of_list`].
    ///
    /// # Errors
    /// As [`Self::of_list`].
    pub fn of_count(
        domain: &TrustDomain,
        wire: Option<&entry_v1::count_entries_request::Filter>,
    ) -> Result<Self, ConvertError> {
        let Some(f) = wire else { return Ok(Self::default()) };
        let hint = f.by_hint.as_deref();
        let federates_with = f.by_federates_with.as_ref();
        let ids = (f.by_parent_id.as_ref(), f.by_spiffe_id.as_ref());
        Self::read(domain, hint, ids, f.by_selectors.as_ref(), federates_with, f.by_downstream)
    }

    fn read(
        domain: &TrustDomain,
        hint: Option<&str>,
        (parent, spiffe): (Option<&types::Spiffeid>, Option<&types::Spiffeid>),
        selectors: Option<&types::SelectorMatch>,
        federates_with: Option<&types::FederatesWithMatch>,
        downstream: Option<bool>,
    ) -> Result<Self, ConvertError> {
        Ok(Self {
            // An empty hint filters nothing.
            hint: hint.filter(|h| !h.is_empty()).map(str::to_owned),
            parent_id: parent
                .map(|id| member_id(domain, Some(id)))
                .transpose()
                .map_err(|e| e.within("malformed parent ID filter"))?,
            spiffe_id: spiffe
                .map(|id| workload_id(domain, Some(id)))
                .transpose()
                .map_err(|e| e.within("malformed SPIFFE ID filter"))?,
            selectors: selectors
                .map(selector_match)
                .transpose()
                .map_err(|e| e.within("malformed selectors filter"))?,
            federates_with: federates_with
                .map(domain_match)
                .transpose()
                .map_err(|e| e.within("malformed federates with filter"))?,
            // False filters nothing, as in SPIRE, whose command line always sends it.
            downstream: downstream.filter(|only| *only),
        })
    }
}

/// Which agents a caller wants; `None` = any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentFilter {
    pub attestation_type: Option<String>,
    pub selectors: Option<(Match, SelectorSet)>,
    pub banned: Option<bool>,
    pub can_reattest: Option<bool>,
    /// A text that is no date filters nothing, as SPIRE has it.
    pub expires_before: Option<Timestamp>,
}

impl AgentFilter {
    /// Reads the filter of a list call.
    ///
    /// # Errors
    /// "failed to parse selectors: …".
    pub fn of_list(wire: Option<&agent_v1::list_agents_request::Filter>) -> Result<Self, ConvertError> {
        let Some(f) = wire else { return Ok(Self::default()) };
        let flags = (f.by_banned, f.by_can_reattest);
        Self::read(&f.by_attestation_type, f.by_selector_match.as_ref(), flags, &f.by_expires_before)
    }

    /// Reads the filter of a count call.
    ///
    /// # Errors
    /// As [`Self::of_list`].
    pub fn of_count(wire: Option<&agent_v1::count_agents_request::Filter>) -> Result<Self, ConvertError> {
        let Some(f) = wire else { return Ok(Self::default()) };
        let flags = (f.by_banned, f.by_can_reattest);
        Self::read(&f.by_attestation_type, f.by_selector_match.as_ref(), flags, &f.by_expires_before)
    }

    fn read(
        attestation_type: &str,
        selectors: Option<&types::SelectorMatch>,
        (banned, can_reattest): (Option<bool>, Option<bool>),
        expires_before: &str,
    ) -> Result<Self, ConvertError> {
        Ok(Self {
            attestation_type: (!attestation_type.is_empty()).then(|| attestation_type.to_owned()),
            selectors: selectors
                .map(selector_match)
                .transpose()
                .map_err(|e| e.within("failed to parse selectors"))?,
            banned,
            can_reattest,
            expires_before: parse_date(expires_before),
        })
    }
}

fn selector_match(wire: &types::SelectorMatch) -> Result<(Match, SelectorSet), ConvertError> {
    use types::selector_match::MatchBehavior as B;
    let set = selector_set(&wire.selectors)?;
    if set.is_empty() {
        return Err(ConvertError::Unreadable("empty selector set".to_owned()));
    }
    let how = match B::try_from(wire.r#match) {
        Ok(B::MatchExact) => Match::Exact,
        Ok(B::MatchSubset) => Match::Subset,
        Ok(B::MatchSuperset) => Match::Superset,
        Ok(B::MatchAny) => Match::Any,
        Err(_) => return Err(unknown_match(wire.r#match)),
    };
    Ok((how, set))
}

fn domain_match(wire: &types::FederatesWithMatch) -> Result<(Match, BTreeSet<TrustDomain>), ConvertError> {
    use types::federates_with_match::MatchBehavior as B;
    let set: BTreeSet<_> = wire.trust_domains.iter().map(|d| trust_domain(d)).collect::<Result<_, _>>()?;
    if set.is_empty() {
        return Err(ConvertError::Unreadable("empty trust domain set".to_owned()));
    }
    let how = match B::try_from(wire.r#match) {
        Ok(B::MatchExact) => Match::Exact,
        Ok(B::MatchSubset) => Match::Subset,
        Ok(B::MatchSuperset) => Match::Superset,
        Ok(B::MatchAny) => Match::Any,
        Err(_) => return Err(unknown_match(wire.r#match)),
    };
    Ok((how, set))
}

fn unknown_match(number: i32) -> ConvertError {
    ConvertError::Unreadable(format!("unknown match behavior {number}"))
}

/// Reads `2006-01-02 15:04:05 -0700 -07`, the one layout SPIRE's clients send; the zone's name is not looked at.
fn parse_date(text: &str) -> Option<Timestamp> {
    let mut words = text.split(' ');
    let (date, clock, zone, _name) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let mut date = date.splitn(3, '-').map(|n| n.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut clock = clock.splitn(3, ':').map(|n| n.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let (sign, digits) = match (zone.strip_prefix('+'), zone.strip_prefix('-')) {
        (Some(digits), _) => (1, digits),
        (None, Some(digits)) => (-1, digits),
        (None, None) => return None,
    };
    let offset = digits.parse::<i64>().ok().filter(|_| digits.len() == 4)?;
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..60).contains(&second)
        && (0..10_000).contains(&year);
    let local = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    in_range.then(|| Timestamp::from_secs(local - sign * (offset / 100 * 3600 + offset % 100 * 60)))
}

/// Days from 1970-01-01 in the proleptic Gregorian calendar; years begin in March so that leap days come last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::{domain, id};

    use super::super::ids::spiffe_id_to_wire;
    use super::*;

    #[test]
    fn the_date_layout_of_spires_clients_is_read() {
        assert_eq!(parse_date("1970-01-01 00:00:00 +0000 +00"), Some(Timestamp(0)));
        assert_eq!(parse_date("2026-11-22 11:24:21 +0000 +00"), Some(Timestamp::from_secs(1_795_346_661)));
        assert_eq!(parse_date("2024-02-29 02:00:00 +0200 +02"), Some(Timestamp::from_secs(1_709_164_800)));
    }

    #[test]
    fn a_text_that_is_no_date_filters_nothing() {
        for text in ["", "tomorrow", "2026-11-22", "2026-13-01 00:00:00 +0000 UTC", "2026-11-22 11:24:21"] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }

    #[test]
    fn an_empty_hint_and_no_filter_filter_nothing() {
        let wire =
            entry_v1::list_entries_request::Filter { by_hint: Some(String::new()), ..Default::default() };
        assert_eq!(EntryFilter::of_list(&domain(), Some(&wire)), Ok(EntryFilter::default()));
        assert_eq!(EntryFilter::of_count(&domain(), None), Ok(EntryFilter::default()));
    }

    #[test]
    fn downstream_false_filters_nothing() {
        let wire =
            entry_v1::list_entries_request::Filter { by_downstream: Some(false), ..Default::default() };
        assert_eq!(EntryFilter::of_list(&domain(), Some(&wire)), Ok(EntryFilter::default()));
    }

    #[test]
    fn each_malformed_filter_names_itself() {
        type Filter = entry_v1::list_entries_request::Filter;
        let words = |f: Filter| EntryFilter::of_list(&domain(), Some(&f)).unwrap_err().to_string();
        let reserved = Some(spiffe_id_to_wire(&id("/spire/server")));
        assert!(
            words(Filter { by_parent_id: Some(Default::default()), ..Default::default() })
                .starts_with("malformed parent ID filter: ")
        );
        assert!(
            words(Filter { by_spiffe_id: reserved, ..Default::default() })
                .starts_with("malformed SPIFFE ID filter: ")
        );
        assert_eq!(
            words(Filter { by_selectors: Some(Default::default()), ..Default::default() }),
            "malformed selectors filter: empty selector set"
        );
    }
}
