//! The server binary: SPIRE's verbs, of which run, validate, backup and restore are ours.

use std::process::ExitCode;

use avouch::verbs::server::{Callbacks, main as verbs};
use avouch_server::verbs::{backup, restore, run, validate};

fn main() -> ExitCode {
    verbs(std::env::args().skip(1).collect(), &Callbacks { run, validate, backup, restore })
}
