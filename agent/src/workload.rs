//! Pinned process → selectors, by all lookers, under a deadline, remembered per process image.
//!
//! Selectors are remembered under the key of the image (pid, start time, binary, users, groups) that was pinned. That
//! the caller still is that image is checked when something is handed out (`Caller::still_same`), not before.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use avouch_attestors::workload::{AttestError, LookError};
use avouch_attestors::{Boxed, PinnedProcess, ProcessGone, ProcessKey, WorkloadLooker, look_all};
use avouch_domain::{Selector, SelectorSet, Tick};
use parking_lot::Mutex;
use tokio::sync::{Mutex as Turn, Semaphore};

use crate::fair::{FairShare, OverShare};
use crate::limits::{
    ATTESTATION_DEADLINE, ATTESTATIONS_RUNNING_MAX, ATTESTATIONS_WAITING_MAX, SELECTORS_AGE_MAX,
    SELECTORS_CACHED_MAX,
};
use crate::metrics::Metrics;
use crate::peer::Caller;
use crate::runs::{Membership, Runs};

/// Why there are no selectors for a caller. The text is for the log; callers only learn that it failed.
#[derive(Debug, thiserror::Error)]
pub enum AttestationFailed {
    #[error(transparent)]
    Gone(#[from] ProcessGone),
    #[error(transparent)]
    Lookers(#[from] AttestError),
    #[error("workload attestors gave no answer within {0:?}")]
    Deadline(Duration),
    #[error("too many attestations wait: {0}")]
    Busy(#[from] OverShare),
    #[error("the process is left over from a run that has ended")]
    LeftOver,
}

/// Finds the selectors of callers.
pub struct WorkloadAttestor {
    lookers: Vec<Arc<dyn WorkloadLooker>>,
    deadline: Duration,
    known: Mutex<HashMap<ProcessKey, Known>>,
    /// One look at a process at a time: whoever waits for it finds what it brought.
    turns: Mutex<HashMap<ProcessKey, Weak<Turn<()>>>>,
    waiting: FairShare,
    running: Arc<Semaphore>,
    runs: Option<Runs>,
    metrics: Metrics,
    clock: fn() -> Tick,
}

/// A looker whose work is counted.
struct CountedLooker {
    inner: Arc<dyn WorkloadLooker>,
    metrics: Metrics,
    clock: fn() -> Tick,
}

impl WorkloadLooker for CountedLooker {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn look(&self, process: Arc<PinnedProcess>) -> Boxed<'static, Result<Vec<Selector>, LookError>> {
        let (name, clock, metrics) = (self.name(), self.clock, self.metrics.clone());
        let begun = clock();
        let look = self.inner.look(process);
        Box::pin(async move {
            let found = look.await;
            metrics.workload_attestor(name, found.is_ok(), clock().since(begun));
            found
        })
    }
}

struct Known {
    selectors: SelectorSet,
    at: Tick,
}

impl std::fmt::Debug for WorkloadAttestor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkloadAttestor").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl WorkloadAttestor {
    /// Asks `lookers`; `clock` gives monotonic time.
    #[must_use]
    pub fn new(lookers: Vec<Arc<dyn WorkloadLooker>>, metrics: Metrics, clock: fn() -> Tick) -> Self {
        let counted = |inner| -> Arc<dyn WorkloadLooker> {
            Arc::new(CountedLooker { inner, metrics: metrics.clone(), clock })
        };
        Self {
            lookers: lookers.into_iter().map(counted).collect(),
            deadline: ATTESTATION_DEADLINE,
            known: Mutex::default(),
            turns: Mutex::default(),
            waiting: FairShare::new(ATTESTATIONS_WAITING_MAX),
            running: Arc::new(Semaphore::new(ATTESTATIONS_RUNNING_MAX)),
            runs: None,
            metrics,
            clock,
        }
    }

    /// The same with another deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same on a node where `avouch run` runs commands: what belongs to a run has its selector and no other.
    #[must_use]
    pub fn with_runs(mut self, runs: Runs) -> Self {
        self.runs = Some(runs);
        self
    }

    /// The selectors of the caller's process as it was pinned: ask [`Caller::still_same`] before acting on them.
    ///
    /// # Errors
    /// [`AttestationFailed`]; the caller may try again.
    pub async fn attest(&self, caller: &Arc<Caller>) -> Result<SelectorSet, AttestationFailed> {
        // What is remembered belongs to no run: nothing that is in a run was ever outside of it.
        if let Some(selectors) = self.remembered(caller.pin()?.key()) {
            return Ok(selectors);
        }
        let process = caller.process()?;
        match self.runs.as_ref().map(|runs| runs.membership(caller, &process)).transpose()? {
            Some(Membership::Of(selectors, _)) => {
                if let Some(runs) = &self.runs {
                    runs.refuse(caller, &process, || self.worn(caller, process.clone())).await;
                }
                return Ok(selectors);
            }
            Some(Membership::Left) => return Err(AttestationFailed::LeftOver),
            Some(Membership::Nobody) | None => {}
        }
        let begun = (self.clock)();
        let found = self.look(caller, process.clone()).await;
        let elapsed = (self.clock)().since(begun);
        self.metrics.workload_attestation(found.is_ok(), elapsed);
        let selectors = found?;
        self.metrics.discovered_selectors(selectors.len());
        Ok(selectors)
    }

    /// The selectors of a process as if it were in no run; `None` if it can't be looked at in time. Never remembered: what is
    /// remembered is handed out.
    fn worn(
        &self,
        caller: &Caller,
        process: Arc<PinnedProcess>,
    ) -> impl Future<Output = Option<SelectorSet>> + Send + use<> {
        let (lookers, running, deadline) = (self.lookers.clone(), self.running.clone(), self.deadline);
        let place = self.waiting.take(caller.pid, caller.uid);
        async move {
            let _place = place.ok()?;
            let looked = tokio::time::timeout(deadline, async {
                let _turn = running.acquire().await.ok()?;
                look_all(&lookers, process).await.ok()
            });
            looked.await.ok()?.map(|(selectors, _)| selectors)
        }
    }

    async fn look(
        &self,
        caller: &Caller,
        process: Arc<PinnedProcess>,
    ) -> Result<SelectorSet, AttestationFailed> {
        let work = async {
            let turn = self.turn_of(process.key());
            let _alone = turn.lock().await;
            if let Some(selectors) = self.remembered(process.key()) {
                return Ok((selectors, Vec::new()));
            }
            // Only who looks takes a place: many connections of one process wait for the one look, and that is no work.
            let _place = self.waiting.take(caller.pid, caller.uid)?;
            // The semaphore lives as long as this struct and is never closed.
            let _turn = self.running.acquire().await.ok();
            let (selectors, errors) = look_all(&self.lookers, process.clone()).await?;
            // Remembered before the next one has its turn.
            if errors.is_empty() {
                self.remember(process.key().clone(), selectors.clone());
            }
            Ok::<_, AttestationFailed>((selectors, errors))
        };
        let timed = tokio::time::timeout(self.deadline, work).await;
        let (selectors, errors) = timed.map_err(|_| AttestationFailed::Deadline(self.deadline))??;
        for error in &errors {
            tracing::error!(
                subsystem_name = "workload_attestor",
                pid = caller.pid,
                %error,
                "Failed to collect all selectors for PID"
            );
        }
        Ok(selectors)
    }

    fn turn_of(&self, key: &ProcessKey) -> Arc<Turn<()>> {
        let turns = &mut *self.turns.lock();
        if let Some(turn) = turns.get(key).and_then(Weak::upgrade) {
            return turn;
        }
        if turns.len() >= ATTESTATIONS_WAITING_MAX && turns.len().is_power_of_two() {
            turns.retain(|_, turn| turn.strong_count() > 0);
        }
        let turn = Arc::default();
        turns.insert(key.clone(), Arc::downgrade(&turn));
        turn
    }

    fn remembered(&self, key: &ProcessKey) -> Option<SelectorSet> {
        let now = (self.clock)();
        let known = self.known.lock();
        known.get(key).filter(|k| now.since(k.at) <= SELECTORS_AGE_MAX).map(|k| k.selectors.clone())
    }

    fn remember(&self, key: ProcessKey, selectors: SelectorSet) {
        let at = (self.clock)();
        let known = &mut *self.known.lock();
        if known.len() >= SELECTORS_CACHED_MAX {
            known.retain(|_, k| at.since(k.at) <= SELECTORS_AGE_MAX);
            if known.len() >= SELECTORS_CACHED_MAX {
                known.clear(); // a flood of processes: forgetting costs one look each, no more
            }
        }
        known.insert(key, Known { selectors, at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use avouch_attestors::Peer;
    use avouch_domain::fixtures;

    enum Does {
        Find(&'static str),
        Fail,
        Hang,
        FindSlowly(&'static str),
    }

    struct Looker(Does, AtomicUsize);

    impl WorkloadLooker for Looker {
        fn name(&self) -> &'static str {
            "test"
        }
        fn look(&self, _: Arc<PinnedProcess>) -> Boxed<'static, Result<Vec<Selector>, LookError>> {
            self.1.fetch_add(1, Ordering::SeqCst);
            match self.0 {
                Does::Find(selector) => Box::pin(async move { Ok(fixtures::selectors(&[selector])) }),
                Does::Fail => {
                    Box::pin(async { Err(LookError::Failed { looker: "test", message: "no".into() }) })
                }
                Does::Hang => Box::pin(std::future::pending()),
                Does::FindSlowly(selector) => Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Ok(fixtures::selectors(&[selector]))
                }),
            }
        }
    }

    fn looker(does: Does) -> Arc<Looker> {
        Arc::new(Looker(does, AtomicUsize::new(0)))
    }

    fn attestor(lookers: &[&Arc<Looker>], clock: fn() -> Tick) -> WorkloadAttestor {
        let lookers = lookers.iter().map(|l| (*l).clone() as Arc<dyn WorkloadLooker>).collect();
        WorkloadAttestor::new(lookers, Metrics::plain(), clock)
    }

    fn myself() -> Arc<Caller> {
        let pid = i32::try_from(std::process::id()).unwrap();
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        Arc::new(Caller::new(Peer { pid, uid, gid, pidfd: None }, Arc::default(), None))
    }

    fn start() -> Tick {
        Tick(0)
    }

    #[tokio::test]
    async fn selectors_of_a_process_are_remembered_for_a_while() {
        static TICK: AtomicU64 = AtomicU64::new(0);
        let finds = looker(Does::Find("a:1"));
        let attestor = attestor(&[&finds], || Tick(TICK.load(Ordering::SeqCst)));
        let caller = myself();
        for _ in 0..2 {
            assert_eq!(attestor.attest(&caller).await.unwrap(), fixtures::set(&["a:1"]));
        }
        assert_eq!(finds.1.load(Ordering::SeqCst), 1);
        TICK.store(60_001, Ordering::SeqCst);
        attestor.attest(&caller).await.unwrap();
        assert_eq!(finds.1.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn calls_of_one_process_share_one_look() {
        let slow = looker(Does::FindSlowly("a:1"));
        let attestor = attestor(&[&slow], start);
        let caller = myself();
        let (one, two) = tokio::join!(attestor.attest(&caller), attestor.attest(&caller));
        assert_eq!(one.unwrap(), two.unwrap());
        assert_eq!(slow.1.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_crowd_of_calls_of_one_process_waits_for_its_look_and_none_is_refused() {
        let slow = looker(Does::FindSlowly("a:1"));
        let attestor = Arc::new(attestor(&[&slow], start));
        let caller = myself();
        let _others: Vec<_> = (0..20).map(|pid| attestor.waiting.take(-pid, 1).unwrap()).collect();
        let crowd: Vec<_> = (0..2 * ATTESTATIONS_WAITING_MAX)
            .map(|_| {
                let (attestor, caller) = (attestor.clone(), caller.clone());
                tokio::spawn(async move { attestor.attest(&caller).await })
            })
            .collect();
        for call in crowd {
            assert_eq!(call.await.unwrap().unwrap(), fixtures::set(&["a:1"]));
        }
        assert_eq!(slow.1.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn what_some_lookers_found_is_used_but_not_remembered_while_others_fail() {
        let (finds, fails) = (looker(Does::Find("a:1")), looker(Does::Fail));
        let attestor = attestor(&[&finds, &fails], start);
        let caller = myself();
        for _ in 0..2 {
            assert_eq!(attestor.attest(&caller).await.unwrap(), fixtures::set(&["a:1"]));
        }
        assert_eq!(finds.1.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn each_looker_is_counted_by_its_name_and_outcome() {
        let (finds, fails) = (looker(Does::Find("a:1")), looker(Does::Fail));
        let attestor = attestor(&[&finds, &fails], start);
        attestor.attest(&myself()).await.unwrap();
        let page = attestor.metrics.registry().render();
        for status in ["OK", "Unknown"] {
            let line = format!(
                "spire_agent_workload_api_workload_attestor{{attestor=\"test\",status=\"{status}\"}} 1"
            );
            assert!(page.lines().any(|l| l == line), "{line} is not in:\n{page}");
        }
    }

    #[tokio::test]
    async fn if_every_looker_fails_the_attestation_fails() {
        let attestor = attestor(&[&looker(Does::Fail)], start);
        let error = attestor.attest(&myself()).await.unwrap_err();
        assert!(matches!(error, AttestationFailed::Lookers(_)), "{error}");
    }

    #[tokio::test]
    async fn a_looker_that_hangs_ends_at_the_deadline() {
        let attestor = attestor(&[&looker(Does::Hang)], start).with_deadline(Duration::from_millis(10));
        let error = attestor.attest(&myself()).await.unwrap_err();
        assert!(matches!(error, AttestationFailed::Deadline(_)), "{error}");
    }
}
