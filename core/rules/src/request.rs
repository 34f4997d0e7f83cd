//! What is asked: who, within which task, with which grant and yes, to do what with what and with which values.
//!
//! Typed values in, Cedar values out; never JSON. Times and ages are arguments. What does not change between calls, the
//! identity, is turned into its Cedar form once.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::str::FromStr as _;
use std::sync::Arc;

use avouch_domain::{SpiffeId, Timestamp};
use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression as Expression,
};
use parking_lot::Mutex;
use serde::Deserialize;

use crate::limits::{PARAM_SET_MAX, PARAM_TEXT_MAX};
use crate::words::{Environment, Kind, ParamKind, Standing, type_name};

/// A Cedar value could not be built; said with its step, and denied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot build the {step} of a request: {reason}")]
pub struct BuildError {
    pub step: &'static str,
    pub reason: String,
}

impl BuildError {
    pub(crate) fn new(step: &'static str, reason: impl ToString) -> Self {
        Self { step, reason: reason.to_string() }
    }
}

/// What is known of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityFacts {
    pub name: SpiffeId,
    pub kind: Kind,
    pub environment: Environment,
    pub standing: Standing,
    pub owner_active: bool,
    pub domains: BTreeSet<String>,
    /// The most sensitive resource it may touch.
    pub max_sensitivity: i64,
    pub purpose: String,
    pub preset: Option<String>,
    /// From this second on it may do nothing.
    pub ends: Timestamp,
}

/// An identity as decisions see it. Made anew when one of its facts changes.
#[derive(Debug)]
pub struct Identity {
    facts: IdentityFacts,
    pub(crate) entity: Entity,
    /// Beside the resource that was asked about last: most ask about the same again and again.
    last: Mutex<Option<(Arc<Entity>, Arc<Entities>)>>,
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { facts: self.facts.clone(), entity: self.entity.clone(), last: Mutex::default() }
    }
}

impl Identity {
    /// Takes the facts of an identity.
    pub fn new(facts: IdentityFacts) -> Result<Self, BuildError> {
        let step = "identity";
        let attributes = HashMap::from([
            ("environment".to_owned(), Expression::new_entity_uid(environment(facts.environment)?)),
            ("active".to_owned(), Expression::new_bool(facts.standing == Standing::Active)),
            ("owner_active".to_owned(), Expression::new_bool(facts.owner_active)),
            ("domains".to_owned(), set(&facts.domains)),
            ("max_sensitivity".to_owned(), Expression::new_long(facts.max_sensitivity)),
            ("purpose".to_owned(), Expression::new_string(facts.purpose.clone())),
            ("ends".to_owned(), Expression::new_long(facts.ends.secs())),
        ]);
        let parents = match &facts.preset {
            Some(preset) => HashSet::from([uid("Preset", preset)?]),
            None => HashSet::new(),
        };
        let name = uid(type_name(facts.kind), facts.name.as_str())?;
        let entity = Entity::new(name, attributes, parents).map_err(|e| BuildError::new(step, e))?;
        Ok(Self { facts, entity, last: Mutex::default() })
    }

    /// The identity and a resource, as an evaluation wants them.
    pub(crate) fn beside(&self, resource: &Arc<Entity>) -> Result<Arc<Entities>, BuildError> {
        let mut last = self.last.lock();
        if let Some((known, entities)) = &*last
            && Arc::ptr_eq(known, resource)
        {
            return Ok(entities.clone());
        }
        let both = [self.entity.clone(), Entity::clone(resource)];
        let both = Entities::from_entities(both, None).map_err(|e| BuildError::new("entities", e))?;
        let entities = Arc::new(both);
        *last = Some((resource.clone(), entities.clone()));
        Ok(entities)
    }

    /// What it was made of.
    #[must_use]
    pub fn facts(&self) -> &IdentityFacts {
        &self.facts
    }
}

/// The task within which an AI agent acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub purpose: String,
    /// IDs of the resources it was opened for; empty if it names none.
    pub tools: BTreeSet<String>,
    pub calls_left: u32,
}

/// A grant of exactly this identity for exactly this action and resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub uses_left: u32,
    pub seconds_left: u32,
}

/// Who said yes to exactly this request. Who hands this over has compared the hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Yes {
    pub owner: bool,
    pub person: bool,
    /// Seconds since the oldest of them.
    pub age: u32,
}

