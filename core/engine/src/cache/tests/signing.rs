//! Signatures: who waits for them, what happens when they fail, and when they are renewed.

use super::*;

#[test]
fn one_bad_entry_never_delays_another() {
    let mut rig = Rig::new();
    rig.subscribe(&["u:1"]);
    rig.upsert(vec![entry("bad", "/bad", "/n", &["u:1"]), entry("good", "/good", "/n", &["u:1"])]);
    let (bad, good): (Vec<_>, Vec<_>) =
        std::mem::take(&mut rig.signs).into_iter().partition(|s| s.1 == entry_id("bad"));
    rig.signs = bad;
    rig.fail(&SignFailure::Refused("no".into()));
    rig.signs = good;
    rig.sign_all();
    assert_eq!(rig.held_by(&["u:1"]), ["good"]);
    assert_eq!(rig.update(&["u:1"]).waiting, 0, "the bad one is not waited for");
    assert_eq!(rig.cache.entry_error(&entry_id("bad")).as_deref(), Some("no"));
    assert!(rig.signs.is_empty(), "it waits before it tries again");
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.signs.len(), 1);
}

#[test]
fn an_update_says_whether_svids_are_on_their_way() {
    let mut rig = Rig::new();
    rig.subscribe(&["u:1"]);
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"]), entry("b", "/b", "/n", &["u:1"])]);
    assert_eq!(rig.update(&["u:1"]).waiting, 2);
    let b = rig.signs.pop().unwrap();
    rig.sign_all();
    assert_eq!((rig.update(&["u:1"]).waiting, rig.held_by(&["u:1"]).len()), (1, 1));
    rig.signs.push(b);
    rig.fail(&SignFailure::Away("gone".into()));
    assert_eq!((rig.update(&["u:1"]).waiting, rig.held_by(&["u:1"]).len()), (0, 1));
}

#[test]
fn a_failing_entry_is_tried_less_and_less_often() {
    let mut rig = Rig::new();
    rig.subscribe(&["u:1"]);
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    let mut tries = 0;
    for _ in 0..3600 {
        tries += rig.signs.len();
        rig.fail(&SignFailure::Refused("no".into()));
        rig.pass(Duration::from_secs(1));
    }
    assert!((30..80).contains(&tries), "{tries} tries in an hour");
}

#[test]
fn what_failed_while_the_server_was_away_is_tried_when_it_is_back() {
    let mut rig = Rig::new();
    rig.subscribe(&["u:1"]);
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.fail(&SignFailure::Away("gone".into()));
    rig.put(Input::UpstreamBack);
    rig.sign_all();
    assert_eq!(rig.held_by(&["u:1"]), ["a"]);
}

#[test]
fn an_svid_is_renewed_near_half_life_and_used_until_then() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.subscribe(&["u:1"]);
    rig.sign_all();
    rig.pass(Duration::from_secs(1600));
    assert!(rig.signs.is_empty());
    rig.pass(Duration::from_secs(400));
    assert_eq!(rig.signs[0].3, Priority::Renewal);
    assert_eq!(rig.held_by(&["u:1"]), ["a"]);
    let before = rig.deliveries;
    rig.sign_all();
    assert_eq!(rig.deliveries, before + 1);
}

#[test]
fn an_expired_svid_is_taken_back_even_if_no_other_comes() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.subscribe(&["u:1"]);
    rig.sign_all();
    rig.pass(Duration::from_secs(HOUR as u64));
    assert_eq!((rig.update(&["u:1"]).matched, rig.held_by(&["u:1"]).len()), (1, 0));
}

#[test]
fn a_signature_asked_for_ahead_is_hurried_when_somebody_waits() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    assert_eq!(rig.signs[0].3, Priority::Ahead);
    rig.subscribe(&["u:1"]);
    assert_eq!(rig.hurried, [rig.signs[0].0]);
}

#[test]
fn svids_of_a_distrusted_authority_are_replaced_before_they_are_dropped() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.subscribe(&["u:1"]);
    rig.sign_all();
    rig.put(Input::Distrusted { authorities: ["aa".into()].into(), pace: Pace::Among(None) });
    rig.pass(Pace::Among(None).spread(1));
    assert_eq!((rig.signs.len(), rig.held_by(&["u:1"]).len()), (1, 1));
}

#[test]
fn the_tally_tells_renewals_by_age_from_those_by_change_and_counts_what_is_tainted() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.subscribe(&["u:1"]);
    rig.sign_all();
    assert_eq!(rig.cache.counts().tally, Tally::default(), "the first signature is no renewal");
    let mut parts = entry_parts("a", "/a", "/n", &["u:1"]);
    parts.revision_number = 1;
    rig.upsert(vec![Entry::new(parts).unwrap()]);
    rig.sign_all();
    let outdated = Tally { outdated: 1, ..Tally::default() };
    assert_eq!(rig.cache.counts().tally, outdated);
    rig.put(Input::Distrusted { authorities: ["aa".into()].into(), pace: Pace::AtOnce });
    assert_eq!(rig.cache.counts().tally, Tally { expiring: 1, tainted_x509: 1, ..outdated });
}
