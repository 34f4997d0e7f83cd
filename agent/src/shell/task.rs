//! The task: takes in commands and events, hands them to the machines, performs their effects.
//!
//! Never blocks and never awaits anything but its own queues.

mod keeping;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use avouch_credential::x509::facts::authority_id;
use avouch_domain::{
    AuthorityId, Bundle, EntryId, Now, Revision, SelectorSet, SpiffeId, Timestamp, TrustDomain,
};
use avouch_engine::cache::{self, Cache, Priority, RequestId, SignFailure, Ticket, WorkloadUpdate};
use avouch_engine::sync::{self, Failure, Frame, Known, StreamId, Sync};
use avouch_engine::{Machine as _, backoff::Jitter};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::keeping::Keeping;
use super::signing::{self, Job, Outcome, Queue};
use super::{Command, Parts, ShellFeed, Signs, Update};
use crate::clock::ServerClock;
use crate::limits::{CLOCK_SKEW_WARN_MS, COMMANDS_WAITING, MINT_CALLS, SLEEP_MAX, TAINT_SPREAD};
use crate::sealed::StoreError;
use crate::supply::{AgentFacts, JwtGrant, JwtRefusal, Want};
use crate::upstream::{CallError, Hello, SignedJwt};

/// What tasks of the shell come back with.
enum Event {
    FollowOpened(StreamId, mpsc::Sender<Revision>),
    Frame(StreamId, Frame),
    FollowEnded(StreamId, Failure),
    BundlesFetched(Result<Vec<Bundle>, CallError>),
    Polled(Result<sync::Polled, CallError>, Duration),
    Signed(Vec<Outcome>, Option<sync::AgentRefusal>, Duration),
    Minted(Ticket, Result<SignedJwt, CallError>),
    Stored(Result<bool, StoreError>),
}

/// The open stream: dropping it ends the reader.
struct Stream {
    id: StreamId,
    acks: Option<mpsc::Sender<Revision>>,
    _reader: CancelOnDrop,
}

struct CancelOnDrop(tokio::task::AbortHandle);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) struct Task {
    parts: Parts,
    cache: Cache,
    sync: Sync,
    commands: mpsc::Receiver<Command>,
    gone_tx: mpsc::UnboundedSender<(SelectorSet, Want)>,
    gone: mpsc::UnboundedReceiver<(SelectorSet, Want)>,
    events_tx: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    groups: BTreeMap<SelectorSet, watch::Sender<Update>>,
    jwt_callers: BTreeMap<RequestId, oneshot::Sender<Result<Vec<JwtGrant>, JwtRefusal>>>,
    next_request: RequestId,
    queue: Queue,
    mints: Arc<Semaphore>,
    stream: Option<Stream>,
    server_clock: ServerClock,
    skew_warned: bool,
    /// Why the server was not reached, as it was last said.
    away_told: String,
    last_sync: Option<Timestamp>,
    /// X.509 authorities of the own bundle that were there once and are not now.
    revoked: BTreeSet<AuthorityId>,
    trusted: BTreeSet<AuthorityId>,
    bundles: BTreeSet<TrustDomain>,
    ready: watch::Sender<bool>,
    signs: Arc<Signs>,
    keeping: Keeping,
    now: Now,
}

