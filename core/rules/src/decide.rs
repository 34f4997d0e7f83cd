//! The decision: one request against its slice, and what a yes or a grant would change.
//!
//! Denies by default, and when a rule can't be evaluated. Never offers to ask where the yes would not help. Never asks a
//! clock.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cedar_policy::{Authorizer, Decision as Verdict, Policy, PolicyId, PolicySet, Request, Response};

use crate::base;
use crate::catalogue::{Catalogue, Resource};
use crate::gates::{Gate, Gates};
use crate::limit::Limits;
use crate::limits::CHAIN_MAX;
use crate::presets::{Preset, Presets};
use crate::reason::Reason;
use crate::request::{Act, BuildError, Caller, Grant, Param, Params, context};
use crate::rule::{Origin, Rule};
use crate::slice::{Guarded, Index, Slice, Target};
use crate::words::{Kind, ParamKind, Who};

/// A grant as it would be the moment it is given.
pub const FRESH_GRANT: Grant = Grant { uses_left: 1, seconds_left: 900 };

/// Something that is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Missing {
    Yes(Who),
    Grant,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes(Who::Owner) => f.write_str("the owner's yes"),
            Self::Yes(Who::Person) => f.write_str("the yes of a person other than the owner"),
            Self::Grant => f.write_str("a grant"),
        }
    }
}

/// What is missing, and for which link of the chain (0 is the one that acts).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Need {
    pub link: usize,
    pub what: Missing,
}

/// What comes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Allow,
    /// Allowed if the gate can hold it to these.
    Limit(Limits),
    /// Denied now; allowed once all of these are given.
    Ask(Vec<Need>),
    Deny,
}

impl Outcome {
    /// The word that people read.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Limit(_) => "limit",
            Self::Ask(_) => "ask",
            Self::Deny => "deny",
        }
    }

    /// The word on the wire.
    #[must_use]
    pub fn wire_name(&self) -> &'static str {
        match self {
            Self::Limit(_) => "constrain",
            Self::Ask(_) => "step_up",
            _ => self.name(),
        }
    }

    /// True if the request may go on now.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        matches!(self, Self::Allow | Self::Limit(_))
    }
}

/// A decision with what determined it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub outcome: Outcome,
    pub reason: Reason,
    /// IDs of the rules that determined it, in their order. Empty when none did.
    pub rules: Vec<Arc<str>>,
    /// The link of the chain that decided: the one denied first, else the one that acts.
    pub link: usize,
}

impl Decision {
    fn deny(reason: Reason, rules: Vec<Arc<str>>) -> Self {
        Self { outcome: Outcome::Deny, reason, rules, link: 0 }
    }
}

/// Checked rules, ready to decide. Made by [`crate::check`].
#[derive(Debug)]
pub struct Rules {
    pub(crate) catalogue: Catalogue,
    pub(crate) presets: Presets,
    pub(crate) gates: Gates,
    pub(crate) index: Index,
    pub(crate) authorizer: Authorizer,
    pub(crate) rules: Vec<Rule>,
    pub(crate) digest: String,
    pub(crate) examples: usize,
}

/// One evaluation of Cedar's.
pub(crate) struct Evaluated {
    pub allowed: bool,
    /// Nothing forbids it: it is allowed, or a permit is all that is missing.
    unforbidden: bool,
    /// Rules that determined it.
    pub determining: Vec<PolicyId>,
    limits: Option<Limits>,
    /// Rules that could not be evaluated.
    pub failed: Vec<PolicyId>,
}

impl Rules {
    /// What the gates guard.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// The gates that start what they guard, by name.
    #[must_use]
    pub fn gates(&self) -> &BTreeMap<String, Gate> {
        &self.gates
    }

    /// How long a node decides about this by itself after the server was last heard; `None`: for ever. What is not listed is
    /// denied anyway.
    #[must_use]
    pub fn alone(&self, resource: &str, action: &str, kind: Kind) -> Option<Duration> {
        self.catalogue.get(resource).map_or(Some(Duration::ZERO), |resource| resource.alone(action, kind))
    }

