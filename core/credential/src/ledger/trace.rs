//! From a decision, or a run, to the people behind it, hop by hop, as the lines of a log tell it.
//!
//! Never says more than the records do: a hop that no record shows is unknown. Whether the log holds is somebody else's to check.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::Value;
use thiserror::Error;

use super::{Record, read_line, read_node_line};

/// How every instance's ID begins.
const INSTANCE: &str = "ins_";

/// What is traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traced {
    /// One live process tree and all that it did.
    Instance(String),
    /// One decision, by the number of its record.
    Decision(u64),
}

impl FromStr for Traced {
    type Err = TraceError;

    fn from_str(text: &str) -> Result<Self, TraceError> {
        if text.starts_with(INSTANCE) {
            return Ok(Self::Instance(text.to_owned()));
        }
        text.parse().map(Self::Decision).map_err(|_| TraceError::What(text.to_owned()))
    }
}

/// Why nothing is traced.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TraceError {
    #[error("\"{0}\": expected an instance (ins_...) or the number of a decision's record")]
    What(String),
    #[error("{first} and {more} more have a decision of this number: say which with --source")]
    Several { first: String, more: usize },
    #[error("no node has recorded it: `avouch audit export` shows what is there")]
    Nobody,
}

/// A record, as far as a trace shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// SPIFFE ID of the node, or `server`.
    pub source: String,
    pub seq: u64,
    /// RFC 3339.
    pub at: String,
    pub actor: String,
    pub subject: String,
    pub detail: BTreeMap<String, String>,
}

impl Seen {
    fn of_server(record: Record) -> Self {
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Self {
            source: "server".to_owned(),
            seq: record.seq,
            at: record.at,
            actor: record.actor,
            subject: record.subject,
            detail: record.detail.into_iter().map(|(name, value)| (name, text(value))).collect(),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.detail.get(name).map(String::as_str)
    }

    /// These of its details, with their names.
    fn shown(&self, names: &[&str]) -> String {
        let parts = names.iter().filter_map(|name| Some(format!("{name} {}", self.get(name)?)));
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// What nodes recorded of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instance {
    start: Option<Seen>,
    task: Option<Seen>,
    /// The one that is traced.
    pub decision: Option<Seen>,
    /// How many decisions, by outcome.
    pub outcomes: BTreeMap<String, u64>,
}

/// Looks for an instance among the records of nodes, as they come.
#[derive(Debug)]
pub struct Nodes<'a> {
    what: &'a Traced,
    /// Only of this node.
    source: Option<&'a str>,
    /// The chain that is read. No chain tells of another's instances.
    chain: String,
    /// Instances of it that have not ended where the reader is.
    live: BTreeMap<String, Instance>,
    /// By node; of several chains of one node the newest.
    found: BTreeMap<String, Instance>,
}

impl<'a> Nodes<'a> {
    /// Looks for `what`; only among the records of the node `source`, if that is given.
    #[must_use]
    pub fn new(what: &'a Traced, source: Option<&'a str>) -> Self {
        Self { what, source, chain: String::new(), live: BTreeMap::new(), found: BTreeMap::new() }
    }

    /// The next line of the log; those of others than nodes say nothing here.
    pub fn line(&mut self, line: &str) {
        // What is no record of a node is none of this.
        let Ok(record) = read_node_line(line) else { return };
        if self.source.is_some_and(|source| source != record.source) {
            return;
        }
        let chain = format!("{} {}", record.source, record.chain);
        if self.chain != chain {
            self.chain = chain;
            self.live.clear();
        }
        let seen = Seen {
            source: record.source.to_string(),
            seq: record.seq,
            at: record.at.to_string(),
            actor: record.actor.to_string(),
            subject: record.subject.to_string(),
            detail: record.details().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        };
        match &*record.event {
            // Whatever ran below an agent has lost its line.
            "agent.start" => self.live.clear(),
            "instance.start" => {
                self.live.insert(seen.actor.clone(), Instance { start: Some(seen), ..Instance::default() });
            }
            "instance.end" => drop(self.live.remove(&seen.actor)),
            "task.open" => {
                if let Some(instance) = self.live.get_mut(&seen.actor) {
                    instance.task = Some(seen);
                }
            }
            "decision" => self.decision(seen),
            _ => {}
        }
        if let Traced::Instance(id) = self.what
            && let Some(instance) = self.live.get(id)
        {
            self.found.insert(record.source.to_string(), instance.clone());
        }
    }

