//! Identities that a process of a run would have outside of it: each is refused, and recorded once for the run.
//!
//! Never in the way of the answer that the caller gets, nor of other callers: what can't be looked at or recorded now is
//! refused all the same.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use avouch_attestors::{PinnedProcess, ProcessKey};
use avouch_domain::{NodeEvent, SelectorSet, SpiffeId};

use super::Runs;
use super::desk::Desk;
use crate::limits::{LOOKS_PER_RUN, REFUSED_NAMES_MAX};
use crate::peer::Caller;
use crate::records::Durability;

/// What was refused to one run.
#[derive(Default)]
pub(super) struct Refused {
    looked: HashSet<ProcessKey>,
    names: BTreeSet<SpiffeId>,
}

impl Refused {
    /// True once for each process, as long as there are not too many.
    fn is_new(&mut self, key: &ProcessKey) -> bool {
        self.looked.len() < LOOKS_PER_RUN && self.looked.insert(key.clone())
    }

    /// True once for each name, as long as there are not too many.
    fn is_first(&mut self, name: &SpiffeId) -> bool {
        self.names.len() < REFUSED_NAMES_MAX && self.names.insert(name.clone())
    }
}

impl Runs {
    /// Records which identities a process that was found in a run is refused, beside the answer that it gets. `look`: its
    /// selectors as if it were in no run; asked for once for each process.
    pub fn refuse<L>(&self, caller: &Caller, process: &PinnedProcess, look: impl FnOnce() -> L)
    where
        L: Future<Output = Option<SelectorSet>> + Send + 'static,
    {
        let Some(desk) = self.desk_of_new(caller, process) else { return };
        let (runs, key, look) = (self.clone(), process.key().clone(), look());
        tokio::spawn(async move {
            let Some(selectors) = look.await else {
                // The next call of this process is looked at.
                desk.refused.lock().looked.remove(&key);
                return;
            };
            for name in runs.0.parts.supply.names(&selectors).await {
                if name == desk.identity || !desk.refused.lock().is_first(&name) {
                    continue;
                }
                let worn_by = vec![("worn_by", desk.identity.to_string())];
                let note = desk.note(NodeEvent::SvidRefused, name.to_string(), worn_by);
                let _ = runs.0.parts.scribe.write(note, Durability::Soon).await;
            }
        });
    }

    /// The desk of the caller's run, if nobody has looked at this process yet.
    fn desk_of_new(&self, caller: &Caller, process: &PinnedProcess) -> Option<Arc<Desk>> {
        let desk = self.desk_of(caller.in_run()?.last()?)?;
        let new = desk.refused.lock().is_new(process.key());
        new.then_some(desk)
    }
}
