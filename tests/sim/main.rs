//! The simulation: many seeds, every promise asked after every step, planted mistakes found.
//!
//! `cargo xtask sim --help` tells how to replay, trace and shrink a seed; docs/SIMULATION.md how to read it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods // seeds per second are counted by a clock
)]

mod actions;
mod agent;
mod clock;
mod coverage;
mod feed;
mod host;
mod net;
mod orders;
mod people;
mod processes;
mod promises;
mod rng;
mod runs;
mod server;
mod shrink;
mod trace;
mod trouble;
mod world;

use avouch_engine::faults::Fault;
use runs::{Run, run_all};
use trace::Tracing;

/// Seeds in the ordinary test run.
const SEEDS: u64 = 120;
/// Seeds within which a planted mistake must be found.
const SEEDS_TO_FIND: u64 = 200;

#[test]
fn every_promise_holds_on_every_seed_and_everything_listed_is_visited() {
    if let Some(outcome) = orders::carry_out() {
        outcome.unwrap_or_else(|report| panic!("{report}"));
        return;
    }
    let sum = run_all(0..SEEDS, None, true);
    let (table, missing) = sum.coverage.table();
    println!("{table}{}", sum.pace());
    if let Some(seed) = sum.failed.first() {
        panic!("seeds that fail: {:?}\n{}", sum.failed, Run::of(*seed, None).report());
    }
    assert_eq!(sum.tally.missing(), None, "the runs were too calm: {:?}", sum.tally);
    assert_eq!(
        missing, 0,
        "never visited, see the table above: the runs are too calm, or a machine has changed"
    );
}

#[test]
fn one_seed_gives_one_run() {
    let steps = || Run::of(7, None).go(Tracing::Last, false).map(|(t, _)| format!("{t:?}")).ok();
    assert!(steps().is_some());
    assert_eq!(steps(), steps());
}

/// Finds a planted mistake as one of the promises it breaks.
fn finds(fault: Fault, numbers: &[u8]) {
    let found = (0..SEEDS_TO_FIND).find_map(|seed| {
        let run = Run::of(seed, Some(fault));
        Some((run.go(Tracing::Off, false).err()?, run))
    });
    let (failure, run) =
        found.unwrap_or_else(|| panic!("{fault:?} was not found within {SEEDS_TO_FIND} seeds"));
    println!("{fault:?} is caught at seed {}: {}", run.seed, failure.broken);
    assert!(
        numbers.contains(&failure.broken.number),
        "{fault:?} is found as something else:\n{}",
        run.report()
    );
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
    finds(Fault::DropWithdrawal, &[10, 11]);
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

#[test]
fn a_revision_gap_that_is_ignored_is_found() {
    finds(Fault::IgnoreGap, &[10]);
}

#[test]
fn a_position_of_another_life_that_is_taken_for_ours_is_found() {
    finds(Fault::ResumeAcrossEpochs, &[10]);
}

#[test]
fn a_resume_that_forgets_other_aliases_is_found() {
    finds(Fault::ForgetAliasChange, &[10]);
}

#[test]
fn a_pause_that_nobody_is_told_of_is_found() {
    finds(Fault::PauseInSilence, &[1, 10, 11]);
}

#[test]
fn a_pause_that_some_nodes_are_not_told_of_is_found() {
    finds(Fault::PauseForgetsAliases, &[11]);
}

#[test]
fn a_token_of_a_withdrawn_entry_is_found() {
    finds(Fault::GrantWithdrawn, &[1]);
}

#[test]
fn a_token_that_is_lent_on_after_its_entry_changed_is_found() {
    finds(Fault::KeepLentTokens, &[1]);
}

#[test]
fn a_cache_without_a_limit_is_found() {
    finds(Fault::KeepEveryToken, &[9]);
}

#[test]
fn two_authorities_that_sign_are_found() {
    finds(Fault::TwoSigners, &[4]);
}

#[test]
fn a_failure_that_is_tried_again_at_once_is_found() {
    finds(Fault::RetryAtOnce, &[9]);
}

#[test]
fn a_certificate_kept_although_its_key_is_lost_is_found() {
    finds(Fault::TakeUpWithoutKey, &[4]);
}

#[test]
fn a_process_number_given_out_again_is_found() {
    finds(Fault::ReusePid, &[1]);
}

#[test]
fn a_commit_confirmed_before_it_is_safe_is_found() {
    finds(Fault::ConfirmUnsynced, &[6, 8]);
}

#[test]
fn a_backup_put_back_in_its_old_epoch_is_found() {
    finds(Fault::RestoreInOldEpoch, &[6]);
}
