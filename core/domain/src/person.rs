//! People: who may own identities, say yes, and stop things.
//!
//! Never holds more of a person than is needed: records name people by their opaque ID, so that a name can be erased
//! without touching the log.

use std::fmt;
use std::sync::Arc;

use crate::limits::{PERSON_ID_MAX, PERSON_NAME_MAX};
use crate::sign_in::SignIn;
use crate::time::Timestamp;

/// The opaque name of a person: `per_` and letters or digits. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersonId(Arc<str>);

/// How every person's ID begins.
pub const PERSON_PREFIX: &str = "per_";

/// Why a text names no person, or is no name for one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PersonError {
    #[error("\"{0}\" is no person's ID, expected per_ and letters or digits")]
    Id(String),
    #[error("a person's name has {0} bytes, expected 1 to {PERSON_NAME_MAX}")]
    NameLength(usize),
    #[error("a person's name holds a control character, expected one line of text")]
    NameCharacter,
}

impl PersonId {
    /// # Errors
    /// [`PersonError::Id`].
    pub fn new(text: &str) -> Result<Self, PersonError> {
        let rest = text.strip_prefix(PERSON_PREFIX).unwrap_or_default();
        let fits = !rest.is_empty() && text.len() <= PERSON_ID_MAX;
        if fits && rest.bytes().all(|b| b.is_ascii_alphanumeric()) {
            Ok(Self(text.into()))
        } else {
            Err(PersonError::Id(text.chars().take(PERSON_ID_MAX).collect()))
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PersonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PersonId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks what a person is shown as.
///
/// # Errors
/// [`PersonError`].
pub fn person_name(text: &str) -> Result<Arc<str>, PersonError> {
    if text.is_empty() || text.len() > PERSON_NAME_MAX {
        return Err(PersonError::NameLength(text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(PersonError::NameCharacter);
    }
    Ok(text.into())
}

/// Where a person stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PersonState {
    /// Waits for another security person's yes.
    Proposed,
    Active,
    /// Is gone: owns nothing that is in force, and may do nothing.
    Left,
}

impl PersonState {
    pub const ALL: [Self; 3] = [Self::Proposed, Self::Active, Self::Left];

    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Active => "active",
            Self::Left => "left",
        }
    }

    /// Reads what [`Self::name`] gives.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// One person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    pub id: PersonId,
    /// What people see.
    pub name: Arc<str>,
    /// The local user who is this person. Nobody else has the same, and nobody who has left has one.
    pub uid: Option<u32>,
    /// The account at a provider that is this person. As for `uid`, nobody else has the same, and nobody who has left has one.
    pub sign_in: Option<SignIn>,
    /// May add people, say yes for production, and stop any identity.
    pub security: bool,
    pub state: PersonState,
    /// Who added the person; `None` for the first.
    pub added_by: Option<PersonId>,
    /// Who said yes; `None` for the first, for the second, and before it.
    pub yes_by: Option<PersonId>,
    pub added_at: Timestamp,
}

impl Person {
    /// True if the person may act.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state == PersonState::Active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_prefix_and_letters_or_digits() {
        assert_eq!(PersonId::new("per_01AbZ").unwrap().as_str(), "per_01AbZ");
        let long = format!("per_{}", "a".repeat(PERSON_ID_MAX));
        for wrong in ["", "per_", "01AbZ", "per_a b", "per_\u{e9}", "PER_a", long.as_str()] {
            assert!(PersonId::new(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_is_one_line_of_bounded_length() {
        assert_eq!(&*person_name("Ada Example").unwrap(), "Ada Example");
        assert_eq!(person_name(""), Err(PersonError::NameLength(0)));
        assert_eq!(person_name(&"x".repeat(PERSON_NAME_MAX + 1)).unwrap_err(), PersonError::NameLength(129));
        assert_eq!(person_name("a\nb"), Err(PersonError::NameCharacter));
    }

    #[test]
    fn every_state_is_read_back_from_its_name() {
        for state in PersonState::ALL {
            assert_eq!(PersonState::from_name(state.name()), Some(state));
        }
        assert_eq!(PersonState::from_name("gone"), None);
    }
}
