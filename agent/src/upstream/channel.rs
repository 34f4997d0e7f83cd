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

/// Where the addresses of a name come from.
#[tonic::async_trait]
pub trait Resolve: std::fmt::Debug + Send + Sync + 'static {
    /// All addresses of `host`, IPv4 and IPv6; asked again for each connection.
    ///
    /// # Errors
    /// The name has no address, or nobody could be asked.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>>;
}

/// The machine's own resolver.
#[derive(Clone, Copy, Debug)]
pub struct System;

#[tonic::async_trait]
impl Resolve for System {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(lookup_host((host, port)).await?.collect())
    }
}

/// A channel that dials at the first call and again whenever the connection is gone.
pub(super) fn open(
    target: &Target,
    resolver: Arc<dyn Resolve>,
    identity: Option<Arc<IdentityCell>>,
    roots: Arc<RootsCell>,
    expected: ServerExpectation,
) -> Result<Channel, TlsError> {
    let config = tls::client_config(identity, roots, expected)?;
    // The name below is only the `:authority` of the calls; the connector dials the target.
    Ok(Endpoint::from_static("http://spire-server").connect_with_connector_lazy(Connector {
        target: target.clone(),
        resolver,
        config,
    }))
}

#[derive(Clone)]
struct Connector {
    target: Target,
    resolver: Arc<dyn Resolve>,
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
        let Self { target, resolver, config } = self.clone();
        Box::pin(async move {
            match timeout(CONNECT_MAX, dial(&target, &*resolver, &config)).await {
                Ok(result) => result.map(TokioIo::new),
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no connection to {target} within {} s", CONNECT_MAX.as_secs()),
                )),
            }
        })
    }
}

async fn dial(
    target: &Target,
    resolver: &dyn Resolve,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let name = format!("{target}: ");
    let named = |e: io::Error| match e.to_string() {
        text if text.starts_with(&name) => e,
        text => io::Error::new(e.kind(), format!("{name}{text}")),
    };
    let mut addresses = resolver.resolve(&target.host, target.port).await.map_err(named)?;
    shuffle(&mut addresses);
    let host = target.host.clone();
    let config = config.clone();
    first_of(addresses, CONNECT_NEXT_AFTER, move |address| {
        let (host, config) = (host.clone(), config.clone());
        async move { one(address, &host, config).await }
    })
    .await
    .map_err(named)
}

/// A plain connection to a host of any kind, by the same rules.
pub async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut addresses = System.resolve(host, port).await?;
    shuffle(&mut addresses);
    match timeout(CONNECT_MAX, first_of(addresses, CONNECT_NEXT_AFTER, TcpStream::connect)).await {
        Ok(result) => result,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
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
    let joined = TlsConnector::from(config).connect(tls::server_name(host), socket).await;
    joined.map_err(|e| io::Error::new(e.kind(), format!("{address}: {}", explained(&e))))
}

