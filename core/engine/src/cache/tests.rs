//! Rules of the cache, one per test, and a model of it under any sequence of changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::fixtures::{domain, entry, entry_parts, id, set};
use avouch_domain::{
    Bundle, Entry, EntryId, JwtAuthority, JwtSvid, Now, SelectorSet, SpiffeId, Tick, Timestamp, TrustDomain,
    X509Svid,
};
use proptest::prelude::*;
use zeroize::Zeroizing;

mod kept;

use super::*;
use crate::Machine;
use crate::invariants::{inv1_delivered_is_entitled, inv2_nothing_expired};

const HOUR: i64 = 3600;

struct Rig {
    cache: Cache,
    now: Now,
    delivered: BTreeMap<SelectorSet, Arc<WorkloadUpdate>>,
    deliveries: usize,
    signs: Vec<(Ticket, EntryId, SpiffeId, Priority)>,
    hurried: Vec<Ticket>,
    mints: Vec<(Ticket, EntryId, SpiffeId, Vec<String>)>,
    answers: BTreeMap<RequestId, Result<Vec<JwtGrant>, JwtRefusal>>,
}

fn entry_id(text: &str) -> EntryId {
    EntryId::new(text).unwrap()
}

fn svid(id: &SpiffeId, from: Timestamp, secs: u64) -> Arc<X509Svid> {
    Arc::new(X509Svid {
        id: id.clone(),
        chain: Arc::new([]),
        key: Arc::new(Zeroizing::new(Vec::new())),
        not_before: from,
        not_after: from + Duration::from_secs(secs),
    })
}

fn jwt(id: &SpiffeId, from: Timestamp, secs: u64, text: &str) -> JwtSvid {
    JwtSvid {
        id: id.clone(),
        token: Arc::new(Zeroizing::new(text.into())),
        issued_at: from,
        expires_at: from + Duration::from_secs(secs),
    }
}

fn foreign(name: &str, sequence: u64) -> Arc<Bundle> {
    let mut bundle = Bundle::empty(TrustDomain::new(name).unwrap());
    bundle.sequence_number = sequence;
    Arc::new(bundle)
}

impl Rig {
    fn sized(x509_max: usize, jwt_max: usize) -> Self {
        let settings =
            Settings { trust_domain: domain(), x509_max, jwt_max, availability_target: None, seed: 11 };
        let mut rig = Self {
            cache: Cache::new(settings),
            now: Now { wall: Timestamp::from_secs(1_000_000), mono: Tick(0) },
            delivered: BTreeMap::new(),
            deliveries: 0,
            signs: Vec::new(),
            hurried: Vec::new(),
            mints: Vec::new(),
            answers: BTreeMap::new(),
        };
        rig.put(Input::Bundles { upserts: vec![Arc::new(Bundle::empty(domain()))], removed: vec![] });
        rig.put(Input::Synced);
        rig
    }

    fn new() -> Self {
        Self::sized(100, 100)
    }

    fn put(&mut self, input: Input) {
        self.cache.handle(self.now, input);
        while let Some(effect) = self.cache.poll() {
            match effect {
                Effect::Sign { ticket, entry, id, priority } => {
                    self.signs.push((ticket, entry, id, priority))
                }
                Effect::Hurry { ticket } => self.hurried.push(ticket),
                Effect::MintJwt { ticket, entry, id, audience } => {
                    self.mints.push((ticket, entry, id, audience));
                }
                Effect::Deliver { selectors, update } => {
                    for identity in &update.identities {
                        assert!(identity.svid.not_after > self.now.wall, "INV-2");
                    }
                    self.deliveries += 1;
                    self.delivered.insert(selectors, update);
                }
                Effect::Drop { selectors } => {
                    self.delivered.remove(&selectors);
                }
                Effect::AnswerJwt { request, answer } => {
                    assert!(self.answers.insert(request, answer).is_none(), "answered once");
                }
            }
        }
    }

    fn pass(&mut self, d: Duration) {
        self.now = Now { wall: self.now.wall + d, mono: self.now.mono + d };
        self.put(Input::Tick);
    }

    fn upsert(&mut self, entries: Vec<Entry>) {
        self.put(Input::Entries { upserts: entries, removed: vec![] });
    }

    fn remove(&mut self, entry: &str) {
        self.put(Input::Entries { upserts: vec![], removed: vec![entry_id(entry)] });
    }

