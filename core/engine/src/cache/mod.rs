//! The agent's cache: entries × selectors × SVIDs × subscribers.
//!
//! Decides who gets which identity, what is signed and when, and what is thrown away. Never hands out an expired
//! SVID (INV-2) or one of an entry that does not match (INV-1), never lets one bad entry delay another, and never
//! looks at all entries to answer one caller.

mod asked;
mod delivery;
mod index;
mod jwt;
#[cfg(feature = "faults")]
pub mod phase;
mod slot;
mod snapshot;
#[cfg(test)]
mod tests;
mod types;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::{
    AuthorityId, Bundle, Entry, EntryId, Now, SelectorSet, SpiffeId, Tick, Timestamp, TrustDomain,
};

use self::index::{EntryIndex, SetIndex};
use self::jwt::Jwts;
use self::slot::Slot;
use self::snapshot::Early;
pub use self::snapshot::{KeptJwt, KeptX509, Snapshot};
pub use self::types::{
    Counts, Effect, Identity, Input, JwtGrant, JwtRefusal, Nearest, Priority, RequestId, Settings,
    SignFailure, Tally, Ticket, Want, WorkloadUpdate,
};
use crate::backoff::Jitter;
use crate::machine::Machine;

/// All subscribers with one selector set.
#[derive(Debug)]
struct Group {
    selectors: SelectorSet,
    x509: usize,
    bundles: usize,
    matched: BTreeSet<EntryId>,
    last: Option<Arc<WorkloadUpdate>>,
}

/// Moments at which something happens to entries by itself.
#[derive(Debug, Default)]
struct Timers {
    wall: BTreeSet<(Timestamp, EntryId)>,
    mono: BTreeSet<(Tick, EntryId)>,
}

/// See the module.
#[derive(Debug)]
pub struct Cache {
    settings: Settings,
    jitter: Jitter,
    now: Now,
    synced: bool,
    /// Went on from an earlier life, and has not heard the server's whole word since: what is thrown away can't be
    /// had again, and what is signed may be of an authority that the kept bundle lacks.
    cut_off: bool,
    /// Signatures that came while cut off.
    early: Early,
    /// Boxed: half of a tree's places are empty.
    slots: BTreeMap<EntryId, Box<Slot>>,
    entries: EntryIndex,
    groups: BTreeMap<u64, Group>,
    numbers: BTreeMap<SelectorSet, u64>,
    sets: SetIndex,
    next_group: u64,
    next_ticket: Ticket,
    /// Rises with every use; the order of eviction.
    clock: u64,
    /// Entries with an SVID and no subscriber, least recently used first.
    idle: BTreeSet<(u64, EntryId)>,
    /// Entries without SVID and subscriber that may be signed ahead.
    ahead: BTreeSet<EntryId>,
    held: usize,
    /// Entries being signed for the first time.
    coming: usize,
    federating: BTreeMap<TrustDomain, BTreeSet<EntryId>>,
    bundles: BTreeMap<TrustDomain, Arc<Bundle>>,
    distrusted: BTreeSet<AuthorityId>,
    tally: Tally,
    jwts: Jwts,
    timers: Timers,
    dirty: BTreeSet<u64>,
    effects: VecDeque<Effect>,
}

impl Cache {
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let mut jitter = Jitter::new(settings.seed);
        let jwts = Jwts::new(settings.jwt_max, jitter.fork());
        Self {
            settings,
            jitter,
            now: Now::default(),
            synced: false,
            cut_off: false,
            early: Early::default(),
            slots: BTreeMap::new(),
            entries: EntryIndex::default(),
            groups: BTreeMap::new(),
            numbers: BTreeMap::new(),
            sets: SetIndex::default(),
            next_group: 0,
            next_ticket: 0,
            clock: 0,
            idle: BTreeSet::new(),
            ahead: BTreeSet::new(),
            held: 0,
            coming: 0,
            federating: BTreeMap::new(),
            bundles: BTreeMap::new(),
            distrusted: BTreeSet::new(),
            tally: Tally::default(),
            jwts,
            timers: Timers::default(),
            dirty: BTreeSet::new(),
            effects: VecDeque::new(),
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        self.next_ticket
    }

    // --- entries ---

