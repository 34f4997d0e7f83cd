//! Requests on the wire.

use avouch_domain::{
    Case, Code, Emergency, Grant, Needs, Request, RequestContent, RequestHash, RequestId, SpiffeId,
    Timestamp, Whose,
};

use super::ConvertError;
use crate::governance_v1 as wire;
use crate::requests_v1::{AskRequest, AskResponse};

/// # Errors
/// [`ConvertError::Unreadable`].
pub fn request_id(text: &str) -> Result<RequestId, ConvertError> {
    RequestId::new(text).map_err(ConvertError::unreadable)
}

/// # Errors
/// [`ConvertError::Unreadable`].
pub fn request_hash(bytes: &[u8]) -> Result<RequestHash, ConvertError> {
    let wrong = |_| ConvertError::Unreadable(format!("a hash has {} bytes, expected 32", bytes.len()));
    bytes.try_into().map(RequestHash).map_err(wrong)
}

/// As people are shown it, with the word for where it stands.
#[must_use]
pub fn request_to_wire(request: &Request, standing: &str) -> wire::Request {
    let by = |said: &Option<avouch_domain::Said>| {
        said.as_ref().map(|said| said.by.to_string()).unwrap_or_default()
    };
    wire::Request {
        id: request.id.to_string(),
        hash: request.hash.0.to_vec(),
        spiffe_id: request.identity.to_string(),
        node: request.node.to_string(),
        action: request.action.to_string(),
        resource: request.resource.to_string(),
        needs_owner: request.needs.owner,
        needs_person: request.needs.person,
        owner_yes_by: by(&request.owner_yes),
        person_yes_by: by(&request.person_yes),
        no_by: by(&request.no),
        standing: standing.to_owned(),
        asked_at: request.asked_at.secs(),
        until: request.until.secs(),
    }
}

/// What a node agent asks, what it takes, and the key of the call.
///
/// # Errors
/// [`ConvertError`].
pub fn asking_from_wire(wire: AskRequest) -> Result<(RequestContent, Needs, [u8; 16]), ConvertError> {
    let key = wire.key.as_slice().try_into();
    let key = key.map_err(|_| {
        ConvertError::Unreadable(format!("the key has {} bytes, expected 16", wire.key.len()))
    })?;
    let content = RequestContent {
        identity: SpiffeId::parse(&wire.spiffe_id).map_err(ConvertError::unreadable)?,
        task: Code::new(&wire.task).map_err(ConvertError::not_allowed)?,
        action: wire.action,
        resource: wire.resource,
        shown: wire.content,
    };
    let yes = Whose { owner: wire.needs_owner, person: wire.needs_person };
    Ok((content, Needs { yes, grant: wire.needs_grant }, key))
}

/// What is asked, as a node agent sends it.
#[must_use]
pub fn asking_to_wire(content: &RequestContent, needs: Needs, key: [u8; 16]) -> AskRequest {
    AskRequest {
        spiffe_id: content.identity.to_string(),
        task: content.task.to_string(),
        action: content.action.clone(),
        resource: content.resource.clone(),
        content: content.shown.clone(),
        needs_owner: needs.yes.owner,
        needs_person: needs.yes.person,
        key: key.to_vec(),
        needs_grant: needs.grant,
        ..AskRequest::default()
    }
}

/// What came of an ask. `yes`: a yes was used by it.
#[must_use]
pub fn asked_to_wire(request: &Request, yes: bool, wall: Timestamp) -> AskResponse {
    let age = request.said_at().filter(|_| yes).map_or(0, |at| wall.since(at).as_secs());
    AskResponse {
        request_id: request.id.to_string(),
        hash: request.hash.0.to_vec(),
        yes,
        owner_yes: yes && request.owner_yes.is_some(),
        person_yes: yes && request.person_yes.is_some(),
        age: u32::try_from(age).unwrap_or(u32::MAX),
        ..AskResponse::default()
    }
}

/// An answer that tells of the grant as well that was used. `grant`: as it was before.
#[must_use]
pub fn with_grant(answer: AskResponse, grant: &Grant, wall: Timestamp) -> AskResponse {
    AskResponse {
        grant_id: grant.id.to_string(),
        grant_uses_left: grant.uses_left(),
        grant_seconds_left: u32::try_from(grant.ends_at.since(wall).as_secs()).unwrap_or(u32::MAX),
        ..answer
    }
}

/// What something is given for; empty: `None`.
///
/// # Errors
/// [`ConvertError::NotAllowed`].
pub fn optional_case(text: &str) -> Result<Option<Case>, ConvertError> {
    if text.is_empty() { Ok(None) } else { Case::new(text).map(Some).map_err(ConvertError::not_allowed) }
}

