//! What the binary does for the verbs that need the server itself: run, validate, backup, restore.
//!
//! Prints for people; everything else of the command line is in the `avouch` crate.

use std::path::{Path, PathBuf};

use avouch::descriptors;
use avouch::out::Out;
use avouch::turns;
use avouch::verbs::flags::FlagError;
use nix::sys::stat::{Mode, umask};

use crate::config::{self, ConfigError, Flags, ServerConfig};
use crate::limits::WORKER_THREADS_MAX;
use crate::{app, clock};

const OK: u8 = 0;
const FAILED: u8 = 1;

fn say(text: &str) {
    Out::standard().line(text);
}

fn fail(text: &str) -> u8 {
    Out::standard().complain(&format!("{text}\n"));
    FAILED
}

/// Reports a configuration that can't be used; asked for help, gives only that.
fn invalid(error: &ConfigError, gist: &str) -> u8 {
    match error {
        ConfigError::Flag(FlagError::Help(usage)) => {
            Out::standard().complain(usage);
            OK
        }
        ConfigError::Flag(FlagError::Bad { message, usage }) => {
            Out::standard().complain(usage);
            fail(&format!("{gist}{message}"))
        }
        other => fail(&format!("{gist}{other}")),
    }
}

/// Runs the server in the foreground.
#[must_use]
pub fn run(args: &[String]) -> u8 {
    let config = match config::load("run", args) {
        Ok(config) => config,
        Err(error) => return invalid(&error, ""),
    };
    umask(Mode::S_IWGRP | Mode::S_IRWXO);
    // A lower limit than possible is no reason not to start.
    let _ = descriptors::raise_limit();
    let turns = turns::short();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads(cores))
        .thread_name("avouch-server")
        .enable_all()
        .build();
    match runtime.map(|runtime| runtime.block_on(app::run(config, turns))) {
        Ok(Ok(())) => OK,
        Ok(Err(error)) => fail(&format!("Error: {error}")),
        Err(error) => fail(&format!("Error: unable to start threads: {error}")),
    }
}

/// One thread for each core, but two at least, so that one that blocks for a moment does not stop everything.
fn worker_threads(cores: usize) -> usize {
    cores.clamp(2, WORKER_THREADS_MAX)
}

/// Checks the configuration.
#[must_use]
pub fn validate(args: &[String]) -> u8 {
    match config::validate(args) {
        Ok(()) => {
            say("Avouch server configuration file is valid.");
            OK
        }
        Err(error) => invalid(&error, "Avouch server configuration file is invalid: "),
    }
}

/// The configuration and the one file name that `backup` and `restore` take.
fn with_file(verb: &'static str, args: &[String]) -> Result<(ServerConfig, PathBuf), ConfigError> {
    let flags = Flags::parse(verb, args)?;
    match flags.rest.as_slice() {
        [file] => {
            let config = config::load_with(&flags)?;
            if config.datastore.file == Path::new(":memory:") {
                return Err(ConfigError::Plugin(
                    "the configured store is in memory: it ends with its server".into(),
                ));
            }
            Ok((config, file.into()))
        }
        [] => Err(ConfigError::Plugin("expected the name of a FILE after the flags".into())),
        [_, unexpected, ..] => Err(ConfigError::Argument(unexpected.clone())),
    }
}

/// Copies the store to a new file, also while a server runs.
#[must_use]
pub fn backup(args: &[String]) -> u8 {
    let (config, file) = match with_file("backup [flags] FILE", args) {
        Ok(given) => given,
        Err(error) => return invalid(&error, "Error: "),
    };
    let (progress, begun) = (Out::standard().progress(), avouch::clock::now().mono);
    let copied = avouch_store::backup(&config.datastore.file, &file, |done, all| {
        progress.share("writing the backup", begun, done, all);
    });
    progress.clear();
    match copied {
        Ok(position) => {
            let revision = position.revision.0;
            say(&format!("Backup written to {} at revision {revision}.", file.display()));
            OK
        }
        Err(error) => fail(&format!("Error: {error}")),
    }
}

/// Puts a backup in the place of the store, as a new epoch. No server may run on it.
#[must_use]
pub fn restore(args: &[String]) -> u8 {
    let (config, file) = match with_file("restore [flags] FILE", args) {
        Ok(given) => given,
        Err(error) => return invalid(&error, "Error: "),
    };
    let (progress, begun) = (Out::standard().progress(), avouch::clock::now().mono);
    let restored = avouch_store::restore(&file, &config.datastore.file, clock::now().wall, |done, all| {
        progress.share("restoring the backup", begun, done, all);
    });
    progress.clear();
    match restored {
        Ok(restored) => {
            let revision = restored.position.revision.0;
            say(&format!("Restored {} at revision {revision}, in a new epoch.", file.display()));
            if let Some(old) = restored.set_aside {
                say(&format!("The store that was there is now {}.", old.display()));
            }
            OK
        }
        Err(error) => fail(&format!("Error: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_threads_follow_the_cores_between_two_and_eight() {
        assert_eq!([1, 2, 3, 8, 9, 256].map(worker_threads), [2, 2, 3, 8, 8, 8]);
    }
}
