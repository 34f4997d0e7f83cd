//! Plans by which a person leaves: what was theirs becomes the successor's, or pauses.
//!
//! Never leaves an identity in force whose owner is gone: somebody has left only when nothing of theirs is left to pass or
//! to pause.

use avouch_domain::limits::ADOPTED_FOR;
use avouch_domain::{
    AuditEvent, Cause, Identity, Kind, Person, PersonId, PersonState, Plan, Row, SpiffeId, Standing,
    Timestamp,
};

use super::Draft;
use super::identities::{PAUSE_BATCH, put, without_force};
use crate::registry::Registry;

/// As many security people stay: with fewer, nobody could say yes for production.
const SECURITY_MIN: usize = 2;
/// Who did it, in records of what a list said.
const LIST: &str = "people_file";

/// What one plan does; the next goes on until somebody has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Has left once nothing is left to do.
    pub person: Person,
    /// Identities that are the successor's now, ascending.
    pub passed: Vec<(SpiffeId, PersonId)>,
    /// Identities that have no active successor and pause, ascending.
    pub paused: Vec<SpiffeId>,
    /// There are more of both: another plan goes on.
    pub more: bool,
}

/// At whose word somebody leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    Person(PersonId),
    /// The list of the people who are there does not name them any more.
    List,
}

impl Word {
    fn actor(&self) -> &str {
        match self {
            Self::Person(id) => id.as_str(),
            Self::List => LIST,
        }
    }
}

/// Why nobody left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaveError {
    #[error("no person has the ID {0}: `avouch person list` shows all")]
    Unknown(PersonId),
    #[error("{0} has left already")]
    Gone(PersonId),
    #[error("{actor} may not say that {leaver} leaves, expected that person or a security person")]
    NotYours { actor: PersonId, leaver: PersonId },
    #[error(
        "{0} is one of the last {SECURITY_MIN} security people, and without them nobody says yes for production: \
         `avouch person add NAME --security` first"
    )]
    LastSecurity(PersonId),
}

/// Lets somebody leave, at their own word, that of any security person, or that of the list. Each identity goes to its successor, who is to
/// confirm it within [`ADOPTED_FOR`]; one without an active successor pauses at once. At most [`PAUSE_BATCH`] of them.
pub fn leave(
    registry: &Registry,
    at: Timestamp,
    by: &Word,
    leaver: &PersonId,
) -> (Plan, Result<Departure, LeaveError>) {
    let mut draft = Draft::new(registry, at, by.actor());
    let outcome = may_leave(registry, by, leaver).map(|person| depart(&mut draft, at, person));
    (draft.finish(), outcome)
}

fn may_leave<'a>(registry: &'a Registry, by: &Word, leaver: &PersonId) -> Result<&'a Person, LeaveError> {
    if let Word::Person(actor) = by {
        let person = registry.person(actor);
        if person.is_none_or(|by| !by.is_active() || !(by.security || actor == leaver)) {
            return Err(LeaveError::NotYours { actor: actor.clone(), leaver: leaver.clone() });
        }
    }
    let person = registry.person(leaver).ok_or_else(|| LeaveError::Unknown(leaver.clone()))?;
    if person.state == PersonState::Left {
        return Err(LeaveError::Gone(leaver.clone()));
    }
    let counts = |person: &Person| person.security && person.is_active();
    if counts(person) && registry.people().filter(|person| counts(person)).count() <= SECURITY_MIN {
        return Err(LeaveError::LastSecurity(leaver.clone()));
    }
    Ok(person)
}

fn depart(draft: &mut Draft<'_>, at: Timestamp, person: &Person) -> Departure {
    let registry = draft.before;
    let (mut passed, mut paused) = (Vec::new(), Vec::new());
    let mut theirs = registry.identities().filter(|identity| identity.owner == person.id);
    for identity in theirs.by_ref().filter(|identity| is_open(registry, identity)).take(PAUSE_BATCH) {
        match heir(registry, identity) {
            Some(heir) => {
                let new = Identity {
                    owner: heir.clone(),
                    successor: None,
                    confirm_by: Some(at + ADOPTED_FOR),
                    ..identity.clone()
                };
                passed.push((put(draft, AuditEvent::IdentityPassed, new).spiffe_id, heir.clone()));
            }
            None => {
                let new = without_force(registry, at, identity, Standing::Paused(Cause::OwnerLeft));
                paused.push(put(draft, AuditEvent::IdentityPaused, new).spiffe_id);
            }
        }
    }
    let done = !theirs.any(|identity| is_open(registry, identity));
    let mut person = person.clone();
    if done {
        // Whoever becomes this local user later, or gets this account, is somebody else.
        person = Person { state: PersonState::Left, uid: None, sign_in: None, ..person };
        draft.note(AuditEvent::PersonLeft, &person.id);
        draft.put(Row::Person(person.clone()));
    }
    Departure { person, passed, paused, more: !done }
}

