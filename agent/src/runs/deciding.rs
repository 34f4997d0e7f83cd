//! One decision: the identity, its task and the rules of now.
//!
//! Denies whatever is not clear. Never asks a clock.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::{EmergencyId, Needs, Timestamp};
use avouch_rules::{
    Act, Caller, Identity, IdentityFacts, Missing, Need, Outcome, Param, Params, Reason, Rules, Standing,
    Task, Who,
};

use super::asking::Given;
use super::scribe::Scribe;
use crate::limits::ACTION_RECORDED_MAX;
use crate::records::Durability;
use crate::rules::Held;
use crate::upstream::{Emergency, Governed};

/// Values by name as whoever asks says them; `None`: nothing that a parameter can be. The rules know some of them.
pub type Said = Arc<BTreeMap<String, Option<Param>>>;

/// Why somebody is denied who would not keep limits.
const LIMITS: &str = "limits";
/// Why somebody is denied who would not be, had the node proved itself just now.
pub(crate) const PROOF: &str = "node_proof";

/// What a gate asks.
#[derive(Clone, Debug, Default)]
pub struct Question {
    pub action: String,
    /// ID in the catalogue.
    pub resource: String,
    pub params: Params,
    /// Values beside them, the first list that has a name counts; read by the very rules that decide.
    pub said: Vec<Said>,
    /// Type of the resource, as whoever asks says; empty: not said.
    pub kind: String,
    /// All that would be done, in the gate's words; empty: it can't be shown.
    pub shown: String,
    /// Only to know.
    pub what_if: bool,
    /// Whoever asks would not keep limits.
    pub unlimited: bool,
    /// A process asks for itself.
    pub own_code: bool,
}

#[cfg(test)]
impl Question {
    /// A question of which nothing else is known.
    pub fn of(action: &str, resource: &str) -> Self {
        Self { action: action.into(), resource: resource.into(), ..Self::default() }
    }
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// allow, constrain, step_up or deny.
    pub outcome: &'static str,
    pub goes_on: bool,
    /// A stable word.
    pub reason: &'static str,
    /// For whoever asked.
    pub text: String,
    /// As in a rule's `@limit`; empty: none.
    pub limits: String,
    /// IDs of the rules that determined it.
    pub rules: Vec<Arc<str>>,
    /// Number of the rules; 0: none.
    pub rules_number: u64,
    /// Can't be taken back.
    pub irreversible: bool,
    /// The request that waits for a person, or whose yes was used; empty: none.
    pub request: String,
    /// The grant that was used; empty: none.
    pub grant: String,
    /// The emergency without which it would be denied; empty: none.
    pub emergency: String,
    /// What would allow it, if nothing else is missing.
    pub needs: Needs,
    /// Number of its record; 0: none.
    pub record: u64,
    /// Each parameter that the rules looked at, as a digest: `path=9f0c...,mode=44ad...`.
    pub arguments: String,
}

impl Answer {
    pub(crate) fn denied(reason: &'static str, text: String) -> Self {
        Self {
            outcome: "deny",
            goes_on: false,
            reason,
            text,
            limits: String::new(),
            rules: Vec::new(),
            rules_number: 0,
            irreversible: false,
            request: String::new(),
            grant: String::new(),
            emergency: String::new(),
            needs: Needs::default(),
            record: 0,
            arguments: String::new(),
        }
    }

    /// True if it is denied, and all that is missing is what an emergency would stand for.
    pub(crate) fn may_be_lifted(&self) -> bool {
        !self.goes_on && [Reason::NoRule.code(), Reason::Asked.code()].contains(&self.reason)
    }

    /// What can't be recorded is denied.
    pub(crate) fn unrecorded(error: &str) -> Self {
        Self::denied("unrecorded", format!("it can't be recorded, so it is denied: {error}"))
    }

