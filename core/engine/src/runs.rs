//! Which process belongs to which run: a run is a root process, and everything below it is the run's.
//!
//! Never lets a process out again: what was seen in a run that has ended belongs to nobody. Never asks the system; the
//! line of a process and its ancestors is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use avouch_domain::SpiffeId;

/// Runs at a time on one node.
pub const RUNS_MAX: usize = 4_096;
/// Processes remembered of runs that have ended.
pub const LEFT_MAX: usize = 65_536;

/// A process by its number and the moment it began (clock ticks since boot), which together never come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    pub pid: i32,
    pub start_time: u64,
}

/// What a run is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub identity: SpiffeId,
    /// The local user that runs it.
    pub uid: u32,
}

/// Whom a process belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Belongs<'a> {
    /// No run: it is what its selectors say.
    Nobody,
    /// The run with this root.
    To(Process, &'a Run),
    /// A run that has ended: it has no identity any more.
    Left,
}

/// Why no run begins.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("this process runs {0} already, expected a process of its own for each run")]
    Twice(SpiffeId),
    #[error("this process belongs to a run of {0}, which may start no other identity")]
    Inside(SpiffeId),
    #[error("this process is left over from a run that has ended")]
    Left,
    #[error("{RUNS_MAX} runs at a time are as many as a node has")]
    TooMany,
    #[error(
        "{0} has {1} runs on this node, which is as many as it may have: `avouch identity set --runs` says how many"
    )]
    Most(SpiffeId, NonZeroU16),
}

/// All runs of a node.
#[derive(Debug, Default)]
pub struct Runs {
    live: BTreeMap<Process, Live>,
    left: BTreeMap<Process, Left>,
}

/// What a process is left over from.
#[derive(Debug)]
struct Left {
    root: Process,
    identity: SpiffeId,
}

#[derive(Debug)]
struct Live {
    run: Run,
    /// Processes that were seen in it, its root not counted.
    seen: BTreeSet<Process>,
}