    fn subscribe(&mut self, list: &[&str]) {
        self.put(Input::Subscribe { selectors: set(list), want: Want::X509 });
    }

    /// Signs all that is asked for, until nothing is.
    fn sign_all(&mut self) {
        while let Some((ticket, entry, id, _)) = self.signs.pop() {
            let svid = svid(&id, self.now.wall, HOUR as u64);
            self.put(Input::Signed { ticket, entry, svid, authorities: vec!["aa".into()] });
        }
    }

    fn fail(&mut self, failure: &SignFailure) {
        for (ticket, entry, ..) in std::mem::take(&mut self.signs) {
            self.put(Input::SignFailed { ticket, entry, failure: failure.clone() });
        }
    }

    fn update(&self, list: &[&str]) -> &WorkloadUpdate {
        &self.delivered[&set(list)]
    }

    fn held_by(&self, list: &[&str]) -> Vec<String> {
        self.update(list).identities.iter().map(|i| i.entry_id.to_string()).collect()
    }

    fn want_jwt(&mut self, request: RequestId, list: &[&str], audience: &[&str]) {
        let audience = audience.iter().map(|s| (*s).to_owned()).collect();
        self.put(Input::JwtWanted { request, selectors: set(list), audience, id: None });
    }

    fn mint_all(&mut self, text: &str) {
        for (ticket, _, id, _) in std::mem::take(&mut self.mints) {
            let svid = jwt(&id, self.now.wall, 300, text);
            self.put(Input::JwtSigned { ticket, svid, key_id: "k1".into() });
        }
    }

    fn token(&self, request: RequestId) -> String {
        self.answers[&request].as_ref().unwrap()[0].svid.token.to_string()
    }
}

#[test]
fn a_subscriber_gets_its_svid_as_soon_as_it_is_signed() {
    let mut rig = Rig::new();
    rig.subscribe(&["u:1", "g:1"]);
    assert_eq!(rig.update(&["u:1", "g:1"]).matched, 0);
    rig.upsert(vec![entry("b", "/b", "/n", &["u:1"]), entry("a", "/a", "/n", &["u:1", "g:1"])]);
    assert_eq!((rig.update(&["u:1", "g:1"]).matched, rig.held_by(&["u:1", "g:1"]).len()), (2, 0));
    assert!(rig.signs.iter().all(|s| s.3 == Priority::Now));
    rig.sign_all();
    assert_eq!(rig.held_by(&["u:1", "g:1"]), ["a", "b"]);
}

#[test]
fn nothing_is_delivered_before_the_first_sync() {
    let mut cache = Cache::new(Settings {
        trust_domain: domain(),
        x509_max: 1,
        jwt_max: 1,
        availability_target: None,
        seed: 1,
    });
    cache.handle(Now::default(), Input::Subscribe { selectors: set(&["u:1"]), want: Want::X509 });
    assert_eq!(cache.poll(), None);
    cache.handle(Now::default(), Input::Synced);
    assert_eq!(cache.poll(), None, "the own bundle is missing still");
    let own = Arc::new(Bundle::empty(domain()));
    cache.handle(Now::default(), Input::Bundles { upserts: vec![own], removed: vec![] });
    assert!(matches!(cache.poll(), Some(Effect::Deliver { .. })));
}

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
fn an_entry_ends_at_its_second() {
    let mut rig = Rig::new();
    rig.subscribe(&["u:1"]);
    let mut parts = entry_parts("a", "/a", "/n", &["u:1"]);
    let end = rig.now.wall + Duration::from_secs(60);
    parts.expires_at = Some(end);
    rig.upsert(vec![Entry::new(parts).unwrap()]);
    rig.sign_all();
    assert_eq!(rig.cache.next_wakeup(), Some(end));
    rig.pass(Duration::from_secs(60));
    assert_eq!(rig.update(&["u:1"]).matched, 0);
}

#[test]
fn a_removed_entry_is_withdrawn_at_once() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"]), entry("b", "/b", "/n", &["u:1"])]);
    rig.subscribe(&["u:1"]);
    rig.sign_all();
    rig.remove("a");
    assert_eq!(rig.held_by(&["u:1"]), ["b"]);
    rig.remove("b");
    assert_eq!(rig.update(&["u:1"]).matched, 0);
}

