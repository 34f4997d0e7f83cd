//! The life of the authorities of one kind and one holder: prepare, publish, activate, retire, taint, revoke.
//!
//! X.509 and JWT authorities run this one machine. Never lets an authority sign before its public part is
//! published (INV-4), never drops one from the bundle before its last SVID has ended unless an operator revoked
//! it (INV-5), and never has more than one effect open.

#[cfg(feature = "faults")]
pub mod phase;
pub mod timing;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use avouch_domain::{
    Authority, AuthorityId, AuthorityKind, Bundle, Now, Revision, Slot, SlotState, Tick, Timestamp,
};

use crate::faults::{Fault, planted};
use crate::machine::Machine;
use timing::{RETRY_AFTER, activate_at, prepare_at};

/// How one machine behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub kind: AuthorityKind,
    /// How long to wait at most for the agents' word that they know a new authority, once it is due.
    pub propagation_bound: Duration,
}

/// True if an authority of the journal keeps its slot: it has not ended, the bundle names it, and its key is at hand
/// if it may still sign. One that signs no more needs none, and is kept for an operator who may taint it. One that
/// does not keep its slot is forgotten and made anew; its public part stays in the bundle.
#[must_use]
pub fn can_go_on(row: &Authority, bundle: Option<&Bundle>, key_at_hand: bool, wall: Timestamp) -> bool {
    let published = bundle.is_some_and(|bundle| match row.kind {
        AuthorityKind::X509 => bundle.x509_authorities.iter().any(|root| root.der == row.public),
        AuthorityKind::Jwt => bundle.jwt_authorities.iter().any(|key| key.key_id == row.id),
    });
    let needs_key = row.state != SlotState::Old;
    row.not_after > wall && published && (key_at_hand || !needs_key || planted(Fault::TakeUpWithoutKey))
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time went by.
    Tick,
    /// Answer to [`Effect::MakeKey`].
    KeyMade { slot: Slot, id: AuthorityId, issued_at: Timestamp, not_after: Timestamp },
    /// Answer to [`Effect::Publish`]: bundle and slot are committed at this revision.
    Published { slot: Slot, revision: Revision },
    /// Answer to [`Effect::Activate`]: the slot signs.
    Activated { slot: Slot },
    /// Answer to [`Effect::Retire`].
    Retired { slot: Slot },
    /// Answer to [`Effect::Prune`].
    Pruned,
    /// Answer to any effect that did not work out.
    Failed,
    /// Every live agent has applied everything up to this revision.
    Acknowledged(Revision),
    /// An operator no longer trusts this authority: a replacement is made at once if it signs.
    Taint(AuthorityId),
    /// An operator took this authority out of the bundle, or a prepared one out of its slot.
    Revoke(AuthorityId),
    /// An operator wants the next authority to be made now; it signs when its time comes.
    Prepare,
    /// An operator wants the prepared authority to sign as soon as it is known everywhere.
    Advance,
    /// The slots as the log has them now. For a holder that several servers share: another of them may have taken
    /// the step. Not heeded while an effect is open; told again later.
    Journal(Vec<Authority>),
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make a key (and certificate) in this slot.
    MakeKey { slot: Slot },
    /// Commit slot and bundle.
    Publish { slot: Slot, id: AuthorityId },
    /// Commit the slot as the one that signs, then sign with it.
    Activate { slot: Slot, id: AuthorityId },
    /// Destroy the private key of a slot that signs no more.
    Retire { slot: Slot, id: AuthorityId },
    /// Take authorities out of the bundle that ended long enough ago.
    Prune,
}

/// One slot as the machine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    id: AuthorityId,
    state: SlotState,
    issued_at: Timestamp,
    not_after: Timestamp,
    tainted: bool,
    published: Option<Revision>,
    /// All live agents know it.
    known: bool,
}

