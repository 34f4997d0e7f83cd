//! JWT-SVIDs: one token for many callers, and none that is not theirs.

use proptest::prelude::*;

use super::model::{Act, Model, act, mask_set, play};
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

#[test]
fn an_answer_is_lent_when_all_of_it_was_there_already_and_until_the_first_of_it_is_renewed() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    rig.mint_all("t");
    assert!(rig.lent.is_empty(), "it was waited for");
    rig.want_jwt(2, &["u:1"], &["x"]);
    let until = rig.lent[&2];
    rig.now.wall = until;
    rig.want_jwt(3, &["u:1"], &["x"]);
    assert!(!rig.answers.contains_key(&3) && !rig.lent.contains_key(&3), "a fresh one is waited for");
    rig.want_jwt(4, &["u:2"], &["x"]);
    assert_eq!(rig.answers[&4], Err(JwtRefusal::NoIdentity));
    assert!(!rig.lent.contains_key(&4), "a refusal is never lent");
}

#[test]
fn an_answer_is_lent_no_longer_than_its_entry_lives() {
    let mut rig = Rig::new();
    let mut parts = entry_parts("a", "/a", "/n", &["u:1"]);
    let ends = rig.now.wall + Duration::from_secs(20);
    parts.expires_at = Some(ends);
    rig.upsert(vec![Entry::new(parts).unwrap()]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    rig.mint_all("t");
    rig.want_jwt(2, &["u:1"], &["x"]);
    assert_eq!(rig.lent[&2], ends);
}

#[test]
fn whose_tokens_rest_on_supplementary_groups_is_said_with_them() {
    let mut rig = Rig::new();
    let of_group = ["unix:uid:1", "unix:supplementary_gid:7"];
    rig.upsert(vec![entry("a", "/a", "/n", &["unix:uid:1"]), entry("b", "/b", "/n", &of_group)]);
    rig.want_jwt(1, &of_group, &["x"]);
    rig.mint_all("t");
    let rests: Vec<_> = rig.answers[&1].as_ref().unwrap().iter().map(|grant| grant.rests_on_groups).collect();
    assert_eq!(rests, [false, true]);
    rig.subscribe(&of_group);
    assert!(rig.update(&of_group).rests_on_groups);
    rig.upsert(vec![entry("b", "/b", "/n", &["unix:uid:1"])]);
    assert!(!rig.update(&of_group).rests_on_groups);
}

#[derive(Clone, Debug)]
enum Turn {
    Other(Act),
    Ask(u8),
    Mint,
    Taint(bool),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        3 => act().prop_map(Turn::Other),
        4 => (1..16u8).prop_map(Turn::Ask),
        3 => Just(Turn::Mint),
        1 => any::<bool>().prop_map(Turn::Taint),
    ]
}

/// The own bundle, whose only key may be tainted.
fn own_bundle(tainted: bool) -> Input {
    let mut own = Bundle::empty(domain());
    let (key_id, public_key) = ("k1".into(), Arc::new([]));
    own.jwt_authorities.push(JwtAuthority { key_id, public_key, expires_at: None, tainted });
    Input::Bundles { upserts: vec![Arc::new(own)], removed: vec![] }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_lent_answer_is_the_one_that_the_question_would_have_now(
        turns in proptest::collection::vec(turn(), 1..60),
    ) {
        let (mut rig, mut model, mut asked) = (Rig::new(), Model::default(), Vec::new());
        let mut ask = |rig: &mut Rig, mask: u8| {
            asked.push(mask);
            let (request, selectors) = (asked.len() as u64, mask_set(mask));
            rig.put(Input::JwtWanted { request, selectors, audience: vec!["x".into()], id: None });
            request
        };
        let mut lent = BTreeMap::new();
        for turn in turns {
            match turn {
                Turn::Other(act) => play(&mut rig, &mut model, act),
                Turn::Ask(mask) => {
                    let request = ask(&mut rig, mask);
                    lent.insert(request, mask);
                }
                Turn::Mint => rig.mint_all("t"),
                Turn::Taint(tainted) => rig.put(own_bundle(tainted)),
            }
            let wall = rig.now.wall;
            for (request, mask) in &lent {
                if rig.lent.get(request).is_some_and(|until| *until > wall) {
                    let again = ask(&mut rig, *mask);
                    prop_assert_eq!(rig.answers.get(&again), rig.answers.get(request));
                }
            }
        }
    }
}
