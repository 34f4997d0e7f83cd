//! Puts a service that needs no header and no identity under the same budget of open calls as the Workload API.
//!
//! Never reads a request before its caller has its share.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;

use super::status::Refusal;
use crate::fair::{FairShare, Share};
use crate::metrics::Metrics;
use crate::peer::Caller;

/// A service whose calls take a share of the open calls.
#[derive(Clone, Debug)]
pub struct Shared<S> {
    service: S,
    calls: FairShare,
    metrics: Metrics,
}

impl<S> Shared<S> {
    /// `share`: the budget, and where refusals are counted.
    pub fn new(share: &(FairShare, Metrics), service: S) -> Self {
        Self { service, calls: share.0.clone(), metrics: share.1.clone() }
    }
}

impl<S: NamedService> NamedService for Shared<S> {
    const NAME: &'static str = S::NAME;
}

type Answer<E> = Pin<Box<dyn Future<Output = Result<http::Response<Body>, E>> + Send>>;

impl<S> tower::Service<http::Request<Body>> for Shared<S>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>> + NamedService,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Answer<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer<S::Error> {
        let Some(caller) = request.extensions().get::<Arc<Caller>>() else {
            return Box::pin(async { Ok(Status::from(Refusal::AttestationFailed).into_http()) });
        };
        let Ok(share) = self.calls.take(caller.pid, caller.uid) else {
            self.metrics.over_share(S::NAME);
            return Box::pin(async { Ok(Status::from(Refusal::OverShare(S::NAME)).into_http()) });
        };
        let answered = self.service.call(request);
        Box::pin(async move { Ok(answered.await?.map(|inner| Body::new(Held { inner, _share: share }))) })
    }
}

/// An answer on its way out, with its share.
struct Held {
    inner: Body,
    _share: Share,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
