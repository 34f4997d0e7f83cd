//! Stopping in order: no new connections, running calls may end, streams are told that the server goes away, and
//! after a named time whatever is left is dropped.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::DRAIN_TIME;

/// Shared by everything that accepts or serves connections.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    begun: CancellationToken,
    over: CancellationToken,
    connections: TaskTracker,
}

impl Drain {
    /// A drain that begins when `stop` is cancelled.
    #[must_use]
    pub fn of(stop: &CancellationToken) -> Self {
        Self { begun: stop.child_token(), ..Self::default() }
    }

    /// Cancelled when no more work is taken.
    #[must_use]
    pub fn begun(&self) -> &CancellationToken {
        &self.begun
    }

    /// Cancelled when the patience is over.
    #[must_use]
    pub fn over(&self) -> &CancellationToken {
        &self.over
    }

    /// Runs the task of one connection; [`Drain::finish`] waits for it.
    pub fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        self.connections.spawn(connection);
    }

    /// Begins, waits for the connections within the named time, then ends them.
    pub async fn finish(&self) {
        self.begun.cancel();
        self.connections.close();
        if tokio::time::timeout(DRAIN_TIME, self.connections.wait()).await.is_err() {
            let left = self.connections.len();
            tracing::warn!(
                connections = left,
                "Connections are still open after the drain time: closing them"
            );
            self.over.cancel();
            self.connections.wait().await;
        }
    }
}
