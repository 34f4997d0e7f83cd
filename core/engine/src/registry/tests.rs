//! Rules of the registry in memory, one per test.

use avouch_domain::fixtures::{domain, entry, entry_parts, id, node, set};
use avouch_domain::{EntryId, Row};

use super::*;

fn with(rows: Vec<Row>) -> Registry {
    Registry::from_image(Image { rows, ..Image::default() })
}

fn ids<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<String> {
    entries.map(|e| e.id.to_string()).collect()
}

#[test]
fn entries_are_found_by_parent_and_by_spiffe_id_in_order() {
    let registry = with(vec![
        Row::Entry(entry("c", "/x", "/p", &["a:1"])),
        Row::Entry(entry("a", "/y", "/p", &["a:1"])),
        Row::Entry(entry("b", "/x", "/pp", &["a:1"])),
    ]);
    assert_eq!(ids(registry.entries_by_parent(&id("/p"))), ["a", "c"]);
    assert_eq!(ids(registry.entries_by_spiffe_id(&id("/x"))), ["c", "b"]);
    assert_eq!(ids(registry.entries_by_parent(&id("/x"))), Vec::<String>::new());
    assert!(registry.is_parent(&id("/pp")) && !registry.is_parent(&id("/ppp")));
}

#[test]
fn an_entry_that_moves_leaves_its_old_places() {
    let mut registry = with(vec![Row::Entry(entry("a", "/x", "/p", &["a:1"]))]);
    registry.put(Row::Entry(entry("a", "/y", "/q", &["a:2"])));
    assert_eq!(ids(registry.entries_by_parent(&id("/p"))), Vec::<String>::new());
    assert_eq!(ids(registry.entries_by_spiffe_id(&id("/x"))), Vec::<String>::new());
    assert_eq!(ids(registry.entries_by_parent(&id("/q"))), ["a"]);
    registry.delete(&RowKey::Entry(EntryId::new("a").unwrap()));
    assert!(!registry.is_parent(&id("/q")) && registry.entry_count() == 0);
}

#[test]
fn a_card_says_what_its_entry_says_after_every_change() {
    let mut registry = with(vec![Row::Entry(entry("a", "/x", "/p", &["a:1"]))]);
    let mut parts = entry_parts("a", "/x", "/p", &["a:1"]);
    parts.revision_number = 7;
    parts.created_at = Timestamp::from_secs(9);
    parts.expires_at = Some(Timestamp::from_secs(20));
    let changed = Entry::new(parts).unwrap();
    registry.put(Row::Entry(changed.clone()));
    let parent = id("/p");
    let cards: Vec<_> = registry.cards_by_parent(&parent).collect();
    let [card] = cards[..] else { panic!("{cards:?}") };
    assert_eq!((card.id(), card.revision_number(), card.created_at()), (&b"a"[..], 7, changed.created_at));
    assert_eq!(card.entry(), &changed);
    for wall in [19, 20, 21].map(Timestamp::from_secs) {
        assert_eq!(card.is_expired(wall), changed.is_expired(wall));
    }
}

#[test]
fn a_walk_keeps_to_its_parent_whatever_the_length_of_ids() {
    let long = "z".repeat(200);
    let mut rows = Vec::new();
    for parent in ["/a", "/b", "/c"] {
        for n in 0..40 {
            let name = format!("{}{n:02}", &parent[1..]);
            rows.push(Row::Entry(entry(&name, &format!("/x/{n}"), parent, &["a:1"])));
        }
    }
    rows.push(Row::Entry(entry(&long, "/long", "/b", &["a:1"])));
    let registry = with(rows);
    for parent in ["/", "/a", "/aa", "/b", "/bb", "/c", "/d"].map(|path| id(path.trim_end_matches('/'))) {
        let expected = ids(registry.entries().filter(|e| e.parent_id == parent));
        assert_eq!(ids(registry.entries_by_parent(&parent)), expected, "{parent}");
        assert_eq!(registry.is_parent(&parent), !expected.is_empty());
        let told: Vec<_> = registry.cards_by_parent(&parent).map(|card| card.id_text().to_string()).collect();
        assert_eq!(told, expected);
    }
}

#[test]
fn similar_means_same_parent_spiffe_id_and_selector_set() {
    let registry = with(vec![
        Row::Entry(entry("a", "/x", "/p", &["a:1", "b:2"])),
        Row::Entry(entry("b", "/x", "/p", &["a:1"])),
        Row::Entry(entry("c", "/x", "/o", &["b:2"])),
    ]);
    let similar =
        |sel: &[&str], parent| registry.similar(&entry("new", "/x", parent, sel)).map(|e| e.id.to_string());
    assert_eq!(similar(&["b:2", "a:1"], "/p"), Some("a".into()));
    assert_eq!(similar(&["a:1"], "/p"), Some("b".into()));
    assert_eq!(similar(&["b:2"], "/p"), None);
    assert_eq!(similar(&["b:2"], "/q"), None);
}

#[test]
fn aliases_of_a_node_are_those_whose_selectors_it_carries() {
    let mut registry = with(vec![
        Row::Entry(entry("all", "/all", "/spire/server", &["k:cluster"])),
        Row::Entry(entry("one", "/one", "/spire/server", &["k:cluster", "k:n1"])),
        Row::Entry(entry("two", "/two", "/spire/server", &["k:cluster", "k:n2"])),
        Row::Node(node("/spire/agent/t/1", &["k:cluster", "k:n1", "k:z"], 100)),
    ]);
    let node = registry.node(&id("/spire/agent/t/1")).unwrap().clone();
    let aliases = |r: &Registry| {
        let mut found = ids(r.aliases_of(&node));
        found.sort();
        found
    };
    assert_eq!(aliases(&registry), ["all", "one"]);
    registry.delete(&RowKey::Entry(EntryId::new("one").unwrap()));
    assert_eq!(aliases(&registry), ["all"]);
}

