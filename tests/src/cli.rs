//! Runs a command line to its end, with its texts and exit code.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::daemon::binary;
use crate::within;

/// What a command left behind.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs a binary under test with these arguments.
pub async fn run<S: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = S>) -> Said {
    run_with(name, args, |_| {}).await
}

/// As [`run`], with a change to the command.
pub async fn run_with<S: AsRef<OsStr>>(
    name: &str,
    args: impl IntoIterator<Item = S>,
    change: impl FnOnce(&mut Command),
) -> Said {
    run_program(&binary(name), args, change).await
}

/// As [`run_with`], from a file of another place.
pub async fn run_program<S: AsRef<OsStr>>(
    program: &Path,
    args: impl IntoIterator<Item = S>,
    change: impl FnOnce(&mut Command),
) -> Said {
    let name = program.display().to_string();
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true).env_remove("SPIFFE_ENDPOINT_SOCKET");
    change(&mut command);
    let output = within(&format!("the end of {name}"), command.output()).await.unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
