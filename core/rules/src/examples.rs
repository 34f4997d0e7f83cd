//! The examples of a folder: what each rule does and does not do, said beforehand and held against the rules.
//!
//! A rule without both is a finding: nobody can know whether it does what was meant.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use crate::decide::{Decision, Outcome, Rules};
use crate::folder::{EXAMPLES, Finding, Folder};
use crate::limits::EXAMPLES_MAX;
use crate::rule::{Does, Origin, Rule};
use crate::sketch::Sketch;
use crate::tables;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    example: Vec<Spanned<Example>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    /// The rule that it is an example of.
    rule: String,
    expect: Expected,
    request: Sketch,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expected {
    Allow,
    Limit,
    Ask,
    Deny,
}

impl Expected {
    fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Limit => "limit",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

/// What an example shows of its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shows {
    /// The rule does what it is for.
    Does,
    /// The rule leaves it alone.
    Leaves,
    /// Neither: something else decided.
    Nothing,
}

/// Runs all examples. Gives their number, or what is wrong.
pub(crate) fn check(folder: &Folder, rules: &Rules) -> Result<usize, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut shown: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
    let by_id: BTreeMap<&str, &Rule> = rules.rules.iter().map(|rule| (rule.id.as_str(), rule)).collect();
    let mut count = 0;
    for (name, text) in folder.examples() {
        let file: File = match tables::read(name, text) {
            Ok(file) => file,
            Err(finding) => {
                findings.push(finding);
                continue;
            }
        };
        for spanned in file.example {
            count += 1;
            let line = tables::line_at(text, spanned.span().start);
            let example = spanned.into_inner();
            let Some(rule) = by_id.get(example.rule.as_str()) else {
                let text = format!("there is no rule \"{}\"", example.rule.escape_default());
                findings.push(Finding::new(name, line, "example", text, "name the @id of a rule"));
                continue;
            };
            match run(&example, rule, rules) {
                Ok(shows) => {
                    let entry = shown.entry(rule.id.as_str()).or_default();
                    entry.0 |= shows == Shows::Does;
                    entry.1 |= shows == Shows::Leaves;
                }
                Err((text, next)) => findings.push(Finding::new(name, line, "example", text, next)),
            }
        }
    }
    if count > EXAMPLES_MAX {
        let text = format!("{count} examples, at most {EXAMPLES_MAX}");
        findings.push(Finding::new(EXAMPLES, None, "size", text, "two for each rule are enough"));
    }
    findings.extend(
        rules
            .rules
            .iter()
            .filter_map(|rule| lacking(rule, shown.get(rule.id.as_str()).copied().unwrap_or_default())),
    );
    if findings.is_empty() { Ok(count) } else { Err(findings) }
}

fn run(example: &Example, rule: &Rule, rules: &Rules) -> Result<Shows, (String, String)> {
    let decision = example.request.decide(rules).map_err(|e| (e, "mend the request".to_owned()))?;
    let (expected, came) = (example.expect.name(), decision.outcome.name());
    let by: Vec<&str> = decision.rules.iter().map(|id| &**id).collect();
    let by = if by.is_empty() { "no rule".to_owned() } else { by.join(", ") };
    if expected != came {
        let sentence = decision.reason.sentence();
        let text =
            format!("example of \"{}\" expects {expected}, and comes to {came} by {by}: {sentence}", rule.id);
        return Err((text, "change the example or the rule".to_owned()));
    }
    match shows(rule, &decision) {
        Shows::Nothing => {
            let text = format!("example of \"{}\" shows nothing of it: {came} by {by}", rule.id);
            Err((text, "name the rule that decides, or change the request until this one does".to_owned()))
        }
        shows => Ok(shows),
    }
}

fn shows(rule: &Rule, decision: &Decision) -> Shows {
    let named = decision.rules.iter().any(|id| **id == *rule.id);
    let goes_on = decision.outcome.goes_on();
    match (&rule.does, named, goes_on) {
        (Does::Permit { .. }, true, true) | (Does::Forbid { .. }, true, false) => Shows::Does,
        (Does::Permit { .. }, false, false) | (Does::Forbid { .. }, false, true) => Shows::Leaves,
        (Does::Limit(_), true, _) if matches!(decision.outcome, Outcome::Limit(_)) => Shows::Does,
        (Does::Limit(_), false, _) => Shows::Leaves,
        _ => Shows::Nothing,
    }
}

/// What is missing of a rule's examples.
fn lacking(rule: &Rule, (does, leaves): (bool, bool)) -> Option<Finding> {
    // The limit of a preset is seen in the example of its preset.
    let of_preset = rule.origin == Origin::Preset && matches!(rule.does, Does::Limit(_));
    if rule.origin == Origin::Base || of_preset || (does && leaves) {
        return None;
    }
    let (yes, no) = match rule.does {
        Does::Permit { .. } => ("that it allows", "that is denied"),
        Does::Forbid { .. } => ("that it denies", "that is allowed"),
        Does::Limit(_) => ("that it limits", "that it leaves alone"),
    };
    let lacks = match (does, leaves) {
        (false, false) => format!("one {yes} and one {no}"),
        (false, true) => format!("one {yes}"),
        _ => format!("one {no}"),
    };
    let text = format!("rule \"{}\" has no example {}", rule.id, lacks.replacen("one that", "that", 1));
    let next = format!("add {lacks} to {EXAMPLES}");
    Some(Finding::new(&rule.file, rule.line, "no_example", text, next))
}