/// True if something is to be done about it when its owner leaves.
fn is_open(registry: &Registry, identity: &Identity) -> bool {
    match identity.standing {
        Standing::Active => true,
        Standing::Proposed | Standing::Paused(_) => heir(registry, identity).is_some(),
        Standing::Stopped(_) => false,
    }
}

/// Whose it becomes. What helps one person helps nobody else.
fn heir<'a>(registry: &Registry, identity: &'a Identity) -> Option<&'a PersonId> {
    let successor = identity.successor.as_ref().filter(|_| identity.kind != Kind::Helper)?;
    registry.person(successor).is_some_and(Person::is_active).then_some(successor)
}

#[cfg(test)]
mod tests {
    use avouch_domain::SignIn;
    use avouch_domain::fixtures::{id, identity, person, person_id};
    use proptest::prelude::*;

    use super::super::governance_tests::commit;
    use super::super::identities::{self, IdentityError, IdentityPatch};
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    /// Three security people, an owner and somebody else.
    fn team(identities: impl IntoIterator<Item = Identity>) -> Registry {
        let mut registry = Registry::new();
        for (name, uid, security) in [
            ("per_s", 1, true),
            ("per_t", 2, true),
            ("per_u", 3, true),
            ("per_owner", 4, false),
            ("per_other", 5, false),
        ] {
            registry.put(Row::Person(person(name, uid, security)));
        }
        identities.into_iter().for_each(|identity| registry.put(Row::Identity(identity)));
        registry
    }

    fn says(id: &str) -> Word {
        Word::Person(person_id(id))
    }

    fn gone(registry: &mut Registry, actor: &str, leaver: &str) -> Departure {
        let (plan, left) = leave(registry, NOW, &says(actor), &person_id(leaver));
        commit(registry, &plan);
        left.unwrap()
    }

    fn to_other(path: &str, kind: Kind) -> Identity {
        Identity { successor: Some(person_id("per_other")), ..identity(path, kind) }
    }

    #[test]
    fn what_has_a_successor_becomes_theirs_and_everything_else_pauses() {
        let helper = to_other("/test/helper", Kind::Helper);
        let mut registry =
            team([to_other("/test/a", Kind::AiAgent), identity("/test/b", Kind::Service), helper]);
        let left = gone(&mut registry, "per_owner", "per_owner");
        assert_eq!(left.passed, [(id("/test/a"), person_id("per_other"))]);
        assert_eq!(left.paused, [id("/test/b"), id("/test/helper")], "a helper is nobody else's");
        let passed = registry.identity(&id("/test/a")).unwrap();
        assert_eq!((&passed.successor, passed.confirm_by), (&None, Some(NOW + ADOPTED_FOR)));
        assert!(passed.is_in_force(NOW), "it goes on without a break");
        let paused = registry.identity(&id("/test/b")).unwrap();
        assert_eq!((paused.standing, paused.stop_number), (Standing::Paused(Cause::OwnerLeft), 1));
    }

    #[test]
    fn who_has_left_is_no_user_and_may_do_nothing() {
        let mut registry = team([]);
        let account = SignIn::read("https://idp.example.org", "7").unwrap().unwrap();
        registry.put(Row::Person(Person { sign_in: Some(account.clone()), ..person("per_owner", 4, false) }));
        let left = gone(&mut registry, "per_s", "per_owner").person;
        assert_eq!((left.state, left.uid), (PersonState::Left, None));
        assert!(registry.person_of_uid(4).is_none());
        assert!(left.sign_in.is_none() && registry.person_of_sign_in(&account).is_none());
        let owner = person_id("per_owner");
        let (plan, again) = leave(&registry, NOW, &says("per_s"), &owner);
        assert_eq!((again, plan.is_empty()), (Err(LeaveError::Gone(owner.clone())), true));
        let (_, by_itself) = leave(&registry, NOW, &says("per_owner"), &person_id("per_other"));
        assert!(matches!(by_itself, Err(LeaveError::NotYours { .. })));
    }

