//! What `cargo xtask sim` was asked for: one seed to replay, trace or shrink, many seeds, or the table of what is
//! visited. The words come in `AVOUCH_SIM`.

use std::collections::BTreeSet;

use avouch_engine::faults::Fault;

use crate::runs::{Run, run_all};
use crate::trace::Tracing;

/// Seeds of `--coverage` alone.
const SEEDS: u64 = 200;

#[derive(Debug, Default)]
struct Order {
    seed: Option<u64>,
    trace: bool,
    shrink: bool,
    only: Option<BTreeSet<usize>>,
    fault: Option<Fault>,
    seeds: Option<u64>,
    from: u64,
    coverage: bool,
}

fn whole<T: std::str::FromStr>(option: &str, word: Option<&str>) -> Result<T, String> {
    let word = word.ok_or(format!("{option}: expected a number after it"))?;
    word.parse().map_err(|_| format!("{option} {word}: expected a whole number"))
}

fn fault(word: Option<&str>) -> Result<Fault, String> {
    let all = || Fault::ALL.map(|fault| format!("{fault:?}")).join(", ");
    let found = Fault::ALL.into_iter().find(|fault| Some(format!("{fault:?}").as_str()) == word);
    found.ok_or_else(|| format!("--fault {}: expected one of {}", word.unwrap_or_default(), all()))
}

impl Order {
    fn parse(text: &str) -> Result<Self, String> {
        let mut order = Self::default();
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            match word {
                "--seed" => order.seed = Some(whole(word, words.next())?),
                "--seeds" => order.seeds = Some(whole(word, words.next())?),
                "--from" => order.from = whole(word, words.next())?,
                "--trace" => order.trace = true,
                "--shrink" => order.shrink = true,
                "--coverage" => order.coverage = true,
                "--fault" => order.fault = Some(fault(words.next())?),
                "--only" => {
                    let list = words.next().unwrap_or_default().split(',').filter(|n| !n.is_empty());
                    order.only = Some(list.map(|n| whole(word, Some(n))).collect::<Result<_, _>>()?);
                }
                other => return Err(format!("unknown option `{other}`: see cargo xtask sim --help")),
            }
        }
        if order.seed.is_none() && (order.trace || order.shrink || order.only.is_some()) {
            return Err("--trace, --shrink and --only are about one seed: add --seed S".to_owned());
        }
        Ok(order)
    }
}

/// Carries out what was asked for, if anything was. `Err`: what is broken, or not understood.
pub fn carry_out() -> Option<Result<(), String>> {
    let text = std::env::var("AVOUCH_SIM").ok()?;
    Some(Order::parse(&text).and_then(|order| match order.seed {
        Some(seed) => one(seed, &order),
        None => many(&order),
    }))
}

fn one(seed: u64, order: &Order) -> Result<(), String> {
    let mut run = Run::of(seed, order.fault);
    if let Some(only) = &order.only {
        run.actions.retain(|action| only.contains(&action.number));
    }
    if order.shrink {
        return smallest(&run);
    }
    let tracing = if order.trace { Tracing::All } else { Tracing::Off };
    match run.go(tracing, order.coverage) {
        Ok((tally, _)) => {
            println!("seed {seed} breaks no promise; {tally:?}");
            Ok(())
        }
        Err(_) => Err(run.report()),
    }
}

fn smallest(run: &Run) -> Result<(), String> {
    let Err(failure) = run.go(Tracing::Off, false) else {
        println!("seed {} breaks no promise: nothing to shrink", run.seed);
        return Ok(());
    };
    let (small, runs) = run.smallest(failure.broken.number);
    println!("{} of {} actions are left after {runs} runs:", small.actions.len(), run.actions.len());
    if let Err(failure) = small.go(Tracing::Last, false) {
        println!("{}", failure.acts);
    }
    Err(small.report())
}

fn many(order: &Order) -> Result<(), String> {
    let count = order.seeds.unwrap_or(SEEDS);
    let sum = run_all(order.from..order.from.saturating_add(count), order.fault, order.coverage);
    println!("{}", sum.pace());
    if order.coverage {
        let (table, missing) = sum.coverage.table();
        println!("{table}{missing} never visited");
    }
    match sum.failed.first() {
        None => Ok(()),
        Some(seed) => {
            let report = Run::of(*seed, order.fault).report();
            Err(format!("seeds that fail: {:?}\n{report}", sum.failed))
        }
    }
}

#[test]
fn an_order_that_is_not_understood_says_what_was_expected() {
    let refused = |text: &str| Order::parse(text).unwrap_err();
    assert!(refused("--seed x").contains("whole number"));
    assert!(refused("--trace").contains("--seed S"));
    assert!(refused("--fault Nothing").contains("IgnoreGap"));
    assert!(refused("--sed 1").contains("--help"));
}