    fn decision(&mut self, seen: Seen) {
        let mut instance = self.live.get(&seen.actor).cloned().unwrap_or_default();
        let outcome = seen.get("outcome").unwrap_or("unknown").to_owned();
        *instance.outcomes.entry(outcome).or_default() += 1;
        match self.what {
            Traced::Instance(_) => {
                if let Some(live) = self.live.get_mut(&seen.actor) {
                    *live = instance;
                }
            }
            Traced::Decision(seq) if *seq == seen.seq => {
                let source = seen.source.clone();
                instance.decision = Some(seen);
                self.found.insert(source, instance);
            }
            Traced::Decision(_) => {}
        }
    }

    /// What was found.
    ///
    /// # Errors
    /// [`TraceError::Several`] and [`TraceError::Nobody`].
    pub fn one(mut self) -> Result<Instance, TraceError> {
        match (self.found.pop_first(), self.found.len()) {
            (Some((_, instance)), 0) => Ok(instance),
            (Some((first, _)), more) => Err(TraceError::Several { first, more }),
            (None, _) => Err(TraceError::Nobody),
        }
    }
}

/// Looks for those who answer for an instance among the server's records, as they come.
#[derive(Debug, Default)]
pub struct People {
    name: String,
    until: String,
    rules_number: String,
    /// Whose yes was used, if it took one.
    request: Option<String>,
    said: Vec<Seen>,
    /// What was used, if it took one.
    grant: Option<String>,
    given: Option<Seen>,
    /// What stood for a missing rule, if it took one.
    emergency: Option<String>,
    agreed: Option<Seen>,
    identity: Option<Seen>,
    adopted: Option<Seen>,
    published: Option<Seen>,
    /// The yes of another person to them, if they took one.
    approved: Option<Seen>,
}

impl People {
    /// Those behind what was found.
    #[must_use]
    pub fn behind(instance: &Instance) -> Self {
        let start = instance.start.clone().unwrap_or_default();
        let of_decision = |name| instance.decision.as_ref().and_then(|decision| decision.get(name));
        let rules = of_decision("rules");
        let request = of_decision("request").filter(|_| of_decision("outcome") == Some("allow"));
        let went_on = matches!(of_decision("outcome"), Some("allow" | "constrain"));
        Self {
            grant: of_decision("grant").filter(|_| went_on).map(str::to_owned),
            emergency: of_decision("emergency").filter(|_| went_on).map(str::to_owned),
            request: request.map(str::to_owned),
            name: start.subject,
            until: instance.decision.as_ref().map_or(start.at, |decision| decision.at.clone()),
            rules_number: rules.unwrap_or_default().to_owned(),
            ..Self::default()
        }
    }

    /// The next line of the server's records.
    pub fn line(&mut self, line: &str) {
        let Ok(record) = read_line(line) else { return };
        // Moments of one form: as texts they are in the order of time.
        if record.at > self.until {
            return;
        }
        let event = record.event.clone();
        match &*event {
            "rules_published" if record.subject == self.rules_number => {
                self.published = Some(Seen::of_server(record));
            }
            "rules_approved" if record.subject == self.rules_number => {
                self.approved = Some(Seen::of_server(record));
            }
            "request_yes" if Some(&record.subject) == self.request.as_ref() => {
                self.said.push(Seen::of_server(record));
            }
            "grant_given" if Some(&record.subject) == self.grant.as_ref() => {
                self.given = Some(Seen::of_server(record));
            }
            "emergency_agreed" if Some(&record.subject) == self.emergency.as_ref() => {
                self.agreed = Some(Seen::of_server(record));
            }
            event if event.starts_with("identity_") && record.subject == self.name => {
                let seen = Seen::of_server(record);
                if event == "identity_adopted" {
                    self.adopted = Some(seen.clone());
                }
                // A place says nothing of who answers for it.
                if seen.get("owner").is_some() {
                    self.identity = Some(seen);
                }
            }
            _ => {}
        }
    }
}

/// One hop: what is known, and the record that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    pub name: &'static str,
    /// `None`: no record says.
    pub known: Option<(String, Seen)>,
}

