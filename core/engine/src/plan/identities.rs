//! Plans that register, adopt, change, pause and stop identities.
//!
//! Never lets anybody widen in `staging` or `prod` what is his own, and never asks more than one person to shrink: a
//! pause and a stop are the owner's or any security person's, at once.

use std::num::NonZeroU16;

use avouch_domain::limits::{ADOPTED_FOR, IDENTITY_LIFE_MAX};
use avouch_domain::{
    AuditEvent, Cause, Code, CodeDigest, Entry, EntryId, Environment, Identity, Kind, Person, PersonId, Plan,
    Row, SpiffeId, Standing, StopTried, Timestamp, run_selector,
};

use super::Draft;
use super::entries::{EntryWriteError, NewEntry, create_one};
use crate::entitle::{agents_of_name, served_identity};
use crate::registry::Registry;

/// Most identities that one plan pauses by themselves; the next plan goes on.
pub const PAUSE_BATCH: usize = 1_000;
/// Most silent nodes that a record names.
const SILENT_NAMED: usize = 20;

/// An identity that is to be registered or adopted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewIdentity {
    pub name: SpiffeId,
    pub kind: Kind,
    pub environment: Environment,
    pub purpose: Code,
    pub preset: Option<Code>,
    pub owner: PersonId,
    pub successor: Option<PersonId>,
    pub end: Timestamp,
}

/// A change to an identity; `None` = as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityPatch {
    pub owner: Option<PersonId>,
    pub successor: Option<PersonId>,
    pub end: Option<Timestamp>,
    /// `Some(None)` = any code.
    pub code: Option<Option<CodeDigest>>,
    /// `Some(None)` = as many as a node has.
    pub runs_max: Option<Option<NonZeroU16>>,
}

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("{0} is registered already: `avouch identity show` says what it is")]
    Exists(SpiffeId),
    #[error("entries give out {0} already, so it runs: `avouch adopt` gives it an owner without a break")]
    Runs(SpiffeId),
    #[error("no entry gives out {0}, so there is nothing to adopt: `avouch identity new` registers it")]
    NothingRuns(SpiffeId),
    #[error("no identity has the name {0}: `avouch identity list` shows all")]
    Unknown(SpiffeId),
    #[error("{0} is no active person: `avouch person list` shows all")]
    NoPerson(PersonId),
    #[error("the successor is the owner, expected somebody else")]
    OwnSuccessor,
    #[error("the end has passed, expected a moment ahead")]
    EndPassed,
    #[error("the end is more than {} days away, expected at most that", IDENTITY_LIFE_MAX.as_secs() / 86_400)]
    EndTooFar,
    #[error("{actor} may not do this to an identity of {owner}, expected its owner or a security person")]
    NotYours { actor: PersonId, owner: PersonId },
    #[error("{0} may not adopt, expected a security person")]
    NotSecurity(PersonId),
    #[error(
        "in {environment} a yes is a second person's, expected a security person who neither owns it nor asked for it",
        environment = .0.name()
    )]
    SecondPerson(Environment),
    #[error("it is {}, which can't be undone: register a new one", .0.name())]
    Final(Standing),
    #[error("it is {}, expected {expected}", .found.name())]
    Standing { found: Standing, expected: &'static str },
    #[error("its end has come: set a later one with `avouch identity set --ends` first")]
    AtItsEnd,
    #[error("{0} has not confirmed to own it: `avouch identity confirm` does, by that person")]
    NotConfirmed(PersonId),
    #[error("{0}, who owns it, has left: `avouch identity set --owner` gives it another owner first")]
    OwnerLeft(PersonId),
    #[error("it waits for no confirmation")]
    NothingToConfirm,
    #[error("{0} is no node agent here: `avouch agent list` shows all")]
    UnknownNode(SpiffeId),
    #[error("no entry can be made for it: {0}")]
    Place(String),
}

type Outcome = Result<Identity, IdentityError>;

/// Registers one identity. In `test` its owner needs nobody else; otherwise it waits for a second person's yes.
pub fn register(registry: &Registry, at: Timestamp, actor: &PersonId, new: &NewIdentity) -> (Plan, Outcome) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let outcome = registered(registry, at, actor, new).map(|identity| {
        let waits = identity.standing == Standing::Proposed;
        let event = if waits { AuditEvent::IdentityProposed } else { AuditEvent::IdentityRegistered };
        put(&mut draft, event, identity)
    });
    (draft.finish(), outcome)
}

