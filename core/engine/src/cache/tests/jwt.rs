//! JWT-SVIDs: one token for many callers, and none that is not theirs.

use super::*;

#[test]
fn a_thousand_callers_cause_one_token() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    for request in 0..1000 {
        rig.want_jwt(request, &["u:1"], if request % 2 == 0 { &["x", "y"] } else { &["y", "x"] });
    }
    assert_eq!(rig.mints.len(), 1);
    rig.mint_all("t");
    assert_eq!(rig.answers.len(), 1000);
    rig.want_jwt(1001, &["u:1"], &["x", "y"]);
    assert!(rig.mints.is_empty() && rig.token(1001) == "t");
}

#[test]
fn a_token_nobody_asks_for_again_is_not_refreshed() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    rig.mint_all("t");
    rig.pass(Duration::from_secs(200));
    assert!(rig.mints.is_empty());
    rig.pass(Duration::from_secs(100));
    assert_eq!(rig.cache.counts().jwt_held, 0);
}

#[test]
fn a_token_in_demand_is_refreshed_ahead_once() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    rig.mint_all("t1");
    rig.want_jwt(2, &["u:1"], &["x"]);
    rig.pass(Duration::from_secs(170));
    assert_eq!(rig.mints.len(), 1);
    rig.mint_all("t2");
    rig.want_jwt(3, &["u:1"], &["x"]);
    assert_eq!(rig.token(3), "t2");
}

#[test]
fn an_older_token_stands_in_when_no_fresh_one_can_be_had() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    rig.mint_all("t1");
    rig.pass(Duration::from_secs(200));
    rig.want_jwt(2, &["u:1"], &["x"]);
    assert!(!rig.answers.contains_key(&2));
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.token(2), "t1");
    rig.pass(Duration::from_secs(100));
    rig.want_jwt(3, &["u:1"], &["x"]);
    for (ticket, ..) in std::mem::take(&mut rig.mints) {
        rig.put(Input::JwtFailed { ticket, failure: SignFailure::Away("gone".into()) });
    }
    assert_eq!(rig.answers[&3], Err(JwtRefusal::Unavailable("gone".into())), "never an expired one");
}

#[test]
fn a_token_with_its_own_number_is_never_shared() {
    let mut rig = Rig::new();
    let mut parts = entry_parts("a", "/a", "/n", &["u:1"]);
    parts.jwt_svid_include_jti = true;
    rig.upsert(vec![Entry::new(parts).unwrap()]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    rig.want_jwt(2, &["u:1"], &["x"]);
    assert_eq!(rig.mints.len(), 2);
    rig.mint_all("t");
    assert_eq!(rig.cache.counts().jwt_held, 0);
}

#[test]
fn a_caller_that_no_longer_matches_gets_no_token() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    rig.upsert(vec![entry("a", "/a", "/n", &["u:2"])]);
    assert_eq!(rig.answers[&1], Err(JwtRefusal::NoIdentity));
    rig.mint_all("t");
    assert_eq!(rig.answers.len(), 1);
}

#[test]
fn tokens_of_a_tainted_key_are_not_handed_out_again() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    rig.mint_all("t");
    let mut own = Bundle::empty(domain());
    own.jwt_authorities.push(JwtAuthority {
        key_id: "k1".into(),
        public_key: Arc::new([]),
        expires_at: None,
        tainted: true,
    });
    rig.put(Input::Bundles { upserts: vec![Arc::new(own)], removed: vec![] });
    assert_eq!(rig.cache.counts().tally.tainted_jwt, 1);
    rig.want_jwt(2, &["u:1"], &["x"]);
    assert!(!rig.answers.contains_key(&2));
}

#[test]
fn a_token_of_a_tainted_key_does_not_stand_in_for_a_fresh_one() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    rig.mint_all("t");
    rig.pass(Duration::from_secs(200));
    rig.want_jwt(2, &["u:1"], &["x"]);
    let mut own = Bundle::empty(domain());
    let (key_id, public_key) = ("k1".into(), Arc::new([]));
    own.jwt_authorities.push(JwtAuthority { key_id, public_key, expires_at: None, tainted: true });
    rig.put(Input::Bundles { upserts: vec![Arc::new(own)], removed: vec![] });
    rig.pass(Duration::from_secs(6));
    assert!(!rig.answers.contains_key(&2), "it waits for a token of a good key");
}