#[test]
fn an_svid_of_a_former_name_is_never_delivered_again() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/old", "/n", &["u:1"])]);
    rig.subscribe(&["u:1"]);
    rig.sign_all();
    rig.upsert(vec![entry("a", "/new", "/n", &["u:1"])]);
    assert!(rig.held_by(&["u:1"]).is_empty());
    rig.sign_all();
    assert_eq!(rig.update(&["u:1"]).identities[0].svid.id, id("/new"));
}

#[test]
fn a_new_revision_keeps_the_old_svid_until_the_new_one_is_there() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.subscribe(&["u:1"]);
    rig.sign_all();
    let mut parts = entry_parts("a", "/a", "/n", &["u:1"]);
    parts.revision_number = 1;
    parts.hint = "x".into();
    rig.upsert(vec![Entry::new(parts).unwrap()]);
    assert_eq!(&*rig.update(&["u:1"]).identities[0].hint, "x", "the hint needs no signature");
    assert_eq!(rig.signs.len(), 1);
}

#[test]
fn who_wants_bundles_only_is_handed_no_svid_and_keeps_none() {
    let mut rig = Rig::sized(0, 1);
    rig.put(Input::Subscribe { selectors: set(&["u:1"]), want: Want::Bundles });
    rig.subscribe(&["u:1", "g:1"]);
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.sign_all();
    assert_eq!((rig.held_by(&["u:1", "g:1"]).len(), rig.held_by(&["u:1"]).len()), (1, 0));
    rig.subscribe(&["u:1"]);
    assert_eq!(rig.held_by(&["u:1"]), ["a"], "it is there for the first who wants it");
    rig.put(Input::Unsubscribe { selectors: set(&["u:1"]), want: Want::X509 });
    rig.put(Input::Unsubscribe { selectors: set(&["u:1", "g:1"]), want: Want::X509 });
    assert_eq!(rig.cache.counts().x509_held, 0, "evicted");
    assert_eq!((rig.update(&["u:1"]).matched, rig.held_by(&["u:1"]).len()), (1, 0));
}

#[test]
fn equal_selector_sets_share_one_answer_and_it_is_not_repeated() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.subscribe(&["u:1"]);
    rig.sign_all();
    let before = rig.deliveries;
    rig.subscribe(&["u:1"]);
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"]), entry("z", "/z", "/n", &["u:9"])]);
    rig.put(Input::Bundles { upserts: vec![Arc::new(Bundle::empty(domain()))], removed: vec![] });
    assert_eq!(rig.deliveries, before);
    assert!(Arc::ptr_eq(&rig.cache.current(&set(&["u:1"])).unwrap(), &rig.delivered[&set(&["u:1"])]));
}

#[test]
fn a_bundle_subscriber_never_causes_a_signature() {
    let mut rig = Rig::sized(0, 0);
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.put(Input::Subscribe { selectors: set(&["u:1"]), want: Want::Bundles });
    assert!(rig.signs.is_empty());
    assert_eq!(rig.update(&["u:1"]).matched, 1);
}

#[test]
fn a_federated_bundle_reaches_only_those_who_federate() {
    let mut rig = Rig::new();
    let mut parts = entry_parts("a", "/a", "/n", &["u:1"]);
    parts.federates_with = vec![TrustDomain::new("other.org").unwrap()];
    rig.upsert(vec![Entry::new(parts).unwrap(), entry("b", "/b", "/n", &["u:2"])]);
    rig.subscribe(&["u:1"]);
    rig.subscribe(&["u:2"]);
    rig.sign_all();
    let before = rig.deliveries;
    rig.put(Input::Bundles { upserts: vec![foreign("other.org", 1)], removed: vec![] });
    assert_eq!(rig.deliveries, before + 1);
    assert_eq!(rig.update(&["u:1"]).federated.len(), 1);
    let gone = vec![TrustDomain::new("other.org").unwrap(), domain()];
    rig.put(Input::Bundles { upserts: vec![], removed: gone });
    assert!(rig.update(&["u:1"]).federated.is_empty());
    assert!(rig.cache.bundle(&domain()).is_some(), "the own bundle can't go");
}

#[test]
fn entries_are_signed_ahead_only_inside_the_cache_size() {
    let mut rig = Rig::sized(2, 0);
    rig.upsert((0..5).map(|n| entry(&format!("e{n}"), "/x", "/n", &[&format!("u:{n}")])).collect());
    assert_eq!(rig.signs.len(), 2);
    rig.sign_all();
    assert_eq!((rig.signs.len(), rig.cache.counts().x509_held), (0, 2));
}

