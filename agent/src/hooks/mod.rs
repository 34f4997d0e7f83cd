//! Hooks: gates that are workloads of their own and ask here what somebody may do who showed them a token, or a certificate in
//! a handshake.
//!
//! Only the workload that the rules name may ask, and only about what it guards. Whoever is asked about is never named, but
//! proved by what it presented, and the server says what it is at this moment. Denies whatever is not clear, and never answers before
//! the record of the answer is in the spool.

mod receipts;
mod refused;
mod served;
#[cfg(test)]
mod tests;
mod unproved;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use avouch_credential::jwt::task::TaskClaims;
use avouch_credential::presented::{At, Proof, Unproved as NotProved, prove};
use avouch_domain::{Code, NodeEvent, Note, Now, Presented, SelectorSet, SpiffeId};
use avouch_rules::{Params, Task};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::limits::RULES_WAIT;
use crate::rules::{Book, Held};
use crate::runs::asking::{Asking, Given};
use crate::runs::deciding::{Moment, Said, Wearer, unkept};
use crate::runs::receipts::{Awaited, Due};
use crate::runs::{Answer, Question, Scribe};
use crate::supply::{Supply, Want};
use crate::upstream::{CallError, Governed, Identities, Requests, Tasks};
use refused::Refused;
pub use served::Served;
use unproved::Unproved;

/// What deciding for hooks works with.
pub struct Parts {
    pub supply: Arc<dyn Supply>,
    pub identities: Arc<dyn Identities>,
    pub tasks: Arc<dyn Tasks>,
    pub requests: Arc<dyn Requests>,
    pub rules: Book,
    pub scribe: Arc<dyn Scribe>,
    /// The folder whose files are the agent's to hand out to gates, if any.
    pub gate_secrets: Option<PathBuf>,
    pub clock: fn() -> Now,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Parts")
    }
}

/// The hooks of this node. Cheap to clone.
#[derive(Clone)]
pub struct Hooks(Arc<Inner>);

struct Inner {
    parts: Parts,
    unproved: Unproved,
    refused: Refused,
    /// By the SPIFFE ID of the gate that is to give them.
    awaited: Mutex<BTreeMap<SpiffeId, Awaited>>,
}

impl std::fmt::Debug for Hooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooks")
    }
}

/// What a hook asks.
pub struct Asked {
    /// As it came to the hook.
    pub presented: Presented,
    pub action: String,
    /// ID in the catalogue.
    pub resource: String,
    /// In the text form; one that is a set stands once for each of its texts.
    pub params: Vec<(String, String)>,
    /// Values beside them, of which the rules know some.
    pub said: Vec<Said>,
    /// Type of the resource, as the hook says; empty: not said.
    pub kind: String,
    /// All that would be done, in the hook's words; empty: nothing can be shown.
    pub shown: String,
    /// Only to know: nothing is recorded.
    pub what_if: bool,
    /// The hook would not keep limits.
    pub unlimited: bool,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked")
            .field("action", &self.action)
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    pub answer: Answer,
    /// Whose it is that was presented; `None` if it does not hold.
    pub identity: Option<SpiffeId>,
    /// The receipt that is waited for, and of which gate; `None` for a hook, which decides before anything is done.
    pub(crate) due: Option<(SpiffeId, Due)>,
}

/// Why a caller is told nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoHook {
    #[error("no rules are published, so there is no hook: `avouch rules publish`")]
    NoRules,
    #[error("the rules name no hook for \"{0}\": `avouch gate add hook NAME --caller PATH` adds one")]
    Unguarded(String),
    #[error(
        "the rules name no HTTP gate \"{0}\" that a workload serves: `avouch gate add http NAME URL --caller PATH` adds one"
    )]
    Unserved(String),
    #[error(
        "this process is not the hook of \"{resource}\": the rules want {caller}, and no entry gives it that SPIFFE ID"
    )]
    Caller { resource: String, caller: SpiffeId },
}

/// A hook of the rules of a moment.
struct Hook {
    held: Arc<Held>,
    gate: String,
    caller: SpiffeId,
    handshakes: bool,
}

