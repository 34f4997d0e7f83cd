//! Plans on grants: who gives what to whom, and that no use is counted twice or left out.
//!
//! Never lets a grant outlive a pause of its identity, its owner or its giver.

use std::sync::Arc;
use std::time::Duration;

use avouch_domain::limits::{GRANT_FOR_MAX, GRANT_USES_MAX, GRANTS_ALL_MAX, GRANTS_MAX, REQUEST_NAME_MAX};
use avouch_domain::{
    AuditEvent, Case, Grant, GrantId, GrantStanding, Identity, PersonId, Plan, Row, RowKey, Said, SpiffeId,
    Timestamp,
};

use super::Draft;
use super::consent::{self, ConsentError};
use super::requests::FORGET_BATCH;
use crate::registry::Registry;

/// Most grants of a case that one plan ends; the next plan goes on.
pub const CASE_BATCH: usize = 1_000;

/// What somebody gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGrant {
    /// Unused.
    pub id: GrantId,
    pub identity: SpiffeId,
    pub action: Arc<str>,
    /// ID in the catalogue.
    pub resource: Arc<str>,
    pub uses: u32,
    pub lasts: Duration,
    /// What it is for.
    pub case: Option<Case>,
}

/// Why nothing is given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GiveError {
    #[error("{0} is not in force, so nothing is given to it")]
    NotInForce(SpiffeId),
    #[error(transparent)]
    Consent(#[from] ConsentError),
    #[error("{uses} uses, expected 1 to {GRANT_USES_MAX}")]
    Uses { uses: u32 },
    #[error("{seconds} s, expected 1 to {} s", GRANT_FOR_MAX.as_secs())]
    Lasts { seconds: u64 },
    #[error("an action and a resource have 1 to {REQUEST_NAME_MAX} bytes")]
    Names,
    #[error("{0} has {GRANTS_MAX} grants already: end some")]
    TooMany(SpiffeId),
    #[error("there are {GRANTS_ALL_MAX} grants already: those that are over are forgotten after a day")]
    TooManyInAll,
    #[error("the ID {0} is taken: give it again")]
    IdTaken(GrantId),
}

/// Why a grant is not ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndError {
    #[error("no grant has the ID {0}: `avouch grant list` shows what there is")]
    Unknown(GrantId),
    #[error("no grant is for the case {0}: `avouch grant list` shows what there is")]
    NoCase(Case),
    #[error(transparent)]
    Consent(#[from] ConsentError),
    #[error("{id} is {} already", standing.name())]
    Over { id: GrantId, standing: GrantStanding },
}

/// Gives.
pub fn give(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    new: &NewGrant,
) -> (Plan, Result<Grant, GiveError>) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let given = given(registry, at, actor, new).map(|(grant, role)| {
        let mut detail = vec![
            ("identity", grant.identity.to_string()),
            ("action", grant.action.to_string()),
            ("resource", grant.resource.to_string()),
            ("uses", grant.max_uses.to_string()),
            ("end", grant.ends_at.to_string()),
            ("as", role.to_owned()),
        ];
        detail.extend(grant.case.as_ref().map(|case| ("case", case.to_string())));
        put(&mut draft, AuditEvent::GrantGiven, grant, detail)
    });
    (draft.finish(), given)
}

fn given(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    new: &NewGrant,
) -> Result<(Grant, &'static str), GiveError> {
    let identity = registry.identity(&new.identity).filter(|identity| identity.is_in_force(at));
    let identity = identity.ok_or_else(|| GiveError::NotInForce(new.identity.clone()))?;
    let role = consent::giver(registry, identity, actor)?;
    if !(1..=GRANT_USES_MAX).contains(&new.uses) {
        return Err(GiveError::Uses { uses: new.uses });
    }
    if new.lasts.as_secs() == 0 || new.lasts > GRANT_FOR_MAX {
        return Err(GiveError::Lasts { seconds: new.lasts.as_secs() });
    }
    if [&new.action, &new.resource].iter().any(|name| name.is_empty() || name.len() > REQUEST_NAME_MAX) {
        return Err(GiveError::Names);
    }
    let open = registry.grants_of(&new.identity).filter(|grant| at < grant.over_at());
    if open.count() >= GRANTS_MAX {
        return Err(GiveError::TooMany(new.identity.clone()));
    }
    if registry.grants().len() >= GRANTS_ALL_MAX {
        return Err(GiveError::TooManyInAll);
    }
    if registry.grant(&new.id).is_some() {
        return Err(GiveError::IdTaken(new.id.clone()));
    }
    let grant = Grant {
        id: new.id.clone(),
        identity: new.identity.clone(),
        owner: identity.owner.clone(),
        stop_number: identity.stop_number,
        action: new.action.clone(),
        resource: new.resource.clone(),
        given: Said { by: actor.clone(), at },
        ends_at: (at + new.lasts).min(identity.end),
        max_uses: new.uses,
        uses: 0,
        keys: Vec::new(),
        ended: None,
        case: new.case.clone(),
    };
    Ok((grant, role.name()))
}

