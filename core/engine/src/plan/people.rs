//! Plans that add people.
//!
//! Never lets one person add another alone, except the first and the second, for whom there is nobody else to ask. Never lets
//! anybody say as which account somebody else who is there already signs in.

use std::sync::Arc;

use avouch_domain::{AuditEvent, Person, PersonId, PersonState, Plan, Row, SignIn, Timestamp};

use super::Draft;
use crate::registry::Registry;

/// A person who is to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPerson {
    /// Unused.
    pub id: PersonId,
    pub name: Arc<str>,
    pub uid: Option<u32>,
    pub sign_in: Option<SignIn>,
    pub security: bool,
}

/// Why a person was not added.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeopleError {
    #[error("there are people already, the first can't be made twice: ask one of them to add you")]
    NotTheFirst,
    #[error("user {uid} is {holder} already, expected a user who is nobody yet")]
    UidTaken { uid: u32, holder: PersonId },
    #[error("this issuer and subject are {0} already, expected an account that is nobody yet")]
    SignInTaken(PersonId),
    #[error("{0} is no active person, expected one")]
    NotActive(PersonId),
    #[error("{0} may not add people, expected a security person")]
    NotSecurity(PersonId),
    #[error("no person has the ID {0}: `avouch person list` shows all")]
    Unknown(PersonId),
    #[error("{0} waits for nothing, the yes was said before")]
    NotWaiting(PersonId),
    #[error("{0} asked for it, so the yes is another security person's")]
    OwnQuestion(PersonId),
}

fn put(draft: &mut Draft<'_>, person: Person) -> Person {
    let event = if person.is_active() { AuditEvent::PersonAdded } else { AuditEvent::PersonProposed };
    let mut detail = vec![("security", person.security.to_string())];
    detail.extend(person.uid.map(|uid| ("uid", uid.to_string())));
    detail.extend(person.sign_in.as_ref().map(|_| ("sign_in", true.to_string())));
    detail.extend(person.yes_by.as_ref().map(|yes| ("yes_by", yes.to_string())));
    draft.note_with(event, &person.id, detail);
    draft.put(Row::Person(person.clone()));
    person
}

/// Whether nobody has this user or this account.
fn free(registry: &Registry, new: &NewPerson) -> Result<(), PeopleError> {
    free_sign_in(registry, new.sign_in.as_ref(), &new.id)?;
    match new.uid.and_then(|uid| registry.person_of_uid(uid).map(|holder| (uid, holder))) {
        Some((uid, holder)) => Err(PeopleError::UidTaken { uid, holder: holder.id.clone() }),
        None => Ok(()),
    }
}

fn free_sign_in(registry: &Registry, sign_in: Option<&SignIn>, whose: &PersonId) -> Result<(), PeopleError> {
    match sign_in.and_then(|sign_in| registry.person_of_sign_in(sign_in)) {
        Some(holder) if holder.id != *whose => Err(PeopleError::SignInTaken(holder.id.clone())),
        _ => Ok(()),
    }
}

/// The active security person of this ID.
fn security<'a>(registry: &'a Registry, id: &PersonId) -> Result<&'a Person, PeopleError> {
    let person = registry.person(id).filter(|person| person.is_active() && person.security);
    person.ok_or_else(|| PeopleError::NotSecurity(id.clone()))
}

/// Makes the first person, who is a security person. That the caller may is for the caller's edge to know: it is the
/// user who owns the server's data.
pub fn first(registry: &Registry, at: Timestamp, new: &NewPerson) -> (Plan, Result<Person, PeopleError>) {
    if registry.people().next().is_some() {
        return (Plan::default(), Err(PeopleError::NotTheFirst));
    }
    let mut draft = Draft::new(registry, at, new.id.as_str());
    let person = Person {
        id: new.id.clone(),
        name: new.name.clone(),
        uid: new.uid,
        sign_in: new.sign_in.clone(),
        security: true,
        state: PersonState::Active,
        added_by: None,
        yes_by: None,
        added_at: at,
    };
    let person = put(&mut draft, person);
    (draft.finish(), Ok(person))
}

/// Adds a person at the word of a security person. While that is the only one, there is nobody to ask and the new
/// person is active at once; else another security person has to say yes.
pub fn add(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    new: &NewPerson,
) -> (Plan, Result<Person, PeopleError>) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let added = security(registry, actor).and_then(|_| free(registry, new)).map(|()| {
        let others = registry.people().filter(|p| p.security && p.is_active() && p.id != *actor).count();
        let state = if others == 0 { PersonState::Active } else { PersonState::Proposed };
        let person = Person {
            id: new.id.clone(),
            name: new.name.clone(),
            uid: new.uid,
            sign_in: new.sign_in.clone(),
            security: new.security,
            state,
            added_by: Some(actor.clone()),
            yes_by: None,
            added_at: at,
        };
        put(&mut draft, person)
    });
    (draft.finish(), added)
}

/// Says yes to a person whom another security person wants to add.
pub fn approve(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    id: &PersonId,
) -> (Plan, Result<Person, PeopleError>) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let approved = approved(registry, actor, id).map(|person| put(&mut draft, person));
    (draft.finish(), approved)
}

fn approved(registry: &Registry, actor: &PersonId, id: &PersonId) -> Result<Person, PeopleError> {
    security(registry, actor)?;
    let person = registry.person(id).ok_or_else(|| PeopleError::Unknown(id.clone()))?;
    if person.state != PersonState::Proposed {
        return Err(PeopleError::NotWaiting(id.clone()));
    }
    if person.added_by.as_ref() == Some(actor) {
        return Err(PeopleError::OwnQuestion(actor.clone()));
    }
    Ok(Person { state: PersonState::Active, yes_by: Some(actor.clone()), ..person.clone() })
}

/// Says as which account a person signs in, or that they sign in as none. Only their own, so that nobody becomes somebody
/// else; that it is they who say so is for the caller's edge to know.
pub fn set_sign_in(
    registry: &Registry,
    at: Timestamp,
    actor: &PersonId,
    sign_in: Option<&SignIn>,
) -> (Plan, Result<Person, PeopleError>) {
    let mut draft = Draft::new(registry, at, actor.as_str());
    let set = registry.person(actor).filter(|person| person.is_active());
    let set = set.ok_or_else(|| PeopleError::NotActive(actor.clone())).and_then(|person| {
        free_sign_in(registry, sign_in, actor)?;
        let new = Person { sign_in: sign_in.cloned(), ..person.clone() };
        if new != *person {
            let detail = vec![("sign_in", sign_in.is_some().to_string())];
            draft.note_with(AuditEvent::PersonSignIn, &person.id, detail);
            draft.put(Row::Person(new.clone()));
        }
        Ok(new)
    });
    (draft.finish(), set)
}