/// A denial before any rule was asked.
struct Denied {
    reason: &'static str,
    text: String,
}

impl Denied {
    fn new(reason: &'static str, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }
}

impl Hooks {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let (unproved, refused) = (Unproved::default(), Refused::default());
        Self(Arc::new(Inner { parts, unproved, refused, awaited: Mutex::default() }))
    }

    /// Decides and records. `selectors`: those of the process that asks, which belongs to no run.
    ///
    /// # Errors
    /// [`NoHook`] if the caller may not ask; then nothing is decided.
    pub async fn check(&self, selectors: &SelectorSet, asked: &Asked) -> Result<Checked, NoHook> {
        let hook = self.hook_of(selectors, &asked.resource).await?;
        let proof = match self.proof(selectors, &hook, asked).await {
            Ok(proof) => proof,
            Err(denied) => return Ok(self.unproved(&hook, asked, denied).await),
        };
        let mut code = None;
        let (answer, hook) = match self.facts(&proof, asked).await {
            Err(denied) => (Answer::denied(denied.reason, denied.text), hook),
            Ok(identity) => {
                // The rules of now, which the server has said to be in force.
                let now = self.hook(&asked.resource)?;
                if (&now.caller, now.handshakes) != (&hook.caller, hook.handshakes) {
                    return Err(NoHook::Caller { resource: asked.resource.clone(), caller: now.caller });
                }
                code = Some(code_of(proof.task.as_ref(), &identity));
                (self.decided(identity, proof.task.as_ref(), asked, &now).await, now)
            }
        };
        let due = match (asked.what_if, answer.goes_on) {
            (true, _) => None,
            (false, true) => Some(0),
            (false, false) => self.refusal_due(&proof.identity),
        };
        let answer = match due {
            Some(left_out) => {
                let mut note = note(&proof, asked, &hook, &answer);
                if left_out > 0 {
                    note.detail.push(("unrecorded", left_out.to_string()));
                }
                self.recorded(answer, note).await
            }
            None => answer,
        };
        let what = (asked.action.as_str(), asked.resource.as_str());
        let due = code.filter(|_| hook.handshakes).and_then(|code| {
            Some((hook.caller, Due::of(&answer, what, (&proof.identity, &code, actor(&proof)))?))
        });
        Ok(Checked { answer, identity: Some(proof.identity), due })
    }

    /// What would be decided for somebody who is only named, which proves nothing: nothing is used up, asked or recorded.
    /// Known are those whose identity this node may give out. `name`: `None` if it is no SPIFFE ID.
    ///
    /// # Errors
    /// [`NoHook`] if the caller may not ask.
    pub async fn what_if(
        &self,
        selectors: &SelectorSet,
        name: Option<&SpiffeId>,
        asked: &Asked,
    ) -> Result<Answer, NoHook> {
        let hook = self.hook_of(selectors, &asked.resource).await?;
        let unknown = |why: String| Answer::denied("unknown_here", why);
        let Some(name) = name else {
            return Ok(unknown("no identity is named like that: expected a SPIFFE ID".to_owned()));
        };
        Ok(match self.0.parts.identities.identity(name).await {
            Err(e) => unknown(unsaid(name, &e)),
            Ok(told) => match told.identity {
                None => unknown(format!("{name} is not in force, or may not run on this node")),
                Some(identity) => self.decided(identity, None, asked, &hook).await,
            },
        })
    }

    /// The hook that guards this, if the caller is it.
    async fn hook_of(&self, selectors: &SelectorSet, resource: &str) -> Result<Hook, NoHook> {
        let hook = self.hook(resource)?;
        if self.0.parts.supply.names(selectors).await.contains(&hook.caller) {
            return Ok(hook);
        }
        Err(NoHook::Caller { resource: resource.to_owned(), caller: hook.caller })
    }

    fn hook(&self, resource: &str) -> Result<Hook, NoHook> {
        let parts = &self.0.parts;
        let held = parts.rules.current().ok_or(NoHook::NoRules)?;
        let gate = resource.split_once('/').and_then(|(gate, _)| held.rules.gates().get(gate));
        let found = gate.and_then(|gate| Some((gate.name.clone(), gate.hook(&parts.supply.trust_domain())?)));
        let (gate, hook) = found.ok_or_else(|| NoHook::Unguarded(resource.to_owned()))?;
        Ok(Hook { held, gate, caller: hook.caller, handshakes: hook.handshakes })
    }

