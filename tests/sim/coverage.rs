//! Counts what a run visits: the transitions of every machine, and the pairs of faults that meet.
//!
//! What must be visited is listed beside each machine; a run that is too calm, or a machine that can no longer do what
//! is listed, is found by what is missing.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};

use avouch_engine::{cache, rotation, sync};

use crate::actions::{FAULTS, Kind};
use crate::feed::{Began, RESUMES};

/// Faults meet when one strikes so many milliseconds after the other at most.
const MEET: u64 = 60_000;

type Counts<T> = BTreeMap<T, u64>;

#[derive(Clone, Debug, Default)]
pub struct Coverage {
    /// Nothing is counted unless asked for: it costs time.
    pub on: bool,
    sync: Counts<sync::phase::Transition>,
    slots: Counts<cache::phase::Transition>,
    answers: Counts<(&'static str, &'static str)>,
    rotations: Counts<rotation::phase::Transition>,
    resumes: Counts<Began>,
    pairs: Counts<(Kind, Kind)>,
    /// When each kind of fault struck last.
    struck: BTreeMap<Kind, u64>,
}

fn count<T: Ord>(on: bool, counts: &mut Counts<T>, what: T) {
    if on {
        *counts.entry(what).or_default() += 1;
    }
}

fn add<T: Ord + Clone>(sum: &mut Counts<T>, more: &Counts<T>) {
    for (what, times) in more {
        *sum.entry(what.clone()).or_default() += times;
    }
}

fn pair(a: Kind, b: Kind) -> (Kind, Kind) {
    (a.min(b), a.max(b))
}

impl Coverage {
    pub fn sync(&mut self, transition: sync::phase::Transition) {
        count(self.on, &mut self.sync, transition);
    }

    pub fn slot(&mut self, transition: cache::phase::Transition) {
        count(self.on, &mut self.slots, transition);
    }

    pub fn answer(&mut self, cause: &'static str, effect: &'static str) {
        count(self.on, &mut self.answers, (cause, effect));
    }

    pub fn rotation(&mut self, transition: rotation::phase::Transition) {
        count(self.on, &mut self.rotations, transition);
    }

    pub fn resume(&mut self, began: Began) {
        count(self.on, &mut self.resumes, began);
    }

    /// A fault strikes: it meets all that struck shortly before.
    pub fn strike(&mut self, now: u64, kind: Kind) {
        for (other, at) in &self.struck {
            if now <= at + MEET {
                count(self.on, &mut self.pairs, pair(kind, *other));
            }
        }
        self.struck.insert(kind, now);
    }

    pub fn add(&mut self, other: &Self) {
        add(&mut self.sync, &other.sync);
        add(&mut self.slots, &other.slots);
        add(&mut self.answers, &other.answers);
        add(&mut self.rotations, &other.rotations);
        add(&mut self.resumes, &other.resumes);
        add(&mut self.pairs, &other.pairs);
    }

    /// The table, and how many of what is listed were never visited.
    pub fn table(&self) -> (String, usize) {
        let pairs: Vec<_> =
            FAULTS.iter().enumerate().flat_map(|(i, a)| FAULTS[i..].iter().map(|b| pair(*a, *b))).collect();
        let mut text = String::new();
        let missing = [
            table(&mut text, "agent follows its server", &self.sync, sync::phase::TRANSITIONS),
            table(&mut text, "one entry in the cache", &self.slots, cache::phase::TRANSITIONS),
            table(&mut text, "what the cache answers", &self.answers, cache::phase::ANSWERS),
            table(&mut text, "an authority's rotation", &self.rotations, rotation::phase::TRANSITIONS),
            table(&mut text, "how a stream begins", &self.resumes, &RESUMES),
            table(&mut text, "faults that meet", &self.pairs, &pairs),
        ];
        (text, missing.iter().sum())
    }
}

fn table<T: Ord + Debug>(text: &mut String, name: &str, counts: &Counts<T>, listed: &[T]) -> usize {
    let times = |what| counts.get(what).copied().unwrap_or(0);
    let missing = listed.iter().filter(|what| times(what) == 0).count();
    let total = listed.len();
    let _ = writeln!(text, "{name}: {} of {total} visited", total - missing);
    for what in listed {
        let mark = if times(what) == 0 { "  NEVER" } else { "" };
        let _ = writeln!(text, "  {:>10}  {what:?}{mark}", times(what));
    }
    for (what, times) in counts.iter().filter(|(what, _)| !listed.contains(what)) {
        let _ = writeln!(text, "  {times:>10}  {what:?}  (not listed)");
    }
    missing
}
