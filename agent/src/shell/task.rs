//! The task: takes in commands and events, hands them to the machines, performs their effects.
//!
//! Never blocks and never awaits anything but its own queues.

mod calls;
mod keeping;
mod trust;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use avouch_domain::{AuthorityId, Bundle, Now, SelectorSet, Timestamp, TrustDomain};
use avouch_engine::cache::{self, Cache, Priority, RequestId, SignFailure, Tally, Ticket, WorkloadUpdate};
use avouch_engine::sync::{self, Failure, Frame, StreamId, Sync};
use avouch_engine::{Machine as _, backoff::Jitter};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::keeping::Keeping;
use super::feeds::{Feeds, Key, ShellFeed, Sweep, Update};
use super::lent::Lent;
use super::signing::{Job, Mint, Mints, Outcome, Queue};
use super::{Command, Granted, Parts, Signs};
use crate::clock::ServerClock;
use crate::heard::Heard;
use crate::limits::{COMMANDS_WAITING, RENEW_EVERY, SLEEP_MAX, SUBSCRIPTION_LINGER};
use crate::sealed::StoreError;
use crate::supply::{AgentFacts, JwtQuestion};
use crate::timer::Timer;
use crate::upstream::{CallError, Hello, Said, SignedJwt};

/// What tasks of the shell come back with.
enum Event {
    FollowOpened(StreamId, mpsc::Sender<Said>),
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
    says: Option<mpsc::Sender<Said>>,
    _reader: CancelOnDrop,
}

struct CancelOnDrop(tokio::task::AbortHandle);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What comes from callers.
pub(super) struct Queues {
    pub commands: mpsc::Receiver<Command>,
    /// Callers that went away before their tokens came.
    pub goners: mpsc::UnboundedReceiver<RequestId>,
    pub sweeps: mpsc::UnboundedReceiver<Sweep>,
}

/// What callers read without asking the task.
pub(super) struct Boards {
    pub feeds: Arc<Feeds>,
    pub lent: Arc<Lent>,
    pub signs: Arc<Signs>,
    pub heard: Heard,
}

