//! Wakes the agents that a commit concerns, and tells each what changed for it.
//!
//! Never queues: per agent one earlier registry is remembered, and what it is told is the difference to the
//! present. A slow agent thus costs one reference, and later changes merge into one update. One that is slower than
//! the ring of registries is long costs not even that: it is told to begin anew.

mod confirm;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use avouch_domain::limits::AWAY_MAX;
use avouch_domain::{Bundle, Entry, EntryId, LogPosition, Revision, SpiffeId, Tick, Timestamp, TrustDomain};
use avouch_engine::Registry;
use avouch_engine::entitle::{
    Concerned, Delta, KnownEntry, concerned_between, delta, digest, visible_bundles,
};
use avouch_engine::history::{History, KEPT, Resync, Standing, Start, resume};
use confirm::Waiter;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::datastore::Datastore;
use crate::writer::Writer;

/// The entries of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateKind {
    /// Everything: `entries` in full, `unchanged` are those the agent holds as they are.
    Snapshot { entries: Vec<Entry>, unchanged: Vec<EntryId> },
    /// What is new or changed, and what is gone (the agent may not hold all of it).
    Delta { upserts: Vec<Entry>, removed: Vec<EntryId> },
}

/// What became of a bundle that the agent may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BundleChange {
    Changed(Arc<Bundle>),
    Removed(TrustDomain),
}

/// Whether the agent is welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeChange {
    Active,
    Banned,
    Evicted,
}

/// One thing to tell an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentUpdate {
    pub kind: UpdateKind,
    /// Why the delta that was asked for became a snapshot.
    pub resync: Option<Resync>,
    pub bundles: Vec<BundleChange>,
    /// Only when it changed, and in the first update.
    pub node: Option<NodeChange>,
    pub position: LogPosition,
}

/// What an agent has still to be told.
enum Pending {
    Nothing,
    /// Something has concerned it since it was told this registry.
    Since(Box<Registry>),
    /// What it was told last is forgotten, and why.
    Lost(&'static str),
}

/// One stream of one agent.
type Key = (SpiffeId, u64);

struct Follower {
    since: Tick,
    pending: Pending,
    wake: Arc<Notify>,
}

struct State {
    present: Registry,
    history: History,
    followers: BTreeMap<Key, Follower>,
    /// The streams with a [`Pending::Since`], by the revision of its registry.
    behind: BTreeSet<(Revision, Key)>,
    next: u64,
    acknowledged: BTreeMap<SpiffeId, Revision>,
    /// What agents have applied of their streams. Who was served a bundle has applied nothing.
    applied: BTreeMap<SpiffeId, Revision>,
    /// Those who wait for acknowledgements, by a number of their own.
    waiters: BTreeMap<u64, Waiter>,
    /// When agents last wanted to hear that this server is there.
    renewed: BTreeMap<SpiffeId, Tick>,
    /// The revision that agents must have heard of before they are told that this server goes away; `None`: it does not.
    leaves: Option<Revision>,
    stopped: bool,
}

struct Inner {
    own: TrustDomain,
    store: Datastore,
    clock: Clock,
    started: Tick,
    state: Mutex<State>,
    /// An agent has acknowledged something.
    acknowledgement: Notify,
    /// The last one that waited for acknowledgements waits no more.
    unwaited: Notify,
    /// The present has moved.
    advanced: Notify,
}

impl State {
    /// Lets go of registries that only streams hold which were told nothing for longer than the ring is long.
    fn forget_the_slow(&mut self) {
        while let Some((_, key)) = self.behind.first() {
            let Some(follower) = self.followers.get_mut(key) else {
                self.behind.pop_first();
                continue;
            };
            if let Pending::Since(before) = &follower.pending
                && matches!(self.history.standing(&before.position()), Standing::Known(_))
            {
                return;
            }
            follower.pending = Pending::Lost("the agent reads too slowly");
            self.behind.pop_first();
        }
    }

    /// True if the agent has a stream open.
    fn follows(&self, agent: &SpiffeId) -> bool {
        self.follows_since(agent).is_some()
    }

    /// When the newest stream of an agent was opened.
    fn follows_since(&self, agent: &SpiffeId) -> Option<Tick> {
        let streams = self.followers.range((agent.clone(), 0)..=(agent.clone(), u64::MAX));
        streams.map(|(_, follower)| follower.since).max()
    }

    /// What this stream has still to be told, which it then has been.
    fn take(&mut self, key: &Key) -> Pending {
        let Some(follower) = self.followers.get_mut(key) else { return Pending::Nothing };
        let pending = std::mem::replace(&mut follower.pending, Pending::Nothing);
        if let Pending::Since(before) = &pending {
            self.behind.remove(&(before.position().revision, key.clone()));
        }
        pending
    }
}

/// Handle to the feed. Cheap to clone.
#[derive(Clone)]
pub struct Feed(Arc<Inner>);

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Feed").field("followers", &self.followers()).finish_non_exhaustive()
    }
}

