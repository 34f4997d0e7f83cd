//! The README is true: every command in it is one that the binaries know, every file it names is there, and its first
//! command does what it says.

use std::path::{Path, PathBuf};

use avouch_tests::cli;
use tokio::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

/// Indented lines, and spans of code that begin with one of our programs.
fn commands(text: &str) -> Vec<String> {
    let blocks = text.lines().filter_map(|l| l.strip_prefix("    "));
    let spans = text.lines().filter(|l| !l.starts_with("    ")).flat_map(|l| l.split('`').skip(1).step_by(2));
    let ours = |s: &&str| s.starts_with("cargo ") || s.starts_with("avouch ") || s.starts_with("avouch-");
    let bare = |s: &str| s.split(" #").next().unwrap().split(" >").next().unwrap().trim().to_owned();
    blocks.chain(spans.filter(ours)).map(bare).collect()
}

/// The help of the chores.
async fn xtask_help() -> String {
    let path = cli_folder().join("xtask");
    let said = Command::new(path).arg("help").output().await.unwrap();
    String::from_utf8(said.stdout).unwrap()
}

/// Where this run's binaries are.
fn cli_folder() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().to_owned()
}

/// A SPIRE-spelled verb exists and has every flag that the line uses.
async fn verb_exists(program: &str, words: &[&str]) {
    let verb: Vec<_> = words.iter().take_while(|w| !w.starts_with('-')).copied().collect();
    let said = cli::run(program, verb.iter().copied().chain(["-help"])).await;
    assert_eq!(said.code, 0, "{program} {verb:?}: {said:?}");
    for flag in words.iter().filter(|w| w.starts_with('-')) {
        assert!(said.err.contains(&format!("  {flag}")), "{program} {verb:?} has no {flag}: {said:?}");
    }
}

#[tokio::test]
async fn every_command_is_one_that_the_binaries_know() {
    let (found, help) = (commands(&readme()), xtask_help().await);
    assert!(found.len() >= 10, "{found:?}");
    for command in found {
        let words: Vec<_> = command.split_whitespace().collect();
        match words.as_slice() {
            ["cargo", "xtask", chore, rest @ ..] => {
                let line = help.lines().find(|l| l.trim_start().split(' ').next() == Some(chore));
                let line = line.unwrap_or_else(|| panic!("no chore {chore}"));
                if let ("integration", [suite]) = (*chore, rest) {
                    assert!(root().join("integration").join(suite).is_dir(), "no suite {suite}");
                } else {
                    assert!(rest.iter().all(|flag| line.contains(flag)), "{command}: {line}");
                }
            }
            [program @ ("avouch-server" | "avouch-agent"), rest @ ..] => verb_exists(program, rest).await,
            ["avouch", verb, ..] => {
                let said = cli::run("avouch", [*verb, "--help"]).await;
                assert_eq!(said.code, 0, "{command}: {said:?}");
            }
            other => panic!("a command that nobody checks: {other:?}"),
        }
    }
}

#[test]
fn every_file_it_names_is_there() {
    let text = readme();
    let linked = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    let named = text.split('`').skip(1).step_by(2).filter(|s| s.ends_with('/') && !s.contains(' '));
    let names: Vec<_> = linked.chain(named).collect();
    assert!(names.len() >= 7, "{names:?}");
    for name in names {
        assert!(root().join(name).exists(), "{name}");
    }
}

/// Spans of code on a page of `docs/` that name something below one of the top folders.
fn paths_of(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(root().join("docs").join(page)).unwrap();
    // A test is named as `path/file.rs::test`.
    let places = text.split('`').skip(1).step_by(2).filter_map(|span| span.split("::").next());
    let tops = [
        ".ci/",
        "agent/",
        "attestors/",
        "cli/",
        "core/",
        "docs/",
        "integration/",
        "proto/",
        "server/",
        "tests/",
    ];
    places
        .filter(|s| tops.iter().any(|top| s.starts_with(top)) && !s.contains(' '))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_place_that_the_pages_name_is_there() {
    let pages = [("ARCHITECTURE.md", 15), ("SECURITY.md", 1)];
    for (page, at_least) in pages {
        let paths = paths_of(page);
        assert!(paths.len() >= at_least, "{page}: {paths:?}");
        for path in paths {
            assert!(root().join(&path).exists(), "{page}: {path}");
        }
    }
}

#[tokio::test]
async fn the_first_command_shows_the_lines_that_the_page_shows() {
    let said = cli::run("avouch", ["up", "--once"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let text = readme();
    let sample = text.split("```text\n").nth(1).unwrap().split("```").next().unwrap();
    for line in sample.lines() {
        let start = line.split('…').next().unwrap().trim_end();
        assert!(said.out.contains(start), "{start}: {said:?}");
    }
}

#[tokio::test]
async fn completions_are_there_for_the_shells_it_names() {
    for shell in ["bash", "zsh", "fish"] {
        let said = cli::run("avouch", ["completions", shell]).await;
        assert_eq!(said.code, 0, "{said:?}");
        for word in ["up", "explain", "completions", "--once", "admin-socket"] {
            let bare = word.trim_start_matches('-');
            assert!(said.out.contains(bare), "{shell}: {word}");
        }
    }
    assert_eq!(cli::run("avouch", ["completions", "ed"]).await.code, 64);
}
