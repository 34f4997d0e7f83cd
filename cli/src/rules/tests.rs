//! The verbs about rules, from their words to their answers and exit codes.

use avouch::out::Out;
use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

/// Exit code, standard output and standard error of a line after `avouch rules`.
fn said(line: &str) -> (u8, String, String) {
    let (mut out, captured) = Out::captured();
    let line = Line::try_parse_from(std::iter::once("rules").chain(line.split_whitespace())).unwrap();
    let code = run(line.command, &mut out);
    (code, captured.out(), captured.err())
}

/// A folder with the starter in it.
fn starter() -> (tempfile::TempDir, String) {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("rules").display().to_string();
    assert_eq!(said(&format!("new {folder}")).0, 0);
    (place, folder)
}

#[test]
fn a_new_folder_passes_the_check_and_is_not_written_over() {
    let (_place, folder) = starter();
    let (code, out, _) = said(&format!("check {folder}"));
    assert_eq!(code, 0);
    assert!(out.starts_with("in order: 6 rules, 12 examples, 5 resources\n  sha256:"), "{out}");
    let (code, _, err) = said(&format!("new {folder}"));
    assert_eq!(code, 1);
    assert!(err.contains("is not empty; name a new folder"), "{err}");
}

#[test]
fn the_check_says_the_same_in_json() {
    let (_place, folder) = starter();
    let (code, out, _) = said(&format!("check {folder} -o json"));
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, value["ok"].as_bool(), value["rules"].as_u64()), (0, Some(true), Some(6)));
    std::fs::write(Path::new(&folder).join("more.cedar"), "permit (principal, action, resource);").unwrap();
    let (code, out, _) = said(&format!("check {folder} -o json"));
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, value["ok"].as_bool()), (3, Some(false)));
    let finding = &value["findings"][0];
    assert_eq!((finding["file"].as_str(), finding["line"].as_u64()), (Some("more.cedar"), Some(1)));
    assert!(value["digest"].as_str().unwrap().starts_with("sha256:"));
}

#[test]
fn findings_are_listed_with_exit_code_3_also_when_trying() {
    let (_place, folder) = starter();
    std::fs::create_dir(Path::new(&folder).join("sub")).unwrap();
    let (code, out, _) = said(&format!("check {folder}"));
    assert_eq!(code, 3);
    assert_eq!(
        out,
        "sub: is no file with text in it; take it out of the folder, or write it as UTF-8 [file]\n1 finding\n"
    );
    assert_eq!(said(&format!("try {folder} --kind service --action a --resource b")).0, 3);
    assert_eq!(said(&format!("check {folder}/nowhere")).0, 1);
}

#[test]
fn hidden_files_are_left_alone_and_large_ones_are_found() {
    let (_place, folder) = starter();
    std::fs::create_dir(Path::new(&folder).join(".git")).unwrap();
    assert_eq!(said(&format!("check {folder}")).0, 0);
    std::fs::write(Path::new(&folder).join("more.cedar"), "é".repeat(40_000)).unwrap();
    let (code, out, _) = said(&format!("check {folder}"));
    assert_eq!(code, 3);
    assert!(out.contains("more.cedar: ") && out.contains("at most 65536"), "{out}");
}

#[test]
fn every_outcome_has_its_exit_code_and_its_next_command() {
    let (_place, folder) = starter();
    let agent = format!("try {folder} --kind ai_agent --preset coding-agent");
    let (code, out, _) =
        said(&format!("{agent} --env test --action tool.call --resource files/read_file --param path=a"));
    assert_eq!(
        (code, out.as_str()),
        (
            0,
            "allow: a rule allows it\n  reason: allowed\n  rule: preset.coding-agent (presets.toml:12)\nnext: nothing\n"
        )
    );
    let (code, out, _) = said(&format!("{agent} --action repo.merge --resource git/pay"));
    assert_eq!(code, 5);
    assert!(
        out.contains(
            "  needs: the yes of a person other than the owner\n  rule: irreversible.asks (rules.cedar:"
        ),
        "{out}"
    );
    let next = out.lines().last().unwrap().strip_prefix("next: avouch rules ").unwrap();
    assert!(next.ends_with("--action repo.merge --resource git/pay --yes person"), "{next}");
    assert_eq!(said(next).0, 0);
    let read = format!("try {folder} --kind ai_agent --action telemetry.read --resource telemetry/requests");
    let (code, out, _) = said(&format!("{read} --grant"));
    assert_eq!(code, 0);
    assert!(out.contains("  limits: max_rows=1000;fields=level,service,ts;read_only\n"), "{out}");
    let (code, out, _) = said(&format!("{agent} --env prod --action repo.push --resource git/pay -o json"));
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, value["reason"].as_str(), value["wire"].as_str()),
        (2, Some("environment"), Some("deny"))
    );
    assert!(!value["next"].as_str().unwrap().contains("--env"));
}

#[test]
fn a_denial_without_a_preset_names_the_one_that_has_the_action() {
    let (_place, folder) = starter();
    let (code, out, _) = said(&format!("try {folder} --kind ai_agent --action repo.push --resource git/pay"));
    assert_eq!(code, 2);
    assert!(out.contains("--preset coding-agent"), "{out}");
    let (_, out, _) = said(&format!("try {folder} --kind machine --action repo.push --resource git/pay"));
    assert!(out.contains("next: use a preset that has this action"), "{out}");
}

#[test]
fn a_request_that_can_not_be_meant_is_a_wrong_question() {
    let (_place, folder) = starter();
    let read = format!("try {folder} --kind service --action tool.call --resource files/read_file");
    for (flags, told) in [
        ("--param path", "--param is NAME=VALUE, not \"path\""),
        ("--param size=1", "has no parameter \"size\", expected one of: path"),
        ("--param path=a --param path=b", "\"path\" is one string and stands twice"),
        ("--name bob", "\"bob\" is no SPIFFE ID"),
    ] {
        let (code, _, err) = said(&format!("{read} {flags}"));
        assert_eq!(code, 64, "{flags}");
        assert!(err.contains(told), "{err}");
    }
}

#[test]
fn words_of_the_next_command_are_quoted_for_a_shell() {
    assert_eq!(try_out::quoted("a/b"), "a/b");
    assert_eq!(try_out::quoted("it's me"), "'it'\\''s me'");
    assert_eq!(try_out::quoted(""), "''");
}
