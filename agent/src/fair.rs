//! Fair shares of a budget: who may take one more when things get tight.
//!
//! Below half of the budget nobody is refused and nothing is compared. Above it a process or user that holds its
//! share already is refused; others still get in. Never waits, never takes back what was given.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::limits::{RESERVE_DIVISOR, SHARE_MIN};

/// A budget shared by processes and, above them, by users.
#[derive(Clone, Debug)]
pub struct FairShare {
    budget: usize,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    by_process: HashMap<i32, usize>,
    by_user: HashMap<u32, usize>,
}

/// Who was refused and with how much in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverShare {
    #[error("the process holds {0}, its share while the agent is busy")]
    Process(usize),
    #[error("the user holds {0}, its share while the agent is busy")]
    User(usize),
    #[error("all {0} are taken")]
    Everything(usize),
}

/// One unit of the budget, given back when dropped.
#[derive(Debug)]
pub struct Share {
    held: Arc<Mutex<Held>>,
    pid: i32,
    uid: u32,
}

impl FairShare {
    #[must_use]
    pub fn new(budget: usize) -> Self {
        Self { budget: budget.max(1), held: Arc::default() }
    }

    /// Takes one for a process of a user.
    ///
    /// # Errors
    /// [`OverShare`] if more than half is taken and the process or its user holds its share already.
    pub fn take(&self, pid: i32, uid: u32) -> Result<Share, OverShare> {
        let held = &mut *self.held.lock();
        if held.total >= self.budget {
            return Err(OverShare::Everything(self.budget));
        }
        if held.total >= self.budget / 2 {
            let mine = held.by_process.get(&pid).copied().unwrap_or(0);
            let users = held.by_user.get(&uid).copied().unwrap_or(0);
            if mine >= self.share_of(held.by_process.len()) {
                return Err(OverShare::Process(mine));
            }
            if users >= self.share_of(held.by_user.len()) {
                return Err(OverShare::User(users));
            }
        }
        held.total += 1;
        *held.by_process.entry(pid).or_default() += 1;
        *held.by_user.entry(uid).or_default() += 1;
        Ok(Share { held: self.held.clone(), pid, uid })
    }

    /// An even part of what is not reserved for newcomers.
    fn share_of(&self, holders: usize) -> usize {
        let open = self.budget - self.budget / RESERVE_DIVISOR;
        (open / holders.max(1)).max(SHARE_MIN)
    }

    /// Units given out.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.held.lock().total
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let held = &mut *self.held.lock();
        held.total = held.total.saturating_sub(1);
        give_back(&mut held.by_process, self.pid);
        give_back(&mut held.by_user, self.uid);
    }
}

fn give_back<K: Eq + Hash>(table: &mut HashMap<K, usize>, key: K) {
    if let std::collections::hash_map::Entry::Occupied(mut slot) = table.entry(key) {
        *slot.get_mut() -= 1;
        if *slot.get() == 0 {
            slot.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_refused_below_half() {
        let budget = FairShare::new(100);
        let held: Vec<_> = (0..50).map(|_| budget.take(1, 1).unwrap()).collect();
        assert_eq!(held.len(), 50);
    }

    #[test]
    fn above_half_the_flood_is_refused_and_others_get_in() {
        let budget = FairShare::new(100);
        let mut held: Vec<_> = (2..12).map(|pid| budget.take(pid, 2).unwrap()).collect();
        while let Ok(share) = budget.take(1, 1) {
            held.push(share);
        }
        assert_eq!(budget.taken(), 50);
        assert_eq!(budget.take(1, 1).unwrap_err(), OverShare::Process(40));
        assert!(budget.take(2, 2).is_ok());
        assert!(budget.take(99, 3).is_ok());
    }

    #[test]
    fn a_user_with_many_processes_stops_at_the_share_of_a_user() {
        let budget = FairShare::new(100);
        let _other = budget.take(5000, 2).unwrap();
        let flood: Vec<_> = (0..100).map_while(|pid| budget.take(pid, 1).ok()).collect();
        assert_eq!(flood.len(), 49, "88 open places, two users, 44 each, but nothing is refused below half");
        assert!(budget.take(5001, 2).is_ok());
    }

    #[test]
    fn what_is_dropped_can_be_taken_again() {
        let budget = FairShare::new(1);
        let one = budget.take(1, 1).unwrap();
        assert_eq!(budget.take(2, 2).unwrap_err(), OverShare::Everything(1));
        drop(one);
        assert!(budget.take(2, 2).is_ok());
        assert_eq!(budget.taken(), 0);
    }
}
