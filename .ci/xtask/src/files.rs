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

/// Writes a generated page, or with `check` fails when it is not what it would be now.
pub fn write_or_compare(path: &str, text: &str, check: bool, command: &str) -> Outcome {
    if !check {
        return std::fs::write(root().join(path), text).map_err(|e| format!("cannot write {path}: {e}"));
    }
    // A page that is not there is as stale as one that differs.
    if read(path).unwrap_or_default() == text {
        Ok(())
    } else {
        Err(format!("{path} is stale: run `{command}`"))
    }
}

/// A text as one cell of a table.
pub fn cell(text: &str) -> String {
    text.replace('|', "\\|")
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
