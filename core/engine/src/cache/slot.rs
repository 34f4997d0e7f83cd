//! One entry in the cache and the X509-SVID that belongs to it: when it is signed, renewed, evicted, dropped.
//!
//! Every rule about one entry is applied in one place, `reconcile`, whatever happened: so that no path forgets one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::{AuthorityId, Entry, EntryId, Tick, Timestamp, X509Svid};

use super::{AWAY, Cache, Effect, Priority, REFUSED, SignFailure, Ticket};
use crate::faults::{Fault, planted};
use crate::renew::{Pace, renew_after};

/// An SVID whose issuer is not relied on any more was replaced by another such: the server has not turned yet.
const STILL_DISTRUSTED: Duration = Duration::from_secs(60);

/// An SVID and when to replace it.
#[derive(Debug)]
pub(super) struct Held {
    pub svid: Arc<X509Svid>,
    pub authorities: Vec<AuthorityId>,
    pub renew_at: Timestamp,
    /// It is of an older version of its entry.
    pub outdated: bool,
}

#[derive(Debug)]
struct Signing {
    ticket: Ticket,
    /// Revision of the entry that was asked for.
    revision: i64,
    priority: Priority,
}

/// The hint as identities have it; none takes no room of its own.
pub(super) fn hint(entry: &Entry) -> Arc<str> {
    if entry.hint.is_empty() { Arc::default() } else { entry.hint.as_str().into() }
}

/// One live entry.
#[derive(Debug)]
pub(super) struct Slot {
    pub entry: Entry,
    pub hint: Arc<str>,
    /// Boxed: most entries have none.
    pub held: Option<Box<Held>>,
    signing: Option<Signing>,
    failures: u32,
    away: bool,
    retry_at: Option<Tick>,
    pub error: Option<Arc<str>>,
    /// Subscribed sets that match.
    pub groups: BTreeSet<u64>,
    /// How many of them want identities.
    pub active: usize,
    pub used: u64,
    wall_timer: Option<Timestamp>,
    mono_timer: Option<Tick>,
}

impl Slot {
    pub fn new(entry: Entry, used: u64) -> Self {
        Self {
            hint: hint(&entry),
            entry,
            held: None,
            signing: None,
            failures: 0,
            away: false,
            retry_at: None,
            error: None,
            groups: BTreeSet::new(),
            active: 0,
            used,
            wall_timer: None,
            mono_timer: None,
        }
    }

    /// Where it stands, for the simulator.
    #[cfg(feature = "faults")]
    pub fn phase(&self) -> super::phase::Phase {
        use super::phase::Phase;
        match (&self.held, &self.signing) {
            (None, None) if self.failures > 0 => Phase::Failed,
            (None, None) => Phase::Cold,
            (None, Some(_)) => Phase::Signing,
            (Some(_), Some(_)) => Phase::Renewing,
            (Some(_), None) if self.failures > 0 => Phase::Aging,
            (Some(_), None) => Phase::Held,
        }
    }

    /// The entry is another now, or the server is back: earlier failures say nothing.
    pub fn forgive(&mut self) {
        self.failures = 0;
        self.retry_at = None;
    }
}

impl Cache {
    /// Applies every rule about one entry: its end, its SVID's end, whether a signature is due, its timers.
    pub(super) fn reconcile(&mut self, id: &EntryId) {
        let (wall, mono) = (self.now.wall, self.now.mono);
        let Some(slot) = self.slots.get(id) else { return };
        if slot.entry.is_expired(wall) {
            self.remove(id);
            return;
        }
        if slot.held.as_ref().is_some_and(|held| held.svid.not_after <= wall)
            && !planted(Fault::DeliverExpired)
        {
            self.take_held(id);
            self.mark_groups_of(id);
        }
        let Some(slot) = self.slots.get_mut(id) else { return };
        let waits = slot.retry_at.is_some_and(|at| at > mono);
        let wanted = slot.active > 0;
        let keep_warm = !slot.entry.disable_x509_svid_prefetch;
        let priority = match &slot.held {
            None if wanted => Some(Priority::Now),
            Some(held) if held.renew_at <= wall && (wanted || keep_warm) => Some(Priority::Renewal),
            _ => None,
        };
        let empty = slot.held.is_none();
        let busy = slot.signing.is_some();
        if !wanted && empty && !busy && keep_warm && !waits {
            self.ahead.insert(id.clone());
        } else {
            self.ahead.remove(id);
        }
        if !wanted && !empty {
            self.idle.insert((slot.used, id.clone()));
        }
        match (&mut slot.signing, priority) {
            (Some(signing), Some(Priority::Now)) if signing.priority > Priority::Now => {
                signing.priority = Priority::Now;
                self.effects.push_back(Effect::Hurry { ticket: signing.ticket });
            }
            (None, Some(priority)) if !waits => self.sign(id, priority),
            _ => {}
        }
        self.schedule(id);
    }

