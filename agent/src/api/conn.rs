//! Serves the connections of one socket: HTTP/2 within limits, the caller beside each request, an orderly end.
//!
//! Never knows what the calls mean, and never keeps more of a connection than `limits.rs` says.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use avouch::rpc;
use http::Request;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming as Received};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_stream::StreamExt;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;

use super::Stop;
use super::beside::{Beside, Calls};
use super::ebb::Ebb;
use super::listener::Incoming;
use super::status::Refusal;
use crate::limits::{
    CALLS_PER_CONNECTION, DRAIN_MAX, HEADER_LIST_MAX, RECEIVE_WINDOW, REQUEST_TIME_MAX, SEND_BUFFER,
};
use crate::peer::PeerStream;

/// The methods whose request is a stream.
const LASTING: [&str; 2] = ["/avouch.run.v1.Run/Hold", "/avouch.run.v1.Run/Asks"];

/// Accepts and serves until `stop`; then callers have a while to take their last answer, but not for ever.
pub async fn serve(incoming: Incoming, routes: Routes, stop: Stop) {
    let routes = routes.prepare();
    accept(incoming, &stop, |stream| connection(stream, routes.clone(), stop.clone())).await;
}

/// The same for connections of any kind.
pub async fn accept<F>(mut incoming: Incoming, stop: &Stop, connection: impl Fn(PeerStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut open = JoinSet::new();
    let mut ebb = Ebb::default();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(Ok(stream)) = incoming.next() => {
                open.spawn(connection(stream));
            }
            Some(_) = open.join_next() => {}
            () = ebb.due() => ebb.give_back(open.len()),
        }
        ebb.open(open.len());
    }
    drop(incoming);
    let _ = tokio::time::timeout(DRAIN_MAX, async { while open.join_next().await.is_some() {} }).await;
}

/// Serves one connection until it closes, or `stop` and the end of its calls.
pub async fn connection(stream: PeerStream, routes: Routes, stop: Stop) {
    let caller = stream.caller().clone();
    let service = service_fn(move |request: Request<Received>| {
        // A run is a request that lasts; all others are whole at once.
        let lasts = LASTING.contains(&request.uri().path());
        let mut request =
            request.map(|body| if lasts { Body::new(body) } else { Body::new(Prompt::new(body)) });
        request.extensions_mut().insert(caller.clone());
        answer(routes.clone(), request)
    });
    let calls = Calls::default();
    let served = http2::Builder::new(calls.clone())
        .timer(TokioTimer::new())
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .max_header_list_size(HEADER_LIST_MAX)
        .initial_stream_window_size(RECEIVE_WINDOW)
        .initial_connection_window_size(RECEIVE_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let mut beside = Beside::new(&calls);
    let outcome = tokio::select! {
        outcome = poll_fn(|cx| beside.poll(cx, |cx| served.as_mut().poll(cx))) => outcome,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            beside.look_again();
            poll_fn(|cx| beside.poll(cx, |cx| served.as_mut().poll(cx))).await
        }
    };
    ended(outcome);
}

/// A connection that breaks is daily life; the reason is for whoever looks closely.
pub fn ended(outcome: hyper::Result<()>) {
    if let Err(error) = outcome
        && !rpc::peer_left(&error)
    {
        tracing::debug!(subsystem_name = "endpoints", %error, "Connection ended");
    }
}

async fn answer(mut routes: Routes, request: Request<Body>) -> Result<http::Response<Body>, Infallible> {
    let limit = rpc::timeout(request.headers());
    let routed = routes.call(request);
    match limit {
        None => routed.await,
        Some(limit) => tokio::time::timeout(limit, routed)
            .await
            .unwrap_or_else(|_| Ok(Status::deadline_exceeded("context deadline exceeded").into_http())),
    }
}

/// The body of a request that has to be whole soon: clients send it at once, and what is half there takes room.
struct Prompt {
    inner: Received,
    late: Pin<Box<Sleep>>,
}

impl Prompt {
    fn new(inner: Received) -> Self {
        Self { inner, late: Box::pin(tokio::time::sleep(REQUEST_TIME_MAX)) }
    }
}

impl HttpBody for Prompt {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.late.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(Refusal::RequestUnfinished.into())));
        }
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        frame.map(|some| some.map(|frame| frame.map_err(|error| Status::from_error(error.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.inner.size_hint()
    }
}
