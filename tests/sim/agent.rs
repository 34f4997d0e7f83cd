//! One agent: the real sync and cache machines; its sockets and its workloads are played.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::{
    AuthorityId, Bundle, Entry, EntryId, JwtSvid, LogPosition, Now, SelectorSet, SpiffeId, Tick, TrustDomain,
};
use avouch_engine::Machine;
use avouch_engine::cache::{self, Cache, Want, WorkloadUpdate};
use avouch_engine::invariants::{self, Broken};
use avouch_engine::sync::{self, AgentRefusal, Sync, Version};

use crate::clock::Clock;
use crate::net::{Ask, Tell};
use crate::server::id_of;

/// The longest a shell sleeps: so late does it notice that its clock was set.
const SLEEP_MAX: u64 = 30_000;
/// So much later does a sleep of that length end by a clock that runs fast by the most this world knows.
const SLEEP_SLACK: Duration = Duration::from_millis(100);
const X509_MAX: usize = 4;
const JWT_MAX: usize = 4;
/// Replacements of SVIDs by a tainted authority are spread over this long.
const TAINT_SPREAD: Duration = Duration::from_secs(10);
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
    /// Callers that wait for a token, and since when.
    pub waiting: BTreeMap<u64, (SelectorSet, Tick)>,
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
            waiting: BTreeMap::new(),
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
        self.trusted.clear();
        self.revoked.clear();
        self.taken_up = 0;
        match self.kept.take() {
            Some((left, position)) if !self.life.is_multiple_of(3) => self.take_up(now, left, position),
            _ => {}
        }
        for selectors in self.wanted.clone() {
            self.cache.handle(now, cache::Input::Subscribe { selectors, want: Want::X509 });
        }
        self.sync.handle(now, sync::Input::Start);
        self.drain(now)
    }

    fn take_up(&mut self, now: Now, left: cache::Snapshot, position: Option<LogPosition>) {
        self.held = left.entries.iter().map(|e| (e.id.clone(), e.clone())).collect();
        self.revoked.clone_from(&left.distrusted);
        self.taken_up = left.x509.len();
        let version = |e: &Entry| Version { revision: e.revision_number, created_at: e.created_at };
        let known = left.entries.iter().map(|e| (e.id.clone(), version(e))).collect();
        let own = left.bundles.iter().find(|b| b.trust_domain == self.domain).cloned();
        self.cache.handle(now, cache::Input::Restore(Box::new(left)));
        if let Some(own) = own {
            self.watch_authorities(now, &own);
        }
        self.sync.handle(now, sync::Input::Restore { position, known });
    }

    /// Attested anew in the same process; the answer brought the own bundle along.
    pub fn restart_sync(&mut self, now: Now, own: Arc<Bundle>) -> Vec<Ask> {
        self.refused = None;
        self.watch_authorities(now, &own);
        self.cache.handle(now, cache::Input::Bundles { upserts: vec![own], removed: Vec::new() });
        self.sync.handle(now, sync::Input::Start);
        self.drain(now)
    }

    pub fn subscribe(&mut self, now: Now, selectors: SelectorSet) -> Vec<Ask> {
        if self.wanted.insert(selectors.clone()) && self.up {
            self.cache.handle(now, cache::Input::Subscribe { selectors, want: Want::X509 });
        }
        self.drain(now)
    }

    pub fn unsubscribe(&mut self, now: Now, selectors: &SelectorSet) -> Vec<Ask> {
        if self.wanted.remove(selectors) && self.up {
            let selectors = selectors.clone();
            self.views.remove(&selectors);
            self.cache.handle(now, cache::Input::Unsubscribe { selectors, want: Want::X509 });
        }
        self.drain(now)
    }

    /// A workload asks for a token.
    pub fn want_token(&mut self, now: Now, selectors: SelectorSet, audience: &str) -> Vec<Ask> {
        if !self.up {
            return Vec::new();
        }
        self.next_request += 1;
        let request = self.next_request;
        self.waiting.insert(request, (selectors.clone(), now.mono));
        let audience = vec![audience.to_owned()];
        self.cache.handle(now, cache::Input::JwtWanted { request, selectors, audience, id: None });
        self.drain(now)
    }

    /// The host was suspended: nobody has waited in that time.
    pub fn waits_anew(&mut self, now: Now) {
        self.waiting.values_mut().for_each(|(_, since)| *since = now.mono);
    }

    /// A workload that waits for a token goes away.
    pub fn abandon_one(&mut self, now: Now) {
        if let Some((request, _)) = self.waiting.pop_first() {
            self.cache.handle(now, cache::Input::JwtAbandoned { request });
        }
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
        self.sync.handle(now, sync::Input::Tick);
        self.cache.handle(now, cache::Input::Tick);
        self.drain(now)
    }

    pub fn hear(&mut self, now: Now, tell: Tell) -> Vec<Ask> {
        match tell {
            Tell::Frame { stream, frame } => self.sync.handle(now, sync::Input::Frame { stream, frame }),
            Tell::Ended { stream, failure } => {
                self.sync.handle(now, sync::Input::FollowEnded { stream, failure });
            }
            Tell::Signed { ticket, entry, svid, authority } => {
                if let Some(leaf) = svid.chain.first() {
                    self.signed_by.insert(leaf.to_vec(), authority.clone());
                }
                self.taken_up = 0;
                self.cache
                    .handle(now, cache::Input::Signed { ticket, entry, svid, authorities: vec![authority] });
            }
            Tell::SignFailed { ticket, entry, failure } => {
                self.cache.handle(now, cache::Input::SignFailed { ticket, entry, failure });
            }
            Tell::Minted { ticket, svid, key_id } => {
                self.cache.handle(now, cache::Input::JwtSigned { ticket, svid, key_id });
            }
            Tell::MintFailed { ticket, failure } => {
                self.cache.handle(now, cache::Input::JwtFailed { ticket, failure });
            }
            Tell::Bundles(bundles) => self.sync.handle(now, sync::Input::BundlesFetched { bundles }),
            Tell::BundlesFailed => self.sync.handle(now, sync::Input::BundlesFailed),
        }
        self.drain(now)
    }

    /// Performs what the machines ask for until both are quiet; gives what goes to the server.
    fn drain(&mut self, now: Now) -> Vec<Ask> {
        let mut asks = Vec::new();
        self.seen = now;
        loop {
            if let Some(effect) = self.cache.poll() {
                self.perform_cache(now, effect, &mut asks);
            } else if let Some(effect) = self.sync.poll() {
                self.perform_sync(now, effect, &mut asks);
            } else {
                break;
            }
        }
        if let (Some(before), Some(after)) = (self.position, self.sync.position()) {
            self.broken.extend(invariants::inv6_position_only_grows(before, after).err());
        }
        self.position = self.sync.position();
        self.inputs += 1;
        if self.up && self.refused.is_none() && self.inputs.is_multiple_of(8) {
            self.kept = Some((self.cache.snapshot(), self.sync.settled_position()));
        }
        asks
    }

    fn perform_sync(&mut self, now: Now, effect: sync::Effect, asks: &mut Vec<Ask>) {
        match effect {
            sync::Effect::OpenFollow { stream, position, known } => {
                asks.push(Ask::Open { stream, position, known })
            }
            sync::Effect::Ack { stream, revision } => asks.push(Ask::Ack { stream, revision }),
            sync::Effect::FetchBundles { domains } => asks.push(Ask::Fetch { domains }),
            sync::Effect::Entries { upserts, removed } => {
                for id in &removed {
                    self.held.remove(id);
                }
                self.held.extend(upserts.iter().map(|e| (e.id.clone(), e.clone())));
                self.cache.handle(now, cache::Input::Entries { upserts, removed });
            }
            sync::Effect::Bundles { upserts, removed } => {
                let domain = self.domain.clone();
                for own in upserts.iter().filter(|b| b.trust_domain == domain) {
                    self.watch_authorities(now, own);
                }
                self.cache.handle(now, cache::Input::Bundles { upserts, removed });
            }
            sync::Effect::Synced => self.cache.handle(now, cache::Input::Synced),
            sync::Effect::Connected => {
                self.taken_up = 0;
                self.cache.handle(now, cache::Input::UpstreamBack);
            }
            sync::Effect::Refused(refusal) => {
                self.kept = None;
                self.refused = Some(refusal);
            }
            sync::Effect::Poll { .. } => {
                self.broken.push(Broken { number: 10, what: "polls a server that pushes".into() });
            }
            sync::Effect::CloseFollow { .. } | sync::Effect::ServerTime(_) | sync::Effect::Alarm(_) => {}
        }
    }

    fn perform_cache(&mut self, now: Now, effect: cache::Effect, asks: &mut Vec<Ask>) {
        match effect {
            cache::Effect::Sign { ticket, entry, .. } => asks.push(Ask::Sign { ticket, entry }),
            cache::Effect::Deliver { selectors, update } => {
                self.delivered += 1;
                self.judge(now, &selectors, &update);
                self.views.insert(selectors, update);
            }
            cache::Effect::Drop { selectors } => {
                self.views.remove(&selectors);
            }
            cache::Effect::MintJwt { ticket, entry, .. } => asks.push(Ask::Mint { ticket, entry }),
            cache::Effect::AnswerJwt { request, answer } => self.answered(now, request, answer),
            cache::Effect::Hurry { .. } => {}
        }
    }

    /// Tells the cache which of the own authorities are tainted, and which have left the bundle.
    fn watch_authorities(&mut self, now: Now, own: &Bundle) {
        let all = own.x509_authorities.iter().map(|a| (id_of(&a.der), a.tainted));
        let trusted: BTreeSet<_> = all.clone().map(|(id, _)| id).collect();
        let left: Vec<_> = self.trusted.difference(&trusted).cloned().collect();
        let spread = if left.is_empty() { TAINT_SPREAD } else { Duration::ZERO };
        self.revoked.extend(left);
        self.trusted = trusted;
        let tainted = all.filter(|(_, tainted)| *tainted).map(|(id, _)| id);
        let authorities = tainted.chain(self.revoked.iter().cloned()).collect();
        self.cache.handle(now, cache::Input::Distrusted { authorities, spread });
    }

    /// The entries these selectors are entitled to, found without the cache's index.
    fn entitled(&self, now: Now, selectors: &SelectorSet) -> Vec<&Entry> {
        let fits = |e: &&Entry| e.selector_set().is_subset_of(selectors) && !e.is_expired(now.wall);
        self.held.values().filter(fits).collect()
    }

    /// INV-1 and INV-2 at the moment of delivery.
    fn judge(&mut self, now: Now, selectors: &SelectorSet, update: &WorkloadUpdate) {
        let entitled = self.entitled(now, selectors);
        let one = invariants::inv1_delivered_is_entitled(update, &entitled).err();
        let two = invariants::inv2_nothing_expired(update, now.wall).err();
        self.broken.extend(one.into_iter().chain(two));
    }

    /// The same for tokens; and every caller is answered once.
    fn answered(&mut self, now: Now, request: u64, answer: Result<Vec<cache::JwtGrant>, cache::JwtRefusal>) {
        let Some((selectors, _)) = self.waiting.remove(&request) else {
            self.broken.push(Broken { number: 1, what: format!("caller {request} is answered twice") });
            return;
        };
        for grant in answer.into_iter().flatten() {
            self.tokens += 1;
            self.broken.extend(self.token_is_wrong(now, &selectors, &grant.entry_id, &grant.svid));
        }
    }

    fn token_is_wrong(
        &self,
        now: Now,
        selectors: &SelectorSet,
        entry: &EntryId,
        svid: &JwtSvid,
    ) -> Option<Broken> {
        let entitled = self.entitled(now, selectors);
        if !entitled.iter().any(|e| e.id == *entry && e.spiffe_id == svid.id) {
            let what = format!(
                "a token of {} for {selectors:?} of {}, which holds {:?} at {}",
                svid.id,
                self.id,
                self.held.get(entry).map(|e| (e.selector_set(), &e.spiffe_id, e.expires_at)),
                now.wall
            );
            return Some(Broken { number: 1, what });
        }
        invariants::inv2_token_is_alive(svid, now.wall).err()
    }

    /// INV-3 Nothing a subscriber holds is past its end, although it may have been cut off for long.
    pub fn holds_nothing_expired(&self, now: Now) -> Option<Broken> {
        if self.unaware {
            return None;
        }
        let wall = now.wall - SLEEP_SLACK;
        self.views.values().find_map(|view| invariants::inv3_holds_nothing_expired(view, wall).err())
    }

    /// INV-9 What one agent keeps stays within what it is for.
    pub fn keeps_within_limits(&self, now: Now) -> Option<Broken> {
        let counts = self.cache.counts();
        let matched =
            |set: &SelectorSet| self.held.values().filter(|e| e.selector_set().is_subset_of(set)).count();
        let used: usize = self.wanted.iter().map(matched).sum();
        let limits = [
            ("entries", counts.entries, self.held.len()),
            ("X509-SVIDs", counts.x509_held, (X509_MAX + used).max(self.taken_up)),
            ("JWT-SVIDs", counts.jwt_held, JWT_MAX),
            ("selector sets", counts.subscribed_sets, self.wanted.len()),
        ];
        let late = |(_, since): &&(SelectorSet, Tick)| now.mono.0 > since.0 + ANSWER_MAX;
        if let Some((selectors, since)) = self.waiting.values().find(late) {
            let what = format!("a caller with {selectors:?} of {} waits since {}", self.id, since.0);
            return Some(Broken { number: 9, what });
        }
        limits.into_iter().find_map(|(name, n, most)| invariants::inv9_queue_is_bounded(name, n, most).err())
    }

    /// INV-4 at the edge: whatever is held verifies with the bundle held beside it. Gives the first authority for
    /// which it does not, of those that `excused` does not name.
    pub fn holds_something_unverifiable(&self, excused: impl Fn(&AuthorityId) -> bool) -> Option<Broken> {
        for view in self.views.values() {
            let known = |id: &AuthorityId| view.own.x509_authorities.iter().any(|a| id_of(&a.der) == *id);
            for identity in &view.identities {
                let authority = identity.svid.chain.first().and_then(|leaf| self.signed_by.get(&**leaf));
                let Some(authority) = authority.filter(|id| !known(id) && !excused(id)) else { continue };
                let what = format!(
                    "{} of {authority}, which the bundle beside it lacks ({} at {:?}, pushed: {}, server {})",
                    identity.svid.id,
                    self.id,
                    self.position,
                    self.sync.is_pushed(),
                    self.server
                );
                return Some(Broken { number: 4, what });
            }
        }
        None
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
