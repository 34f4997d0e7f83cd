//! Subscriptions of callers: one in the cache machine for all streams of equal selectors.
//!
//! Who joins a subscription that is there does not wait for the task. One that nobody uses is kept for a moment:
//! most callers ask, take one answer and leave, and the next one asks the same.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use avouch_domain::SelectorSet;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::limits::IDLE_SUBSCRIPTIONS_MAX;
use crate::supply::{Feed, Want, WorkloadUpdate};

/// The newest state of a selector set; `None` before the first.
pub(super) type Update = Option<Arc<WorkloadUpdate>>;
/// What is followed.
pub(super) type Key = (SelectorSet, Want);

/// Why the task should look for subscriptions that nobody uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sweep {
    /// One became idle: look after a while.
    Later,
    /// There are too many.
    Now,
}

struct Line {
    updates: watch::Receiver<Update>,
    /// Was idle at the last sweep, and nobody joined since.
    doubted: AtomicBool,
}

/// All subscriptions of the agent's callers.
pub(super) struct Feeds {
    lines: Mutex<HashMap<Key, Arc<Line>>>,
    /// A sweep has been asked for.
    asked: AtomicBool,
    /// Unbounded because a drop can't wait; `asked` keeps it at one message.
    sweeps: mpsc::UnboundedSender<Sweep>,
}

impl Feeds {
    pub fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Sweep>) {
        let (sweeps, asked) = mpsc::unbounded_channel();
        (Arc::new(Self { lines: Mutex::default(), asked: AtomicBool::new(false), sweeps }), asked)
    }

    /// Joins a subscription that is there.
    pub fn join(self: &Arc<Self>, key: &Key) -> Option<ShellFeed> {
        let line = self.lines.lock().get(key)?.clone();
        line.doubted.store(false, Ordering::Relaxed);
        Some(self.feed(line))
    }

    /// Adds one that the cache machine will be told of.
    pub fn add(self: &Arc<Self>, key: Key, updates: watch::Receiver<Update>) -> ShellFeed {
        let line = Arc::new(Line { updates, doubted: AtomicBool::new(false) });
        self.lines.lock().insert(key, line.clone());
        self.feed(line)
    }

    fn feed(self: &Arc<Self>, line: Arc<Line>) -> ShellFeed {
        let updates = line.updates.clone();
        ShellFeed { updates, last: None, begun: false, line: Some(line), feeds: self.clone() }
    }

    /// Takes out what has been idle since the last sweep, or whatever is idle now. True if some may have to go later.
    pub fn sweep(&self, sweep: Sweep) -> (Vec<Key>, bool) {
        self.asked.store(false, Ordering::SeqCst);
        let mut ended = Vec::new();
        let mut left = false;
        self.lines.lock().retain(|key, line| {
            // Only this table hands lines out, and it is locked: a line that only it holds stays so.
            let idle = Arc::strong_count(line) == 1;
            if idle && (line.doubted.swap(true, Ordering::Relaxed) || sweep == Sweep::Now) {
                ended.push(key.clone());
                return false;
            }
            left |= idle;
            true
        });
        (ended, left)
    }

    /// Nobody joins any more: what is there grows old when the task has ended.
    pub fn close(&self) {
        self.lines.lock().clear();
    }

    fn one_left(&self, line: &Weak<Line>) {
        if line.strong_count() != 1 {
            return;
        }
        let crowded = self.lines.lock().len() > IDLE_SUBSCRIPTIONS_MAX;
        if crowded || !self.asked.swap(true, Ordering::SeqCst) {
            let _ = self.sweeps.send(if crowded { Sweep::Now } else { Sweep::Later });
        }
    }
}

/// One caller's part in a subscription.
pub(super) struct ShellFeed {
    updates: watch::Receiver<Update>,
    last: Update,
    begun: bool,
    line: Option<Arc<Line>>,
    feeds: Arc<Feeds>,
}

#[tonic::async_trait]
impl Feed for ShellFeed {
    async fn next(&mut self) -> Option<Arc<WorkloadUpdate>> {
        loop {
            if self.begun {
                self.updates.changed().await.ok()?;
            }
            self.begun = true;
            let update = self.updates.borrow_and_update().clone();
            let same = match (&update, &self.last) {
                (Some(new), Some(old)) => Arc::ptr_eq(new, old),
                (new, _) => new.is_none(),
            };
            if !same {
                self.last.clone_from(&update);
                return update;
            }
        }
    }
}

impl Drop for ShellFeed {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            let watched = Arc::downgrade(&line);
            drop(line);
            self.feeds.one_left(&watched);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use avouch_domain::fixtures::set;

    fn key(text: &str) -> Key {
        (set(&[text]), Want::X509)
    }

    #[test]
    fn a_subscription_outlives_its_last_caller_by_one_sweep_and_is_then_ended() {
        let (feeds, mut asked) = Feeds::new();
        let (_updates, line) = watch::channel(None);
        let one = feeds.add(key("u:1"), line);
        let two = feeds.join(&key("u:1")).expect("it is there");
        drop(one);
        assert!(asked.try_recv().is_err(), "somebody still follows");
        drop(two);
        assert_eq!(asked.try_recv(), Ok(Sweep::Later));
        assert_eq!(feeds.sweep(Sweep::Later), (vec![], true));
        assert_eq!(feeds.sweep(Sweep::Later), (vec![key("u:1")], false));
        assert!(feeds.join(&key("u:1")).is_none());
    }

    #[test]
    fn who_joins_between_two_sweeps_keeps_the_subscription() {
        let (feeds, _asked) = Feeds::new();
        let (_updates, line) = watch::channel(None);
        drop(feeds.add(key("u:1"), line));
        assert_eq!(feeds.sweep(Sweep::Later), (vec![], true));
        drop(feeds.join(&key("u:1")));
        assert_eq!(feeds.sweep(Sweep::Later), (vec![], true), "it was used");
    }

    #[test]
    fn idle_subscriptions_beyond_the_limit_are_not_kept() {
        let (feeds, mut asked) = Feeds::new();
        for n in 0..=IDLE_SUBSCRIPTIONS_MAX {
            drop(feeds.add(key(&format!("u:{n}")), watch::channel(None).1));
        }
        assert_eq!(asked.try_recv(), Ok(Sweep::Later));
        assert_eq!(asked.try_recv(), Ok(Sweep::Now));
        assert_eq!(feeds.sweep(Sweep::Now).0.len(), IDLE_SUBSCRIPTIONS_MAX + 1);
    }
}