    /// Whose it is that was presented, by the authorities of the trust domain.
    async fn proof(&self, selectors: &SelectorSet, hook: &Hook, asked: &Asked) -> Result<Proof, Denied> {
        let parts = &self.0.parts;
        let mut feed = parts.supply.subscribe(selectors.clone(), Want::Bundles).await;
        let update =
            feed.next().await.ok_or_else(|| Denied::new("unknown_here", "the node agent is stopping"))?;
        let now = (parts.clock)().wall;
        let at = At { resource: &asked.resource, gate: &hook.caller, handshakes: hook.handshakes };
        prove(&asked.presented, &update.own, at, now).map_err(|why| match why {
            NotProved::Token(_) => {
                let next = format!("show a fresh one, `avouch task token {}`", asked.resource);
                Denied::new("token", format!("{why}; next: {next}"))
            }
            NotProved::Certificate(_) => {
                Denied::new("certificate", format!("{why}; next: connect anew with the X509-SVID of now"))
            }
        })
    }

    /// What the identity is now, as the server says.
    async fn facts(&self, proof: &Proof, asked: &Asked) -> Result<Governed, Denied> {
        let (parts, name) = (&self.0.parts, &proof.identity);
        let told = parts
            .tasks
            .presented(name, &asked.resource, &asked.presented)
            .await
            .map_err(|e| Denied::new("unknown_here", unsaid(name, &e)))?;
        let identity = told.identity.ok_or_else(|| {
            Denied::new("not_in_force", format!("{name} is not in force: `avouch identity show` says why"))
        })?;
        if proof.task.as_ref().is_some_and(|task| task.stop_number < identity.stop_number) {
            let text = format!("{name} was paused since the token was signed; next: show a fresh one");
            return Err(Denied::new("stopped_since", text));
        }
        // Who has heard that rules are in force decides by them.
        let _ = timeout(RULES_WAIT, parts.rules.reached(told.rules_number)).await;
        Ok(identity)
    }

    async fn decided(
        &self,
        identity: Governed,
        proved: Option<&TaskClaims>,
        asked: &Asked,
        hook: &Hook,
    ) -> Answer {
        let params = match params(&hook.held, asked) {
            Ok(params) => params,
            Err(why) => return Answer::denied("params", format!("a parameter can't be read: {why}")),
        };
        let question = Question {
            action: asked.action.clone(),
            resource: asked.resource.clone(),
            params,
            shown: asked.shown(),
            what_if: asked.what_if,
            unlimited: asked.unlimited,
            said: asked.said.clone(),
            kind: asked.kind.clone(),
            own_code: false,
        };
        // The token is for this one resource and this one step.
        let task = proved.map(|task| Task {
            purpose: task.purpose.to_string(),
            tools: [asked.resource.clone()].into(),
            calls_left: 1,
        });
        let code = code_of(proved, &identity);
        let name = identity.name.clone();
        let mut wearer = Wearer::new(identity);
        let mut judge = |given| {
            let now = (self.0.parts.clock)().wall;
            // The server has just said what the identity is; of the node that it runs on nothing is known.
            let moment = Moment { now, alone: Duration::ZERO, proof_age: None };
            wearer.decide(Some(&hook.held), task.as_ref(), &question, given, moment, &*self.0.parts.scribe)
        };
        let mut answer = judge(Given::default());
        if asked.what_if || answer.needs.nothing() {
            return answer;
        }
        if let Some(denied) = unkept(&question, answer.needs, &mut judge) {
            return denied;
        }
        if question.shown.is_empty() && !answer.needs.yes.nobodys() && hook.handshakes {
            // Whoever sent it can't show it otherwise: the gate did what can be done.
            answer.unasked("it is no text, or more than a person can be shown");
            return answer;
        }
        if question.shown.is_empty() && !answer.needs.yes.nobodys() {
            answer.text.push_str("; a hook that shows what would be done (`--show FILE`) has a person asked");
            return answer;
        }
        let requests = &*self.0.parts.requests;
        let asking = Asking {
            requests,
            identity: &name,
            task: &code,
            question: &question,
            presented: &asked.presented,
        };
        asking.settle(&mut answer, judge).await;
        answer
    }

