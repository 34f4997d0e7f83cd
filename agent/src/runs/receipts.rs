//! Receipts of gates: which decisions wait for one, and the record that is made of it.
//!
//! Takes one for a decision that was told to the very gate that gives it, once. What was sent is hashed here, as the text of a
//! request is, and never kept.

use std::collections::BTreeMap;

use avouch_attestors::process::ProcessKey;
use avouch_credential::request::text_of;
use avouch_domain::limits::REQUEST_NAME_MAX;
use avouch_domain::{CallResult, Code, NodeEvent, Note, RequestContent, SpiffeId};

use super::{Answer, OwnCode, Question};
use crate::limits::{ACTION_RECORDED_MAX, RECEIPTS_AWAITED_MAX};
use crate::records::Durability;

/// What a gate says it did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Did {
    /// Of the decision.
    pub record: u64,
    pub action: String,
    pub resource: String,
    /// All that was sent, as a person would be shown it; empty: no yes was used, or nothing was sent.
    pub sent: String,
    pub result: CallResult,
    /// Of HTTP; 0: none.
    pub status: u32,
}

/// Why there is no record of it.
#[derive(Debug, thiserror::Error)]
pub enum NoReceipt {
    #[error("record {0} waits for no receipt of this gate: expected that of an answer which wants one, once")]
    NotDue(u64),
    #[error("the receipt can't be recorded: {0}")]
    Record(String),
}

/// A decision whose receipt is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub identity: SpiffeId,
    pub task: Code,
    /// Who acts: the run, or the identity itself.
    pub actor: String,
    pub action: String,
    pub resource: String,
    pub request: String,
    pub grant: String,
}

impl Due {
    /// That of an answer; none if it wants none.
    pub(crate) fn of(
        answer: &Answer,
        (action, resource): (&str, &str),
        (identity, task, actor): (&SpiffeId, &Code, String),
    ) -> Option<Self> {
        answer.wants_receipt().then(|| Self {
            identity: identity.clone(),
            task: task.clone(),
            actor,
            action: action.to_owned(),
            resource: resource.to_owned(),
            request: answer.request.clone(),
            grant: answer.grant.clone(),
        })
    }

    /// The record.
    pub(crate) fn note(self, did: Did) -> Note {
        let Self { identity, task, actor, action, resource, request, grant } = self;
        let Did { record, result, status, sent, .. } = did;
        let (action, resource) = match result {
            CallResult::Failed => (action, resource),
            _ => (did.action, did.resource),
        };
        let plain =
            |text: &str, most| text.chars().filter(|c| !c.is_control()).take(most).collect::<String>();
        let mut detail = vec![
            ("of", record.to_string()),
            ("action", plain(&action, ACTION_RECORDED_MAX)),
            ("result", result.name().to_owned()),
        ];
        if status > 0 {
            detail.push(("status", status.to_string()));
        }
        let subject = plain(&resource, REQUEST_NAME_MAX);
        if !request.is_empty() && !sent.is_empty() && result != CallResult::Failed {
            let content = RequestContent { identity, task, action, resource, shown: sent };
            // What is no text of a request is not what was agreed to.
            detail.extend(text_of(&content).ok().map(|text| ("hash", text.hash.to_string())));
        }
        let used = [("request", request), ("grant", grant)];
        detail.extend(used.into_iter().filter(|(_, id)| !id.is_empty()));
        Note { event: NodeEvent::CallDone, actor, subject, detail }
    }
}

/// Decisions whose receipts are waited for, by the numbers of their records, each with the process that was told.
#[derive(Debug, Default)]
pub(crate) struct Awaited(BTreeMap<u64, (ProcessKey, Due)>);

impl Awaited {
    pub(crate) fn put(&mut self, record: u64, by: ProcessKey, due: Due) {
        self.0.insert(record, (by, due));
        if self.0.len() > RECEIPTS_AWAITED_MAX {
            self.0.pop_first();
        }
    }

    /// Takes one of this process.
    pub(crate) fn take(&mut self, record: u64, by: &ProcessKey) -> Option<Due> {
        self.0.get(&record).filter(|(told, _)| told == by)?;
        self.0.remove(&record).map(|(_, due)| due)
    }
}

impl super::Desk {
    /// Waits for the receipt of what a gate of the run was told, if there is to be one.
    pub(super) fn awaits(&self, question: &Question, answer: &Answer) {
        let what = (question.action.as_str(), question.resource.as_str());
        let due = Due::of(answer, what, (&self.identity, &self.task, self.instance.clone()));
        if let Some(due) = due.filter(|_| !question.own_code) {
            self.awaited.lock().put(answer.record, self.beginner.clone(), due);
        }
    }
}

impl OwnCode {
    /// Records what a gate of the run did.
    ///
    /// # Errors
    /// [`NoReceipt`]; then nothing is recorded.
    pub async fn did(&self, did: Did) -> Result<(), NoReceipt> {
        let (desk, record) = (&self.desk, did.record);
        let due = desk.awaited.lock().take(record, &desk.beginner).ok_or(NoReceipt::NotDue(record))?;
        let written = self.runs.0.parts.scribe.write(due.note(did), Durability::Soon).await;
        written.map(drop).map_err(NoReceipt::Record)
    }
}
