//! Asking a person at our own server, `avouch.requests.v1`.
//!
//! Never judges an answer: `crate::runs` does.

use avouch_domain::{RequestContent, RequestHash, RequestId, Whose};
use avouch_proto::convert::{asking_to_wire, request_hash, request_id};
use avouch_proto::requests_v1::requests_client::RequestsClient;
use avouch_proto::requests_v1::{AskRequest, AskResponse};

use super::watch::malformed;
use super::{CallError, Server};

/// What came of an ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    pub request: RequestId,
    /// Over the text that people are shown.
    pub hash: RequestHash,
    /// `None`: somebody's yes is missing.
    pub used: Option<Used>,
}

/// A yes that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    pub whose: Whose,
    /// Seconds since the oldest yes.
    pub age: u32,
}

/// Where people are asked.
#[tonic::async_trait]
pub trait Requests: Send + Sync + 'static {
    /// Uses a yes to exactly this, or lets a request wait for one. `key`: of this one call, which is made again with it.
    /// `token`: what the identity showed at a hook of this node; empty: it runs on this node.
    ///
    /// # Errors
    /// [`CallError`]; then a yes may have been used all the same.
    async fn ask(
        &self,
        content: &RequestContent,
        needs: Whose,
        key: [u8; 16],
        token: &str,
    ) -> Result<Asked, CallError>;
}

#[tonic::async_trait]
impl Requests for Server {
    async fn ask(
        &self,
        content: &RequestContent,
        needs: Whose,
        key: [u8; 16],
        token: &str,
    ) -> Result<Asked, CallError> {
        let request = &AskRequest { token: token.to_owned(), ..asking_to_wire(content, needs, key) };
        let ask = |line: super::Line| async move {
            Ok(RequestsClient::new(line.channel).ask(request.clone()).await?.into_inner())
        };
        asked(&self.call(ask).await?)
    }
}

fn asked(answer: &AskResponse) -> Result<Asked, CallError> {
    let whose = Whose { owner: answer.owner_yes, person: answer.person_yes };
    Ok(Asked {
        request: request_id(&answer.request_id).map_err(malformed)?,
        hash: request_hash(&answer.hash).map_err(malformed)?,
        used: answer.yes.then_some(Used { whose, age: answer.age }),
    })
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
        assert_eq!(asked(&good).unwrap().used, None);
        let used = Used { whose: Whose { owner: false, person: true }, age: 9 };
        assert_eq!(asked(&AskResponse { yes: true, ..good.clone() }).unwrap().used, Some(used));
        assert!(asked(&AskResponse { hash: vec![1; 31], ..good.clone() }).is_err());
        assert!(asked(&AskResponse { request_id: String::new(), ..good }).is_err());
    }
}
