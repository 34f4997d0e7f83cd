//! The one door to every chore: build, test, tidy, generate, measure.
//!
//! Never depends on the product's crates: it must work when they do not compile.

#![allow(clippy::print_stdout, clippy::disallowed_methods)] // a tool for the terminal that times its own lanes

mod claims;
mod conformance;
mod files;
mod fuzz;
mod r#gen;
mod integration;
mod lanes;
mod proofs;
mod scenarios;
mod tidy;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask COMMAND

  up [--once]            build, start a private server and agent, show your first SVID; Ctrl-C stops
  demo [--once]          build, start a small company with AI agents, and see twelve scenes of it; Ctrl-C stops
  test [--quick]         everything that needs no network and no root; --quick leaves out the real binaries
  tidy                   house rules, arrows, generated files
  gen [--check]          write (or compare) the code generated from proto/spec
  conformance [--check]  write (or compare) docs/CONFORMANCE.md
  claims [--check]       write (or compare) docs/CLAIMS.md and docs/SCENARIOS.md
  integration [SUITE]    suites with real foreign parts; without a name lists and runs all
  sim [OPTIONS]          the whole system under virtual time: replay, trace, shrink a seed, or run many (sim --help)
  fuzz TARGET            one parser of outside bytes under libFuzzer, by hand
  bench [--release] [PART...] [--check]
                         figures, each a ratio to a yardstick of the same run; --help lists the parts
  ci                     what CI runs: format, lints, dependency rules, tests, integration

Examples:
  cargo xtask up --once
  cargo xtask integration clients
";

/// What a chore ends with: nothing, or a sentence for the person at the terminal.
pub type Outcome = Result<(), String>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["up", rest @ ..] => lanes::hand_over(&["up"], rest),
        ["demo", rest @ ..] => lanes::hand_over(&["demo", "up"], rest),
        ["test"] => lanes::test(lanes::Depth::Full),
        ["test", "--quick"] => lanes::test(lanes::Depth::Quick),
        ["tidy"] => tidy::run(),
        ["gen"] => r#gen::run(false),
        ["gen", "--check"] => r#gen::run(true),
        ["conformance"] => conformance::run(false),
        ["conformance", "--check"] => conformance::run(true),
        ["claims"] => claims::run(false).and_then(|()| scenarios::run(false)),
        ["claims", "--check"] => claims::run(true).and_then(|()| scenarios::run(true)),
        ["integration"] => integration::run(None),
        ["integration", suite] => integration::run(Some(suite)),
        ["bench", rest @ ..] => lanes::bench(rest),
        ["sim", options @ ..] => lanes::sim(options),
        ["fuzz", words @ ..] => fuzz::run(words),
        ["ci"] => lanes::ci(),
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        other => Err(format!("unknown command `{}`\n\n{HELP}", other.join(" "))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
