//! Where signing work runs that would hold up a thread of the reactor: as much at once as there are cores.
//!
//! Never lets a batch go before an answer: who signs hundreds of certificates runs at a lower priority and offers the
//! processor to others every few of them. Each offer costs it the rest of its turn, so its turns are short ones as well
//! ([`avouch::turns`]): with long ones, a batch beside other work that never ends would get next to nothing.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::limits::{BATCH_NICENESS, SIGN_SLICE};

/// The places at which signing work runs.
pub(super) struct Lanes(Arc<Semaphore>);

impl Lanes {
    pub(super) fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, String> {
        self.0.clone().acquire_owned().await.map_err(|e| e.to_string())
    }

    /// One piece of work that somebody waits for, on a blocking thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let place = self.place().await?;
        let held = move || {
            let _place = place;
            work()
        };
        tokio::task::spawn_blocking(held).await.map_err(|e| e.to_string())
    }

    /// The same for each of many items, behind whoever answers. Ends early if nobody waits any longer.
    pub(super) async fn run_batch<I: Send + 'static, T: Send + 'static>(
        &self,
        items: Vec<I>,
        each: impl Fn(&I) -> T + Send + 'static,
    ) -> Result<Vec<T>, String> {
        let place = self.place().await?;
        let (done, results) = oneshot::channel();
        let sign = move || {
            let _place = place;
            // Of this thread alone, as Linux has it; without the right to it the batch runs like everything else.
            // A thread may not take its priority back, which is why it ends with its batch. Its turns are short, as are
            // those of the thread that starts it.
            let _ = rustix::process::nice(BATCH_NICENESS);
            let mut made = Vec::with_capacity(items.len());
            for slice in items.chunks(SIGN_SLICE) {
                if done.is_closed() {
                    return;
                }
                made.extend(slice.iter().map(&each));
                std::thread::yield_now();
            }
            let _ = done.send(made);
        };
        let thread = std::thread::Builder::new().name("avouch-sign".to_owned());
        thread.spawn(sign).map_err(|e| format!("unable to start a thread: {e}"))?;
        results.await.map_err(|_| "the signing thread failed".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use avouch::turns;
    use rustix::process::getpriority_process;

    use super::*;

    fn niceness() -> i32 {
        getpriority_process(None).unwrap()
    }

    #[tokio::test]
    async fn a_batch_gives_its_results_in_order() {
        let items: Vec<usize> = (0..100).collect();
        let made = Lanes::new(1).run_batch(items.clone(), |n| n + 1).await.unwrap();
        assert_eq!(made, items.iter().map(|n| n + 1).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_batch_runs_behind_a_single_and_leaves_no_thread_behind_it_so() {
        let lanes = Lanes::new(1);
        let batch = lanes.run_batch(vec![(); 2], |()| niceness()).await.unwrap();
        assert!(batch.iter().all(|nice| *nice == (niceness() + BATCH_NICENESS).min(19)), "{batch:?}");
        assert_eq!(lanes.run(niceness).await.unwrap(), niceness());
    }

    #[test]
    fn a_batch_has_the_short_turns_of_those_who_answer() {
        // On a thread of its own, which keeps its turns.
        let seen = std::thread::spawn(|| {
            let _ = turns::short();
            let short = turns::length().ok();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let batch = runtime.block_on(Lanes::new(1).run_batch(vec![()], |()| turns::length().ok()));
            (short, batch.unwrap())
        });
        let (short, batch) = seen.join().unwrap();
        assert_eq!(batch, [short]);
    }

    #[tokio::test]
    async fn a_batch_nobody_waits_for_ends_and_holds_its_place_until_then() {
        let lanes = Arc::new(Lanes::new(1));
        let (reached, at) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let waiting = tokio::spawn({
            let lanes = lanes.clone();
            async move {
                let each = move |n: &usize| {
                    reached.send(*n).unwrap();
                    gate.recv().ok();
                };
                lanes.run_batch((0..10 * SIGN_SLICE).collect(), each).await
            }
        });
        let first = tokio::task::spawn_blocking(move || (at.recv(), at)).await.unwrap();
        assert_eq!((first.0, lanes.0.available_permits()), (Ok(0), 0));
        waiting.abort();
        let _ = waiting.await;
        assert_eq!(lanes.0.available_permits(), 0);
        drop(go);
        let free = tokio::time::timeout(Duration::from_secs(10), lanes.place()).await;
        assert!(free.is_ok_and(|place| place.is_ok()));
        assert_eq!(first.1.into_iter().last(), Some(SIGN_SLICE - 1));
    }

    #[tokio::test]
    async fn a_batch_that_fails_says_so_and_frees_its_place() {
        let lanes = Lanes::new(1);
        let failed = lanes.run_batch(vec![()], |()| assert!(std::hint::black_box(false), "planted")).await;
        assert_eq!(failed.unwrap_err(), "the signing thread failed");
        assert_eq!(lanes.run(|| 1).await, Ok(1));
    }
}
