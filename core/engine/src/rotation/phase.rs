//! Where a rotation stands, as the simulator counts it: every listed transition must be visited.
//!
//! Never compiled into a product.

use avouch_domain::{Slot, SlotState, Timestamp};

use super::{Held, Input, Rotation};

/// What one slot is to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nothing there, or its time is over.
    Free,
    /// A key is made and not published.
    Made,
    /// Published; some agent may not know it yet.
    Published,
    /// Published, and known to all agents.
    Known,
    Active,
    /// Its key is to be destroyed.
    Old,
    /// Prepared, and never to be used.
    Spoilt,
    /// Signs although it is tainted: a successor is on its way.
    Tainted,
}

/// The slot that signs (or would be the first to), and the other one.
pub type Phase = (Place, Place);

impl Rotation {
    fn place(&self, slot: Slot, wall: Timestamp) -> Place {
        let Some(held) = self.get(slot).filter(|held| held.not_after > wall) else {
            return Place::Free;
        };
        match held {
            Held { state: SlotState::Active, tainted: true, .. } => Place::Tainted,
            Held { state: SlotState::Active, .. } => Place::Active,
            Held { state: SlotState::Old, .. } => Place::Old,
            Held { tainted: true, .. } => Place::Spoilt,
            Held { published: None, .. } => Place::Made,
            Held { known: false, .. } => Place::Published,
            Held { known: true, .. } => Place::Known,
        }
    }

    /// Where it stood when it was told the time last. See [`Phase`].
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase_at(self.now.wall)
    }

    /// Where it stands when the time alone has passed.
    #[must_use]
    pub fn phase_at(&self, wall: Timestamp) -> Phase {
        let (a, b) = (self.place(Slot::A, wall), self.place(Slot::B, wall));
        let signs = |place| matches!(place, Place::Active | Place::Tainted);
        if signs(a) || (!signs(b) && a >= b) { (a, b) } else { (b, a) }
    }
}

/// The kind of an input, in the words of [`TRANSITIONS`].
#[must_use]
pub fn kind(input: &Input) -> &'static str {
    match input {
        Input::Tick => "tick",
        Input::KeyMade { .. } => "key made",
        Input::Published { .. } => "published",
        Input::Activated { .. } => "activated",
        Input::Retired { .. } => "retired",
        Input::Pruned => "pruned",
        Input::Failed => "failed",
        Input::Acknowledged(_) => "acknowledged",
        Input::Taint(_) => "taint",
        Input::Revoke(_) => "revoke",
        Input::Prepare => "prepare",
        Input::Advance => "advance",
        Input::Journal(_) => "journal",
    }
}

/// Phase before, input, phase after; "time" for what ends (or, when a clock is set back, has not ended after all).
pub type Transition = (Phase, &'static str, Phase);

/// What can happen to the authorities of one kind and holder.
pub const TRANSITIONS: &[Transition] = {
    use Place::*;
    &[
        ((Active, Free), "advance", (Active, Free)),
        ((Active, Free), "failed", (Active, Free)),
        ((Active, Free), "journal", (Active, Published)),
        ((Active, Free), "journal", (Free, Free)),
        ((Active, Free), "key made", (Active, Made)),
        ((Active, Free), "prepare", (Active, Free)),
        ((Active, Free), "pruned", (Active, Free)),
        ((Active, Free), "taint", (Tainted, Free)),
        ((Active, Free), "time", (Free, Free)),
        ((Active, Known), "activated", (Active, Old)),
        ((Active, Known), "journal", (Active, Old)),
        ((Active, Known), "journal", (Active, Published)),
        ((Active, Known), "taint", (Active, Spoilt)),
        ((Active, Known), "taint", (Tainted, Known)),
        ((Active, Known), "time", (Free, Free)),
        ((Active, Made), "journal", (Active, Published)),
        ((Active, Made), "published", (Active, Published)),
        ((Active, Old), "journal", (Active, Free)),
        ((Active, Old), "journal", (Active, Published)),
        ((Active, Old), "journal", (Tainted, Known)),
        ((Active, Old), "journal", (Tainted, Published)),
        ((Active, Old), "key made", (Active, Made)),
        ((Active, Old), "failed", (Active, Old)),
        ((Active, Old), "retired", (Active, Old)),
        ((Active, Old), "revoke", (Active, Free)),
        ((Active, Old), "taint", (Tainted, Old)),
        ((Active, Old), "time", (Active, Free)),
        ((Active, Old), "time", (Free, Free)),
        ((Active, Published), "acknowledged", (Active, Known)),
        ((Active, Published), "activated", (Active, Old)),
        ((Active, Published), "journal", (Active, Old)),
        ((Active, Published), "journal", (Active, Spoilt)),
        ((Active, Published), "taint", (Active, Spoilt)),
        ((Active, Published), "taint", (Tainted, Published)),
        ((Active, Published), "time", (Free, Free)),
        ((Active, Spoilt), "journal", (Active, Published)),
        ((Active, Spoilt), "key made", (Active, Made)),
        ((Free, Free), "journal", (Active, Free)),
        ((Free, Free), "key made", (Made, Free)),
        ((Made, Free), "journal", (Active, Free)),
        ((Made, Free), "published", (Published, Free)),
        ((Published, Free), "activated", (Active, Free)),
        ((Tainted, Free), "key made", (Tainted, Made)),
        ((Tainted, Known), "activated", (Active, Old)),
        ((Tainted, Made), "journal", (Tainted, Published)),
        ((Tainted, Made), "published", (Tainted, Published)),
        ((Tainted, Old), "key made", (Tainted, Made)),
        ((Tainted, Published), "acknowledged", (Tainted, Known)),
        ((Tainted, Published), "activated", (Active, Old)),
        ((Tainted, Published), "journal", (Active, Old)),
        ((Tainted, Published), "journal", (Tainted, Free)),
        ((Tainted, Published), "journal", (Tainted, Old)),
        ((Tainted, Published), "taint", (Tainted, Spoilt)),
        ((Tainted, Published), "time", (Free, Free)),
        ((Tainted, Spoilt), "key made", (Tainted, Made)),
    ]
};
