//! What one life of the cache leaves to the next.

use proptest::prelude::*;

use super::model::{Model, act, play};
use super::*;

impl Rig {
    /// A later life, at the same moment, told what this one left and nothing else.
    fn reborn(&self) -> Self {
        let mut rig = Self::sized(self.cache.settings.x509_max, self.cache.settings.jwt_max);
        rig.cache = Cache::new(self.cache.settings.clone());
        rig.now = self.now;
        (rig.delivered, rig.deliveries) = (BTreeMap::new(), 0);
        rig.put(Input::Restore(Box::new(self.cache.snapshot())));
        rig
    }
}

#[test]
fn a_later_life_serves_at_once_what_the_one_before_had() {
    let mut rig = Rig::new();
    let mut parts = entry_parts("a", "/a", "/n", &["u:1"]);
    parts.federates_with = vec![TrustDomain::new("other.test").unwrap()];
    rig.upsert(vec![Entry::new(parts).unwrap()]);
    rig.put(Input::Bundles { upserts: vec![foreign("other.test", 4)], removed: vec![] });
    rig.sign_all();
    rig.subscribe(&["u:1", "u:2"]);
    let mut reborn = rig.reborn();
    reborn.subscribe(&["u:1", "u:2"]);
    assert_eq!(reborn.delivered, rig.delivered);
    assert_eq!(reborn.delivered[&set(&["u:1", "u:2"])].identities.len(), 1);
    assert!(reborn.signs.is_empty(), "nothing is due");
}

#[test]
fn a_later_life_gives_an_identity_only_to_those_who_hold_its_selectors() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1", "u:2"])]);
    rig.sign_all();
    let mut reborn = rig.reborn();
    reborn.subscribe(&["u:1"]);
    assert_eq!(reborn.delivered[&set(&["u:1"])].matched, 0, "and says so, as after a sync");
}

#[test]
fn a_later_life_takes_up_nothing_that_has_ended() {
    let mut rig = Rig::new();
    let mut ends = entry_parts("b", "/b", "/n", &["u:1"]);
    ends.expires_at = Some(rig.now.wall + Duration::from_secs(60));
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"]), Entry::new(ends).unwrap()]);
    rig.sign_all();
    rig.want_jwt(1, &["u:1"], &["x"]);
    rig.mint_all("t");
    let left = rig.cache.snapshot();
    let mut late = Rig::new();
    late.now = Now { wall: rig.now.wall + Duration::from_secs(HOUR as u64), ..rig.now };
    late.put(Input::Restore(Box::new(left)));
    late.subscribe(&["u:1"]);
    let update = &late.delivered[&set(&["u:1"])];
    assert_eq!((update.matched, update.identities.len()), (1, 0));
    assert_eq!((late.cache.counts().x509_held, late.cache.counts().jwt_held), (0, 0));
}

#[test]
fn a_later_life_renews_when_the_one_before_would_have() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.sign_all();
    let mut reborn = rig.reborn();
    assert_eq!(reborn.cache.next_wakeup(), rig.cache.next_wakeup());
    for rig in [&mut rig, &mut reborn] {
        rig.pass(Duration::from_secs(HOUR as u64 * 2 / 3));
    }
    assert_eq!(reborn.signs.len(), 1);
    assert_eq!(reborn.signs[0].3, rig.signs[0].3);
}

#[test]
fn a_later_life_hands_out_the_tokens_of_the_one_before() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.want_jwt(1, &["u:1"], &["y", "x"]);
    rig.mint_all("t");
    let mut reborn = rig.reborn();
    reborn.want_jwt(1, &["u:1"], &["x", "y"]);
    assert_eq!(reborn.token(1), "t");
    assert!(reborn.mints.is_empty());
}

#[test]
fn a_token_of_a_key_that_is_tainted_is_not_taken_up() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.want_jwt(1, &["u:1"], &["x"]);
    rig.mint_all("t");
    let mut left = rig.cache.snapshot();
    let mut own = Bundle::empty(domain());
    let (key_id, public_key) = (left.jwt[0].key_id.clone(), Arc::new([]));
    own.jwt_authorities.push(JwtAuthority { key_id, public_key, expires_at: None, tainted: true });
    left.bundles = vec![Arc::new(own)];
    let mut late = Rig::new();
    late.put(Input::Restore(Box::new(left)));
    assert_eq!(late.cache.counts().jwt_held, 0);
}

#[test]
fn an_svid_whose_authority_is_not_relied_on_is_still_to_be_replaced() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.sign_all();
    let authorities: BTreeSet<AuthorityId> = ["aa".into()].into();
    rig.put(Input::Distrusted { authorities: authorities.clone(), pace: Pace::Among(None) });
    let mut reborn = rig.reborn();
    assert_eq!(reborn.cache.snapshot().distrusted, authorities);
    reborn.pass(Duration::from_secs(31));
    assert_eq!(reborn.signs.len(), 1);
}