#[test]
fn aliases_that_share_a_selector_are_not_all_filed_under_it() {
    let rows = (0..100).map(|i| {
        let own = format!("k:n{i}");
        Row::Entry(entry(&format!("e{i}"), "/x", "/spire/server", &["k:cluster", &own]))
    });
    let registry = with(rows.collect());
    let cluster = set(&["k:cluster"]).as_slice()[0].clone();
    assert!(registry.by_alias_home.get(&cluster).count() <= 1);
}

#[test]
fn nodes_are_found_by_the_selectors_they_carry() {
    let registry = with(vec![
        Row::Node(node("/spire/agent/t/1", &["k:a", "k:b"], 100)),
        Row::Node(node("/spire/agent/t/2", &["k:a"], 100)),
    ]);
    let matching = |sel: &[&str]| registry.nodes_matching(&set(sel)).count();
    assert_eq!((matching(&["k:a"]), matching(&["k:a", "k:b"]), matching(&["k:c"])), (2, 1, 0));
}

#[test]
fn the_earliest_ends_of_entries_and_tokens_are_found() {
    let mut parts = entry_parts("a", "/x", "/p", &["a:1"]);
    parts.expires_at = Some(Timestamp(500));
    let mut registry = with(vec![
        Row::Entry(Entry::new(parts).unwrap()),
        Row::JoinToken(JoinToken { digest: [1; 32], expires_at: Timestamp(300) }),
    ]);
    assert_eq!(registry.next_token_end(), Some(Timestamp(300)));
    assert_eq!(registry.next_entry_end(), Some(Timestamp(500)));
    assert_eq!(registry.expired_tokens(Timestamp(300)).count(), 1);
    registry.delete(&RowKey::JoinToken([1; 32]));
    assert_eq!(registry.next_token_end(), None);
    assert_eq!(ids(registry.expired_entries(Timestamp(499))), Vec::<String>::new());
    assert_eq!(ids(registry.expired_entries(Timestamp(500))), ["a"]);
}

#[test]
fn a_clone_does_not_see_later_changes() {
    let mut registry = with(vec![Row::Bundle(Bundle::empty(domain()))]);
    let before = registry.clone();
    registry.put(Row::Entry(entry("a", "/x", "/p", &["a:1"])));
    assert_eq!((before.entry_count(), registry.entry_count()), (0, 1));
    let changed: Vec<_> = before.changed_entries(&registry).collect();
    assert!(matches!(changed[..], [(None, Some(_))]));
}

#[test]
fn a_registry_is_never_printed_with_its_content() {
    let registry = with(vec![Row::JoinToken(JoinToken { digest: [7; 32], expires_at: Timestamp(1) })]);
    assert!(!format!("{registry:?}").contains("7, 7"));
}

#[test]
fn the_parent_graph_is_known_without_looking_at_leaves() {
    let mut registry = with(vec![
        Row::Entry(entry("leaf", "/leaf", "/p", &["a:1"])),
        Row::Entry(entry("mid", "/mid", "/p", &["a:1"])),
        Row::Entry(entry("low", "/low", "/mid", &["a:1"])),
        Row::Entry(entry("self", "/self", "/self", &["a:1"])),
    ]);
    assert_eq!(ids(registry.nested_below(&id("/p"))), ["mid"]);
    assert_eq!(ids(registry.nested_below(&id("/self"))), ["self"]);
    registry.put(Row::Entry(entry("late", "/late", "/leaf", &["a:1"])));
    assert_eq!(ids(registry.nested_below(&id("/p"))), ["leaf", "mid"]);
    registry.delete(&RowKey::Entry(EntryId::new("low").unwrap()));
    registry.put(Row::Entry(entry("late", "/late", "/q", &["a:1"])));
    registry.delete(&RowKey::Entry(EntryId::new("self").unwrap()));
    assert_eq!(ids(registry.nested_below(&id("/p"))), Vec::<String>::new());
    assert!(registry.nested.get(&id("/self")).next().is_none());
}

#[test]
fn a_federation_lasts_as_long_as_the_longest_lived_entry_that_has_it() {
    let foreign = TrustDomain::new("other.org").unwrap();
    let federating = |name: &str, end: Option<i64>| {
        let mut parts = entry_parts(name, &format!("/{name}"), "/p", &["a:1"]);
        parts.federates_with = vec![foreign.clone()];
        parts.expires_at = end.map(Timestamp);
        Row::Entry(Entry::new(parts).unwrap())
    };
    let mut registry = with(vec![federating("a", Some(10)), federating("b", Some(20))]);
    let seen = |r: &Registry, wall| r.federated_below(&id("/p"), Timestamp(wall)).count();
    assert_eq!((seen(&registry, 10), seen(&registry, 20)), (1, 0));
    registry.put(federating("a", None));
    assert_eq!(seen(&registry, 1_000), 1);
    for name in ["a", "b"] {
        registry.delete(&RowKey::Entry(EntryId::new(name).unwrap()));
    }
    assert_eq!(seen(&registry, 0), 0);
}
