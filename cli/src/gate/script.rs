//! A decider for tests: allows reading, denies the rest, and keeps what it was asked and told.

use std::future::pending;

use parking_lot::Mutex;
use tokio::net::UnixStream;

use super::{Ask, Decided, Decider, Did, Due, GateEvent, Judge, Verdict};

#[derive(Debug, Default)]
pub struct Script {
    pub asked: Mutex<Vec<Ask>>,
    pub events: Mutex<Vec<GateEvent>>,
    pub did: Mutex<Vec<Did>>,
    /// What is allowed was agreed to, and wants a receipt under this number.
    pub due: Option<u64>,
    /// Nobody is let in.
    pub closed: bool,
    /// Never answers.
    pub hangs: bool,
}

impl Judge for Script {
    async fn decide(&self, ask: Ask) -> Decided {
        self.asked.lock().push(ask.clone());
        if self.hangs {
            pending::<()>().await;
        }
        if ask.resource.ends_with("/read") {
            let due = self.due.map(|record| Due { record, agreed: true });
            let verdict = if due.is_some() { Verdict::Agreed } else { Verdict::Allow };
            return Decided { verdict, due };
        }
        Verdict::Deny { reason: "forbidden".to_owned(), text: "a rule forbids it".to_owned() }.into()
    }

    fn did(&self, did: Did) {
        self.did.lock().push(did);
    }

    async fn note(&self, event: GateEvent) {
        self.events.lock().push(event);
    }
}

impl Decider for Script {
    async fn admit(&self, _connection: &UnixStream) -> Result<(), String> {
        if self.closed { Err("this process is none of the run".to_owned()) } else { Ok(()) }
    }

    async fn may(&self, resources: Vec<String>) -> Vec<bool> {
        if self.hangs {
            pending::<()>().await;
        }
        vec![true; resources.len()]
    }
}
