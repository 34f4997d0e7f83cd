//! What was committed is what an opened image shows, from the beginning and from any point of the log.

use std::collections::BTreeMap;

use avouch_domain::{Epoch, LogPosition, Plan, Row, RowKey};
use proptest::prelude::*;

use super::kit::*;
use crate::{Db, Lost, TailError};

/// One step of a history: puts and deletes of a few names in one plan, and if a commit ends after it.
#[derive(Clone, Debug)]
struct Step {
    puts: Vec<(u8, u8)>,
    deletes: Vec<u8>,
    ends_commit: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step =
        (prop::collection::vec((0u8..6, 0u8..4), 0..3), prop::collection::vec(0u8..6, 0..2), any::<bool>())
            .prop_map(|(puts, deletes, ends_commit)| Step { puts, deletes, ends_commit });
    prop::collection::vec(step, 1..20)
}

fn row(name: u8, version: u8) -> Row {
    let mut parts = an_entry(&format!("e{name}")).to_parts();
    parts.hint = format!("v{version}");
    Row::Entry(avouch_domain::Entry::new(parts).unwrap())
}

fn plan(step: &Step) -> Plan {
    let mut plan = put(step.puts.iter().map(|(name, version)| row(*name, *version)));
    let told: Vec<RowKey> = plan.changes.iter().map(|c| c.key.clone()).collect();
    for name in &step.deletes {
        let key = row(*name, 0).key();
        if !told.contains(&key) {
            plan.deletes.push(key.clone());
            plan.changes.push(change(key, true));
        }
    }
    plan
}

fn apply(model: &mut BTreeMap<RowKey, Row>, plan: &Plan) {
    model.extend(plan.puts.iter().map(|r| (r.key(), r.clone())));
    plan.deletes.iter().for_each(|k| drop(model.remove(k)));
}

/// Follows the log to its end, a few changes at a time.
fn follow(db: &mut Db, mut from: LogPosition, model: &mut BTreeMap<RowKey, Row>) -> Result<(), TailError> {
    loop {
        let tail = db.changes_since(from, 2)?;
        let latest = tail.latest;
        let (plan, position) = tail.into_plan();
        apply(model, &plan);
        if position == latest {
            return Ok(());
        }
        from = position;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_committed_is_what_an_image_and_every_follower_show(steps in steps()) {
        let mut db = Db::in_memory(Epoch { started: 1, random: 2 }).unwrap();
        let mut model = BTreeMap::new();
        let mut seen = vec![(db.position().unwrap(), BTreeMap::new())];
        let mut waiting = Vec::new();
        for step in &steps {
            waiting.push(plan(step));
            if step.ends_commit {
                let base = seen.last().unwrap().0;
                let plans = std::mem::take(&mut waiting);
                for (plan, position) in plans.iter().zip(db.commit(base, &plans).unwrap()) {
                    apply(&mut model, plan);
                    seen.push((position, model.clone()));
                }
            }
        }
        let image = db.image(NOW).unwrap();
        prop_assert_eq!(sorted(image.rows), model.values().cloned().collect::<Vec<_>>());
        prop_assert_eq!(image.position, seen.last().unwrap().0);
        db.verify_chain().unwrap();
        for (position, mut rows) in seen {
            follow(&mut db, position, &mut rows).unwrap();
            prop_assert_eq!(&rows, &model);
        }
    }

    #[test]
    fn a_short_log_follows_rightly_or_says_that_it_is_pruned(steps in steps(), kept in 1u64..6) {
        let mut db = Db::in_memory(Epoch { started: 1, random: 2 }).unwrap();
        db.set_retention(kept);
        let mut model = BTreeMap::new();
        let mut seen = vec![(db.position().unwrap(), BTreeMap::new())];
        for step in &steps {
            let plan = plan(step);
            let position = last(&db.commit(seen.last().unwrap().0, std::slice::from_ref(&plan)).unwrap());
            apply(&mut model, &plan);
            seen.push((position, model.clone()));
        }
        db.verify_chain().unwrap();
        for (position, mut rows) in seen {
            match follow(&mut db, position, &mut rows) {
                Ok(()) => prop_assert_eq!(&rows, &model),
                Err(TailError::Lost(why)) => prop_assert_eq!(why, Lost::Pruned),
                Err(other) => panic!("{other}"),
            }
        }
    }
}
