//! What holds for any text and any set, beside the single rules of each noun.
//!
//! Never shares code with what it tests: the second reader of SPIFFE IDs is written from the standard alone.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use crate::entry::check_dns_name;
use crate::selector::{Selector, SelectorSet};
use crate::spiffe_id::SpiffeId;
use crate::time::{Tick, Timestamp};
use crate::trust_domain::TrustDomain;

/// ID-01 to ID-18 as one reader that knows nothing of the other.
fn is_spiffe_id(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("spiffe://") else { return false };
    let (name, path) = rest.find('/').map_or((rest, None), |at| (&rest[..at], Some(&rest[at + 1..])));
    let of = |text: &str, also: &dyn Fn(char) -> bool| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || "._-".contains(c) || also(c))
    };
    let segment = |s: &str| s != "." && s != ".." && of(s, &|c| c.is_ascii_alphabetic());
    text.len() <= 2048
        && name.len() <= 255
        && of(name, &|c| c.is_ascii_lowercase())
        && path.is_none_or(|path| path.split('/').all(segment))
}

/// Texts that are nearly SPIFFE IDs: made of the pieces that matter.
fn nearly() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-z0-9._-]{1,6}",
        4 => Just("/".to_owned()),
        1 => "[A-Z]{1,2}",
        1 => prop::sample::select(vec![".", "..", "//", "%2F", "%41", "@", ":", "?", "#", "é", " ", "\0", "\\"])
            .prop_map(str::to_owned),
        1 => (1..300usize).prop_map(|n| "a".repeat(n)),
        1 => (1900..2060usize).prop_map(|n| format!("/{}", "b".repeat(n))),
    ];
    let scheme = prop_oneof![
        9 => Just("spiffe://".to_owned()),
        1 => prop::sample::select(vec!["", "SPIFFE://", "spiffe:/", "spiffe:///", "http://"]).prop_map(str::to_owned),
    ];
    (scheme, prop::collection::vec(piece, 0..8)).prop_map(|(scheme, pieces)| scheme + &pieces.concat())
}

fn selector() -> impl Strategy<Value = Selector> {
    (0..3u8, 0..4u8)
        .prop_map(|(kind, value)| Selector::new(&format!("k{kind}"), &format!("v:{value}")).unwrap())
}

fn set() -> impl Strategy<Value = Vec<Selector>> {
    prop::collection::vec(selector(), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_readers_agree_on_what_is_a_spiffe_id(text in nearly()) {
        prop_assert_eq!(SpiffeId::parse(&text).is_ok(), is_spiffe_id(&text), "{:?}", text);
    }

    #[test]
    fn an_id_that_is_read_is_written_as_it_was_and_splits_into_its_parts(text in nearly()) {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.as_str(), &text);
            prop_assert_eq!(SpiffeId::new(id.trust_domain(), id.path()), Ok(id.clone()));
            prop_assert_eq!(TrustDomain::new(id.trust_domain().as_str()), Ok(id.trust_domain().clone()));
            prop_assert_eq!(id.is_agent() && id.is_server(), false);
            prop_assert!(id.is_reserved() || !(id.is_agent() || id.is_server()));
        }
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in any::<String>()) {
        let _ = (SpiffeId::parse(&text), TrustDomain::from_name_or_id(&text), check_dns_name(&text));
        if let Ok(selector) = text.parse::<Selector>() {
            prop_assert_eq!(selector.as_str(), &text);
            prop_assert_eq!(Selector::new(selector.kind(), selector.value()), Ok(selector.clone()));
        }
    }

    #[test]
    fn a_selector_set_obeys_the_laws_of_sets(a in set(), b in set()) {
        let (one, two) = (SelectorSet::new(a.clone()).unwrap(), SelectorSet::new(b.clone()).unwrap());
        let (plain_one, plain_two): (BTreeSet<_>, BTreeSet<_>) = (a.iter().collect(), b.iter().collect());
        prop_assert_eq!(one.is_subset_of(&two), plain_one.is_subset(&plain_two));
        prop_assert_eq!(one == two, plain_one == plain_two);
        prop_assert!(one.iter().eq(plain_one.iter().copied()));
        prop_assert!(b.iter().all(|s| one.contains(s) == plain_one.contains(s)));
    }

    #[test]
    fn time_never_wraps(at in any::<i64>(), tick in any::<u64>(), secs in any::<u64>()) {
        let (at, span) = (Timestamp(at), Duration::from_secs(secs));
        prop_assert!(at + span >= at && at - span <= at);
        prop_assert!(Tick(tick) + span >= Tick(tick));
        prop_assert!(at.since(at + span).is_zero());
        prop_assert!(Timestamp::from_secs(at.0).0.signum() == at.0.signum());
    }
}
