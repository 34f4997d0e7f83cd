//! A model of the cache under any sequence of changes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::invariants::{inv1_delivered_is_entitled, inv2_nothing_expired};

#[derive(Clone, Debug)]
pub(super) enum Act {
    Upsert { entry: u8, name: u8, mask: u8, ends_in: Option<u16>, revision: i64 },
    Remove(u8),
    Subscribe(u8, bool),
    Unsubscribe(u8, bool),
    Pass(u16),
    Answer { last: bool, well: bool },
    Back,
}

pub(super) fn act() -> impl Strategy<Value = Act> {
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

pub(super) fn mask_set(mask: u8) -> SelectorSet {
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
pub(super) struct Model {
    entries: BTreeMap<EntryId, Entry>,
    pub wants: BTreeMap<(SelectorSet, bool), usize>,
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

pub(super) fn play(rig: &mut Rig, model: &mut Model, act: Act) {
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