/// Takes a grant back. Any person may.
pub fn end(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    id: &GrantId,
) -> (Plan, Result<Grant, EndError>) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let ended = endable(registry, at, actor, id).map(|grant| take_back(&mut draft, grant, actor));
    (draft.finish(), ended)
}

fn endable<'a>(
    registry: &'a Registry,
    at: Timestamp,
    actor: &PersonId,
    id: &GrantId,
) -> Result<&'a Grant, EndError> {
    consent::active(registry, actor)?;
    let grant = registry.grant(id).ok_or_else(|| EndError::Unknown(id.clone()))?;
    // One that has lapsed may come to count again, if the owner comes back to whom it was given.
    match registry.grant_standing(grant, at) {
        standing @ (GrantStanding::Ended | GrantStanding::UsedUp) => {
            Err(EndError::Over { id: id.clone(), standing })
        }
        GrantStanding::Open | GrantStanding::Lapsed => Ok(grant),
    }
}

/// Takes back what was given for a case and could still be used, [`CASE_BATCH`] grants at most. Any person may. Gives how
/// many.
pub fn end_case(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    case: &Case,
) -> (Plan, Result<usize, EndError>) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let ended = endable_of_case(registry, at, actor, case).map(|grants| {
        for grant in &grants {
            take_back(&mut draft, grant, actor);
        }
        grants.len()
    });
    (draft.finish(), ended)
}

fn endable_of_case<'a>(
    registry: &'a Registry,
    at: Timestamp,
    actor: &PersonId,
    case: &Case,
) -> Result<Vec<&'a Grant>, EndError> {
    consent::active(registry, actor)?;
    let mut of_case = registry.grants().filter(|grant| grant.case.as_ref() == Some(case)).peekable();
    if of_case.peek().is_none() {
        return Err(EndError::NoCase(case.clone()));
    }
    // As above, what has lapsed before its time is taken back too.
    let usable = |grant: &&Grant| grant.ended.is_none() && grant.uses_left() > 0 && at < grant.ends_at;
    Ok(of_case.filter(usable).take(CASE_BATCH).collect())
}

fn take_back(draft: &mut Draft<'_>, grant: &Grant, by: &PersonId) -> Grant {
    let mut detail = vec![("identity", grant.identity.to_string())];
    detail.extend(grant.case.as_ref().map(|case| ("case", case.to_string())));
    let ended = Some(Said { by: by.clone(), at: draft.at });
    put(draft, AuditEvent::GrantEnded, Grant { ended, ..grant.clone() }, detail)
}

/// The grant that this call uses: the one that it has used already, else of those that are open the one that ends first.
pub(super) fn fitting<'a>(
    registry: &'a Registry,
    at: Timestamp,
    identity: &'a Identity,
    (action, resource): (&str, &str),
    key: [u8; 16],
) -> Option<&'a Grant> {
    let of_it = || {
        let of_it = registry.grants_of(&identity.spiffe_id);
        of_it.filter(move |grant| (&*grant.action, &*grant.resource) == (action, resource))
    };
    let open = |grant: &&Grant| registry.grant_standing(grant, at) == GrantStanding::Open;
    let counts = |grant: &&Grant| consent::grant_counts(registry, grant, at) && grant.ended.is_none();
    let again = of_it().find(|grant| grant.was_used_by(key, at) && counts(grant));
    again.or_else(|| of_it().filter(open).min_by_key(|grant| (grant.ends_at, grant.id.clone())))
}

/// Uses it once, unless this call has done so already. Gives it as it was before.
pub(super) fn use_once(draft: &mut Draft<'_>, grant: &Grant, key: [u8; 16]) -> Grant {
    let at = draft.at;
    if grant.was_used_by(key, at) {
        return Grant { uses: grant.uses.saturating_sub(1), ..grant.clone() };
    }
    let used = grant.clone().used(key, at);
    let left = ("left", used.uses_left().to_string());
    put(draft, AuditEvent::GrantUsed, used, vec![left]);
    grant.clone()
}

/// Forgets grants of which nothing has come since `before`, [`FORGET_BATCH`] at most.
#[must_use]
pub fn forget(registry: &Registry, at: Timestamp, before: Timestamp, actor: &str) -> (Plan, usize) {
    let mut draft = Draft::new(registry, at, actor);
    let mut gone = 0;
    for grant in registry.grants_over(before).take(FORGET_BATCH) {
        draft.note(AuditEvent::GrantForgotten, &grant.id);
        draft.delete(RowKey::Grant(grant.id.clone()));
        gone += 1;
    }
    (draft.finish(), gone)
}

fn put(draft: &mut Draft<'_>, event: AuditEvent, grant: Grant, detail: Vec<(&'static str, String)>) -> Grant {
    draft.note_with(event, &grant.id, detail);
    draft.put(Row::Grant(grant.clone()));
    grant
}
