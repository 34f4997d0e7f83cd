//! Suites with real foreign parts: each is a folder below `integration/` with an executable `run`.
//!
//! A part that can't run here says "not run: reason" and exits 77; it is never counted as passed.

use std::process::Command;

use crate::{Outcome, files, lanes};

const NOT_RUN: i32 = 77;

/// Runs one suite, or all in alphabetical order.
pub fn run(only: Option<&str>) -> Outcome {
    let suites = list()?;
    let chosen: Vec<&String> = suites.iter().filter(|s| only.is_none_or(|o| o == s.as_str())).collect();
    if chosen.is_empty() {
        return Err(format!("no such suite: {}; there are: {}", only.unwrap_or("(none)"), suites.join(", ")));
    }
    lanes::build_all()?;
    let (mut passed, mut failed, mut skipped) = (0, Vec::new(), 0);
    for suite in chosen {
        println!("-- integration {suite}");
        match exit_code(suite)? {
            0 => passed += 1,
            NOT_RUN => skipped += 1,
            code => failed.push(format!("{suite} (exit {code})")),
        }
    }
    println!("integration suites: {passed} passed, {} failed, {skipped} not run", failed.len());
    if failed.is_empty() { Ok(()) } else { Err(format!("integration failed: {}", failed.join(", "))) }
}

fn list() -> Result<Vec<String>, String> {
    let folder = files::root().join("integration");
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("cannot list {}: {e}", folder.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(Result::ok)
        .filter(|e| e.path().join("run").is_file())
        .filter_map(|e| e.file_name().into_string().ok())
        .collect();
    names.sort_unstable();
    Ok(names)
}

fn exit_code(suite: &str) -> Result<i32, String> {
    let bin = files::root().join("target/ci");
    let env_or = |name: &str, default: &str| {
        std::env::var(name).unwrap_or_else(|_| bin.join(default).display().to_string())
    };
    let status = Command::new("bash")
        .arg(files::root().join("integration").join(suite).join("run"))
        .current_dir(files::root().join("integration").join(suite))
        .env("SERVER_BIN", env_or("SERVER_BIN", "avouch-server"))
        .env("AGENT_BIN", env_or("AGENT_BIN", "avouch-agent"))
        .status()
        .map_err(|e| format!("cannot run suite {suite}: {e}"))?;
    Ok(status.code().unwrap_or(1))
}
