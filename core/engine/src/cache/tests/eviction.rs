//! What is held for nobody in particular: signed ahead inside the size of the cache, and evicted beyond it.

use super::*;

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
