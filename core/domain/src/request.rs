//! Requests: an ask that waits for a person, and what became of it.
//!
//! Never holds what is asked, only its hash: the text lies beside the row, and a yes fits this hash alone. Never asks a
//! clock: whether a moment has passed is judged with the time given.

use std::fmt;
use std::sync::Arc;

use crate::code::Code;
use crate::limits::YES_FOR;
use crate::opaque_id::opaque_id;
use crate::person::PersonId;
use crate::spiffe_id::SpiffeId;
use crate::time::Timestamp;

opaque_id! {
    /// The name of a request: `req_` and lowercase letters or digits. Cheap to clone.
    RequestId, "request", "req_"
}

/// SHA-256 over the text of a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestHash(pub [u8; 32]);

impl fmt::Display for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is asked. Not in it: which run asks, so that a task that is begun again finds the yes that was said to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestContent {
    /// Who wants to do it.
    pub identity: SpiffeId,
    pub task: Code,
    pub action: String,
    /// ID in the catalogue.
    pub resource: String,
    /// All that the gate would do, in the gate's words: the arguments of a tool as JSON, a change as a diff.
    pub shown: String,
}

/// The text of a request under its hash. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestText {
    pub hash: RequestHash,
    pub text: Arc<str>,
}

impl fmt::Debug for RequestText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {}", self.text.len(), self.hash)
    }
}

/// Whose yes is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whose {
    /// Of the identity.
    pub owner: bool,
    /// Somebody other than the owner.
    pub person: bool,
}

impl Whose {
    #[must_use]
    pub fn nobodys(self) -> bool {
        !self.owner && !self.person
    }

    /// What both have together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { owner: self.owner || other.owner, person: self.person || other.person }
    }
}

/// What is missing for something to be allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Whose yes, to exactly this.
    pub yes: Whose,
    /// A grant of this action on this resource.
    pub grant: bool,
}

impl Needs {
    /// True if nothing that somebody could give is missing.
    #[must_use]
    pub fn nothing(self) -> bool {
        self.yes.nobodys() && !self.grant
    }
}

impl From<Whose> for Needs {
    fn from(yes: Whose) -> Self {
        Self { yes, grant: false }
    }
}

/// What somebody said, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    pub by: PersonId,
    pub at: Timestamp,
}

/// Where a request stands, if its time has not passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestState {
    /// For a yes that is missing.
    Waiting,
    /// Every yes was said: what was asked may be done once.
    Yes,
    No,
    /// It was done, or begun.
    Spent,
}

impl RequestState {
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Yes, Self::No, Self::Spent];

    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Yes => "yes",
            Self::No => "no",
            Self::Spent => "spent",
        }
    }

    /// Reads what [`Self::name`] gives.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub id: RequestId,
    /// Of its text.
    pub hash: RequestHash,
    /// Who wants to do it.
    pub identity: SpiffeId,
    /// Of the identity when it asked: after a pause nobody's yes counts any more.
    pub stop_number: u64,
    /// The node agent that asked.
    pub node: SpiffeId,
    pub action: Arc<str>,
    pub resource: Arc<str>,
    pub needs: Whose,
    pub owner_yes: Option<Said>,
    pub person_yes: Option<Said>,
    pub no: Option<Said>,
    pub state: RequestState,
    pub asked_at: Timestamp,
    /// Of one that waits: when nobody needs to answer any more. Of a yes: when it ends. Of a no: until when the same is not
    /// asked again. Of one that is spent: since when.
    pub until: Timestamp,
    /// What it was spent with: the same call, made again because its answer was lost, is answered alike.
    pub spent_with: Option<[u8; 16]>,
}

impl Request {
    /// Where it stands, in the word that people read: that of its state, or `lapsed`. `stop_number`: that of its identity now.
    #[must_use]
    pub fn standing(&self, wall: Timestamp, stop_number: u64) -> &'static str {
        let timed = matches!(self.state, RequestState::Waiting | RequestState::Yes);
        let over = wall >= self.until || stop_number != self.stop_number;
        if timed && over { "lapsed" } else { self.state.name() }
    }

    /// True if somebody's yes is waited for.
    #[must_use]
    pub fn waits(&self, wall: Timestamp) -> bool {
        self.state == RequestState::Waiting && wall < self.until
    }

    /// True if what was asked may be done now.
    #[must_use]
    pub fn may_be_done(&self, wall: Timestamp) -> bool {
        self.state == RequestState::Yes && wall < self.until
    }

    /// Without the yeses that do not count any more.
    #[must_use]
    pub fn with_only(self, counts: impl Fn(&Said, Whose) -> bool) -> Self {
        let (owner, person) = (Whose { owner: true, person: false }, Whose { owner: false, person: true });
        Self {
            owner_yes: self.owner_yes.filter(|said| counts(said, owner)),
            person_yes: self.person_yes.filter(|said| counts(said, person)),
            ..self
        }
    }

    /// Whose yes is not said yet, or was said too long ago.
    #[must_use]
    pub fn missing(&self, wall: Timestamp) -> Whose {
        let lacks = |said: &Option<Said>| said.as_ref().is_none_or(|said| wall.since(said.at) >= YES_FOR);
        Whose {
            owner: self.needs.owner && lacks(&self.owner_yes),
            person: self.needs.person && lacks(&self.person_yes),
        }
    }

    /// When the oldest yes was said of those that were needed.
    #[must_use]
    pub fn said_at(&self) -> Option<Timestamp> {
        let owner = self.owner_yes.iter().filter(|_| self.needs.owner);
        let person = self.person_yes.iter().filter(|_| self.needs.person);
        owner.chain(person).map(|said| said.at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::request;
    use crate::opaque_id::OPAQUE_ID_MAX;

    #[test]
    fn an_id_is_the_prefix_and_lowercase_letters_or_digits() {
        assert_eq!(RequestId::new("req_01ab").unwrap().as_str(), "req_01ab");
        let long = format!("req_{}", "a".repeat(OPAQUE_ID_MAX));
        for wrong in ["", "req_", "01ab", "req_A", "req_a b", "REQ_a", long.as_str()] {
            assert!(RequestId::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_waits_and_what_was_agreed_to_lapses_and_a_no_does_not() {
        let at = |state, wall| {
            Request { state, until: Timestamp(10), ..request("req_a", "/test/a") }
                .standing(Timestamp(wall), 0)
        };
        assert_eq!((at(RequestState::Waiting, 9), at(RequestState::Waiting, 10)), ("waiting", "lapsed"));
        assert_eq!((at(RequestState::Yes, 9), at(RequestState::Yes, 10)), ("yes", "lapsed"));
        assert_eq!((at(RequestState::No, 11), at(RequestState::Spent, 11)), ("no", "spent"));
        assert_eq!(
            request("req_a", "/test/a").standing(Timestamp(0), 1),
            "lapsed",
            "its identity was paused"
        );
    }

    #[test]
    fn every_state_is_read_back_from_its_name() {
        for state in RequestState::ALL {
            assert_eq!(RequestState::from_name(state.name()), Some(state));
        }
        assert_eq!(RequestState::from_name("lapsed"), None);
    }
}