fn registered(registry: &Registry, at: Timestamp, actor: &PersonId, new: &NewIdentity) -> Outcome {
    active_person(registry, actor)?;
    check_new(registry, at, new)?;
    if registry.entries_by_spiffe_id(&new.name).next().is_some() {
        return Err(IdentityError::Runs(new.name.clone()));
    }
    let alone = new.environment == Environment::Test && *actor == new.owner;
    Ok(Identity {
        standing: if alone { Standing::Active } else { Standing::Proposed },
        yes_by: alone.then(|| actor.clone()),
        ..identity_of(at, actor, new)
    })
}

/// Gives identities to names that entries give out already. They go on without a break; each owner is to confirm
/// within [`ADOPTED_FOR`].
pub fn adopt(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    items: &[NewIdentity],
) -> (Plan, Vec<Outcome>) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let mut outcomes = Vec::with_capacity(items.len());
    for new in items {
        let outcome = adopted(&draft.after, at, actor, new);
        outcomes.push(outcome.map(|identity| put(&mut draft, AuditEvent::IdentityAdopted, identity)));
    }
    (draft.finish(), outcomes)
}

fn adopted(registry: &Registry, at: Timestamp, actor: &PersonId, new: &NewIdentity) -> Outcome {
    if !active_person(registry, actor)?.security {
        return Err(IdentityError::NotSecurity(actor.clone()));
    }
    check_new(registry, at, new)?;
    if registry.entries_by_spiffe_id(&new.name).next().is_none() {
        return Err(IdentityError::NothingRuns(new.name.clone()));
    }
    let confirm_by = (new.owner != *actor).then_some(at + ADOPTED_FOR);
    Ok(Identity { confirm_by, ..identity_of(at, actor, new) })
}

/// Says yes to an identity that waits for it.
pub fn approve(registry: &Registry, at: Timestamp, actor: &PersonId, name: &SpiffeId) -> (Plan, Outcome) {
    change(registry, at, actor, name, AuditEvent::IdentityRegistered, |old, person| {
        if old.standing != Standing::Proposed {
            return Err(IdentityError::Standing { found: old.standing, expected: "proposed" });
        }
        let second = person.security && old.owner != person.id && old.added_by != person.id;
        let own_test = old.environment == Environment::Test && old.owner == person.id;
        if !second && !own_test {
            return Err(IdentityError::SecondPerson(old.environment));
        }
        has_its_owner(registry, old)?;
        if old.end <= at {
            return Err(IdentityError::AtItsEnd);
        }
        Ok(Identity { standing: Standing::Active, yes_by: Some(person.id.clone()), ..old.clone() })
    })
}

/// Changes owner, successor, end, code or the number of runs. What takes away is the owner's to do: an earlier end, code where
/// any was right, fewer runs. Everything else widens.
pub fn patch(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    name: &SpiffeId,
    patch: &IdentityPatch,
) -> (Plan, Outcome) {
    change(registry, at, actor, name, AuditEvent::IdentityChanged, |old, person| {
        if let Standing::Stopped(_) = old.standing {
            return Err(IdentityError::Final(old.standing));
        }
        let mut new = old.clone();
        if let Some(owner) = &patch.owner {
            active_person(registry, owner)?;
            new.owner = owner.clone();
            // Whoever is given an identity is to confirm it, unless he takes it himself.
            new.confirm_by = (*owner != person.id).then_some(at + ADOPTED_FOR);
        }
        if let Some(successor) = &patch.successor {
            active_person(registry, successor)?;
            new.successor = Some(successor.clone());
        }
        if new.successor.as_ref() == Some(&new.owner) {
            return Err(IdentityError::OwnSuccessor);
        }
        if let Some(end) = patch.end {
            check_end(at, end)?;
            new.end = end;
        }
        new.code = patch.code.unwrap_or(new.code);
        new.runs_max = patch.runs_max.unwrap_or(new.runs_max);
        let other_code = old.code.is_some() && new.code != old.code;
        let more_runs = old.runs_max.is_some_and(|most| new.runs_max.is_none_or(|new| new > most));
        let others = new.owner != old.owner || new.successor != old.successor;
        let widens = new.end > old.end || others || other_code || more_runs;
        if widens {
            may_widen(old, person)?
        } else {
            may_shrink(old, person)?
        }
        Ok(new)
    })
}

