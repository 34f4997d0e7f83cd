//! Published rules on the wire.
//!
//! Never takes a folder that is larger than one may be, nor one that names a file twice.

use std::collections::BTreeSet;

use avouch_domain::limits::RULES_FOLDER_MAX;
use avouch_domain::{PersonId, PublishedRules, RulesDigest, Timestamp};

use super::ConvertError;
use crate::{governance_v1, rules_v1};

/// `in_force`: the number of the rules in force.
#[must_use]
pub fn published_rules_to_wire(
    rules: &PublishedRules,
    in_force: Option<u64>,
) -> governance_v1::PublishedRules {
    governance_v1::PublishedRules {
        number: rules.number,
        digest: rules.digest.to_string(),
        note: rules.note.to_string(),
        standing: rules.seen_from(in_force).to_owned(),
        published_by: rules.published_by.to_string(),
        yes_by: rules.yes_by.as_ref().map(PersonId::to_string).unwrap_or_default(),
        published_at: rules.published_at.secs(),
        valid_from: rules.valid_from.map_or(0, Timestamp::secs),
    }
}

/// The files of a folder, names and texts.
///
/// # Errors
/// [`ConvertError::NotAllowed`] for a folder that is too large or names a file twice.
pub fn rules_files(wire: Vec<rules_v1::File>) -> Result<Vec<(String, String)>, ConvertError> {
    let bytes: usize = wire.iter().map(|file| file.name.len() + file.text.len()).sum();
    if bytes > RULES_FOLDER_MAX {
        return Err(ConvertError::NotAllowed(format!(
            "the folder has {bytes} bytes, expected at most {RULES_FOLDER_MAX}: take out what is not needed"
        )));
    }
    let mut names = BTreeSet::new();
    if let Some(twice) = wire.iter().find(|file| !names.insert(file.name.as_str())) {
        let shown: String = twice.name.chars().take(64).collect();
        return Err(ConvertError::NotAllowed(format!("file \"{shown}\" comes twice, expected each once")));
    }
    Ok(wire.into_iter().map(|file| (file.name, file.text)).collect())
}

#[must_use]
pub fn rules_files_to_wire(files: &[(String, String)]) -> Vec<rules_v1::File> {
    files.iter().map(|(name, text)| rules_v1::File { name: name.clone(), text: text.clone() }).collect()
}

/// # Errors
/// [`ConvertError::Unreadable`] for another length.
pub fn rules_digest(wire: &[u8]) -> Result<RulesDigest, ConvertError> {
    let wrong =
        |_| ConvertError::Unreadable(format!("digest of rules has {} bytes, expected 32", wire.len()));
    <[u8; 32]>::try_from(wire).map(RulesDigest).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use avouch_domain::RulesStanding;
    use avouch_domain::fixtures::rules;

    use super::*;

    fn file(name: &str, text: &str) -> rules_v1::File {
        rules_v1::File { name: name.into(), text: text.into() }
    }

    #[test]
    fn a_folder_survives_the_wire() {
        let files = rules_files(vec![file("a.cedar", "x"), file("b.cedar", "")]).unwrap();
        let again = rules_files(rules_files_to_wire(&files)).unwrap();
        assert_eq!((files.len(), again), (2, files));
    }

    #[test]
    fn a_folder_that_is_too_large_or_names_a_file_twice_is_refused() {
        let large = "x".repeat(RULES_FOLDER_MAX / 2);
        let error = rules_files(vec![file("a.cedar", &large), file("b.cedar", &large)]).unwrap_err();
        assert!(error.to_string().contains("expected at most 1048576"), "{error}");
        let error = rules_files(vec![file("a.cedar", "x"), file("a.cedar", "y")]).unwrap_err();
        assert!(error.to_string().contains("\"a.cedar\" comes twice"), "{error}");
    }

    #[test]
    fn a_digest_has_32_bytes() {
        assert_eq!(rules_digest(&[7; 32]), Ok(RulesDigest([7; 32])));
        for wrong in [0, 31, 33] {
            assert!(rules_digest(&vec![7; wrong]).is_err());
        }
    }

    #[test]
    fn where_rules_stand_is_told_from_those_in_force() {
        let shown = |number, standing, in_force| {
            let rules = PublishedRules { standing, ..rules(number) };
            published_rules_to_wire(&rules, in_force).standing
        };
        use RulesStanding::{Approved, Proposed, Withdrawn};
        assert_eq!(shown(3, Approved, Some(3)), "in_force");
        assert_eq!(shown(2, Approved, Some(3)), "past");
        assert_eq!(shown(4, Proposed, Some(3)), "proposed");
        assert_eq!(shown(1, Proposed, None), "proposed");
        assert_eq!(shown(2, Proposed, Some(3)), "lapsed");
        assert_eq!(shown(4, Withdrawn, Some(3)), "withdrawn");
    }
}
