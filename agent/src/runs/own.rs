//! What a process of a run asks for itself: its own code is the gate, and nobody shows its calls to a person.
//!
//! Never for a process that is in no run, nor for a run that has ended meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use avouch_attestors::ProcessGone;
use avouch_attestors::process::Look;
use avouch_domain::{Code, SpiffeId};

use super::desk::{Desk, Standing};
use super::{Answer, Found, Inner, Question, Runs, selectors};
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

/// A run whose stops somebody else hears of: here it is looked up.
struct LookedUp<'a> {
    inner: &'a Inner,
    desk: &'a Desk,
    uid: u32,
}

impl Standing for LookedUp<'_> {
    async fn is_over(&mut self) -> bool {
        let Some(selectors) = selectors(&self.desk.identity, self.uid) else { return true };
        self.desk.ended.is_cancelled()
            || !self.inner.parts.supply.names(&selectors).await.contains(&self.desk.identity)
    }

    async fn over(&mut self) {
        self.desk.ended.cancelled().await;
    }
}

/// A process of a live run that asks for itself.
#[derive(Debug)]
pub struct OwnCode {
    runs: Runs,
    caller: Arc<Caller>,
    desk: Arc<Desk>,
    uid: u32,
    /// Nothing was decided since it was looked at.
    fresh: AtomicBool,
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

    /// Decides; counted, recorded and stopped as what the run's gates ask.
    ///
    /// # Errors
    /// [`NoRun`] if the caller or the run is gone, or has gone meanwhile; then nothing may be told.
    pub async fn decide(&self, question: &Question) -> Result<Answer, NoRun> {
        // Nothing is counted or used up for whoever is not there to hear it.
        if !self.fresh.swap(false, Ordering::Relaxed) {
            self.runs.still_at(&self.caller, &self.desk)?;
        }
        let mut standing = LookedUp { inner: &self.runs.0, desk: &self.desk, uid: self.uid };
        let answer = self.desk.decide(&self.runs.0.parts, question, &mut standing).await;
        self.runs.still_at(&self.caller, &self.desk)?;
        Ok(answer)
    }
}

impl Runs {
    /// The caller as a process that asks for itself.
    ///
    /// # Errors
    /// [`NoRun`].
    pub fn own_code(&self, caller: &Arc<Caller>) -> Result<OwnCode, NoRun> {
        let (desk, uid) = self.desk(caller)?;
        Ok(OwnCode { runs: self.clone(), caller: caller.clone(), desk, uid, fresh: AtomicBool::new(true) })
    }

    /// The desk of the caller's run, which is live, and who runs it.
    pub(super) fn desk(&self, caller: &Arc<Caller>) -> Result<(Arc<Desk>, u32), NoRun> {
        // Which run it belongs to rests on no groups.
        let process = caller.looked_at(Look::ButGroups)?;
        let Found::In(root, run) = self.found(caller, &process)? else { return Err(NoRun::Outside) };
        let desk = self.desk_of(&root).ok_or(NoRun::Outside)?;
        Ok((desk, run.uid))
    }

    /// Still the caller of this desk: whoever asked must be there when it is told, and its run.
    pub(super) fn still_at(&self, caller: &Arc<Caller>, desk: &Arc<Desk>) -> Result<(), NoRun> {
        if Arc::ptr_eq(desk, &self.desk(caller)?.0) { Ok(()) } else { Err(NoRun::Outside) }
    }
}
