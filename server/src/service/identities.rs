//! Verbs on identities.
//!
//! Never tells an agent anything itself: a pause or a stop is a write like any other, and the feed carries it.

use std::collections::BTreeSet;

use avouch_domain::limits::UNUSED_AFTER;
use avouch_domain::{Code, Entry, Environment, Identity, Kind, Now, PersonId, Plan, SpiffeId, Timestamp};
use avouch_engine::Registry;
use avouch_engine::entitle::{agents_of_name, served_identity};
use avouch_engine::found::{Found, found};
use avouch_engine::overview::Used;
use avouch_engine::plan::identities::{self, IdentityError, IdentityPatch, NewIdentity, Place};

use avouch_store::Uses;

use super::entries::fresh_id;
use super::{BadToken, Page, PageRequest, Services, WriteError};
use crate::limits::ADOPT_MAX;

type Outcome = Result<Result<Identity, IdentityError>, WriteError>;

/// Which identities are wanted; `None` = any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityFilter {
    /// The name of a standing, whatever its cause.
    pub standing: Option<&'static str>,
    pub owner: Option<PersonId>,
    pub kind: Option<Kind>,
    pub environment: Option<Environment>,
    /// Only those that nobody uses.
    pub unused: bool,
}

/// Why identities could not be listed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    #[error(transparent)]
    Token(#[from] BadToken),
    #[error(transparent)]
    Store(#[from] WriteError),
}

/// Why a text means no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("no identity has the name \"{0}\": `avouch identity list` shows all")]
    Unknown(String),
    #[error("\"{name}\" means several identities, expected one of {several}")]
    Several { name: String, several: String },
    #[error("\"{name}\" is no SPIFFE ID and no short name: {why}")]
    Form { name: String, why: String },
    #[error("{0}")]
    NotOurs(String),
}

/// An identity and where it may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    pub identity: Identity,
    /// Ascending.
    pub entry_ids: Vec<String>,
    /// Nodes that may serve one of its entries while it is active, ascending.
    pub agents: BTreeSet<SpiffeId>,
}

/// What an adoption is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    /// Names whose path begins with this.
    pub path_prefix: String,
    /// `None`: whoever is suggested.
    pub owner: Option<PersonId>,
    pub kind: Kind,
    pub environment: Environment,
    pub purpose: Code,
    pub end: Timestamp,
}

/// One name of an adoption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub name: SpiffeId,
    /// `None`: it is left, because nobody is suggested.
    pub owner: Option<PersonId>,
    /// Why this owner.
    pub reason: String,
}

/// What one step changes about an identity by its name.
pub type Step = fn(&Registry, Timestamp, &PersonId, &SpiffeId) -> (Plan, Result<Identity, IdentityError>);

/// The steps that need nothing but the name.
pub mod step {
    pub use avouch_engine::plan::identities::{approve, confirm, drill, pause, resume, stop};
}

