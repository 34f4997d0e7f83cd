//! One agent: the real sync and cache machines; its sockets and its workloads are played.

mod judged;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::{
    AuthorityId, Bundle, Entry, EntryId, Epoch, JwtSvid, LogPosition, Now, SelectorSet, SpiffeId, Tick,
    Timestamp, TrustDomain,
};
use avouch_engine::Machine;
use avouch_engine::cache::{self, Cache, SignFailure, Want, WorkloadUpdate};
use avouch_engine::invariants::{self, Broken};
use avouch_engine::renew::Pace;
use avouch_engine::sync::{self, AgentRefusal, StreamId, Sync, Version};

use crate::clock::Clock;
use crate::coverage::Coverage;
use crate::net::{Ask, Tell};
use crate::processes::{Pin, Processes};
use crate::server::{NOT_ATTESTED, id_of};

/// The longest a shell sleeps: so late does it notice that its clock was set.
const SLEEP_MAX: u64 = 30_000;
/// So much later does a sleep of that length end by a clock that runs fast by the most this world knows.
const SLEEP_SLACK: Duration = Duration::from_millis(100);
const X509_MAX: usize = 4;
const JWT_MAX: usize = 4;
/// Effects that one input may cause: a few for each entry and caller.
const EFFECTS_MAX: usize = 10_000;
/// A caller has its answer, or a refusal, after this long: a call's end and the wait before it.
pub const ANSWER_MAX: u64 = 60_000;

#[derive(Debug)]
pub struct Agent {
    pub id: SpiffeId,
    /// Rises with every restart: messages for an earlier life are not for this one.
    pub life: u64,
    pub up: bool,
    /// Cut off from every server.
    pub cut: bool,
    /// The server it is connected to.
    pub server: usize,
    pub refused: Option<AgentRefusal>,
    pub clock: Clock,
    /// Its clock was set, and it has not looked at it since.
    pub unaware: bool,
    /// What its workloads ask for; survives its restarts.
    pub wanted: BTreeSet<SelectorSet>,
    pub held: BTreeMap<EntryId, Entry>,
    pub views: BTreeMap<SelectorSet, Arc<WorkloadUpdate>>,
    pub signed_by: BTreeMap<Vec<u8>, AuthorityId>,
    pub broken: Vec<Broken>,
    pub delivered: u64,
    pub tokens: u64,
    /// Answers that found their caller gone.
    pub unreached: u64,
    /// Callers that wait for a token, and since when.
    pub waiting: BTreeMap<u64, (Pin, Tick)>,
    /// Answers that the next caller with these selectors would get until then without a question.
    lent: Vec<(SelectorSet, Vec<cache::JwtGrant>, Timestamp)>,
    pub processes: Processes,
    /// Something has happened to it since the promises were asked last.
    pub touched: bool,
    /// What its workloads hold has changed since.
    pub shown: bool,
    pub coverage: Coverage,
    phases: BTreeMap<EntryId, cache::phase::Phase>,
    /// Of the stream asked for last.
    stream: StreamId,
    /// The first moment at which something held ends.
    first_end: Option<Timestamp>,
    foreign: BTreeSet<TrustDomain>,
    /// The life of the store in which it learnt what it holds.
    pub learnt: Option<Epoch>,
    /// What was counted when the limits were looked at last.
    sizes: (cache::Counts, usize, usize),
    next_request: u64,
    /// What the machines were last told.
    seen: Now,
    /// X.509 authorities of the own bundle, and those that have left it.
    trusted: BTreeSet<AuthorityId>,
    revoked: BTreeSet<AuthorityId>,
    domain: TrustDomain,
    position: Option<LogPosition>,
    /// The sealed state: what this life left so far.
    kept: Option<(cache::Snapshot, Option<LogPosition>)>,
    /// So many inputs came; the sealed state is written after every few.
    inputs: u64,
    /// SVIDs taken up of an earlier life while no server was heard: none of them is thrown away.
    taken_up: usize,
    sync: Sync,
    cache: Cache,
}

