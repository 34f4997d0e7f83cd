//! How an agent follows its server: an open stream with a snapshot and deltas, an honest resume, and polling where
//! the server knows no stream.
//!
//! Never goes back to an older position by itself (INV-6), never applies half a snapshot, and never resumes from a
//! position whose history the server does not share.

#[cfg(feature = "faults")]
pub mod phase;
#[cfg(test)]
mod props;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::{Bundle, Entry, EntryId, LogPosition, Now, Revision, Tick, Timestamp, TrustDomain};

pub use self::types::{
    AgentRefusal, Effect, Failure, Frame, Input, Known, NodeStanding, Polled, Settings, StreamId, Version,
};
use crate::backoff::{Backoff, Jitter, Policy};
use crate::faults::{Fault, planted};
use crate::machine::Machine;

/// Pauses between attempts to open the stream: a server that is back has its agents again within a second, and they
/// come spread over half of it.
const RECONNECT: Policy =
    Policy { first: Duration::from_millis(500), most: Duration::from_secs(1), growth_percent: 200 };
/// Pauses between attempts to fetch bundles that were announced.
const REFETCH: Policy =
    Policy { first: Duration::from_millis(500), most: Duration::from_secs(30), growth_percent: 200 };
/// A polling agent asks this often whether its server has learnt to push.
const TRY_FOLLOW_EVERY: Duration = Duration::from_secs(600);
/// Polls that fail are spaced out up to this, or up to 48 intervals if that is less (as SPIRE's agent does).
const POLL_MOST: Duration = Duration::from_secs(480);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Follow,
    SyncEntries,
    GetEntries,
}

#[derive(Debug, Default)]
struct Gathering {
    entries: Vec<Entry>,
    unchanged: Vec<EntryId>,
}

#[derive(Debug)]
struct Stream {
    id: StreamId,
    welcomed: bool,
    /// The server said that it can't continue: the next snapshot may stand anywhere in this epoch or a newer one.
    resynced: bool,
    gathering: Option<Gathering>,
    /// What this stream began with is applied: from here on it tells everything that concerns this agent.
    current: bool,
    /// Applied, but some bundle announced before it has not come yet.
    unacknowledged: Option<Revision>,
}

/// See the module.
#[derive(Debug)]
pub struct Sync {
    settings: Settings,
    jitter: Jitter,
    now: Now,
    running: bool,
    mode: Mode,
    synced: bool,
    entries_seen: bool,
    position: Option<LogPosition>,
    known: Known,
    stream: Option<Stream>,
    fleet: Option<NonZeroU32>,
    next_stream: StreamId,
    reconnect: Backoff,
    open_at: Option<Tick>,
    polling: bool,
    poll_failures: u32,
    poll_at: Option<Tick>,
    have: BTreeMap<TrustDomain, Vec<u8>>,
    wanted: BTreeMap<TrustDomain, Vec<u8>>,
    fetching: Option<BTreeMap<TrustDomain, Vec<u8>>>,
    refetch: Backoff,
    fetch_at: Option<Tick>,
    effects: VecDeque<Effect>,
}

