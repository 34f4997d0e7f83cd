//! Fair shares of a budget: who may take one more when things get tight.
//!
//! Below half of the budget nobody is refused and nothing is compared. Above it a process, control group or user that
//! holds its share already is refused; others still get in. Never waits, never takes back what was given.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use avouch_attestors::process::control_group;
use parking_lot::Mutex;

use crate::limits::{RESERVE_DIVISOR, SHARE_MIN};

/// Finds the control group of a process: all of a container's or service's processes have one.
type GroupOf = fn(i32) -> Arc<str>;

/// A budget shared by processes and, above them, by control groups and users.
#[derive(Clone, Debug)]
pub struct FairShare {
    budget: usize,
    held: Arc<Mutex<Held>>,
    group_of: GroupOf,
    first: usize,
}

#[derive(Debug, Default)]
struct Held {
    /// What the first ones of processes cost more included.
    total: usize,
    by_process: HashMap<i32, Holder>,
    by_group: HashMap<Arc<str>, usize>,
    by_user: HashMap<u32, usize>,
    /// Holders whose group was not needed yet.
    ungrouped: HashSet<i32>,
}

#[derive(Debug, Default)]
struct Holder {
    count: usize,
    group: Option<Arc<str>>,
}

/// Who was refused and with how much in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverShare {
    #[error("the process holds {0}, its share while the agent is busy")]
    Process(usize),
    #[error("the control group holds {0}, its share while the agent is busy")]
    Group(usize),
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
    first: usize,
}

impl FairShare {
    #[must_use]
    pub fn new(budget: usize) -> Self {
        Self::with_groups(budget, control_group)
    }

    fn with_groups(budget: usize, group_of: GroupOf) -> Self {
        Self { budget: budget.max(1), held: Arc::default(), group_of, first: 0 }
    }

    /// The same, where the first unit of each process takes so much more of the budget.
    #[must_use]
    pub fn and_for_each_process(self, more: usize) -> Self {
        Self { first: more, ..self }
    }

    /// Takes one for a process of a user.
    ///
    /// # Errors
    /// [`OverShare`] if more than half is taken and the process, its control group or its user holds its share
    /// already.
    pub fn take(&self, pid: i32, uid: u32) -> Result<Share, OverShare> {
        let held = &mut *self.held.lock();
        if held.total >= self.budget {
            return Err(OverShare::Everything(self.budget));
        }
        if held.total >= self.budget / 2 {
            held.find_groups(self.group_of);
            let known = held.by_process.get(&pid);
            let mine = known.map_or(0, |holder| holder.count);
            if mine >= self.share_of(held.by_process.len()) {
                return Err(OverShare::Process(mine));
            }
            let group = known.and_then(|holder| holder.group.clone()).unwrap_or_else(|| (self.group_of)(pid));
            let groups = held.by_group.get(&group).copied().unwrap_or(0);
            if groups >= self.share_of(held.by_group.len()) {
                return Err(OverShare::Group(groups));
            }
            let users = held.by_user.get(&uid).copied().unwrap_or(0);
            if users >= self.share_of(held.by_user.len()) {
                return Err(OverShare::User(users));
            }
        }
        held.add(pid, uid, self.first);
        Ok(Share { held: self.held.clone(), pid, uid, first: self.first })
    }

    /// An even part of what is not reserved for newcomers.
    fn share_of(&self, holders: usize) -> usize {
        let open = self.budget - self.budget / RESERVE_DIVISOR;
        (open / holders.max(1)).max(SHARE_MIN)
    }

    /// Units of the budget in use.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.held.lock().total
    }
}

impl Held {
    fn add(&mut self, pid: i32, uid: u32, first: usize) {
        self.total += 1;
        *self.by_user.entry(uid).or_default() += 1;
        let holder = self.by_process.entry(pid).or_default();
        if holder.count == 0 {
            self.total += first;
        }
        holder.count += 1;
        match &holder.group {
            Some(group) => *self.by_group.entry(group.clone()).or_default() += 1,
            None => {
                self.ungrouped.insert(pid);
            }
        }
    }

