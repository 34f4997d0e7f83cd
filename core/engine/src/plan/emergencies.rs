//! Plans on emergencies: that it takes two people to open one, and one to end it.
//!
//! Never opens one by a single person, not even in `test`, and never lets one outlive a pause of its identity, its owner or
//! either of the two.

use std::sync::Arc;
use std::time::Duration;

use avouch_domain::limits::{
    EMERGENCIES_ALL_MAX, EMERGENCIES_MAX, EMERGENCY_FOR_MAX, EMERGENCY_WAIT, REQUEST_NAME_MAX,
};
use avouch_domain::{
    AuditEvent, Emergency, EmergencyId, EmergencyStanding, Identity, PersonId, Plan, Row, RowKey, Said,
    SpiffeId, Timestamp,
};

use super::Draft;
use super::consent::{self, ConsentError};
use super::requests::FORGET_BATCH;
use crate::registry::Registry;

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEmergency {
    /// Unused.
    pub id: EmergencyId,
    pub identity: SpiffeId,
    pub action: Arc<str>,
    /// ID in the catalogue.
    pub resource: Arc<str>,
    /// As [`avouch_domain::why`] takes it.
    pub why: Arc<str>,
    pub lasts: Duration,
}

/// Why nothing comes of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmergencyError {
    #[error("{0} is not in force, and no emergency makes it so: `avouch identity show` says why")]
    NotInForce(SpiffeId),
    #[error(transparent)]
    Consent(#[from] ConsentError),
    #[error("{seconds} s, expected 1 to {} s", EMERGENCY_FOR_MAX.as_secs())]
    Lasts { seconds: u64 },
    #[error("an action and a resource have 1 to {REQUEST_NAME_MAX} bytes")]
    Names,
    #[error("{0} has {EMERGENCIES_MAX} emergencies that wait or are open: `avouch emergency end` ends one")]
    TooMany(SpiffeId),
    #[error(
        "there are {EMERGENCIES_ALL_MAX} emergencies already: those that are over are forgotten after a day"
    )]
    TooManyInAll,
    #[error("the ID {0} is taken: ask again")]
    IdTaken(EmergencyId),
    #[error("no emergency has the ID {0}: `avouch emergency list` shows what there is")]
    Unknown(EmergencyId),
    #[error("{asked_by} asked for {id}, so another person agrees: `avouch emergency agree {id}`")]
    SamePerson { id: EmergencyId, asked_by: PersonId },
    #[error("{id} does not wait for anybody, it is {}: `avouch emergency list --all` shows it", standing.name())]
    NotWaiting { id: EmergencyId, standing: EmergencyStanding },
    #[error("{0} is ended already")]
    Ended(EmergencyId),
}

/// One person asks. Nothing comes of it yet.
pub fn ask(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    new: &NewEmergency,
) -> (Plan, Result<Emergency, EmergencyError>) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let asked = asked(registry, at, actor, new).map(|emergency| {
        let detail = vec![
            ("identity", emergency.identity.to_string()),
            ("action", emergency.action.to_string()),
            ("resource", emergency.resource.to_string()),
            ("seconds", emergency.lasts.as_secs().to_string()),
        ];
        put(&mut draft, AuditEvent::EmergencyAsked, emergency, detail)
    });
    (draft.finish(), asked)
}

fn asked(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    new: &NewEmergency,
) -> Result<Emergency, EmergencyError> {
    let identity = in_force(registry, at, &new.identity)?;
    consent::asker(registry, identity, actor)?;
    if new.lasts.as_secs() == 0 || new.lasts > EMERGENCY_FOR_MAX {
        return Err(EmergencyError::Lasts { seconds: new.lasts.as_secs() });
    }
    if [&new.action, &new.resource].iter().any(|name| name.is_empty() || name.len() > REQUEST_NAME_MAX) {
        return Err(EmergencyError::Names);
    }
    let alive = registry.emergencies_of(&new.identity).filter(|emergency| at < emergency.over_at());
    if alive.count() >= EMERGENCIES_MAX {
        return Err(EmergencyError::TooMany(new.identity.clone()));
    }
    if registry.emergencies().len() >= EMERGENCIES_ALL_MAX {
        return Err(EmergencyError::TooManyInAll);
    }
    if registry.emergency(&new.id).is_some() {
        return Err(EmergencyError::IdTaken(new.id.clone()));
    }
    Ok(Emergency {
        id: new.id.clone(),
        identity: new.identity.clone(),
        owner: identity.owner.clone(),
        stop_number: identity.stop_number,
        action: new.action.clone(),
        resource: new.resource.clone(),
        why: new.why.clone(),
        asked: Said { by: actor.clone(), at },
        lasts: new.lasts,
        agreed: None,
        ends_at: (at + EMERGENCY_WAIT).min(identity.end),
        ended: None,
    })
}

