//! Which identities are used here: the first use in a day is recorded, an SVID handed out or a decision asked for. A day is begun
//! anew when the agent starts.
//!
//! Never in the way of an answer: what can't be recorded now is recorded when it is used again. Nothing is recorded for a server
//! that takes no records: nobody would ever read it.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use avouch_domain::{NodeEvent, Note, SpiffeId, Timestamp};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::limits::{USED_NAMES_MAX, USES_WAITING};
use crate::records::Durability;
use crate::runs::Scribe;

/// Seconds of a day.
const DAY: i64 = 86_400;

/// Cheap to clone; the last one ends the task that records.
#[derive(Clone)]
pub struct Used {
    today: Arc<Mutex<Today>>,
    queue: mpsc::Sender<SpiffeId>,
    scribe: Arc<dyn Scribe>,
}

#[derive(Default)]
struct Today {
    /// Since 1970.
    day: i64,
    /// What is recorded, or waits to be.
    names: HashSet<SpiffeId>,
}

impl fmt::Debug for Used {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Used").field("names", &self.today.lock().names.len()).finish_non_exhaustive()
    }
}

impl Used {
    /// Starts the task that records.
    #[must_use]
    pub fn start(scribe: Arc<dyn Scribe>) -> Self {
        let (queue, waiting) = mpsc::channel(USES_WAITING);
        let today = Arc::<Mutex<Today>>::default();
        tokio::spawn(record(waiting, today.clone(), scribe.clone()));
        Self { today, queue, scribe }
    }

    /// These are used.
    pub fn note<'a>(&self, names: impl IntoIterator<Item = &'a SpiffeId>, wall: Timestamp) {
        if !self.scribe.wanted() {
            return;
        }
        let day = wall.secs().div_euclid(DAY);
        let mut today = self.today.lock();
        if today.day != day {
            *today = Today { day, names: HashSet::new() };
        }
        for name in names {
            let known = today.names.contains(name) || today.names.len() >= USED_NAMES_MAX;
            if !known && self.queue.try_send(name.clone()).is_ok() {
                today.names.insert(name.clone());
            }
        }
    }
}

async fn record(mut waiting: mpsc::Receiver<SpiffeId>, today: Arc<Mutex<Today>>, scribe: Arc<dyn Scribe>) {
    while let Some(name) = waiting.recv().await {
        let (event, actor, subject) = (NodeEvent::IdentityUsed, "agent".to_owned(), name.to_string());
        let note = Note { event, actor, subject, detail: Vec::new() };
        if scribe.write(note, Durability::Soon).await.is_err() {
            today.lock().names.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use avouch_domain::fixtures::id;

    use super::*;

    #[derive(Default)]
    struct Book {
        names: Mutex<Vec<String>>,
        full: AtomicBool,
    }

    #[tonic::async_trait]
    impl Scribe for Book {
        async fn write(&self, note: Note, _: Durability) -> Result<u64, String> {
            if self.full.load(Ordering::SeqCst) {
                return Err("full".to_owned());
            }
            assert_eq!(note.event, NodeEvent::IdentityUsed);
            self.names.lock().push(note.subject);
            Ok(1)
        }

        fn veiled(&self, _: &str, _: &[&str]) -> Result<String, String> {
            Err("nothing is asked".to_owned())
        }
    }

    async fn settled() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_is_used_again_and_again_is_recorded_once_a_day() {
        let book = Arc::new(Book::default());
        let used = Used::start(book.clone());
        for hour in 0..48 {
            used.note([&id("/web")], Timestamp::from_secs(hour * 3600));
            settled().await;
        }
        assert_eq!(book.names.lock().len(), 2, "of two days");
    }

    #[tokio::test]
    async fn what_could_not_be_recorded_is_recorded_the_next_time() {
        let book = Arc::new(Book::default());
        let used = Used::start(book.clone());
        book.full.store(true, Ordering::SeqCst);
        used.note([&id("/web"), &id("/db")], Timestamp(0));
        settled().await;
        book.full.store(false, Ordering::SeqCst);
        used.note([&id("/web")], Timestamp(0));
        settled().await;
        assert_eq!(*book.names.lock(), [id("/web").to_string()]);
    }
}
