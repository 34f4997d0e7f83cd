//! The plain HTTP listeners of the daemons: liveness and readiness for orchestrators, metrics for scrapers.
//!
//! Never answers anything about identities, never waits for a slow client longer than the named limit.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::metrics::Registry;

/// Most connections served at once; more wait in the backlog.
const CONNECTIONS_MAX: usize = 64;
/// Longest wait for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest life of one connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after a failed accept, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The answer of one probe: good or not, and one member per subsystem.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    pub good: bool,
    /// Subsystem names and what they say; an empty object when all is well.
    pub details: Vec<(String, serde_json::Map<String, serde_json::Value>)>,
}

/// Who knows how the daemon is.
#[tonic::async_trait]
pub trait HealthState: Send + Sync + 'static {
    /// Should the process go on living?
    async fn live(&self) -> Probe;
    /// Does it serve?
    async fn ready(&self) -> Probe;
}

/// Answers `live_path` and `ready_path` with 200 or 500 and a JSON object, everything else with 404, until
/// `stop` resolves.
pub async fn serve_health(
    listener: TcpListener,
    live_path: String,
    ready_path: String,
    state: Arc<dyn HealthState>,
    stop: impl Future<Output = ()> + Send,
) {
    let paths = Arc::new((live_path, ready_path));
    serve(listener, stop, move |path| {
        let (state, paths) = (state.clone(), paths.clone());
        async move {
            let probe = if path == paths.0 {
                state.live().await
            } else if path == paths.1 {
                state.ready().await
            } else {
                return answer(
                    StatusCode::NOT_FOUND,
                    "text/plain; charset=utf-8",
                    "404 page not found\n".into(),
                );
            };
            let status = if probe.good { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
            let object: std::collections::BTreeMap<_, _> = probe.details.into_iter().collect();
            let body = serde_json::to_string(&object).unwrap_or_default() + "\n";
            answer(status, "application/json", body)
        }
    })
    .await;
}

/// Answers any path with the metrics page, until `stop` resolves.
pub async fn serve_metrics(
    listener: TcpListener,
    registry: Arc<Registry>,
    stop: impl Future<Output = ()> + Send,
) {
    serve(listener, stop, move |_| {
        let registry = registry.clone();
        async move { answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", registry.render()) }
    })
    .await;
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

async fn serve<F, R>(listener: TcpListener, stop: impl Future<Output = ()> + Send, handle: F)
where
    F: Fn(String) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::pin!(stop);
    loop {
        let Ok(permit) = free.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            () = &mut stop => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "Unable to accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let handle = handle.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let answered = handle(request.uri().path().to_owned());
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A broken or overlong connection is the client's loss.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    crate::metric_table! {
        STARTED: Gauge[] = Spire "started", "The daemon runs.";
    }

    struct Half;

    #[tonic::async_trait]
    impl HealthState for Half {
        async fn live(&self) -> Probe {
            Probe { good: true, details: vec![("agent".into(), serde_json::Map::new())] }
        }
        async fn ready(&self) -> Probe {
            let mut why = serde_json::Map::new();
            why.insert("make_new_x509_err".into(), "workload api is unavailable".into());
            Probe { good: false, details: vec![("agent".into(), why)] }
        }
    }

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn live_and_ready_answer_with_their_status_and_object() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let server = tokio::spawn(serve_health(
            listener,
            "/live".into(),
            "/ready".into(),
            Arc::new(Half),
            async move {
                let _ = stopped.await;
            },
        ));
        let live = get(address, "/live").await;
        assert!(live.starts_with("HTTP/1.1 200") && live.ends_with("{\"agent\":{}}\n"), "{live}");
        let ready = get(address, "/ready").await;
        assert!(ready.starts_with("HTTP/1.1 500"), "{ready}");
        assert!(
            ready.ends_with("{\"agent\":{\"make_new_x509_err\":\"workload api is unavailable\"}}\n"),
            "{ready}"
        );
        assert!(get(address, "/x").await.starts_with("HTTP/1.1 404"));
        drop(stop);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn metrics_answer_on_any_path() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Arc::new(Registry::new("spire_agent", TABLE, &[], &[]));
        registry.set(STARTED, [], 1.0);
        let server = tokio::spawn(serve_metrics(listener, registry, std::future::pending()));
        assert!(get(address, "/whatever").await.contains("spire_agent_started 1\n"));
        server.abort();
    }
}