/// One link of a chain: an identity and what it brings to this call.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    pub identity: &'a Identity,
    pub task: Option<&'a Task>,
    pub grant: Option<Grant>,
    pub yes: Yes,
    /// The process that uses the identity descends from an AI agent.
    pub worn_by_ai_agent: bool,
    /// Seconds since the node that it runs on proved itself to the server; `None`: not known.
    pub proof_age: Option<u32>,
    /// An emergency is open for exactly this identity, action and resource. Who hands this over has compared them.
    pub emergency: bool,
}

impl<'a> Caller<'a> {
    /// An identity that brings nothing but itself.
    #[must_use]
    pub fn new(identity: &'a Identity) -> Self {
        Self {
            identity,
            task: None,
            grant: None,
            yes: Yes::default(),
            worn_by_ai_agent: false,
            proof_age: None,
            emergency: false,
        }
    }
}

/// A value that a gate took out of a call.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Param {
    Long(i64),
    String(String),
    Set(BTreeSet<String>),
}

impl Param {
    pub(crate) fn fits(&self, kind: ParamKind) -> bool {
        match (self, kind) {
            (Self::Long(_), ParamKind::Long) => true,
            (Self::String(text), ParamKind::String) => text.len() <= PARAM_TEXT_MAX,
            (Self::Set(set), ParamKind::Set) => {
                set.len() <= PARAM_SET_MAX && set.iter().all(|text| text.len() <= PARAM_TEXT_MAX)
            }
            _ => false,
        }
    }

    fn value(&self) -> Expression {
        match self {
            Self::Long(number) => Expression::new_long(*number),
            Self::String(text) => Expression::new_string(text.clone()),
            Self::Set(texts) => set(texts),
        }
    }
}

/// Values that a gate took out of a call, by name.
pub type Params = BTreeMap<String, Param>;

/// What is to be done, and when.
#[derive(Clone, Copy, Debug)]
pub struct Act<'a> {
    pub action: &'a str,
    /// ID in the catalogue.
    pub resource: &'a str,
    pub params: &'a Params,
    pub now: Timestamp,
}

/// The context of one evaluation.
pub(crate) fn context(caller: &Caller<'_>, act: &Act<'_>, irreversible: bool) -> Result<Context, BuildError> {
    let record = |pairs: Vec<(&str, Expression)>| {
        let pairs = pairs.into_iter().map(|(key, value)| (key.to_owned(), value));
        Expression::new_record(pairs).map_err(|e| BuildError::new("context", e))
    };
    let yes = record(vec![
        ("owner", Expression::new_bool(caller.yes.owner)),
        ("person", Expression::new_bool(caller.yes.person)),
        ("age", Expression::new_long(caller.yes.age.into())),
    ])?;
    let params = record(act.params.iter().map(|(key, value)| (key.as_str(), value.value())).collect())?;
    let mut pairs = vec![
        ("now".to_owned(), Expression::new_long(act.now.secs())),
        ("irreversible".to_owned(), Expression::new_bool(irreversible)),
        ("worn_by_ai_agent".to_owned(), Expression::new_bool(caller.worn_by_ai_agent)),
        ("yes".to_owned(), yes),
        ("params".to_owned(), params),
    ];
    if let Some(task) = caller.task {
        let task = record(vec![
            ("purpose", Expression::new_string(task.purpose.clone())),
            ("tools", set(&task.tools)),
            ("calls_left", Expression::new_long(task.calls_left.into())),
        ])?;
        pairs.push(("task".to_owned(), task));
    }
    if let Some(grant) = caller.grant {
        let grant = record(vec![
            ("uses_left", Expression::new_long(grant.uses_left.into())),
            ("seconds_left", Expression::new_long(grant.seconds_left.into())),
        ])?;
        pairs.push(("grant".to_owned(), grant));
    }
    if let Some(age) = caller.proof_age {
        pairs.push(("proof_age".to_owned(), Expression::new_long(age.into())));
    }
    Context::from_pairs(pairs).map_err(|e| BuildError::new("context", e))
}

pub(crate) fn environment(environment: Environment) -> Result<EntityUid, BuildError> {
    uid("Environment", environment.name())
}

/// A name of Cedar's, of one of our types or of the catalogue's.
pub(crate) fn uid(type_name: &str, id: &str) -> Result<EntityUid, BuildError> {
    let name = EntityTypeName::from_str(type_name).map_err(|e| BuildError::new("name", e))?;
    Ok(EntityUid::from_type_name_and_id(name, EntityId::new(id)))
}

fn set(texts: &BTreeSet<String>) -> Expression {
    Expression::new_set(texts.iter().map(|text| Expression::new_string(text.clone())))
}
