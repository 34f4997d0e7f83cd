//! A stream made of one async step after the other; no task and no channel behind it.
//!
//! A step runs only when the connection can take another message, so nothing stale waits in a queue (WA-53).

use std::future::Future;
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
