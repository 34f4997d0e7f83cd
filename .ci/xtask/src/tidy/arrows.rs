//! The arrows: which crate may use which, and where wire types may be named.

use serde::Deserialize;
use std::collections::BTreeMap;

use super::Finding;
use crate::files;

#[derive(Deserialize)]
struct Rules {
    arrows: BTreeMap<String, Allowed>,
    edges: Edges,
    pure: Pure,
    /// Folder or file (without ending) -> modules of its own crate it may not name.
    rooms: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Allowed {
    Anything(#[allow(dead_code, reason = "the word itself says nothing more")] String),
    Only(Vec<String>),
}

#[derive(Deserialize)]
struct Edges {
    proto: Vec<String>,
}

#[derive(Deserialize)]
struct Pure {
    crates: Vec<String>,
    forbidden_dependencies: Vec<String>,
    forbidden_paths: Vec<String>,
}

/// Compares every manifest and every `use` with `.ci/arrows.toml`.
pub fn check() -> Result<Vec<Finding>, String> {
    let rules: Rules = toml::from_str(&files::read(".ci/arrows.toml")?)
        .map_err(|e| format!("cannot read .ci/arrows.toml: {e}"))?;
    let mut findings = Vec::new();
    for path in files::with_ending("Cargo.toml")? {
        let manifest: toml::Table =
            toml::from_str(&files::read(&path)?).map_err(|e| format!("cannot read {path}: {e}"))?;
        // A package that is a workspace of its own (fuzzing by hand) is not built with the others.
        if manifest.contains_key("package") && !manifest.contains_key("workspace") {
            findings.extend(manifest_findings(&path, &manifest, &rules));
        }
    }
    for path in files::with_ending(".rs")? {
        let text = files::read(&path)?;
        findings.extend(wire_findings(&path, &text, &rules.edges.proto));
        findings.extend(pure_findings(&path, &text, &rules.pure));
        findings.extend(room_findings(&path, &text, &rules.rooms));
    }
    Ok(findings)
}

fn manifest_findings(path: &str, manifest: &toml::Table, rules: &Rules) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name =
        manifest.get("package").and_then(|p| p.get("name")).and_then(|n| n.as_str()).unwrap_or_default();
    let lints = manifest.get("lints").and_then(|l| l.get("workspace")).and_then(toml::Value::as_bool);
    if lints != Some(true) {
        findings.push(format!("{path}: must inherit the workspace lints ([lints] workspace = true)"));
    }
    let folder = path.trim_end_matches("/Cargo.toml");
    let dependencies: Vec<&String> = manifest
        .get("dependencies")
        .and_then(|d| d.as_table())
        .map(|t| t.keys().collect())
        .unwrap_or_default();
    if rules.pure.crates.iter().any(|c| c == folder) {
        for dependency in dependencies.iter().filter(|d| rules.pure.forbidden_dependencies.contains(d)) {
            findings.push(format!("{path}: deciding code may not use `{dependency}`"));
        }
    }
    match rules.arrows.get(name) {
        None => findings.push(format!("{path}: crate `{name}` has no row in .ci/arrows.toml")),
        Some(Allowed::Anything(_)) => {}
        Some(Allowed::Only(allowed)) => {
            for dependency in dependencies.iter().filter(|d| d.starts_with("avouch")) {
                if !allowed.contains(dependency) {
                    findings.push(format!(
                        "{path}: arrow {name} -> {dependency} is not allowed (.ci/arrows.toml)"
                    ));
                }
            }
        }
    }
    findings
}

pub(super) fn wire_findings(path: &str, text: &str, edges: &[String]) -> Vec<Finding> {
    if edges.iter().any(|e| path.starts_with(e.as_str())) || path.starts_with(".ci/") {
        return Vec::new();
    }
    text.lines()
        .enumerate()
        .filter(|(_, line)| line.contains("avouch_proto") && !line.trim_start().starts_with("//"))
        .map(|(n, _)| format!("{path}:{}: wire types stop at the edges; convert in proto/src/convert", n + 1))
        .collect()
}

fn pure_findings(path: &str, text: &str, pure: &Pure) -> Vec<Finding> {
    if !pure.crates.iter().any(|c| path.starts_with(&format!("{c}/src"))) {
        return Vec::new();
    }
    text.lines()
        .enumerate()
        .filter_map(|(n, line)| {
            let word = pure.forbidden_paths.iter().find(|w| line.contains(w.as_str()))?;
            Some(format!("{path}:{}: deciding code may not use `{word}`", n + 1))
        })
        .collect()
}

pub(super) fn room_findings(path: &str, text: &str, rooms: &BTreeMap<String, Vec<String>>) -> Vec<Finding> {
    let inside =
        |room: &str| path.strip_prefix(room).is_some_and(|r| r.starts_with('/') || r.starts_with(".rs"));
    let forbidden: Vec<String> = rooms
        .iter()
        .filter(|(room, _)| inside(room))
        .flat_map(|(_, modules)| modules.iter().map(|m| format!("crate::{m}::")))
        .collect();
    text.lines()
        .enumerate()
        .filter_map(|(n, line)| {
            let word = forbidden.iter().find(|w| line.contains(w.as_str()))?;
            Some(format!("{path}:{}: `{word}` points the wrong way (.ci/arrows.toml, rooms)", n + 1))
        })
        .collect()
}
