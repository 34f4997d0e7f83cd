//! Recent registries, so that a returning agent gets an exact delta, and the honest choice when it can't.
//!
//! Never guesses: a position that is not in the ring, or whose head differs, leads to a digest or a snapshot.

use std::collections::VecDeque;

use avouch_domain::{LogPosition, SpiffeId, Timestamp};

use crate::entitle::{Delta, Digest, KnownEntry, delta, digest};
use crate::faults::{Fault, planted};
use crate::registry::Registry;

/// Registries kept. They share nearly all their memory; an agent away for longer than this many commits gets a
/// digest, which costs ids and revisions instead of bodies.
pub const KEPT: usize = 512;

/// The registries of the last commits, oldest first.
#[derive(Clone, Debug)]
pub struct History {
    ring: VecDeque<Registry>,
    kept: usize,
}

/// How an agent gets from where it is to the present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    Delta(Delta),
    /// A snapshot that spares what the agent holds; `resync` says why it is no delta, if one was asked for.
    Digest {
        digest: Digest,
        resync: Option<Resync>,
    },
}

/// Why an agent gets a snapshot where it asked for a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resync {
    /// It has fallen behind what is kept for deltas, as after each start of a server: nothing is wrong.
    Behind(&'static str),
    /// What it followed is not in this log: commits were lost, or it is another log.
    Foreign(&'static str),
}

impl Resync {
    /// For the log.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Behind(reason) | Self::Foreign(reason) => reason,
        }
    }
}

/// What is known about the position that an agent names.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It is in the ring: a delta from this registry is exact.
    Known(Box<Registry>),
    /// Older than the ring, of this epoch: the log must say whether its head is true.
    Old,
    /// Of another life of the store, ahead of it, or with another head: what the agent holds is not ours.
    Foreign(&'static str),
}

impl History {
    /// Starts with the present.
    #[must_use]
    pub fn new(present: Registry, kept: usize) -> Self {
        Self { ring: VecDeque::from([present]), kept: kept.max(1) }
    }

    /// Adds the registry after a commit. A new epoch, or a step back, forgets the past.
    pub fn push(&mut self, registry: Registry) {
        let next = registry.position();
        if self.ring.back().is_some_and(|last| {
            last.position().epoch != next.epoch || last.position().revision >= next.revision
        }) {
            self.ring.clear();
        }
        self.ring.push_back(registry);
        while self.ring.len() > self.kept {
            self.ring.pop_front();
        }
    }

    /// Judges a position against the ring.
    #[must_use]
    pub fn standing(&self, position: &LogPosition) -> Standing {
        let Some(present) = self.ring.back().map(Registry::position) else { return Standing::Old };
        let foreign = position.epoch != present.epoch;
        if foreign && !planted(Fault::ResumeAcrossEpochs) {
            return Standing::Foreign("the store began a new epoch");
        }
        if position.revision > present.revision {
            return Standing::Foreign("the agent is ahead of this server");
        }
        match self.ring.binary_search_by_key(&position.revision, |r| r.position().revision) {
            Ok(at) => match self.ring.get(at) {
                Some(registry) if registry.position() == *position || foreign => {
                    Standing::Known(Box::new(registry.clone()))
                }
                _ => Standing::Foreign("the log has another head there"),
            },
            Err(at) => match self.ring.get(at).filter(|_| foreign || planted(Fault::IgnoreGap)) {
                Some(later) => Standing::Known(Box::new(later.clone())),
                None => Standing::Old,
            },
        }
    }
}

/// Decides how an agent gets to `present`. `standing` is that of the position it names (`None` = it wants a
/// snapshot); `verified` tells whether the log confirms an old position; without that, what the agent says it
/// holds is not trusted.
#[must_use]
pub fn resume(
    present: &Registry,
    agent: &SpiffeId,
    wall: Timestamp,
    standing: Option<&Standing>,
    known: &[KnownEntry],
    verified: bool,
) -> Start {
    let (known, resync) = match standing {
        // Which entries were withheld for want of an owner when the agent heard last is not known, and no row says it.
        Some(Standing::Known(_)) if present.lacks_demanded_owners() => {
            (known, Some(Resync::Behind("owners are demanded, and some entries have none")))
        }
        Some(Standing::Known(before)) => return Start::Delta(delta(before, present, agent, wall)),
        None => (&[][..], None),
        Some(Standing::Old) if verified => {
            (known, Some(Resync::Behind("the position is too old for a delta")))
        }
        Some(Standing::Old) => (&[][..], Some(Resync::Foreign("the log does not confirm the position"))),
        Some(Standing::Foreign(reason)) => (&[][..], Some(Resync::Foreign(reason))),
    };
    Start::Digest { digest: digest(present, agent, wall, known), resync }
}