pub(super) struct Task {
    parts: Parts,
    cache: Cache,
    sync: Sync,
    commands: mpsc::Receiver<Command>,
    goners: mpsc::UnboundedReceiver<RequestId>,
    feeds: Arc<Feeds>,
    lent: Arc<Lent>,
    sweeps: mpsc::UnboundedReceiver<Sweep>,
    /// Runs while there may be subscriptions that nobody uses.
    sweep_timer: Timer,
    heard: Heard,
    /// Whether anybody wants to know if the server is there, and when it is asked next.
    heard_wanted: watch::Receiver<bool>,
    renew_timer: Timer,
    /// The clock was set back, and the machines have not been told the time since.
    set_back: bool,
    events_tx: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    groups: BTreeMap<SelectorSet, watch::Sender<Update>>,
    jwt_callers: BTreeMap<RequestId, (JwtQuestion, oneshot::Sender<Granted>)>,
    queue: Queue,
    mints: Mints,
    stream: Option<Stream>,
    server_clock: ServerClock,
    skew_warned: bool,
    /// What of the cache's work is in the metrics.
    counted: Tally,
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
        Queues { commands, goners, sweeps }: Queues,
        Boards { feeds, lent, signs, heard }: Boards,
        ready: watch::Sender<bool>,
    ) -> Self {
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
        let heard_wanted = heard.wanted();
        Self {
            now,
            parts,
            cache,
            sync,
            commands,
            goners,
            feeds,
            lent,
            sweeps,
            sweep_timer: Timer::default(),
            heard,
            heard_wanted,
            renew_timer: Timer::default(),
            set_back: false,
            events_tx,
            events,
            groups: BTreeMap::new(),
            jwt_callers: BTreeMap::new(),
            queue: Queue::default(),
            mints: Mints::default(),
            stream: None,
            server_clock: ServerClock::default(),
            skew_warned: false,
            counted: Tally::default(),
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
                Some(request) = self.goners.recv() => self.caller_left(request),
                Some(sweep) = self.sweeps.recv() => match sweep {
                    Sweep::Later => self.sweep_later(),
                    Sweep::Now => self.sweep(sweep),
                },
                () = self.sweep_timer.due() => self.sweep(Sweep::Later),
                Ok(()) = self.heard_wanted.changed() => self.renew(),
                () = self.renew_timer.due() => self.renew(),
                () = tokio::time::sleep(sleep) => {
                    self.tell_sync(sync::Input::Tick);
                    self.tell_cache(cache::Input::Tick);
                    self.lent.sweep(self.now);
                }
            }
            self.signs.pushed.store(self.sync.is_pushed(), Ordering::Relaxed);
            self.keep();
        }
        self.feeds.close();
        self.lent.recall();
        self.keep_at_last().await;
    }

    fn sweep_later(&mut self) {
        self.sweep_timer.start(SUBSCRIPTION_LINGER);
    }

    fn sweep(&mut self, sweep: Sweep) {
        let (ended, left) = self.feeds.sweep(sweep);
        for (selectors, want) in ended {
            self.tell_cache(cache::Input::Unsubscribe { selectors, want });
        }
        if left {
            self.sweep_later();
        }
    }

    fn until_wakeup(&mut self) -> Duration {
        // The machines say moments of the clock that they were told last: after a step back those are far away.
        if std::mem::take(&mut self.set_back) {
            return Duration::ZERO;
        }
        let next = self.cache.next_wakeup().into_iter().chain(self.sync.next_wakeup()).min();
        // By the clock and not by the last input: questions that need no time would put the moment off again and again.
        let now = self.server_clock.later((self.parts.clock)()).wall;
        let due = next.map_or(SLEEP_MAX, |at| at.since(now)).min(SLEEP_MAX);
        self.until_keeping().map_or(due, |keeping| keeping.min(due))
    }

    fn tell_time(&mut self) -> Now {
        let now = self.server_clock.later((self.parts.clock)());
        self.set_back |= now.wall < self.now.wall;
        self.now = now;
        now
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
        while let Some((ticket, mint)) = self.mints.next_call() {
            self.mint(ticket, mint);
        }
        let (before, now) = (self.counted, self.cache.counts().tally);
        self.parts.metrics.renewals(now.expiring - before.expiring, now.outdated - before.outdated);
        self.counted = now;
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
            Command::Subscribe { key, reply } => self.subscribe(key, reply),
            // A caller that has gone already can't take itself back any more.
            Command::FetchJwt { reply, .. } if reply.is_closed() => {}
            Command::FetchJwt { request, question, reply } => {
                let JwtQuestion { selectors, audience, id } = question.clone();
                self.jwt_callers.insert(request, (question, reply));
                self.tell_cache(cache::Input::JwtWanted { request, selectors, audience, id });
            }
            Command::Nearest { selectors, reply } => {
                let _ = reply.send(self.cache.nearest(&selectors));
            }
            Command::Runnable { uid, reply } => {
                let _ = reply.send(self.cache.runnable(uid));
            }
            Command::Names { selectors, reply } => {
                let entitled = self.cache.entitled(&selectors);
                let _ = reply.send(entitled.into_iter().map(|entry| entry.spiffe_id.clone()).collect());
            }
            Command::Facts { reply } => {
                let _ = reply.send(self.facts());
            }
        }
    }

    fn caller_left(&mut self, request: RequestId) {
        if self.jwt_callers.remove(&request).is_some() {
            self.tell_cache(cache::Input::JwtAbandoned { request });
        }
    }

    fn subscribe(&mut self, key: Key, reply: oneshot::Sender<ShellFeed>) {
        // Two callers may have missed each other: the second joins the first.
        let feed = self.feeds.join(&key).unwrap_or_else(|| {
            let group = self.groups.entry(key.0.clone()).or_insert_with(|| watch::channel(None).0);
            let feed = self.feeds.add(key.clone(), group.subscribe());
            let (selectors, want) = key;
            self.tell_cache(cache::Input::Subscribe { selectors, want });
            feed
        });
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
            Event::FollowOpened(id, says) => {
                if let Some(stream) = self.stream.as_mut().filter(|s| s.id == id) {
                    stream.says = Some(says);
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
                self.mints.ended();
                self.changed();
                self.guess_time(svid.issued_at, true);
                self.tell_cache(cache::Input::JwtSigned { ticket, svid, key_id });
            }
            Event::Minted(ticket, Err(error)) => {
                self.mints.ended();
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

    fn say(&self, stream: StreamId, said: Said) {
        if let Some(Stream { says: Some(says), .. }) = self.stream.as_ref().filter(|s| s.id == stream) {
            let _ = says.try_send(said);
        }
    }

    /// Asks whether the server is there, now and from time to time, while anybody wants to know.
    fn renew(&mut self) {
        if !*self.heard_wanted.borrow_and_update() {
            return;
        }
        if let Some(id) = self.stream.as_ref().map(|stream| stream.id) {
            let number = self.heard.asks((self.parts.clock)().mono);
            self.say(id, Said::Renew(number));
        }
        self.renew_timer.start(RENEW_EVERY);
    }

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
            // A later acknowledgement covers one that finds no room.
            Effect::Ack { stream, revision } => self.say(stream, Said::Applied(revision)),
            Effect::Renewed(number) => self.heard.answered(number),
            Effect::Away(longer) => self.heard.goes_away(longer),
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
                self.renew();
                self.tell_cache_quietly(cache::Input::UpstreamBack);
            }
            Effect::ServerTime(at) => self.server_time(at),
            Effect::Refused(refusal) => {
                let _ = self.parts.refusals.try_send(refusal);
            }
            Effect::Resync(reason) => {
                tracing::info!(%reason, subsystem_name = "manager", "The server tells all entries anew");
            }
            Effect::Alarm(reason) => {
                tracing::warn!(%reason, subsystem_name = "manager", "The server has another history than this agent");
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
            Effect::MintJwt { ticket, entry, id, audience } => {
                self.mints.push(ticket, Mint { entry, id, audience });
            }
            Effect::NobodyWaits { ticket } => {
                if self.mints.forget(ticket) {
                    let failure = SignFailure::Away("nobody waits for it any more".to_owned());
                    self.tell_cache_quietly(cache::Input::JwtFailed { ticket, failure });
                }
            }
            Effect::Deliver { selectors, update } => self.deliver(&selectors, update),
            Effect::Drop { selectors } => {
                self.groups.remove(&selectors);
            }
            Effect::AnswerJwt { request, answer, lent_until } => {
                if let Some((question, caller)) = self.jwt_callers.remove(&request) {
                    let answer: Granted = answer.map(Into::into);
                    if let (Some(until), Ok(grants)) = (lent_until, &answer) {
                        self.lent.lend(question, grants.clone(), until, self.now);
                    }
                    let _ = caller.send(answer);
                }
            }
            Effect::RecallJwt => self.lent.recall(),
        }
    }

    fn deliver(&mut self, selectors: &SelectorSet, update: Arc<WorkloadUpdate>) {
        if let Some(group) = self.groups.get(selectors) {
            group.send_replace(Some(update));
        }
    }
}