/// The owner confirms to own what was adopted for him.
pub fn confirm(registry: &Registry, at: Timestamp, actor: &PersonId, name: &SpiffeId) -> (Plan, Outcome) {
    change(registry, at, actor, name, AuditEvent::IdentityConfirmed, |old, person| {
        if old.owner != person.id {
            return Err(IdentityError::NotConfirmed(old.owner.clone()));
        }
        if old.confirm_by.is_none() {
            return Err(IdentityError::NothingToConfirm);
        }
        Ok(Identity { confirm_by: None, ..old.clone() })
    })
}

/// Where a person lets an identity run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node agent there.
    pub node: SpiffeId,
    /// The local user there who may run it.
    pub uid: u32,
}

/// Lets a local user of a node run the identity there: an entry that only a process of `avouch run` matches. `fresh` is
/// an unused ID. Gives the entry; the one that is there already if it was let before.
pub fn place(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    name: &SpiffeId,
    place: &Place,
    fresh: &EntryId,
) -> (Plan, Result<Entry, IdentityError>) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let outcome = may_place(registry, actor, name, place).and_then(|()| {
        let selector = run_selector(name, place.uid).map_err(|e| IdentityError::Place(e.to_string()))?;
        let new = NewEntry::plain(name.clone(), place.node.clone(), vec![selector]);
        match create_one(&mut draft, fresh, &new) {
            Ok(entry) => {
                let detail = vec![
                    ("node", place.node.to_string()),
                    ("uid", place.uid.to_string()),
                    ("entry", entry.id.to_string()),
                ];
                draft.note_with(AuditEvent::IdentityPlaced, name, detail);
                Ok(entry)
            }
            Err(EntryWriteError::Similar(there)) => Ok(there),
            Err(e) => Err(IdentityError::Place(e.to_string())),
        }
    });
    (draft.finish(), outcome)
}

fn may_place(
    registry: &Registry,
    actor: &PersonId,
    name: &SpiffeId,
    place: &Place,
) -> Result<(), IdentityError> {
    let person = active_person(registry, actor)?;
    let identity = registry.identity(name).ok_or_else(|| IdentityError::Unknown(name.clone()))?;
    if let Standing::Stopped(_) = identity.standing {
        return Err(IdentityError::Final(identity.standing));
    }
    if registry.node(&place.node).is_none() {
        return Err(IdentityError::UnknownNode(place.node.clone()));
    }
    may_widen(identity, person)
}

/// Pauses: it comes back with [`resume`].
pub fn pause(registry: &Registry, at: Timestamp, actor: &PersonId, name: &SpiffeId) -> (Plan, Outcome) {
    change(registry, at, actor, name, AuditEvent::IdentityPaused, |old, person| {
        may_shrink(old, person)?;
        match old.standing {
            Standing::Active => Ok(without_force(registry, at, old, Standing::Paused(Cause::Person))),
            found @ Standing::Stopped(_) => Err(IdentityError::Final(found)),
            found => Err(IdentityError::Standing { found, expected: "active" }),
        }
    })
}

/// Stops for good.
pub fn stop(registry: &Registry, at: Timestamp, actor: &PersonId, name: &SpiffeId) -> (Plan, Outcome) {
    change(registry, at, actor, name, AuditEvent::IdentityStopped, |old, person| {
        may_shrink(old, person)?;
        match old.standing {
            found @ Standing::Stopped(_) => Err(IdentityError::Final(found)),
            _ => Ok(without_force(registry, at, old, Standing::Stopped(Cause::Person))),
        }
    })
}

/// Begins the drill of a stop: it goes the way of one to every node, and stops nothing.
pub fn drill(registry: &Registry, at: Timestamp, actor: &PersonId, name: &SpiffeId) -> (Plan, Outcome) {
    change(registry, at, actor, name, AuditEvent::StopDrilled, |old, person| {
        may_shrink(old, person)?;
        if !old.is_in_force(at) {
            return Err(IdentityError::Standing { found: old.standing, expected: "active" });
        }
        Ok(Identity { stop_tried: Some(begun(registry, at, name)), ..old.clone() })
    })
}

/// How a stop of one identity went, or a drill of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    pub name: SpiffeId,
    pub tried: StopTried,
    /// Nodes that did not confirm.
    pub silent: Vec<SpiffeId>,
}

