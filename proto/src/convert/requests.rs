//! Requests on the wire.

use avouch_domain::{Code, Request, RequestContent, RequestHash, RequestId, SpiffeId, Timestamp, Whose};

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

/// What a node agent asks, whose yes it takes, and the key of the call.
///
/// # Errors
/// [`ConvertError`].
pub fn asking_from_wire(wire: AskRequest) -> Result<(RequestContent, Whose, [u8; 16]), ConvertError> {
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
    Ok((content, Whose { owner: wire.needs_owner, person: wire.needs_person }, key))
}

/// What is asked, as a node agent sends it.
#[must_use]
pub fn asking_to_wire(content: &RequestContent, needs: Whose, key: [u8; 16]) -> AskRequest {
    AskRequest {
        spiffe_id: content.identity.to_string(),
        task: content.task.to_string(),
        action: content.action.clone(),
        resource: content.resource.clone(),
        content: content.shown.clone(),
        needs_owner: needs.owner,
        needs_person: needs.person,
        key: key.to_vec(),
        token: String::new(),
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
    }
}

#[cfg(test)]
mod tests {
    use avouch_domain::Said;
    use avouch_domain::fixtures::{id, person_id, request};

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
        let needs = Whose { owner: false, person: true };
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
    fn nobody_is_an_empty_text() {
        let shown = request_to_wire(&request("req_a", "/test/coder"), "waiting");
        assert_eq!((shown.person_yes_by.as_str(), shown.standing.as_str()), ("", "waiting"));
        assert!(request_hash(&[1; 31]).is_err());
    }
}
