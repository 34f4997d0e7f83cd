//! What an identity could be let do: each action at each resource, with what comes of a call of which nothing is known.
//!
//! Never leaves out what some call of it would be let do. What no rule permits, or one forbids whatever is called, is left out; what
//! a rule makes depend on the call and on something else beside it may be there without ever being let.

use std::collections::HashMap;

use avouch_domain::Timestamp;
use cedar_policy::{Policy, PolicyId, PolicySet};
use serde_json::{Value, json};

use crate::decide::{Outcome, Rules};
use crate::request::{Act, BuildError, Caller, Identity, Params, Task};
use crate::rule::{Does, Origin, Rule};
use crate::slice::{Guarded, Target};

/// Calls left in the task of a call of which nothing is known.
const CALLS: u32 = 1;

/// Something that an identity could be let do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Possible {
    /// ID in the catalogue.
    pub resource: String,
    pub action: String,
    /// What comes of a call without parameters, within a task of the identity's purpose; a denial where the call decides alone.
    pub outcome: Outcome,
    /// What is called, its task or its time decides too.
    pub by_the_call: bool,
}

impl Rules {
    /// All that an identity could be let do, in the order of the resources.
    ///
    /// # Errors
    /// [`BuildError`] of a rule that can't be taken apart, which none that was checked is.
    pub fn possible(&self, identity: &Identity, now: Timestamp) -> Result<Vec<Possible>, BuildError> {
        let (taken_apart, params) = (TakenApart::of(&self.rules)?, Params::default());
        let task =
            Task { purpose: identity.facts().purpose.clone(), tools: Default::default(), calls_left: CALLS };
        let caller = Caller { task: Some(&task), ..Caller::new(identity) };
        let mut all = Vec::new();
        for resource in self.catalogue.iter() {
            for action in &resource.actions {
                let act = Act { action, resource: &resource.id, params: &params, now };
                let Ok((target, guarded)) = self.target(&caller, &act) else { continue };
                let outcome = taken_apart.outcome(self, target, guarded, &caller, &act)?;
                all.extend(outcome.map(|(outcome, by_the_call)| Possible {
                    resource: resource.id.clone(),
                    action: action.clone(),
                    outcome,
                    by_the_call,
                }));
            }
        }
        Ok(all)
    }
}

/// What a preset asks of a task, the task of [`Rules::possible`] has.
fn looks_at_the_call(rule: &Rule) -> bool {
    rule.sees_call && rule.origin == Origin::Folder
}

/// The rules of a folder, each as a permit without its conditions: what it says yes to is in its scope.
struct TakenApart<'a> {
    base: PolicySet,
    scopes: HashMap<&'a PolicyId, (Policy, &'a Rule)>,
}

impl<'a> TakenApart<'a> {
    fn of(rules: &'a [Rule]) -> Result<Self, BuildError> {
        let failed = |e: &dyn std::error::Error| BuildError::new("scope", e);
        let (mut base, mut scopes) = (PolicySet::new(), HashMap::new());
        for rule in rules {
            if rule.origin == Origin::Base {
                base.add(rule.policy.clone()).map_err(|e| failed(&e))?;
                continue;
            }
            let mut parts = rule.policy.to_json().map_err(|e| failed(&e))?;
            if let Some(parts) = parts.as_object_mut() {
                parts.insert("effect".to_owned(), Value::from("permit"));
                parts.insert("conditions".to_owned(), json!([]));
            }
            let scope = Policy::from_json(Some(rule.policy.id().clone()), parts).map_err(|e| failed(&e))?;
            scopes.insert(rule.policy.id(), (scope, rule));
        }
        Ok(Self { base, scopes })
    }

