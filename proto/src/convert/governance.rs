//! People, identities and records on the wire.
//!
//! Never turns an empty text into somebody: where a person is optional, empty means nobody.

use avouch_domain::person::person_name;
use avouch_domain::{
    Accepted, Code, CodeDigest, Emergency, Environment, Finding, Identity, Kind, Person, PersonId, SignIn,
    Standing, Timestamp,
};
use std::num::NonZeroU16;
use std::sync::Arc;

use super::ConvertError;
use crate::governance_v1 as wire;
use crate::watch_v1 as watch;

fn text_of(id: Option<&PersonId>) -> String {
    id.map(ToString::to_string).unwrap_or_default()
}

#[must_use]
pub fn person_to_wire(person: &Person) -> wire::Person {
    wire::Person {
        id: person.id.to_string(),
        name: person.name.to_string(),
        uid: person.uid,
        security: person.security,
        state: person.state.name().to_owned(),
        added_by: text_of(person.added_by.as_ref()),
        yes_by: text_of(person.yes_by.as_ref()),
        added_at: person.added_at.secs(),
        issuer: person.sign_in.as_ref().map(|sign_in| sign_in.issuer.to_string()).unwrap_or_default(),
        subject: person
            .sign_in
            .as_ref()
            .map(|sign_in| sign_in.subject.as_str().to_owned())
            .unwrap_or_default(),
    }
}

#[must_use]
pub fn identity_to_wire(identity: &Identity) -> wire::Identity {
    wire::Identity {
        spiffe_id: identity.spiffe_id.to_string(),
        kind: identity.kind.name().to_owned(),
        environment: identity.environment.name().to_owned(),
        purpose: identity.purpose.to_string(),
        preset: identity.preset.as_ref().map(ToString::to_string).unwrap_or_default(),
        owner: identity.owner.to_string(),
        successor: text_of(identity.successor.as_ref()),
        ends_at: identity.end.secs(),
        standing: identity.standing.name().to_owned(),
        cause: identity.standing.cause().map(|cause| cause.name().to_owned()).unwrap_or_default(),
        stop_number: identity.stop_number,
        added_by: identity.added_by.to_string(),
        added_at: identity.added_at.secs(),
        yes_by: text_of(identity.yes_by.as_ref()),
        confirm_by: identity.confirm_by.map_or(0, Timestamp::secs),
        stop_tried: identity.stop_tried.map(|tried| wire::StopTried {
            at: tried.at.secs(),
            nodes: tried.nodes,
            confirmed: tried.confirmed,
            took_ms: tried.took_ms,
        }),
        last_used: 0,
        code: code_bytes(identity),
        runs_max: runs_max(identity),
    }
}

fn code_bytes(identity: &Identity) -> Vec<u8> {
    identity.code.map(|code| code.0.to_vec()).unwrap_or_default()
}

fn runs_max(identity: &Identity) -> u32 {
    identity.runs_max.map_or(0, |most| most.get().into())
}

/// The digest of code.
///
/// # Errors
/// [`ConvertError::NotAllowed`] for another number of bytes than 32.
pub fn code_digest(bytes: &[u8]) -> Result<CodeDigest, ConvertError> {
    let wrong = || ConvertError::NotAllowed(format!("code: {} bytes, expected 32", bytes.len()));
    bytes.try_into().map(CodeDigest).map_err(|_| wrong())
}

/// Empty: `None`.
///
/// # Errors
/// [`ConvertError::NotAllowed`] for another number of bytes than 32.
pub fn optional_code_digest(bytes: &[u8]) -> Result<Option<CodeDigest>, ConvertError> {
    if bytes.is_empty() { Ok(None) } else { code_digest(bytes).map(Some) }
}

/// Most runs at a time; 0: `None`.
///
/// # Errors
/// [`ConvertError::NotAllowed`] for more than 65,535.
pub fn optional_runs_max(most: u32) -> Result<Option<NonZeroU16>, ConvertError> {
    let wrong = || ConvertError::NotAllowed(format!("{most} runs at a time, expected at most {}", u16::MAX));
    u16::try_from(most).map(NonZeroU16::new).map_err(|_| wrong())
}

/// What node agents have to know of an identity, and the emergencies that are open for it.
#[must_use]
pub fn identity_facts_to_wire(
    identity: &Identity,
    owner_active: bool,
    emergencies: &[Emergency],
) -> watch::IdentityFacts {
    watch::IdentityFacts {
        spiffe_id: identity.spiffe_id.to_string(),
        kind: identity.kind.name().to_owned(),
        environment: identity.environment.name().to_owned(),
        purpose: identity.purpose.to_string(),
        preset: identity.preset.as_ref().map(ToString::to_string).unwrap_or_default(),
        owner: identity.owner.to_string(),
        owner_active,
        ends_at: identity.end.secs(),
        stop_number: identity.stop_number,
        code: code_bytes(identity),
        runs_max: runs_max(identity),
        emergencies: emergencies.iter().map(open_emergency).collect(),
    }
}

