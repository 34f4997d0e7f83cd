//! Presets: named sets of allowed actions for one kind, read from `presets.toml` and turned into rules.
//!
//! A preset is a rule like any other: it needs its examples, and base rules bind it. Never allows a kind but its own.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use toml::Spanned;

use crate::catalogue::Catalogue;
use crate::folder::{Finding, PRESETS};
use crate::limit::Limits;
use crate::limits::PRESETS_MAX;
use crate::tables;
use crate::words::{self, Kind, NAME_FORM, is_name, type_name};

/// What the ID of a preset's rule begins with.
pub(crate) const PREFIX: &str = "preset.";

/// What an AI agent's preset demands of the call: that it serves the purpose of the identity.
/// A preset alone would be a role, which says nothing of what is done right now.
const FOR_AI_AGENT: &str = "\nwhen { context has task && context.task.purpose == principal.purpose }";

/// A named set of allowed actions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    #[serde(deserialize_with = "words::word")]
    pub kind: Kind,
    #[serde(default)]
    pub actions: BTreeSet<String>,
    /// Gates behind which other rules may allow something, such as by a grant; the preset itself allows nothing there.
    #[serde(default)]
    pub reach: BTreeSet<String>,
    /// The gates behind which it allows them; all when empty.
    #[serde(default)]
    pub gates: BTreeSet<String>,
    /// What each allowed call is held to, as in `@limit`.
    #[serde(default)]
    pub limit: Option<String>,
}

/// All presets by name, each with the line it begins at.
pub(crate) type Presets = BTreeMap<String, (u32, Preset)>;

/// Reads `presets.toml` and compares it with the catalogue.
pub(crate) fn read(text: &str, catalogue: &Catalogue) -> Result<Presets, Vec<Finding>> {
    let file: BTreeMap<String, Spanned<Preset>> = tables::read(PRESETS, text).map_err(|f| vec![f])?;
    let mut findings = Vec::new();
    if file.len() > PRESETS_MAX {
        let text = format!("{} presets, at most {PRESETS_MAX}", file.len());
        findings.push(Finding::new(PRESETS, None, "size", text, "merge presets that allow the same"));
    }
    let mut presets = Presets::new();
    for (name, spanned) in file {
        let line = tables::line_at(text, spanned.span().start);
        let preset = spanned.into_inner();
        for (text, next) in mistakes(&name, &preset, catalogue) {
            findings.push(Finding::new(PRESETS, line, "preset", text, next));
        }
        for action in &preset.actions {
            if !reaches(&preset, action, catalogue) {
                let text =
                    format!("preset \"{name}\" allows \"{action}\", which no resource behind its gates has");
                let next = "take it out, or list a resource with this action in resources.toml";
                findings.push(Finding::new(PRESETS, line, "unreachable", text, next));
            }
        }
        presets.insert(name, (line, preset));
    }
    if findings.is_empty() { Ok(presets) } else { Err(findings) }
}

fn mistakes(name: &str, preset: &Preset, catalogue: &Catalogue) -> Vec<(String, &'static str)> {
    let mut found = Vec::new();
    if !is_name(name) || name.contains('.') {
        found.push((format!("\"{}\" is not {NAME_FORM}", name.escape_default()), "rename it, without dots"));
    }
    if preset.actions.is_empty() && preset.reach.is_empty() {
        let next = "list its actions, or in reach the gates behind which other rules allow something, or take it out";
        found.push((format!("preset \"{name}\" allows nothing"), next));
    }
    if preset.actions.is_empty() && (preset.limit.is_some() || !preset.gates.is_empty()) {
        let text = format!("preset \"{name}\" has a limit or gates for actions that it does not list");
        found.push((text, "list its actions, or take limit and gates out"));
    }
    let known = catalogue.gates();
    let named = preset.gates.union(&preset.reach);
    for gate in named.filter(|gate| !known.contains(gate.as_str())) {
        let next = "a gate is what stands before the first / of a resource's ID";
        found.push((format!("there is no gate \"{}\"", gate.escape_default()), next));
    }
    if let Some(Err(e)) = preset.limit.as_deref().map(Limits::parse) {
        found.push((e, "mend the limit"));
    }
    found
}

fn reaches(preset: &Preset, action: &str, catalogue: &Catalogue) -> bool {
    let behind =
        |gate: Option<&str>| preset.gates.is_empty() || gate.is_some_and(|gate| preset.gates.contains(gate));
    catalogue.iter().any(|r| r.actions.contains(action) && behind(r.gate()))
}

/// The rules that a preset stands for, as they would be written.
pub(crate) fn rules(name: &str, preset: &Preset) -> Vec<String> {
    if preset.actions.is_empty() {
        return Vec::new();
    }
    let actions: Vec<_> = preset.actions.iter().map(|a| format!("Action::\"{a}\"")).collect();
    let gates: Vec<_> = preset.gates.iter().map(|g| format!("resource in Gate::\"{g}\"")).collect();
    let scope = format!(
        "permit (principal is {} in Preset::\"{name}\", action in [{}], resource)",
        type_name(preset.kind),
        actions.join(", ")
    );
    let behind =
        if gates.is_empty() { String::new() } else { format!("\nwhen {{ {} }}", gates.join(" || ")) };
    let asked = if preset.kind == Kind::AiAgent { FOR_AI_AGENT } else { "" };
    let mut rules = vec![format!("@id(\"{PREFIX}{name}\")\n{scope}{behind}{asked};")];
    if let Some(limit) = &preset.limit {
        rules.push(format!("@id(\"{PREFIX}{name}.limit\")\n@limit(\"{limit}\")\n{scope}{behind};"));
    }
    rules
}
