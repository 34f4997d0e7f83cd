//! As whom a person says yes to what an identity wants.
//!
//! Never lets who owns an identity stand for the second person, as long as there is one.

use avouch_domain::{Emergency, Environment, Grant, Identity, Kind, Person, PersonId, Timestamp, Whose};

use crate::registry::Registry;

/// Why the yes of somebody does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConsentError {
    #[error("{0} is no active person")]
    NoPerson(PersonId),
    #[error("{0} owns the identity or has said yes already, so the yes is another person's")]
    SecondPerson(PersonId),
    #[error("only its owner's yes is missing, and {0} does not own it")]
    OwnersYes(PersonId),
    #[error("it acts on behalf of its owner, so in their place a security person other than {0} answers")]
    OnBehalf(PersonId),
}

/// As whom somebody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Owner,
    Person,
    /// The owner in `test`, where nobody else is there to ask.
    Itself,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Person => "person",
            Self::Itself => "self",
        }
    }
}

/// As whom `person` answers for `identity`, if these yeses are missing.
pub(super) fn role(
    registry: &Registry,
    identity: &Identity,
    missing: Whose,
    person: &Person,
) -> Result<Role, ConsentError> {
    let owns = person.id == identity.owner;
    if identity.kind == Kind::Helper {
        return match owns {
            true => Err(ConsentError::OnBehalf(person.id.clone())),
            false if missing.person => Ok(Role::Person),
            false if person.security => Ok(Role::Owner),
            false => Err(ConsentError::OnBehalf(identity.owner.clone())),
        };
    }
    let alone = || !registry.people().any(|other| other.is_active() && other.id != person.id);
    match (owns, missing) {
        (true, Whose { owner: true, .. }) => Ok(Role::Owner),
        (true, _) if identity.environment == Environment::Test && alone() => Ok(Role::Itself),
        (true, _) => Err(ConsentError::SecondPerson(person.id.clone())),
        (false, Whose { person: true, .. }) => Ok(Role::Person),
        (false, _) => Err(ConsentError::OwnersYes(person.id.clone())),
    }
}

/// The person, if they are there.
pub(super) fn active<'a>(registry: &'a Registry, id: &PersonId) -> Result<&'a Person, ConsentError> {
    let person = registry.person(id).filter(|person| person.is_active());
    person.ok_or_else(|| ConsentError::NoPerson(id.clone()))
}

/// Whose yes a grant takes.
const GIVER: Whose = Whose { owner: false, person: true };

/// As whom somebody gives something to an identity: as the second person.
pub(super) fn giver(registry: &Registry, identity: &Identity, id: &PersonId) -> Result<Role, ConsentError> {
    role(registry, identity, GIVER, active(registry, id)?)
}

/// True if the grant is for the identity as it is now, and from somebody who could give it now.
pub(crate) fn grant_counts(registry: &Registry, grant: &Grant, wall: Timestamp) -> bool {
    let identity = registry.identity(&grant.identity).filter(|identity| identity.is_in_force(wall));
    identity.is_some_and(|identity| {
        (identity.stop_number, &identity.owner) == (grant.stop_number, &grant.owner)
            && giver(registry, identity, &grant.given.by).is_ok()
    })
}

/// Whether somebody may ask for an emergency: anybody, but not who stands behind a helper.
pub(super) fn asker(registry: &Registry, identity: &Identity, id: &PersonId) -> Result<(), ConsentError> {
    let person = active(registry, id)?;
    match identity.kind == Kind::Helper && person.id == identity.owner {
        true => Err(ConsentError::OnBehalf(person.id.clone())),
        false => Ok(()),
    }
}

/// As whom the second person agrees to what the first one asked. Nobody is both, wherever it is.
pub(super) fn second(
    registry: &Registry,
    identity: &Identity,
    first: &PersonId,
    id: &PersonId,
) -> Result<Role, ConsentError> {
    asker(registry, identity, first)?;
    match giver(registry, identity, id)? {
        Role::Person if id != first => Ok(Role::Person),
        _ => Err(ConsentError::SecondPerson(id.clone())),
    }
}

/// True if the emergency is for the identity as it is now, and whoever asked and agreed could do so now.
pub(crate) fn emergency_counts(registry: &Registry, emergency: &Emergency, wall: Timestamp) -> bool {
    let identity = registry.identity(&emergency.identity).filter(|identity| identity.is_in_force(wall));
    let stands = |identity: &Identity| match &emergency.agreed {
        None => asker(registry, identity, &emergency.asked.by).is_ok(),
        Some(agreed) => second(registry, identity, &emergency.asked.by, &agreed.by).is_ok(),
    };
    identity.is_some_and(|identity| {
        (identity.stop_number, &identity.owner) == (emergency.stop_number, &emergency.owner)
            && stands(identity)
    })
}