    /// The digest of the folder they were read from.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Reads a parameter of a resource as text, once for each value, in the type that the resource declares.
    ///
    /// # Errors
    /// What can't be meant, in a sentence.
    pub fn read_param(
        &self,
        resource: &str,
        name: &str,
        text: &str,
        params: &mut Params,
    ) -> Result<(), String> {
        let declared = &self
            .catalogue
            .get(resource)
            .ok_or_else(|| format!("there is no resource \"{resource}\""))?
            .params;
        let kind = declared.get(name).ok_or_else(|| {
            let known: Vec<_> = declared.keys().map(String::as_str).collect();
            format!("\"{resource}\" has no parameter \"{name}\", expected one of: {}", known.join(", "))
        })?;
        let value = match kind {
            ParamKind::String => Param::String(text.to_owned()),
            ParamKind::Long => {
                let number =
                    text.parse().map_err(|_| format!("\"{name}\" is a whole number, not \"{text}\""))?;
                Param::Long(number)
            }
            ParamKind::Set => {
                if let Some(Param::Set(set)) = params.get_mut(name) {
                    set.insert(text.to_owned());
                    return Ok(());
                }
                Param::Set([text.to_owned()].into())
            }
        };
        match params.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(format!("\"{name}\" is one {} and stands twice", kind.name())),
        }
    }

    /// How many rules there are, those of presets counted, those compiled in not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.iter().filter(|rule| rule.origin != Origin::Base).count()
    }

    /// True if only the base rules are there; everything is denied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// True if how long ago a node proved itself changes anything.
    #[must_use]
    pub fn look_at_proof(&self) -> bool {
        self.rules.iter().any(|rule| rule.sees_proof)
    }

    /// How many examples they were held to.
    #[must_use]
    pub fn examples(&self) -> usize {
        self.examples
    }

    /// File and line of a rule of the folder.
    #[must_use]
    pub fn place(&self, id: &str) -> Option<(&str, u32)> {
        let rule = self.rules.iter().find(|rule| rule.id == id && rule.origin != Origin::Base)?;
        Some((&rule.file, rule.line))
    }

    /// Each preset with the kind it is for and the actions it allows.
    pub fn presets<'a>(&'a self) -> impl Iterator<Item = (&'a str, Kind, Vec<&'a str>)> {
        let row = |(name, (_, preset)): (&'a String, &'a (u32, Preset))| {
            (name.as_str(), preset.kind, preset.actions.iter().map(String::as_str).collect())
        };
        self.presets.iter().map(row)
    }

    /// The domains and the highest sensitivity of what a preset allows or reaches: as far as an identity that follows it ever
    /// gets. Without a preset, or with one that is not known: nothing.
    #[must_use]
    pub fn ceiling(&self, preset: Option<&str>) -> (BTreeSet<String>, i64) {
        let preset = preset.and_then(|name| self.presets.get(name)).map(|(_, preset)| preset);
        let reached = |resource: &&Resource| {
            preset.is_some_and(|preset| {
                let behind = |gate| preset.gates.is_empty() || preset.gates.contains(gate);
                let allowed = !preset.actions.is_disjoint(&resource.actions);
                resource.gate().is_some_and(|gate| preset.reach.contains(gate) || (allowed && behind(gate)))
            })
        };
        let reached: Vec<_> = self.catalogue.iter().filter(reached).collect();
        let highest = reached.iter().map(|resource| resource.sensitivity).max().unwrap_or(0);
        (reached.into_iter().map(|resource| resource.domain.clone()).collect(), highest)
    }

    /// Decides what one identity asks for itself.
    #[must_use]
    pub fn decide(&self, caller: &Caller<'_>, act: &Act<'_>) -> Decision {
        match self.target(caller, act) {
            Ok((target, guarded)) => {
                self.decide_in(guarded.slice(caller.identity.facts().kind), target, guarded, caller, act)
            }
            Err(reason) => Decision::deny(reason, Vec::new()),
        }
    }

    /// Decides what the first of these asks on behalf of the others: every link must be allowed by itself, the limits of
    /// all of them hold, and what any of them lacks is asked for, unless one is denied.
    #[must_use]
    pub fn chain(&self, callers: &[Caller<'_>], act: &Act<'_>) -> Decision {
        if callers.is_empty() || callers.len() > CHAIN_MAX {
            return Decision::deny(Reason::NoCaller, Vec::new());
        }
        let (mut needs, mut limits, mut rules, mut reason) =
            (Vec::new(), None, BTreeSet::new(), Reason::Allowed);
        for (link, caller) in callers.iter().enumerate() {
            let decision = self.decide(caller, act);
            rules.extend(decision.rules.iter().cloned());
            match decision.outcome {
                Outcome::Deny => return Decision { link, ..decision },
                Outcome::Allow => reason = reason.max(decision.reason),
                Outcome::Limit(more) => {
                    limits = Limits::join(limits, Some(more));
                    reason = reason.max(decision.reason);
                }
                Outcome::Ask(more) => {
                    needs.extend(more.into_iter().map(|need| Need { link, ..need }));
                    reason = Reason::Asked;
                }
            }
        }
        let outcome = match (needs.is_empty(), limits) {
            (false, _) => Outcome::Ask(needs),
            (true, Some(limits)) => Outcome::Limit(limits),
            (true, None) => Outcome::Allow,
        };
        Decision { outcome, reason, rules: rules.into_iter().collect(), link: 0 }
    }

    /// The texts of all rules that a decision about this looks at, those that limit last.
    #[must_use]
    pub fn candidates(&self, caller: &Caller<'_>, act: &Act<'_>) -> Vec<String> {
        let Ok((_, guarded)) = self.target(caller, act) else { return Vec::new() };
        let slice = guarded.slice(caller.identity.facts().kind);
        slice.rules.policies().chain(slice.limits.policies()).filter_map(Policy::to_cedar).collect()
    }

    pub(crate) fn target(&self, caller: &Caller<'_>, act: &Act<'_>) -> Result<(&Target, &Guarded), Reason> {
        let target = self.index.targets.get(act.resource).ok_or(Reason::UnknownResource)?;
        let guarded = target.actions.get(act.action).ok_or(Reason::UnknownAction)?;
        let facts = caller.identity.facts();
        let preset = facts.preset.as_ref().map(|name| self.presets.get(name));
        // A preset is for one kind; worn by another kind it is none that the rules know.
        if preset.is_some_and(|found| found.is_none_or(|(_, preset)| preset.kind != facts.kind)) {
            return Err(Reason::UnknownPreset);
        }
        let declared = self.catalogue.get(act.resource).map(|r| &r.params);
        let fits = |(name, value): (&String, &crate::request::Param)| {
            declared.and_then(|d| d.get(name)).is_some_and(|kind| value.fits(*kind))
        };
        if act.params.iter().all(fits) { Ok((target, guarded)) } else { Err(Reason::Params) }
    }

    /// The decision by this slice, whichever it is.
    pub(crate) fn decide_in(
        &self,
        slice: &Slice,
        target: &Target,
        guarded: &Guarded,
        caller: &Caller<'_>,
        act: &Act<'_>,
    ) -> Decision {
        let evaluate = |caller: &Caller<'_>| self.evaluate(slice, &slice.rules, target, guarded, caller, act);
        let (emergency, caller) = (caller.emergency, &Caller { emergency: false, ..*caller });
        // What is allowed has no name of a base rule to tell; whatever is not is evaluated rule by rule.
        let first = self.evaluate(slice, &slice.first, target, guarded, caller, act);
        let found = match first {
            Ok(found) if found.allowed && found.failed.is_empty() => Ok(found),
            _ => evaluate(caller),
        };
        let Ok(found) = found else { return Decision::deny(Reason::PolicyError, Vec::new()) };
        if !found.failed.is_empty() {
            return Decision::deny(Reason::PolicyError, names(slice, &found.failed));
        }
        let rules = names(slice, &found.determining);
        if found.allowed {
            return match found.limits {
                None => Decision { outcome: Outcome::Allow, reason: Reason::Allowed, rules, link: 0 },
                Some(l) => Decision { outcome: Outcome::Limit(l), reason: Reason::Limited, rules, link: 0 },
            };
        }
        // The reason of a denial that a yes can't lift: a base rule if one denies, else what stays in the way.
        let marks = || found.determining.iter().filter_map(|id| slice.marks.get(id));
        let based = base::RULES.iter().find(|base| marks().any(|mark| &*mark.id == base.id));
        if let Some(base) = based {
            return Decision::deny(base.reason, rules);
        }
        let whose: Option<BTreeSet<Who>> = marks().map(|mark| mark.ask).collect();
        let Some(whose) = whose else { return Decision::deny(Reason::Forbidden, rules) };
        if emergency {
            let all: Vec<_> = Missing::all(&whose).into_iter().chain([Missing::Grant]).collect();
            let given = Caller { emergency, ..with(caller, &all) };
            if let Some(lifted) = evaluate(&given).ok().and_then(|found| lifted(slice, found)) {
                return lifted;
            }
        }
        for missing in ways(&whose, slice.grant) {
            let given = with(caller, &missing);
            // A grant is asked for only by the permit that waits for it.
            let waits = |id: &PolicyId| slice.marks.get(id).is_some_and(|mark| mark.grant);
            let helps = |found: Evaluated| {
                let asked = !missing.contains(&Missing::Grant) || found.determining.iter().any(waits);
                found.allowed && found.failed.is_empty() && asked
            };
            if evaluate(&given).is_ok_and(helps) {
                let needs = missing.into_iter().map(|what| Need { link: 0, what }).collect();
                return Decision { outcome: Outcome::Ask(needs), reason: Reason::Asked, rules, link: 0 };
            }
        }
        let permitted = || evaluate(&with(caller, &Missing::all(&whose))).map(|f| f.determining.is_empty());
        let reason =
            if rules.is_empty() || permitted() == Ok(true) { Reason::NoRule } else { Reason::Forbidden };
        Decision::deny(reason, rules)
    }

    pub(crate) fn evaluate(
        &self,
        slice: &Slice,
        rules: &PolicySet,
        target: &Target,
        guarded: &Guarded,
        caller: &Caller<'_>,
        act: &Act<'_>,
    ) -> Result<Evaluated, BuildError> {
        let principal = &caller.identity.entity;
        let context = context(caller, act, guarded.irreversible)?;
        let request = Request::new(principal.uid(), guarded.uid.clone(), target.entity.uid(), context, None)
            .map_err(|e| BuildError::new("request", e))?;
        let entities = caller.identity.beside(&target.entity)?;
        let response = self.authorizer.is_authorized(&request, rules, &entities);
        let allowed = response.decision() == Verdict::Allow;
        let determining: Vec<_> = response.diagnostics().reason().cloned().collect();
        let unforbidden = allowed || determining.is_empty();
        let mut found =
            Evaluated { allowed, unforbidden, determining, limits: None, failed: failed(&response) };
        // What limits a permit limits the emergency in its place.
        let goes_on = allowed || (caller.emergency && unforbidden);
        if goes_on && !slice.limits.is_empty() {
            let response = self.authorizer.is_authorized(&request, &slice.limits, &entities);
            found.failed.extend(failed(&response));
            for id in response.diagnostics().reason() {
                let more = slice.marks.get(id).and_then(|mark| mark.limits.as_deref()).cloned();
                found.limits = Limits::join(found.limits, more);
                found.determining.push(id.clone());
            }
        }
        Ok(found)
    }
}

