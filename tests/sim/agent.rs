//! One agent: the real sync and cache machines; its sockets and its workloads are played.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use avouch_domain::{
    AuthorityId, Entry, EntryId, LogPosition, Now, SelectorSet, SpiffeId, Timestamp, TrustDomain,
};
use avouch_engine::Machine;
use avouch_engine::cache::{self, Cache, Want, WorkloadUpdate};
use avouch_engine::invariants::{self, Broken};
use avouch_engine::sync::{self, AgentRefusal, Sync};

use crate::net::{Ask, Tell};

#[derive(Debug)]
pub struct Agent {
    pub index: usize,
    pub id: SpiffeId,
    /// Rises with every restart: messages for an earlier life are not for this one.
    pub life: u64,
    pub up: bool,
    /// Cut off from every server.
    pub cut: bool,
    /// The server it is connected to.
    pub server: usize,
    pub refused: Option<AgentRefusal>,
    /// When something last went wrong for it.
    pub troubled_at: Timestamp,
    /// What its workloads ask for; survives its restarts.
    pub wanted: BTreeSet<SelectorSet>,
    pub held: BTreeMap<EntryId, Entry>,
    pub views: BTreeMap<SelectorSet, Arc<WorkloadUpdate>>,
    pub signed_by: BTreeMap<Vec<u8>, AuthorityId>,
    pub broken: Vec<Broken>,
    pub delivered: u64,
    domain: TrustDomain,
    position: Option<LogPosition>,
    sync: Sync,
    cache: Cache,
}

impl Agent {
    pub fn new(index: usize, id: SpiffeId, seed: u64) -> Self {
        let domain = id.trust_domain().clone();
        let (sync, cache) = machines(&domain, seed);
        Self {
            index,
            id,
            life: 0,
            up: false,
            cut: false,
            server: 0,
            refused: None,
            troubled_at: Timestamp(0),
            wanted: BTreeSet::new(),
            held: BTreeMap::new(),
            views: BTreeMap::new(),
            signed_by: BTreeMap::new(),
            broken: Vec::new(),
            delivered: 0,
            domain,
            position: None,
            sync,
            cache,
        }
    }

    /// A new process: nothing is remembered but what workloads want.
    pub fn start(&mut self, now: Now, seed: u64) -> Vec<Ask> {
        (self.sync, self.cache) = machines(&self.domain, seed);
        self.life += 1;
        self.up = true;
        self.refused = None;
        self.position = None;
        self.held.clear();
        self.views.clear();
        for selectors in self.wanted.clone() {
            self.cache.handle(now, cache::Input::Subscribe { selectors, want: Want::X509 });
        }
        self.sync.handle(now, sync::Input::Start);
        self.drain(now)
    }

    /// Attested anew in the same process.
    pub fn restart_sync(&mut self, now: Now) -> Vec<Ask> {
        self.refused = None;
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

    pub fn next_wakeup(&self) -> Option<Timestamp> {
        if !self.up {
            return None;
        }
        self.sync.next_wakeup().into_iter().chain(self.cache.next_wakeup()).min()
    }

    pub fn tick(&mut self, now: Now) -> Vec<Ask> {
        self.sync.handle(now, sync::Input::Tick);
        self.cache.handle(now, cache::Input::Tick);
        self.drain(now)
    }

    pub fn hear(&mut self, now: Now, tell: Tell) -> Vec<Ask> {
        match tell {
            Tell::Frame { stream, frame } => self.sync.handle(now, sync::Input::Frame { stream, frame }),
            Tell::Ended { stream, failure } => {
                self.troubled_at = now.wall;
                self.sync.handle(now, sync::Input::FollowEnded { stream, failure });
            }
            Tell::Signed { ticket, entry, svid, authority } => {
                if let Some(leaf) = svid.chain.first() {
                    self.signed_by.insert(leaf.to_vec(), authority.clone());
                }
                self.cache
                    .handle(now, cache::Input::Signed { ticket, entry, svid, authorities: vec![authority] });
            }
            Tell::SignFailed { ticket, entry, failure } => {
                self.cache.handle(now, cache::Input::SignFailed { ticket, entry, failure });
            }
            Tell::Bundles(bundles) => self.sync.handle(now, sync::Input::BundlesFetched { bundles }),
            Tell::BundlesFailed => self.sync.handle(now, sync::Input::BundlesFailed),
        }
        self.drain(now)
    }

    /// Performs what the machines ask for until both are quiet; gives what goes to the server.
    fn drain(&mut self, now: Now) -> Vec<Ask> {
        let mut asks = Vec::new();
        loop {
            if let Some(effect) = self.sync.poll() {
                self.perform_sync(now, effect, &mut asks);
            } else if let Some(effect) = self.cache.poll() {
                self.perform_cache(now, effect, &mut asks);
            } else {
                break;
            }
        }
        if let (Some(before), Some(after)) = (self.position, self.sync.position()) {
            self.broken.extend(invariants::inv6_position_only_grows(before, after).err());
        }
        self.position = self.sync.position();
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
                self.cache.handle(now, cache::Input::Bundles { upserts, removed });
            }
            sync::Effect::Synced => self.cache.handle(now, cache::Input::Synced),
            sync::Effect::Connected => self.cache.handle(now, cache::Input::UpstreamBack),
            sync::Effect::Refused(refusal) => {
                self.troubled_at = now.wall;
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
            cache::Effect::Hurry { .. } | cache::Effect::MintJwt { .. } | cache::Effect::AnswerJwt { .. } => {
            }
        }
    }

    /// INV-1 and INV-2 at the moment of delivery.
    fn judge(&mut self, now: Now, selectors: &SelectorSet, update: &WorkloadUpdate) {
        for identity in &update.identities {
            let entitled = self.held.get(&identity.entry_id).is_some_and(|entry| {
                entry.selector_set().is_subset_of(selectors) && entry.spiffe_id == identity.svid.id
            });
            if !entitled {
                let what = format!("{} delivered to {selectors:?} of {}", identity.svid.id, self.id);
                self.broken.push(Broken { number: 1, what });
            }
            if identity.svid.not_after <= now.wall {
                let what = format!("{} delivered at its end {}", identity.svid.id, identity.svid.not_after);
                self.broken.push(Broken { number: 2, what });
            }
        }
    }

    /// INV-3 Nothing a subscriber holds is past its end, although it may have been cut off for long.
    pub fn holds_nothing_expired(&self, now: Now) -> Option<Broken> {
        let late = self.views.values().flat_map(|v| &v.identities).find(|i| i.svid.not_after < now.wall)?;
        Some(Broken { number: 3, what: format!("{} still held at {}", late.svid.id, now.wall) })
    }

    /// INV-4 at the edge: whatever is held verifies with the bundle held beside it.
    pub fn holds_nothing_unverifiable(&self) -> Option<Broken> {
        for view in self.views.values() {
            for identity in &view.identities {
                let authority =
                    identity.svid.chain.first().and_then(|leaf| self.signed_by.get(&leaf.to_vec()));
                let Some(authority) = authority else { continue };
                if !view.own.x509_authorities.iter().any(|a| *a.der == *authority.as_bytes()) {
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
        }
        None
    }
}

fn machines(domain: &TrustDomain, seed: u64) -> (Sync, Cache) {
    let poll_interval = std::time::Duration::from_secs(5);
    let sync = Sync::new(sync::Settings { poll_interval, sync_entries: true, seed });
    let settings = cache::Settings {
        trust_domain: domain.clone(),
        x509_max: 4,
        jwt_max: 4,
        availability_target: None,
        seed: seed.rotate_left(7),
    };
    (sync, Cache::new(settings))
}