/// Keeps how stops went; not of a name that nobody has, nor of one whose stop was begun anew meanwhile.
#[must_use]
pub fn tried(registry: &Registry, at: Timestamp, trials: &[Trial]) -> Plan {
    let mut draft = Draft::new(registry, at, "server");
    for Trial { name, tried, silent } in trials {
        let Some(old) = registry.identity(name) else { continue };
        if old.stop_tried.as_ref().is_some_and(|later| later.at > tried.at) {
            continue;
        }
        let mut detail = vec![
            ("nodes", tried.nodes.to_string()),
            ("confirmed", tried.confirmed.to_string()),
            ("took_ms", tried.took_ms.to_string()),
        ];
        if !silent.is_empty() {
            let names: Vec<_> = silent.iter().take(SILENT_NAMED).map(SpiffeId::as_str).collect();
            detail.push(("silent", names.join(",")));
        }
        draft.note_with(AuditEvent::StopTried, name, detail);
        draft.put(Row::Identity(Identity { stop_tried: Some(*tried), ..old.clone() }));
    }
    draft.finish()
}

/// Lets a paused identity go on.
pub fn resume(registry: &Registry, at: Timestamp, actor: &PersonId, name: &SpiffeId) -> (Plan, Outcome) {
    change(registry, at, actor, name, AuditEvent::IdentityResumed, |old, person| {
        may_widen(old, person)?;
        has_its_owner(registry, old)?;
        match old.standing {
            Standing::Paused(_) if old.end <= at => Err(IdentityError::AtItsEnd),
            Standing::Paused(_) if old.kind.acts_by_itself() && old.confirm_by.is_some_and(|by| by <= at) => {
                Err(IdentityError::NotConfirmed(old.owner.clone()))
            }
            Standing::Paused(_) => Ok(Identity { standing: Standing::Active, ..old.clone() }),
            found @ Standing::Stopped(_) => Err(IdentityError::Final(found)),
            found => Err(IdentityError::Standing { found, expected: "paused" }),
        }
    })
}

/// Pauses what has reached its end, or was not confirmed in time; at most [`PAUSE_BATCH`]. Gives the names.
#[must_use]
pub fn pause_due(registry: &Registry, at: Timestamp, actor: &str) -> (Plan, Vec<(SpiffeId, Cause)>) {
    let mut draft = Draft::new(registry, at, actor);
    let mut paused = Vec::new();
    for (identity, cause) in registry.due_to_pause(at).take(PAUSE_BATCH) {
        paused.push((identity.spiffe_id.clone(), cause));
        let paused = without_force(registry, at, identity, Standing::Paused(cause));
        put(&mut draft, AuditEvent::IdentityPaused, paused);
    }
    (draft.finish(), paused)
}

/// Pauses what acts by itself and was to be run on this node with other code than it has. True if it is paused for it.
#[must_use]
pub fn pause_for_code(
    registry: &Registry,
    at: Timestamp,
    node: &SpiffeId,
    name: &SpiffeId,
    found: CodeDigest,
) -> (Plan, bool) {
    let mut draft = Draft::new(registry, at, node.as_str());
    let stopped = Standing::Paused(Cause::OtherCode);
    let held_to_other = |identity: &&Identity| {
        identity.kind.acts_by_itself() && identity.code.is_some_and(|code| code != found)
    };
    if let Some(identity) = served_identity(registry, node, name, at).filter(held_to_other) {
        let paused = without_force(registry, at, identity, stopped);
        put_with(&mut draft, AuditEvent::IdentityPaused, paused, vec![("found", found.to_string())]);
        return (draft.finish(), true);
    }
    // Whoever did not hear the answer asks again.
    let already = registry.identity(name).filter(held_to_other);
    (draft.finish(), already.is_some_and(|identity| identity.standing == stopped))
}

fn identity_of(at: Timestamp, actor: &PersonId, new: &NewIdentity) -> Identity {
    Identity {
        spiffe_id: new.name.clone(),
        kind: new.kind,
        environment: new.environment,
        purpose: new.purpose.clone(),
        preset: new.preset.clone(),
        owner: new.owner.clone(),
        successor: new.successor.clone(),
        end: new.end,
        standing: Standing::Active,
        stop_number: 0,
        added_by: actor.clone(),
        added_at: at,
        yes_by: None,
        confirm_by: None,
        stop_tried: None,
        code: None,
        runs_max: None,
    }
}

