//! The agent binary: SPIRE's verbs, of which run and validate are ours.

use std::process::ExitCode;

use avouch::verbs::agent::{Callbacks, main as verbs};
use avouch_agent::verbs::{run, validate};

fn main() -> ExitCode {
    verbs(std::env::args().skip(1).collect(), &Callbacks { run, validate })
}
