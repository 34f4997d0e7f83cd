//! Where a run's HTTP gates are asked: a loopback port whose URL holds a key of this run, and a Unix socket.
//!
//! Never prints the key, and never says whether one was nearly right.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, TcpListener as StdTcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use avouch_credential::random;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Api;
use super::answers::Refusal;
use super::body::Body;
use super::proxy::Proxy;
use crate::gate::Decider;
use crate::gate::limits::{
    ACCEPT_PAUSE, HTTP_CONNECTIONS_MAX, HTTP_HEAD_MAX, HTTP_HEAD_TIME_MAX, HTTP_HEADERS_MAX,
};

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// What the variable of a gate is called that names its socket, behind the variable of its URL.
const SOCKET_ENDING: &str = "_SOCKET";

/// The two ways to a gate, open and not served yet.
pub struct Door {
    api: Arc<Api>,
    key: String,
    port: u16,
    socket: PathBuf,
    tcp: StdTcpListener,
    unix: StdUnixListener,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("port", &self.port).field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Door {
    /// Opens both. `socket`: a path that is free.
    ///
    /// # Errors
    /// One of them can't be opened, or there are no random bytes.
    pub fn open(api: Arc<Api>, socket: PathBuf) -> io::Result<Self> {
        let key = random::bytes::<KEY_BYTES>().map_err(io::Error::other)?;
        let tcp = StdTcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        tcp.set_nonblocking(true)?;
        let unix = StdUnixListener::bind(&socket)?;
        unix.set_nonblocking(true)?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o600))?;
        let port = tcp.local_addr()?.port();
        Ok(Self { api, key: hex::encode(key), port, socket, tcp, unix })
    }

    /// What the command is told, as variables: the URL with its key, and the socket.
    #[must_use]
    pub fn variables(&self) -> [(String, String); 2] {
        let name = &self.api.env_var;
        [
            (name.clone(), format!("http://127.0.0.1:{}/{}", self.port, self.key)),
            (format!("{name}{SOCKET_ENDING}"), self.socket.display().to_string()),
        ]
    }
}

/// How somebody came in.
#[derive(Clone, Debug)]
enum Way {
    /// With this key in the path.
    Key(Arc<str>),
    /// The kernel says who it is.
    Known,
    /// The kernel says that it is somebody else; why it is refused.
    Stranger(Arc<str>),
}

/// Serves gates until `stop` is ready; then every connection is ended, also one with an answer under way.
///
/// # Errors
/// A listener can't be served.
pub async fn serve<D: Decider>(
    doors: Vec<Door>,
    decider: Arc<D>,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (stopping, stopped) = watch::channel(false);
    let mut listeners = JoinSet::new();
    for Door { api, key, tcp, unix, .. } in doors {
        let proxy = Arc::new(Proxy::new(api));
        let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
        let (tcp, unix) = (TcpListener::from_std(tcp)?, UnixListener::from_std(unix)?);
        listeners.spawn(by_key(
            tcp,
            key.into(),
            (proxy.clone(), decider.clone()),
            places.clone(),
            stopped.clone(),
        ));
        listeners.spawn(by_caller(unix, (proxy, decider.clone()), places, stopped.clone()));
    }
    stop.await;
    stopping.send_replace(true);
    while listeners.join_next().await.is_some() {}
    Ok(())
}