impl Feed {
    /// Starts the task that follows the writer.
    #[must_use]
    pub fn start(
        writer: &Writer,
        store: Datastore,
        own: TrustDomain,
        clock: Clock,
        stop: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let mut positions = writer.subscribe();
        let present = (*writer.registry()).clone();
        let state = State {
            history: History::new(present.clone(), KEPT),
            present,
            followers: BTreeMap::new(),
            behind: BTreeSet::new(),
            next: 0,
            acknowledged: BTreeMap::new(),
            applied: BTreeMap::new(),
            waiters: BTreeMap::new(),
            renewed: BTreeMap::new(),
            leaves: None,
            stopped: false,
        };
        let feed = Self(Arc::new(Inner {
            own,
            store,
            clock,
            started: clock().mono,
            state: Mutex::new(state),
            acknowledgement: Notify::new(),
            unwaited: Notify::new(),
            advanced: Notify::new(),
        }));
        let (task, writer) = (feed.clone(), writer.clone());
        let handle = tokio::spawn(async move {
            task.advance(&writer.registry());
            loop {
                tokio::select! {
                    () = stop.cancelled() => break,
                    changed = positions.changed() => match changed {
                        Ok(()) => task.advance(&writer.registry()),
                        Err(_) => break,
                    },
                }
            }
            task.end();
        });
        (feed, handle)
    }

    /// Moves the present forward and wakes whom it concerns. Only the feed's own task calls this.
    fn advance(&self, registry: &Registry) {
        let before = self.0.state.lock().present.clone();
        if before.position() == registry.position() {
            return;
        }
        let concerned = if before.position().epoch == registry.position().epoch {
            concerned_between(&before, registry, &self.0.own)
        } else {
            Concerned::Everyone
        };
        let mut guard = self.0.state.lock();
        let state = &mut *guard;
        state.present = registry.clone();
        state.history.push(registry.clone());
        let behind = &mut state.behind;
        let mut wake = |(key, follower): (&Key, &mut Follower)| {
            if matches!(follower.pending, Pending::Nothing) {
                follower.pending = Pending::Since(Box::new(before.clone()));
                behind.insert((before.position().revision, key.clone()));
            }
            follower.wake.notify_one();
        };
        match concerned {
            Concerned::Nobody => {}
            Concerned::Everyone => state.followers.iter_mut().for_each(wake),
            Concerned::Agents(agents) => {
                for agent in agents {
                    let range = (agent.clone(), 0)..=(agent, u64::MAX);
                    state.followers.range_mut(range).for_each(&mut wake);
                }
            }
        }
        state.forget_the_slow();
        for agent in before.changed_nodes(registry).filter(|id| registry.node(id).is_none()) {
            state.acknowledged.remove(agent);
            state.applied.remove(agent);
            state.renewed.remove(agent);
        }
        drop(guard);
        self.0.advanced.notify_waiters();
    }

    /// Tells these agents everything anew: something has changed for them that no row says.
    pub fn begin_anew(&self, agents: &BTreeSet<SpiffeId>, why: &'static str) {
        let mut state = self.0.state.lock();
        let keys = state.followers.keys().filter(|(agent, _)| agents.contains(agent));
        for key in keys.cloned().collect::<Vec<_>>() {
            // Takes it out of those that are behind, too.
            state.take(&key);
            if let Some(follower) = state.followers.get_mut(&key) {
                follower.pending = Pending::Lost(why);
                follower.wake.notify_one();
            }
        }
    }

    fn end(&self) {
        let mut state = self.0.state.lock();
        state.stopped = true;
        state.followers.values().for_each(|f| f.wake.notify_one());
    }

    /// This server goes away on purpose: from now on agents that have heard of everything up to the revision of the present may
    /// decide alone for longer. Waits until the feed has come so far.
    pub async fn leave(&self, present: impl FnOnce() -> Revision) {
        // Set before it is looked up: a stop of which nobody is told any more counts the longer time.
        self.0.state.lock().leaves = Some(Revision(u64::MAX));
        let revision = present();
        self.0.state.lock().leaves = Some(revision);
        loop {
            // Asked for before the look, so that a step in between is heard.
            let advanced = self.0.advanced.notified();
            if self.0.state.lock().present.position().revision >= revision {
                return;
            }
            advanced.await;
        }
    }

