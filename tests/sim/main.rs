//! The simulation: many seeds, every promise asked after every step, planted mistakes found.
//!
//! `AVOUCH_SIM_SEED=S` replays one seed and prints every event; `AVOUCH_SIM_SEEDS=N` runs N seeds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod agent;
mod clock;
mod net;
mod people;
mod promises;
mod rng;
mod server;
mod world;

use avouch_engine::faults::{Fault, plant};
use avouch_engine::invariants::Broken;
use world::{Scenario, Tally, World};

/// Seeds in the ordinary test run.
const SEEDS: u64 = 60;
/// Seeds within which a planted mistake must be found.
const SEEDS_TO_FIND: u64 = 60;
/// Virtual length of the troubled part: one hour and a half, longer than two authorities live.
const LENGTH: u64 = 90 * 60_000;

fn scenario(seed: u64) -> Scenario {
    let loss = [0, 1, 5, 20][usize::try_from(seed % 4).unwrap_or(0)];
    let sleep_at = seed.is_multiple_of(3).then_some(LENGTH / 2 + seed * 1_000);
    Scenario { seed, length: LENGTH, loss, bent_clocks: !seed.is_multiple_of(5), sleep_at }
}

fn run(seed: u64, echo: bool) -> Result<Tally, String> {
    let mut world = World::new(scenario(seed));
    world.echo = echo;
    world.run(scenario(seed)).map_err(|broken: Broken| {
        format!("seed {seed}: {broken}\nreplay: cargo xtask sim --seed {seed}\n{}", world.trace())
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn every_promise_holds_on_every_seed() {
    plant(None);
    if let Some(seed) = number("AVOUCH_SIM_SEED") {
        let outcome = run(seed, true);
        assert!(outcome.is_ok(), "{}", outcome.unwrap_err());
        return;
    }
    let mut sum = Tally::default();
    for seed in 0..number("AVOUCH_SIM_SEEDS").unwrap_or(SEEDS) {
        match run(seed, false) {
            Ok(tally) => sum.add(&tally),
            Err(report) => panic!("{report}"),
        }
    }
    println!("{sum:?}");
    assert_eq!(sum.missing(), None, "the runs were too calm: {sum:?}");
}

#[test]
fn one_seed_gives_one_run() {
    plant(None);
    let steps = |_| run(7, false).map(|t| (t.steps, t.delivered, t.broken_streams));
    assert_eq!(steps(1), steps(2));
}

/// Finds a planted mistake as one of the promises it breaks.
fn finds(fault: Fault, numbers: &[u8]) {
    plant(Some(fault));
    let found = (0..SEEDS_TO_FIND).find_map(|seed| run(seed, false).err());
    plant(None);
    let report = found.unwrap_or_else(|| panic!("{fault:?} was not found within {SEEDS_TO_FIND} seeds"));
    let fits = numbers.iter().any(|n| report.contains(&format!("INV-{n}:")));
    assert!(fits, "{fault:?} was found as something else:\n{report}");
}

#[test]
fn matching_without_the_subset_rule_is_found() {
    finds(Fault::MatchWithoutSubset, &[1]);
}

#[test]
fn an_authority_that_signs_too_early_is_found() {
    finds(Fault::SignBeforeKnown, &[4]);
}

#[test]
fn a_withdrawal_that_is_dropped_is_found() {
    finds(Fault::DropWithdrawal, &[10]);
}

#[test]
fn an_expired_svid_that_is_handed_out_is_found() {
    finds(Fault::DeliverExpired, &[2, 3]);
}

#[test]
fn an_authority_revoked_without_a_taint_is_found() {
    finds(Fault::RevokeUntainted, &[5]);
}

#[test]
fn a_change_without_an_audit_row_is_found() {
    finds(Fault::DeleteSilently, &[8]);
}

#[test]
fn an_acknowledgement_before_the_bundle_is_found() {
    finds(Fault::AckBeforeBundles, &[4]);
}
