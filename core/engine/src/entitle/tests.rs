//! Rules of entitlement, one per test, and any interleaving of resumes against a snapshot.

use std::collections::BTreeMap;

use avouch_domain::fixtures::{domain, entry_parts, id, identity, node};
use avouch_domain::{Bundle, Cause, Epoch, Head, Identity, Kind, LogPosition, Plan, Revision, Row};
use proptest::prelude::*;

use super::*;
use crate::history::{History, Resync, Standing, Start, resume};
use crate::invariants::{inv1_entitled_only, inv10_converged};

const AGENT: &str = "/spire/agent/t/1";

fn at(revision: u64) -> LogPosition {
    LogPosition {
        epoch: Epoch { started: 1, random: 1 },
        revision: Revision(revision),
        head: Head([u8::try_from(revision % 251).unwrap(); 32]),
    }
}

fn entry(entry_id: &str, path: &str, parent: &str, sel: &[&str]) -> Row {
    Row::Entry(Entry::new(entry_parts(entry_id, path, parent, sel)).unwrap())
}

fn ending(entry_id: &str, path: &str, parent: &str, sel: &[&str], end: i64) -> Row {
    let mut parts = entry_parts(entry_id, path, parent, sel);
    parts.expires_at = Some(Timestamp(end));
    Row::Entry(Entry::new(parts).unwrap())
}

fn registry(rows: Vec<Row>) -> Registry {
    Registry::from_image(avouch_domain::Image { rows, position: at(0), ..Default::default() })
}

fn put(before: &Registry, rows: Vec<Row>, deletes: Vec<RowKey>) -> Registry {
    let mut after = before.clone();
    let position = at(before.position().revision.0 + 1);
    after.apply(&Plan { puts: rows, deletes, ..Plan::default() }, position);
    after
}

fn seen(registry: &Registry, wall: i64) -> Vec<String> {
    authorized_entries(registry, &id(AGENT), Timestamp(wall)).iter().map(|e| e.id.to_string()).collect()
}

fn change(entry_id: &str) -> Change {
    Change {
        revision: Revision(0),
        key: RowKey::Entry(EntryId::new(entry_id).unwrap()),
        deleted: false,
        parent_before: None,
        parent_after: None,
    }
}

fn nested() -> Registry {
    registry(vec![
        Row::Node(node(AGENT, &["k:1", "k:2"], 1000)),
        Row::Node(node("/spire/agent/t/2", &["k:1"], 1000)),
        entry("own", "/own", AGENT, &["u:1"]),
        entry("alias", "/cluster", "/spire/server", &["k:2"]),
        entry("below-alias", "/b", "/cluster", &["u:1"]),
        entry("below-own", "/c", "/own", &["u:1"]),
        entry("below-below", "/own", "/c", &["u:1"]),
        entry("stranger", "/s", "/spire/agent/t/2", &["u:1"]),
    ])
}

#[test]
fn an_agent_serves_what_is_below_itself_its_aliases_and_their_children() {
    let registry = nested();
    assert_eq!(seen(&registry, 0), ["below-alias", "below-below", "below-own", "own"]);
    inv1_entitled_only(&registry, &id(AGENT), Timestamp(0)).unwrap();
    for hidden in ["alias", "stranger"] {
        let hidden = EntryId::new(hidden).unwrap();
        assert_eq!(is_authorized(&registry, &id(AGENT), &hidden, Timestamp(0)), None);
    }
}

#[test]
fn an_ended_entry_entitles_to_nothing_also_before_it_is_pruned() {
    let registry = registry(vec![
        Row::Node(node(AGENT, &["k:2"], 1000)),
        ending("alias", "/cluster", "/spire/server", &["k:2"], 10),
        entry("below", "/b", "/cluster", &["u:1"]),
        ending("own", "/own", AGENT, &["u:1"], 20),
        entry("below-own", "/x", "/own", &["u:1"]),
    ]);
    assert_eq!(seen(&registry, 9), ["below", "below-own", "own"]);
    assert_eq!(seen(&registry, 10), ["below-own", "own"]);
    assert_eq!(seen(&registry, 20), Vec::<String>::new());
    let below = EntryId::new("below").unwrap();
    assert!(is_authorized(&registry, &id(AGENT), &below, Timestamp(9)).is_some());
    assert!(is_authorized(&registry, &id(AGENT), &below, Timestamp(10)).is_none());
}