    /// Streams that are open.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.0.state.lock().followers.len()
    }

    /// An agent has applied everything up to `revision` (or was served the own bundle at it).
    pub fn acknowledge(&self, agent: &SpiffeId, revision: Revision) {
        {
            let mut state = self.0.state.lock();
            if state.present.node(agent).is_none() {
                return;
            }
            let held = state.acknowledged.entry(agent.clone()).or_default();
            *held = (*held).max(revision);
        }
        self.0.acknowledgement.notify_one();
    }

    /// Waits until some agent acknowledges something. For one waiter.
    pub async fn acknowledgement(&self) {
        self.0.acknowledgement.notified().await;
    }

    /// True if every agent that may still be alive has applied `revision`.
    #[must_use]
    pub fn known_everywhere(&self, wall: Timestamp, revision: Revision) -> bool {
        let state = self.0.state.lock();
        state.present.nodes().filter(|node| node.is_alive(wall)).all(|node| {
            state.acknowledged.get(&node.id).is_some_and(|acknowledged| *acknowledged >= revision)
        })
    }

    /// Opens a stream for an agent that stands at `position` (`None` = it wants a snapshot) and says what it
    /// holds.
    #[must_use]
    pub fn follow(
        &self,
        agent: &SpiffeId,
        position: Option<LogPosition>,
        known: Vec<KnownEntry>,
    ) -> AgentFeed {
        let wake = Arc::new(Notify::new());
        let id = {
            let mut state = self.0.state.lock();
            state.next += 1;
            let id = state.next;
            let follower =
                Follower { since: (self.0.clock)().mono, pending: Pending::Nothing, wake: wake.clone() };
            state.followers.insert((agent.clone(), id), follower);
            id
        };
        AgentFeed {
            feed: self.clone(),
            agent: agent.clone(),
            id,
            wake,
            start: Some((position, known)),
            bundles: BTreeMap::new(),
            node: None,
            told: LogPosition::default(),
            owed: Revision::default(),
        }
    }
}

/// One agent's stream. Dropping it closes it.
pub struct AgentFeed {
    feed: Feed,
    agent: SpiffeId,
    id: u64,
    wake: Arc<Notify>,
    start: Option<(Option<LogPosition>, Vec<KnownEntry>)>,
    bundles: BTreeMap<TrustDomain, Arc<Bundle>>,
    node: Option<NodeChange>,
    told: LogPosition,
    /// What the agent must have applied to have heard of everything that concerns it.
    owed: Revision,
}

impl fmt::Debug for AgentFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentFeed")
            .field("agent", &self.agent)
            .field("told", &self.told)
            .finish_non_exhaustive()
    }
}

impl Drop for AgentFeed {
    fn drop(&mut self) {
        let key = self.key();
        let mut state = self.feed.0.state.lock();
        state.take(&key);
        if let Some(follower) = state.followers.remove(&key) {
            // What a server before this one may have given counts on, also if the answer of this one never came.
            if let Some(renewed) = state.renewed.get_mut(&key.0) {
                *renewed = (*renewed).max(follower.since + AWAY_MAX);
            }
        }
    }
}

/// What lies between what an agent was told last and the present.
struct Span {
    before: Registry,
    present: Registry,
}

enum Taken {
    Stopped,
    Nothing,
    Since(Box<Span>),
    Lost { present: Box<Registry>, why: &'static str },
}

impl AgentFeed {
    fn key(&self) -> Key {
        (self.agent.clone(), self.id)
    }

    /// The first call answers at once; later ones wait until something concerns this agent. `None`: the server
    /// stops. Cancel safe.
    pub async fn next(&mut self, clock: Clock) -> Option<AgentUpdate> {
        if let Some((position, known)) = self.start.clone() {
            return self.begin(clock, position, &known).await;
        }
        loop {
            match self.take() {
                Taken::Stopped => return None,
                Taken::Nothing => self.wake.notified().await,
                Taken::Since(span) => {
                    let Span { before, present } = *span;
                    let wall = clock().wall;
                    let change = delta(&before, &present, &self.agent, wall);
                    // A drill changes nothing, and is told: what the agent acknowledges then is that it hears.
                    let drilled = before.tried_identities(&present).next().is_some();
                    if let Some(update) = self.tell(&present, wall, change, drilled) {
                        return Some(update);
                    }
                }
                Taken::Lost { present, why } => return Some(self.tell_all(&present, clock().wall, why)),
            }
        }
    }

