//! Verbs on requests.
//!
//! Never believes a node agent more than it may say: it asks for identities that it may serve, and the text that is hashed
//! is made here.

use avouch_credential::request::{RequestTextError, text_of};
use avouch_domain::{
    Kind, Needs, Now, PersonId, Presented, Request, RequestContent, RequestHash, RequestId, RequestText,
    SpiffeId, Timestamp,
};
use avouch_engine::plan::requests::{self, AnswerError, AskError, Asked, Wanted};

use super::tasks::PresentedIdentity;
use super::{Services, ShowError, WriteError};

/// What a node agent asks for.
pub struct Asking {
    pub content: RequestContent,
    pub needs: Needs,
    /// What the identity presented at a gate of the asking node; empty: it runs there.
    pub presented: Presented,
    /// Of this one call: made again with the same key, it is the same call.
    pub key: [u8; 16],
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asking").field("content", &self.content).finish_non_exhaustive()
    }
}

/// Why nobody is asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskingError {
    #[error("{0} may not run on this node, and has presented nothing at a gate of it")]
    NotServed(SpiffeId),
    #[error(transparent)]
    Show(#[from] ShowError),
    #[error(transparent)]
    Text(#[from] RequestTextError),
    #[error(transparent)]
    Ask(#[from] AskError),
}

/// Twelve hexadecimal digits below a prefix: short enough to be typed.
pub(super) fn fresh_id(prefix: &str) -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{prefix}{}", random.get(..12).unwrap_or_default())
}

impl Services {
    /// Asks for the yes of a person on behalf of an identity that this agent may serve, or uses one that was said; uses a
    /// grant, where that is needed.
    ///
    /// # Errors
    /// [`WriteError`]; then nobody was asked and nothing was used.
    pub async fn ask_person(
        &self,
        now: Now,
        agent: &SpiffeId,
        asking: Asking,
    ) -> Result<Result<Asked, AskingError>, WriteError> {
        let Asking { content, needs, presented, key } = asking;
        let name = content.identity.clone();
        let known = match presented.is_empty() {
            true => !self.served_identities(now.wall, agent, std::slice::from_ref(&name)).is_empty(),
            false => match self.presented_identity(now.wall, agent, &content.resource, &presented) {
                // An AI agent asks within the task that it proved.
                Ok(PresentedIdentity { identity: Some((identity, _)), task }) => {
                    let fits = task.map_or(identity.kind != Kind::AiAgent, |task| task == content.task);
                    identity.spiffe_id == name && fits
                }
                Ok(PresentedIdentity { identity: None, .. }) => false,
                Err(e) => return Ok(Err(e.into())),
            },
        };
        if !known {
            return Ok(Err(AskingError::NotServed(name)));
        }
        // Who needs a grant alone shows nobody anything.
        let text = match needs.yes.nobodys() {
            true => RequestText { hash: RequestHash([0; 32]), text: "".into() },
            false => match text_of(&content) {
                Ok(text) => text,
                Err(e) => return Ok(Err(e.into())),
            },
        };
        let wanted = Wanted {
            id: RequestId::new(&fresh_id(RequestId::PREFIX)).map_err(|_| WriteError::Stopped)?,
            text,
            identity: name,
            node: agent.clone(),
            action: content.action.into(),
            resource: content.resource.into(),
            needs,
            key,
        };
        // Who asks again what waits already changes nothing, and does not stand in the way of those who write.
        let (plan, asked) = requests::ask(&self.registry(), now.wall, &wanted);
        if plan == avouch_domain::Plan::default() {
            return Ok(asked.map_err(AskingError::from));
        }
        let ask = move |registry: &_| requests::ask(registry, now.wall, &wanted);
        Ok(self.0.writer.write(ask).await?.map_err(AskingError::from))
    }

    /// Says yes or no to exactly this text.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was said.
    pub async fn answer_request(
        &self,
        now: Now,
        actor: &PersonId,
        id: RequestId,
        hash: RequestHash,
        yes: bool,
    ) -> Result<Result<Request, AnswerError>, WriteError> {
        let (actor, say) = (actor.clone(), if yes { requests::say_yes } else { requests::say_no });
        self.0.writer.write(move |registry| say(registry, now.wall, &actor, &id, hash)).await
    }

    /// Requests with where they stand, newest first; only those that wait, unless `all` are wanted.
    #[must_use]
    pub fn list_requests(&self, wall: Timestamp, all: bool, limit: usize) -> Vec<(Request, &'static str)> {
        let registry = self.registry();
        let standing = |request| (request, registry.request_standing(request, wall));
        let mut wanted: Vec<_> =
            registry.requests().map(standing).filter(|(_, standing)| all || *standing == "waiting").collect();
        wanted.sort_by(|(a, _), (b, _)| (b.asked_at, &b.id).cmp(&(a.asked_at, &a.id)));
        wanted.into_iter().take(limit).map(|(request, standing)| (request.clone(), standing)).collect()
    }

    /// A request and its text.
    ///
    /// # Errors
    /// [`WriteError::Store`] if the store can't be read.
    pub async fn find_request(&self, id: &RequestId) -> Result<Option<(Request, RequestText)>, WriteError> {
        let Some(request) = self.registry().request(id).cloned() else { return Ok(None) };
        let text = self.0.store.request_text(request.hash).await;
        let text = text.map_err(|e| WriteError::Store(e.to_string()))?;
        Ok(text.map(|text| (request, text)))
    }
}
