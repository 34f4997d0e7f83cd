//! What a gate says afterwards of a call that it sent: the receipt of a decision that wants one.
//!
//! Made from what was sent, never copied from what was asked. Never holds up an answer.

use avouch_domain::CallResult;
use avouch_proto::run_v1 as wire;
use avouch_rules::Params;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Verdict;
use super::limits::{RECEIPT_TIME_MAX, RECEIPTS_END_MAX, RECEIPTS_WAITING_MAX};

/// A receipt that is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Number of the decision's record.
    pub record: u64,
    /// A person's yes was used: what is sent is told as well, to be hashed as what was shown.
    pub agreed: bool,
}

/// A verdict, and whether a receipt is to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    pub verdict: Verdict,
    pub due: Option<Due>,
}

impl From<Verdict> for Decided {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, due: None }
    }
}

/// A receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Did {
    /// Number of the decision's record.
    pub record: u64,
    /// As it stands in what was sent; empty if nothing was.
    pub action: String,
    pub resource: String,
    pub params: Params,
    /// All that was sent, in the form of [`super::Ask::shown`]; empty: no yes was used, or nothing was sent.
    pub sent: String,
    pub result: CallResult,
    /// Of HTTP; 0: none.
    pub status: u16,
}

impl Did {
    /// That of a call which was not sent after all.
    #[must_use]
    pub fn nothing(due: Due) -> Self {
        Self {
            record: due.record,
            action: String::new(),
            resource: String::new(),
            params: Params::new(),
            sent: String::new(),
            result: CallResult::Failed,
            status: 0,
        }
    }

    /// As the node agent is told it; the parameters are beside it.
    pub(crate) fn wire(self) -> (wire::DidRequest, Params) {
        let Self { record, action, resource, params, sent, result, status } = self;
        let (result, status) = (result.name().to_owned(), u32::from(status));
        (wire::DidRequest { record, action, resource, content: sent, result, status }, params)
    }
}

/// Takes receipts and has them told one after the other, beside everything else. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Teller(Sender<Did>);

/// Tells what a [`Teller`] has taken.
#[derive(Debug)]
pub(crate) struct Telling(JoinHandle<()>);

impl Teller {
    /// `tell` is given one receipt at a time, and a bounded time for it.
    pub(crate) fn new<F>(tell: impl Fn(Did) -> F + Send + Sync + 'static) -> (Self, Telling)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (teller, receipts) = mpsc::channel(RECEIPTS_WAITING_MAX);
        (Self(teller), Telling(tokio::spawn(told(receipts, tell))))
    }

    /// Takes a receipt. One that finds no room is lost: who looks for it later finds none.
    pub(crate) fn take(&self, did: Did) {
        let record = did.record;
        if self.0.try_send(did).is_err() {
            tracing::debug!(record, "A receipt was lost: too many wait to be told");
        }
    }
}

impl Telling {
    /// Waits a moment for what was taken, when nobody has the teller any more.
    pub(crate) async fn end(mut self) {
        if timeout(RECEIPTS_END_MAX, &mut self.0).await.is_err() {
            self.0.abort();
        }
    }
}

async fn told<F: Future<Output = ()>>(mut receipts: Receiver<Did>, tell: impl Fn(Did) -> F) {
    while let Some(did) = receipts.recv().await {
        let _ = timeout(RECEIPT_TIME_MAX, tell(did)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    fn did(record: u64) -> Did {
        Did::nothing(Due { record, agreed: false })
    }

    #[tokio::test]
    async fn what_was_taken_is_told_before_the_end() {
        let told = Arc::<Mutex<Vec<u64>>>::default();
        let into = told.clone();
        let (teller, telling) = Teller::new(move |did: Did| {
            let into = into.clone();
            async move { into.lock().push(did.record) }
        });
        (1..4).for_each(|record| teller.take(did(record)));
        drop(teller);
        telling.end().await;
        assert_eq!(*told.lock(), [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_agent_that_hangs_holds_up_nobody_and_loses_receipts() {
        let (teller, telling) = Teller::new(|_| std::future::pending());
        let many = u64::try_from(RECEIPTS_WAITING_MAX).unwrap() + 10;
        (0..many).for_each(|record| teller.take(did(record)));
        drop(teller);
        telling.end().await;
    }
}
