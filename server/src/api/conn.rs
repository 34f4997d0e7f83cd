//! Serves one connection, whatever it runs over: HTTP/2 with limits, an age, and an orderly end.
//!
//! Never knows what the calls mean.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use avouch::rpc;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

use crate::api::call::Connection;
use crate::api::caller::Peer;
use crate::api::gate::Stack;
use crate::limits::{
    CALLS_PER_CONNECTION, CONNECTION_GRACE, HEADER_LIST_BYTES_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT,
    LAST_WORDS,
};

/// Serves `io` until it closes. After `age` (`None` = never) the peer is told to go away; its running calls have
/// the named grace.
pub async fn serve<I>(io: I, peer: Peer, stack: Stack, age: Option<Duration>)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let drain = stack.gate().drain.clone();
    let caller = match &peer {
        Peer::Remote { address, .. } => Some(address.to_string()),
        Peer::Local(_) | Peer::Page(_) => None,
    };
    let note = |result| note(caller, result);
    let leaving = CancellationToken::new();
    let connection = Connection { peer: Arc::new(peer), leaving: leaving.clone() };
    let service = service_fn(move |request: Request<Incoming>| {
        stack.clone().answer(request.map(Body::new), connection.clone())
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(CALLS_PER_CONNECTION)
        .max_header_list_size(HEADER_LIST_BYTES_MAX)
        .serve_connection(TokioIo::new(io), service);
    let mut served = std::pin::pin!(served);
    let aged = async {
        match age {
            Some(age) => tokio::time::sleep(age).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = served.as_mut() => return note(result),
        () = aged => {}
        () = drain.begun().cancelled() => {}
    }
    leaving.cancel();
    served.as_mut().graceful_shutdown();
    tokio::select! {
        result = served.as_mut() => return note(result),
        () = tokio::time::sleep(CONNECTION_GRACE) => {}
        () = drain.over().cancelled() => {}
    }
    // Calls that are cut now say so; the words need a moment to leave.
    if let Ok(result) = tokio::time::timeout(LAST_WORDS, served).await {
        note(result);
    }
}

/// A connection that breaks is daily life; the reason is for whoever looks closely.
fn note(caller_addr: Option<String>, result: Result<(), hyper::Error>) {
    match result {
        Err(error) if !rpc::peer_left(&error) => {
            let cause = error.source().map(ToString::to_string);
            tracing::debug!(caller_addr, error = %error, cause, "Connection ended");
        }
        _ => tracing::debug!(caller_addr, "Connection closed"),
    }
}
