//! The processes of one agent's host: their numbers are few, and are given out again.

use std::collections::BTreeMap;

use avouch_domain::SelectorSet;
use avouch_engine::faults::{Fault, planted};

/// A process as it was when it connected: its number, and what tells it from others that bear the number later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    pub pid: u64,
    born: u64,
}

#[derive(Debug)]
struct Process {
    born: u64,
    selectors: SelectorSet,
}

#[derive(Debug, Default)]
pub struct Processes {
    alive: BTreeMap<u64, Process>,
    births: u64,
}

impl Processes {
    /// Another program runs under this number from now on.
    pub fn replace(&mut self, pid: u64, selectors: SelectorSet) {
        self.births += 1;
        self.alive.insert(pid, Process { born: self.births, selectors });
    }

    /// The process with this number connects; there is one, if need be a new one.
    pub fn connect(&mut self, pid: u64, otherwise: SelectorSet) -> (Pin, SelectorSet) {
        if !self.alive.contains_key(&pid) {
            self.replace(pid, otherwise);
        }
        let process = &self.alive[&pid];
        (Pin { pid, born: process.born }, process.selectors.clone())
    }

    /// Whom an answer to this connection reaches: nobody, if the process that connected is gone. Its number may have
    /// come to mean another one meanwhile.
    pub fn reached(&self, pin: Pin) -> Option<&SelectorSet> {
        let process = self.alive.get(&pin.pid)?;
        (process.born == pin.born || planted(Fault::ReusePid)).then_some(&process.selectors)
    }
}
