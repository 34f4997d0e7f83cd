//! Task tokens: for a process of a live run, for one resource of its task.
//!
//! Each costs a call of the task, whether it is given or not, and is recorded before it is handed out. Never for a run that
//! has ended meanwhile, and never kept here.

use std::collections::BTreeSet;
use std::sync::Arc;

use avouch_attestors::ProcessGone;
use avouch_domain::{Code, NodeEvent, Note, SpiffeId};
use parking_lot::Mutex;

use super::{Found, Runs};
use crate::peer::Caller;
use crate::records::Durability;
use crate::upstream::{CallError, SignedToken, TokenAsk};

/// A run's calls, and what tokens of it say.
#[derive(Debug)]
pub(super) struct Ticket {
    identity: SpiffeId,
    task: Code,
    instance: String,
    /// IDs of resources; empty: any.
    tools: BTreeSet<String>,
    calls: Mutex<u32>,
}

impl Ticket {
    pub(super) fn new(
        identity: SpiffeId,
        task: Code,
        instance: String,
        tools: BTreeSet<String>,
        calls: u32,
    ) -> Self {
        Self { identity, task, instance, tools, calls: Mutex::new(calls) }
    }

    pub(super) fn calls_left(&self) -> u32 {
        *self.calls.lock()
    }

    /// Takes a call; gives how many there were.
    pub(super) fn take(&self) -> u32 {
        let mut calls = self.calls.lock();
        let had = *calls;
        *calls = had.saturating_sub(1);
        had
    }

    /// The call that was taken when there were `had` was none.
    pub(super) fn give_back(&self, had: u32) {
        if had > 0 {
            *self.calls.lock() += 1;
        }
    }

    fn has(&self, resource: &str) -> bool {
        self.tools.is_empty() || self.tools.contains(resource)
    }

    fn note(&self, resource: &str, outcome: &str, more: Vec<(&'static str, String)>) -> Note {
        let mut detail = vec![("outcome", outcome.to_owned()), ("task", self.task.to_string())];
        detail.extend(more);
        Note {
            event: NodeEvent::TaskToken,
            actor: self.instance.clone(),
            subject: resource.to_owned(),
            detail,
        }
    }
}

/// Why no token is given.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error(
        "this process belongs to no run, so there is no task: start it with `avouch run IDENTITY -- CMD`"
    )]
    NoRun,
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
    #[error(transparent)]
    Gone(#[from] ProcessGone),
}

impl Runs {
    /// A token for one resource, for a process of a run.
    ///
    /// # Errors
    /// [`TokenError`]; then no token was given.
    pub async fn task_token(&self, caller: &Arc<Caller>, resource: &str) -> Result<SignedToken, TokenError> {
        let ticket = self.ticket(caller)?;
        let parts = &self.0.parts;
        let known = parts.rules.current().is_some_and(|held| held.rules.catalogue().get(resource).is_some());
        if !known {
            return Err(TokenError::Unknown(super::shown(resource)));
        }
        let had = ticket.take();
        if had == 0 {
            return Err(TokenError::NoCalls);
        }
        if !ticket.has(resource) {
            let note = ticket.note(resource, "deny", vec![("reason", "tools".to_owned())]);
            // A refusal that can't be recorded still is one.
            let _ = parts.scribe.write(note, Durability::Soon).await;
            return Err(TokenError::Tools(resource.to_owned()));
        }
        let ask = TokenAsk {
            identity: ticket.identity.clone(),
            resource: resource.to_owned(),
            task: ticket.task.clone(),
            instance: ticket.instance.clone(),
        };
        let signed = parts.tasks.sign(&ask).await.map_err(|e| {
            ticket.give_back(had);
            TokenError::Server(e)
        })?;
        let more = vec![("token", signed.id.clone()), ("until", signed.expires_at.secs().to_string())];
        let note = ticket.note(resource, "allow", more);
        parts.scribe.write(note, Durability::Soon).await.map_err(TokenError::Record)?;
        // Whoever asked must still be there, and its run.
        if !Arc::ptr_eq(&ticket, &self.ticket(caller)?) {
            return Err(TokenError::NoRun);
        }
        Ok(signed)
    }

    /// That of the caller's run, which is live.
    fn ticket(&self, caller: &Arc<Caller>) -> Result<Arc<Ticket>, TokenError> {
        let process = caller.process()?;
        let Found::In(root, _) = self.found(caller, &process)? else { return Err(TokenError::NoRun) };
        self.0.table.lock().tickets.get(&root).cloned().ok_or(TokenError::NoRun)
    }
}