#[test]
fn a_change_concerns_only_the_agents_above_it() {
    let before = nested();
    let after = put(&before, vec![entry("new", "/n", "/c", &["u:1"])], vec![]);
    let agents = |list: &[&str]| Concerned::Agents(list.iter().map(|a| id(a)).collect());
    assert_eq!(concerned(&before, &after, &change("new"), &domain()), agents(&[AGENT]));
    let after = put(&before, vec![entry("new", "/n", "/nowhere", &["u:1"])], vec![]);
    assert_eq!(concerned(&before, &after, &change("new"), &domain()), Concerned::Nobody);
    let after = put(&before, vec![entry("alias2", "/n", "/spire/server", &["k:1"])], vec![]);
    let both = agents(&[AGENT, "/spire/agent/t/2"]);
    assert_eq!(concerned(&before, &after, &change("alias2"), &domain()), both);
    assert_eq!(concerned_between(&before, &after, &domain()), both);
    let after = put(&before, vec![Row::Bundle(Bundle::empty(domain()))], vec![]);
    assert_eq!(concerned_between(&before, &after, &domain()), Concerned::Everyone);
}

#[test]
fn an_entry_that_moves_away_is_removed_from_its_former_agent() {
    let before = nested();
    let after = put(&before, vec![entry("own", "/own", "/spire/agent/t/2", &["u:1"])], vec![]);
    let change = delta(&before, &after, &id(AGENT), Timestamp(0));
    let removed: Vec<_> = change.removed.iter().map(ToString::to_string).collect();
    // The children went with it; the cycle below them holds nothing up.
    assert_eq!(removed, ["below-below", "below-own", "own"]);
    assert!(change.upserts.is_empty());
}

#[test]
fn a_digest_spares_what_is_held_and_trusts_no_re_created_entry() {
    let registry = nested();
    let known = |entry_id: &str, revision_number, secs| KnownEntry {
        id: EntryId::new(entry_id).unwrap(),
        revision_number,
        created_at: Timestamp::from_secs(secs),
    };
    let known =
        [known("own", 0, 0), known("below-own", 1, 0), known("below-alias", 0, 5), known("gone", 0, 0)];
    let digest = digest(&registry, &id(AGENT), Timestamp(0), &known);
    let entries: Vec<_> = digest.entries.iter().map(|e| e.id.to_string()).collect();
    assert_eq!(entries, ["below-alias", "below-below", "below-own"]);
    assert_eq!(digest.unchanged, [EntryId::new("own").unwrap()]);
}

