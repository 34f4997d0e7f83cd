//! The one place where state changes: plans are queued, made in turn on a copy of the registry, committed in
//! one transaction, and only then seen.
//!
//! Never publishes a registry that is not on disk, never lets a plan made from an old registry through: when
//! another server on the same store was faster, the log is followed and every plan of the batch is made again.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use avouch_domain::{Holder, LogPosition, Plan};
use avouch_engine::Registry;
use avouch_store::{CommitError, Lost, TailError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, timed};
use crate::datastore::{Datastore, RowChanges};
use crate::limits::{
    FOLLOW_INTERVAL, FOLLOW_STEP, NOTICE_INTERVAL, WRITE_ATTEMPTS, WRITE_BATCH, WRITE_QUEUE,
};

/// Why a write did not happen, apart from what the verb itself refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("too many writes are waiting, try again")]
    Busy,
    #[error("server is stopping")]
    Stopped,
    #[error("store failed: {0}")]
    Store(String),
    /// The log can't be followed and the store can't be read anew.
    #[error("store lost: {0}")]
    Lost(String),
}

/// A queued write: makes its plan from the registry of the moment, and hears what became of it.
trait Job: Send {
    fn plan(&mut self, registry: &Registry) -> Plan;
    fn finish(self: Box<Self>, outcome: Result<(), WriteError>);
}

struct Write<T, F> {
    decide: F,
    outcome: Option<T>,
    reply: oneshot::Sender<Result<T, WriteError>>,
}

impl<T: Send, F: FnMut(&Registry) -> (Plan, T) + Send> Job for Write<T, F> {
    fn plan(&mut self, registry: &Registry) -> Plan {
        let (plan, outcome) = (self.decide)(registry);
        self.outcome = Some(outcome);
        plan
    }

    fn finish(self: Box<Self>, outcome: Result<(), WriteError>) {
        let answer = match (outcome, self.outcome) {
            (Ok(()), Some(value)) => Ok(value),
            (Ok(()), None) => Err(WriteError::Stopped),
            (Err(e), _) => Err(e),
        };
        // The caller may have gone; what is committed stays committed.
        let _ = self.reply.send(answer);
    }
}

struct Shared {
    registry: ArcSwap<Registry>,
    position: watch::Sender<LogPosition>,
}

/// Handle to the writer task. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Box<dyn Job>>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("position", &self.registry().position()).finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts the task with the registry of the store. It ends after `stop`, once the writes that are queued by then are answered.
    #[must_use]
    pub fn start(
        store: Datastore,
        registry: Registry,
        server: Holder,
        clock: Clock,
        stop: CancellationToken,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let position = registry.position();
        let shared = Arc::new(Shared {
            registry: ArcSwap::from_pointee(registry),
            position: watch::Sender::new(position),
        });
        let (queue, jobs) = mpsc::channel(WRITE_QUEUE);
        let task = Task { store, shared: shared.clone(), jobs, server, clock, stop, others: false };
        (Self { shared, queue }, tokio::spawn(task.run()))
    }

    /// The registry as committed last.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.shared.registry.load_full()
    }

    /// Tells each new position after its registry can be read.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<LogPosition> {
        self.shared.position.subscribe()
    }

    /// Queues a write and waits until it is on disk. `decide` may be asked more than once, each time with a newer
    /// registry; its last answer counts.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was written, except that after `Store` the outcome of a failing disk is
    /// unknown.
    pub async fn write<T, F>(&self, decide: F) -> Result<T, WriteError>
    where
        T: Send + 'static,
        F: FnMut(&Registry) -> (Plan, T) + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Write { decide, outcome: None, reply });
        self.queue.try_send(job).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => WriteError::Busy,
            mpsc::error::TrySendError::Closed(_) => WriteError::Stopped,
        })?;
        answer.await.unwrap_or(Err(WriteError::Stopped))
    }
}

struct Task {
    store: Datastore,
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Box<dyn Job>>,
    server: Holder,
    clock: Clock,
    stop: CancellationToken,
    /// Another server writes to the same store.
    others: bool,
}

enum Committed {
    Yes,
    /// Another server was faster.
    Behind,
    Failed(WriteError),
}