impl Services {
    /// The SPIFFE ID that a new identity is to have: a full one, or `/ENVIRONMENT/NAME` for a short name.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn new_name(&self, text: &str, environment: Environment) -> Result<SpiffeId, NameError> {
        let form = |why: String| NameError::Form { name: text.chars().take(128).collect(), why };
        let name = if text.starts_with("spiffe://") {
            SpiffeId::parse(text)
        } else {
            SpiffeId::new(self.trust_domain(), &format!("/{}/{text}", environment.name()))
        };
        let name = name.map_err(|e| form(e.to_string()))?;
        self.check_workload(&name).map_err(NameError::NotOurs)?;
        Ok(name)
    }

    /// The name of the identity that a text means: a full SPIFFE ID, or the end of exactly one.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn find_name(&self, text: &str) -> Result<SpiffeId, NameError> {
        let registry = self.registry();
        if let Some(identity) = SpiffeId::parse(text).ok().and_then(|name| registry.identity(&name).cloned())
        {
            return Ok(identity.spiffe_id);
        }
        let shown: String = text.chars().take(128).collect();
        let end = format!("/{text}");
        let mut fitting =
            registry.identities().map(|i| &i.spiffe_id).filter(|name| name.path().ends_with(&end));
        match (fitting.next(), fitting.next()) {
            (Some(name), None) => Ok(name.clone()),
            (Some(first), Some(second)) => {
                let several = format!("{first}, {second}");
                Err(NameError::Several { name: shown, several })
            }
            _ => Err(NameError::Unknown(shown)),
        }
    }

    /// Registers an identity.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was registered.
    pub async fn register_identity(&self, now: Now, actor: &PersonId, new: NewIdentity) -> Outcome {
        let actor = actor.clone();
        self.0.writer.write(move |registry| identities::register(registry, now.wall, &actor, &new)).await
    }

    /// Changes owner, successor or end.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was changed.
    pub async fn change_identity(
        &self,
        now: Now,
        actor: &PersonId,
        name: SpiffeId,
        patch: IdentityPatch,
    ) -> Outcome {
        let actor = actor.clone();
        self.0
            .writer
            .write(move |registry| identities::patch(registry, now.wall, &actor, &name, &patch))
            .await
    }

    /// Does a step that needs nothing but the name.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was done.
    pub async fn step_identity(&self, now: Now, actor: &PersonId, name: SpiffeId, step: Step) -> Outcome {
        let actor = actor.clone();
        self.0.writer.write(move |registry| step(registry, now.wall, &actor, &name)).await
    }

    /// Lets a local user of a node run an identity there.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was written.
    pub async fn place_identity(
        &self,
        now: Now,
        actor: &PersonId,
        name: SpiffeId,
        place: Place,
    ) -> Result<Result<Entry, IdentityError>, WriteError> {
        let actor = actor.clone();
        let Some(fresh) = fresh_id() else { return Ok(Err(IdentityError::Place("no ID".to_owned()))) };
        self.0
            .writer
            .write(move |registry| identities::place(registry, now.wall, &actor, &name, &place, &fresh))
            .await
    }

    /// An identity, its entries, and the nodes that may serve them.
    #[must_use]
    pub fn reach(&self, wall: Timestamp, name: &SpiffeId) -> Option<Reach> {
        let registry = self.registry();
        let identity = registry.identity(name)?.clone();
        let mut entry_ids: Vec<_> = registry.entries_by_spiffe_id(name).map(|e| e.id.to_string()).collect();
        entry_ids.sort_unstable();
        let alive = |agent: &SpiffeId| registry.node(agent).is_some_and(|node| node.is_alive(wall));
        let agents = agents_of_name(&registry, name).into_iter().filter(alive).collect();
        Some(Reach { identity, entry_ids, agents })
    }

    /// Those of these identities that are in force and that the agent may serve, and whether their owners are active.
    #[must_use]
    pub fn served_identities(
        &self,
        wall: Timestamp,
        agent: &SpiffeId,
        names: &[SpiffeId],
    ) -> Vec<(Identity, bool)> {
        let registry = self.registry();
        let served = names.iter().filter_map(|name| served_identity(&registry, agent, name, wall));
        let active = |id: &PersonId| registry.person(id).is_some_and(avouch_domain::Person::is_active);
        served.map(|identity| (identity.clone(), active(&identity.owner))).collect()
    }

    /// Identities, ascending by name.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn list_identities(
        &self,
        wall: Timestamp,
        filter: &IdentityFilter,
        page: &PageRequest,
    ) -> Result<Page<Identity>, ListError> {
        let used = if filter.unused { Some(self.used(wall).await?) } else { None };
        let registry = self.registry();
        let after = page.after(|token| SpiffeId::parse(token).ok())?;
        let unused =
            |identity: &Identity| used.as_ref().is_none_or(|used| used.lacks(&registry, identity, wall));
        let fitting = registry.identities_after(after.as_ref());
        let fitting = fitting.filter(|identity| filter.fits(identity) && unused(identity));
        Ok(page.cut(fitting.cloned(), |identity| identity.spiffe_id.to_string()))
    }

    /// What is known of the use of identities.
    ///
    /// # Errors
    /// [`WriteError::Store`] if the store can't be read.
    pub(super) async fn used(&self, wall: Timestamp) -> Result<Used, WriteError> {
        let uses = self.0.store.uses_since(wall - UNUSED_AFTER).await;
        let Uses { since, lately, tellers } = uses.map_err(|e| WriteError::Store(e.to_string()))?;
        Ok(Used { known_since: since, lately, tellers })
    }

    /// The beginning of the day on which each of these was used last; `None`: not known.
    ///
    /// # Errors
    /// [`WriteError::Store`] if the store can't be read.
    pub async fn last_uses(&self, names: Vec<SpiffeId>) -> Result<Vec<Option<Timestamp>>, WriteError> {
        self.0.store.last_uses(names).await.map_err(|e| WriteError::Store(e.to_string()))
    }

    /// Names without identity, ascending.
    ///
    /// # Errors
    /// [`BadToken`].
    pub fn list_found(&self, page: &PageRequest) -> Result<Page<Found>, BadToken> {
        let registry = self.registry();
        let after = page.after(|token| SpiffeId::parse(token).ok())?;
        Ok(page.cut(found(&registry, after.as_ref()), |found| found.name.to_string()))
    }

    /// What an adoption would do now, at most [`ADOPT_MAX`] names, and whether there are more.
    #[must_use]
    pub fn adoptable(&self, adoption: &Adoption) -> (Vec<Candidate>, bool) {
        candidates(&self.registry(), adoption)
    }

    /// Adopts what [`Self::adoptable`] shows.
    ///
    /// # Errors
    /// [`WriteError`], or the first refusal; then nothing was adopted.
    pub async fn adopt(
        &self,
        now: Now,
        actor: &PersonId,
        adoption: Adoption,
    ) -> Result<Result<(Vec<Candidate>, bool), IdentityError>, WriteError> {
        let actor = actor.clone();
        let decide = move |registry: &Registry| {
            let (candidates, more) = candidates(registry, &adoption);
            let items: Vec<_> = candidates.iter().filter_map(|c| new_of(&adoption, c)).collect();
            let (plan, outcomes) = identities::adopt(registry, now.wall, &actor, &items);
            match outcomes.into_iter().collect::<Result<Vec<_>, _>>() {
                Ok(_) => (plan, Ok((candidates, more))),
                Err(e) => (Plan::default(), Err(e)),
            }
        };
        self.0.writer.write(decide).await
    }
}

