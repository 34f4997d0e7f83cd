//! What the binary does for the verbs that need the agent itself: run and validate.
//!
//! Prints for people; everything else of the command line is in the `avouch` crate.

use avouch::out::Out;
use avouch::turns;
use avouch::verbs::flags::FlagSet;
use nix::sys::stat::{Mode, umask};

use crate::app;
use crate::config::{self, AgentConfig, ConfigError};
use crate::confine::confine;
use crate::limits::WORKER_THREADS_MAX;
use crate::sealed::place;

const OK: u8 = 0;
const FAILED: u8 = 1;

fn fail(text: &str) -> u8 {
    Out::standard().complain(&format!("{text}\n"));
    FAILED
}

/// The flags of both verbs, for their help.
fn known(verb: &'static str) -> FlagSet {
    FlagSet::new(verb)
        .text("config", "conf/agent/agent.conf", "Path to the configuration file")
        .bool("expandEnv", false, "Expand environment variables in the configuration file")
        .text("serverAddress", "", "Name or address of the server")
        .text("serverPort", "", "TCP port of the server")
        .text("trustDomain", "", "Name of the trust domain")
        .text("dataDir", "", "Directory for what the agent keeps")
        .text("socketPath", "", "Path of the Workload API's socket")
        .text("trustBundle", "", "File with the server's authorities for the first contact")
        .text("trustBundleFormat", "", "'pem' or 'spiffe'")
        .bool("insecureBootstrap", false, "Trust whatever server answers first")
        .text("rebootstrapMode", "", "'never'")
        .text("joinToken", "", "One-time proof of the node; better in a file")
        .text("joinTokenFile", "", "File with the join token")
        .bool("allowUnauthenticatedVerifiers", false, "Give the bundle to processes without an identity too")
        .text("logFile", "", "File to write logs to")
        .text("logFormat", "", "'text' or 'json'")
        .text("logLevel", "", "'error', 'warn', 'info', 'debug' or 'trace'")
        .bool("logSourceLocation", false, "Add file and line to log lines")
}

/// Was help asked for? Then it has been given.
fn helped(verb: &'static str, args: &[String]) -> bool {
    let asked = args.iter().any(|a| matches!(a.as_str(), "-h" | "--h" | "-help" | "--help"));
    if asked {
        Out::standard().complain(&known(verb).usage());
    }
    asked
}

/// Reports a configuration that can't be used; a wrong flag after the flags there are.
fn invalid(verb: &'static str, error: &ConfigError, gist: &str) -> u8 {
    if matches!(error, ConfigError::Flag(_)) {
        Out::standard().complain(&known(verb).usage());
    }
    fail(&format!("{gist}{error}"))
}

/// Runs the agent in the foreground.
#[must_use]
pub fn run(args: &[String]) -> u8 {
    if helped("run", args) {
        return OK;
    }
    match config::load(args) {
        Ok(config) => start(config),
        Err(error) => invalid("run", &error, ""),
    }
}

/// One thread for each core, but two at least, so that one that blocks for a moment does not stop everything.
fn worker_threads(cores: usize) -> usize {
    cores.clamp(2, WORKER_THREADS_MAX)
}

fn start(config: AgentConfig) -> u8 {
    // The directory of the workload socket must be open to all; its own code sets the mode it needs.
    umask(Mode::S_IWGRP | Mode::S_IRWXO);
    // Before there is a second thread.
    let confined = confine(&config, place::runtime_dir().as_deref());
    let turns = turns::short();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads(cores))
        .thread_name("avouch-agent")
        .enable_all()
        .build();
    match runtime.map(|runtime| runtime.block_on(app::run(config, confined, turns))) {
        Ok(Ok(())) => OK,
        Ok(Err(error)) => fail(&format!("Error: {error}")),
        Err(error) => fail(&format!("Error: unable to start threads: {error}")),
    }
}

/// Checks the configuration and says what is wrong with it.
#[must_use]
pub fn validate(args: &[String]) -> u8 {
    if helped("validate", args) {
        return OK;
    }
    match config::validate(args) {
        Ok(()) => {
            Out::standard().line("Avouch agent configuration file is valid.");
            OK
        }
        Err(error) => invalid("validate", &error, "Avouch agent configuration file is invalid: "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Flags;

    #[test]
    fn worker_threads_follow_the_cores_between_two_and_four() {
        assert_eq!([1, 2, 3, 4, 5, 256].map(worker_threads), [2, 2, 3, 4, 4, 4]);
    }

    #[test]
    fn the_help_names_only_flags_that_are_taken() {
        let usage = known("run").usage();
        let names: Vec<_> = usage.lines().filter_map(|l| l.strip_prefix("  -")?.split(' ').next()).collect();
        assert_eq!(names.len(), 18);
        for name in names {
            let taken = Flags::parse(&[format!("-{name}=true")]);
            assert!(taken.is_ok(), "-{name}: {taken:?}");
        }
    }
}
