//! Fuzz targets on the stable toolchain: every file of every corpus is replayed, and mutated the same way each time.
//!
//! `tests/fuzz/libfuzzer` runs the same functions for hours, by hand (`cargo xtask fuzz TARGET`). An input that it finds
//! becomes a file of the corpus.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout
)]

mod mutate;
mod targets;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mutate::Mutator;
use targets::{TARGETS, Target};

/// Mutations of each target in an ordinary test run.
const MUTATIONS: u32 = 50_000;
/// The same for what takes long: what goes through files, and rules.
const MUTATIONS_OF_SLOW: u32 = 300;
/// A corpus is replayed each time: its files are small.
const FILE_MAX: usize = 16 * 1024;

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(corpora().join(name))
        .unwrap_or_else(|e| panic!("the corpus of {name}: {e}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Runs one input; what makes it panic is printed so that it can be kept.
fn run(name: &str, target: Target, input: &[u8]) {
    if std::panic::catch_unwind(|| target(input)).is_err() {
        let kept = std::env::temp_dir().join(format!("avouch-fuzz-{name}"));
        std::fs::write(&kept, input).unwrap();
        panic!("{name} panics (message above) on {} bytes, kept as {}", input.len(), kept.display());
    }
}

#[test]
fn every_input_of_every_corpus_is_survived() {
    for (name, target) in TARGETS {
        let inputs = corpus(name);
        assert!(inputs.len() >= 2, "the corpus of {name} has {} files", inputs.len());
        for (path, input) in inputs {
            assert!(input.len() <= FILE_MAX, "{} is too long for a corpus", path.display());
            run(name, target, &input);
        }
    }
}

#[test]
fn every_mutation_of_every_corpus_is_survived() {
    for (name, target) in TARGETS {
        let inputs: Vec<Vec<u8>> = corpus(name).into_iter().map(|(_, input)| input).collect();
        let mut mutator = Mutator::new(name, inputs);
        let slow = matches!(name, "agent_state" | "server_keys" | "rules" | "spool");
        for _ in 0..if slow { MUTATIONS_OF_SLOW } else { MUTATIONS } {
            run(name, target, &mutator.next());
        }
    }
}

#[test]
fn every_corpus_and_every_libfuzzer_target_has_its_function() {
    let names = |folder: PathBuf| -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
    };
    let known: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(corpora()), known);
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/libfuzzer");
    assert_eq!(names(manifest.join("fuzz_targets")), known);
    let text = std::fs::read_to_string(manifest.join("Cargo.toml")).unwrap();
    let missing: Vec<_> = known.iter().filter(|name| !text.contains(&format!("name = \"{name}\""))).collect();
    assert!(missing.is_empty(), "no [[bin]] in libfuzzer/Cargo.toml: {missing:?}");
}