    fn upsert(&mut self, entry: Entry) {
        let id = entry.id.clone();
        if entry.is_node_alias() || entry.store_svid || entry.is_expired(self.now.wall) {
            self.remove(&id);
            return;
        }
        match self.slots.get(&id) {
            Some(slot) if slot.entry == entry => {}
            Some(_) => self.change(&id, entry),
            None => self.add(&id, entry),
        }
    }

    fn add(&mut self, id: &EntryId, entry: Entry) {
        self.entries.insert(id, entry.selector_set());
        self.federate(id, &entry);
        let groups = self.sets.holding(entry.selector_set());
        self.clock += 1;
        self.slots.insert(id.clone(), Box::new(Slot::new(entry, self.clock)));
        for number in groups {
            self.join(number, id);
        }
        self.reconcile(id);
    }

    fn change(&mut self, id: &EntryId, entry: Entry) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let old = std::mem::replace(&mut slot.entry, entry.clone());
        slot.hint = slot::hint(&entry);
        slot.forgive();
        let renamed = old.spiffe_id != entry.spiffe_id;
        let new_version =
            renamed || old.revision_number != entry.revision_number || old.created_at != entry.created_at;
        if renamed {
            // What is under way would carry a name this entry no longer grants.
            self.take_signing(id);
            self.take_held(id);
        } else if new_version {
            self.outdate(id);
        }
        if new_version {
            self.jwts.forget_entry(id);
        }
        if renamed {
            self.jwts.withdraw(id);
        }
        self.unfederate(id, &old);
        self.federate(id, &entry);
        if old.selector_set() != entry.selector_set() {
            self.rematch(id, entry.selector_set());
        }
        self.mark_groups_of(id);
        self.reconcile(id);
    }

    fn rematch(&mut self, id: &EntryId, set: &SelectorSet) {
        self.entries.insert(id, set);
        let new = self.sets.holding(set);
        let old = self.slots.get(id).map(|slot| slot.groups.clone()).unwrap_or_default();
        for number in old.difference(&new) {
            self.leave(*number, id);
        }
        for number in new.difference(&old) {
            self.join(*number, id);
        }
        // A caller that waits for a token of this entry may no longer match.
        self.jwts.withdraw_unless(id, set);
    }

    fn remove(&mut self, id: &EntryId) {
        if !self.slots.contains_key(id) {
            return;
        }
        self.take_signing(id);
        self.take_held(id);
        let Some(slot) = self.slots.remove(id) else { return };
        self.entries.remove(id);
        self.unfederate(id, &slot.entry);
        for number in &slot.groups {
            if let Some(group) = self.groups.get_mut(number) {
                group.matched.remove(id);
                self.dirty.insert(*number);
            }
        }
        self.ahead.remove(id);
        self.idle.remove(&(slot.used, id.clone()));
        self.unschedule(id, &slot);
        self.jwts.forget_entry(id);
        self.jwts.withdraw(id);
    }

    fn federate(&mut self, id: &EntryId, entry: &Entry) {
        for domain in &entry.federates_with {
            self.federating.entry(domain.clone()).or_default().insert(id.clone());
        }
    }

    fn unfederate(&mut self, id: &EntryId, entry: &Entry) {
        for domain in &entry.federates_with {
            if let Some(ids) = self.federating.get_mut(domain) {
                ids.remove(id);
                if ids.is_empty() {
                    self.federating.remove(domain);
                }
            }
        }
    }

    fn mark_groups_of(&mut self, id: &EntryId) {
        if let Some(slot) = self.slots.get(id) {
            self.dirty.extend(slot.groups.iter().copied());
        }
    }

    // --- subscribers ---

    fn join(&mut self, number: u64, id: &EntryId) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        let active = group.x509 > 0;
        group.matched.insert(id.clone());
        self.dirty.insert(number);
        if let Some(slot) = self.slots.get_mut(id) {
            slot.groups.insert(number);
        }
        if active {
            self.activate(id);
        }
    }

    fn leave(&mut self, number: u64, id: &EntryId) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        let active = group.x509 > 0;
        group.matched.remove(id);
        self.dirty.insert(number);
        if let Some(slot) = self.slots.get_mut(id) {
            slot.groups.remove(&number);
        }
        if active {
            self.deactivate(id);
        }
    }

    fn activate(&mut self, id: &EntryId) {
        self.clock += 1;
        let Some(slot) = self.slots.get_mut(id) else { return };
        self.idle.remove(&(slot.used, id.clone()));
        self.ahead.remove(id);
        slot.used = self.clock;
        slot.active += 1;
        self.reconcile(id);
    }

    fn deactivate(&mut self, id: &EntryId) {
        self.clock += 1;
        let Some(slot) = self.slots.get_mut(id) else { return };
        self.idle.remove(&(slot.used, id.clone()));
        slot.used = self.clock;
        slot.active = slot.active.saturating_sub(1);
        self.reconcile(id);
    }

    fn subscribe(&mut self, selectors: SelectorSet, want: Want) {
        let number = match self.numbers.get(&selectors) {
            Some(number) => *number,
            None => self.open_group(selectors),
        };
        let Some(group) = self.groups.get_mut(&number) else { return };
        match want {
            Want::Bundles => group.bundles += 1,
            Want::X509 => {
                group.x509 += 1;
                if group.x509 == 1 {
                    self.dirty.insert(number);
                    for id in group.matched.clone() {
                        self.activate(&id);
                    }
                }
            }
        }
    }

    fn open_group(&mut self, selectors: SelectorSet) -> u64 {
        self.next_group += 1;
        let number = self.next_group;
        let matched = self.entries.matching(&selectors);
        for id in &matched {
            if let Some(slot) = self.slots.get_mut(id) {
                slot.groups.insert(number);
            }
        }
        self.sets.insert(number, &selectors);
        self.numbers.insert(selectors.clone(), number);
        self.groups.insert(number, Group { selectors, x509: 0, bundles: 0, matched, last: None });
        self.dirty.insert(number);
        number
    }

    fn unsubscribe(&mut self, selectors: &SelectorSet, want: Want) {
        let Some(number) = self.numbers.get(selectors).copied() else { return };
        let Some(group) = self.groups.get_mut(&number) else { return };
        match want {
            Want::Bundles => group.bundles = group.bundles.saturating_sub(1),
            Want::X509 if group.x509 > 0 => {
                group.x509 -= 1;
                if group.x509 == 0 {
                    self.dirty.insert(number);
                    for id in group.matched.clone() {
                        self.deactivate(&id);
                    }
                }
            }
            Want::X509 => {}
        }
        self.close_if_unused(number);
    }

    fn close_if_unused(&mut self, number: u64) {
        if self.groups.get(&number).is_none_or(|g| g.x509 + g.bundles > 0) {
            return;
        }
        let Some(group) = self.groups.remove(&number) else { return };
        for id in &group.matched {
            if let Some(slot) = self.slots.get_mut(id) {
                slot.groups.remove(&number);
            }
        }
        self.sets.remove(number);
        self.numbers.remove(&group.selectors);
        self.dirty.remove(&number);
        self.effects.push_back(Effect::Drop { selectors: group.selectors });
    }

    // --- bundles ---

    fn set_bundles(&mut self, upserts: Vec<Arc<Bundle>>, removed: &[TrustDomain]) {
        for bundle in upserts {
            let domain = bundle.trust_domain.clone();
            if self.bundles.get(&domain).is_some_and(|old| **old == *bundle) {
                continue;
            }
            let old = self.bundles.insert(domain.clone(), bundle.clone());
            if domain == self.settings.trust_domain {
                self.tally.tainted_jwt += self.jwts.own_bundle_changed(old.as_deref(), &bundle);
            }
            self.mark_domain(&domain);
        }
        for domain in removed {
            if *domain != self.settings.trust_domain && self.bundles.remove(domain).is_some() {
                self.mark_domain(domain);
            }
        }
    }

    fn mark_domain(&mut self, domain: &TrustDomain) {
        if *domain == self.settings.trust_domain {
            self.dirty.extend(self.groups.keys().copied());
            return;
        }
        for id in self.federating.get(domain).into_iter().flatten() {
            if let Some(slot) = self.slots.get(id) {
                self.dirty.extend(slot.groups.iter().copied());
            }
        }
    }

    // --- JWT ---

    fn want_jwt(
        &mut self,
        request: RequestId,
        selectors: &SelectorSet,
        audience: Vec<String>,
        id: Option<&SpiffeId>,
    ) {
        let matched = self.entries.matching(selectors);
        let entries: Vec<Entry> = matched
            .iter()
            .filter_map(|entry| Some(self.slots.get(entry)?.entry.clone()))
            .filter(|entry| id.is_none_or(|id| entry.spiffe_id == *id))
            .collect();
        let next = &mut self.next_ticket;
        let mut ticket = || {
            *next += 1;
            *next
        };
        self.jwts.want(
            request,
            selectors.clone(),
            entries,
            audience,
            self.now,
            &mut ticket,
            &mut self.effects,
        );
    }

    fn take(&mut self, input: Input) {
        self.jwts.recall_before(&input, &mut self.effects);
        match input {
            Input::Entries { upserts, removed } => {
                for id in &removed {
                    self.remove(id);
                }
                for entry in upserts {
                    self.upsert(entry);
                }
            }
            Input::Bundles { upserts, removed } => self.set_bundles(upserts, &removed),
            Input::Synced => self.hear(),
            Input::Signed { .. } | Input::JwtSigned { .. } if self.cut_off => {
                self.early.put(input, self.now.mono);
            }
            Input::Restore(snapshot) => self.restore(*snapshot),
            Input::Subscribe { selectors, want } => self.subscribe(selectors, want),
            Input::Unsubscribe { selectors, want } => self.unsubscribe(&selectors, want),
            Input::Signed { ticket, entry, svid, authorities } => {
                self.signed(ticket, &entry, svid, authorities);
            }
            Input::SignFailed { ticket, entry, failure } => self.sign_failed(ticket, &entry, &failure),
            Input::UpstreamBack => self.upstream_back(),
            Input::JwtWanted { request, selectors, audience, id } => {
                self.want_jwt(request, &selectors, audience, id.as_ref());
            }
            Input::JwtAbandoned { request } => self.jwts.abandon(request, &mut self.effects),
            Input::JwtSigned { ticket, svid, key_id } => {
                self.jwts.signed(ticket, svid, key_id, self.now);
            }
            Input::JwtFailed { ticket, failure } => {
                self.jwts.failed(ticket, &failure, self.now);
            }
            Input::Distrusted { authorities, pace } => self.distrust(authorities, pace),
            Input::Tick => {}
        }
    }

    fn tick(&mut self) {
        self.give_up_early();
        for id in self.due() {
            self.reconcile(&id);
        }
        let next = &mut self.next_ticket;
        let mut ticket = || {
            *next += 1;
            *next
        };
        self.jwts.tick(self.now, &mut ticket, &mut self.effects);
    }

    fn due(&mut self) -> BTreeSet<EntryId> {
        let mut due = BTreeSet::new();
        while let Some((at, id)) = self.timers.wall.first().cloned() {
            if at > self.now.wall {
                break;
            }
            self.timers.wall.pop_first();
            due.insert(id);
        }
        while let Some((at, id)) = self.timers.mono.first().cloned() {
            if at > self.now.mono {
                break;
            }
            self.timers.mono.pop_first();
            due.insert(id);
        }
        due
    }
}