#[test]
fn nothing_is_thrown_away_before_the_server_can_give_it_again() {
    let mut rig = Rig::sized(1, 1);
    rig.subscribe(&["u:1"]);
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"]), entry("b", "/b", "/n", &["u:1"])]);
    rig.sign_all();
    let mut reborn = rig.reborn();
    assert_eq!(reborn.cache.counts().x509_held, 2);
    reborn.put(Input::UpstreamBack);
    assert_eq!(reborn.cache.counts().x509_held, 2, "a server that answers has not said all yet");
    reborn.put(Input::Synced);
    assert_eq!(reborn.cache.counts().x509_held, 1, "nobody has asked for them since");
}

#[test]
fn a_later_life_tells_no_signature_before_the_servers_bundle() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"]), entry("b", "/b", "/n", &["u:1"])]);
    rig.subscribe(&["u:1"]);
    let (ticket, entry, id, _) = rig.signs.remove(0);
    let svid = svid(&id, rig.now.wall, HOUR as u64);
    rig.put(Input::Signed { ticket, entry, svid, authorities: vec!["aa".into()] });
    let mut reborn = rig.reborn();
    reborn.subscribe(&["u:1"]);
    reborn.want_jwt(1, &["u:1"], &["x"]);
    reborn.sign_all();
    reborn.mint_all("t");
    assert_eq!(reborn.delivered[&set(&["u:1"])].identities.len(), 1, "what the earlier life had");
    assert!(!reborn.answers.contains_key(&1));
    reborn.put(Input::Synced);
    assert_eq!(reborn.delivered[&set(&["u:1"])].identities.len(), 2);
    assert_eq!(reborn.token(1), "t");
}

#[test]
fn nobody_waits_long_for_the_bundle_of_a_server_that_signs() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    let mut reborn = rig.reborn();
    reborn.subscribe(&["u:1"]);
    reborn.want_jwt(1, &["u:1"], &["x"]);
    reborn.sign_all();
    reborn.mint_all("t");
    assert_eq!(reborn.update(&["u:1"]).waiting, 1);
    let wake = reborn.cache.next_wakeup().unwrap();
    reborn.pass(wake.since(reborn.now.wall));
    assert_eq!(reborn.update(&["u:1"]).waiting, 0);
    assert!(matches!(reborn.answers[&1], Err(JwtRefusal::Unavailable(_))));
    reborn.put(Input::Synced);
    assert_eq!(reborn.signs.len(), 1, "and it is asked for again");
}

#[test]
fn a_caller_of_a_later_life_is_told_at_once_that_the_server_is_away() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    let mut reborn = rig.reborn();
    reborn.want_jwt(1, &["u:1"], &["x"]);
    let ticket = reborn.mints[0].0;
    reborn.put(Input::JwtFailed { ticket, failure: SignFailure::Away("gone".into()) });
    assert!(matches!(reborn.answers[&1], Err(JwtRefusal::Unavailable(_))));
}

#[test]
fn an_identity_that_its_entry_does_not_grant_is_not_taken_up() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.sign_all();
    let mut left = rig.cache.snapshot();
    left.entries = vec![entry("a", "/other", "/n", &["u:1"])];
    let mut late = Rig::new();
    late.put(Input::Restore(Box::new(left)));
    late.subscribe(&["u:1"]);
    assert_eq!(late.delivered[&set(&["u:1"])].identities, []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn after_any_sequence_of_changes_a_later_life_serves_the_same(
        acts in proptest::collection::vec(act(), 1..60),
        size in 0..5usize,
    ) {
        let (mut rig, mut model) = (Rig::sized(size, 3), Model::default());
        for act in acts {
            play(&mut rig, &mut model, act);
        }
        let mut reborn = rig.reborn();
        for ((selectors, x509), _) in model.wants.iter().filter(|(_, count)| **count > 0) {
            let want = if *x509 { Want::X509 } else { Want::Bundles };
            reborn.put(Input::Subscribe { selectors: selectors.clone(), want });
        }
        prop_assert_eq!(reborn.delivered.len(), rig.delivered.len());
        for (selectors, update) in &rig.delivered {
            let same = &reborn.delivered[selectors];
            prop_assert_eq!((&same.identities, &same.own), (&update.identities, &update.own));
            prop_assert_eq!(same.matched > 0, update.matched > 0);
        }
        let held = reborn.cache.slots.values().filter(|s| s.held.is_some()).count();
        prop_assert_eq!((reborn.cache.held, reborn.cache.snapshot().entries), (held, rig.cache.snapshot().entries));
    }
}