    /// Everything up to here was told or does not concern this agent.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        if self.start.is_some() {
            return self.told;
        }
        let state = self.feed.0.state.lock();
        match state.followers.get(&self.key()) {
            Some(Follower { pending: Pending::Nothing, .. }) => state.present.position(),
            _ => self.told,
        }
    }

    /// True if this server goes away, and the agent has applied everything that concerns it and was written before.
    #[must_use]
    pub fn may_be_left(&self) -> bool {
        let state = self.feed.0.state.lock();
        let quiet = |follower: &Follower| matches!(follower.pending, Pending::Nothing);
        self.start.is_none()
            && state.leaves.is_some_and(|revision| state.present.position().revision >= revision)
            && state.followers.get(&self.key()).is_some_and(quiet)
            && state.applied.get(&self.agent).is_some_and(|held| *held >= self.owed)
    }

    /// The agent has applied everything up to `revision`.
    pub fn acknowledge(&self, revision: Revision) {
        let revision = revision.min(self.position().revision);
        self.feed.applied(&self.agent, revision);
        self.feed.acknowledge(&self.agent, revision);
    }

    async fn begin(
        &mut self,
        clock: Clock,
        position: Option<LogPosition>,
        known: &[KnownEntry],
    ) -> Option<AgentUpdate> {
        let old = match &position {
            Some(p) => matches!(self.feed.0.state.lock().history.standing(p), Standing::Old),
            None => false,
        };
        let verified = match position {
            Some(p) if old => self.feed.0.store.changes_since(p, 1).await.is_ok(),
            _ => false,
        };
        let (present, standing) = {
            let mut state = self.feed.0.state.lock();
            if state.stopped {
                return None;
            }
            state.take(&self.key());
            (state.present.clone(), position.as_ref().map(|p| state.history.standing(p)))
        };
        let wall = clock().wall;
        let (kind, resync) = match resume(&present, &self.agent, wall, standing.as_ref(), known, verified) {
            Start::Delta(Delta { upserts, removed }) => (UpdateKind::Delta { upserts, removed }, None),
            Start::Digest { digest, resync } => {
                let kind = UpdateKind::Snapshot { entries: digest.entries, unchanged: digest.unchanged };
                (kind, resync)
            }
        };
        self.start = None;
        self.told = present.position();
        self.owed = self.told.revision;
        self.node = Some(node_state(&present, &self.agent));
        self.bundles = visible_bundles(&present, &self.agent, &self.feed.0.own, wall);
        let bundles = self.bundles.values().cloned().map(BundleChange::Changed).collect();
        Some(AgentUpdate { kind, resync, bundles, node: self.node, position: self.told })
    }

    fn take(&self) -> Taken {
        let mut state = self.feed.0.state.lock();
        if state.stopped {
            return Taken::Stopped;
        }
        match state.take(&self.key()) {
            Pending::Since(before) => {
                Taken::Since(Box::new(Span { before: *before, present: state.present.clone() }))
            }
            Pending::Lost(why) => Taken::Lost { present: Box::new(state.present.clone()), why },
            Pending::Nothing => Taken::Nothing,
        }
    }

    /// Everything, for a stream whose last registry is forgotten.
    fn tell_all(&mut self, present: &Registry, wall: Timestamp, why: &'static str) -> AgentUpdate {
        let all = digest(present, &self.agent, wall, &[]);
        let kind = UpdateKind::Snapshot { entries: all.entries, unchanged: all.unchanged };
        let (bundles, node) = self.standing(present, wall);
        self.owed = self.told.revision;
        let resync = Some(Resync::Behind(why));
        AgentUpdate { kind, resync, bundles, node, position: self.told }
    }

    /// `anyway`: also if nothing has changed for the agent.
    fn tell(
        &mut self,
        present: &Registry,
        wall: Timestamp,
        change: Delta,
        anyway: bool,
    ) -> Option<AgentUpdate> {
        let (bundles, node) = self.standing(present, wall);
        if change.is_empty() && bundles.is_empty() && node.is_none() && !anyway {
            return None;
        }
        self.owed = self.told.revision;
        let kind = UpdateKind::Delta { upserts: change.upserts, removed: change.removed };
        Some(AgentUpdate { kind, resync: None, bundles, node, position: self.told })
    }

    /// What else there is to tell with a registry: changed bundles, and a changed standing of the node.
    fn standing(&mut self, present: &Registry, wall: Timestamp) -> (Vec<BundleChange>, Option<NodeChange>) {
        self.told = present.position();
        let node = node_state(present, &self.agent);
        let changed = (self.node != Some(node)).then_some(node);
        self.node = Some(node);
        (self.bundle_changes(present, wall), changed)
    }

    fn bundle_changes(&mut self, present: &Registry, wall: Timestamp) -> Vec<BundleChange> {
        let now = visible_bundles(present, &self.agent, &self.feed.0.own, wall);
        let mut changes: Vec<_> = now
            .iter()
            .filter(|(domain, bundle)| self.bundles.get(*domain) != Some(*bundle))
            .map(|(_, bundle)| BundleChange::Changed(bundle.clone()))
            .collect();
        let gone = self.bundles.keys().filter(|domain| !now.contains_key(*domain));
        changes.extend(gone.cloned().map(BundleChange::Removed));
        self.bundles = now;
        changes
    }
}

fn node_state(registry: &Registry, agent: &SpiffeId) -> NodeChange {
    match registry.node(agent) {
        None => NodeChange::Evicted,
        Some(node) if node.is_banned() => NodeChange::Banned,
        Some(_) => NodeChange::Active,
    }
}