impl Machine for Cache {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Now, input: Input) {
        self.now = now;
        self.jwts.now = now;
        // What has ended by now has no part in what follows.
        self.tick();
        self.take(input);
        self.tick();
        self.jwts.answer(&mut self.effects);
        self.make_room();
        self.sign_ahead();
        self.deliver();
    }

    fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn next_wakeup(&self) -> Option<Timestamp> {
        // Pauses run on monotonic time; said in wall time, they count from the moment of the last input.
        let mono = self.timers.mono.first().map(|(at, _)| *at);
        let mono = mono.into_iter().chain(self.jwts.next_mono()).chain(self.early.until()).min();
        let mono = mono.map(|at| self.now.wall + at.since(self.now.mono));
        let wall = self.timers.wall.first().map(|(at, _)| *at).into_iter().chain(self.jwts.next_wall()).min();
        wall.into_iter().chain(mono).min()
    }
}

/// The pause before an entry that failed is signed again.
const REFUSED: crate::backoff::Policy = crate::backoff::Policy {
    first: Duration::from_secs(1),
    most: Duration::from_secs(120),
    growth_percent: 200,
};
/// The same when only the server was away; its return ends the pause.
const AWAY: crate::backoff::Policy = crate::backoff::Policy {
    first: Duration::from_secs(1),
    most: Duration::from_secs(15),
    growth_percent: 200,
};
