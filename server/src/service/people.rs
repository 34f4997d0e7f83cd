//! Verbs on people.
//!
//! Never decides who the caller is: the edge names the person.

use std::sync::Arc;

use avouch_domain::{Now, Person, PersonId, SignIn};
use avouch_engine::Registry;
use avouch_engine::plan::leaving::{self, Departure, LeaveError, Word};
use avouch_engine::plan::people::{self, NewPerson, PeopleError};

use super::stopping::Stopped;
use super::{Bounds, Services, WriteError};

/// An ID nobody has had.
pub(super) fn fresh_person_id() -> Option<PersonId> {
    let prefix = avouch_domain::person::PERSON_PREFIX;
    PersonId::new(&format!("{prefix}{}", uuid::Uuid::new_v4().simple())).ok()
}

/// A person who is to be added, as others describe them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    pub name: Arc<str>,
    pub uid: Option<u32>,
    pub sign_in: Option<SignIn>,
    pub security: bool,
}

type Outcome = Result<Result<Person, PeopleError>, WriteError>;

impl Services {
    /// All people, ascending by ID.
    #[must_use]
    pub fn people(&self) -> Vec<Person> {
        self.registry().people().cloned().collect()
    }

    /// The person who is this local user.
    #[must_use]
    pub fn person_of_uid(&self, uid: u32) -> Option<Person> {
        self.registry().person_of_uid(uid).cloned()
    }

    /// Makes the first person.
    ///
    /// # Errors
    /// [`WriteError`]; then nobody was made.
    pub async fn first_person(&self, now: Now, name: Arc<str>, uid: u32) -> Outcome {
        let id = fresh_person_id().ok_or(WriteError::Stopped)?;
        let new = NewPerson { id, name, uid: Some(uid), sign_in: None, security: true };
        self.0.writer.write(move |registry| people::first(registry, now.wall, &new)).await
    }

    /// Adds a person at the word of another.
    ///
    /// # Errors
    /// [`WriteError`]; then nobody was added.
    pub async fn add_person(&self, now: Now, actor: &PersonId, who: Who) -> Outcome {
        let id = fresh_person_id().ok_or(WriteError::Stopped)?;
        let Who { name, uid, sign_in, security } = who;
        let (actor, new) = (actor.clone(), NewPerson { id, name, uid, sign_in, security });
        self.0.writer.write(move |registry| people::add(registry, now.wall, &actor, &new)).await
    }

    /// Says as which account a person signs in.
    ///
    /// # Errors
    /// [`WriteError`]; then it is as before.
    pub async fn set_sign_in(&self, now: Now, actor: &PersonId, sign_in: Option<SignIn>) -> Outcome {
        let actor = actor.clone();
        let set =
            move |registry: &Registry| people::set_sign_in(registry, now.wall, &actor, sign_in.as_ref());
        self.0.writer.write(set).await
    }

    /// Says yes to a person who waits for it.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was said.
    pub async fn approve_person(&self, now: Now, actor: &PersonId, id: PersonId) -> Outcome {
        let actor = actor.clone();
        self.0.writer.write(move |registry| people::approve(registry, now.wall, &actor, &id)).await
    }

    /// What would become of somebody's identities now, as far as one plan goes.
    ///
    /// # Errors
    /// [`LeaveError`].
    pub fn departure(&self, now: Now, by: &Word, leaver: &PersonId) -> Result<Departure, LeaveError> {
        leaving::leave(&self.registry(), now.wall, by, leaver).1
    }

    /// Lets somebody leave, in as many plans as it takes, and waits until the nodes that follow have confirmed what pauses.
    /// Names what the first plan did, and the nodes of all.
    ///
    /// # Errors
    /// [`WriteError`]; then the person is still there, and what was done stays done.
    pub async fn leave_person(
        &self,
        now: Now,
        by: Word,
        leaver: PersonId,
    ) -> Result<Result<(Departure, Bounds), LeaveError>, WriteError> {
        let mut first: Option<Departure> = None;
        // What was known at each write: of a thousand identities at most, looked up after it.
        let mut writes = Vec::new();
        loop {
            let (by, who) = (by.clone(), leaver.clone());
            let step = move |registry: &Registry| {
                let (plan, done) = leaving::leave(registry, now.wall, &by, &who);
                (plan, done.map(|departure| (departure, registry.clone())))
            };
            let (step, registry) = match self.0.writer.write(step).await? {
                Ok(step) => step,
                Err(e) => return Ok(Err(e)),
            };
            writes.push(Stopped { registry, names: step.paused.clone() });
            let (person, more) = (step.person.clone(), step.more);
            let so_far = Departure { person, ..first.take().unwrap_or(step) };
            if !more {
                return Ok(Ok((so_far, self.confirmations(now, writes).await)));
            }
            first = Some(so_far);
        }
    }
}
