//! `cargo xtask fuzz`: the targets of `tests/fuzz` under libFuzzer, by hand.
//!
//! Never part of `test` or `ci`: those replay and mutate the same corpora on the stable toolchain.

use std::process::Command;

use crate::{Outcome, files};

const FOLDER: &str = "tests/fuzz/libfuzzer";
const HELP: &str = "\
cargo xtask fuzz TARGET [SECONDS]    one target under libFuzzer, ten minutes if no time is given

It needs a nightly toolchain and cargo-fuzz. An input that it finds is a file below tests/fuzz/libfuzzer/artifacts: make it
a file of tests/fuzz/corpus/TARGET, and `cargo xtask test` replays it from then on.
";

/// `cargo xtask fuzz`.
pub fn run(words: &[&str]) -> Outcome {
    let (target, seconds) = match words {
        [target] => (*target, "600"),
        [target, seconds] => (*target, *seconds),
        _ => return Err(format!("{HELP}\n{}", targets()?)),
    };
    seconds.parse::<u64>().map_err(|_| format!("`{seconds}` is no time: expected whole seconds"))?;
    if !files::root().join(FOLDER).join("fuzz_targets").join(format!("{target}.rs")).is_file() {
        return Err(format!("no target `{target}`\n{}", targets()?));
    }
    missing()?;
    same_versions()?;
    let corpus = format!("tests/fuzz/corpus/{target}");
    let time = format!("-max_total_time={seconds}");
    let found = format!("{FOLDER}/found/{target}");
    std::fs::create_dir_all(files::root().join(&found)).map_err(|e| format!("cannot make {found}: {e}"))?;
    // New inputs go to the first folder; the second is only read.
    files::run(
        "cargo",
        &["+nightly", "fuzz", "run", "--fuzz-dir", FOLDER, target, &found, &corpus, "--", &time],
    )
}

fn targets() -> Result<String, String> {
    let folder = files::root().join(FOLDER).join("fuzz_targets");
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("cannot list {}: {e}", folder.display()))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut names: Vec<_> =
        paths.filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    Ok(format!("targets: {}", names.join(", ")))
}

/// What is fuzzed is what is shipped: the package begins with the workspace's lock file, to which cargo adds libFuzzer.
fn same_versions() -> Outcome {
    let (from, to) = (files::root().join("Cargo.lock"), files::root().join(FOLDER).join("Cargo.lock"));
    std::fs::copy(&from, &to)
        .map_err(|e| format!("cannot copy {} to {}: {e}", from.display(), to.display()))?;
    Ok(())
}

/// Says what is not installed and how to get it.
fn missing() -> Outcome {
    let works =
        |args: &[&str]| Command::new("cargo").args(args).output().is_ok_and(|output| output.status.success());
    if !works(&["+nightly", "--version"]) {
        return Err("no nightly toolchain: rustup toolchain install nightly --profile minimal".to_owned());
    }
    if !works(&["+nightly", "fuzz", "--version"]) {
        return Err("cargo-fuzz is not installed: cargo install cargo-fuzz --locked".to_owned());
    }
    Ok(())
}