impl Task {
    async fn run(mut self) {
        loop {
            self.others |= self.sees_others();
            let interval = if self.others { FOLLOW_INTERVAL } else { NOTICE_INTERVAL };
            let look = Instant::now() + interval;
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.jobs.close();
                    while let Some(job) = self.jobs.recv().await {
                        self.batch(job).await;
                    }
                    break;
                }
                job = self.jobs.recv() => match job {
                    Some(job) => self.batch(job).await,
                    None => break,
                },
                () = sleep_until(look) => self.look().await,
            }
        }
    }

    /// Another server holds an authority that may still sign.
    fn sees_others(&self) -> bool {
        let registry = self.shared.registry.load();
        let wall = (self.clock)().wall;
        registry.authorities().any(|a| a.holder != self.server && a.not_after > wall)
    }

    /// Reads the counter; follows the log if another server has moved it.
    async fn look(&mut self) {
        let ours = self.shared.registry.load().position();
        match self.store.position().await {
            Ok(position) if position != ours => {
                self.others = true;
                if let Err(e) = self.follow().await {
                    tracing::error!(error = %e, "Could not follow the change log");
                }
            }
            Ok(_) => {}
            Err(e) => tracing::error!(error = %e, "Could not read the position of the change log"),
        }
    }

    async fn batch(&mut self, first: Box<dyn Job>) {
        let mut jobs = vec![first];
        while jobs.len() < WRITE_BATCH {
            match self.jobs.try_recv() {
                Ok(job) => jobs.push(job),
                Err(_) => break,
            }
        }
        match self.commit(&mut jobs).await {
            Ok(()) => jobs.into_iter().for_each(|job| job.finish(Ok(()))),
            // One bad plan must not take the others of its batch down.
            Err(WriteError::Store(_)) if jobs.len() > 1 => {
                for job in jobs {
                    let mut alone = [job];
                    let outcome = self.commit(&mut alone).await;
                    alone.into_iter().for_each(|job| job.finish(outcome.clone()));
                }
            }
            Err(e) => jobs.into_iter().for_each(|job| job.finish(Err(e.clone()))),
        }
    }

    async fn commit(&mut self, jobs: &mut [Box<dyn Job>]) -> Result<(), WriteError> {
        for _ in 0..WRITE_ATTEMPTS {
            match self.attempt(jobs).await {
                Committed::Yes => return Ok(()),
                Committed::Failed(e) => return Err(e),
                Committed::Behind => {
                    self.others = true;
                    self.follow().await?;
                }
            }
        }
        Err(WriteError::Busy)
    }

    async fn attempt(&self, jobs: &mut [Box<dyn Job>]) -> Committed {
        let current = self.shared.registry.load_full();
        let base = current.position();
        let mut working = (*current).clone();
        let mut plans = Vec::with_capacity(jobs.len());
        let mut rows = RowChanges::default();
        for job in jobs {
            let plan = job.plan(&working);
            rows.add(&working, &plan);
            if !plan.is_empty() {
                // The store names the head at commit; until then only the revision is known.
                let position = working.position();
                working.apply(&plan, LogPosition { revision: position.revision.next(), ..position });
            }
            plans.push(plan);
        }
        if plans.iter().all(|p| p.is_empty() && p.audit.is_empty()) {
            return Committed::Yes;
        }
        match self.store.commit(base, plans, &rows).await {
            Ok(positions) => {
                if let Some(last) = positions.last().filter(|last| **last != base) {
                    working.set_position(*last);
                    self.publish(working);
                } else {
                    // Records alone move no position, and are to be signed all the same.
                    self.shared.position.send_modify(|_| {});
                }
                Committed::Yes
            }
            Err(CommitError::Behind(_)) => Committed::Behind,
            Err(e) => {
                tracing::error!(error = %e, "Could not commit");
                Committed::Failed(WriteError::Store(e.to_string()))
            }
        }
    }

    fn publish(&self, registry: Registry) {
        let position = registry.position();
        self.shared.registry.store(Arc::new(registry));
        self.shared.position.send_replace(position);
    }

    /// Takes in what other servers wrote.
    async fn follow(&self) -> Result<(), WriteError> {
        let (followed, elapsed) = timed(self.clock, self.catch_up()).await;
        self.store.metrics().reloaded(followed.is_ok(), elapsed);
        followed
    }

    async fn catch_up(&self) -> Result<(), WriteError> {
        let mut registry = (*self.shared.registry.load_full()).clone();
        loop {
            match self.store.changes_since(registry.position(), FOLLOW_STEP).await {
                Ok(tail) => {
                    let done = tail.position == tail.latest;
                    registry.apply_rows(&tail.rows, tail.position);
                    if done {
                        break;
                    }
                }
                Err(TailError::Lost(lost)) => {
                    self.alarm(&lost);
                    let image = self
                        .store
                        .image((self.clock)().wall)
                        .await
                        .map_err(|e| WriteError::Lost(e.to_string()))?;
                    let demanded_from = registry.owners_demanded_from();
                    registry = Registry::from_image(image).demanding_owners(demanded_from);
                    break;
                }
                Err(e) => return Err(WriteError::Store(e.to_string())),
            }
        }
        self.publish(registry);
        Ok(())
    }

    fn alarm(&self, lost: &Lost) {
        match lost {
            Lost::Head | Lost::Ahead => tracing::error!(
                reason = %lost,
                "The store has lost commits that this server had seen: everything is read anew"
            ),
            Lost::Epoch | Lost::Pruned => {
                tracing::warn!(reason = %lost, "The change log can't be followed: everything is read anew");
            }
        }
    }
}