    /// Looks up what was not needed while there was plenty: once for each process that holds something.
    fn find_groups(&mut self, group_of: GroupOf) {
        for pid in std::mem::take(&mut self.ungrouped) {
            if let Some(holder) = self.by_process.get_mut(&pid) {
                let group = holder.group.insert(group_of(pid)).clone();
                *self.by_group.entry(group).or_default() += holder.count;
            }
        }
    }

    fn remove(&mut self, pid: i32, uid: u32, first: usize) {
        self.total = self.total.saturating_sub(1);
        give_back(&mut self.by_user, &uid);
        let Some(holder) = self.by_process.get_mut(&pid) else { return };
        holder.count = holder.count.saturating_sub(1);
        if let Some(group) = &holder.group {
            give_back(&mut self.by_group, group);
        }
        if holder.count == 0 {
            self.total = self.total.saturating_sub(first);
            self.by_process.remove(&pid);
            self.ungrouped.remove(&pid);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.lock().remove(self.pid, self.uid, self.first);
    }
}

fn give_back<K: Eq + Hash>(table: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = table.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            table.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each process in a group of its own.
    fn alone(budget: usize) -> FairShare {
        FairShare::with_groups(budget, |pid| pid.to_string().into())
    }

    /// Ten processes to a group.
    fn tens(budget: usize) -> FairShare {
        FairShare::with_groups(budget, |pid| (pid / 10).to_string().into())
    }

    #[test]
    fn nobody_is_refused_below_half() {
        let budget = alone(100);
        let held: Vec<_> = (0..50).map(|_| budget.take(1, 1).unwrap()).collect();
        assert_eq!(held.len(), 50);
    }

    #[test]
    fn above_half_the_flood_is_refused_and_others_get_in() {
        let budget = alone(100);
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
        let budget = alone(100);
        let _other = budget.take(5000, 2).unwrap();
        let flood: Vec<_> = (0..100).map_while(|pid| budget.take(pid, 1).ok()).collect();
        assert_eq!(flood.len(), 49, "88 open places, two users, 44 each, but nothing is refused below half");
        assert!(budget.take(5001, 2).is_ok());
    }

    #[test]
    fn what_is_dropped_can_be_taken_again() {
        let budget = alone(1);
        let one = budget.take(1, 1).unwrap();
        assert_eq!(budget.take(2, 2).unwrap_err(), OverShare::Everything(1));
        drop(one);
        assert!(budget.take(2, 2).is_ok());
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn the_first_of_a_process_costs_what_the_process_costs() {
        let budget = alone(10).and_for_each_process(2);
        let held: Vec<_> = [1, 1, 1, 2].map(|pid| budget.take(pid, pid.cast_unsigned()).unwrap()).into();
        assert_eq!(budget.taken(), 3 + 1 + 2 * 2);
        drop(held);
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn a_container_with_many_processes_stops_at_the_share_of_a_control_group() {
        let budget = tens(100);
        let _other = budget.take(5000, 0).unwrap();
        let mut flood = Vec::new();
        let refused = loop {
            match budget.take(i32::try_from(flood.len() % 10).unwrap(), 0) {
                Ok(share) => flood.push(share),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, OverShare::Group(49), "88 open places, two groups; of one user, all of them");
        assert!(budget.take(5001, 0).is_ok(), "another container of the same user");
    }

    #[test]
    fn nothing_is_remembered_of_those_that_hold_nothing() {
        let budget = tens(4);
        for pid in 0..100 {
            let held: Vec<_> = (0..4).map_while(|n| budget.take(pid + n, 1).ok()).collect();
            drop(held);
        }
        let held = budget.held.lock();
        assert!(held.by_process.is_empty() && held.by_group.is_empty() && held.by_user.is_empty());
        assert!(held.ungrouped.is_empty() && held.total == 0);
    }
}
