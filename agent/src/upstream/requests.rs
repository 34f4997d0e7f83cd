//! Asking a person at our own server, and using grants, `avouch.requests.v1`.
//!
//! Never judges an answer: `crate::runs` does.

use avouch_domain::{GrantId, Needs, Presented, RequestContent, RequestHash, RequestId, Whose};
use avouch_proto::convert::{asking_to_wire, request_hash, request_id};
use avouch_proto::requests_v1::requests_client::RequestsClient;
use avouch_proto::requests_v1::{AskRequest, AskResponse};

use super::watch::malformed;
use super::{CallError, Server};

/// What came of an ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Somebody's yes is missing.
    Waits(Asking),
    /// A grant is needed, and there is none.
    NoGrant,
    /// What was needed is used.
    Used { yes: Option<(Asking, UsedYes)>, grant: Option<UsedGrant> },
}

/// A request at the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    pub request: RequestId,
    /// Over the text that people are shown.
    pub hash: RequestHash,
}

/// A yes that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsedYes {
    pub whose: Whose,
    /// Seconds since the oldest yes.
    pub age: u32,
}

/// A grant that was used, as it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedGrant {
    pub id: GrantId,
    pub uses_left: u32,
    pub seconds_left: u32,
}

/// Where people are asked.
#[tonic::async_trait]
pub trait Requests: Send + Sync + 'static {
    /// Uses a yes to exactly this and a grant, as far as they are needed, or lets a request wait for the yes. `key`: of this
    /// one call, which is made again with it. `presented`: what the identity presented at a gate of this node; empty: it runs
    /// on this node.
    ///
    /// # Errors
    /// [`CallError`]; then what was needed may have been used all the same.
    async fn ask(
        &self,
        content: &RequestContent,
        needs: Needs,
        key: [u8; 16],
        presented: &Presented,
    ) -> Result<Asked, CallError>;
}

#[tonic::async_trait]
impl Requests for Server {
    async fn ask(
        &self,
        content: &RequestContent,
        needs: Needs,
        key: [u8; 16],
        presented: &Presented,
    ) -> Result<Asked, CallError> {
        let request = &AskRequest {
            token: presented.token.to_string(),
            certificates: presented.chain.clone(),
            ..asking_to_wire(content, needs, key)
        };
        let ask = |line: super::Line| async move {
            Ok(RequestsClient::new(line.channel).ask(request.clone()).await?.into_inner())
        };
        asked(&self.call(ask).await?)
    }
}

fn asked(answer: &AskResponse) -> Result<Asked, CallError> {
    if answer.no_grant {
        return Ok(Asked::NoGrant);
    }
    let asking = || {
        let request = request_id(&answer.request_id).map_err(malformed)?;
        Ok::<_, CallError>(Asking { request, hash: request_hash(&answer.hash).map_err(malformed)? })
    };
    let grant = match answer.grant_id.as_str() {
        "" => None,
        id => {
            let (uses_left, seconds_left) = (answer.grant_uses_left, answer.grant_seconds_left);
            Some(UsedGrant { id: GrantId::new(id).map_err(malformed)?, uses_left, seconds_left })
        }
    };
    // A grant is used beside a yes, and alone where nobody's is needed.
    if !answer.yes && (grant.is_none() || !answer.request_id.is_empty()) {
        return Ok(Asked::Waits(asking()?));
    }
    let whose = Whose { owner: answer.owner_yes, person: answer.person_yes };
    let yes = if answer.yes { Some((asking()?, UsedYes { whose, age: answer.age })) } else { None };
    Ok(Asked::Used { yes, grant })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_request_or_hash_is_malformed_and_a_yes_is_only_what_says_so() {
        let good = AskResponse {
            request_id: "req_a".to_owned(),
            hash: vec![1; 32],
            person_yes: true,
            age: 9,
            ..Default::default()
        };
        let waits = Asking { request: RequestId::new("req_a").unwrap(), hash: RequestHash([1; 32]) };
        assert_eq!(asked(&good).unwrap(), Asked::Waits(waits.clone()));
        let yes = UsedYes { whose: Whose { owner: false, person: true }, age: 9 };
        let used = Asked::Used { yes: Some((waits, yes)), grant: None };
        assert_eq!(asked(&AskResponse { yes: true, ..good.clone() }).unwrap(), used);
        assert!(asked(&AskResponse { hash: vec![1; 31], ..good.clone() }).is_err());
        assert!(asked(&AskResponse { request_id: String::new(), ..good }).is_err());
        assert!(asked(&AskResponse::default()).is_err(), "nothing is not a grant");
    }

    #[test]
    fn a_grant_is_used_alone_or_beside_a_yes_and_never_by_a_request_that_waits() {
        let alone = AskResponse {
            grant_id: "gr_a".to_owned(),
            grant_uses_left: 2,
            grant_seconds_left: 60,
            ..Default::default()
        };
        let grant = UsedGrant { id: GrantId::new("gr_a").unwrap(), uses_left: 2, seconds_left: 60 };
        assert_eq!(asked(&alone).unwrap(), Asked::Used { yes: None, grant: Some(grant) });
        let waits = AskResponse { request_id: "req_a".to_owned(), hash: vec![1; 32], ..alone.clone() };
        assert!(matches!(asked(&waits), Ok(Asked::Waits(_))));
        assert_eq!(asked(&AskResponse { no_grant: true, ..alone.clone() }), Ok(Asked::NoGrant));
        assert!(asked(&AskResponse { grant_id: "a grant".to_owned(), ..alone }).is_err());
    }
}
