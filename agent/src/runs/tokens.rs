//! Task tokens: for a process of a live run, for one resource of its task.
//!
//! Each costs a call of the task, whether it is given or not, and is recorded before it is handed out. Never for a run that
//! has ended meanwhile, and never kept here.

use std::sync::Arc;

use avouch_domain::{NodeEvent, Note};

use super::desk::Desk;
use super::{NoRun, Runs};
use crate::peer::Caller;
use crate::records::Durability;
use crate::upstream::{CallError, SignedToken, TokenAsk};

/// Why no token is given.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(transparent)]
    NoRun(#[from] NoRun),
    #[error(
        "the rules in force know no resource \"{0}\", so no gate would take a token for it: `avouch rules show` has what \
         there is"
    )]
    Unknown(String),
    #[error(
        "the task was opened for other resources than \"{0}\": `avouch run IDENTITY --tools {0} -- CMD` opens one for it"
    )]
    Tools(String),
    #[error("the task has no calls left: begin another with `avouch run`")]
    NoCalls,
    #[error("the server signs no token now: {0}")]
    Server(CallError),
    #[error("the token can't be recorded, so it is not given: {0}")]
    Record(String),
}

impl Runs {
    /// A token for one resource, for a process of a run.
    ///
    /// # Errors
    /// [`TokenError`]; then no token was given.
    pub async fn task_token(&self, caller: &Arc<Caller>, resource: &str) -> Result<SignedToken, TokenError> {
        let desk = self.desk(caller)?;
        let parts = &self.0.parts;
        let known = parts.rules.current().is_some_and(|held| held.rules.catalogue().get(resource).is_some());
        if !known {
            return Err(TokenError::Unknown(super::shown(resource)));
        }
        let had = desk.take();
        if had == 0 {
            return Err(TokenError::NoCalls);
        }
        if !desk.has(resource) {
            let note = note(&desk, resource, "deny", vec![("reason", "tools".to_owned())]);
            // A refusal that can't be recorded still is one.
            let _ = parts.scribe.write(note, Durability::Soon).await;
            return Err(TokenError::Tools(resource.to_owned()));
        }
        let ask = TokenAsk {
            identity: desk.identity.clone(),
            resource: resource.to_owned(),
            task: desk.task.clone(),
            instance: desk.instance.clone(),
        };
        let signed = parts.tasks.sign(&ask).await.map_err(|e| {
            desk.give_back(had);
            TokenError::Server(e)
        })?;
        let more = vec![("token", signed.id.clone()), ("until", signed.expires_at.secs().to_string())];
        let note = note(&desk, resource, "allow", more);
        parts.scribe.write(note, Durability::Soon).await.map_err(TokenError::Record)?;
        self.still_at(caller, &desk)?;
        Ok(signed)
    }
}

fn note(desk: &Desk, resource: &str, outcome: &str, more: Vec<(&'static str, String)>) -> Note {
    let mut detail = vec![("outcome", outcome.to_owned()), ("task", desk.task.to_string())];
    detail.extend(more);
    desk.note(NodeEvent::TaskToken, resource.to_owned(), detail)
}