impl Task {
    pub fn new(
        parts: Parts,
        commands: mpsc::Receiver<Command>,
        ready: watch::Sender<bool>,
        signs: Arc<Signs>,
    ) -> Self {
        let (gone_tx, gone) = mpsc::unbounded_channel();
        let (events_tx, events) = mpsc::channel(COMMANDS_WAITING);
        let mut seeds = Jitter::new(parts.settings.seed);
        let mut seed =
            || u64::try_from(seeds.within(Duration::from_secs(u64::MAX >> 32)).as_nanos()).unwrap_or(1);
        let cache = Cache::new(cache::Settings {
            trust_domain: parts.trust_domain.clone(),
            x509_max: parts.settings.x509_max,
            jwt_max: parts.settings.jwt_max,
            availability_target: parts.settings.availability_target,
            seed: seed(),
        });
        let sync = Sync::new(sync::Settings {
            poll_interval: parts.settings.sync_interval,
            sync_entries: parts.settings.sync_entries,
            seed: seed(),
        });
        let now = (parts.clock)();
        Self {
            now,
            parts,
            cache,
            sync,
            commands,
            gone_tx,
            gone,
            events_tx,
            events,
            groups: BTreeMap::new(),
            jwt_callers: BTreeMap::new(),
            next_request: 0,
            queue: Queue::default(),
            mints: Arc::new(Semaphore::new(MINT_CALLS)),
            stream: None,
            server_clock: ServerClock::default(),
            skew_warned: false,
            away_told: String::new(),
            last_sync: None,
            revoked: BTreeSet::new(),
            trusted: BTreeSet::new(),
            bundles: BTreeSet::new(),
            ready,
            signs,
            keeping: Keeping::new(now.mono),
        }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let sleep = self.until_wakeup();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(event) = self.events.recv() => self.event(event),
                Some(command) = self.commands.recv() => self.command(command),
                Some((selectors, want)) = self.gone.recv() => {
                    self.tell_cache(cache::Input::Unsubscribe { selectors, want });
                }
                () = tokio::time::sleep(sleep) => {
                    self.tell_sync(sync::Input::Tick);
                    self.tell_cache(cache::Input::Tick);
                }
            }
            self.signs.pushed.store(self.sync.is_pushed(), Ordering::Relaxed);
            self.keep();
        }
        self.keep_at_last().await;
    }

    fn until_wakeup(&self) -> Duration {
        let next = self.cache.next_wakeup().into_iter().chain(self.sync.next_wakeup()).min();
        // By the clock and not by the last input: questions that need no time would put the moment off again and again.
        let now = self.server_clock.later((self.parts.clock)()).wall;
        let due = next.map_or(SLEEP_MAX, |at| at.since(now)).min(SLEEP_MAX);
        self.until_keeping().map_or(due, |keeping| keeping.min(due))
    }

    fn tell_time(&mut self) -> Now {
        self.now = self.server_clock.later((self.parts.clock)());
        self.now
    }

    fn tell_cache(&mut self, input: cache::Input) {
        let now = self.tell_time();
        self.cache.handle(now, input);
        self.perform();
    }

    fn tell_sync(&mut self, input: sync::Input) {
        let now = self.tell_time();
        self.sync.handle(now, input);
        self.perform();
    }

    /// Performs effects until neither machine has one left, then begins the calls that may begin.
    fn perform(&mut self) {
        loop {
            if let Some(effect) = self.cache.poll() {
                // What was decided before the next change comes goes out before it.
                self.cache_effect(effect);
            } else if let Some(effect) = self.sync.poll() {
                self.sync_effect(effect);
            } else {
                break;
            }
        }
        while let Some(jobs) = self.queue.next_call() {
            self.sign(jobs);
        }
    }

    // --- what comes in ---

    fn command(&mut self, command: Command) {
        match command {
            Command::Identity { bundle } => {
                if let Some(bundle) = bundle {
                    self.take_bundles(vec![Arc::new(*bundle)], Vec::new());
                }
                self.changed();
                self.post_status();
                self.tell_sync(sync::Input::Start);
            }
            Command::Restore { kept, least, done } => {
                self.restore(*kept, least);
                let _ = done.send(());
            }
            Command::Subscribe { selectors, want, reply } => self.subscribe(selectors, want, reply),
            Command::FetchJwt { selectors, audience, id, reply } => {
                self.next_request += 1;
                let request = self.next_request;
                self.jwt_callers.insert(request, reply);
                self.tell_cache(cache::Input::JwtWanted { request, selectors, audience, id });
            }
            Command::Nearest { selectors, reply } => {
                let _ = reply.send(self.cache.nearest(&selectors));
            }
            Command::Facts { reply } => {
                let _ = reply.send(self.facts());
            }
        }
    }

    fn subscribe(&mut self, selectors: SelectorSet, want: Want, reply: oneshot::Sender<ShellFeed>) {
        let group = self.groups.entry(selectors.clone()).or_insert_with(|| watch::channel(None).0);
        let feed = ShellFeed {
            updates: group.subscribe(),
            last: None,
            begun: false,
            selectors: selectors.clone(),
            want,
            gone: self.gone_tx.clone(),
        };
        self.tell_cache(cache::Input::Subscribe { selectors, want });
        // A caller that went away meanwhile drops the feed, which takes the subscription back.
        let _ = reply.send(feed);
    }

    fn facts(&self) -> AgentFacts {
        let own = self.parts.own.borrow().clone();
        let counts = self.cache.counts();
        AgentFacts {
            svid_not_after: own.as_ref().map(|own| own.not_after),
            svid_chain: own.map(|own| own.chain).unwrap_or_default(),
            last_sync: self.last_sync,
            cached_x509: counts.x509_held,
            cached_jwt: counts.jwt_held,
            clock_skew_ms: self.server_clock.skew_ms(),
            synced: self.sync.is_synced(),
            reached: self.sync.is_reached(),
            entries: counts.entries,
            now: self.server_clock.later((self.parts.clock)()).wall,
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::FollowOpened(id, acks) => {
                if let Some(stream) = self.stream.as_mut().filter(|s| s.id == id) {
                    stream.acks = Some(acks);
                }
            }
            Event::Frame(stream, frame) => {
                self.tell_sync(sync::Input::Frame { stream, frame });
                self.count_sync();
            }
            Event::FollowEnded(stream, failure) => {
                self.tell_of_end(&failure);
                self.tell_sync(sync::Input::FollowEnded { stream, failure });
            }
            Event::BundlesFetched(Ok(bundles)) => self.tell_sync(sync::Input::BundlesFetched { bundles }),
            Event::BundlesFetched(Err(error)) => {
                tracing::warn!(%error, subsystem_name = "manager", "Failed to fetch bundles");
                self.tell_sync(sync::Input::BundlesFailed);
                self.refused_by(&error);
            }
            Event::Polled(Ok(polled), elapsed) => {
                self.parts.metrics.synced(true, elapsed);
                self.tell_sync(sync::Input::Polled(polled));
                self.count_sync();
            }
            Event::Polled(Err(error), elapsed) => {
                self.parts.metrics.synced(false, elapsed);
                if error != CallError::Unimplemented {
                    tracing::error!(%error, subsystem_name = "manager", "Synchronize failed");
                }
                self.tell_sync(sync::Input::PollFailed(error.failure()));
            }
            Event::Signed(outcomes, refusal, elapsed) => self.signed(outcomes, refusal, elapsed),
            Event::Minted(ticket, Ok(SignedJwt { svid, key_id })) => {
                self.changed();
                self.guess_time(svid.issued_at, true);
                self.tell_cache(cache::Input::JwtSigned { ticket, svid, key_id });
            }
            Event::Minted(ticket, Err(error)) => {
                let failure = match &error {
                    CallError::Failed { .. } => SignFailure::Refused(error.to_string()),
                    _ => SignFailure::Away(error.to_string()),
                };
                self.tell_cache(cache::Input::JwtFailed { ticket, failure });
                self.refused_by(&error);
            }
            Event::Stored(result) => self.stored(result),
        }
    }

    /// A stream that ends is normal life, one that can't be opened is not.
    fn tell_of_end(&mut self, failure: &Failure) {
        match failure {
            // Tried every second; said once, and again when it is for another reason.
            Failure::Away(error) if !self.sync.is_pushed() && *error != self.away_told => {
                self.away_told.clone_from(error);
                tracing::warn!(%error, subsystem_name = "manager", "Server not reached; will try again");
            }
            _ => tracing::debug!(?failure, subsystem_name = "manager", "Stream of changes ended"),
        }
    }

    fn signed(&mut self, outcomes: Vec<Outcome>, refusal: Option<sync::AgentRefusal>, elapsed: Duration) {
        self.queue.ended();
        let good = outcomes.iter().any(|o| o.result.is_ok());
        if let Some((svid, _)) = outcomes.iter().find_map(|o| o.result.as_ref().ok()) {
            self.changed();
            self.guess_time(svid.not_before, false);
        }
        self.parts.metrics.x509_signed(good, elapsed);
        for Outcome { ticket, entry, result } in outcomes {
            self.tell_cache(match result {
                Ok((svid, authorities)) => cache::Input::Signed { ticket, entry, svid, authorities },
                Err(failure) => {
                    tracing::warn!(entry_id = %entry, error = %failure, subsystem_name = "manager", "Failed to get an X509-SVID");
                    cache::Input::SignFailed { ticket, entry, failure }
                }
            });
        }
        if let Some(refusal) = refusal {
            self.tell_sync(sync::Input::Refused(refusal));
        }
        let counts = self.cache.counts();
        self.parts.metrics.cache_sizes(counts.entries, counts.x509_held, counts.jwt_held);
    }

    fn refused_by(&mut self, error: &CallError) {
        if let CallError::Refused { refusal, .. } = error {
            self.tell_sync(sync::Input::Refused(*refusal));
        }
    }

    fn count_sync(&mut self) {
        if self.sync.is_synced() {
            self.last_sync = Some(self.now.wall);
            self.parts.metrics.sync_totals(self.cache.counts().entries, self.bundles.len());
        }
    }

    // --- what goes out ---

    fn sync_effect(&mut self, effect: sync::Effect) {
        use sync::Effect;
        match effect {
            Effect::OpenFollow { stream, position, known } => {
                let agent_version = self.parts.version.clone();
                self.follow(stream, Hello { position, known, agent_version });
            }
            Effect::CloseFollow { stream } => {
                if self.stream.as_ref().is_some_and(|s| s.id == stream) {
                    self.stream = None;
                }
            }
            Effect::Ack { stream, revision } => {
                // A later acknowledgement covers one that finds no room.
                if let Some(Stream { acks: Some(acks), .. }) = self.stream.as_ref().filter(|s| s.id == stream)
                {
                    let _ = acks.try_send(revision);
                }
            }
            Effect::FetchBundles { domains } => self.fetch_bundles(domains),
            Effect::Poll { whole, known } => self.poll(whole, known),
            Effect::Entries { upserts, removed } => {
                tracing::debug!(
                    changed = upserts.len(),
                    removed = removed.len(),
                    subsystem_name = "manager",
                    "Entries changed"
                );
                let (before, came, gone) = (self.cache.counts().entries, upserts.len(), removed.len());
                self.changed();
                self.tell_cache_quietly(cache::Input::Entries { upserts, removed });
                let added = (self.cache.counts().entries + gone).saturating_sub(before).min(came);
                self.parts.metrics.entries_changed(added, came - added, gone);
            }
            Effect::Bundles { upserts, removed } => self.take_bundles(upserts, removed),
            Effect::Synced => {
                self.tell_cache_quietly(cache::Input::Synced);
                self.count_sync();
                self.signs.synced.store(true, Ordering::Relaxed);
                self.ready.send_replace(true);
            }
            Effect::Connected => {
                tracing::info!(
                    pushing = self.sync.is_pushed(),
                    subsystem_name = "manager",
                    "Connected to the server"
                );
                self.away_told.clear();
                self.server_clock.heard();
                self.tell_cache_quietly(cache::Input::UpstreamBack);
            }
            Effect::ServerTime(at) => self.server_time(at),
            Effect::Refused(refusal) => {
                let _ = self.parts.refusals.try_send(refusal);
            }
            Effect::Alarm(text) => {
                tracing::warn!(reason = %text, subsystem_name = "manager", "Asks the server for all entries anew")
            }
        }
    }

    /// As [`Task::tell_cache`], for use while effects are being performed already.
    fn tell_cache_quietly(&mut self, input: cache::Input) {
        self.cache.handle(self.now, input);
    }

    fn cache_effect(&mut self, effect: cache::Effect) {
        use cache::Effect;
        match effect {
            Effect::Sign { ticket, entry, id, priority } => {
                let message =
                    if priority == Priority::Renewal { "Renewing X509-SVID" } else { "Creating X509-SVID" };
                tracing::info!(entry_id = %entry, spiffe_id = %id, subsystem_name = "manager", "{message}");
                self.queue.push(priority, Job { ticket, entry, id });
            }
            Effect::Hurry { ticket } => self.queue.hurry(ticket),
            Effect::MintJwt { ticket, entry, id, audience } => self.mint(ticket, entry, &id, audience),
            Effect::Deliver { selectors, update } => self.deliver(&selectors, update),
            Effect::Drop { selectors } => {
                self.groups.remove(&selectors);
            }
            Effect::AnswerJwt { request, answer } => {
                if let Some(caller) = self.jwt_callers.remove(&request) {
                    let _ = caller.send(answer);
                }
            }
        }
    }

    fn deliver(&mut self, selectors: &SelectorSet, update: Arc<WorkloadUpdate>) {
        if let Some(group) = self.groups.get(selectors) {
            group.send_replace(Some(update));
        }
    }

    fn follow(&mut self, id: StreamId, hello: Hello) {
        let (upstream, events) = (self.parts.upstream.clone(), self.events_tx.clone());
        let reader = tokio::spawn(async move {
            let failure = match upstream.follow(hello).await {
                Err(error) => error.failure(),
                Ok(mut following) => {
                    let _ = events.send(Event::FollowOpened(id, following.acks)).await;
                    loop {
                        match following.frames.recv().await {
                            Some(Ok(frame)) => {
                                if events.send(Event::Frame(id, frame)).await.is_err() {
                                    return;
                                }
                            }
                            Some(Err(error)) => break error.failure(),
                            None => break Failure::Away("the stream ended".to_owned()),
                        }
                    }
                }
            };
            let _ = events.send(Event::FollowEnded(id, failure)).await;
        });
        self.stream = Some(Stream { id, acks: None, _reader: CancelOnDrop(reader.abort_handle()) });
    }

    fn fetch_bundles(&self, domains: Vec<TrustDomain>) {
        let (upstream, events) = (self.parts.upstream.clone(), self.events_tx.clone());
        tokio::spawn(async move {
            let result = upstream.fetch_bundles(domains).await;
            let _ = events.send(Event::BundlesFetched(result)).await;
        });
    }

    fn poll(&self, whole: bool, known: Known) {
        let (upstream, events) = (self.parts.upstream.clone(), self.events_tx.clone());
        let federated = self.cache.federated_domains().cloned().collect();
        let (clock, begun) = (self.parts.clock, (self.parts.clock)());
        tokio::spawn(async move {
            let result = upstream.poll(whole, known, federated).await;
            let _ = events.send(Event::Polled(result, clock().mono.since(begun.mono))).await;
        });
    }

    fn sign(&self, jobs: Vec<Job>) {
        let (upstream, events) = (self.parts.upstream.clone(), self.events_tx.clone());
        let kind = self.parts.settings.workload_key_type;
        let (clock, begun) = (self.parts.clock, (self.parts.clock)());
        tokio::spawn(async move {
            let (outcomes, refusal) = signing::perform(upstream, kind, jobs).await;
            let elapsed = clock().mono.since(begun.mono);
            let _ = events.send(Event::Signed(outcomes, refusal, elapsed)).await;
        });
    }

    fn mint(&self, ticket: Ticket, entry: EntryId, id: &SpiffeId, audience: Vec<String>) {
        tracing::debug!(entry_id = %entry, spiffe_id = %id, subsystem_name = "manager", "Fetching JWT-SVID");
        let (upstream, events) = (self.parts.upstream.clone(), self.events_tx.clone());
        let mints = self.mints.clone();
        tokio::spawn(async move {
            let _turn = mints.acquire().await;
            let result = upstream.sign_jwt(&entry, &audience).await;
            let _ = events.send(Event::Minted(ticket, result)).await;
        });
    }

    fn post_status(&self) {
        let (upstream, version) = (self.parts.upstream.clone(), self.parts.version.clone());
        tokio::spawn(async move {
            if let Err(error) = upstream.post_status(&version).await {
                tracing::debug!(%error, subsystem_name = "manager", "Failed to post status");
            }
        });
    }

    // --- bundles and time ---

    fn take_bundles(&mut self, upserts: Vec<Arc<Bundle>>, removed: Vec<TrustDomain>) {
        self.changed();
        for bundle in &upserts {
            self.bundles.insert(bundle.trust_domain.clone());
            if bundle.trust_domain == self.parts.trust_domain {
                self.parts.own_bundle.send_replace(Some(bundle.clone()));
                self.watch_authorities(bundle);
            }
        }
        for domain in &removed {
            self.bundles.remove(domain);
        }
        self.tell_cache_quietly(cache::Input::Bundles { upserts, removed });
    }

    /// Tells the cache which of the own authorities are tainted, and which have left the bundle.
    fn watch_authorities(&mut self, own: &Bundle) {
        let ids = |tainted_only: bool| -> BTreeSet<AuthorityId> {
            let list = own.x509_authorities.iter().filter(|a| a.tainted || !tainted_only);
            list.filter_map(|a| Some(authority_id(&a.der).ok()?.into())).collect()
        };
        let now_trusted = ids(false);
        let left: Vec<_> = self.trusted.difference(&now_trusted).cloned().collect();
        let spread = if left.is_empty() { TAINT_SPREAD } else { Duration::ZERO };
        self.revoked.extend(left);
        self.revoked.retain(|id| !now_trusted.contains(id));
        self.trusted = now_trusted;
        let authorities = ids(true).union(&self.revoked).cloned().collect();
        self.tell_cache_quietly(cache::Input::Distrusted { authorities, spread });
    }

    /// A server that does not push tells no time, but it stamps what it signs: a token with its clock, a certificate
    /// with some moment before (so that one that begins in our future says something, any other does not).
    fn guess_time(&mut self, stamp: Timestamp, exact: bool) {
        if !self.sync.is_pushed() && (exact || stamp > (self.parts.clock)().wall) {
            self.server_time(stamp);
        }
    }

    fn server_time(&mut self, at: Timestamp) {
        self.server_clock.saw(at, (self.parts.clock)());
        let skew = self.server_clock.skew_ms();
        self.parts.metrics.clock_skew(skew);
        let wide = skew.abs() > CLOCK_SKEW_WARN_MS;
        if wide && !self.skew_warned {
            tracing::warn!(
                skew_ms = skew,
                subsystem_name = "manager",
                "Clock differs from the server's by more than 5 s"
            );
        }
        self.skew_warned = wide;
    }
}