/// As people are shown it, with the word for where it stands.
#[must_use]
pub fn grant_to_wire(grant: &Grant, standing: &str) -> wire::Grant {
    wire::Grant {
        id: grant.id.to_string(),
        spiffe_id: grant.identity.to_string(),
        action: grant.action.to_string(),
        resource: grant.resource.to_string(),
        given_by: grant.given.by.to_string(),
        given_at: grant.given.at.secs(),
        ends_at: grant.ends_at.secs(),
        max_uses: grant.max_uses,
        uses: grant.uses,
        ended_by: grant.ended.as_ref().map(|said| said.by.to_string()).unwrap_or_default(),
        standing: standing.to_owned(),
        case: grant.case.as_ref().map(Case::to_string).unwrap_or_default(),
    }
}

/// As people are shown it, with the word for where it stands.
#[must_use]
pub fn emergency_to_wire(emergency: &Emergency, standing: &str) -> wire::Emergency {
    let by = |said: &Option<avouch_domain::Said>| {
        said.as_ref().map(|said| said.by.to_string()).unwrap_or_default()
    };
    wire::Emergency {
        id: emergency.id.to_string(),
        spiffe_id: emergency.identity.to_string(),
        action: emergency.action.to_string(),
        resource: emergency.resource.to_string(),
        why: emergency.why.to_string(),
        asked_by: emergency.asked.by.to_string(),
        asked_at: emergency.asked.at.secs(),
        agreed_by: by(&emergency.agreed),
        seconds: emergency.lasts.as_secs(),
        ends_at: emergency.ends_at.secs(),
        ended_by: by(&emergency.ended),
        standing: standing.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::Said;
    use avouch_domain::fixtures::{emergency, grant, id, person_id, request};

    use super::*;

    #[test]
    fn what_is_asked_is_read_back_as_it_was_sent() {
        let content = RequestContent {
            identity: id("/test/coder"),
            task: Code::new("fix-4711").unwrap(),
            action: "repo.merge".to_owned(),
            resource: "git/pay".to_owned(),
            shown: "+new".to_owned(),
        };
        let needs = Needs { yes: Whose { owner: false, person: true }, grant: true };
        let wire = asking_to_wire(&content, needs, [3; 16]);
        assert_eq!(asking_from_wire(wire.clone()), Ok((content, needs, [3; 16])));
        let short = AskRequest { key: vec![3; 15], ..wire.clone() };
        assert_eq!(asking_from_wire(short).unwrap_err().to_string(), "the key has 15 bytes, expected 16");
        assert!(asking_from_wire(AskRequest { task: "Fix it".to_owned(), ..wire }).is_err());
    }

    #[test]
    fn a_yes_is_told_only_to_the_call_that_uses_it() {
        let said = Some(Said { by: person_id("per_a"), at: Timestamp::from_secs(5) });
        let request = Request { person_yes: said, ..request("req_a", "/test/coder") };
        let wall = Timestamp::from_secs(65);
        let used = asked_to_wire(&request, true, wall);
        assert_eq!((used.yes, used.owner_yes, used.person_yes, used.age), (true, false, true, 60));
        let waits = asked_to_wire(&request, false, wall);
        assert_eq!((waits.yes, waits.owner_yes, waits.person_yes, waits.age), (false, false, false, 0));
    }

    #[test]
    fn a_grant_is_told_with_what_was_left_of_it() {
        let grant = Grant { max_uses: 5, uses: 2, ..grant("gr_a", "/test/coder") };
        let told = with_grant(AskResponse::default(), &grant, Timestamp::from_secs(3_000));
        assert_eq!((told.grant_uses_left, told.grant_seconds_left), (3, 600));
        let shown = grant_to_wire(&grant, "open");
        assert_eq!((shown.given_by.as_str(), shown.ended_by.as_str(), shown.ends_at), ("per_s", "", 3_600));
    }

    #[test]
    fn an_emergency_is_shown_with_both_people_or_with_nobody_who_agreed() {
        let waits = emergency_to_wire(&emergency("em_a", "/test/coder"), "waits");
        assert_eq!((waits.asked_by.as_str(), waits.agreed_by.as_str(), waits.ends_at), ("per_s", "", 600));
        let agreed = Some(Said { by: person_id("per_a"), at: Timestamp::from_secs(60) });
        let open = Emergency { agreed, ..emergency("em_a", "/test/coder") };
        assert_eq!(emergency_to_wire(&open, "open").agreed_by, "per_a");
    }

    #[test]
    fn nobody_is_an_empty_text() {
        let shown = request_to_wire(&request("req_a", "/test/coder"), "waiting");
        assert_eq!((shown.person_yes_by.as_str(), shown.standing.as_str()), ("", "waiting"));
        assert!(request_hash(&[1; 31]).is_err());
    }
}