fn hop(name: &'static str, seen: Option<&Seen>, what: impl FnOnce(&Seen) -> Option<String>) -> Hop {
    Hop { name, known: seen.and_then(|seen| Some((what(seen)?, seen.clone()))) }
}

/// The hops, from the decision to the people. `named` makes words of a person's ID.
#[must_use]
pub fn hops(instance: &Instance, people: &People, named: impl Fn(&str) -> String) -> Vec<Hop> {
    let mut hops = Vec::new();
    if let Some(decision) = &instance.decision {
        hops.push(hop("decision", Some(decision), |seen| {
            let outcome = seen.get("outcome")?;
            let facts = seen.shown(&["reason", "by", "limits", "rules"]);
            Some(format!("{} of {}: {outcome} ({facts})", seen.get("action")?, seen.subject))
        }));
        hops.push(rules(people, &named));
    }
    if let Some(request) = &people.request {
        let yes = |seen: &Seen| {
            let role = seen.get("as").unwrap_or("unknown");
            Some(format!("to {request}, by {} (as {role})", named(&seen.actor)))
        };
        let said = people.said.iter().map(|seen| hop("said yes", Some(seen), yes));
        let before = hops.len();
        hops.extend(said);
        if hops.len() == before {
            hops.push(hop("said yes", None, yes));
        }
    }
    if let Some(grant) = &people.grant {
        hops.push(hop("grant", people.given.as_ref(), |seen| {
            let role = seen.get("as").unwrap_or("unknown");
            Some(format!("{grant}, given by {} (as {role})", named(&seen.actor)))
        }));
    }
    hops.extend(emergency(people, &named));
    let (start, identity) = (instance.start.as_ref(), people.identity.as_ref());
    hops.push(hop("task", instance.task.as_ref(), |seen| Some(seen.subject.clone())));
    hops.push(hop("instance", start, |seen| {
        Some(format!("{} ({})", seen.actor, seen.shown(&["uid", "confinement"])))
    }));
    hops.push(hop("code", start, |seen| Some(format!("sha256:{}", seen.get("code")?))));
    hops.push(hop("identity", identity, |seen| {
        Some(format!("{} ({})", seen.subject, seen.shown(&["kind", "environment", "end"])))
    }));
    hops.push(hop("owner", identity, |seen| seen.get("owner").map(&named)));
    let yes = identity.filter(|seen| seen.get("yes_by").is_some());
    hops.push(match yes {
        Some(_) => hop("yes", yes, |seen| match seen.get("yes_by")? {
            "self" => Some("the owner's own".to_owned()),
            yes => Some(named(yes)),
        }),
        None => {
            hop("yes", people.adopted.as_ref(), |seen| Some(format!("adopted by {}", named(&seen.actor))))
        }
    });
    hops
}

/// Who published the rules, and whose yes put them in force. The yes is the record that proves it.
fn rules(people: &People, named: impl Fn(&str) -> String) -> Hop {
    let published = people.published.as_ref();
    hop("rules", people.approved.as_ref().or(published), |last| {
        let by = |seen: &Seen| format!("{} (record {})", named(&seen.actor), seen.seq);
        let from = published.map_or_else(|| "somebody whom no record names".to_owned(), by);
        let yes = people.approved.as_ref().map(|seen| format!(", yes of {}", by(seen)));
        Some(format!("{}, published by {from}{}", last.subject, yes.unwrap_or_default()))
    })
}

/// Who opened the emergency that the decision took, if it took one.
fn emergency(people: &People, named: impl Fn(&str) -> String) -> Option<Hop> {
    let id = people.emergency.as_ref()?;
    Some(hop("emergency", people.agreed.as_ref(), |seen| {
        let asked = named(seen.get("asked_by")?);
        Some(format!("{id}, asked by {asked}, agreed by {}", named(&seen.actor)))
    }))
}

#[cfg(test)]
#[path = "trace_tests.rs"]
mod tests;
