//! What subscribers are told, and when.

use super::*;

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
fn aliases_and_stored_svids_are_for_no_workload() {
    let mut rig = Rig::new();
    rig.subscribe(&["u:1"]);
    let mut parts = entry_parts("s", "/s", "/n", &["u:1"]);
    parts.store_svid = true;
    rig.upsert(vec![entry("alias", "/x", "/spire/server", &["u:1"]), Entry::new(parts).unwrap()]);
    assert_eq!(rig.update(&["u:1"]).matched, 0);
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
