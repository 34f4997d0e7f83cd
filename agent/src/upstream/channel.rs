//! How a server is reached: names looked up at every connection, addresses in random order, the next one tried
//! within a second, TLS by SPIFFE rules.
//!
//! Never checks a host name (the SPIFFE ID is what is checked) and never resumes a TLS session.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use avouch_credential::random;
use avouch_credential::tls::{self, IdentityCell, RootsCell, ServerExpectation, TlsError};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::limits::{CONNECT_MAX, CONNECT_NEXT_AFTER, SERVER_KEEPALIVE, SERVER_SILENCE_MAX};

/// Where the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name or address; a name may have several addresses.
    pub host: String,
    pub port: u16,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A channel that dials at the first call and again whenever the connection is gone.
pub(super) fn open(
    target: &Target,
    identity: Option<Arc<IdentityCell>>,
    roots: Arc<RootsCell>,
    expected: ServerExpectation,
) -> Result<Channel, TlsError> {
    let config = tls::client_config(identity, roots, expected)?;
    // The name below is only the `:authority` of the calls; the connector dials the target.
    Ok(Endpoint::from_static("http://spire-server")
        .connect_with_connector_lazy(Connector { target: target.clone(), config }))
}

#[derive(Clone)]
struct Connector {
    target: Target,
    config: Arc<ClientConfig>,
}

type Connection = TokioIo<TlsStream<TcpStream>>;

impl tower::Service<Uri> for Connector {
    type Response = Connection;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Connection>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (target, config) = (self.target.clone(), self.config.clone());
        Box::pin(async move {
            match timeout(CONNECT_MAX, dial(&target, &config)).await {
                Ok(result) => result.map(TokioIo::new),
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no connection to {target} within {} s", CONNECT_MAX.as_secs()),
                )),
            }
        })
    }
}

async fn dial(target: &Target, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let mut addresses: Vec<SocketAddr> = lookup_host((target.host.as_str(), target.port)).await?.collect();
    shuffle(&mut addresses);
    let host = target.host.clone();
    let config = config.clone();
    first_of(addresses, CONNECT_NEXT_AFTER, move |address| {
        let (host, config) = (host.clone(), config.clone());
        async move { one(address, &host, config).await }
    })
    .await
    .map_err(|e| io::Error::new(e.kind(), format!("{target}: {e}")))
}

/// Tries addresses in turn, the next when one fails or after `pause`; the first connection wins.
async fn first_of<T, F, Fut>(addresses: Vec<SocketAddr>, pause: Duration, connect: F) -> io::Result<T>
where
    T: Send + 'static,
    F: Fn(SocketAddr) -> Fut,
    Fut: Future<Output = io::Result<T>> + Send + 'static,
{
    let mut waiting = addresses.into_iter();
    let mut tries = JoinSet::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match waiting.next() {
            Some(address) => {
                tries.spawn(connect(address));
            }
            None if tries.is_empty() => return Err(last),
            None => {}
        }
        // With nobody left to try there is nothing to be early for.
        let wait = if waiting.len() > 0 { pause } else { CONNECT_MAX };
        match timeout(wait, tries.join_next()).await {
            Ok(Some(Ok(Ok(connection)))) => return Ok(connection),
            Ok(Some(Ok(Err(e)))) => last = e,
            Ok(Some(Err(_)) | None) | Err(_) => {}
        }
    }
}

async fn one(address: SocketAddr, host: &str, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    // HTTP/2 pings would be counted as abuse by other servers; the kernel notices a dead peer as well.
    let options = SockRef::from(&socket);
    let keepalive = TcpKeepalive::new().with_time(SERVER_KEEPALIVE).with_interval(SERVER_KEEPALIVE / 3);
    options.set_tcp_keepalive(&keepalive)?;
    options.set_tcp_user_timeout(Some(SERVER_SILENCE_MAX))?;
    TlsConnector::from(config).connect(tls::server_name(host), socket).await
}

fn shuffle(addresses: &mut [SocketAddr]) {
    let Ok(bytes) = random::bytes::<8>() else { return };
    let mut seed = u64::from_le_bytes(bytes);
    for n in (1..addresses.len()).rev() {
        let place = seed % (n as u64 + 1);
        seed = seed.rotate_left(17).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        addresses.swap(n, usize::try_from(place).unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(n: u16) -> Vec<SocketAddr> {
        (1..=n).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_is_tried_while_the_first_hangs() {
        let started = tokio::time::Instant::now();
        let won = first_of(addresses(2), Duration::from_secs(1), |address| async move {
            if address.port() == 1 {
                std::future::pending::<()>().await;
            }
            Ok(address.port())
        })
        .await;
        assert_eq!((won.unwrap(), started.elapsed()), (2, Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_address_is_followed_by_the_next_at_once() {
        let started = tokio::time::Instant::now();
        let won = first_of(addresses(3), Duration::from_secs(1), |address| async move {
            if address.port() < 3 { Err(io::Error::other("refused")) } else { Ok(address.port()) }
        })
        .await;
        assert_eq!((won.unwrap(), started.elapsed()), (3, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_reason_is_told_when_all_fail() {
        let lost: io::Result<()> =
            first_of(addresses(2), Duration::from_secs(1), |_| async { Err(io::Error::other("no")) }).await;
        assert_eq!(lost.unwrap_err().to_string(), "no");
        let lost: io::Result<()> = first_of(vec![], Duration::from_secs(1), |_| async { Ok(()) }).await;
        assert_eq!(lost.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn every_address_may_come_first() {
        let mut first = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut list = addresses(3);
            shuffle(&mut list);
            assert_eq!(list.len(), 3);
            first.insert(list[0]);
        }
        assert_eq!(first.len(), 3);
    }
}
