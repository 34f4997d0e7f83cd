//! The rules that this node decides by: announced on the watch stream, fetched beside it, verified, checked, and swapped
//! as a whole.
//!
//! Never holds rules that did not pass signature, digest and check, never goes back to a lower number within one life of
//! the server's store, and keeps what it holds when anything goes wrong.

mod judge;
mod kept;
mod task;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use avouch_domain::{Now, RulesDigest, TrustDomain};
use avouch_rules::Rules;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::upstream::RulesSource;

/// Rules in use.
pub struct Held {
    /// From 1.
    pub number: u64,
    pub digest: RulesDigest,
    pub rules: Rules,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rules {} {}", self.number, self.digest)
    }
}

/// The rules in use. Cheap to clone; all clones see the same.
#[derive(Clone, Debug, Default)]
pub struct Book(Arc<Page>);

#[derive(Debug, Default)]
struct Page {
    held: ArcSwapOption<Held>,
    /// Their number; 0: none.
    number: watch::Sender<u64>,
}

impl Book {
    /// The rules of this moment: what was begun with them may be ended with them. `None`: nothing may be decided.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Held>> {
        self.0.held.load_full()
    }

    /// Resolves when the rules here have this number or a higher one.
    pub async fn reached(&self, number: u64) {
        let _ = self.0.number.subscribe().wait_for(|here| *here >= number).await;
    }

    /// Their number, which changes with them; 0: none.
    #[must_use]
    pub fn number(&self) -> watch::Receiver<u64> {
        self.0.number.subscribe()
    }

    pub(crate) fn swap(&self, held: Option<Arc<Held>>) {
        let number = held.as_ref().map_or(0, |held| held.number);
        self.0.held.store(held);
        self.0.number.send_replace(number);
    }
}

/// What holding rules works with.
pub struct Parts<'a> {
    pub source: Arc<dyn RulesSource>,
    pub trust_domain: TrustDomain,
    /// The folder of the agent's data.
    pub data_dir: &'a Path,
    pub metrics: Metrics,
    pub clock: fn() -> Now,
    /// Seed of all jitter.
    pub seed: u64,
}

impl fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("trust_domain", &self.trust_domain).finish_non_exhaustive()
    }
}

/// Starts the task that holds rules until `stop`. What an earlier life left is taken up first, without the server.
#[must_use]
pub fn start(parts: Parts<'_>, stop: CancellationToken) -> Book {
    let book = Book::default();
    tokio::spawn(task::Task::new(parts, book.clone()).run(stop));
    book
}