#[test]
fn an_entry_may_forbid_to_be_signed_ahead() {
    let mut rig = Rig::new();
    let mut parts = entry_parts("a", "/a", "/n", &["u:1"]);
    parts.disable_x509_svid_prefetch = true;
    rig.upsert(vec![Entry::new(parts).unwrap()]);
    assert!(rig.signs.is_empty());
    rig.subscribe(&["u:1"]);
    assert_eq!(rig.signs.len(), 1);
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
fn the_least_recently_used_goes_first_and_a_subscriber_never() {
    let mut rig = Rig::sized(2, 0);
    rig.upsert((0..4).map(|n| entry(&format!("e{n}"), "/x", "/n", &[&format!("u:{n}")])).collect());
    rig.subscribe(&["u:3"]);
    rig.subscribe(&["u:2"]);
    rig.subscribe(&["u:1"]);
    rig.sign_all();
    assert_eq!(rig.cache.counts().x509_held, 3, "subscribed ones stay beyond the size");
    rig.put(Input::Unsubscribe { selectors: set(&["u:3"]), want: Want::X509 });
    assert_eq!(rig.cache.counts().x509_held, 2);
    assert_eq!((rig.held_by(&["u:1"]).len(), rig.held_by(&["u:2"]).len()), (1, 1));
}

#[test]
fn aliases_and_stored_svids_are_for_no_workload() {
    let mut rig = Rig::new();
    rig.subscribe(&["u:1"]);
    let mut parts = entry_parts("s", "/s", "/n", &["u:1"]);
    parts.store_svid = true;
    rig.upsert(vec![entry("alias", "/x", "/spire/server", &["u:1"]), Entry::new(parts).unwrap()]);
    assert_eq!(rig.update(&["u:1"]).matched, 0);
}

#[test]
fn svids_of_a_distrusted_authority_are_replaced_before_they_are_dropped() {
    let mut rig = Rig::new();
    rig.upsert(vec![entry("a", "/a", "/n", &["u:1"])]);
    rig.subscribe(&["u:1"]);
    rig.sign_all();
    let spread = Duration::from_secs(30);
    rig.put(Input::Distrusted { authorities: ["aa".into()].into(), spread });
    rig.pass(spread);
    assert_eq!((rig.signs.len(), rig.held_by(&["u:1"]).len()), (1, 1));
}

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
fn the_nearest_entry_misses_the_fewest_selectors() {
    let mut rig = Rig::new();
    rig.upsert(vec![
        entry("far", "/far", "/n", &["a:1", "b:2", "c:3"]),
        entry("near", "/near", "/n", &["a:1", "b:9"]),
    ]);
    let nearest = rig.cache.nearest(&set(&["a:1"])).unwrap();
    assert_eq!((nearest.entry_id.as_str(), nearest.missing.len()), ("near", 1));
}

#[derive(Clone, Debug)]
enum Act {
    Upsert { entry: u8, name: u8, mask: u8, ends_in: Option<u16>, revision: i64 },
    Remove(u8),
    Subscribe(u8, bool),
    Unsubscribe(u8, bool),
    Pass(u16),
    Answer { last: bool, well: bool },
    Back,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..6u8, 0..3u8, 1..16u8, proptest::option::of(1..5000u16), 0..4i64).prop_map(
            |(entry, name, mask, ends_in, revision)| Act::Upsert { entry, name, mask, ends_in, revision }
        ),
        2 => (0..6u8).prop_map(Act::Remove),
        3 => (0..16u8, any::<bool>()).prop_map(|(m, x)| Act::Subscribe(m, x)),
        2 => (0..16u8, any::<bool>()).prop_map(|(m, x)| Act::Unsubscribe(m, x)),
        2 => (0..4000u16).prop_map(Act::Pass),
        6 => (any::<bool>(), any::<bool>()).prop_map(|(last, well)| Act::Answer { last, well }),
        1 => Just(Act::Back),
    ]
}

