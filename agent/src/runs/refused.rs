//! Identities that a process of a run would have outside of it: each is refused, and recorded once for the run.
//!
//! The caller waits for the look, for a moment: who has its answer may be gone, and of a process that is gone nothing can be
//! looked at. What can't be looked at or recorded is refused all the same.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use avouch_attestors::{PinnedProcess, ProcessKey};
use avouch_domain::{NodeEvent, SelectorSet, SpiffeId};
use tokio::sync::oneshot;

use super::Runs;
use super::desk::Desk;
use crate::limits::{LOOK_WAIT, LOOKS_PER_RUN, REFUSED_NAMES_MAX};
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
    /// Records which identities a process that was found in a run is refused. `look`: its selectors as if it were in no run;
    /// asked for once for each process, and waited for at most [`LOOK_WAIT`].
    pub async fn refuse<L>(&self, caller: &Caller, process: &PinnedProcess, look: impl FnOnce() -> L)
    where
        L: Future<Output = Option<SelectorSet>> + Send + 'static,
    {
        let Some(desk) = self.desk_of_new(caller, process) else { return };
        let (runs, key, look) = (self.clone(), process.key().clone(), look());
        let (looked, over) = oneshot::channel();
        tokio::spawn(async move {
            let found = look.await;
            // Nobody may wait any more.
            let _ = looked.send(());
            let Some(selectors) = found else {
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
        let _ = tokio::time::timeout(LOOK_WAIT, over).await;
    }

    /// The desk of the caller's run, if nobody has looked at this process yet.
    fn desk_of_new(&self, caller: &Caller, process: &PinnedProcess) -> Option<Arc<Desk>> {
        let desk = self.desk_of(caller.in_run()?.last()?)?;
        let new = desk.refused.lock().is_new(process.key());
        new.then_some(desk)
    }
}