fn open_emergency(emergency: &Emergency) -> watch::Emergency {
    watch::Emergency {
        id: emergency.id.to_string(),
        action: emergency.action.to_string(),
        resource: emergency.resource.to_string(),
        ends_at: emergency.ends_at.secs(),
    }
}

/// What a person is shown as.
///
/// # Errors
/// [`ConvertError::NotAllowed`].
pub fn name_of_person(text: &str) -> Result<Arc<str>, ConvertError> {
    person_name(text).map_err(ConvertError::not_allowed)
}

/// As which account somebody signs in; both empty: `None`.
///
/// # Errors
/// [`ConvertError::NotAllowed`].
pub fn sign_in(issuer: &str, subject: &str) -> Result<Option<SignIn>, ConvertError> {
    SignIn::read(issuer, subject).map_err(ConvertError::not_allowed)
}

/// # Errors
/// [`ConvertError::Unreadable`].
pub fn person_id(text: &str) -> Result<PersonId, ConvertError> {
    PersonId::new(text).map_err(ConvertError::unreadable)
}

/// Empty: `None`.
///
/// # Errors
/// [`ConvertError::Unreadable`].
pub fn optional_person(text: &str) -> Result<Option<PersonId>, ConvertError> {
    if text.is_empty() { Ok(None) } else { person_id(text).map(Some) }
}

fn one_of<T>(
    what: &str,
    text: &str,
    read: impl Fn(&str) -> Option<T>,
    all: &[&str],
) -> Result<T, ConvertError> {
    read(text).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        ConvertError::Unreadable(format!("\"{shown}\" is no {what}, expected {}", all.join(", ")))
    })
}

/// # Errors
/// [`ConvertError::Unreadable`].
pub fn identity_kind(text: &str) -> Result<Kind, ConvertError> {
    one_of("kind", text, Kind::from_name, &Kind::ALL.map(Kind::name))
}

/// # Errors
/// [`ConvertError::Unreadable`].
pub fn environment(text: &str) -> Result<Environment, ConvertError> {
    one_of("environment", text, Environment::from_name, &Environment::ALL.map(Environment::name))
}

/// The stable name of a standing.
///
/// # Errors
/// [`ConvertError::Unreadable`].
pub fn standing_name(text: &str) -> Result<&'static str, ConvertError> {
    one_of("standing", text, |text| Standing::NAMES.into_iter().find(|name| *name == text), &Standing::NAMES)
}

/// # Errors
/// [`ConvertError::NotAllowed`].
pub fn code(text: &str) -> Result<Code, ConvertError> {
    Code::new(text).map_err(ConvertError::not_allowed)
}

/// Empty: `None`.
///
/// # Errors
/// [`ConvertError::NotAllowed`].
pub fn optional_code(text: &str) -> Result<Option<Code>, ConvertError> {
    if text.is_empty() { Ok(None) } else { code(text).map(Some) }
}

/// What something may lack.
///
/// # Errors
/// [`ConvertError::Unreadable`].
pub fn finding(text: &str) -> Result<Finding, ConvertError> {
    one_of("finding", text, |text| text.parse().ok(), &Finding::ALL.map(Finding::name))
}

#[must_use]
pub fn accepted_to_wire(accepted: &Accepted) -> wire::Accepted {
    wire::Accepted {
        spiffe_id: accepted.name.to_string(),
        what: accepted.what.name().to_owned(),
        until: accepted.until.secs(),
        why: accepted.why.to_string(),
        accepted_by: accepted.said.by.to_string(),
        accepted_at: accepted.said.at.secs(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use avouch_domain::fixtures::{identity, person};

    #[test]
    fn nobody_is_an_empty_text_and_back() {
        assert_eq!(person_to_wire(&person("per_a", 1, true)).added_by, "");
        assert_eq!(optional_person(""), Ok(None));
        assert!(optional_person("a").is_err());
    }

    #[test]
    fn an_identity_is_shown_with_the_stable_names() {
        let shown = identity_to_wire(&identity("/test/coder", Kind::AiAgent));
        assert_eq!(
            (shown.kind.as_str(), shown.standing.as_str(), shown.cause.as_str()),
            ("ai_agent", "active", "")
        );
        assert_eq!(
            (identity_kind(&shown.kind), environment(&shown.environment)),
            (Ok(Kind::AiAgent), Ok(Environment::Test))
        );
    }

    #[test]
    fn a_wrong_word_is_answered_with_the_right_ones() {
        let error = identity_kind("robot").unwrap_err().to_string();
        assert_eq!(error, "\"robot\" is no kind, expected service, machine, pipeline, ai_agent, helper");
    }
}
