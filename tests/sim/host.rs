//! The machine that the servers run on: its disk keeps the store and the private keys, and may lose what was not
//! synced; the store may be put back from a backup.

use std::collections::BTreeMap;

use avouch_domain::{AuthorityId, Epoch, LogPosition, Now, Plan};
use avouch_engine::faults::{Fault, planted};
use avouch_store::{CommitError, Db};

/// A commit that is confirmed unsynced is safe after this many milliseconds at the latest.
const SYNC_EVERY: u64 = 30_000;
/// Changes that the log keeps: few, so that agents that were away find their position gone.
const RETENTION: u64 = 60;

/// Files of which those not synced yet are gone after a power cut.
#[derive(Clone, Debug)]
pub struct Disk<K, V> {
    safe: BTreeMap<K, V>,
    pending: Vec<(K, Option<V>)>,
}

impl<K: Ord + Clone, V: Clone> Disk<K, V> {
    fn new() -> Self {
        Self { safe: BTreeMap::new(), pending: Vec::new() }
    }

    pub fn write(&mut self, key: K, value: V) {
        self.pending.push((key, Some(value)));
    }

    pub fn remove(&mut self, key: K) {
        self.pending.push((key, None));
    }

    pub fn read(&self, key: &K) -> Option<V> {
        match self.pending.iter().rev().find(|(k, _)| k == key) {
            Some((_, value)) => value.clone(),
            None => self.safe.get(key).cloned(),
        }
    }

    pub fn sync(&mut self) {
        for (key, value) in self.pending.drain(..) {
            match value {
                Some(value) => self.safe.insert(key, value),
                None => self.safe.remove(&key),
            };
        }
    }

    fn power_cut(&mut self) {
        self.pending.clear();
    }
}

/// Name of the file of a private key; it holds the name of the authority it was made for.
pub type KeyFile = String;

pub struct Host {
    pub db: Db,
    pub keys: Disk<KeyFile, AuthorityId>,
    /// Until then nothing can be written but the store.
    pub full_until: u64,
    position: LogPosition,
    /// Audit rows of all commits that the store holds.
    audited: usize,
    backup: Option<(Db, usize)>,
    synced: Option<(u64, Db, usize)>,
}

impl Host {
    pub fn new(epoch: Epoch) -> Self {
        let mut db = Db::in_memory(epoch).expect("a store");
        db.set_retention(RETENTION);
        let position = db.position().expect("a position");
        Self { db, keys: Disk::new(), full_until: 0, position, audited: 0, backup: None, synced: None }
    }

    pub fn position(&self) -> LogPosition {
        self.position
    }

    pub fn commit(&mut self, now: Now, base: LogPosition, plan: &Plan) -> Result<LogPosition, CommitError> {
        if planted(Fault::ConfirmUnsynced)
            && self.synced.as_ref().is_none_or(|(at, _, _)| now.mono.0 >= at + SYNC_EVERY)
        {
            self.synced = Some((now.mono.0, self.db.copy().expect("a copy"), self.audited));
        }
        let positions = self.db.commit(base, std::slice::from_ref(plan))?;
        self.audited += plan.audit.len();
        self.position = positions[0];
        Ok(self.position)
    }

    /// Everything that was not synced is gone. What the store has confirmed was.
    pub fn power_cut(&mut self) {
        self.keys.power_cut();
        if let Some((_, db, audited)) = self.synced.take() {
            (self.db, self.audited) = (db, audited);
            self.position = self.db.position().expect("a position");
        }
    }

    pub fn make_backup(&mut self) {
        self.backup = Some((self.db.copy().expect("a copy"), self.audited));
    }

    /// Puts the backup in place, in a new epoch; no server may run. False: there is none.
    pub fn restore(&mut self, now: Now, random: u64) -> bool {
        let Some((backup, audited)) = &self.backup else { return false };
        let replaced = self.position.epoch;
        self.db = backup.copy().expect("a copy");
        self.audited = *audited;
        let old = self.db.position().expect("a position").epoch.max(replaced);
        // As the product does: later than any epoch before even if this host's clock is behind.
        let started = now.wall.0.max(old.started + 1);
        if !planted(Fault::RestoreInOldEpoch) {
            self.db.renew_epoch(Epoch { started, random }).expect("an epoch");
        }
        self.position = self.db.position().expect("a position");
        self.synced = None;
        true
    }

    /// INV-8 in the store: as many audit rows as commits have brought, and one unbroken chain of changes.
    pub fn audit_is_whole(&self) -> Result<(), String> {
        self.db.verify_chain().map_err(|e| e.to_string())?;
        let rows = self.db.records(0, usize::MAX >> 1).map_err(|e| e.to_string())?.records.len();
        if rows == self.audited {
            Ok(())
        } else {
            Err(format!("the store holds {rows} audit rows, its commits brought {}", self.audited))
        }
    }
}