#[test]
fn of_an_entry_told_twice_the_last_counts_in_whatever_order_they_come() {
    let registry = nested();
    let known = |entry_id: &str, revision_number| KnownEntry {
        id: EntryId::new(entry_id).unwrap(),
        revision_number,
        created_at: Timestamp(0),
    };
    let spared = |known: &[KnownEntry]| {
        let digest = digest(&registry, &id(AGENT), Timestamp(0), known);
        digest.unchanged.iter().map(|id| id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        spared(&[known("own", 1), known("zz", 0), known("below-own", 0), known("own", 0)]),
        ["below-own", "own"]
    );
    assert_eq!(spared(&[known("own", 0), known("aa", 0), known("own", 1)]), Vec::<String>::new());
}

#[test]
fn a_position_of_another_history_is_not_trusted() {
    let present = nested();
    let mut history = History::new(present.clone(), 2);
    for revision in 1..=3 {
        let mut next = present.clone();
        next.set_position(at(revision));
        history.push(next);
    }
    assert!(matches!(history.standing(&at(3)), Standing::Known(_)));
    assert!(matches!(history.standing(&at(0)), Standing::Old));
    assert!(matches!(history.standing(&at(4)), Standing::Foreign(_)));
    let forked = LogPosition { head: Head([9; 32]), ..at(3) };
    assert!(matches!(history.standing(&forked), Standing::Foreign(_)));
    let reborn = LogPosition { epoch: Epoch { started: 2, random: 1 }, ..at(3) };
    assert!(matches!(history.standing(&reborn), Standing::Foreign(_)));
    let known =
        [KnownEntry { id: EntryId::new("own").unwrap(), revision_number: 0, created_at: Timestamp(0) }];
    let start = |standing: Standing, verified| match resume(
        &present,
        &id(AGENT),
        Timestamp(0),
        Some(&standing),
        &known,
        verified,
    ) {
        Start::Digest { digest, resync } => (digest.unchanged.len(), resync),
        Start::Delta(_) => panic!("a delta from nowhere"),
    };
    let behind = |(unchanged, resync)| (unchanged, matches!(resync, Some(Resync::Behind(_))));
    assert_eq!(behind(start(Standing::Old, true)), (1, true));
    assert_eq!(behind(start(Standing::Old, false)), (0, false), "unconfirmed is foreign");
    assert_eq!(start(Standing::Foreign("x"), true), (0, Some(Resync::Foreign("x"))));
}

/// The parent set by its definition, with a look at every entry: what the indexes must agree with.
fn parents_by_definition(registry: &Registry, agent: &SpiffeId, wall: Timestamp) -> BTreeSet<SpiffeId> {
    let live: Vec<_> = registry.entries().filter(|e| !e.is_expired(wall)).collect();
    let carries =
        |e: &Entry| registry.node(agent).is_some_and(|n| e.selector_set().is_subset_of(&n.selectors));
    let aliases = live.iter().filter(|e| e.is_node_alias() && carries(e)).map(|e| e.spiffe_id.clone());
    let mut parents: BTreeSet<_> = aliases.chain([agent.clone()]).collect();
    loop {
        let below = |e: &&&Entry| parents.contains(&e.parent_id) && registry.is_parent(&e.spiffe_id);
        let more: Vec<_> = live.iter().filter(below).map(|e| e.spiffe_id.clone()).collect();
        let before = parents.len();
        parents.extend(more);
        if parents.len() == before {
            return parents;
        }
    }
}

/// Few names, so that parents, aliases, cycles and moves meet often.
const PATHS: [&str; 7] = [AGENT, "/spire/agent/t/2", "/spire/server", "/a", "/b", "/c", "/d"];

#[derive(Clone, Debug)]
enum Op {
    Put {
        name: u8,
        path: u8,
        parent: u8,
        selector: u8,
        end: Option<i64>,
    },
    Delete(u8),
    Node {
        agent: u8,
        selectors: u8,
    },
    Forget(u8),
    Pass(i64),
    /// The agent takes in what it missed.
    Resume {
        digest: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..8u8, 3..7u8, 0..7u8, 0..3u8, prop::option::weighted(0.3, 0..40i64))
            .prop_map(|(name, path, parent, selector, end)| Op::Put { name, path, parent, selector, end }),
        2 => (0..8u8).prop_map(Op::Delete),
        2 => (0..2u8, 0..8u8).prop_map(|(agent, selectors)| Op::Node { agent, selectors }),
        1 => (0..2u8).prop_map(Op::Forget),
        1 => (1..10i64).prop_map(Op::Pass),
        4 => any::<bool>().prop_map(|digest| Op::Resume { digest }),
    ]
}

struct World {
    registry: Registry,
    history: History,
    wall: i64,
    position: Option<LogPosition>,
    held: BTreeMap<EntryId, Entry>,
    revisions: BTreeMap<u8, i64>,
}