    #[test]
    fn only_the_person_or_a_security_person_says_so_and_two_of_these_stay() {
        let mut registry = team([]);
        let (_, other) = leave(&registry, NOW, &says("per_other"), &person_id("per_owner"));
        assert!(matches!(other, Err(LeaveError::NotYours { .. })));
        gone(&mut registry, "per_u", "per_u");
        let (_, last) = leave(&registry, NOW, &says("per_s"), &person_id("per_t"));
        assert_eq!(last, Err(LeaveError::LastSecurity(person_id("per_t"))));
        let (_, unknown) = leave(&registry, NOW, &says("per_s"), &person_id("per_x"));
        assert_eq!(unknown, Err(LeaveError::Unknown(person_id("per_x"))));
    }

    #[test]
    fn at_the_word_of_the_list_anybody_leaves_but_the_last_security_people() {
        let mut registry = team([identity("/test/a", Kind::Service)]);
        let (plan, left) = leave(&registry, NOW, &Word::List, &person_id("per_owner"));
        assert_eq!(left.unwrap().paused, [id("/test/a")]);
        assert!(!plan.audit.is_empty() && plan.audit.iter().all(|row| row.actor == LIST));
        commit(&mut registry, &plan);
        let (plan, _) = leave(&registry, NOW, &Word::List, &person_id("per_u"));
        commit(&mut registry, &plan);
        let (_, last) = leave(&registry, NOW, &Word::List, &person_id("per_t"));
        assert_eq!(last, Err(LeaveError::LastSecurity(person_id("per_t"))));
    }

    #[test]
    fn a_paused_identity_comes_back_only_under_an_owner_who_is_there() {
        let mut registry = team([identity("/test/a", Kind::AiAgent)]);
        gone(&mut registry, "per_owner", "per_owner");
        let (security, name) = (person_id("per_s"), id("/test/a"));
        let (_, refused) = identities::resume(&registry, NOW, &security, &name);
        assert_eq!(refused, Err(IdentityError::OwnerLeft(person_id("per_owner"))));
        let patch = IdentityPatch { owner: Some(security.clone()), ..IdentityPatch::default() };
        let (plan, _) = identities::patch(&registry, NOW, &security, &name, &patch);
        commit(&mut registry, &plan);
        let (_, resumed) = identities::resume(&registry, NOW, &security, &name);
        assert!(resumed.unwrap().is_in_force(NOW));
    }

    #[test]
    fn a_proposed_identity_is_not_agreed_to_once_its_owner_has_left() {
        let proposed = Identity { standing: Standing::Proposed, ..identity("/test/a", Kind::Service) };
        let mut registry = team([proposed]);
        gone(&mut registry, "per_owner", "per_owner");
        let (_, refused) = identities::approve(&registry, NOW, &person_id("per_s"), &id("/test/a"));
        assert_eq!(refused, Err(IdentityError::OwnerLeft(person_id("per_owner"))));
    }

    #[test]
    fn who_owns_more_than_one_plan_takes_leaves_with_the_last() {
        let many = (0..PAUSE_BATCH + 1).map(|n| identity(&format!("/test/n{n}"), Kind::Service));
        let mut registry = team(many);
        let first = gone(&mut registry, "per_s", "per_owner");
        assert_eq!((first.paused.len(), first.person.state), (PAUSE_BATCH, PersonState::Active));
        let last = gone(&mut registry, "per_s", "per_owner");
        assert_eq!((last.paused.len(), last.person.state), (1, PersonState::Left));
    }

    proptest! {
        #[test]
        fn no_identity_is_in_force_without_an_active_owner(
            facts in prop::collection::vec((0..3_usize, 0..6_usize, 0..4_usize, 0..5_usize), 0..12),
            leavers in prop::collection::vec(0..5_usize, 0..6),
        ) {
            let names = ["per_s", "per_t", "per_u", "per_owner", "per_other"].map(person_id);
            let standings = [
                Standing::Proposed,
                Standing::Active,
                Standing::Paused(Cause::Person),
                Standing::Stopped(Cause::Person),
            ];
            let made = facts.into_iter().enumerate().map(|(n, (kind, successor, standing, owner))| Identity {
                owner: names[owner].clone(),
                successor: names.get(successor).filter(|s| **s != names[owner]).cloned(),
                standing: standings[standing],
                ..identity(&format!("/test/n{n}"), Kind::ALL[kind])
            });
            let mut registry = team(made);
            for leaver in leavers {
                let (plan, _) = leave(&registry, NOW, &says("per_s"), &names[leaver]);
                commit(&mut registry, &plan);
                for identity in registry.identities().filter(|identity| identity.is_in_force(NOW)) {
                    prop_assert!(registry.person(&identity.owner).unwrap().is_active(), "{:?}", identity);
                    prop_assert_ne!(Some(&identity.owner), identity.successor.as_ref());
                }
            }
        }
    }
}