/// The second person agrees, and it is open.
pub fn agree(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    id: &EmergencyId,
) -> (Plan, Result<Emergency, EmergencyError>) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let agreed = agreed(registry, at, actor, id).map(|(emergency, role)| {
        let detail = vec![
            ("identity", emergency.identity.to_string()),
            ("action", emergency.action.to_string()),
            ("resource", emergency.resource.to_string()),
            ("asked_by", emergency.asked.by.to_string()),
            ("end", emergency.ends_at.to_string()),
            ("as", role.to_owned()),
        ];
        put(&mut draft, AuditEvent::EmergencyAgreed, emergency, detail)
    });
    (draft.finish(), agreed)
}

fn agreed(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    id: &EmergencyId,
) -> Result<(Emergency, &'static str), EmergencyError> {
    consent::active(registry, actor)?;
    let emergency = registry.emergency(id).ok_or_else(|| EmergencyError::Unknown(id.clone()))?;
    match registry.emergency_standing(emergency, at) {
        EmergencyStanding::Waits => {}
        standing => return Err(EmergencyError::NotWaiting { id: id.clone(), standing }),
    }
    let identity = in_force(registry, at, &emergency.identity)?;
    let asked_by = &emergency.asked.by;
    if actor == asked_by {
        return Err(EmergencyError::SamePerson { id: id.clone(), asked_by: asked_by.clone() });
    }
    let role = consent::second(registry, identity, asked_by, actor)?;
    let agreed = Emergency {
        agreed: Some(Said { by: actor.clone(), at }),
        ends_at: (at + emergency.lasts).min(identity.end),
        ..emergency.clone()
    };
    Ok((agreed, role.name()))
}

/// Ends one. Any person may.
pub fn end(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    id: &EmergencyId,
) -> (Plan, Result<Emergency, EmergencyError>) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let ended = ended(registry, at, actor, id).map(|emergency| {
        let identity = ("identity", emergency.identity.to_string());
        put(&mut draft, AuditEvent::EmergencyEnded, emergency, vec![identity])
    });
    (draft.finish(), ended)
}

fn ended(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    id: &EmergencyId,
) -> Result<Emergency, EmergencyError> {
    consent::active(registry, actor)?;
    let emergency = registry.emergency(id).ok_or_else(|| EmergencyError::Unknown(id.clone()))?;
    // One that does not count may come to count again, if the owner comes back for whom it was asked.
    if emergency.ended.is_some() {
        return Err(EmergencyError::Ended(id.clone()));
    }
    Ok(Emergency { ended: Some(Said { by: actor.clone(), at }), ..emergency.clone() })
}

/// Forgets emergencies of which nothing has come since `before`, [`FORGET_BATCH`] at most.
#[must_use]
pub fn forget(registry: &Registry, at: Timestamp, before: Timestamp, actor: &str) -> (Plan, usize) {
    let mut draft = Draft::new(registry, at, actor);
    let mut gone = 0;
    for emergency in registry.emergencies_over(before).take(FORGET_BATCH) {
        draft.note(AuditEvent::EmergencyForgotten, &emergency.id);
        draft.delete(RowKey::Emergency(emergency.id.clone()));
        gone += 1;
    }
    (draft.finish(), gone)
}

fn in_force<'a>(
    registry: &'a Registry,
    at: Timestamp,
    name: &SpiffeId,
) -> Result<&'a Identity, EmergencyError> {
    let identity = registry.identity(name).filter(|identity| identity.is_in_force(at));
    identity.ok_or_else(|| EmergencyError::NotInForce(name.clone()))
}

fn put(
    draft: &mut Draft<'_>,
    event: AuditEvent,
    emergency: Emergency,
    detail: Vec<(&'static str, String)>,
) -> Emergency {
    draft.note_with(event, &emergency.id, detail);
    draft.put(Row::Emergency(emergency.clone()));
    emergency
}