impl World {
    fn write(&mut self, rows: Vec<Row>, deletes: Vec<RowKey>) {
        let after = put(&self.registry, rows, deletes);
        let told = concerned_between(&self.registry, &after, &domain());
        // An agent that is not attested has no stream to be told on.
        let attested =
            |agent: &&str| self.registry.node(&id(agent)).is_some() && after.node(&id(agent)).is_some();
        for agent in [AGENT, "/spire/agent/t/2"].into_iter().filter(attested) {
            // Ended entries are told when they are pruned, so both are judged at the same moment.
            let view = |r: &Registry| authorized_entries(r, &id(agent), Timestamp(self.wall));
            let is_told = matches!(&told, Concerned::Agents(agents) if agents.contains(&id(agent)));
            assert!(view(&self.registry) == view(&after) || is_told, "{agent} was not told");
        }
        self.registry = after;
        self.history.push(self.registry.clone());
        for agent in [AGENT, "/spire/agent/t/2"] {
            let (agent, wall) = (id(agent), Timestamp(self.wall));
            let expected = parents_by_definition(&self.registry, &agent, wall);
            assert_eq!(parents_of(&self.registry, &agent, wall), expected);
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Put { name, path, parent, selector, end } => {
                let sel = [["k:1"], ["k:2"], ["u:1"]][usize::from(selector)];
                let (path, parent) = (PATHS[usize::from(path)], PATHS[usize::from(parent)]);
                let mut parts = entry_parts(&format!("e{name}"), path, parent, &sel);
                let number = self.revisions.entry(name).or_default();
                *number += 1;
                parts.revision_number = *number;
                parts.expires_at = end.map(|e| Timestamp(self.wall + e));
                self.write(vec![Row::Entry(Entry::new(parts).unwrap())], vec![]);
            }
            Op::Delete(name) => {
                let key = RowKey::Entry(EntryId::new(&format!("e{name}")).unwrap());
                self.write(vec![], vec![key]);
            }
            Op::Node { agent, selectors } => {
                let list = ["k:1", "k:2", "k:3"];
                let chosen: Vec<_> =
                    (0..3).filter(|bit| selectors & (1 << bit) != 0).map(|bit| list[bit]).collect();
                self.write(vec![Row::Node(node(PATHS[usize::from(agent)], &chosen, 1000))], vec![]);
            }
            Op::Forget(agent) => self.write(vec![], vec![RowKey::Node(id(PATHS[usize::from(agent)]))]),
            Op::Pass(time) => {
                self.wall += time;
                let ended: Vec<_> = self
                    .registry
                    .expired_entries(Timestamp(self.wall))
                    .map(|e| RowKey::Entry(e.id.clone()))
                    .collect();
                if !ended.is_empty() {
                    self.write(vec![], ended);
                }
            }
            Op::Resume { digest } => self.resume(digest),
        }
    }

