//! Verbs on grants.
//!
//! Never gives what the rules in force do not know.

use std::time::Duration;

use avouch_domain::{Case, Grant, GrantId, GrantStanding, Now, PersonId, SpiffeId, Timestamp};
use avouch_engine::plan::grants::{self, CASE_BATCH, EndError, GiveError, NewGrant};

use super::requests::fresh_id;
use super::{Services, WriteError};

/// What somebody gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Giving {
    pub identity: SpiffeId,
    /// Empty: the only one that the resource has.
    pub action: String,
    /// ID in the catalogue.
    pub resource: String,
    pub uses: u32,
    pub lasts: Duration,
    /// What it is for.
    pub case: Option<Case>,
}

/// Why the rules do not know what is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    #[error("no rules are in force, so there is nothing to give: `avouch rules publish`")]
    NoRules,
    #[error("the rules in force have no resource \"{0}\": `avouch rules show` has them")]
    Resource(String),
    #[error("\"{resource}\" has no action \"{action}\", expected one of: {known}")]
    Action { resource: String, action: String, known: String },
}

/// Why nothing was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GivingError {
    #[error(transparent)]
    Action(#[from] ActionError),
    #[error(transparent)]
    Give(#[from] GiveError),
}

impl Services {
    /// Gives an identity an action on a resource.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was given.
    pub async fn give_grant(
        &self,
        now: Now,
        actor: &PersonId,
        giving: Giving,
    ) -> Result<Result<Grant, GivingError>, WriteError> {
        let action = match self.action_of(&giving.resource, &giving.action) {
            Ok(action) => action,
            Err(e) => return Ok(Err(e.into())),
        };
        let new = NewGrant {
            id: GrantId::new(&fresh_id(GrantId::PREFIX)).map_err(|_| WriteError::Stopped)?,
            identity: giving.identity,
            action: action.into(),
            resource: giving.resource.into(),
            uses: giving.uses,
            lasts: giving.lasts,
            case: giving.case,
        };
        let actor = actor.clone();
        let give = move |registry: &_| grants::give(registry, now.wall, &actor, &new);
        Ok(self.0.writer.write(give).await?.map_err(GivingError::from))
    }

    /// The action that is meant, if the rules in force have it for the resource. Empty: the only one.
    pub(super) fn action_of(&self, resource: &str, action: &str) -> Result<String, ActionError> {
        let shown = self.shown_rules();
        let rules = shown.as_ref().and_then(|shown| shown.rules.as_ref()).ok_or(ActionError::NoRules)?;
        let short = |text: &str| text.chars().take(128).collect();
        let actions = rules.actions.get(resource);
        let actions = actions.ok_or_else(|| ActionError::Resource(short(resource)))?;
        let only = actions.first().filter(|_| actions.len() == 1 && action.is_empty());
        only.or_else(|| actions.get(action)).cloned().ok_or_else(|| ActionError::Action {
            resource: resource.to_owned(),
            action: short(action),
            known: actions.iter().map(String::as_str).collect::<Vec<_>>().join(", "),
        })
    }

    /// Takes a grant back.
    ///
    /// # Errors
    /// [`WriteError`]; then it was not taken back.
    pub async fn end_grant(
        &self,
        now: Now,
        actor: &PersonId,
        id: GrantId,
    ) -> Result<Result<Grant, EndError>, WriteError> {
        let actor = actor.clone();
        self.0.writer.write(move |registry| grants::end(registry, now.wall, &actor, &id)).await
    }

    /// Takes back all that was given for a case. Gives how many grants that were.
    ///
    /// # Errors
    /// [`WriteError`]; then those of the batches before are taken back, and the same call goes on.
    pub async fn end_case(
        &self,
        now: Now,
        actor: &PersonId,
        case: Case,
    ) -> Result<Result<usize, EndError>, WriteError> {
        let mut all = 0;
        loop {
            let (actor, case) = (actor.clone(), case.clone());
            let end = move |registry: &_| grants::end_case(registry, now.wall, &actor, &case);
            match self.0.writer.write(end).await? {
                Ok(ended) if ended < CASE_BATCH => return Ok(Ok(all + ended)),
                Ok(ended) => all += ended,
                Err(e) => return Ok(Err(e)),
            }
        }
    }

    /// Grants of an identity and of a case, or of any, newest first; only those that are open, unless `all` are wanted.
    #[must_use]
    pub fn list_grants(
        &self,
        wall: Timestamp,
        (of, case): (Option<&SpiffeId>, Option<&Case>),
        all: bool,
        limit: usize,
    ) -> Vec<Grant> {
        let registry = self.registry();
        let wanted = |grant: &&Grant| {
            of.is_none_or(|name| *name == grant.identity)
                && (case.is_none() || case == grant.case.as_ref())
                && (all || registry.grant_standing(grant, wall) == GrantStanding::Open)
        };
        let mut grants: Vec<_> = registry.grants().filter(wanted).collect();
        grants.sort_by(|a, b| (b.given.at, &b.id).cmp(&(a.given.at, &a.id)));
        grants.into_iter().take(limit).cloned().collect()
    }
}