fn new_of(adoption: &Adoption, candidate: &Candidate) -> Option<NewIdentity> {
    Some(NewIdentity {
        name: candidate.name.clone(),
        kind: adoption.kind,
        environment: adoption.environment,
        purpose: adoption.purpose.clone(),
        preset: None,
        owner: candidate.owner.clone()?,
        successor: None,
        end: adoption.end,
    })
}

fn candidates(registry: &Registry, adoption: &Adoption) -> (Vec<Candidate>, bool) {
    let mut fitting =
        found(registry, None).filter(|f| f.name.path().starts_with(&adoption.path_prefix)).map(|found| {
            let suggested = found.suggestion.map(|s| (Some(s.person), s.reason.to_string()));
            let (owner, reason) = match &adoption.owner {
                Some(owner) => (Some(owner.clone()), "you said so".to_owned()),
                None => suggested.unwrap_or((None, "nobody is suggested".to_owned())),
            };
            Candidate { name: found.name, owner, reason }
        });
    let candidates = fitting.by_ref().take(ADOPT_MAX).collect();
    (candidates, fitting.next().is_some())
}

impl IdentityFilter {
    fn fits(&self, identity: &Identity) -> bool {
        self.standing.is_none_or(|name| identity.standing.name() == name)
            && self.owner.as_ref().is_none_or(|owner| *owner == identity.owner)
            && self.kind.is_none_or(|kind| kind == identity.kind)
            && self.environment.is_none_or(|environment| environment == identity.environment)
    }
}