    /// Limited and irreversible ones, and those that use a yes, a grant or an emergency, are on the disk before anybody acts on
    /// them.
    pub(crate) fn durability(&self) -> Durability {
        let counted = [&self.request, &self.grant, &self.emergency].iter().any(|id| !id.is_empty());
        if self.goes_on && (self.irreversible || !self.limits.is_empty() || counted) {
            Durability::Synced
        } else {
            Durability::Soon
        }
    }

    /// True if the gate is to say afterwards what it did: what used a person's yes or a grant, and what can't be taken back.
    pub(crate) fn wants_receipt(&self) -> bool {
        let counted = !self.request.is_empty() || !self.grant.is_empty();
        self.record > 0 && self.goes_on && (self.irreversible || counted)
    }

    pub(crate) fn detail(&self, question: &Question) -> Vec<(&'static str, String)> {
        let mut detail = vec![
            ("action", question.action.chars().take(ACTION_RECORDED_MAX).collect()),
            ("outcome", self.outcome.to_owned()),
            ("reason", self.reason.to_owned()),
            ("rules", self.rules_number.to_string()),
        ];
        if !self.rules.is_empty() {
            detail.push(("by", self.rules.join(",")));
        }
        if question.own_code {
            // No gate held it to what was decided.
            detail.push(("asked_by", "own_code".to_owned()));
        }
        if !self.limits.is_empty() {
            detail.push(("limits", self.limits.clone()));
        }
        if !self.request.is_empty() {
            detail.push(("request", self.request.clone()));
        }
        if !self.grant.is_empty() {
            detail.push(("grant", self.grant.clone()));
        }
        if !self.emergency.is_empty() {
            detail.push(("emergency", self.emergency.clone()));
        }
        if !self.arguments.is_empty() {
            detail.push(("arguments", self.arguments.clone()));
        }
        detail
    }
}

/// When it is decided, and what is known of the node then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub now: Timestamp,
    /// How long the server has not been heard, less what it announced.
    pub alone: Duration,
    /// How long ago the node that the identity runs on proved itself; `None`: not known.
    pub proof_age: Option<Duration>,
}

/// An identity, in the form that the rules of a number want it.
pub(crate) struct Wearer {
    identity: Governed,
    formed: Option<(u64, Identity)>,
}

impl Wearer {
    pub(crate) fn new(identity: Governed) -> Self {
        Self { identity, formed: None }
    }

    /// From now on these emergencies count, and no others.
    pub(crate) fn hears(&mut self, open: &[Emergency]) {
        self.identity.emergencies.clear();
        self.identity.emergencies.extend_from_slice(open);
    }

    /// The emergency that is open for exactly this.
    fn emergency(&self, question: &Question, now: Timestamp) -> Option<EmergencyId> {
        let fits = |open: &&Emergency| {
            (&open.action, &open.resource) == (&question.action, &question.resource) && now < open.ends_at
        };
        self.identity.emergencies.iter().find(fits).map(|open| open.id.clone())
    }