impl Held {
    fn of(row: &Authority) -> Self {
        Self {
            id: row.id.clone(),
            state: row.state,
            issued_at: row.issued_at,
            not_after: row.not_after,
            tainted: row.tainted,
            published: row.published_at,
            known: false,
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Rotation {
    settings: Settings,
    slots: [Option<Held>; 2],
    acknowledged: Revision,
    /// The effect that waits for its answer.
    open: Option<Effect>,
    effects: VecDeque<Effect>,
    now: Now,
    retry_at: Option<Tick>,
    prune_at: Option<Timestamp>,
    /// The next authority is to be made although the active one is young.
    prepare: bool,
    /// The next authority is to sign although the active one is young.
    advance: bool,
    /// Since when an activation has been due. Monotonic: a clock that is set does not use up the agents' time.
    due_since: Option<Tick>,
    /// The slot whose key is to be destroyed.
    retire: Option<Slot>,
    /// That did not work out: it comes after everything else from now on.
    retire_failed: bool,
}

fn index(slot: Slot) -> usize {
    match slot {
        Slot::A => 0,
        Slot::B => 1,
    }
}

impl Rotation {
    /// Takes up where the journal ends. `journal` holds the slots that [`can_go_on`]; what is missing there is made
    /// anew. The first [`Input::Tick`] sets it going.
    #[must_use]
    pub fn new(settings: Settings, now: Now, journal: &[Authority]) -> Self {
        let kind = settings.kind;
        let mut machine = Self {
            settings,
            slots: [None, None],
            acknowledged: Revision(0),
            open: None,
            effects: VecDeque::new(),
            now,
            retry_at: None,
            prune_at: Some(now.wall + timing::PRUNE_EVERY),
            prepare: false,
            advance: false,
            due_since: None,
            retire: None,
            retire_failed: false,
        };
        for row in journal.iter().filter(|r| r.kind == kind && r.not_after > now.wall) {
            if row.state == SlotState::Old {
                machine.retire = Some(row.slot);
            }
            machine.set(row.slot, Some(Held::of(row)));
        }
        machine
    }

    fn get(&self, slot: Slot) -> Option<&Held> {
        self.slots.get(index(slot)).and_then(Option::as_ref)
    }

    fn get_mut(&mut self, slot: Slot) -> Option<&mut Held> {
        self.slots.get_mut(index(slot)).and_then(Option::as_mut)
    }

    fn set(&mut self, slot: Slot, held: Option<Held>) {
        if let Some(place) = self.slots.get_mut(index(slot)) {
            *place = held;
        }
    }

    fn find(&self, state: SlotState) -> Option<(Slot, &Held)> {
        let fits = |h: &&Held| h.state == state && h.not_after > self.now.wall;
        [Slot::A, Slot::B].into_iter().find_map(|slot| Some((slot, self.get(slot).filter(fits)?)))
    }

    /// Nothing is there, or it has ended. What has ended is not forgotten: a clock that ran ahead may be set back.
    fn is_free(&self, slot: Slot) -> bool {
        self.get(slot).is_none_or(|held| held.not_after <= self.now.wall)
    }

    /// The slot that signs, and its authority.
    #[must_use]
    pub fn active(&self) -> Option<(Slot, &AuthorityId)> {
        self.find(SlotState::Active).map(|(slot, held)| (slot, &held.id))
    }

    /// The revision that agents must have applied before the prepared authority is known everywhere; `None` if
    /// nothing waits for it.
    #[must_use]
    pub fn awaited(&self) -> Option<Revision> {
        self.prepared().filter(|(_, held)| !held.known).and_then(|(_, held)| held.published)
    }

    fn emit(&mut self, effect: Effect) {
        self.open = Some(effect.clone());
        self.effects.push_back(effect);
    }

    /// The prepared authority that may sign next; one that is tainted never does, nor does it hide the other slot's.
    fn prepared(&self) -> Option<(Slot, &Held)> {
        let fits = |h: &&Held| h.state == SlotState::Prepared && !h.tainted && h.not_after > self.now.wall;
        [Slot::A, Slot::B].into_iter().find_map(|slot| Some((slot, self.get(slot).filter(fits)?)))
    }

    fn retire_now(&mut self) -> bool {
        let held = self.retire.and_then(|slot| Some((slot, self.get(slot)?.id.clone())));
        let Some((slot, id)) = held else { return false };
        self.emit(Effect::Retire { slot, id });
        true
    }

    /// Decides the next step; at most one effect is open.
    fn step(&mut self) {
        let now = self.now.wall;
        if self.open.is_some() || self.retry_at.is_some_and(|at| self.now.mono < at) {
            return;
        }
        self.retry_at = None;
        if !self.retire_failed && self.retire_now() {
            return;
        }
        if let Some((slot, held)) = self.prepared()
            && held.published.is_none()
        {
            let id = held.id.clone();
            return self.emit(Effect::Publish { slot, id });
        }
        match self.find(SlotState::Active).map(|(slot, held)| (slot, held.clone())) {
            None => self.step_without_active(),
            Some((slot, active)) => self.step_with_active(now, slot, &active),
        }
    }

    /// Nothing signs (first start, or everything ended): the prepared authority signs at once.
    fn step_without_active(&mut self) {
        if let Some((slot, held)) = self.prepared() {
            let id = held.id.clone();
            return self.emit(Effect::Activate { slot, id });
        }
        let slot = if self.is_free(Slot::A) { Slot::A } else { Slot::B };
        self.emit(Effect::MakeKey { slot });
    }

    fn step_with_active(&mut self, now: Timestamp, slot: Slot, active: &Held) {
        let advance = self.advance || active.tainted;
        let next = slot.other();
        if let Some((_, prepared)) = self.prepared() {
            let (id, known) = (prepared.id.clone(), prepared.known);
            let early = planted(Fault::SignBeforeKnown);
            if advance || early || now >= activate_at(active.issued_at, active.not_after) {
                let since = *self.due_since.get_or_insert(self.now.mono);
                let waited = self.now.mono.since(since) >= self.settings.propagation_bound;
                if known || early || waited || now >= active.not_after {
                    return self.emit(Effect::Activate { slot: next, id });
                }
            }
        } else if self.prepare || advance || now >= prepare_at(active.issued_at, active.not_after) {
            return self.emit(Effect::MakeKey { slot: next });
        }
        if self.prune_at.is_some_and(|at| now >= at) {
            self.prune_at = Some(now + timing::PRUNE_EVERY);
            return self.emit(Effect::Prune);
        }
        self.retire_now();
    }

    fn failed(&mut self) {
        self.retire_failed |= matches!(self.open, Some(Effect::Retire { .. }));
        self.open = None;
        self.retry_at = (!planted(Fault::RetryAtOnce)).then_some(self.now.mono + RETRY_AFTER);
    }

    fn activated(&mut self, slot: Slot) {
        let other = slot.other();
        if let Some(old) = self.get_mut(other)
            && old.state == SlotState::Active
        {
            old.state = SlotState::Old;
            self.retire = Some(other);
            self.retire_failed = false;
        }
        if let Some(held) = self.get_mut(slot) {
            held.state = SlotState::Active;
        }
        self.prepare = false;
        self.advance = false;
        self.due_since = None;
    }

    /// Takes over what the log says, where it differs from what is held here. A key made here that is not
    /// published yet stands aside only for one that was published first.
    fn follow(&mut self, rows: &[Authority], now: Timestamp) {
        for slot in [Slot::A, Slot::B] {
            let row = rows.iter().find(|r| {
                r.kind == self.settings.kind
                    && r.slot == slot
                    && r.not_after > now
                    && r.published_at.is_some()
            });
            let held = self.get(slot);
            match (row, held) {
                (Some(row), Some(held)) if row.id == held.id && row.state == held.state => {
                    if let Some(held) = self.get_mut(slot) {
                        held.tainted |= row.tainted;
                        held.published = row.published_at;
                    }
                }
                (Some(row), _) => {
                    let begins = row.state == SlotState::Active;
                    let ends = row.state == SlotState::Old && held.is_some_and(|h| h.id == row.id);
                    let known = held.is_some_and(|h| h.id == row.id && h.known);
                    if row.state == SlotState::Prepared && !known {
                        self.due_since = None;
                    }
                    self.set(slot, Some(Held { known, ..Held::of(row) }));
                    if ends {
                        (self.retire, self.retire_failed) = (Some(slot), false);
                    }
                    if begins {
                        (self.prepare, self.advance, self.due_since) = (false, false, None);
                    }
                }
                (None, Some(held)) if held.published.is_some() => self.set(slot, None),
                (None, _) => {}
            }
        }
        self.learn();
    }

    /// Empties the slot of an authority that does not sign. Who wanted a prepared one to sign meant that one.
    fn revoke(&mut self, id: &AuthorityId) {
        for slot in [Slot::A, Slot::B] {
            match self.get(slot).filter(|held| held.id == *id).map(|held| held.state) {
                None | Some(SlotState::Active) => continue,
                Some(SlotState::Prepared) => (self.advance, self.due_since) = (false, None),
                Some(SlotState::Old) => {}
            }
            self.set(slot, None);
        }
    }

    fn learn(&mut self) {
        let acknowledged = self.acknowledged;
        for held in self.slots.iter_mut().flatten() {
            held.known |= held.published.is_some_and(|at| acknowledged >= at);
        }
    }

    fn answer(&mut self, input: Input) {
        self.open = None;
        match input {
            Input::KeyMade { slot, id, issued_at, not_after } => {
                let (state, tainted, published, known) = (SlotState::Prepared, false, None, false);
                self.set(slot, Some(Held { id, state, issued_at, not_after, tainted, published, known }));
                self.prepare = false;
                // The agents' time to learn of it begins anew with each authority.
                self.due_since = None;
                // The key that was to be destroyed there has just been replaced.
                self.retire.take_if(|retiring| *retiring == slot);
            }
            Input::Published { slot, revision } => {
                if let Some(held) = self.get_mut(slot) {
                    held.published = Some(revision);
                }
                self.learn();
            }
            Input::Activated { slot } => self.activated(slot),
            Input::Retired { slot } => {
                self.retire.take_if(|retiring| *retiring == slot);
                self.retire_failed = false;
            }
            _ => {}
        }
    }
}

impl Machine for Rotation {
    type Input = Input;
    type Effect = Effect;

    fn handle(&mut self, now: Now, input: Input) {
        self.now = now;
        match input {
            Input::Tick => {}
            Input::KeyMade { .. }
            | Input::Published { .. }
            | Input::Activated { .. }
            | Input::Retired { .. }
            | Input::Pruned => self.answer(input),
            Input::Failed => self.failed(),
            Input::Acknowledged(revision) => {
                self.acknowledged = self.acknowledged.max(revision);
                self.learn();
            }
            Input::Taint(id) => {
                for held in self.slots.iter_mut().flatten().filter(|h| h.id == id) {
                    held.tainted = true;
                }
            }
            Input::Revoke(id) => self.revoke(&id),
            Input::Prepare => self.prepare = true,
            Input::Advance => self.advance = true,
            Input::Journal(rows) if self.open.is_none() => self.follow(&rows, now.wall),
            Input::Journal(_) => {}
        }
        self.step();
    }

    fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn next_wakeup(&self) -> Option<Timestamp> {
        if self.open.is_some() {
            return None;
        }
        let wall_of = |at: Tick| self.now.wall + at.since(self.now.mono);
        if let Some(at) = self.retry_at {
            return Some(wall_of(at));
        }
        let Some((_, active)) = self.find(SlotState::Active) else { return Some(Timestamp(0)) };
        let next = match self.prepared() {
            None => prepare_at(active.issued_at, active.not_after),
            Some(_) => match self.due_since {
                // A silent agent can't hold an activation up for longer than the bound, nor past this one's end.
                Some(since) => wall_of(since + self.settings.propagation_bound).min(active.not_after),
                None => activate_at(active.issued_at, active.not_after),
            },
        };
        let ends = self.slots.iter().flatten().map(|h| h.not_after).filter(|end| *end > self.now.wall);
        ends.chain([next]).chain(self.prune_at).min()
    }
}