impl Agent {
    pub fn new(id: SpiffeId, seed: u64) -> Self {
        let domain = id.trust_domain().clone();
        let (sync, cache) = machines(&domain, seed);
        Self {
            id,
            life: 0,
            up: false,
            cut: false,
            server: 0,
            refused: None,
            clock: Clock::default(),
            unaware: false,
            wanted: BTreeSet::new(),
            held: BTreeMap::new(),
            views: BTreeMap::new(),
            signed_by: BTreeMap::new(),
            broken: Vec::new(),
            delivered: 0,
            tokens: 0,
            unreached: 0,
            waiting: BTreeMap::new(),
            lent: Vec::new(),
            processes: Processes::default(),
            touched: true,
            shown: false,
            coverage: Coverage::default(),
            phases: BTreeMap::new(),
            stream: 0,
            first_end: None,
            foreign: BTreeSet::new(),
            learnt: None,
            sizes: Default::default(),
            next_request: 0,
            seen: Now::default(),
            trusted: BTreeSet::new(),
            revoked: BTreeSet::new(),
            domain,
            position: None,
            kept: None,
            inputs: 0,
            taken_up: 0,
            sync,
            cache,
        }
    }

    /// A new process: nothing is remembered but what workloads want, and mostly what its last life left sealed.
    pub fn start(&mut self, now: Now, seed: u64) -> Vec<Ask> {
        (self.sync, self.cache) = machines(&self.domain, seed);
        self.life += 1;
        self.up = true;
        self.refused = None;
        self.position = None;
        self.held.clear();
        self.views.clear();
        self.waiting.clear();
        self.lent.clear();
        self.trusted.clear();
        self.revoked.clear();
        self.phases.clear();
        self.foreign.clear();
        self.learnt = None;
        self.stream = 0;
        self.taken_up = 0;
        let mut asks = Vec::new();
        match self.kept.take() {
            Some((left, position)) if !self.life.is_multiple_of(3) => {
                self.take_up(now, left, position, &mut asks);
            }
            _ => {}
        }
        for selectors in self.wanted.clone() {
            self.tell_cache(now, cache::Input::Subscribe { selectors, want: Want::X509 }, &mut asks);
        }
        self.tell_sync(now, sync::Input::Start, &mut asks);
        asks
    }

    fn take_up(
        &mut self,
        now: Now,
        left: cache::Snapshot,
        position: Option<LogPosition>,
        asks: &mut Vec<Ask>,
    ) {
        self.held = left.entries.iter().map(|e| (e.id.clone(), e.clone())).collect();
        self.revoked.clone_from(&left.distrusted);
        self.taken_up = left.x509.len();
        let version = |e: &Entry| Version { revision: e.revision_number, created_at: e.created_at };
        let known = left.entries.iter().map(|e| (e.id.clone(), version(e))).collect();
        let own = left.bundles.iter().find(|b| b.trust_domain == self.domain).cloned();
        self.tell_cache(now, cache::Input::Restore(Box::new(left)), asks);
        if let Some(own) = own {
            self.watch_authorities(now, &own, asks);
        }
        self.tell_sync(now, sync::Input::Restore { position, known }, asks);
    }

    /// Attested anew in the same process; the answer brought the own bundle along.
    pub fn restart_sync(&mut self, now: Now, own: Arc<Bundle>) -> Vec<Ask> {
        let mut asks = Vec::new();
        self.refused = None;
        self.watch_authorities(now, &own, &mut asks);
        self.tell_cache(now, cache::Input::Bundles { upserts: vec![own], removed: Vec::new() }, &mut asks);
        self.tell_sync(now, sync::Input::Start, &mut asks);
        asks
    }

