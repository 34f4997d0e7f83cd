//! Files of the checkout as git knows them, and commands run in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;

/// The top folder of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

/// Paths of all files git tracks or would track, relative to the top, with a given ending.
pub fn with_ending(ending: &str) -> Result<Vec<String>, String> {
    let out = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .map_err(|e| format!("cannot run git: {e}"))?;
    let mut list: Vec<String> = String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter(|p| p.ends_with(ending) && root().join(p).is_file())
        .map(str::to_owned)
        .collect();
    list.sort_unstable();
    list.dedup();
    Ok(list)
}

/// The text of a file below the top.
pub fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(root().join(path)).map_err(|e| format!("cannot read {path}: {e}"))
}

/// Runs a program in the top folder with inherited output; a non-zero exit is an error.
pub fn run(program: &str, args: &[&str]) -> Outcome {
    eprintln!("+ {program} {}", args.join(" "));
    let status = Command::new(program)
        .args(args)
        .current_dir(root())
        .status()
        .map_err(|e| format!("cannot run {program}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{program} {}` ended with {status}", args.join(" "))) }
}

/// True if the program can be started at all.
pub fn exists(program: &str, probe: &str) -> bool {
    Command::new(program).arg(probe).output().is_ok_and(|o| o.status.success())
}
