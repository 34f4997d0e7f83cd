//! What the binary does for the verbs that need the agent itself: run and validate.
//!
//! Prints for people; everything else of the command line is in the `avouch` crate.

use avouch::out::Out;
use nix::sys::stat::{Mode, umask};

use crate::app;
use crate::config::{self, AgentConfig};
use crate::limits::WORKER_THREADS_MAX;

const OK: u8 = 0;
const FAILED: u8 = 1;

fn fail(text: &str) -> u8 {
    Out::standard().complain(&format!("{text}\n"));
    FAILED
}

/// Runs the agent in the foreground.
#[must_use]
pub fn run(args: &[String]) -> u8 {
    match config::load(args) {
        Ok(config) => start(config),
        Err(error) => fail(&error.to_string()),
    }
}

fn start(config: AgentConfig) -> u8 {
    // The directory of the workload socket must be open to all; its own code sets the mode it needs.
    umask(Mode::S_IWGRP | Mode::S_IRWXO);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(WORKER_THREADS_MAX);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads.max(2))
        .thread_name("avouch-agent")
        .enable_all()
        .build();
    match runtime.map(|runtime| runtime.block_on(app::run(config))) {
        Ok(Ok(())) => OK,
        Ok(Err(error)) => fail(&format!("Error: {error}")),
        Err(error) => fail(&format!("Error: unable to start threads: {error}")),
    }
}

/// Checks the configuration and says what is wrong with it.
#[must_use]
pub fn validate(args: &[String]) -> u8 {
    match config::validate(args) {
        Ok(()) => {
            Out::standard().line("Avouch agent configuration file is valid.");
            OK
        }
        Err(error) => fail(&format!("Avouch agent configuration file is invalid: {error}")),
    }
}
