//! A timer that may not be running: one branch of a `select!` waits for it either way.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::Sleep;

/// See the module.
#[derive(Debug, Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Starts it, unless it runs already.
    pub fn start(&mut self, after: Duration) {
        self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
    }

    #[cfg(test)]
    pub fn is_running(&self) -> bool {
        self.0.is_some()
    }

    /// Ends with the timer, which then no longer runs; never without one.
    pub async fn due(&mut self) {
        match &mut self.0 {
            Some(sleep) => sleep.await,
            None => std::future::pending().await,
        }
        self.0 = None;
    }
}