/// A failed handshake in words that say what to look at.
fn explained(error: &io::Error) -> String {
    use rustls::{CertificateError, Error};
    let Some(error) = error.get_ref().and_then(|e| e.downcast_ref::<Error>()) else {
        return error.to_string();
    };
    let text = tls::explain(error);
    // The second: an authority of the same name with another key.
    let unknown = *error == Error::InvalidCertificate(CertificateError::UnknownIssuer)
        || text.contains("InvalidSignatureForPublicKey");
    match error {
        _ if unknown => "the server's certificate is signed by none of the authorities trusted here: check the address and the trust bundle; if the server was set up anew, move agent-data.json away, so that the trust bundle is read again".to_owned(),
        Error::InvalidCertificate(CertificateError::NotValidYet) => {
            "the server's certificate is not valid yet: check the clocks of both machines".to_owned()
        }
        Error::InvalidCertificate(CertificateError::Expired) => {
            "the server's certificate has expired: check the clocks of both machines".to_owned()
        }
        _ => text,
    }
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

    /// A resolver that says what it is told and counts the questions.
    #[derive(Debug, Default)]
    struct Told {
        answers: parking_lot::Mutex<Vec<Vec<SocketAddr>>>,
        asked: std::sync::atomic::AtomicUsize,
    }

    #[tonic::async_trait]
    impl Resolve for Told {
        async fn resolve(&self, host: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
            assert_eq!(host, "spire.example.org");
            self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let mut answers = self.answers.lock();
            match answers.len() {
                0 => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
                1 => Ok(answers[0].clone()),
                _ => Ok(answers.remove(0)),
            }
        }
    }

    /// A server at `host` that names itself as it should and counts its connections; and what trusts it.
    async fn server(
        host: &str,
    ) -> (SocketAddr, Arc<std::sync::atomic::AtomicUsize>, Arc<RootsCell>, avouch_domain::SpiffeId) {
        use rcgen::{CertificateParams, KeyPair, SanType};
        let id = avouch_domain::SpiffeId::server(&avouch_domain::fixtures::domain());
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names.push(SanType::URI(id.to_string().try_into().unwrap()));
        params.key_usages.push(rcgen::KeyUsagePurpose::DigitalSignature);
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        root.subject_alt_names.push(SanType::URI("spiffe://example.org".try_into().unwrap()));
        root.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let root_der = root.self_signed(&root_key).unwrap().der().to_vec();
        let leaf = params.signed_by(&key, &rcgen::Issuer::new(root, root_key)).unwrap();
        let mut bundle = avouch_domain::Bundle::empty(avouch_domain::fixtures::domain());
        bundle.x509_authorities =
            vec![avouch_domain::X509Authority { der: root_der.as_slice().into(), tainted: false }];
        let roots = Arc::new(RootsCell::empty());
        roots.set(&bundle);
        let key = rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = rustls::ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = tokio::net::TcpListener::bind((host, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                if acceptor.accept(stream).await.is_ok() {
                    counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                }
            }
        });
        (address, count, roots, id)
    }

    fn connector(resolver: Arc<Told>, roots: Arc<RootsCell>, id: avouch_domain::SpiffeId) -> Connector {
        let config = tls::client_config(None, roots, ServerExpectation::Exactly(id)).unwrap();
        Connector { target: Target { host: "spire.example.org".into(), port: 8081 }, resolver, config }
    }

    /// An address where nobody listens.
    async fn closed(host: &str) -> SocketAddr {
        tokio::net::TcpListener::bind((host, 0)).await.unwrap().local_addr().unwrap()
    }

    async fn connect(connector: &mut Connector) -> io::Result<Connection> {
        tower::Service::call(connector, Uri::from_static("http://spire-server")).await
    }

    #[tokio::test]
    async fn a_name_with_ipv4_and_ipv6_addresses_is_reached_over_whichever_works() {
        for (good, bad) in [("127.0.0.1", "::1"), ("::1", "127.0.0.1")] {
            let (address, count, roots, id) = server(good).await;
            let resolver = Arc::new(Told::default());
            let answer = vec![closed(bad).await, address];
            resolver.answers.lock().push(answer);
            let mut connector = connector(resolver, roots, id);
            for _ in 0..4 {
                connect(&mut connector).await.unwrap();
            }
            assert!(count.load(std::sync::atomic::Ordering::Relaxed) > 0);
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_again_for_every_connection() {
        let (address, _, roots, id) = server("127.0.0.1").await;
        let resolver = Arc::new(Told::default());
        let answers = [vec![closed("127.0.0.1").await], vec![address]];
        resolver.answers.lock().extend(answers);
        let mut connector = connector(resolver.clone(), roots, id);
        let error = connect(&mut connector).await.unwrap_err().to_string();
        assert!(error.contains("spire.example.org:8081"), "{error}");
        connect(&mut connector).await.unwrap();
        connect(&mut connector).await.unwrap();
        assert_eq!(resolver.asked.load(std::sync::atomic::Ordering::Relaxed), 3);
    }

    #[tokio::test]
    async fn a_server_of_unknown_authorities_is_told_apart_from_one_that_is_away() {
        let (address, _, _, id) = server("127.0.0.1").await;
        let (_, _, other_roots, _) = server("127.0.0.1").await;
        let resolver = Arc::new(Told::default());
        resolver.answers.lock().push(vec![address]);
        let error = connect(&mut connector(resolver, other_roots, id)).await.unwrap_err().to_string();
        assert!(error.contains("none of the authorities trusted here"), "{error}");
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_is_named() {
        let (_, _, roots, id) = server("127.0.0.1").await;
        let error = connect(&mut connector(Arc::default(), roots, id)).await.unwrap_err().to_string();
        assert_eq!(error, "spire.example.org:8081: no such name");
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