    pub fn subscribe(&mut self, now: Now, selectors: SelectorSet) -> Vec<Ask> {
        let mut asks = Vec::new();
        if self.wanted.insert(selectors.clone()) && self.up {
            self.tell_cache(now, cache::Input::Subscribe { selectors, want: Want::X509 }, &mut asks);
        }
        asks
    }

    pub fn unsubscribe(&mut self, now: Now, selectors: &SelectorSet) -> Vec<Ask> {
        let mut asks = Vec::new();
        if self.wanted.remove(selectors) && self.up {
            let selectors = selectors.clone();
            self.views.remove(&selectors);
            self.tell_cache(now, cache::Input::Unsubscribe { selectors, want: Want::X509 }, &mut asks);
        }
        asks
    }

    /// A process asks for a token.
    pub fn want_token(&mut self, now: Now, (pin, selectors): (Pin, SelectorSet), audience: &str) -> Vec<Ask> {
        let mut asks = Vec::new();
        if self.up {
            self.next_request += 1;
            let request = self.next_request;
            self.waiting.insert(request, (pin, now.mono));
            let audience = vec![audience.to_owned()];
            self.tell_cache(
                now,
                cache::Input::JwtWanted { request, selectors, audience, id: None },
                &mut asks,
            );
        }
        asks
    }

    /// The host was suspended: nobody has waited in that time.
    pub fn waits_anew(&mut self, now: Now) {
        self.waiting.values_mut().for_each(|(_, since)| *since = now.mono);
    }

    /// A workload that waits for a token goes away.
    pub fn abandon_one(&mut self, now: Now) -> Vec<Ask> {
        let mut asks = Vec::new();
        if let Some((request, _)) = self.waiting.pop_first() {
            self.tell_cache(now, cache::Input::JwtAbandoned { request }, &mut asks);
        }
        asks
    }

    /// True if it is this life of it that has opened this stream, and none since.
    pub fn waits_for(&self, life: u64, stream: StreamId) -> bool {
        self.up && self.life == life && self.stream == stream
    }

    /// Names of everything that it would hand out.
    pub fn serves(&self, wall: Timestamp) -> impl Iterator<Item = &SpiffeId> {
        let held = self.held.values().filter(move |entry| !entry.is_expired(wall)).map(|e| &e.spiffe_id);
        held.chain(self.views.values().flat_map(|view| &view.identities).map(|identity| &identity.svid.id))
    }

    /// When the shell wakes up: it computes its sleep from the clock as it saw it last.
    pub fn next_wakeup(&self) -> Option<u64> {
        if !self.up {
            return None;
        }
        let next = self.sync.next_wakeup().into_iter().chain(self.cache.next_wakeup()).min();
        let sleep = next.map_or(SLEEP_MAX, |at| {
            u64::try_from(at.since(self.seen.wall).as_millis()).unwrap_or(SLEEP_MAX).min(SLEEP_MAX)
        });
        Some(self.seen.mono.0 + sleep)
    }

    pub fn tick(&mut self, now: Now) -> Vec<Ask> {
        self.unaware = false;
        let mut asks = Vec::new();
        self.tell_sync(now, sync::Input::Tick, &mut asks);
        self.tell_cache(now, cache::Input::Tick, &mut asks);
        asks
    }

