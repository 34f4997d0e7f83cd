//! Verbs on emergencies.
//!
//! Never asks for what the rules in force do not know.

use std::time::Duration;

use avouch_domain::limits::EMERGENCIES_MAX;
use avouch_domain::{
    Emergency, EmergencyId, EmergencyStanding, Now, PersonId, SpiffeId, Timestamp, WhyError, why,
};
use avouch_engine::plan::emergencies::{self, EmergencyError, NewEmergency};

use super::grants::ActionError;
use super::requests::fresh_id;
use super::{Services, WriteError};

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Widening {
    pub identity: SpiffeId,
    /// Empty: the only one that the resource has.
    pub action: String,
    /// ID in the catalogue.
    pub resource: String,
    pub why: String,
    pub lasts: Duration,
}

/// Why nothing was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WideningError {
    #[error(transparent)]
    Action(#[from] ActionError),
    #[error(transparent)]
    Why(#[from] WhyError),
    #[error(transparent)]
    Emergency(#[from] EmergencyError),
}

impl Services {
    /// Asks for an emergency, which waits for a second person.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was asked.
    pub async fn ask_emergency(
        &self,
        now: Now,
        actor: &PersonId,
        widening: Widening,
    ) -> Result<Result<Emergency, WideningError>, WriteError> {
        let action = match self.action_of(&widening.resource, &widening.action) {
            Ok(action) => action,
            Err(e) => return Ok(Err(e.into())),
        };
        let why = match why(&widening.why) {
            Ok(why) => why,
            Err(e) => return Ok(Err(e.into())),
        };
        let new = NewEmergency {
            id: EmergencyId::new(&fresh_id(EmergencyId::PREFIX)).map_err(|_| WriteError::Stopped)?,
            identity: widening.identity,
            action: action.into(),
            resource: widening.resource.into(),
            why,
            lasts: widening.lasts,
        };
        let actor = actor.clone();
        let ask = move |registry: &_| emergencies::ask(registry, now.wall, &actor, &new);
        Ok(self.0.writer.write(ask).await?.map_err(WideningError::from))
    }

    /// The second person agrees.
    ///
    /// # Errors
    /// [`WriteError`]; then it was not agreed to.
    pub async fn agree_emergency(
        &self,
        now: Now,
        actor: &PersonId,
        id: EmergencyId,
    ) -> Result<Result<Emergency, EmergencyError>, WriteError> {
        let actor = actor.clone();
        self.0.writer.write(move |registry| emergencies::agree(registry, now.wall, &actor, &id)).await
    }

    /// Ends one.
    ///
    /// # Errors
    /// [`WriteError`]; then it was not ended.
    pub async fn end_emergency(
        &self,
        now: Now,
        actor: &PersonId,
        id: EmergencyId,
    ) -> Result<Result<Emergency, EmergencyError>, WriteError> {
        let actor = actor.clone();
        self.0.writer.write(move |registry| emergencies::end(registry, now.wall, &actor, &id)).await
    }

    /// Emergencies, newest first; only those that wait or are open, unless `all` are wanted.
    #[must_use]
    pub fn list_emergencies(
        &self,
        wall: Timestamp,
        of: Option<&SpiffeId>,
        all: bool,
        limit: usize,
    ) -> Vec<Emergency> {
        let registry = self.registry();
        let stands = |emergency: &Emergency| {
            let standing = registry.emergency_standing(emergency, wall);
            matches!(standing, EmergencyStanding::Waits | EmergencyStanding::Open)
        };
        let wanted = |emergency: &&Emergency| {
            of.is_none_or(|name| *name == emergency.identity) && (all || stands(emergency))
        };
        let mut found: Vec<_> = registry.emergencies().filter(wanted).collect();
        found.sort_by(|a, b| (b.asked.at, &b.id).cmp(&(a.asked.at, &a.id)));
        found.into_iter().take(limit).cloned().collect()
    }

    /// Those of one identity that are open: what its node agents may be told.
    #[must_use]
    pub fn open_emergencies(&self, wall: Timestamp, of: &SpiffeId) -> Vec<Emergency> {
        self.registry().open_emergencies(of, wall).take(EMERGENCIES_MAX).cloned().collect()
    }
}
