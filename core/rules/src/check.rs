//! The check of a folder, from its texts to rules that decide: everything that is wrong, each with its place.
//!
//! Rules exist only if nothing was found: there is no half-loaded folder.

use std::collections::BTreeMap;

use cedar_policy::{Authorizer, PolicySet, Schema, ValidationMode, Validator};

use crate::base;
use crate::catalogue::Catalogue;
use crate::decide::Rules;
use crate::folder::{Finding, Folder, GATES, PRESETS, RESOURCES};
use crate::gates;
use crate::limits::{FINDINGS_MAX, RULES_MAX};
use crate::presets::{self, Presets};
use crate::rule::{self, Origin, Rule};
use crate::slice::{Index, NoIndex};
use crate::statements::{Statement, line_ends, split};
use crate::{examples, lint, schema};

/// What is said when something of ours does not hold; a folder can't cause it.
const OURS: &str = "this is a mistake of avouch's; please report it";

/// Checks a folder and makes rules of it, or says everything that is wrong with it.
pub fn check(folder: &Folder) -> Result<Rules, Vec<Finding>> {
    load(folder).map_err(|mut findings| {
        findings.sort();
        findings.dedup();
        findings.truncate(FINDINGS_MAX);
        findings
    })
}

fn load(folder: &Folder) -> Result<Rules, Vec<Finding>> {
    let mut rules = unproved(folder)?;
    rules.examples = examples::check(folder, &rules)?;
    Ok(rules)
}

/// Rules that were not held against their examples yet.
pub(crate) fn unproved(folder: &Folder) -> Result<Rules, Vec<Finding>> {
    let catalogue = match folder.get(RESOURCES) {
        Some(text) => Catalogue::read(text)?,
        None => {
            let next = "add it, or start with `avouch rules new`";
            return Err(vec![Finding::new(RESOURCES, None, "missing", "the file is not there", next)]);
        }
    };
    let presets = presets::read(folder.get(PRESETS).unwrap_or_default(), &catalogue)?;
    let gates = gates::read(folder.get(GATES).unwrap_or_default(), &catalogue)?;
    let rules = read(folder, &presets)?;
    let mut findings: Vec<_> = rules.iter().flat_map(|rule| rule.strangers(&catalogue, &presets)).collect();
    findings.extend(validate(&catalogue, &rules)?);
    findings.extend(lint::check(&rules));
    if !findings.is_empty() {
        return Err(findings);
    }
    let index = Index::new(&catalogue, &rules).map_err(|e| match e {
        NoIndex::Finding(finding) => vec![finding],
        NoIndex::Build(e) => vec![Finding::new("", None, "internal", e.to_string(), OURS)],
    })?;
    let digest = folder.digest();
    Ok(Rules { catalogue, presets, gates, index, authorizer: Authorizer::new(), rules, digest, examples: 0 })
}

/// All rules: those compiled in, those of the presets, those of the folder.
fn read(folder: &Folder, presets: &Presets) -> Result<Vec<Rule>, Vec<Finding>> {
    let (mut rules, mut findings) = (Vec::new(), Vec::new());
    let mut take = |found: Result<Rule, Vec<Finding>>| match found {
        Ok(rule) => rules.push(rule),
        Err(more) => findings.extend(more),
    };
    for base in base::RULES {
        let whole = Statement { text: base.text, line: 1, bare: base.text.to_owned() };
        take(rule::read("base", &whole, Origin::Base));
    }
    for (name, (line, preset)) in presets {
        for text in presets::rules(name, preset) {
            let whole = Statement { text: &text, line: 1, bare: text.clone() };
            take(rule::read(PRESETS, &whole, Origin::Preset).map(|rule| Rule { line: *line, ..rule }));
        }
    }
    for (name, text) in folder.cedar() {
        for statement in split(text) {
            take(rule::read(name, &statement, Origin::Folder));
        }
    }
    findings.extend(doubled(&rules));
    if rules.len() > RULES_MAX + base::RULES.len() {
        let text = format!("{} rules, at most {RULES_MAX}", rules.len() - base::RULES.len());
        findings.push(Finding::new(
            "",
            None,
            "size",
            text,
            "let one rule speak of several actions or resources",
        ));
    }
    if findings.is_empty() { Ok(rules) } else { Err(findings) }
}

fn doubled(rules: &[Rule]) -> Vec<Finding> {
    let mut seen: BTreeMap<&str, &Rule> = BTreeMap::new();
    let mut findings = Vec::new();
    for rule in rules {
        if let Some(first) = seen.insert(&rule.id, rule) {
            let text = format!("ID \"{}\" is taken by {}:{}", rule.id, first.file, first.line);
            findings.push(Finding::new(&rule.file, rule.line, "id", text, "give it another one"));
        }
    }
    findings
}

/// Cedar's own validator in its strict mode. What it only warns of (a rule that can never match) is a finding too.
fn validate(catalogue: &Catalogue, rules: &[Rule]) -> Result<Vec<Finding>, Vec<Finding>> {
    let ours = |e: String| vec![Finding::new("", None, "internal", e, OURS)];
    let (schema, _) =
        Schema::from_cedarschema_str(&schema::text(catalogue)).map_err(|e| ours(e.to_string()))?;
    let set = PolicySet::from_policies(rules.iter().map(|rule| rule.policy.clone()));
    let set = set.map_err(|e| ours(e.to_string()))?;
    let by_id: BTreeMap<&str, &Rule> = rules.iter().map(|rule| (rule.id.as_str(), rule)).collect();
    let result = Validator::new(schema).validate(&set, ValidationMode::Strict);
    let finding = |id: &str, problem: &dyn miette::Diagnostic| {
        let rule = by_id.get(id);
        let within = |rule: &&Rule| (rule.origin == Origin::Folder).then(|| rule::place(problem)).flatten();
        let lines = rule.and_then(|r| Some(line_ends(&r.policy.to_cedar()?, within(r)?))).unwrap_or_default();
        let help = problem.help().map(|help| rule::one_line(&help.to_string()));
        Finding::new(
            rule.map_or("", |r| &r.file),
            rule.map(|r| r.line + lines),
            "schema",
            rule::one_line(&problem.to_string()),
            help.unwrap_or_else(|| "compare it with what the schema has (docs/guides/rules.md)".to_owned()),
        )
    };
    let errors = result.validation_errors().map(|e| finding(e.policy_id().as_ref(), e));
    let warnings = result.validation_warnings().map(|w| finding(w.policy_id().as_ref(), w));
    Ok(errors.chain(warnings).collect())
}
