//! The index: for each kind, action and type of resource, the few rules that can match at all.
//!
//! Cedar evaluates every policy of a set, one after the other: what a decision costs grows with the set. So a set is made
//! at load for each (kind, action, type of resource) that the catalogue has, and a decision evaluates its own set only. A
//! rule is left out of a slice only if its scope (`principal is`, `action ==`, `resource is` and their like) can't hold
//! there; Cedar judges the scope before the conditions, so that a rule left out would neither have matched nor failed.
//! Slices with the same rules are one. Base rules stand in every slice that their kind reaches, and drawn together in the
//! set that is evaluated first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cedar_policy::{Entity, EntityUid, Policy, PolicyId, PolicySet, RestrictedExpression as Expression};

use crate::base;
use crate::catalogue::{Catalogue, Resource};
use crate::folder::Finding;
use crate::limit::Limits;
use crate::limits::SLICED_MAX;
use crate::request::{BuildError, environment, uid};
use crate::rule::{Does, Origin, Rule, Scope};
use crate::words::{Kind, Who};

/// What a decision needs to know of a rule that determined it.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    pub id: Arc<str>,
    /// Whose yes would lift this forbid.
    pub ask: Option<Who>,
    /// This permit waits for a grant.
    pub grant: bool,
    /// What this rule of the second set limits.
    pub limits: Option<Arc<Limits>>,
}

/// The rules for one kind, action and type of resource: those that permit and forbid, and apart from them those that
/// limit, so that one more permit can never drop a limit.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    pub rules: PolicySet,
    /// The same with the base rules drawn together: what it allows without a failure, `rules` allow by the same permits. What
    /// else comes of it says nothing.
    pub first: PolicySet,
    pub limits: PolicySet,
    /// One of its permits asks for a grant.
    pub grant: bool,
    pub marks: HashMap<PolicyId, Mark>,
}

impl Slice {
    fn new<'a>(
        rules: impl IntoIterator<Item = &'a Rule>,
        together: Option<&Policy>,
    ) -> Result<Self, BuildError> {
        let mut slice = Self::default();
        let add = |set: &mut PolicySet, policy: &Policy| {
            set.add(policy.clone()).map_err(|e| BuildError::new("slice", e))
        };
        if let Some(policy) = together {
            add(&mut slice.first, policy)?;
        }
        for rule in rules {
            let drawn = rule.origin == Origin::Base && together.is_some();
            if !drawn && !matches!(rule.does, Does::Limit(_)) {
                add(&mut slice.first, &rule.policy)?;
            }
            let (set, ask, limits) = match &rule.does {
                Does::Limit(limits) => (&mut slice.limits, None, Some(Arc::new(limits.clone()))),
                Does::Forbid { ask } => (&mut slice.rules, *ask, None),
                Does::Permit { grant } => {
                    slice.grant |= grant;
                    (&mut slice.rules, None, None)
                }
            };
            add(set, &rule.policy)?;
            let grant = rule.does == Does::Permit { grant: true };
            let mark = Mark { id: Arc::from(rule.id.as_str()), ask, grant, limits };
            slice.marks.insert(rule.policy.id().clone(), mark);
        }
        Ok(slice)
    }
}

/// An action at a resource, ready to be decided.
#[derive(Clone, Debug)]
pub(crate) struct Guarded {
    pub uid: EntityUid,
    pub irreversible: bool,
    /// In the order of [`Kind::ALL`].
    slices: [Arc<Slice>; Kind::ALL.len()],
}

impl Guarded {
    /// The rules for identities of this kind.
    pub fn slice(&self, kind: Kind) -> &Slice {
        let [service, machine, pipeline, ai_agent, helper] = &self.slices;
        match kind {
            Kind::Service => service,
            Kind::Machine => machine,
            Kind::Pipeline => pipeline,
            Kind::AiAgent => ai_agent,
            Kind::Helper => helper,
        }
    }
}

/// A resource in its Cedar form, with its actions.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub entity: Arc<Entity>,
    pub actions: BTreeMap<String, Guarded>,
}

/// Why there is no index.
#[derive(Debug)]
pub(crate) enum NoIndex {
    Finding(Finding),
    Build(BuildError),
}