impl Runs {
    /// True if no process belongs to any run.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.left.is_empty()
    }

    /// True if something runs now.
    #[must_use]
    pub fn any_live(&self) -> bool {
        !self.live.is_empty()
    }

    /// How many runs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// A process was the root of a run that was held by somebody else before: it and what is below it get nothing until
    /// it goes on as what it was.
    pub fn was_root(&mut self, root: Process, identity: SpiffeId) {
        self.left.insert(root, Left { root, identity });
    }

    /// Begins a run. `line`: its root, then the ancestors. `most`: runs that the identity may have at a time; `None`: as many as
    /// the node.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn begin(&mut self, line: &[Process], run: Run, most: Option<NonZeroU16>) -> Result<(), Refusal> {
        self.may_begin(line)?;
        let of_it = || self.live.values().filter(|live| live.run.identity == run.identity).count();
        if let Some(most) = most.filter(|most| of_it() >= usize::from(most.get())) {
            return Err(Refusal::Most(run.identity, most));
        }
        let Some(root) = line.first().copied() else { return Err(Refusal::Left) };
        if self.left.get(&root).is_some_and(|left| left.identity != run.identity) {
            return Err(Refusal::Left);
        }
        // A root that lost its line takes up what it had, and nothing else. What was seen in it stays known: its parents gone,
        // nothing else would say where it came from.
        let had = self.left.iter().filter(|(process, left)| left.root == root && **process != root);
        let seen = had.map(|(process, _)| *process).collect();
        self.left.retain(|_, left| left.root != root);
        self.live.insert(root, Live { run, seen });
        Ok(())
    }

    /// What can be said before it is known which identity is to run.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn may_begin(&self, line: &[Process]) -> Result<(), Refusal> {
        let root = line.first();
        let again = root.and_then(|root| self.left.get(root)).is_some_and(|left| Some(&left.root) == root);
        match self.belongs(line) {
            Belongs::To(at, other) if Some(&at) == root => Err(Refusal::Twice(other.identity.clone())),
            Belongs::To(_, other) => Err(Refusal::Inside(other.identity.clone())),
            Belongs::Left if !again => Err(Refusal::Left),
            _ if self.live.len() >= RUNS_MAX => Err(Refusal::TooMany),
            _ => Ok(()),
        }
    }

    /// Whom a process belongs to. `line`: the process, then its ancestors.
    #[must_use]
    pub fn belongs(&self, line: &[Process]) -> Belongs<'_> {
        for process in line {
            if let Some(live) = self.live.get(process) {
                return Belongs::To(*process, &live.run);
            }
            if self.left.contains_key(process) {
                return Belongs::Left;
            }
        }
        Belongs::Nobody
    }

    /// Remembers that a process was seen in a run. False if there is no room for it although those that are not `alive`
    /// were forgotten: then it is to get nothing, since after the run nobody would know where it came from.
    #[must_use]
    pub fn saw(&mut self, root: Process, process: Process, alive: impl Fn(Process) -> bool) -> bool {
        let Some(live) = self.live.get_mut(&root) else { return false };
        if process == root || live.seen.contains(&process) {
            return true;
        }
        if live.seen.len() >= LEFT_MAX {
            live.seen.retain(|seen| alive(*seen));
        }
        live.seen.len() < LEFT_MAX && live.seen.insert(process)
    }

    /// Ends a run. What was seen in it and is `alive` gets no identity from now on.
    pub fn end(&mut self, root: Process, alive: impl Fn(Process) -> bool) {
        let Some(ended) = self.live.remove(&root) else { return };
        self.left.retain(|process, _| alive(*process));
        let room = LEFT_MAX.saturating_sub(self.left.len());
        // The root first: what is below it and was never seen is found by it.
        let more = [root].into_iter().chain(ended.seen).filter(|process| alive(*process)).take(room);
        for process in more {
            self.left.insert(process, Left { root, identity: ended.run.identity.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::id;

    use super::*;

    fn process(pid: i32) -> Process {
        Process { pid, start_time: 7 }
    }

    fn line(pids: &[i32]) -> Vec<Process> {
        pids.iter().copied().map(process).collect()
    }

    fn coder() -> Run {
        Run { identity: id("/test/coder"), uid: 1000 }
    }

    fn begun() -> Runs {
        let mut runs = Runs::default();
        runs.begin(&line(&[10, 2, 1]), coder(), None).unwrap();
        runs
    }

    #[test]
    fn everything_below_the_root_belongs_to_the_run_and_nothing_beside_it() {
        let runs = begun();
        for inside in [&[10, 2, 1][..], &[11, 10, 2, 1], &[13, 12, 10, 2, 1]] {
            assert_eq!(runs.belongs(&line(inside)), Belongs::To(process(10), &coder()), "{inside:?}");
        }
        for outside in [&[2, 1][..], &[11, 2, 1], &[1]] {
            assert_eq!(runs.belongs(&line(outside)), Belongs::Nobody, "{outside:?}");
        }
        let reused = [process(11), Process { pid: 10, start_time: 8 }];
        assert_eq!(runs.belongs(&reused), Belongs::Nobody, "a number that came again is somebody else");
    }

    #[test]
    fn a_run_starts_no_other_run_and_a_root_runs_once() {
        let mut runs = begun();
        let other = Run { identity: id("/test/other"), uid: 1000 };
        assert_eq!(
            runs.begin(&line(&[12, 11, 10, 1]), other.clone(), None),
            Err(Refusal::Inside(id("/test/coder")))
        );
        assert_eq!(
            runs.begin(&line(&[10, 2, 1]), other.clone(), None),
            Err(Refusal::Twice(id("/test/coder")))
        );
        runs.begin(&line(&[20, 2, 1]), other, None).unwrap();
        assert_eq!(runs.len(), 2);
    }

    #[test]
    fn what_was_seen_in_a_run_never_becomes_somebody_else_after_it() {
        let mut runs = begun();
        for pid in [11, 12] {
            assert!(runs.saw(process(10), process(pid), |_| true));
        }
        runs.end(process(10), |process| process.pid != 12);
        // Its parents gone, the orphan hangs below init; its children below it.
        assert_eq!(runs.belongs(&line(&[11, 1])), Belongs::Left);
        assert_eq!(runs.belongs(&line(&[15, 11, 1])), Belongs::Left);
        assert_eq!(runs.belongs(&line(&[12, 1])), Belongs::Nobody, "it had exited");
        assert_eq!(runs.begin(&line(&[11, 1]), coder(), None), Err(Refusal::Left));
        assert_eq!(runs.belongs(&line(&[16, 10, 1])), Belongs::Left, "never seen, and below the root");
        runs.begin(&line(&[30, 1]), coder(), None).unwrap();
        runs.end(process(30), |_| false);
        assert!(runs.is_empty(), "who has exited is forgotten");
    }

    #[test]
    fn a_root_of_an_earlier_life_goes_on_as_what_it_was_and_below_it_nobody_is_anything_before() {
        let mut runs = Runs::default();
        runs.was_root(process(10), id("/test/coder"));
        assert_eq!(runs.belongs(&line(&[11, 10, 2, 1])), Belongs::Left);
        assert!(!runs.is_empty());
        let other = Run { identity: id("/test/other"), uid: 1000 };
        assert_eq!(runs.begin(&line(&[10, 2, 1]), other, None), Err(Refusal::Left));
        runs.begin(&line(&[10, 2, 1]), coder(), None).unwrap();
        assert_eq!(runs.belongs(&line(&[11, 10, 2, 1])), Belongs::To(process(10), &coder()));
    }

    #[test]
    fn what_was_seen_before_a_root_began_again_never_becomes_somebody_else_either() {
        let mut runs = begun();
        assert!(runs.saw(process(10), process(11), |_| true));
        runs.end(process(10), |_| true);
        runs.begin(&line(&[10, 2, 1]), coder(), None).unwrap();
        assert_eq!(runs.belongs(&line(&[11, 10, 2, 1])), Belongs::To(process(10), &coder()));
        runs.end(process(10), |process| process.pid != 10);
        assert_eq!(
            runs.belongs(&line(&[11, 1])),
            Belongs::Left,
            "an orphan that asked in the first life only"
        );
    }

    #[test]
    fn who_finds_no_room_gets_nothing_unless_others_have_exited() {
        let mut runs = begun();
        let many = |pid| Process { pid, start_time: 8 };
        for pid in 0..i32::try_from(LEFT_MAX).unwrap() {
            assert!(runs.saw(process(10), many(pid), |_| true));
        }
        assert!(!runs.saw(process(10), process(11), |_| true));
        assert!(runs.saw(process(10), many(0), |_| true), "who was seen before stays so");
        assert!(runs.saw(process(10), process(11), |process| process != many(0)));
    }

    #[test]
    fn a_root_that_lost_its_line_goes_on_as_what_it_was_and_as_nothing_else() {
        let mut runs = begun();
        assert!(runs.saw(process(10), process(11), |_| true));
        runs.end(process(10), |_| true);
        let other = Run { identity: id("/test/other"), uid: 1000 };
        assert_eq!(runs.begin(&line(&[10, 2, 1]), other, None), Err(Refusal::Left));
        runs.begin(&line(&[10, 2, 1]), coder(), None).unwrap();
        assert_eq!(runs.belongs(&line(&[11, 10, 1])), Belongs::To(process(10), &coder()));
    }

    #[test]
    fn an_identity_has_as_many_runs_at_a_time_as_it_may_and_others_are_not_counted() {
        let (mut runs, most) = (Runs::default(), NonZeroU16::new(2));
        let other = Run { identity: id("/test/other"), uid: 1000 };
        runs.begin(&line(&[10, 1]), other, None).unwrap();
        runs.begin(&line(&[11, 1]), coder(), most).unwrap();
        runs.begin(&line(&[12, 1]), coder(), most).unwrap();
        let refused = Err(Refusal::Most(id("/test/coder"), most.unwrap()));
        assert_eq!(runs.begin(&line(&[13, 1]), coder(), most), refused);
        runs.end(process(12), |_| true);
        runs.begin(&line(&[13, 1]), coder(), most).unwrap();
    }

    #[test]
    fn a_node_has_room_for_a_named_number_of_runs() {
        let mut runs = Runs::default();
        for pid in 0..i32::try_from(RUNS_MAX).unwrap() {
            runs.begin(&[process(pid + 2)], coder(), None).unwrap();
        }
        assert_eq!(runs.begin(&[process(1)], coder(), None), Err(Refusal::TooMany));
    }
}
