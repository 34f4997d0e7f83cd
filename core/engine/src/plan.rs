//! What a write does, computed purely from memory: rows, changes and audit rows of one revision.
//!
//! Never touches the store and never asks a clock. Each function of the sub-modules takes the registry as it is,
//! the time, who acts and what is wanted, and gives a [`Plan`] with one outcome per item. Items see the items
//! before them in the same batch. An item that is refused leaves no trace in the plan.

pub mod accepting;
#[cfg(test)]
mod accepting_tests;
pub mod authorities;
pub mod bundles;
pub mod consent;
pub mod emergencies;
#[cfg(test)]
mod emergencies_tests;
pub mod entries;
#[cfg(test)]
mod governance_tests;
pub mod grants;
#[cfg(test)]
mod grants_tests;
pub mod identities;
pub mod leaving;
pub mod nodes;
pub mod operator;
#[cfg(test)]
mod operator_tests;
pub mod people;
pub mod requests;
#[cfg(test)]
mod requests_tests;
pub mod rules;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod tests;
pub mod tokens;

use std::collections::BTreeSet;

use avouch_domain::{
    AuditEvent, AuditRow, Change, Entry, EntryId, Plan, Revision, Row, RowKey, SpiffeId, Timestamp,
};

use crate::faults::{Fault, planted};
use crate::registry::Registry;

/// A plan in the making: the registry before, the registry as the plan would leave it, and what was touched.
struct Draft<'a> {
    before: &'a Registry,
    after: Registry,
    touched: BTreeSet<RowKey>,
    audit: Vec<AuditRow>,
    at: Timestamp,
    actor: &'a str,
}

impl<'a> Draft<'a> {
    fn new(before: &'a Registry, at: Timestamp, actor: &'a str) -> Self {
        Self { before, after: before.clone(), touched: BTreeSet::new(), audit: Vec::new(), at, actor }
    }

    /// The revision this plan takes if it is committed on top of `before`.
    fn revision(&self) -> Revision {
        self.before.position().revision.next()
    }

    fn put(&mut self, row: Row) {
        self.touched.insert(row.key());
        self.after.put(row);
    }

    fn delete(&mut self, key: RowKey) {
        self.after.delete(&key);
        self.touched.insert(key);
    }

    fn note(&mut self, event: AuditEvent, subject: impl ToString) {
        self.note_with(event, subject, Vec::new());
    }

    fn note_with(&mut self, event: AuditEvent, subject: impl ToString, detail: Vec<(&'static str, String)>) {
        let (actor, subject) = (self.actor.to_owned(), subject.to_string());
        self.audit.push(AuditRow { at: self.at, event, actor, subject, detail });
    }

    /// Gives the entry as the registry keeps it.
    fn put_entry(&mut self, event: AuditEvent, entry: Entry) -> Entry {
        self.note(event, &entry.id);
        self.touched.insert(RowKey::Entry(entry.id.clone()));
        self.after.put_entry(entry)
    }

    fn delete_entry(&mut self, id: &EntryId) {
        if !planted(Fault::DeleteSilently) {
            self.note(AuditEvent::EntryDeleted, id);
        }
        self.delete(RowKey::Entry(id.clone()));
    }

    /// The plan: what differs between before and after, each touched row once.
    fn finish(self) -> Plan {
        let mut plan = Plan { audit: self.audit, ..Plan::default() };
        let revision = self.before.position().revision.next();
        for key in self.touched {
            let before = self.before.row(&key);
            let after = self.after.row(&key);
            if before == after {
                continue;
            }
            plan.changes.push(Change {
                revision,
                key: key.clone(),
                deleted: after.is_none(),
                parent_before: parent(before.as_ref()),
                parent_after: parent(after.as_ref()),
            });
            match after {
                Some(row) => plan.puts.push(row),
                None => plan.deletes.push(key),
            }
        }
        plan
    }
}

fn parent(row: Option<&Row>) -> Option<SpiffeId> {
    match row {
        Some(Row::Entry(entry)) => Some(entry.parent_id.clone()),
        _ => None,
    }
}