    pub fn hear(&mut self, now: Now, tell: Tell) -> Vec<Ask> {
        let asks = &mut Vec::new();
        match tell {
            Tell::Frame { stream, frame } => self.tell_sync(now, sync::Input::Frame { stream, frame }, asks),
            Tell::Ended { stream, failure } => {
                self.tell_sync(now, sync::Input::FollowEnded { stream, failure }, asks);
            }
            Tell::Signed { ticket, entry, svid, authority } => {
                if let Some(leaf) = svid.chain.first() {
                    self.signed_by.insert(leaf.to_vec(), authority.clone());
                }
                let authorities = vec![authority];
                self.tell_cache(now, cache::Input::Signed { ticket, entry, svid, authorities }, asks);
            }
            Tell::SignFailed { ticket, entry, failure } => {
                if failure == SignFailure::Refused(NOT_ATTESTED.to_owned()) {
                    self.tell_sync(now, sync::Input::Refused(AgentRefusal::NotAttested), asks);
                }
                self.tell_cache(now, cache::Input::SignFailed { ticket, entry, failure }, asks);
            }
            Tell::Minted { ticket, svid, key_id } => {
                self.tell_cache(now, cache::Input::JwtSigned { ticket, svid, key_id }, asks);
            }
            Tell::MintFailed { ticket, failure } => {
                self.tell_cache(now, cache::Input::JwtFailed { ticket, failure }, asks);
            }
            Tell::Bundles(bundles) => self.tell_sync(now, sync::Input::BundlesFetched { bundles }, asks),
            Tell::BundlesFailed => self.tell_sync(now, sync::Input::BundlesFailed, asks),
            Tell::Polled { entries, unchanged, bundles, epoch } => {
                self.learnt = Some(epoch);
                let there: BTreeSet<_> = bundles.iter().map(|b| b.trust_domain.clone()).collect();
                let bundles_gone = self.foreign.difference(&there).cloned().collect();
                let polled = sync::Polled { entries, unchanged, bundles, bundles_gone };
                self.tell_sync(now, sync::Input::Polled(polled), asks);
            }
            Tell::PollFailed(failure) => self.tell_sync(now, sync::Input::PollFailed(failure), asks),
        }
        std::mem::take(asks)
    }

    /// Hands one input to the machine and performs everything that comes of it.
    fn tell_sync(&mut self, now: Now, input: sync::Input, asks: &mut Vec<Ask>) {
        (self.seen, self.touched) = (now, true);
        let late = |stream: &StreamId| *stream != self.stream;
        let cause = match &input {
            sync::Input::Frame { stream, .. } | sync::Input::FollowEnded { stream, .. } if late(stream) => {
                "late word"
            }
            other => sync::phase::kind(other),
        };
        let before = self.sync.phase();
        self.sync.handle(now, input);
        self.coverage.sync((before, cause, self.sync.phase()));
        while let Some(effect) = self.sync.poll() {
            self.perform_sync(now, effect, asks);
        }
        if let (Some(before), Some(after)) = (self.position, self.sync.position()) {
            self.broken.extend(invariants::inv6_position_only_grows(before, after).err());
        }
        self.position = self.sync.position();
        self.inputs += 1;
        if self.up && self.refused.is_none() && self.inputs.is_multiple_of(8) {
            self.kept = Some((self.cache.snapshot(), self.sync.settled_position()));
        }
        self.learnt = self.position.map(|position| position.epoch).or(self.learnt);
    }

    fn tell_cache(&mut self, now: Now, input: cache::Input, asks: &mut Vec<Ask>) {
        (self.seen, self.touched) = (now, true);
        let cause = cache::phase::kind(&input);
        let of_it = named(&input);
        self.cache.handle(now, input);
        let mut effects = 0;
        while let Some(effect) = self.cache.poll() {
            effects += 1;
            if effects > EFFECTS_MAX {
                self.broken.push(Broken { number: 9, what: format!("the cache never rests after {cause}") });
                return;
            }
            // Each input brings the time along, and with it what is due.
            let by_time = about_tokens(cause) && !about_tokens(cache::phase::effect(&effect));
            self.coverage.answer(if by_time { "tick" } else { cause }, cache::phase::effect(&effect));
            self.perform_cache(now, effect, asks);
        }
        self.lent.retain(|(.., until)| *until > now.wall);
        self.broken.extend(self.lent_is_wrong(now));
        if self.coverage.on {
            self.watch_entries(cause, &of_it);
            if let Some(id) = self.cache.miscounted() {
                let what = format!("{} has miscounted who wants {id}, after {cause}", self.id);
                self.broken.push(Broken { number: 10, what });
            }
        }
    }

