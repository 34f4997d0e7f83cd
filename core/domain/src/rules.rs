//! Published rules: numbered folders, of which the highest that was agreed to is in force.
//!
//! Never reads what a folder says: here it is names, texts and a digest.

use std::fmt;
use std::sync::Arc;

use crate::limits::RULES_NOTE_MAX;
use crate::person::PersonId;
use crate::time::Timestamp;

/// SHA-256 over the canonical form of a rules folder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RulesDigest(pub [u8; 32]);

/// How the text of a digest begins.
const PREFIX: &str = "sha256:";

/// Why a text is no digest or no note.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesTextError {
    #[error("\"{0}\" is no digest of rules, expected {PREFIX} and 64 hexadecimal digits in lower case")]
    Digest(String),
    #[error("the note has {0} bytes, expected at most {RULES_NOTE_MAX}")]
    NoteLength(usize),
    #[error("the note holds a control character, expected one line of text")]
    NoteCharacter,
}

impl RulesDigest {
    /// Reads what `Display` writes, and nothing else.
    ///
    /// # Errors
    /// [`RulesTextError::Digest`].
    pub fn parse(text: &str) -> Result<Self, RulesTextError> {
        let wrong = || RulesTextError::Digest(text.chars().take(80).collect());
        let digits = text.strip_prefix(PREFIX).filter(|digits| digits.len() == 64).ok_or_else(wrong)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
            for digit in pair {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return Err(wrong()),
                };
                *byte = (*byte << 4) | value;
            }
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for RulesDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RulesDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Checks why somebody published rules, in his words; may be empty.
///
/// # Errors
/// [`RulesTextError`].
pub fn rules_note(text: &str) -> Result<Arc<str>, RulesTextError> {
    if text.len() > RULES_NOTE_MAX {
        return Err(RulesTextError::NoteLength(text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(RulesTextError::NoteCharacter);
    }
    Ok(text.into())
}

/// Where published rules stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RulesStanding {
    /// Waits for another security person's yes.
    Proposed,
    /// Agreed to: in force from then on, until others with a higher number are.
    Approved,
    /// Taken back before anybody agreed.
    Withdrawn,
}

impl RulesStanding {
    pub const ALL: [Self; 3] = [Self::Proposed, Self::Approved, Self::Withdrawn];

    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Approved => "approved",
            Self::Withdrawn => "withdrawn",
        }
    }

    /// Reads what [`Self::name`] gives.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|standing| standing.name() == name)
    }
}

/// One publication, without its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedRules {
    /// From 1, higher than any before.
    pub number: u64,
    pub digest: RulesDigest,
    /// Why, in the words of who published; may be empty. Records never hold it.
    pub note: Arc<str>,
    pub standing: RulesStanding,
    pub published_by: PersonId,
    pub published_at: Timestamp,
    /// Who agreed; who published, if there was nobody else to ask. Only of approved ones.
    pub yes_by: Option<PersonId>,
    /// When they came into force. Only of approved ones.
    pub valid_from: Option<Timestamp>,
}

impl PublishedRules {
    /// Where they stand, in the word that people read, beside the number of the rules in force: `proposed`, `in_force`,
    /// `past`, `lapsed` (nobody agreed before others came into force) or `withdrawn`.
    #[must_use]
    pub fn seen_from(&self, in_force: Option<u64>) -> &'static str {
        let behind = in_force.is_some_and(|in_force| in_force > self.number);
        match self.standing {
            RulesStanding::Proposed if behind => "lapsed",
            RulesStanding::Approved if behind => "past",
            RulesStanding::Approved => "in_force",
            standing => standing.name(),
        }
    }
}

/// The files of a rules folder under the digest of all of them. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct RulesFolder {
    pub digest: RulesDigest,
    /// Names and texts, ascending by name.
    pub files: Arc<[(String, String)]>,
}

impl RulesFolder {
    /// Bytes of all names and texts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.files.iter().map(|(name, text)| name.len() + text.len()).sum()
    }
}

impl fmt::Debug for RulesFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files, {}", self.files.len(), self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_back_from_its_text_and_from_nothing_else() {
        let digest = RulesDigest(std::array::from_fn(|n| u8::try_from(n * 8).unwrap()));
        let text = digest.to_string();
        assert_eq!(RulesDigest::parse(&text), Ok(digest));
        let (short, upper) = (&text[..70], text.to_uppercase());
        let long = format!("{text}0");
        for wrong in ["", "sha256:", short, &text[7..], upper.as_str(), long.as_str()] {
            assert!(RulesDigest::parse(wrong).is_err(), "{wrong}");
        }
        assert!(RulesDigest::parse(&text.replace('0', "\u{e9}")).is_err());
    }

    #[test]
    fn a_note_is_one_line_of_bounded_length() {
        assert_eq!(&*rules_note("").unwrap(), "");
        assert_eq!(&*rules_note("fewer rows, please").unwrap(), "fewer rows, please");
        assert_eq!(rules_note("a\nb"), Err(RulesTextError::NoteCharacter));
        assert_eq!(rules_note(&"x".repeat(RULES_NOTE_MAX + 1)), Err(RulesTextError::NoteLength(257)));
    }

    #[test]
    fn every_standing_is_read_back_from_its_name() {
        for standing in RulesStanding::ALL {
            assert_eq!(RulesStanding::from_name(standing.name()), Some(standing));
        }
        assert_eq!(RulesStanding::from_name("gone"), None);
    }
}