    /// What comes of it, and whether the call decides too; `None` if it is denied whatever is called.
    fn outcome(
        &self,
        rules: &Rules,
        target: &Target,
        guarded: &Guarded,
        caller: &Caller<'_>,
        act: &Act<'_>,
    ) -> Result<Option<(Outcome, bool)>, BuildError> {
        let slice = guarded.slice(caller.identity.facts().kind);
        let evaluate = |set: &PolicySet| rules.evaluate(slice, set, target, guarded, caller, act);
        if !evaluate(&self.base)?.determining.is_empty() {
            return Ok(None);
        }
        let (mut scopes, mut permits, mut forbids) = (PolicySet::new(), PolicySet::new(), PolicySet::new());
        for (scope, rule) in slice.marks.keys().filter_map(|id| self.scopes.get(id)) {
            let add = |set: &mut PolicySet, policy: &Policy| {
                set.add(policy.clone()).map_err(|e| BuildError::new("scope", e))
            };
            add(&mut scopes, scope)?;
            match rule.does {
                Does::Permit { .. } => add(&mut permits, &rule.policy)?,
                Does::Forbid { .. } => add(&mut forbids, &rule.policy)?,
                Does::Limit(_) => {}
            }
        }
        let of = |ids: Vec<PolicyId>| ids.into_iter().filter_map(|id| Some(self.scopes.get(&id)?.1));
        let inside: Vec<_> = of(evaluate(&scopes)?.determining).collect();
        let by_the_call = inside.iter().any(|rule| looks_at_the_call(rule));
        let may_look = |rule: &&Rule| matches!(rule.does, Does::Permit { .. }) && looks_at_the_call(rule);
        let permitted =
            !evaluate(&permits)?.determining.is_empty() || inside.iter().copied().any(|rule| may_look(&rule));
        // What looks at nothing of the call forbids every call.
        let forbidden = of(evaluate(&forbids)?.determining).any(|rule| !looks_at_the_call(rule));
        let decision = rules.decide_in(slice, target, guarded, caller, act);
        Ok((permitted && !forbidden).then_some((decision.outcome, by_the_call)))
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::SpiffeId;

    use super::*;
    use crate::tests::rules_with;
    use crate::{Environment, IdentityFacts, Kind, Standing};

    fn machine() -> IdentityFacts {
        IdentityFacts {
            name: SpiffeId::parse("spiffe://example.org/x").unwrap(),
            kind: Kind::Machine,
            environment: Environment::Test,
            standing: Standing::Active,
            owner_active: true,
            domains: ["code", "operations", "deploy"].map(str::to_owned).into(),
            max_sensitivity: 3,
            purpose: "work".to_owned(),
            preset: None,
            ends: Timestamp::from_secs(100),
        }
    }

    /// What these rules let a machine do, in words.
    fn possible(rules: &str, facts: IdentityFacts) -> Vec<String> {
        let identity = Identity::new(facts).unwrap();
        let all = rules_with(rules).possible(&identity, Timestamp::from_secs(1)).unwrap();
        let words = |one: Possible| {
            let more = if one.by_the_call { " by the call" } else { "" };
            format!("{} {} {}{more}", one.action, one.resource, one.outcome.name())
        };
        all.into_iter().map(words).collect()
    }

    #[test]
    fn what_a_rule_lets_be_done_is_possible_and_nothing_else() {
        let rules = r#"@id("a") permit (principal is Machine, action == Action::"secret.read", resource);"#;
        assert_eq!(possible(rules, machine()), ["secret.read vault/deploy allow"]);
        assert_eq!(possible(rules, IdentityFacts { domains: Default::default(), ..machine() }), [""; 0]);
        assert_eq!(possible(rules, IdentityFacts { kind: Kind::Service, ..machine() }), [""; 0]);
    }

    #[test]
    fn what_the_call_decides_is_possible_and_said_to_be() {
        let permit = r#"@id("a") permit (principal is Machine, action == Action::"secret.read", resource)"#;
        let late = format!("{permit} when {{ context.now > 50 }};");
        assert_eq!(possible(&late, machine()), ["secret.read vault/deploy deny by the call"]);
        let held = format!(
            "{permit};@id(\"b\") forbid (principal, action, resource) unless {{ context.now > 50 }};"
        );
        assert_eq!(possible(&held, machine()), ["secret.read vault/deploy deny by the call"]);
        let out = IdentityFacts { max_sensitivity: -1, ..machine() };
        assert_eq!(possible(&late, out), [""; 0], "a base rule denies it whatever is called");
    }

    #[test]
    fn what_is_forbidden_whatever_is_called_is_not_possible_and_what_asks_is() {
        let permit = r#"@id("a") permit (principal is Machine, action == Action::"secret.read", resource);"#;
        let never = format!("{permit}@id(\"b\") forbid (principal is Machine, action, resource);");
        assert_eq!(possible(&never, machine()), [""; 0]);
        let asks = "@id(\"b\") @ask(\"person\") forbid (principal is Machine, action, resource)";
        assert_eq!(possible(&format!("{permit}{asks};"), machine()), [""; 0], "no yes would lift it");
        let lifted = format!("{permit}{asks} unless {{ context.yes.person }};");
        assert_eq!(possible(&lifted, machine()), ["secret.read vault/deploy ask by the call"]);
    }

    #[test]
    fn a_rule_for_another_gate_or_preset_makes_nothing_possible() {
        let rules = r#"@id("a") permit (principal, action, resource in Gate::"git") when { context.now > 50 };
            @id("b") permit (principal in Preset::"coding-agent", action, resource) when { context.now > 50 };"#;
        let all = possible(rules, machine());
        assert!(!all.is_empty() && all.iter().all(|one| one.contains(" git/")), "{all:?}");
    }
}
