//! Waiting with a limit: for a future, or for a state that nothing announces.

use std::future::Future;
use std::time::Duration;

/// Longest wait for anything; far above what a busy two-core machine needs.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at a state that has no event of its own.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The future's output, or a failed test that says what was waited for.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {} s for {what}", LIMIT.as_secs()),
    }
}

/// Looks until there is something, within the limit.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await
}