    pub(crate) fn decide(
        &mut self,
        rules: Option<&Held>,
        task: Option<&Task>,
        question: &Question,
        given: Given,
        Moment { now, alone, proof_age }: Moment,
        scribe: &dyn Scribe,
    ) -> Answer {
        let Some(held) = rules else {
            let text = "no rules are published, so everything is denied: `avouch rules publish`".to_owned();
            return Answer::denied("no_rules", text);
        };
        let open = self.emergency(question, now);
        let Some(identity) = self.formed(held) else {
            let text = "the identity can't be judged by these rules, so it is denied".to_owned();
            return Answer::denied(Reason::PolicyError.code(), text);
        };
        let params = match meant(held, question) {
            Ok(params) => params,
            Err((reason, text)) => return Answer::denied(reason, text),
        };
        // Before anything is used up or asked for.
        let arguments = match arguments(held, question, &params, scribe) {
            Ok(arguments) => arguments,
            Err(error) => return Answer::unrecorded(&error),
        };
        let seconds = proof_age.map(|age| u32::try_from(age.as_secs()).unwrap_or(u32::MAX));
        let (yes, grant, emergency) = (given.yes, given.grant, open.is_some());
        let caller = Caller { task, yes, grant, emergency, proof_age: seconds, ..Caller::new(identity) };
        let Question { action, resource, .. } = question;
        let act = Act { action, resource, params: &params, now };
        let decision = held.rules.decide(&caller, &act);
        if decision.outcome == Outcome::Deny && wants_proof(&held.rules, &caller, &act) {
            return Answer { rules: decision.rules, arguments, ..stale(proof_age, held.number) };
        }
        let most = held.rules.alone(resource, action, self.identity.kind);
        if let Some(most) = most.filter(|most| decision.outcome.goes_on() && alone > *most) {
            return Answer { arguments, ..silent(resource, alone, most) };
        }
        if question.unlimited
            && let Outcome::Limit(limits) = &decision.outcome
        {
            return Answer { arguments, ..unlimited(&limits.to_string()) };
        }
        let resource = held.rules.catalogue().get(resource);
        let irreversible = resource.is_some_and(|resource| resource.irreversible.contains(action));
        let lifted = open.filter(|_| decision.reason == Reason::Emergency);
        let limits = match &decision.outcome {
            Outcome::Limit(limits) => limits.to_string(),
            _ => String::new(),
        };
        Answer {
            outcome: decision.outcome.wire_name(),
            goes_on: decision.outcome.goes_on(),
            reason: decision.reason.code(),
            text: told(&decision.outcome, decision.reason, &decision.rules),
            limits,
            rules: decision.rules,
            rules_number: held.number,
            irreversible,
            request: String::new(),
            grant: String::new(),
            emergency: lifted.map(|id| id.to_string()).unwrap_or_default(),
            needs: needs(&decision.outcome),
            record: 0,
            arguments,
        }
    }

    fn formed(&mut self, held: &Held) -> Option<&Identity> {
        if self.formed.as_ref().is_none_or(|(number, _)| *number != held.number) {
            let preset = self.identity.preset.as_ref().map(ToString::to_string);
            let (domains, max_sensitivity) = held.rules.ceiling(preset.as_deref());
            let facts = IdentityFacts {
                name: self.identity.name.clone(),
                kind: self.identity.kind,
                environment: self.identity.environment,
                standing: Standing::Active,
                owner_active: self.identity.owner_active,
                domains,
                max_sensitivity,
                purpose: self.identity.purpose.to_string(),
                preset,
                ends: self.identity.ends,
            };
            self.formed = Some((held.number, Identity::new(facts).ok()?));
        }
        self.formed.as_ref().map(|(_, identity)| identity)
    }
}

/// The parameters, by the catalogue of the rules that decide; of a resource that it does not have, none. Or why it is denied, as
/// a word and a sentence.
fn meant<'a>(held: &Held, question: &'a Question) -> Result<Cow<'a, Params>, (&'static str, String)> {
    let mut params = Cow::Borrowed(&question.params);
    let Some(known) = held.rules.catalogue().get(&question.resource) else { return Ok(params) };
    if !question.kind.is_empty() && question.kind != known.kind {
        let (id, had, kind) = (&known.id, &question.kind, &known.kind);
        return Err(("resource_type", format!("\"{id}\" is of type \"{kind}\", not \"{had}\"")));
    }
    for name in known.params.keys() {
        let Some(said) = question.said.iter().find_map(|said| said.get(name)) else { continue };
        let Some(param) = said else {
            let text = format!("property \"{name}\": expected a whole number, a text or a list of texts");
            return Err(("params", text));
        };
        params.to_mut().insert(name.clone(), param.clone());
    }
    Ok(params)
}