#[test]
fn a_token_that_ends_while_another_is_waited_for_is_not_handed_out() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"]), entry("b", "/b", "/n", &["u:1"])]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    let [(first, _, id, _), (second, ..)] = std::mem::take(&mut rig.mints).try_into().unwrap();
    let short = jwt(&id, rig.now.wall, 20, "short");
    rig.put(Input::JwtSigned { ticket: first, svid: short, key_id: "k1".into() });
    rig.pass(Duration::from_secs(30));
    rig.put(Input::JwtFailed { ticket: second, failure: SignFailure::Away("gone".into()) });
    assert!(matches!(rig.answers[&1], Err(JwtRefusal::Unavailable(_))));
}

#[test]
fn no_token_is_handed_out_from_the_second_its_entry_ends() {
    let mut rig = Rig::new();
    let mut parts = entry_parts("a", "/a", "/n", &["u:1"]);
    parts.expires_at = Some(rig.now.wall + Duration::from_secs(10));
    rig.upsert(vec![Entry::new(parts).unwrap()]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    rig.now = Now { wall: rig.now.wall + Duration::from_secs(10), ..rig.now };
    rig.mint_all("t");
    assert_eq!(rig.answers[&1], Err(JwtRefusal::NoIdentity));
}

#[test]
fn entries_that_go_together_give_no_token_on_the_way() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"]), entry("b", "/b", "/n", &["u:1"])]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    let (ticket, _, id, _) = rig.mints.pop().unwrap();
    let svid = jwt(&id, rig.now.wall, 300, "t");
    rig.put(Input::JwtSigned { ticket, svid, key_id: "k1".into() });
    rig.put(Input::Entries { upserts: vec![], removed: vec![entry_id("a"), entry_id("b")] });
    assert_eq!(rig.answers[&1], Err(JwtRefusal::NoIdentity));
}

#[test]
fn a_caller_that_went_away_leaves_nothing_behind() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"]), entry("b", "/b", "/n", &["u:1"])]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    rig.put(Input::JwtAbandoned { request: 1 });
    assert_eq!(rig.unneeded.len(), 2, "one token of each entry");
    rig.remove("a");
    rig.mint_all("t");
    assert!(rig.answers.is_empty());
    assert!(rig.cache.jwts.is_idle());
}

#[test]
fn the_least_recently_used_token_goes_first() {
    let mut rig = Rig::sized(10, 2);
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    for (n, audience) in ["x", "y"].iter().enumerate() {
        rig.want_jwt(n as u64, &["u:1"], &[audience]);
        rig.mint_all(audience);
    }
    rig.want_jwt(10, &["u:1"], &["x"]);
    rig.want_jwt(11, &["u:1"], &["z"]);
    rig.mint_all("z");
    rig.want_jwt(12, &["u:1"], &["x"]);
    assert_eq!((rig.token(12).as_str(), rig.cache.counts().jwt_held), ("x", 2));
    rig.want_jwt(13, &["u:1"], &["y"]);
    assert!(!rig.answers.contains_key(&13));
}

#[test]
fn only_the_last_caller_to_leave_makes_a_token_unneeded() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    rig.want_jwt(2, &["u:1"], &["x"]);
    rig.put(Input::JwtAbandoned { request: 1 });
    assert!(rig.unneeded.is_empty());
    rig.put(Input::JwtAbandoned { request: 2 });
    assert_eq!(rig.unneeded, [rig.mints[0].0]);
}

#[test]
fn a_token_that_was_not_begun_for_want_of_callers_is_begun_for_the_next_one() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    rig.put(Input::JwtAbandoned { request: 1 });
    let (ticket, ..) = rig.mints.pop().unwrap();
    rig.put(Input::JwtFailed { ticket, failure: SignFailure::Away("nobody waits".into()) });
    rig.pass(Duration::from_secs(3600));
    assert!(rig.mints.is_empty() && rig.cache.jwts.is_idle(), "nobody wants it, nobody tries it");
    rig.want_jwt(2, &["u:1"], &["x"]);
    rig.mint_all("t");
    assert_eq!(rig.token(2), "t");
}
