//! What a process of a run asks for itself: its own code is the gate, and nobody shows its calls to a person.
//!
//! Never for a process that is in no run, nor for a run that has ended meanwhile.

use std::sync::Arc;

use avouch_attestors::process::{Look, ProcessKey};
use avouch_attestors::{PinnedProcess, ProcessGone};
use avouch_domain::{Code, SpiffeId};

use tokio::sync::OwnedSemaphorePermit;

use super::desk::{Desk, Standing};
use super::{Answer, Found, Question, Runs};
use crate::peer::Caller;

/// Why nothing is decided for a caller.
#[derive(Debug, thiserror::Error)]
pub enum NoRun {
    #[error(
        "this process belongs to no run, so there is no task: start it with `avouch run IDENTITY -- CMD`"
    )]
    Outside,
    #[error(transparent)]
    Gone(#[from] ProcessGone),
}

/// A run whose end its supervisor's line brings; whether the identity was stopped is looked up here.
struct Seen<'a>(&'a OwnCode);

impl Standing for Seen<'_> {
    async fn is_over(&mut self) -> bool {
        let desk = &self.0.desk;
        // Nobody holds the lock for longer than a look takes.
        desk.ended.is_cancelled() || desk.followed.lock().await.is_over().await
    }

    async fn over(&mut self) {
        // The server is asked for nobody who has become another: what it gives would be used up.
        if self.0.still_there().is_ok() {
            self.0.desk.ended.cancelled().await;
        }
    }
}

/// A process of a live run that asks for itself, or for the gates of the run that it holds.
#[derive(Clone, Debug)]
pub struct OwnCode {
    pub(super) runs: Runs,
    caller: Arc<Caller>,
    pub(super) desk: Arc<Desk>,
}

impl OwnCode {
    /// Whose run it is.
    #[must_use]
    pub fn identity(&self) -> &SpiffeId {
        &self.desk.identity
    }

    /// What the run is about.
    #[must_use]
    pub fn task(&self) -> &Code {
        &self.desk.task
    }

    /// Resolves when the run has ended.
    pub fn ended(&self) -> impl Future<Output = ()> + use<'_> {
        self.desk.ended.cancelled()
    }

    /// When no other question of the gates is being decided, also none of whose asker has left.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        self.desk.gates_turn.clone().acquire_owned().await.ok()
    }

    /// Decides; counted, recorded and stopped as what the run's gates ask.
    ///
    /// # Errors
    /// [`NoRun`] if the caller or the run is gone, or has gone meanwhile; then nothing may be told.
    pub async fn decide(&self, question: &Question) -> Result<Answer, NoRun> {
        // Nothing is counted for whoever is not there to hear it. What it has become is looked at after, when there is
        // something to tell.
        self.caller.running()?;
        if self.desk.ended.is_cancelled() {
            return Err(NoRun::Outside);
        }
        let answer = self.desk.decide(&self.runs.0.parts, question, &mut Seen(self)).await;
        self.still_there()?;
        Ok(answer)
    }

    fn still_there(&self) -> Result<(), NoRun> {
        self.runs.still_at(&self.caller, &self.desk)
    }
}

impl Runs {
    /// The caller as a process that asks for itself: it runs, and belongs to a live run. Whether it still is what it was when
    /// it connected is looked at before it is told anything.
    ///
    /// # Errors
    /// [`NoRun`].
    pub fn own_code(&self, caller: &Arc<Caller>) -> Result<OwnCode, NoRun> {
        let desk = self.desk_with(caller, &*caller.running()?)?;
        Ok(OwnCode { runs: self.clone(), caller: caller.clone(), desk })
    }

    /// The caller as the supervisor of a live run, which asks for its gates.
    ///
    /// # Errors
    /// [`NoRun`] also for every other process of the run: what it says of a call is not the gate's word.
    pub fn gates_of(&self, caller: &Arc<Caller>) -> Result<OwnCode, NoRun> {
        let process = caller.looked_at(Look::ButGroups)?;
        let desk = self.desk_with(caller, &process)?;
        // The same process may have become another program since.
        let image = |key: &ProcessKey| (key.pid, key.start_time, key.image, key.exe, key.uid, key.gid);
        let same = image(process.key()) == image(&desk.beginner);
        match caller.in_run() {
            Some([itself, root]) if itself == root && same => {
                Ok(OwnCode { runs: self.clone(), caller: caller.clone(), desk })
            }
            _ => Err(NoRun::Outside),
        }
    }

    /// The desk of the caller's run, which is live.
    pub(super) fn desk(&self, caller: &Arc<Caller>) -> Result<Arc<Desk>, NoRun> {
        // Which run it belongs to rests on no groups.
        self.desk_with(caller, &*caller.looked_at(Look::ButGroups)?)
    }

    fn desk_with(&self, caller: &Arc<Caller>, process: &PinnedProcess) -> Result<Arc<Desk>, NoRun> {
        let Found::In(root, _) = self.found(caller, process)? else { return Err(NoRun::Outside) };
        self.desk_of(&root).ok_or(NoRun::Outside)
    }

    /// Still the caller of this desk: whoever asked must be there when it is told, and its run.
    pub(super) fn still_at(&self, caller: &Arc<Caller>, desk: &Arc<Desk>) -> Result<(), NoRun> {
        if Arc::ptr_eq(desk, &self.desk(caller)?) { Ok(()) } else { Err(NoRun::Outside) }
    }
}
