//! Receipts of HTTP gates that are workloads of their own.
//!
//! Never from another process than the one that was told the decision.

use avouch_attestors::process::ProcessKey;
use avouch_domain::SpiffeId;

use super::Hooks;
use crate::limits::RECEIPT_GATES_MAX;
use crate::records::Durability;
use crate::runs::receipts::Due;
use crate::runs::{Did, NoReceipt};

impl Hooks {
    /// Waits for the receipt of a decision that `by` is about to be told.
    pub(crate) fn awaits(&self, record: u64, by: ProcessKey, (gate, due): (SpiffeId, Due)) {
        let gates = &mut *self.0.awaited.lock();
        if gates.len() >= RECEIPT_GATES_MAX && !gates.contains_key(&gate) {
            // Rules have few gates: most of these are of rules that were.
            gates.pop_first();
        }
        gates.entry(gate).or_default().put(record, by, due);
    }

    /// Records what the gate did.
    ///
    /// # Errors
    /// [`NoReceipt`]; then nothing is recorded.
    pub async fn did(&self, by: &ProcessKey, did: Did) -> Result<(), NoReceipt> {
        let record = did.record;
        let due = self.0.awaited.lock().values_mut().find_map(|awaited| awaited.take(record, by));
        let note = due.ok_or(NoReceipt::NotDue(record))?.note(did);
        let written = self.0.parts.scribe.write(note, Durability::Soon).await;
        written.map(drop).map_err(NoReceipt::Record)
    }
}