impl Missing {
    fn all(whose: &BTreeSet<Who>) -> Vec<Self> {
        whose.iter().copied().map(Self::Yes).collect()
    }
}

/// What could be given, the least first: each way is tried, and the first that helps is asked for.
fn ways(whose: &BTreeSet<Who>, grant: bool) -> Vec<Vec<Missing>> {
    let mut ways = vec![Vec::new()];
    let all = Missing::all(whose).into_iter().chain(grant.then_some(Missing::Grant));
    for missing in all {
        let more: Vec<Vec<Missing>> = ways.iter().map(|way| [way.as_slice(), &[missing]].concat()).collect();
        ways.extend(more);
    }
    ways.retain(|way| !way.is_empty());
    ways.sort_by_key(Vec::len);
    ways
}

/// The caller as it would be, had it all of these. A yes that is there already and not given anew keeps its age.
pub(crate) fn with<'a>(caller: &Caller<'a>, missing: &[Missing]) -> Caller<'a> {
    let mut given = *caller;
    let anew = |who| missing.contains(&Missing::Yes(who));
    let kept = (caller.yes.owner && !anew(Who::Owner)) || (caller.yes.person && !anew(Who::Person));
    given.yes.owner |= anew(Who::Owner);
    given.yes.person |= anew(Who::Person);
    given.yes.age = if kept { caller.yes.age } else { 0 };
    if missing.contains(&Missing::Grant) {
        given.grant = Some(FRESH_GRANT);
    }
    given
}

/// What an emergency makes of a denial, with every yes and a grant given: forbids deny, the lack of a permit does not, and
/// limits bind.
fn lifted(slice: &Slice, found: Evaluated) -> Option<Decision> {
    if !found.unforbidden || !found.failed.is_empty() {
        return None;
    }
    let rules = names(slice, &found.determining);
    let outcome = found.limits.map_or(Outcome::Allow, Outcome::Limit);
    Some(Decision { outcome, reason: Reason::Emergency, rules, link: 0 })
}

fn failed(response: &Response) -> Vec<PolicyId> {
    let of = |e: &cedar_policy::AuthorizationError| match e {
        cedar_policy::AuthorizationError::PolicyEvaluationError(e) => e.policy_id().clone(),
    };
    response.diagnostics().errors().map(of).collect()
}

fn names(slice: &Slice, ids: &[PolicyId]) -> Vec<Arc<str>> {
    let mut names: Vec<_> =
        ids.iter().filter_map(|id| slice.marks.get(id)).map(|m| Arc::clone(&m.id)).collect();
    names.sort();
    names
}