    fn sign(&mut self, id: &EntryId, priority: Priority) {
        let ticket = self.ticket();
        let Some(slot) = self.slots.get_mut(id) else { return };
        if slot.held.is_none() {
            self.coming += 1;
        }
        match &slot.held {
            Some(held) if held.outdated => self.tally.outdated += 1,
            Some(_) => self.tally.expiring += 1,
            None => {}
        }
        slot.retry_at = None;
        slot.signing = Some(Signing { ticket, revision: slot.entry.revision_number, priority });
        self.effects.push_back(Effect::Sign {
            ticket,
            entry: id.clone(),
            id: slot.entry.spiffe_id.clone(),
            priority,
        });
    }

    /// Forgets a signature under way: its answer will find nobody.
    pub(super) fn take_signing(&mut self, id: &EntryId) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        if slot.signing.take().is_some() && slot.held.is_none() {
            self.coming = self.coming.saturating_sub(1);
        }
    }

    pub(super) fn take_held(&mut self, id: &EntryId) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        if slot.held.take().is_some() {
            self.held = self.held.saturating_sub(1);
            self.idle.remove(&(slot.used, id.clone()));
            if slot.signing.is_some() {
                self.coming += 1;
            }
        }
    }

    /// Ends a signature under way if `ticket` names it; gives the entry revision it was for.
    fn answered(&mut self, ticket: Ticket, id: &EntryId) -> Option<i64> {
        let slot = self.slots.get_mut(id)?;
        let revision = slot.signing.as_ref().filter(|s| s.ticket == ticket)?.revision;
        self.take_signing(id);
        Some(revision)
    }

    pub(super) fn signed(
        &mut self,
        ticket: Ticket,
        id: &EntryId,
        svid: Arc<X509Svid>,
        authorities: Vec<AuthorityId>,
    ) {
        let Some(revision) = self.answered(ticket, id) else { return };
        let wall = self.now.wall;
        let renew = renew_after(
            svid.not_before,
            svid.not_after,
            self.settings.availability_target,
            wall,
            &mut self.jitter,
        );
        let distrusted = authorities.iter().any(|a| self.distrusted.contains(a));
        let later = STILL_DISTRUSTED + self.jitter.within(STILL_DISTRUSTED);
        let Some(slot) = self.slots.get_mut(id) else { return };
        if svid.id != slot.entry.spiffe_id {
            let reason = format!("got an SVID for {}, expected {}", svid.id, slot.entry.spiffe_id);
            self.failed(id, &SignFailure::Refused(reason));
            return;
        }
        if svid.not_after <= wall {
            let reason = format!("got an SVID that ended at {}, now is {wall}", svid.not_after);
            self.failed(id, &SignFailure::Refused(reason));
            return;
        }
        slot.forgive();
        slot.error = None;
        let outdated = revision != slot.entry.revision_number;
        let renew_at = match (outdated, distrusted) {
            (true, _) => wall,
            (false, true) => renew.min(wall + later),
            (false, false) => renew,
        };
        if slot.held.replace(Box::new(Held { svid, authorities, renew_at, outdated })).is_none() {
            self.held += 1;
        }
        self.mark_groups_of(id);
        self.reconcile(id);
    }

    pub(super) fn sign_failed(&mut self, ticket: Ticket, id: &EntryId, failure: &SignFailure) {
        if self.answered(ticket, id).is_some() {
            self.failed(id, failure);
        }
    }

    fn failed(&mut self, id: &EntryId, failure: &SignFailure) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        slot.away = matches!(failure, SignFailure::Away(_));
        slot.failures = slot.failures.saturating_add(1);
        slot.error = Some(failure.to_string().into());
        let policy = if slot.away { AWAY } else { REFUSED };
        let pause = policy.pause(slot.failures);
        slot.retry_at = Some(self.now.mono + (pause / 2 + self.jitter.within(pause / 2)));
        // Whoever waits for all of its SVIDs no longer waits for this one.
        self.mark_groups_of(id);
        self.reconcile(id);
    }

    /// Everything that failed only because the server was away is due now.
    pub(super) fn upstream_back(&mut self) {
        let parked: Vec<_> = self.timers.mono.iter().map(|(_, id)| id.clone()).collect();
        for id in parked {
            if let Some(slot) = self.slots.get_mut(&id).filter(|slot| slot.away) {
                slot.forgive();
                self.reconcile(&id);
            }
        }
    }

    /// Renews an SVID now: its entry is another.
    pub(super) fn outdate(&mut self, id: &EntryId) {
        if let Some(held) = self.slots.get_mut(id).and_then(|slot| slot.held.as_mut()) {
            held.outdated = true;
        }
        self.renew_by(id, self.now.wall);
    }

    /// Brings the renewal of an SVID forward to `at`.
    pub(super) fn renew_by(&mut self, id: &EntryId, at: Timestamp) {
        if let Some(held) = self.slots.get_mut(id).and_then(|slot| slot.held.as_mut()) {
            held.renew_at = held.renew_at.min(at);
        }
    }

    pub(super) fn distrust(&mut self, authorities: BTreeSet<AuthorityId>, pace: Pace) {
        let fresh: BTreeSet<_> = authorities.difference(&self.distrusted).cloned().collect();
        self.distrusted = authorities;
        if fresh.is_empty() {
            return;
        }
        let hit: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, slot)| {
                slot.held.as_ref().is_some_and(|held| held.authorities.iter().any(|a| fresh.contains(a)))
            })
            .map(|(id, slot)| (id.clone(), slot.active > 0))
            .collect();
        self.tally.tainted_x509 += hit.len();
        let spread = pace.spread(hit.len());
        for (id, wanted) in hit {
            // Those somebody uses go first.
            let wait = if wanted { spread / 2 } else { spread };
            let at = self.now.wall + self.jitter.within(wait);
            self.renew_by(&id, at);
            self.reconcile(&id);
        }
    }

    /// Evicts SVIDs nobody subscribes to, least recently used first, while there are too many.
    pub(super) fn make_room(&mut self) {
        if self.cut_off {
            return;
        }
        while self.held > self.settings.x509_max {
            let Some((_, id)) = self.idle.pop_first() else { return };
            self.take_signing(&id);
            self.take_held(&id);
            self.reconcile(&id);
        }
    }

    /// Signs entries nobody has asked for yet while there is room.
    pub(super) fn sign_ahead(&mut self) {
        while self.held + self.coming < self.settings.x509_max {
            let Some(id) = self.ahead.pop_first() else { return };
            self.sign(&id, Priority::Ahead);
            self.schedule(&id);
        }
    }

    fn schedule(&mut self, id: &EntryId) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let ends = slot.entry.expires_at;
        let held = slot.held.as_ref();
        let renew = held.map(|h| h.renew_at).filter(|at| *at > self.now.wall);
        let dies = held.map(|h| h.svid.not_after);
        let wall = ends.into_iter().chain(renew).chain(dies).min();
        let mono = slot.retry_at.filter(|at| *at > self.now.mono);
        // A timer that has just rung is no longer in the set, so both are always put back.
        if let Some(old) = std::mem::replace(&mut slot.wall_timer, wall) {
            self.timers.wall.remove(&(old, id.clone()));
        }
        if let Some(old) = std::mem::replace(&mut slot.mono_timer, mono) {
            self.timers.mono.remove(&(old, id.clone()));
        }
        if let Some(at) = wall {
            self.timers.wall.insert((at, id.clone()));
        }
        if let Some(at) = mono {
            self.timers.mono.insert((at, id.clone()));
        }
    }

    pub(super) fn unschedule(&mut self, id: &EntryId, slot: &Slot) {
        if let Some(at) = slot.wall_timer {
            self.timers.wall.remove(&(at, id.clone()));
        }
        if let Some(at) = slot.mono_timer {
            self.timers.mono.remove(&(at, id.clone()));
        }
    }
}
