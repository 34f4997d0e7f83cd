//! Pins that connections share: one for each process image, one pidfd for each process.
//!
//! Never: no pin is shared without the check that its process is the peer's, unchanged and alive.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{Look, PinnedProcess, ProcessGone};
use crate::limits::{PINS_OPEN_MAX, PINS_RECENT, PINS_SWEEP};
use crate::peer::Peer;
use crate::sys;

/// Shares one pin between all connections of one process image, and one pidfd between all images of a process.
#[derive(Debug)]
pub struct Pins {
    table: Mutex<Table>,
    /// Pins that keep a file open.
    open: Arc<AtomicUsize>,
    open_max: usize,
}

#[derive(Debug, Default)]
struct Table {
    by_pid: HashMap<i32, Known>,
    /// Held for a moment longer than their connections: who asks once often asks again.
    recent: VecDeque<Arc<PinnedProcess>>,
}

#[derive(Debug)]
struct Known {
    /// Of the newest image.
    pin: Weak<PinnedProcess>,
    pidfd: Weak<OwnedFd>,
}

/// A place for the open file of one pin, given back when dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let more = |taken| (taken < most).then_some(taken + 1);
        open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self(open.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for Pins {
    fn default() -> Self {
        Self::new(PINS_OPEN_MAX)
    }
}

impl Pins {
    /// Keeps a file open for each of at most `open_max` processes.
    #[must_use]
    pub fn new(open_max: usize) -> Self {
        Self { table: Mutex::default(), open: Arc::default(), open_max }
    }

    /// Pins the peer, or finds the pin that another connection of the same process image holds.
    ///
    /// # Errors
    /// As [`PinnedProcess::pin`].
    pub fn pin(&self, peer: Peer) -> Result<Arc<PinnedProcess>, ProcessGone> {
        let (pin, pidfd) = match self.table.lock().by_pid.get(&peer.pid) {
            Some(known) => (known.pin.upgrade(), known.pidfd.upgrade()),
            None => (None, None),
        };
        if let Some(known) = pin.filter(|pin| pin.is_of(&peer)) {
            return Ok(known);
        }
        let Peer { pid, uid, gid, pidfd: own } = peer;
        let pidfd = match (own, pidfd) {
            (Some(own), Some(known)) if both_alive(&known, &own) => Some(known),
            (own, _) => own.map(Arc::new),
        };
        let place = Place::take(&self.open, self.open_max);
        let fresh = Arc::new(PinnedProcess::pin_by(pid, (uid, gid), pidfd, place)?);
        self.table.lock().add(&fresh);
        Ok(fresh)
    }
}

impl Table {
    fn add(&mut self, pin: &Arc<PinnedProcess>) {
        if self.by_pid.len() >= PINS_SWEEP && self.by_pid.len().is_power_of_two() {
            self.by_pid.retain(|_, known| known.pin.strong_count() + known.pidfd.strong_count() > 0);
        }
        let pidfd = pin.pidfd.as_ref().map(Arc::downgrade).unwrap_or_default();
        self.by_pid.insert(pin.pid(), Known { pin: Arc::downgrade(pin), pidfd });
        if self.recent.len() >= PINS_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(pin.clone());
    }
}

impl PinnedProcess {
    /// True if the peer is this very process, and it is what it was.
    fn is_of(&self, peer: &Peer) -> bool {
        // A peer that lives after the check lived at its moment too, and two that live have two pids.
        (self.uid(), self.gid()) == (peer.uid, peer.gid)
            && self.still_same(Look::Whole).is_ok()
            && peer.pidfd.as_ref().is_none_or(|pidfd| sys::is_alive(pidfd).unwrap_or(false))
    }
}

/// Both are handles of a process of one pid: alive together, they are of one process.
fn both_alive(one: &OwnedFd, other: &OwnedFd) -> bool {
    [one, other].into_iter().all(|pidfd| sys::is_alive(pidfd).unwrap_or(false))
}
