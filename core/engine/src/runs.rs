//! Which process belongs to which run: a run is a root process, and everything below it is the run's.
//!
//! Never lets a process out again: what was seen in a run that has ended belongs to nobody. Never asks the system; the
//! line of a process and its ancestors is an argument.

use std::collections::{BTreeMap, BTreeSet};

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
}

/// All runs of a node.
#[derive(Debug, Default)]
pub struct Runs {
    live: BTreeMap<Process, Live>,
    left: BTreeSet<Process>,
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

    /// How many runs there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Begins a run. `line`: its root, then the ancestors.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn begin(&mut self, line: &[Process], run: Run) -> Result<(), Refusal> {
        let Some(root) = line.first().copied() else { return Err(Refusal::Left) };
        match self.belongs(line) {
            Belongs::To(at, other) if at == root => return Err(Refusal::Twice(other.identity.clone())),
            Belongs::To(_, other) => return Err(Refusal::Inside(other.identity.clone())),
            Belongs::Left => return Err(Refusal::Left),
            Belongs::Nobody => {}
        }
        if self.live.len() >= RUNS_MAX {
            return Err(Refusal::TooMany);
        }
        self.live.insert(root, Live { run, seen: BTreeSet::new() });
        Ok(())
    }

    /// Whom a process belongs to. `line`: the process, then its ancestors.
    #[must_use]
    pub fn belongs(&self, line: &[Process]) -> Belongs<'_> {
        for process in line {
            if let Some(live) = self.live.get(process) {
                return Belongs::To(*process, &live.run);
            }
            if self.left.contains(process) {
                return Belongs::Left;
            }
        }
        Belongs::Nobody
    }

    /// Remembers that a process was seen in a run.
    pub fn saw(&mut self, root: Process, process: Process) {
        if let Some(live) = self.live.get_mut(&root)
            && process != root
            && live.seen.len() < LEFT_MAX
        {
            live.seen.insert(process);
        }
    }

    /// Ends a run. What was seen in it and is `alive` gets no identity from now on.
    pub fn end(&mut self, root: Process, alive: impl Fn(Process) -> bool) {
        let Some(ended) = self.live.remove(&root) else { return };
        self.left.retain(|process| alive(*process));
        let more = ended.seen.into_iter().chain([root]).filter(|process| alive(*process));
        for process in more.take(LEFT_MAX.saturating_sub(self.left.len())).collect::<Vec<_>>() {
            self.left.insert(process);
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
        runs.begin(&line(&[10, 2, 1]), coder()).unwrap();
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
            runs.begin(&line(&[12, 11, 10, 1]), other.clone()),
            Err(Refusal::Inside(id("/test/coder")))
        );
        assert_eq!(runs.begin(&line(&[10, 2, 1]), other.clone()), Err(Refusal::Twice(id("/test/coder"))));
        runs.begin(&line(&[20, 2, 1]), other).unwrap();
        assert_eq!(runs.len(), 2);
    }

    #[test]
    fn what_was_seen_in_a_run_never_becomes_somebody_else_after_it() {
        let mut runs = begun();
        for pid in [11, 12] {
            runs.saw(process(10), process(pid));
        }
        runs.end(process(10), |process| process.pid != 12);
        // Its parents gone, the orphan hangs below init; its children below it.
        assert_eq!(runs.belongs(&line(&[11, 1])), Belongs::Left);
        assert_eq!(runs.belongs(&line(&[15, 11, 1])), Belongs::Left);
        assert_eq!(runs.belongs(&line(&[12, 1])), Belongs::Nobody, "it had exited");
        assert_eq!(runs.begin(&line(&[11, 1]), coder()), Err(Refusal::Left));
        runs.begin(&line(&[30, 1]), coder()).unwrap();
        runs.end(process(30), |_| false);
        assert!(runs.is_empty(), "who has exited is forgotten");
    }

    #[test]
    fn a_node_has_room_for_a_named_number_of_runs() {
        let mut runs = Runs::default();
        for pid in 0..i32::try_from(RUNS_MAX).unwrap() {
            runs.begin(&[process(pid + 2)], coder()).unwrap();
        }
        assert_eq!(runs.begin(&[process(1)], coder()), Err(Refusal::TooMany));
    }
}