    /// How many refusals of this caller went unrecorded, if this one is to be recorded.
    fn refusal_due(&self, identity: &SpiffeId) -> Option<u64> {
        self.0.refused.due(identity, (self.0.parts.clock)().mono)
    }

    async fn recorded(&self, mut answer: Answer, note: Note) -> Answer {
        match self.0.parts.scribe.write(note, answer.durability()).await {
            Ok(record) => answer.record = record,
            Err(error) => return Answer::unrecorded(&error),
        }
        answer
    }

    /// What proves nothing names nobody: the record is the hook's, and one in a while, since anybody can send one.
    async fn unproved(&self, hook: &Hook, asked: &Asked, denied: Denied) -> Checked {
        let mut answer = Answer::denied(denied.reason, denied.text);
        let due = (!asked.what_if).then(|| self.0.unproved.due(&hook.gate, (self.0.parts.clock)().mono));
        if let Some(unrecorded) = due.flatten() {
            let mut detail = answer.detail(&asked.question());
            detail.push(("gate", hook.gate.clone()));
            detail.push(("unrecorded", unrecorded.to_string()));
            let (event, actor) = (NodeEvent::Decision, hook.caller.to_string());
            answer =
                self.recorded(answer, Note { event, actor, subject: asked.resource.clone(), detail }).await;
        }
        Checked { answer, identity: None, due: None }
    }
}

/// The record of what was decided.
fn note(proof: &Proof, asked: &Asked, hook: &Hook, answer: &Answer) -> Note {
    let mut detail = answer.detail(&asked.question());
    detail.push(("gate", hook.gate.clone()));
    detail.push(("identity", proof.identity.to_string()));
    if let Some(task) = &proof.task {
        detail.push(("task", task.task.to_string()));
    }
    detail.extend(proof.token.iter().map(|id| ("token", id.to_string())));
    detail.extend(proof.serial.iter().map(|serial| ("certificate", serial.clone())));
    Note { event: NodeEvent::Decision, actor: actor(proof), subject: asked.resource.clone(), detail }
}

/// Who acts: the run, or the identity itself.
fn actor(proof: &Proof) -> String {
    proof.task.as_ref().map_or_else(|| proof.identity.to_string(), |task| task.instance.to_string())
}

/// What a request is about. What shows a JWT-SVID has no task: then it is what the identity is for.
fn code_of(proved: Option<&TaskClaims>, identity: &Governed) -> Code {
    proved.map_or(&identity.purpose, |task| &task.task).clone()
}

impl Asked {
    /// What a person is shown: what the rules look at, then the hook's own words, without which nobody is asked.
    fn shown(&self) -> String {
        shown(&self.params, &self.shown)
    }

    /// What records say of it.
    fn question(&self) -> Question {
        Question { action: self.action.clone(), resource: self.resource.clone(), ..Question::default() }
    }
}

/// What a person is shown, or what went on, in one form; nothing without the hook's own words.
pub(crate) fn shown(params: &[(String, String)], words: &str) -> String {
    if words.is_empty() {
        return String::new();
    }
    let params = params.iter().map(|(name, value)| format!("{name} = {value}\n"));
    params.chain([words.to_owned()]).collect()
}

/// Why somebody is denied of whom the server says nothing.
fn unsaid(name: &SpiffeId, error: &CallError) -> String {
    format!("the server does not say what {name} is, so it is denied: {error}")
}

/// What is not in the catalogue is left to the decision, which denies it.
fn params(held: &Held, asked: &Asked) -> Result<Params, String> {
    let mut params = Params::new();
    if held.rules.catalogue().get(&asked.resource).is_some() {
        for (name, value) in &asked.params {
            held.rules.read_param(&asked.resource, name, value, &mut params)?;
        }
    }
    Ok(params)
}