fn mask_set(mask: u8) -> SelectorSet {
    let names: Vec<_> = (0..4).filter(|b| mask & (1 << b) != 0).map(|b| format!("s:{b}")).collect();
    set(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

fn build(e: u8, name: u8, mask: u8, ends: Option<Timestamp>, revision: i64) -> Entry {
    let names: Vec<_> = (0..4).filter(|b| mask & (1 << b) != 0).map(|b| format!("s:{b}")).collect();
    let list: Vec<_> = names.iter().map(String::as_str).collect();
    let mut parts = entry_parts(&format!("e{e}"), &format!("/w{name}"), "/n", &list);
    parts.expires_at = ends;
    parts.revision_number = revision;
    Entry::new(parts).unwrap()
}

#[derive(Default)]
struct Model {
    entries: BTreeMap<EntryId, Entry>,
    wants: BTreeMap<(SelectorSet, bool), usize>,
}

impl Model {
    fn live(&self, set: &SelectorSet, wall: Timestamp) -> Vec<&Entry> {
        let hits = self.entries.values().filter(|e| e.selector_set().is_subset_of(set));
        hits.filter(|e| !e.is_expired(wall)).collect()
    }

    fn subscribed(&self) -> BTreeSet<&SelectorSet> {
        self.wants.iter().filter(|(_, n)| **n > 0).map(|((set, _), _)| set).collect()
    }
}

fn play(rig: &mut Rig, model: &mut Model, act: Act) {
    let want = |x509| if x509 { Want::X509 } else { Want::Bundles };
    match act {
        Act::Upsert { entry, name, mask, ends_in, revision } => {
            let ends = ends_in.map(|s| rig.now.wall + Duration::from_secs(s.into()));
            let entry = build(entry, name, mask, ends, revision);
            model.entries.insert(entry.id.clone(), entry.clone());
            rig.upsert(vec![entry]);
        }
        Act::Remove(e) => {
            model.entries.remove(&entry_id(&format!("e{e}")));
            rig.remove(&format!("e{e}"));
        }
        Act::Subscribe(mask, x509) => {
            *model.wants.entry((mask_set(mask), x509)).or_default() += 1;
            rig.put(Input::Subscribe { selectors: mask_set(mask), want: want(x509) });
        }
        Act::Unsubscribe(mask, x509) => {
            if let Some(n) = model.wants.get_mut(&(mask_set(mask), x509)).filter(|n| **n > 0) {
                *n -= 1;
                rig.put(Input::Unsubscribe { selectors: mask_set(mask), want: want(x509) });
            }
        }
        Act::Pass(secs) => rig.pass(Duration::from_secs(secs.into())),
        Act::Answer { last, well } => {
            let sign =
                if last { rig.signs.pop() } else { (!rig.signs.is_empty()).then(|| rig.signs.remove(0)) };
            let Some((ticket, entry, id, _)) = sign else { return };
            rig.put(if well {
                let svid = svid(&id, rig.now.wall, HOUR as u64);
                Input::Signed { ticket, entry, svid, authorities: vec![] }
            } else {
                Input::SignFailed { ticket, entry, failure: SignFailure::Away("x".into()) }
            });
        }
        Act::Back => rig.put(Input::UpstreamBack),
    }
    for set in model.subscribed() {
        let entitled = model.live(set, rig.now.wall);
        let update = &rig.delivered[set];
        inv1_delivered_is_entitled(update, &entitled).unwrap();
        inv2_nothing_expired(update, rig.now.wall).unwrap();
        assert_eq!(update.matched > 0, !entitled.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_changes_leaves_each_subscriber_with_exactly_the_matching_live_entries(
        acts in proptest::collection::vec(act(), 1..60),
        size in 0..5usize,
    ) {
        let (mut rig, mut model) = (Rig::sized(size, 3), Model::default());
        for act in acts {
            play(&mut rig, &mut model, act);
        }
        rig.put(Input::UpstreamBack);
        rig.sign_all();
        for ((set, x509), count) in &model.wants {
            if *x509 && *count > 0 {
                let entitled: Vec<_> = model.live(set, rig.now.wall).iter().map(|e| e.id.clone()).collect();
                let held: Vec<_> = rig.delivered[set].identities.iter().map(|i| i.entry_id.clone()).collect();
                prop_assert_eq!(held, entitled);
            }
        }
        let counts = rig.cache.counts();
        prop_assert_eq!(counts.subscribed_sets, model.subscribed().len());
        prop_assert_eq!(rig.cache.held, rig.cache.slots.values().filter(|s| s.held.is_some()).count());
        prop_assert_eq!(rig.cache.coming, 0);
        // INV-9: timers never outgrow what they are for.
        prop_assert!(rig.cache.timers.wall.len() <= counts.entries && rig.cache.timers.mono.len() <= counts.entries);
    }
}
