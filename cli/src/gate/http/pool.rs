//! Connections to one upstream, kept for the next request.
//!
//! Never sends a request twice: what may have been sent and was not answered is told to whoever asked.

use std::io;
use std::sync::Arc;

use avouch_credential::tls;
use avouch_rules::{Reach, Upstream};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::body::Body;
use crate::gate::limits::{
    HTTP_ANSWER_TIME_MAX, HTTP_CONNECT_TIME_MAX, HTTP_HEAD_MAX, HTTP_HEADERS_MAX, HTTP_IDLE_MAX,
};

/// See the module.
#[derive(Debug)]
pub struct Pool {
    upstream: Upstream,
    ca: Option<String>,
    tls: OnceCell<Tls>,
    idle: Mutex<Vec<SendRequest<Body>>>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Nothing was sent.
    Unsent(String),
    /// It may have been carried out.
    Unknown(String),
}

/// A TLS configuration. Never printed.
#[derive(Clone)]
struct Tls(TlsConnector);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Pool {
    /// No connections yet. `ca`: certificates in PEM that alone vouch for the upstream.
    #[must_use]
    pub fn new(upstream: Upstream, ca: Option<String>) -> Self {
        Self { upstream, ca, tls: OnceCell::new(), idle: Mutex::default() }
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// One sentence on what did not work.
    pub async fn send(
        self: &Arc<Self>,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Unanswered> {
        loop {
            let idle = self.idle.lock().pop();
            let fresh = idle.is_none();
            let mut sender = match idle {
                Some(sender) if sender.is_closed() => continue,
                Some(sender) => sender,
                None => {
                    let away = |e| Unanswered::Unsent(format!("the upstream can't be reached: {e}"));
                    self.connect().await.map_err(away)?
                }
            };
            match timeout(HTTP_ANSWER_TIME_MAX, sender.try_send_request(request)).await {
                Err(_) => {
                    let seconds = HTTP_ANSWER_TIME_MAX.as_secs();
                    let text = format!("the upstream did not answer within {seconds} s");
                    return Err(Unanswered::Unknown(text));
                }
                Ok(Ok(response)) => {
                    let pool = self.clone();
                    // It is free again when the answer was read.
                    tokio::spawn(async move {
                        if sender.ready().await.is_ok() {
                            pool.keep(sender);
                        }
                    });
                    return Ok(response);
                }
                Ok(Err(mut error)) => match error.take_message() {
                    // It never left: the connection had ended while nobody used it.
                    Some(unsent) if !fresh => request = unsent,
                    _ => {
                        let text = format!("the upstream did not answer: {}", error.into_error());
                        return Err(Unanswered::Unknown(text));
                    }
                },
            }
        }
    }

    fn keep(&self, sender: SendRequest<Body>) {
        let mut idle = self.idle.lock();
        if idle.len() < HTTP_IDLE_MAX {
            idle.push(sender);
        }
    }

    async fn connect(&self) -> Result<SendRequest<Body>, String> {
        let connected = timeout(HTTP_CONNECT_TIME_MAX, self.connected()).await;
        connected.map_err(|_| format!("no connection within {} s", HTTP_CONNECT_TIME_MAX.as_secs()))?
    }

    async fn connected(&self) -> Result<SendRequest<Body>, String> {
        let failed = |e: io::Error| e.to_string();
        match &self.upstream.reach {
            Reach::Socket(path) => greet(UnixStream::connect(path).await.map_err(failed)?).await,
            Reach::Loopback { host, port } => greet(tcp(host, *port).await.map_err(failed)?).await,
            Reach::Tls { host, port } => {
                let Tls(tls) = self.tls.get_or_try_init(|| configured(self.ca.clone())).await?.clone();
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| format!("\"{host}\" is no name of a host"))?;
                let stream = tcp(host, *port).await.map_err(failed)?;
                greet(tls.connect(name, stream).await.map_err(failed)?).await
            }
        }
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn greet<S>(stream: S) -> Result<SendRequest<Body>, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let builder = &mut http1::Builder::new();
    let builder = builder.max_buf_size(HTTP_HEAD_MAX).max_headers(HTTP_HEADERS_MAX);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    // Ends when nobody can send on it any more.
    tokio::spawn(connection);
    Ok(sender)
}

/// What vouches for the upstream. Reads files.
async fn configured(ca: Option<String>) -> Result<Tls, String> {
    let read = move || {
        let roots: Vec<CertificateDer<'static>> = match &ca {
            Some(pem) => CertificateDer::pem_slice_iter(pem.as_bytes())
                .collect::<Result<_, _>>()
                .map_err(|e| format!("the certificates of the gate can't be read: {e}"))?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        if roots.is_empty() {
            return Err(
                "nothing vouches for it: install the package of CA certificates, or give the gate its own \
                        (`avouch gate add http --ca-file FILE`)"
                    .to_owned(),
            );
        }
        let config = tls::web_client_config(roots).map_err(|e| e.to_string())?;
        Ok(Tls(TlsConnector::from(config)))
    };
    tokio::task::spawn_blocking(read).await.map_err(|e| e.to_string())?
}