    /// Counts what has become of each entry. `named`: those that the input spoke of; none = it spoke of all.
    fn watch_entries(&mut self, cause: &'static str, named: &Option<Vec<EntryId>>) {
        use cache::phase::Phase;
        let now: BTreeMap<_, _> = self.cache.phases().map(|(id, phase)| (id.clone(), phase)).collect();
        let before = std::mem::take(&mut self.phases);
        let ids: BTreeSet<_> = before.keys().chain(now.keys()).collect();
        for id in ids {
            let of = |map: &BTreeMap<EntryId, Phase>| map.get(id).copied().unwrap_or(Phase::Absent);
            let (old, new) = (of(&before), of(&now));
            let spoken_of = named.as_ref().is_none_or(|named| named.contains(id));
            if old != new {
                self.coverage.slot((old, if spoken_of { cause } else { "tick" }, new));
            }
        }
        self.phases = now;
    }

    fn perform_sync(&mut self, now: Now, effect: sync::Effect, asks: &mut Vec<Ask>) {
        match effect {
            sync::Effect::OpenFollow { stream, position, known } => {
                self.stream = stream;
                asks.push(Ask::Open { stream, position, known });
            }
            sync::Effect::Ack { stream, revision } => asks.push(Ask::Ack { stream, revision }),
            sync::Effect::FetchBundles { domains } => asks.push(Ask::Fetch { domains }),
            sync::Effect::Poll { whole, known } => asks.push(Ask::Poll { whole, known }),
            sync::Effect::Entries { upserts, removed } => {
                for id in &removed {
                    self.held.remove(id);
                }
                self.held.extend(upserts.iter().map(|e| (e.id.clone(), e.clone())));
                self.tell_cache(now, cache::Input::Entries { upserts, removed }, asks);
            }
            sync::Effect::Bundles { upserts, removed } => {
                let domain = self.domain.clone();
                for own in upserts.iter().filter(|b| b.trust_domain == domain) {
                    self.watch_authorities(now, own, asks);
                }
                let foreign = upserts.iter().map(|b| b.trust_domain.clone()).filter(|d| *d != domain);
                self.foreign.extend(foreign);
                self.foreign.retain(|d| !removed.contains(d));
                self.tell_cache(now, cache::Input::Bundles { upserts, removed }, asks);
            }
            sync::Effect::Synced => {
                // Only now does the cache make room: before, it keeps what it took up.
                self.taken_up = 0;
                self.tell_cache(now, cache::Input::Synced, asks);
            }
            sync::Effect::Connected => self.tell_cache(now, cache::Input::UpstreamBack, asks),
            sync::Effect::Refused(refusal) => {
                self.kept = None;
                self.refused = Some(refusal);
            }
            sync::Effect::CloseFollow { stream } => asks.push(Ask::Close { stream }),
            sync::Effect::ServerTime(_)
            | sync::Effect::Renewed(_)
            | sync::Effect::Away(_)
            | sync::Effect::Alarm(_)
            | sync::Effect::Resync(_) => {}
        }
    }

    fn perform_cache(&mut self, now: Now, effect: cache::Effect, asks: &mut Vec<Ask>) {
        match effect {
            cache::Effect::Sign { ticket, entry, .. } => asks.push(Ask::Sign { ticket, entry }),
            cache::Effect::Deliver { selectors, update } => {
                self.delivered += 1;
                self.judge(now, &selectors, &update);
                self.views.insert(selectors, update);
                self.find_first_end();
            }
            cache::Effect::Drop { selectors } => {
                self.views.remove(&selectors);
                self.find_first_end();
            }
            cache::Effect::MintJwt { ticket, entry, .. } => asks.push(Ask::Mint { ticket, entry }),
            cache::Effect::AnswerJwt { request, answer, lent_until } => {
                self.answered(now, request, answer, lent_until);
            }
            cache::Effect::RecallJwt => self.lent.clear(),
            cache::Effect::Hurry { .. } | cache::Effect::NobodyWaits { .. } => {}
        }
    }