impl From<BuildError> for NoIndex {
    fn from(e: BuildError) -> Self {
        Self::Build(e)
    }
}

/// All resources by ID, each with its slices.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index {
    pub targets: BTreeMap<String, Target>,
}

impl Index {
    /// Sorts the rules into slices.
    pub fn new(catalogue: &Catalogue, rules: &[Rule]) -> Result<Self, NoIndex> {
        let scopes: Vec<_> = rules.iter().map(Rule::scope).collect();
        let together = Policy::parse(Some(PolicyId::new(base::TOGETHER_ID)), base::TOGETHER);
        let together = together.map_err(|e| BuildError::new("base", e))?;
        let mut made = Slices { rules, scopes: &scopes, together, known: HashMap::new(), sliced: 0 };
        // By action and type: the resources of one type share their slices.
        let mut shared: HashMap<(&str, &str), [Arc<Slice>; Kind::ALL.len()]> = HashMap::new();
        for (action, types) in catalogue.actions() {
            for kind in types {
                let [a, b, c, d, e] = Kind::ALL;
                let slices = [
                    made.slice(a, action, kind)?,
                    made.slice(b, action, kind)?,
                    made.slice(c, action, kind)?,
                    made.slice(d, action, kind)?,
                    made.slice(e, action, kind)?,
                ];
                shared.insert((action, kind), slices);
            }
        }
        let mut index = Self::default();
        for resource in catalogue.iter() {
            let mut actions = BTreeMap::new();
            for action in &resource.actions {
                let Some(slices) = shared.get(&(action.as_str(), resource.kind.as_str())) else { continue };
                let guarded = Guarded {
                    uid: uid("Action", action)?,
                    irreversible: resource.irreversible.contains(action),
                    slices: slices.clone(),
                };
                actions.insert(action.clone(), guarded);
            }
            index
                .targets
                .insert(resource.id.clone(), Target { entity: Arc::new(entity(resource)?), actions });
        }
        Ok(index)
    }
}

struct Slices<'a> {
    rules: &'a [Rule],
    scopes: &'a [Scope],
    together: Policy,
    /// By the places of its rules.
    known: HashMap<Vec<usize>, Arc<Slice>>,
    sliced: usize,
}

impl Slices<'_> {
    fn slice(&mut self, kind: Kind, action: &str, resource_type: &str) -> Result<Arc<Slice>, NoIndex> {
        let places = self.scopes.iter().enumerate();
        let places: Vec<usize> = places
            .filter(|(_, scope)| scope.reaches(kind, action, resource_type))
            .map(|(at, _)| at)
            .collect();
        if let Some(slice) = self.known.get(&places) {
            return Ok(Arc::clone(slice));
        }
        self.sliced += places.len();
        if self.sliced > SLICED_MAX {
            let text = "too many rules speak of every kind, action and resource".to_owned();
            let next = "name kind, action and type in their scope: (principal is AiAgent, action == ..., resource is ...)";
            return Err(NoIndex::Finding(Finding::new("", None, "size", text, next)));
        }
        let sliced = places.iter().filter_map(|at| self.rules.get(*at));
        let slice = Arc::new(Slice::new(sliced, Some(&self.together))?);
        self.known.insert(places, Arc::clone(&slice));
        Ok(slice)
    }
}

/// All rules in one slice, each by itself, for comparison.
#[cfg(test)]
pub(crate) fn whole(rules: &[Rule]) -> Slice {
    Slice::new(rules, None).unwrap()
}

fn entity(resource: &Resource) -> Result<Entity, BuildError> {
    let attributes = HashMap::from([
        ("name".to_owned(), Expression::new_string(resource.id.clone())),
        ("environment".to_owned(), Expression::new_entity_uid(environment(resource.environment)?)),
        ("domain".to_owned(), Expression::new_string(resource.domain.clone())),
        ("sensitivity".to_owned(), Expression::new_long(resource.sensitivity)),
    ]);
    let gate = resource.gate().map(|gate| uid("Gate", gate)).transpose()?;
    let name = uid(&resource.kind, &resource.id)?;
    Entity::new(name, attributes, gate.into_iter().collect()).map_err(|e| BuildError::new("resource", e))
}
