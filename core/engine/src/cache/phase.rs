//! Where each entry of the cache stands, as the simulator counts it: every listed transition must be visited.
//!
//! Never compiled into a product.

use avouch_domain::EntryId;

use super::{Cache, Effect, Input, JwtRefusal, SignFailure, Slot};

/// What is there of one entry's X509-SVID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No such entry.
    Absent,
    /// No SVID, and none asked for.
    Cold,
    /// The first SVID is under way.
    Signing,
    /// No SVID: the last attempt failed.
    Failed,
    Held,
    /// Held, and its replacement is under way.
    Renewing,
    /// Held, and the last attempt to replace it failed.
    Aging,
}

impl Cache {
    /// All entries that are there. See [`Phase`].
    pub fn phases(&self) -> impl Iterator<Item = (&EntryId, Phase)> {
        self.slots.iter().map(|(id, slot)| (id, slot.phase()))
    }

    /// An entry of which the cache has miscounted the subscribed sets that want it: then it would not be signed.
    #[must_use]
    pub fn miscounted(&self) -> Option<&EntryId> {
        let wants = |number: &&u64| self.groups.get(*number).is_some_and(|group| group.x509 > 0);
        let wrong = |slot: &Slot| slot.active != slot.groups.iter().filter(wants).count();
        self.slots.iter().find(|(_, slot)| wrong(slot)).map(|(id, _)| id)
    }
}

/// The kind of an input, in the words of [`TRANSITIONS`] and [`ANSWERS`].
#[must_use]
pub fn kind(input: &Input) -> &'static str {
    match input {
        Input::Entries { .. } => "entries",
        Input::Bundles { .. } => "bundles",
        Input::Synced => "synced",
        Input::Subscribe { .. } => "subscribe",
        Input::Unsubscribe { .. } => "unsubscribe",
        Input::Signed { .. } => "signed",
        Input::SignFailed { failure: SignFailure::Refused(_), .. } => "sign refused",
        Input::SignFailed { failure: SignFailure::Away(_), .. } => "sign lost",
        Input::UpstreamBack => "server back",
        Input::JwtWanted { .. } => "token wanted",
        Input::JwtAbandoned { .. } => "caller gone",
        Input::JwtSigned { .. } => "minted",
        Input::JwtFailed { failure: SignFailure::Refused(_), .. } => "mint refused",
        Input::JwtFailed { failure: SignFailure::Away(_), .. } => "mint lost",
        Input::Distrusted { .. } => "distrusted",
        Input::Restore(_) => "restore",
        Input::Tick => "tick",
    }
}

/// The kind of an effect, in the words of [`ANSWERS`].
#[must_use]
pub fn effect(effect: &Effect) -> &'static str {
    match effect {
        Effect::Sign { .. } => "sign",
        Effect::Hurry { .. } => "hurry",
        Effect::MintJwt { .. } => "mint",
        Effect::NobodyWaits { .. } => "nobody waits",
        Effect::Deliver { .. } => "deliver",
        Effect::Drop { .. } => "drop",
        Effect::RecallJwt => "recall",
        Effect::AnswerJwt { answer: Ok(_), .. } => "tokens",
        Effect::AnswerJwt { answer: Err(JwtRefusal::NoIdentity), .. } => "no identity",
        Effect::AnswerJwt { answer: Err(JwtRefusal::Unavailable(_)), .. } => "unavailable",
    }
}

/// Phase before, input, phase after. What comes with time alone is told as "tick", whatever input found it out.
pub type Transition = (Phase, &'static str, Phase);

/// What can happen to one entry.
pub const TRANSITIONS: &[Transition] = {
    use Phase::*;
    &[
        (Absent, "entries", Cold),
        (Absent, "entries", Signing),
        (Absent, "restore", Cold),
        (Absent, "restore", Held),
        (Absent, "restore", Renewing),
        (Absent, "restore", Signing),
        (Cold, "entries", Absent),
        (Cold, "entries", Signing),
        (Cold, "subscribe", Signing),
        (Cold, "tick", Absent),
        (Cold, "tick", Signing),
        (Signing, "entries", Absent),
        (Signing, "sign lost", Failed),
        (Signing, "sign refused", Failed),
        (Signing, "signed", Cold),
        (Signing, "signed", Failed),
        (Signing, "signed", Held),
        (Signing, "signed", Renewing),
        (Signing, "tick", Absent),
        (Failed, "entries", Absent),
        (Failed, "entries", Cold),
        (Failed, "entries", Signing),
        (Failed, "server back", Cold),
        (Failed, "server back", Signing),
        (Failed, "subscribe", Signing),
        (Failed, "tick", Absent),
        (Failed, "tick", Signing),
        (Held, "distrusted", Renewing),
        (Held, "entries", Absent),
        (Held, "entries", Cold),
        (Held, "entries", Renewing),
        (Held, "tick", Absent),
        (Held, "tick", Cold),
        (Held, "tick", Renewing),
        (Held, "tick", Signing),
        (Held, "unsubscribe", Cold),
        (Renewing, "entries", Absent),
        (Renewing, "sign lost", Aging),
        (Renewing, "sign lost", Failed),
        (Renewing, "sign refused", Aging),
        (Renewing, "signed", Aging),
        (Renewing, "signed", Held),
        (Renewing, "tick", Absent),
        (Renewing, "tick", Cold),
        (Renewing, "tick", Failed),
        (Renewing, "tick", Signing),
        (Renewing, "unsubscribe", Cold),
        (Renewing, "unsubscribe", Failed),
        (Aging, "entries", Absent),
        (Aging, "entries", Renewing),
        (Aging, "server back", Renewing),
        (Aging, "tick", Failed),
        (Aging, "tick", Renewing),
        (Aging, "tick", Signing),
    ]
};

/// Input and effect: what can come of what.
pub const ANSWERS: &[(&str, &str)] = &[
    ("bundles", "deliver"),
    ("bundles", "recall"),
    ("caller gone", "nobody waits"),
    ("distrusted", "sign"),
    ("entries", "deliver"),
    ("entries", "hurry"),
    ("entries", "no identity"),
    ("entries", "recall"),
    ("entries", "sign"),
    ("entries", "tokens"),
    ("entries", "unavailable"),
    ("mint lost", "tokens"),
    ("mint lost", "unavailable"),
    ("mint refused", "tokens"),
    ("mint refused", "unavailable"),
    ("minted", "tokens"),
    ("minted", "unavailable"),
    ("restore", "sign"),
    ("server back", "sign"),
    ("sign lost", "deliver"),
    ("sign lost", "hurry"),
    ("sign lost", "sign"),
    ("sign refused", "deliver"),
    ("sign refused", "sign"),
    ("signed", "deliver"),
    ("signed", "hurry"),
    ("signed", "sign"),
    ("subscribe", "deliver"),
    ("subscribe", "hurry"),
    ("subscribe", "sign"),
    ("synced", "deliver"),
    ("tick", "deliver"),
    ("tick", "hurry"),
    ("tick", "mint"),
    ("tick", "no identity"),
    ("tick", "sign"),
    ("tick", "tokens"),
    ("token wanted", "mint"),
    ("token wanted", "no identity"),
    ("token wanted", "tokens"),
    ("unsubscribe", "drop"),
];
