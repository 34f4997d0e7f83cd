//! What Cedar takes and a security team should not: permits of AI agents that look at nothing of the call.
//!
//! That every permit is covered by the base rule of environments needs no look: base rules stand in every slice.

use crate::folder::Finding;
use crate::rule::{Does, Origin, Rule};
use crate::words::Kind;

/// Everything that is unwise in these rules.
pub(crate) fn check(rules: &[Rule]) -> Vec<Finding> {
    rules.iter().filter_map(standing_right).collect()
}

/// A permit that holds for AI agents whatever they do right now.
fn standing_right(rule: &Rule) -> Option<Finding> {
    let permits = matches!(rule.does, Does::Permit { .. }) && rule.origin == Origin::Folder;
    if !permits || rule.sees_call || !rule.scope().reaches_kind(Kind::AiAgent) {
        return None;
    }
    let (code, text) = if rule.conditional {
        ("role_only", format!("permit \"{}\" is given to AI agents by who they are alone", rule.id))
    } else {
        ("no_condition", format!("permit \"{}\" is given to AI agents without a condition", rule.id))
    };
    let next = "add a condition on the call, as when { context has task && context.task.purpose == principal.purpose }, \
                or name another kind in its scope";
    Some(Finding::new(&rule.file, rule.line, code, text, next))
}
