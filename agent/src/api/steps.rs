//! A stream made of one async step after the other; no task and no channel behind it. And work that goes on without whoever
//! waits for it.
//!
//! A step runs only when the connection can take another message, so nothing stale waits in a queue (WA-53).

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use prost::bytes::Bytes;
use tokio_stream::Stream;
use tonic::Status;

/// What can give one message after the other.
pub trait Step: Send + Sized + 'static {
    /// The next message, or the status that ends the stream.
    fn next(self) -> impl Future<Output = Result<(Self, Bytes), Status>> + Send;
}

type Running<S> = Pin<Box<dyn Future<Output = Result<(S, Bytes), Status>> + Send>>;

/// The stream of a [`Step`]. It ends only with a status, never cleanly (CL-01).
pub struct Steps<S>(Option<Running<S>>);

impl<S> std::fmt::Debug for Steps<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Steps").field(&self.0.is_some()).finish()
    }
}

impl<S: Step> Steps<S> {
    #[must_use]
    pub fn new(first: S) -> Self {
        Self(Some(Box::pin(first.next())))
    }
}

impl<S: Step> Stream for Steps<S> {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(running) = &mut self.0 else { return Poll::Ready(None) };
        match running.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok((step, bytes))) => {
                self.0 = Some(Box::pin(step.next()));
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Err(status)) => {
                self.0 = None;
                Poll::Ready(Some(Err(status)))
            }
        }
    }
}

/// Goes on if whoever waits for it leaves: what is counted is also recorded. Most is done without waiting for anybody, and
/// needs no task of its own for that. `None`: it ended early.
pub async fn to_its_end<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let mut work = Box::pin(work);
    match poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await {
        Poll::Ready(done) => Some(done),
        Poll::Pending => tokio::spawn(work).await.ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_waits_goes_on_when_nobody_waits_for_it_any_more() {
        let (go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (going, telling) = (go.clone(), done.clone());
        let mut work = Box::pin(to_its_end(async move {
            going.notified().await;
            telling.notify_one();
        }));
        let first = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_ready())).await;
        assert!(!first, "it waits");
        drop(work);
        go.notify_one();
        done.notified().await;
    }

    #[tokio::test]
    async fn what_does_not_wait_is_done_at_once() {
        assert_eq!(to_its_end(async { 7 }).await, Some(7));
    }
}