    fn resume(&mut self, digest: bool) {
        let (agent, wall) = (id(AGENT), Timestamp(self.wall));
        let known: Vec<_> = self
            .held
            .values()
            .map(|e| KnownEntry {
                id: e.id.clone(),
                revision_number: e.revision_number,
                created_at: e.created_at,
            })
            .collect();
        let standing = self.position.as_ref().map(|p| self.history.standing(p));
        let standing = if digest { standing.map(|_| Standing::Old) } else { standing };
        match resume(&self.registry, &agent, wall, standing.as_ref(), &known, true) {
            Start::Delta(delta) => {
                for gone in &delta.removed {
                    self.held.remove(gone);
                }
                self.held.extend(delta.upserts.into_iter().map(|e| (e.id.clone(), e)));
            }
            Start::Digest { digest, .. } => {
                self.held.retain(|entry_id, _| digest.unchanged.contains(entry_id));
                self.held.extend(digest.entries.into_iter().map(|e| (e.id.clone(), e)));
            }
        }
        self.position = Some(self.registry.position());
        // The agent judges ends by itself.
        let alive = |e: &Entry| !e.is_expired(wall);
        let held: Vec<_> = self.held.values().filter(|e| alive(e)).cloned().collect();
        assert_eq!(
            held,
            authorized_entries(&self.registry, &agent, wall),
            "a resume differs from a snapshot"
        );
        let numbers = held.iter().map(|e| (e.id.to_string(), e.revision_number)).collect();
        inv10_converged(&self.registry, &agent, wall, &numbers).unwrap();
        inv1_entitled_only(&self.registry, &agent, wall).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_of_resumes_equals_a_snapshot(
        ops in prop::collection::vec(op(), 1..40),
        kept in 1..6usize,
    ) {
        let registry = registry(vec![Row::Node(node(AGENT, &["k:1"], 1000))]);
        let history = History::new(registry.clone(), kept);
        let mut world = World {
            registry,
            history,
            wall: 0,
            position: None,
            held: BTreeMap::new(),
            revisions: BTreeMap::new(),
        };
        for op in ops {
            world.apply(op);
        }
        world.resume(false);
    }
}

#[test]
fn a_pause_takes_its_entries_from_every_agent_and_a_resume_gives_them_back() {
    let agent = id("/spire/agent/t/1");
    let mut active = Registry::new();
    active.put(Row::Node(node("/spire/agent/t/1", &["n:1"], 1_000_000)));
    active.put(entry("alias", "/group", "/spire/server", &["n:1"]));
    active.put(entry("direct", "/test/x", "/spire/agent/t/1", &["u:1"]));
    active.put(entry("grouped", "/test/x", "/group", &["u:1"]));
    active.put(entry("nested", "/below", "/test/x", &["u:1"]));
    active.put(entry("other", "/other", "/group", &["u:1"]));
    active.put(Row::Identity(identity("/test/x", Kind::Service)));
    let mut paused = active.clone();
    let standing = avouch_domain::Standing::Paused(Cause::Person);
    paused.put(Row::Identity(Identity { standing, ..identity("/test/x", Kind::Service) }));
    let wall = Timestamp(0);

    let seen = |r: &Registry| {
        authorized_entries(r, &agent, wall).iter().map(|e| e.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(seen(&active), ["direct", "grouped", "nested", "other"]);
    assert_eq!(seen(&paused), ["other"], "what hangs below a paused name goes with it");
    for entry in ["direct", "grouped", "nested"] {
        let entry = EntryId::new(entry).unwrap();
        assert!(is_authorized(&active, &agent, &entry, wall).is_some());
        assert!(is_authorized(&paused, &agent, &entry, wall).is_none());
    }
    let concerned = concerned_between(&active, &paused, &domain());
    assert_eq!(concerned, Concerned::Agents(BTreeSet::from([agent.clone()])));

    let mut drilled = active.clone();
    let stop_tried = Some(avouch_domain::StopTried { at: wall, nodes: 1, confirmed: 0, took_ms: 0 });
    drilled.put(Row::Identity(Identity { stop_tried, ..identity("/test/x", Kind::Service) }));
    let concerned = concerned_between(&active, &drilled, &domain());
    assert_eq!(concerned, Concerned::Agents(BTreeSet::from([agent.clone()])), "a drill goes there, too");
    assert!(delta(&active, &drilled, &agent, wall).is_empty(), "and changes nothing");

    let withdrawn = delta(&active, &paused, &agent, wall);
    let removed: Vec<_> = withdrawn.removed.iter().map(ToString::to_string).collect();
    assert_eq!(
        (withdrawn.upserts.len(), removed),
        (0, vec!["direct".into(), "grouped".into(), "nested".into()])
    );
    let back = delta(&paused, &active, &agent, wall);
    let given: Vec<_> = back.upserts.iter().map(|e| e.id.to_string()).collect();
    assert_eq!((given, back.removed.len()), (vec!["direct".into(), "grouped".into(), "nested".into()], 0));
}

#[test]
fn the_end_of_an_identity_ends_what_its_entries_entitle_to_before_anybody_writes_it_down() {
    let agent = id("/spire/agent/t/1");
    let mut registry = Registry::new();
    registry.put(Row::Node(node("/spire/agent/t/1", &["n:1"], 1_000_000)));
    registry.put(entry("e1", "/test/x", "/spire/agent/t/1", &["u:1"]));
    registry.put(Row::Identity(Identity { end: Timestamp(5), ..identity("/test/x", Kind::Service) }));
    assert_eq!(authorized_entries(&registry, &agent, Timestamp(4)).len(), 1);
    assert_eq!(authorized_entries(&registry, &agent, Timestamp(5)).len(), 0);
}

#[test]
fn the_moment_from_which_owners_are_demanded_ends_what_nobody_owns_and_an_adoption_gives_it_back() {
    let agent = id(AGENT);
    let registry = registry(vec![
        Row::Node(node(AGENT, &["n:1"], 1_000_000)),
        entry("alias", "/group", "/spire/server", &["n:1"]),
        entry("found", "/found", "/group", &["u:1"]),
        entry("nested", "/owned/below", "/found", &["u:1"]),
        entry("owned", "/owned", "/group", &["u:1"]),
        Row::Identity(identity("/owned", Kind::Service)),
        Row::Identity(identity("/owned/below", Kind::Service)),
    ])
    .demanding_owners(Some(Timestamp(5)));
    assert_eq!(seen(&registry, 4), ["found", "nested", "owned"]);
    assert_eq!(seen(&registry, 5), ["owned"], "what hangs below it goes with it, and the alias stays");
    assert!(is_authorized(&registry, &agent, &EntryId::new("found").unwrap(), Timestamp(5)).is_none());
    assert_eq!(agents_of_unowned(&registry), BTreeSet::from([agent.clone()]));
    inv1_entitled_only(&registry, &agent, Timestamp(5)).unwrap();

    let adopted = put(&registry, vec![Row::Identity(identity("/found", Kind::Service))], vec![]);
    let concerned = concerned_between(&registry, &adopted, &domain());
    assert_eq!(concerned, Concerned::Agents(BTreeSet::from([agent.clone()])));
    let given = delta(&registry, &adopted, &agent, Timestamp(5));
    let given: Vec<_> = given.upserts.iter().map(|e| e.id.to_string()).collect();
    assert_eq!(given, ["found", "nested"]);

    let late = put(&registry, vec![entry("late", "/late", AGENT, &["u:1"])], vec![]);
    assert!(
        delta(&registry, &late, &agent, Timestamp(5)).upserts.is_empty(),
        "nobody owns the new one either"
    );
}

#[test]
fn an_agent_that_comes_back_where_owners_are_demanded_is_told_everything_that_it_may_keep() {
    let registry = registry(vec![
        Row::Node(node(AGENT, &[], 1_000_000)),
        entry("found", "/found", AGENT, &["u:1"]),
        entry("owned", "/owned", AGENT, &["u:1"]),
        Row::Identity(identity("/owned", Kind::Service)),
    ])
    .demanding_owners(Some(Timestamp(5)));
    let held = |wall| {
        let known =
            authorized_entries(&registry, &id(AGENT), Timestamp(wall)).into_iter().map(|entry| KnownEntry {
                id: entry.id.clone(),
                revision_number: entry.revision_number,
                created_at: entry.created_at,
            });
        known.collect::<Vec<_>>()
    };
    let standing = Standing::Known(Box::new(registry.clone()));
    let start = resume(&registry, &id(AGENT), Timestamp(5), Some(&standing), &held(4), true);
    let Start::Digest { digest, resync: Some(Resync::Behind(_)) } = start else { panic!("{start:?}") };
    let unchanged: Vec<_> = digest.unchanged.iter().map(EntryId::as_str).collect();
    assert_eq!((unchanged, digest.entries.len()), (vec!["owned"], 0));
}
