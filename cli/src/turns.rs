//! How soon a thread of a daemon has its turn at the processor when others work: one with short turns comes before one
//! with long ones. How much of the processor it gets in the end is the same.
//!
//! Never fails a start: Linux 6.12 is the first that has turns of other lengths than its own, and a filter of system
//! calls may refuse them. Then nothing changes.

use std::io;
use std::time::Duration;

use crate::sys;

/// The shortest turn that Linux gives: `sched_runtime` of a thread without a deadline, see `sched_setattr(2)` and
/// `sched-eevdf` of the kernel's documentation.
const SHORT: Duration = Duration::from_micros(100);

/// What became of the wish for short turns.
#[derive(Debug)]
pub struct Turns(io::Result<Duration>);

/// From now on this thread has short turns, and so have all that it starts and that they start. To be called before
/// there is another thread.
#[must_use]
pub fn short() -> Turns {
    Turns(sys::set_turn(SHORT).and_then(|()| sys::turn()))
}

/// How long the turns of this thread are. Nothing: this kernel does not say.
///
/// # Errors
/// The question is refused.
pub fn length() -> io::Result<Duration> {
    sys::turn()
}

impl Turns {
    /// Says it once, when there is a log.
    pub fn tell(&self) {
        match &self.0 {
            Ok(turn) if *turn == SHORT => {
                tracing::debug!(micros = turn.as_micros(), "Threads have short turns");
            }
            Ok(_) => tracing::debug!("Threads have the turns of this kernel, which knows no shorter ones"),
            Err(error) => tracing::debug!(%error, "Threads have the turns of this kernel"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{getpriority_process, nice};

    use super::*;

    /// Linux 6.12 and later.
    fn known() -> bool {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 12)
    }

    /// On a thread of its own: it keeps its turns.
    fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(work).join().unwrap()
    }

    #[test]
    fn all_threads_of_a_runtime_have_short_turns() {
        let seen = apart(|| {
            let turns = short();
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
            let (worker, blocking) = runtime.block_on(async {
                let worker = tokio::spawn(async { length().ok() });
                let blocking = tokio::task::spawn_blocking(|| length().ok());
                (worker.await.unwrap(), blocking.await.unwrap())
            });
            (turns.0.ok(), worker, blocking)
        });
        if known() {
            assert_eq!(seen, (Some(SHORT), Some(SHORT), Some(SHORT)));
        } else {
            println!("not run: turns of a length of one's own (needs Linux 6.12)");
        }
    }

    #[test]
    fn shorter_turns_change_no_priority() {
        let (before, after) = apart(|| {
            nice(3).unwrap();
            let before = getpriority_process(None).unwrap();
            let _ = short();
            (before, getpriority_process(None).unwrap())
        });
        assert!(before >= 3);
        assert_eq!(after, before);
    }
}