impl Sync {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let jitter = Jitter::new(settings.seed);
        Self {
            settings,
            jitter,
            now: Now::default(),
            running: false,
            mode: Mode::Follow,
            synced: false,
            entries_seen: false,
            position: None,
            known: Known::new(),
            stream: None,
            fleet: None,
            next_stream: 0,
            reconnect: Backoff::new(RECONNECT),
            open_at: None,
            polling: false,
            poll_failures: 0,
            poll_at: None,
            have: BTreeMap::new(),
            wanted: BTreeMap::new(),
            fetching: None,
            refetch: Backoff::new(REFETCH),
            fetch_at: None,
            effects: VecDeque::new(),
        }
    }

    /// The last position applied, if the server pushes.
    #[must_use]
    pub fn position(&self) -> Option<LogPosition> {
        self.position
    }

    /// The last position applied with all bundles announced before it: a later life may resume there.
    #[must_use]
    pub fn settled_position(&self) -> Option<LogPosition> {
        self.position.filter(|_| self.wanted.is_empty() && self.fetching.is_none())
    }

    /// True while the server answers: the stream is open, or the last poll went well.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        let polled = self.mode != Mode::Follow && self.entries_seen && self.poll_failures == 0;
        self.is_pushed() || polled
    }

    /// True while a stream is open and welcomed.
    #[must_use]
    pub fn is_pushed(&self) -> bool {
        self.stream.as_ref().is_some_and(|s| s.welcomed)
    }

    /// Agents that follow the same server, this one counted; `None`: nobody tells.
    #[must_use]
    pub fn fleet(&self) -> Option<NonZeroU32> {
        self.fleet
    }

    /// True once the first full sync is applied.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    // --- the stream ---

    fn open(&mut self) {
        self.close();
        self.next_stream += 1;
        self.open_at = None;
        let id = self.next_stream;
        self.stream = Some(Stream {
            id,
            welcomed: false,
            resynced: false,
            gathering: None,
            current: false,
            unacknowledged: None,
        });
        let (position, known) = (self.position, self.known.clone());
        self.effects.push_back(Effect::OpenFollow { stream: id, position, known });
    }

    fn close(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.effects.push_back(Effect::CloseFollow { stream: stream.id });
        }
    }

    /// Starts over because what is held here and what the server says do not fit.
    fn start_over(&mut self, why: &str) {
        self.effects.push_back(Effect::Alarm(why.to_owned()));
        self.close();
        let pause = self.reconnect.failed(&mut self.jitter);
        self.open_at = Some(self.now.mono + pause);
    }

    fn frame(&mut self, frame: Frame) {
        match frame {
            Frame::Welcome { server_time, agents } => {
                self.fleet = agents;
                self.welcome(server_time);
            }
            Frame::Snapshot { entries, unchanged, position, last } => {
                self.snapshot(entries, unchanged, position, last);
            }
            Frame::Delta { upserts, removed, position } => self.delta(upserts, removed, position),
            Frame::BundleNotice { domain, digest, removed } => self.notice(domain, digest, removed),
            Frame::Node(NodeStanding::Active) => {}
            Frame::Node(NodeStanding::Banned) => self.refused(AgentRefusal::Banned),
            Frame::Node(NodeStanding::Evicted) => self.refused(AgentRefusal::NotAttested),
            Frame::Heartbeat { server_time, position, agents } => {
                self.fleet = agents;
                self.effects.push_back(Effect::ServerTime(server_time));
                if let Some(position) = position {
                    self.heartbeat(position);
                }
            }
            // Who has not applied everything may lack the very stop that it asks about.
            Frame::Renewed(number) if self.stream.as_ref().is_some_and(|stream| stream.current) => {
                self.effects.push_back(Effect::Renewed(number));
            }
            Frame::Away(longer) if self.stream.as_ref().is_some_and(|stream| stream.current) => {
                self.effects.push_back(Effect::Away(longer));
            }
            Frame::Renewed(_) | Frame::Away(_) => {}
            Frame::Resync { reason, history_differs } => {
                if let Some(stream) = &mut self.stream {
                    stream.resynced = true;
                    stream.gathering = None;
                    stream.current = false;
                }
                self.effects.push_back(if history_differs {
                    Effect::Alarm(format!("the server starts over: {reason}"))
                } else {
                    Effect::Resync(reason)
                });
            }
        }
    }

    fn welcome(&mut self, server_time: Timestamp) {
        if let Some(stream) = &mut self.stream {
            stream.welcomed = true;
        }
        self.mode = Mode::Follow;
        self.poll_at = None;
        self.reconnect.succeeded();
        self.effects.push_back(Effect::ServerTime(server_time));
        self.effects.push_back(Effect::Connected);
    }

    fn snapshot(&mut self, entries: Vec<Entry>, unchanged: Vec<EntryId>, position: LogPosition, last: bool) {
        let Some(stream) = &mut self.stream else { return };
        let resynced = stream.resynced;
        let gathering = stream.gathering.get_or_insert_default();
        gathering.entries.extend(entries);
        gathering.unchanged.extend(unchanged);
        if !last {
            return;
        }
        let whole = stream.gathering.take().unwrap_or_default();
        stream.resynced = false;
        if let Some(held) = self.position {
            if position.epoch < held.epoch {
                self.start_over("the server shows an older life of its store: refused");
                return;
            }
            if position.epoch == held.epoch && position.revision < held.revision {
                if !resynced {
                    self.start_over("the server is behind what it has shown before: refused");
                    return;
                }
                self.effects.push_back(Effect::Alarm("the server has lost changes it had shown".into()));
            }
        }
        if whole.unchanged.iter().any(|id| !self.known.contains_key(id)) {
            self.known.clear();
            self.position = None;
            self.start_over("the server takes for known what is not known here");
            return;
        }
        self.replace(whole.entries, &whole.unchanged);
        self.advance(position);
    }

    fn delta(&mut self, upserts: Vec<Entry>, removed: Vec<EntryId>, position: LogPosition) {
        let Some(held) = self.position.filter(|held| held.epoch == position.epoch) else {
            self.start_over("a change came that does not continue what is held here");
            return;
        };
        if position.revision < held.revision {
            return;
        }
        let removed = if planted(Fault::DropWithdrawal) { Vec::new() } else { removed };
        self.apply(upserts, removed);
        self.advance(position);
    }

    /// A heartbeat says up to where everything that concerns this agent has been told. Before the stream's first
    /// snapshot or delta is applied nothing has, whatever the number says.
    fn heartbeat(&mut self, position: LogPosition) {
        if !self.stream.as_ref().is_some_and(|stream| stream.current) {
            return;
        }
        let Some(held) = self.position else { return };
        if position.epoch != held.epoch || (position.revision == held.revision && position.head != held.head)
        {
            self.start_over("the server has another history than the one followed so far");
        } else if position.revision > held.revision {
            self.advance(position);
        }
    }

    fn advance(&mut self, position: LogPosition) {
        self.position = Some(position);
        // A position of an earlier life is as good as a snapshot once the server continues from it.
        self.entries_seen = true;
        self.maybe_synced();
        if let Some(stream) = &mut self.stream {
            stream.current = true;
            stream.unacknowledged = Some(position.revision);
        }
        self.acknowledge();
    }

    /// Says what is applied, but only once the bundles announced before it are here, too: the server lets a new
    /// authority sign when all agents have acknowledged the revision that brought it.
    fn acknowledge(&mut self) {
        let outstanding = !self.wanted.is_empty() || self.fetching.is_some();
        if outstanding && !planted(Fault::AckBeforeBundles) {
            return;
        }
        if let Some(stream) = &mut self.stream
            && let Some(revision) = stream.unacknowledged.take()
        {
            self.effects.push_back(Effect::Ack { stream: stream.id, revision });
        }
    }

    fn stream_ended(&mut self, failure: Failure) {
        let welcomed = self.stream.take().is_some_and(|s| s.welcomed);
        match failure {
            Failure::Unimplemented => self.fall_back(),
            Failure::Refused(refusal) => self.refused(refusal),
            Failure::Away(_) if self.mode != Mode::Follow && !welcomed => {
                self.open_at = Some(self.now.mono + self.jitter.around(TRY_FOLLOW_EVERY));
            }
            Failure::Away(_) => {
                let pause = self.reconnect.failed(&mut self.jitter);
                self.open_at = Some(self.now.mono + pause);
            }
        }
    }

    fn fall_back(&mut self) {
        self.open_at = Some(self.now.mono + self.jitter.around(TRY_FOLLOW_EVERY));
        if self.mode == Mode::Follow {
            self.fleet = None;
            self.mode = if self.settings.sync_entries { Mode::SyncEntries } else { Mode::GetEntries };
            self.position = None;
            self.poll_at = Some(self.now.mono);
        }
    }

    fn refused(&mut self, refusal: AgentRefusal) {
        self.close();
        self.running = false;
        self.open_at = None;
        self.poll_at = None;
        self.effects.push_back(Effect::Refused(refusal));
    }

    // --- polling ---

    fn poll_now(&mut self) {
        self.poll_at = None;
        self.polling = true;
        let whole = self.mode == Mode::GetEntries;
        self.effects.push_back(Effect::Poll { whole, known: self.known.clone() });
    }

    fn polled(&mut self, polled: Polled) {
        self.polling = false;
        if self.mode == Mode::Follow || !self.running {
            return;
        }
        if self.poll_failures > 0 || !self.entries_seen {
            self.effects.push_back(Effect::Connected);
        }
        self.poll_failures = 0;
        self.poll_at = Some(self.now.mono + self.jitter.around(self.settings.poll_interval));
        // Bundles first: an SVID must not be handed out before what verifies it.
        let upserts: Vec<_> = polled.bundles.into_iter().map(Arc::new).collect();
        if !upserts.is_empty() || !polled.bundles_gone.is_empty() {
            self.effects.push_back(Effect::Bundles { upserts, removed: polled.bundles_gone });
        }
        let unchanged: Vec<_> =
            polled.unchanged.into_iter().filter(|id| self.known.contains_key(id)).collect();
        self.replace(polled.entries, &unchanged);
    }

    fn poll_failed(&mut self, failure: Failure) {
        self.polling = false;
        if self.mode == Mode::Follow || !self.running {
            return;
        }
        match failure {
            Failure::Unimplemented if self.mode == Mode::SyncEntries => {
                self.mode = Mode::GetEntries;
                self.poll_at = Some(self.now.mono);
            }
            Failure::Refused(refusal) => self.refused(refusal),
            Failure::Unimplemented | Failure::Away(_) => {
                self.poll_failures = self.poll_failures.saturating_add(1);
                let interval = self.settings.poll_interval;
                let policy =
                    Policy { first: interval, most: POLL_MOST.min(interval * 48), growth_percent: 150 };
                let pause = self.jitter.around(policy.pause(self.poll_failures));
                self.poll_at = Some(self.now.mono + pause);
            }
        }
    }

    // --- entries ---

    /// Everything there is: `entries` in full, and of those held already the `unchanged`. All others are gone.
    fn replace(&mut self, entries: Vec<Entry>, unchanged: &[EntryId]) {
        let mut stay: BTreeSet<&EntryId> = unchanged.iter().collect();
        stay.extend(entries.iter().map(|e| &e.id));
        let removed: Vec<_> = self.known.keys().filter(|id| !stay.contains(id)).cloned().collect();
        self.apply(entries, removed);
        self.entries_seen = true;
        self.maybe_synced();
    }

    fn apply(&mut self, upserts: Vec<Entry>, removed: Vec<EntryId>) {
        for id in &removed {
            self.known.remove(id);
        }
        for entry in &upserts {
            let version = Version { revision: entry.revision_number, created_at: entry.created_at };
            self.known.insert(entry.id.clone(), version);
        }
        if !upserts.is_empty() || !removed.is_empty() {
            self.effects.push_back(Effect::Entries { upserts, removed });
        }
    }

    /// The first full sync is done once entries and the bundles announced have come: what is signed from then on is
    /// verified by them (INV-4).
    fn maybe_synced(&mut self) {
        let settled = self.wanted.is_empty() && self.fetching.is_none();
        if !self.synced && self.entries_seen && settled {
            self.synced = true;
            self.effects.push_back(Effect::Synced);
        }
    }

    // --- bundles ---

    fn notice(&mut self, domain: TrustDomain, digest: Vec<u8>, removed: bool) {
        if removed {
            self.wanted.remove(&domain);
            self.have.remove(&domain);
            let removed = vec![domain];
            self.effects.push_back(Effect::Bundles { upserts: Vec::new(), removed });
            self.acknowledge();
        } else if self.have.get(&domain) != Some(&digest) {
            self.wanted.insert(domain, digest);
            self.fetch();
        }
    }

    fn fetch(&mut self) {
        if self.fetching.is_some() || self.wanted.is_empty() || self.fetch_at.is_some() {
            return;
        }
        let batch = std::mem::take(&mut self.wanted);
        let domains = batch.keys().cloned().collect();
        self.fetching = Some(batch);
        self.effects.push_back(Effect::FetchBundles { domains });
    }

    fn fetched(&mut self, bundles: Vec<Bundle>) {
        let Some(batch) = self.fetching.take() else { return };
        self.refetch.succeeded();
        let came: BTreeSet<_> = bundles.iter().map(|b| b.trust_domain.clone()).collect();
        let removed = batch.keys().filter(|d| !came.contains(*d)).cloned().collect();
        self.have.extend(batch.into_iter().filter(|(domain, _)| came.contains(domain)));
        let upserts = bundles.into_iter().map(Arc::new).collect();
        self.effects.push_back(Effect::Bundles { upserts, removed });
        self.fetch();
        self.maybe_synced();
        self.acknowledge();
    }

    fn fetch_failed(&mut self) {
        let Some(batch) = self.fetching.take() else { return };
        for (domain, digest) in batch {
            self.wanted.entry(domain).or_insert(digest);
        }
        let pause = self.refetch.failed(&mut self.jitter);
        self.fetch_at = Some(self.now.mono + pause);
    }

    fn tick(&mut self) {
        let due = |at: Option<Tick>| at.is_some_and(|at| at <= self.now.mono);
        let (open, poll, fetch) = (due(self.open_at), due(self.poll_at), due(self.fetch_at));
        if fetch {
            self.fetch_at = None;
            self.fetch();
        }
        if !self.running {
            return;
        }
        if open && self.stream.is_none() {
            self.open();
        }
        if poll && !self.polling {
            self.poll_now();
        }
    }
}

