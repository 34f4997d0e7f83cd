//! One run of one seed, many runs on all cores, and what is said of a run that fails.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use avouch_engine::faults::{Fault, plant};
use avouch_engine::invariants::Broken;

use crate::actions::{Action, draw};
use crate::coverage::Coverage;
use crate::shrink::shrink;
use crate::trace::{Tracing, heading};
use crate::world::{Tally, World};

/// Virtual length of the troubled part: one hour and a half, longer than two authorities live.
pub const LENGTH: u64 = 90 * 60_000;

/// A run, all of it decided.
#[derive(Clone, Debug)]
pub struct Run {
    pub seed: u64,
    pub fault: Option<Fault>,
    pub actions: Vec<Action>,
}

/// What was broken, and when.
#[derive(Debug)]
pub struct Failure {
    pub step: u64,
    pub broken: Broken,
    /// The last lines, and all that people and faults did; empty if nothing was traced.
    pub lines: String,
    pub acts: String,
}

impl Run {
    pub fn of(seed: u64, fault: Option<Fault>) -> Self {
        Self { seed, fault, actions: draw(seed, LENGTH) }
    }

    pub fn go(&self, tracing: Tracing, watch: bool) -> Result<(Tally, Coverage), Box<Failure>> {
        plant(self.fault);
        let mut world = World::new(self.seed, LENGTH, &self.actions);
        world.tracing(tracing);
        if watch {
            world.watch();
        }
        if tracing == Tracing::All {
            println!("{}", heading());
        }
        let outcome = world.run();
        plant(None);
        match outcome {
            Ok(tally) => Ok((tally, world.visited())),
            Err(broken) => {
                let (lines, acts) = (world.trace().last(), world.trace().acts());
                Err(Box::new(Failure { step: world.steps(), broken, lines, acts }))
            }
        }
    }

    /// What to type to see this run again.
    pub fn replay(&self) -> String {
        let fault = self.fault.map(|fault| format!(" --fault {fault:?}")).unwrap_or_default();
        let whole = draw(self.seed, LENGTH).len() == self.actions.len();
        let numbers: Vec<_> = self.actions.iter().map(|action| action.number.to_string()).collect();
        let only = if whole { String::new() } else { format!(" --only {}", numbers.join(",")) };
        format!("cargo xtask sim --seed {}{fault}{only}", self.seed)
    }

    /// Runs a failing run once more for its last lines. A run that fails does so each time.
    pub fn report(&self) -> String {
        match self.go(Tracing::Last, false) {
            Ok(_) => format!("seed {} fails no more: something but the seed decides\n", self.seed),
            Err(failure) => {
                let Failure { step, broken, lines, .. } = *failure;
                let replay = self.replay();
                format!(
                    "seed {}, step {step}: {broken}\nreplay: {replay} --trace\nshrink: {replay} --shrink\n{lines}",
                    self.seed
                )
            }
        }
    }

    /// The fewest actions that still break the same promise, and how many runs it took to find them.
    pub fn smallest(&self, number: u8) -> (Self, u64) {
        let mut runs = 0;
        let actions = shrink(&self.actions, |actions| {
            runs += 1;
            let run = Self { actions: actions.to_vec(), ..self.clone() };
            run.go(Tracing::Off, false).is_err_and(|failure| failure.broken.number == number)
        });
        (Self { actions, ..self.clone() }, runs)
    }
}

/// What many runs have seen.
#[derive(Debug, Default)]
pub struct Sum {
    pub seeds: u64,
    pub seconds: f64,
    pub tally: Tally,
    pub coverage: Coverage,
    /// Seeds that fail, the smallest first.
    pub failed: Vec<u64>,
}

impl Sum {
    pub fn pace(&self) -> String {
        let rate = self.seeds as f64 / self.seconds.max(0.001);
        format!("{} seeds in {:.1} s: {rate:.1} seeds/s; {:?}", self.seeds, self.seconds, self.tally)
    }
}

/// Runs that failed before no more are begun.
const FAILURES_MAX: usize = 10;

/// Runs all seeds of a range, on all cores.
pub fn run_all(seeds: std::ops::Range<u64>, fault: Option<Fault>, watch: bool) -> Sum {
    let begun = Instant::now();
    let (next, failures) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let work = || {
        let mut sum = Sum::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end || failures.load(Ordering::Relaxed) >= FAILURES_MAX as u64 {
                return sum;
            }
            sum.seeds += 1;
            match Run::of(seed, fault).go(Tracing::Off, watch) {
                Ok((tally, coverage)) => {
                    sum.tally.add(&tally);
                    sum.coverage.add(&coverage);
                }
                Err(_) => {
                    failures.fetch_add(1, Ordering::Relaxed);
                    sum.failed.push(seed);
                }
            }
        }
    };
    let mut all = Sum::default();
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let sum = thread.join().expect("a run does not panic");
            all.seeds += sum.seeds;
            all.tally.add(&sum.tally);
            all.coverage.add(&sum.coverage);
            all.failed.extend(sum.failed);
        }
    });
    all.failed.sort_unstable();
    all.seconds = begun.elapsed().as_secs_f64();
    all
}
