//! Identities that a process of a run would have outside of it: each is refused, and recorded once for the run.
//!
//! The caller waits for the look, for a moment: who has its answer may be gone, and of a process that is gone nothing can be
//! looked at. What can't be looked at or recorded is refused all the same.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use avouch_attestors::{PinnedProcess, ProcessKey};
use avouch_domain::{NodeEvent, SelectorSet, SpiffeId};
use tokio::sync::watch;

use super::Runs;
use super::desk::Desk;
use crate::limits::{LOOK_WAIT, LOOKS_PER_RUN, REFUSED_NAMES_MAX};
use crate::peer::Caller;
use crate::records::Durability;

/// What was refused to one run.
#[derive(Default)]
pub(super) struct Refused {
    /// Closed when the look is over.
    looks: HashMap<ProcessKey, watch::Receiver<()>>,
    names: BTreeSet<SpiffeId>,
}

impl Refused {
    /// The look at a process, and once for each what ends it when it is dropped, as long as there are not too many.
    fn look(&mut self, key: &ProcessKey) -> Option<(watch::Receiver<()>, Option<watch::Sender<()>>)> {
        if let Some(look) = self.looks.get(key) {
            return Some((look.clone(), None));
        }
        if self.looks.len() >= LOOKS_PER_RUN {
            return None;
        }
        let (ends, look) = watch::channel(());
        self.looks.insert(key.clone(), look.clone());
        Some((look, Some(ends)))
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
        let Some(desk) = caller.in_run().and_then(|line| self.desk_of(line.last()?)) else { return };
        let key = process.key();
        let Some((mut over, ends)) = desk.refused.lock().look(key) else { return };
        if let Some(ends) = ends {
            self.record(desk, key.clone(), look(), ends);
        }
        // Nothing is ever sent: it ends when the look does.
        let _ = tokio::time::timeout(LOOK_WAIT, over.changed()).await;
    }

    fn record<L>(&self, desk: Arc<Desk>, key: ProcessKey, look: L, ends: watch::Sender<()>)
    where
        L: Future<Output = Option<SelectorSet>> + Send + 'static,
    {
        let runs = self.clone();
        tokio::spawn(async move {
            let found = look.await;
            drop(ends);
            let Some(selectors) = found else {
                // The next call of this process is looked at.
                desk.refused.lock().looks.remove(&key);
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
}