/// Out of force: what was given out under the number so far is void.
pub(super) fn without_force(
    registry: &Registry,
    at: Timestamp,
    old: &Identity,
    standing: Standing,
) -> Identity {
    let stop_number = old.stop_number.saturating_add(1);
    Identity { standing, stop_number, stop_tried: Some(begun(registry, at, &old.spiffe_id)), ..old.clone() }
}

/// A stop, or the drill of one, of which nobody has said how it went.
fn begun(registry: &Registry, at: Timestamp, name: &SpiffeId) -> StopTried {
    let nodes = u32::try_from(agents_of_name(registry, name).len()).unwrap_or(u32::MAX);
    StopTried { at, nodes, confirmed: 0, took_ms: 0 }
}

fn active_person<'a>(registry: &'a Registry, id: &PersonId) -> Result<&'a Person, IdentityError> {
    let person = registry.person(id).filter(|person| person.is_active());
    person.ok_or_else(|| IdentityError::NoPerson(id.clone()))
}

fn has_its_owner(registry: &Registry, identity: &Identity) -> Result<(), IdentityError> {
    let owner = &identity.owner;
    active_person(registry, owner).map(drop).map_err(|_| IdentityError::OwnerLeft(owner.clone()))
}

fn check_new(registry: &Registry, at: Timestamp, new: &NewIdentity) -> Result<(), IdentityError> {
    if registry.identity(&new.name).is_some() {
        return Err(IdentityError::Exists(new.name.clone()));
    }
    active_person(registry, &new.owner)?;
    if let Some(successor) = &new.successor {
        active_person(registry, successor)?;
        if *successor == new.owner {
            return Err(IdentityError::OwnSuccessor);
        }
    }
    check_end(at, new.end)
}

fn check_end(at: Timestamp, end: Timestamp) -> Result<(), IdentityError> {
    if end <= at {
        return Err(IdentityError::EndPassed);
    }
    if end > at + IDENTITY_LIFE_MAX { Err(IdentityError::EndTooFar) } else { Ok(()) }
}

fn may_shrink(identity: &Identity, actor: &Person) -> Result<(), IdentityError> {
    if actor.security || actor.id == identity.owner {
        return Ok(());
    }
    Err(IdentityError::NotYours { actor: actor.id.clone(), owner: identity.owner.clone() })
}

fn may_widen(identity: &Identity, actor: &Person) -> Result<(), IdentityError> {
    if identity.environment != Environment::Test && (!actor.security || actor.id == identity.owner) {
        return Err(IdentityError::SecondPerson(identity.environment));
    }
    may_shrink(identity, actor)
}

fn change(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    name: &SpiffeId,
    event: AuditEvent,
    decide: impl FnOnce(&Identity, &Person) -> Outcome,
) -> (Plan, Outcome) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let outcome = active_person(registry, actor).and_then(|person| {
        let old = registry.identity(name).ok_or_else(|| IdentityError::Unknown(name.clone()))?;
        decide(old, person)
    });
    // What stays as it was is no change, and leaves no record.
    let outcome = outcome.map(|identity| match registry.identity(name) {
        Some(old) if *old == identity => identity,
        _ => put(&mut draft, event, identity),
    });
    (draft.finish(), outcome)
}

pub(super) fn put(draft: &mut Draft<'_>, event: AuditEvent, identity: Identity) -> Identity {
    put_with(draft, event, identity, Vec::new())
}

fn put_with(
    draft: &mut Draft<'_>,
    event: AuditEvent,
    identity: Identity,
    more: Vec<(&'static str, String)>,
) -> Identity {
    let mut detail = vec![
        ("kind", identity.kind.name().to_owned()),
        ("environment", identity.environment.name().to_owned()),
        ("owner", identity.owner.to_string()),
        ("end", identity.end.to_string()),
        ("standing", identity.standing.name().to_owned()),
        ("stop_number", identity.stop_number.to_string()),
    ];
    detail.extend(identity.standing.cause().map(|cause| ("cause", cause.name().to_owned())));
    if let Some(yes) = &identity.yes_by {
        let by = if *yes == identity.owner { "self".to_owned() } else { yes.to_string() };
        detail.push(("yes_by", by));
    }
    detail.extend(identity.code.map(|code| ("code", code.to_string())));
    detail.extend(identity.runs_max.map(|most| ("runs_max", most.to_string())));
    detail.extend(more);
    draft.note_with(event, &identity.spiffe_id, detail);
    draft.put(Row::Identity(identity.clone()));
    identity
}
