//! A request as a person writes it down, in an example or on a command line: what is not said is in order.
//!
//! Never decides; it fills in what was left out and hands a whole request over.

use std::collections::BTreeSet;

use avouch_domain::{SpiffeId, Timestamp};
use serde::Deserialize;

use crate::decide::{Decision, Rules};
use crate::request::{Act, Caller, Grant, Identity, IdentityFacts, Params, Task, Yes};
use crate::words::{self, Environment, Kind, Standing, Who};

/// The time of every sketch. Only the distance to the identity's end counts.
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
/// Seconds to the end of an identity, and calls left in a task, when nothing is said.
const ENOUGH: u32 = 100;
const PURPOSE: &str = "work";

/// What was said of a request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sketch {
    #[serde(deserialize_with = "words::word")]
    pub kind: Kind,
    pub action: String,
    pub resource: String,
    /// SPIFFE ID; one of example.org when nothing is said.
    pub name: Option<String>,
    /// That of the resource when nothing is said.
    #[serde(default, deserialize_with = "words::word_or_none")]
    pub environment: Option<Environment>,
    pub preset: Option<String>,
    #[serde(default)]
    pub standing: Standing,
    /// The identity's owner is no longer active.
    #[serde(default)]
    pub owner_left: bool,
    /// The identity's end is reached.
    #[serde(default)]
    pub ended: bool,
    /// Those of the identity; that of the resource when nothing is said.
    pub domains: Option<BTreeSet<String>>,
    /// That of the resource when nothing is said.
    pub max_sensitivity: Option<i64>,
    /// Of the identity.
    pub purpose: Option<String>,
    /// The purpose of the task; that of the identity when nothing is said.
    pub task: Option<String>,
    /// There is no task.
    #[serde(default)]
    pub no_task: bool,
    /// The resources that the task names.
    #[serde(default)]
    pub tools: BTreeSet<String>,
    pub calls_left: Option<u32>,
    /// There is a grant for exactly this.
    #[serde(default)]
    pub grant: bool,
    /// Who said yes to exactly this.
    #[serde(default)]
    pub yes: BTreeSet<Who>,
    /// Seconds since then.
    #[serde(default)]
    pub yes_age: u32,
    #[serde(default)]
    pub worn_by_ai_agent: bool,
    /// Seconds since the node proved itself.
    #[serde(default)]
    pub proof_age: u32,
    /// When the node proved itself is not known.
    #[serde(default)]
    pub no_proof: bool,
    /// An emergency is open for exactly this; no example is one.
    #[serde(skip)]
    pub emergency: bool,
    #[serde(default)]
    pub params: Params,
}

impl Sketch {
    /// One that says only what must be said.
    #[must_use]
    pub fn new(kind: Kind, action: &str, resource: &str) -> Self {
        Self {
            kind,
            action: action.to_owned(),
            resource: resource.to_owned(),
            name: None,
            environment: None,
            preset: None,
            standing: Standing::Active,
            owner_left: false,
            ended: false,
            domains: None,
            max_sensitivity: None,
            purpose: None,
            task: None,
            no_task: false,
            tools: BTreeSet::new(),
            calls_left: None,
            grant: false,
            yes: BTreeSet::new(),
            yes_age: 0,
            worn_by_ai_agent: false,
            proof_age: 0,
            no_proof: false,
            emergency: false,
            params: Params::new(),
        }
    }

    /// What these rules say to it. An error is a sketch that can't be meant.
    pub fn decide(&self, rules: &Rules) -> Result<Decision, String> {
        let identity = Identity::new(self.identity(rules)?).map_err(|e| e.to_string())?;
        let task = (!self.no_task).then(|| Task {
            purpose: self.task.clone().unwrap_or_else(|| self.purpose().to_owned()),
            tools: self.tools.clone(),
            calls_left: self.calls_left.unwrap_or(ENOUGH),
        });
        let caller = Caller {
            identity: &identity,
            task: task.as_ref(),
            grant: self.grant.then_some(Grant { uses_left: 1, seconds_left: ENOUGH }),
            yes: Yes {
                owner: self.yes.contains(&Who::Owner),
                person: self.yes.contains(&Who::Person),
                age: self.yes_age,
            },
            worn_by_ai_agent: self.worn_by_ai_agent,
            proof_age: (!self.no_proof).then_some(self.proof_age),
            emergency: self.emergency,
        };
        let act = Act { action: &self.action, resource: &self.resource, params: &self.params, now: NOW };
        Ok(rules.decide(&caller, &act))
    }

    /// Takes a parameter as text, once for each value, in the type that the resource declares.
    pub fn set_param(&mut self, rules: &Rules, name: &str, text: &str) -> Result<(), String> {
        rules.read_param(&self.resource, name, text, &mut self.params)
    }

    fn purpose(&self) -> &str {
        self.purpose.as_deref().unwrap_or(PURPOSE)
    }

    fn identity(&self, rules: &Rules) -> Result<IdentityFacts, String> {
        let resource = rules.catalogue().get(&self.resource);
        let name = self.name.clone().unwrap_or_else(|| format!("spiffe://example.org/{}", self.kind));
        let name = SpiffeId::parse(&name).map_err(|e| format!("\"{name}\" is no SPIFFE ID: {e}"))?;
        let domains = self.domains.clone();
        Ok(IdentityFacts {
            name,
            kind: self.kind,
            environment: self.environment.or(resource.map(|r| r.environment)).unwrap_or(Environment::Test),
            standing: self.standing,
            owner_active: !self.owner_left,
            domains: domains.unwrap_or_else(|| resource.map(|r| r.domain.clone()).into_iter().collect()),
            max_sensitivity: self.max_sensitivity.or(resource.map(|r| r.sensitivity)).unwrap_or_default(),
            purpose: self.purpose().to_owned(),
            preset: self.preset.clone(),
            ends: if self.ended { NOW } else { Timestamp::from_secs(NOW.secs() + i64::from(ENOUGH)) },
        })
    }
}
