//! Tests of the entry conversions.

use avouch_domain::fixtures::{domain, entry_parts, id};
use proptest::prelude::*;

use super::*;

fn wire() -> types::Entry {
    types::Entry {
        spiffe_id: Some(spiffe_id_to_wire(&id("/web"))),
        parent_id: Some(spiffe_id_to_wire(&id("/spire/agent/join_token/t"))),
        selectors: vec![types::Selector { r#type: "unix".into(), value: "uid:0".into() }],
        ..Default::default()
    }
}

fn refusal(change: impl FnOnce(&mut types::Entry)) -> String {
    let mut wire = wire();
    change(&mut wire);
    entry_input(&domain(), &wire, None).unwrap_err().to_string()
}

#[test]
fn the_first_broken_rule_in_spires_order_wins() {
    let all_bad = types::Entry {
        dns_names: vec![String::new()],
        federates_with: vec!["Bad".into()],
        hint: "x".repeat(HINT_MAX + 1),
        ..Default::default()
    };
    let mut entry = all_bad;
    let mut words = Vec::new();
    let mut say = |entry: &types::Entry| {
        words.push(entry_input(&domain(), entry, None).err().map(|e| e.to_string()).unwrap_or_default());
    };
    say(&entry);
    entry.parent_id = wire().parent_id;
    say(&entry);
    entry.spiffe_id = wire().spiffe_id;
    say(&entry);
    entry.dns_names.clear();
    say(&entry);
    entry.federates_with.clear();
    say(&entry);
    entry.selectors = wire().selectors;
    say(&entry);
    entry.hint.clear();
    say(&entry);
    assert_eq!(
        words,
        [
            "invalid parent ID: request must specify SPIFFE ID",
            "invalid spiffe ID: request must specify SPIFFE ID",
            "invalid DNS name: empty or only whitespace",
            "invalid federated trust domain: trust domain characters are limited to lowercase letters, numbers, dots, dashes, and underscores",
            "selector list is empty",
            "hint is too long, max length is 1024 characters",
            "",
        ]
    );
}

#[test]
fn a_parent_may_be_reserved_and_a_spiffe_id_may_not() {
    assert!(entry_input(&domain(), &wire(), None).is_ok());
    assert_eq!(
        refusal(|e| e.spiffe_id = Some(spiffe_id_to_wire(&id("/spire/server")))),
        "invalid spiffe ID: \"spiffe://example.org/spire/server\" is not a workload in trust domain \"example.org\"; path is in the reserved namespace"
    );
}

#[test]
fn fields_outside_the_mask_are_neither_checked_nor_changed() {
    let mask = types::EntryMask { admin: true, ..Default::default() };
    let sent = types::Entry { admin: true, hint: "x".repeat(5000), ..Default::default() };
    let input = entry_input(&domain(), &sent, Some(&mask)).unwrap();
    let before = entry_parts("e", "/web", "/spire/server", &["a:1"]);
    let after = input.apply(before.clone());
    assert_eq!(after, EntryParts { admin: true, ..before });
}

#[test]
fn an_empty_mask_shows_the_id_only() {
    let entry = avouch_domain::fixtures::entry("e", "/web", "/spire/server", &["a:1"]);
    let shown = entry_to_wire(&entry, Some(&types::EntryMask::default()));
    assert_eq!(shown, types::Entry { id: "e".into(), ..Default::default() });
}

#[test]
fn selectors_and_dns_names_keep_their_order() {
    let mut sent = wire();
    sent.selectors = ["b", "a"].map(|v| types::Selector { r#type: "t".into(), value: v.into() }).into();
    sent.dns_names = vec!["z.example".into(), "a.example".into()];
    let input = entry_input(&domain(), &sent, None).unwrap();
    let parts = input.into_new(EntryId::new("e").unwrap(), Timestamp::from_secs(1)).unwrap();
    let shown = entry_to_wire(&Entry::new(parts).unwrap(), None);
    assert_eq!((shown.selectors, shown.dns_names), (sent.selectors, sent.dns_names));
}

#[test]
fn an_entry_sent_to_an_agent_without_its_parent_belongs_to_that_agent() {
    let agent = id("/spire/agent/join_token/t");
    let mut sent = wire();
    sent.id = "e".into();
    sent.parent_id = None;
    assert_eq!(delivered_entry(&agent, &sent).unwrap().parent_id, agent);
}

proptest! {
    #[test]
    fn every_entry_survives_the_wire(
        ttl in 0..100_000i32,
        ends in proptest::option::of(1..4_000_000_000i64),
        flags in any::<[bool; 5]>(),
        revision in 0..50i64,
        hint in ".{0,20}",
        values in proptest::collection::btree_set("[a-z]{1,5}", 1..5),
    ) {
        let [admin, downstream, store_svid, prefetch, jti] = flags;
        let mut parts = entry_parts("e-1", "/web", "/spire/agent/x/y", &["t:0"]);
        parts.selectors = values.iter().map(|v| Selector::new("t", v).unwrap()).collect();
        parts.x509_svid_ttl = Ttl(ttl);
        parts.jwt_svid_ttl = Ttl(ttl / 2);
        parts.expires_at = ends.map(Timestamp::from_secs);
        parts.revision_number = revision;
        parts.created_at = Timestamp::from_secs(77);
        parts.federates_with = vec![TrustDomain::new("other.org").unwrap()];
        parts.dns_names = vec!["web.example".into()];
        parts.hint = hint;
        (parts.admin, parts.downstream, parts.store_svid) = (admin, downstream, store_svid);
        // No entry is stored for others and left unsigned at once.
        (parts.disable_x509_svid_prefetch, parts.jwt_svid_include_jti) = (prefetch && !store_svid, jti);
        let entry = Entry::new(parts).unwrap();
        prop_assert_eq!(delivered_entry(&id("/other"), &entry_to_wire(&entry, None)).unwrap(), entry);
    }
}