/// What records say of the parameters: of those that the catalogue declares, and no other name that somebody sent.
fn arguments(
    held: &Held,
    question: &Question,
    params: &Params,
    scribe: &dyn Scribe,
) -> Result<String, String> {
    let Some(known) = held.rules.catalogue().get(&question.resource).filter(|_| !question.what_if) else {
        return Ok(String::new());
    };
    let veiled = |(name, param): (&String, &Param)| {
        let digest = match param {
            Param::String(text) => scribe.veiled(name, &[text]),
            Param::Long(number) => scribe.veiled(name, &[&number.to_string()]),
            Param::Set(texts) => scribe.veiled(name, &texts.iter().map(String::as_str).collect::<Vec<_>>()),
        };
        digest.map(|digest| format!("{name}={digest}"))
    };
    let declared = params.iter().filter(|(name, _)| known.params.contains_key(*name));
    Ok(declared.map(veiled).collect::<Result<Vec<_>, _>>()?.join(","))
}

/// Whether what is denied would not be, had the node proved itself just now.
fn wants_proof(rules: &Rules, caller: &Caller<'_>, act: &Act<'_>) -> bool {
    let fresh = Caller { proof_age: Some(0), ..*caller };
    rules.look_at_proof() && rules.decide(&fresh, act).outcome != Outcome::Deny
}

/// Denied, because the node proved itself too long ago.
fn stale(age: Option<Duration>, rules_number: u64) -> Answer {
    let ago = match age {
        Some(age) => format!("{} s ago", age.as_secs()),
        None => "nobody here knows when".to_owned(),
    };
    let text = format!(
        "the node proved itself {ago}, and that is too long for a rule; next: call again in a moment, once it has proved itself \
         anew; where it can't be asked to (a join token), its agent needs a new one"
    );
    Answer { rules_number, ..Answer::denied(PROOF, text) }
}

/// Denied, because a stop may not have been heard.
fn silent(resource: &str, alone: Duration, most: Duration) -> Answer {
    let (ago, most) = (alone.as_secs(), most.as_secs());
    let text = format!(
        "nothing was heard of the server for {ago} s, time that it announced not counted, and without it {resource} is used \
         for {most} s at most; next: try again when the node agent follows it again"
    );
    Answer::denied("server_silent", text)
}

/// What a grant or a yes would give that whoever asks would not keep to: then neither is used up for it.
pub(crate) fn unkept(
    question: &Question,
    needs: Needs,
    judge: impl FnOnce(Given) -> Answer,
) -> Option<Answer> {
    let would = question.unlimited.then(|| judge(Given::all_of(needs)))?;
    (would.reason == LIMITS).then_some(would)
}

/// Denied, because the caller would take more than the rules give.
fn unlimited(limits: &str) -> Answer {
    let text = format!(
        "it is allowed within limits only ({limits}), and the caller does not say that it keeps them; next: keep them, and \
         say so with \"supported_obligations\": [\"custom\"] in the context"
    );
    Answer::denied(LIMITS, text)
}

/// What would allow it.
fn needs(outcome: &Outcome) -> Needs {
    let mut missing = Needs::default();
    if let Outcome::Ask(needs) = outcome {
        for Need { what, .. } in needs {
            match what {
                Missing::Yes(Who::Owner) => missing.yes.owner = true,
                Missing::Yes(Who::Person) => missing.yes.person = true,
                Missing::Grant => missing.grant = true,
            }
        }
    }
    missing
}

/// One sentence, and what to do next.
fn told(outcome: &Outcome, reason: Reason, rules: &[Arc<str>]) -> String {
    let by = if rules.is_empty() { String::new() } else { format!(" (rule {})", rules.join(", ")) };
    match outcome {
        Outcome::Allow | Outcome::Limit(_) => format!("{}{by}", reason.sentence()),
        Outcome::Ask(needs) => {
            let needs: Vec<_> = needs.iter().map(|need| need.what.to_string()).collect();
            format!("it needs {}{by}", needs.join(" and "))
        }
        Outcome::Deny => format!("{}{by}; next: {}", reason.sentence(), reason.next()),
    }
}
