//! Plans on what people accept although it is lacking.
//!
//! Never lets who owns an identity of staging or prod accept what it lacks. Never changes what is decided anywhere.

use std::sync::Arc;

use avouch_domain::limits::{ACCEPTED_ALL_MAX, ACCEPTED_FOR_MAX};
use avouch_domain::{
    Accepted, AuditEvent, Environment, Finding, PersonId, Plan, Row, RowKey, Said, SpiffeId, Timestamp,
};

use super::Draft;
use super::consent::{self, ConsentError};
use crate::found::is_found;
use crate::registry::Registry;

/// What somebody accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepting {
    pub name: SpiffeId,
    pub what: Finding,
    pub until: Timestamp,
    pub why: Arc<str>,
}

/// Why nothing is accepted, or taken back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    #[error(transparent)]
    Consent(#[from] ConsentError),
    #[error("{0} is no name without an owner: `avouch found` shows those that are")]
    NotFound(SpiffeId),
    #[error("no identity has the name {0}: `avouch identity list` shows all")]
    NoIdentity(SpiffeId),
    #[error("nobody answers for {name} yet, so a security person accepts that, and {actor} is none")]
    NotSecurity { name: SpiffeId, actor: PersonId },
    #[error("{actor} owns {name}, so somebody else accepts what it lacks in {environment}")]
    Own { name: SpiffeId, actor: PersonId, environment: Environment },
    #[error("until when: expected a moment that is to come, at most {} days ahead", ACCEPTED_FOR_MAX.as_secs() / 86_400)]
    Until,
    #[error("{ACCEPTED_ALL_MAX} findings are accepted already: `avouch finding reopen` those that are over")]
    TooMany,
    #[error("nobody accepts \"{what}\" of {name}: `avouch finding list` shows what is accepted")]
    NotAccepted { name: SpiffeId, what: Finding },
}

/// Accepts that something lacks what it lacks, in the place of what was said of it before.
pub fn accept(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    new: &Accepting,
) -> (Plan, Result<Accepted, AcceptError>) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let accepted = accepted(registry, at, actor, new).inspect(|accepted| {
        let detail = vec![("what", accepted.what.to_string()), ("until", accepted.until.to_string())];
        draft.note_with(AuditEvent::FindingAccepted, &accepted.name, detail);
        draft.put(Row::Accepted(accepted.clone()));
    });
    (draft.finish(), accepted)
}

fn accepted(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    new: &Accepting,
) -> Result<Accepted, AcceptError> {
    let person = consent::active(registry, actor)?;
    let (name, actor) = (new.name.clone(), actor.clone());
    match new.what {
        Finding::Owner if !is_found(registry, &name) => return Err(AcceptError::NotFound(name)),
        Finding::Owner if !person.security => return Err(AcceptError::NotSecurity { name, actor }),
        Finding::Owner => {}
        Finding::Confirmed | Finding::Stop => {
            let Some(identity) = registry.identity(&name) else { return Err(AcceptError::NoIdentity(name)) };
            let environment = identity.environment;
            if identity.owner == actor && environment != Environment::Test {
                return Err(AcceptError::Own { name, actor, environment });
            }
        }
    }
    if new.until <= at || new.until > at + ACCEPTED_FOR_MAX {
        return Err(AcceptError::Until);
    }
    if registry.accepted(&name, new.what).is_none() && registry.all_accepted().len() >= ACCEPTED_ALL_MAX {
        return Err(AcceptError::TooMany);
    }
    let (why, said) = (new.why.clone(), Said { by: actor, at });
    Ok(Accepted { name, what: new.what, until: new.until, why, said })
}

/// Lets a finding count again. Any person may. Gives what was accepted.
pub fn unaccept(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    name: &SpiffeId,
    what: Finding,
) -> (Plan, Result<Accepted, AcceptError>) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let known = consent::active(registry, actor).map_err(AcceptError::from).and_then(|_| {
        let accepted = registry.accepted(name, what).cloned();
        accepted.ok_or_else(|| AcceptError::NotAccepted { name: name.clone(), what })
    });
    if known.is_ok() {
        draft.note_with(AuditEvent::FindingUnaccepted, name, vec![("what", what.to_string())]);
        draft.delete(RowKey::Accepted(name.clone(), what));
    }
    (draft.finish(), known)
}