impl Machine for Sync {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Now, input: Input) {
        self.now = now;
        match input {
            Input::Start => {
                self.running = true;
                self.reconnect.succeeded();
                match self.mode {
                    Mode::Follow => self.open(),
                    Mode::SyncEntries | Mode::GetEntries => self.poll_at = Some(now.mono),
                }
            }
            Input::Restore { position, known } => (self.position, self.known) = (position, known),
            Input::Frame { stream, frame } => {
                if self.stream.as_ref().is_some_and(|s| s.id == stream) {
                    self.frame(frame);
                }
            }
            Input::FollowEnded { stream, failure } => {
                if self.stream.as_ref().is_some_and(|s| s.id == stream) {
                    self.stream_ended(failure);
                }
            }
            Input::BundlesFetched { bundles } => self.fetched(bundles),
            Input::BundlesFailed => self.fetch_failed(),
            Input::Polled(polled) => self.polled(polled),
            Input::PollFailed(failure) => self.poll_failed(failure),
            Input::Refused(refusal) => {
                if self.running {
                    self.refused(refusal);
                }
            }
            Input::Tick => {}
        }
        self.tick();
    }

    fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn next_wakeup(&self) -> Option<Timestamp> {
        let running = [self.open_at, self.poll_at].into_iter().flatten().filter(|_| self.running);
        let next = running.chain(self.fetch_at).min()?;
        Some(self.now.wall + next.since(self.now.mono))
    }
}