async fn by_key<D: Decider>(
    listener: TcpListener,
    key: Arc<str>,
    (proxy, decider): (Arc<Proxy>, Arc<D>),
    places: Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Some(place) = place(&places, &mut stopped).await else { return };
        tokio::select! {
            () = end(&mut stopped) => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let _ = stream.set_nodelay(true);
                    let (proxy, decider, key) = (proxy.clone(), decider.clone(), key.clone());
                    connections.spawn(async move {
                        let _place = place;
                        converse(stream, Way::Key(key), proxy, decider).await;
                    });
                }
                Err(e) => pause(&e).await,
            },
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn by_caller<D: Decider>(
    listener: UnixListener,
    (proxy, decider): (Arc<Proxy>, Arc<D>),
    places: Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Some(place) = place(&places, &mut stopped).await else { return };
        tokio::select! {
            () = end(&mut stopped) => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let (proxy, decider) = (proxy.clone(), decider.clone());
                    connections.spawn(async move {
                        let _place = place;
                        let way = match decider.admit(&stream).await {
                            Ok(()) => Way::Known,
                            Err(why) => Way::Stranger(why.into()),
                        };
                        converse(stream, way, proxy, decider).await;
                    });
                }
                Err(e) => pause(&e).await,
            },
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Resolves when all is to end.
async fn end(stopped: &mut watch::Receiver<bool>) {
    drop(stopped.wait_for(|stop| *stop).await);
}

/// Room for one more connection; none when all is to end.
async fn place(places: &Arc<Semaphore>, stopped: &mut watch::Receiver<bool>) -> Option<OwnedSemaphorePermit> {
    tokio::select! {
        () = end(stopped) => None,
        place = places.clone().acquire_owned() => place.ok(),
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!("cannot accept a connection to an HTTP gate: {error}");
    sleep(ACCEPT_PAUSE).await;
}

/// One connection, until it ends or is dropped.
async fn converse<D, S>(stream: S, way: Way, proxy: Arc<Proxy>, decider: Arc<D>)
where
    D: Decider,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    speak(stream, move |request| {
        let (way, proxy, decider) = (way.clone(), proxy.clone(), decider.clone());
        async move { answer(&way, &proxy, &*decider, request).await }
    })
    .await;
}

/// HTTP/1.1 with whoever came in, until it ends or is dropped.
pub async fn speak<S, F, A>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = Response<Body>>,
{
    let service = service_fn(|request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HTTP_HEAD_TIME_MAX);
    server.max_buf_size(HTTP_HEAD_MAX).max_headers(HTTP_HEADERS_MAX);
    // A broken connection is the caller's loss.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

/// Path and query of a request, as they were written.
pub fn raw_of(request: &Request<Incoming>) -> String {
    request.uri().path_and_query().map_or("", |raw| raw.as_str()).to_owned()
}

async fn answer<D: Decider>(
    way: &Way,
    proxy: &Proxy,
    decider: &D,
    request: Request<Incoming>,
) -> Response<Body> {
    let raw = raw_of(&request);
    let next = "take the URL from the variable that `avouch run` sets for this run";
    match way {
        Way::Known => proxy.answer(decider, &raw, request).await,
        Way::Stranger(why) => Refusal::new(StatusCode::FORBIDDEN, "caller", why.as_ref(), next).response(),
        Way::Key(key) => match behind(key, &raw) {
            Some(raw) => proxy.answer(decider, &raw, request).await,
            None => {
                let error = "no gate of this run is here: the path does not begin with its key";
                Refusal::new(StatusCode::FORBIDDEN, "key", error, next).response()
            }
        },
    }
}

/// What stands behind the key in a path; `None` if it does not begin with it.
fn behind(key: &str, raw: &str) -> Option<String> {
    let (first, rest) = raw.strip_prefix('/')?.split_at_checked(key.len())?;
    verify_slices_are_equal(first.as_bytes(), key.as_bytes()).ok()?;
    match rest.as_bytes().first() {
        Some(b'/') => Some(rest.to_owned()),
        None | Some(b'?') => Some(format!("/{rest}")),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_stands_behind_the_key_and_without_it_there_is_none() {
        for (raw, left) in [
            ("/key/a/b?c", Some("/a/b?c")),
            ("/key/", Some("/")),
            ("/key", Some("/")),
            ("/key?a", Some("/?a")),
            ("/keys/a", None),
            ("/kez/a", None),
            ("/ke", None),
            ("/", None),
            ("key/a", None),
            ("", None),
            ("/k\u{e9}y/a", None),
        ] {
            assert_eq!(behind("key", raw).as_deref(), left, "{raw}");
        }
    }
}
