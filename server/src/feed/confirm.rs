//! Who has applied a revision: waits for the agents that it concerns, all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::limits::AWAY_MAX;
use avouch_domain::{Revision, SpiffeId, Tick};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Feed;

/// Somebody who waits.
pub(super) struct Waiter {
    revision: Revision,
    missing: BTreeSet<SpiffeId>,
    answered: BTreeMap<SpiffeId, Tick>,
    done: Arc<Notify>,
}

impl Waiter {
    /// An agent has applied everything up to `revision`.
    pub(super) fn hears(&mut self, agent: &SpiffeId, revision: Revision, at: Tick) {
        if revision >= self.revision && self.missing.remove(agent) {
            self.answered.insert(agent.clone(), at);
            if self.missing.is_empty() {
                self.done.notify_one();
            }
        }
    }
}

/// Takes its waiter away, also if nobody waits any more.
struct Waiting<'a> {
    feed: &'a Feed,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let left = {
            let mut state = self.feed.0.state.lock();
            state.waiters.remove(&self.number);
            state.waiters.len()
        };
        if left == 0 {
            self.feed.0.unwaited.notify_waiters();
        }
    }
}

impl Feed {
    /// Waits until those of these agents that follow have applied `revision`, at most so long. Gives when each of them
    /// did.
    pub async fn confirmed(
        &self,
        agents: &BTreeSet<SpiffeId>,
        revision: Revision,
        most: Duration,
    ) -> BTreeMap<SpiffeId, Tick> {
        let done = Arc::new(Notify::new());
        let now = (self.0.clock)().mono;
        let waiting = {
            let mut state = self.0.state.lock();
            let (mut missing, mut answered) = (BTreeSet::new(), BTreeMap::new());
            for agent in agents {
                if state.applied.get(agent).is_some_and(|held| *held >= revision) {
                    answered.insert(agent.clone(), now);
                } else if state.follows(agent) {
                    missing.insert(agent.clone());
                }
            }
            if missing.is_empty() {
                return answered;
            }
            state.next += 1;
            let number = state.next;
            state.waiters.insert(number, Waiter { revision, missing, answered, done: done.clone() });
            Waiting { feed: self, number }
        };
        let _ = timeout(most, done.notified()).await;
        let mut state = self.0.state.lock();
        state
            .waiters
            .get_mut(&waiting.number)
            .map(|waiter| std::mem::take(&mut waiter.answered))
            .unwrap_or_default()
    }

    /// Resolves as soon as nobody waits for agents to apply something.
    pub async fn unwaited(&self) {
        loop {
            // Asked for before the look, so that an end in between is heard.
            let notified = self.0.unwaited.notified();
            if self.0.state.lock().waiters.is_empty() {
                return;
            }
            notified.await;
        }
    }

    /// An agent has applied everything of its stream up to `revision`.
    pub(super) fn applied(&self, agent: &SpiffeId, revision: Revision) {
        let mut state = self.0.state.lock();
        if state.present.node(agent).is_none() {
            return;
        }
        let held = state.applied.entry(agent.clone()).or_default();
        *held = (*held).max(revision);
        if !state.waiters.is_empty() {
            let at = (self.0.clock)().mono;
            state.waiters.values_mut().for_each(|waiter| waiter.hears(agent, revision, at));
        }
    }

    /// An agent wants to hear that this server is there: from now on it decides by what it knows for a while.
    pub fn renews(&self, agent: &SpiffeId) {
        let now = (self.0.clock)().mono;
        let mut state = self.0.state.lock();
        if state.present.node(agent).is_some() {
            state.renewed.insert(agent.clone(), now);
        }
    }

    /// True if the agent has a stream open here.
    #[must_use]
    pub fn has(&self, agent: &SpiffeId) -> bool {
        self.0.state.lock().follows(agent)
    }

    /// From when on what an agent decides by itself counts, at the latest: when it last wanted to hear that, as far as it is known,
    /// and not before what a server before this one may have given it. One that does not follow may follow another.
    #[must_use]
    pub fn renewed(&self, agent: &SpiffeId) -> Option<Tick> {
        let state = self.0.state.lock();
        // Until it followed, another server may have gone away and given it more.
        let followed = state.follows_since(agent).map(|since| since + AWAY_MAX);
        let known = state.renewed.get(agent).copied().max(followed)?;
        // Once it may have been told so, it goes on for that much longer.
        let longer = if state.leaves.is_some() { AWAY_MAX } else { Duration::ZERO };
        Some(known.max(self.0.started + AWAY_MAX) + longer)
    }
}
