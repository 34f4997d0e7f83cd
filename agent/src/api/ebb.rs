//! Gives memory back to the system when a flood of connections has gone: the allocator keeps what it once had, and a
//! node's memory is for its workloads.

use crate::limits::{EBB_AFTER, EBB_CONNECTIONS_MIN};
use crate::sys;
use crate::timer::Timer;

/// Watches the number of open connections.
#[derive(Debug, Default)]
pub struct Ebb {
    /// Most connections since memory was given back.
    peak: usize,
    timer: Timer,
}

impl Ebb {
    /// So many are open now.
    pub fn open(&mut self, open: usize) {
        self.peak = self.peak.max(open);
        if self.peak >= EBB_CONNECTIONS_MIN && open <= self.peak / 2 {
            self.timer.start(EBB_AFTER);
        }
    }

    /// Ends when memory is to be given back; never while there is nothing to give.
    pub async fn due(&mut self) {
        self.timer.due().await;
    }

    /// Gives it back, on a thread where that may take a moment.
    pub fn give_back(&mut self, open: usize) {
        self.peak = open;
        tokio::task::spawn_blocking(sys::give_back_memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn memory_is_given_back_once_half_of_a_flood_has_gone_and_not_again() {
        let mut ebb = Ebb::default();
        ebb.open(EBB_CONNECTIONS_MIN);
        ebb.open(EBB_CONNECTIONS_MIN / 2 + 1);
        assert!(!ebb.timer.is_running(), "more than half is still there");
        ebb.open(EBB_CONNECTIONS_MIN / 2);
        ebb.due().await;
        ebb.give_back(EBB_CONNECTIONS_MIN / 2);
        ebb.open(0);
        assert!(!ebb.timer.is_running(), "what is left was no flood");
    }
}