    fn find_first_end(&mut self) {
        self.shown = true;
        let held = self.views.values().flat_map(|view| &view.identities);
        self.first_end = held.map(|identity| identity.svid.not_after).min();
    }

    /// What the cache knows of some entries, for a report.
    pub fn says_of<'a>(&self, ids: impl Iterator<Item = &'a EntryId>) -> String {
        let phases: BTreeMap<_, _> = self.cache.phases().collect();
        let one = |id| format!("{id} is {:?} ({:?})", phases.get(id), self.cache.entry_error(id));
        ids.map(one).collect::<Vec<_>>().join(", ")
    }

    /// The authority and the end of what ends first, for the trace.
    pub fn oldest(&self) -> Option<(AuthorityId, Timestamp)> {
        let held = self.views.values().flat_map(|view| &view.identities);
        let oldest = held.min_by_key(|identity| identity.svid.not_after)?;
        let leaf = oldest.svid.chain.first()?;
        Some((self.signed_by.get(&**leaf)?.clone(), oldest.svid.not_after))
    }

    pub fn revision(&self) -> u64 {
        self.position.map_or(0, |position| position.revision.0)
    }

    /// Tells the cache which of the own authorities are tainted, and which have left the bundle.
    fn watch_authorities(&mut self, now: Now, own: &Bundle, asks: &mut Vec<Ask>) {
        let all = own.x509_authorities.iter().map(|a| (id_of(&a.der), a.tainted));
        let trusted: BTreeSet<_> = all.clone().map(|(id, _)| id).collect();
        let left: Vec<_> = self.trusted.difference(&trusted).cloned().collect();
        let pace = if left.is_empty() { Pace::Among(self.sync.fleet()) } else { Pace::AtOnce };
        self.revoked.extend(left);
        self.trusted = trusted;
        let tainted = all.filter(|(_, tainted)| *tainted).map(|(id, _)| id);
        let authorities = tainted.chain(self.revoked.iter().cloned()).collect();
        self.tell_cache(now, cache::Input::Distrusted { authorities, pace }, asks);
    }
}

/// True for the kinds of inputs and effects that are about tokens.
fn about_tokens(kind: &str) -> bool {
    matches!(
        kind,
        "token wanted"
            | "caller gone"
            | "minted"
            | "mint refused"
            | "mint lost"
            | "mint"
            | "nobody waits"
            | "tokens"
            | "no identity"
            | "unavailable"
            | "recall"
    )
}

/// The entries an input speaks of; `None`: it may touch any.
fn named(input: &cache::Input) -> Option<Vec<EntryId>> {
    match input {
        cache::Input::Entries { upserts, removed } => {
            Some(upserts.iter().map(|e| e.id.clone()).chain(removed.iter().cloned()).collect())
        }
        cache::Input::Signed { entry, .. } | cache::Input::SignFailed { entry, .. } => {
            Some(vec![entry.clone()])
        }
        cache::Input::Subscribe { .. }
        | cache::Input::Unsubscribe { .. }
        | cache::Input::UpstreamBack
        | cache::Input::Restore(_)
        | cache::Input::Distrusted { .. } => None,
        _ => Some(Vec::new()),
    }
}

fn machines(domain: &TrustDomain, seed: u64) -> (Sync, Cache) {
    let poll_interval = Duration::from_secs(5);
    let sync = Sync::new(sync::Settings { poll_interval, sync_entries: true, seed });
    let settings = cache::Settings {
        trust_domain: domain.clone(),
        x509_max: X509_MAX,
        jwt_max: JWT_MAX,
        availability_target: None,
        seed: seed.rotate_left(7),
    };
    (sync, Cache::new(settings))
}
