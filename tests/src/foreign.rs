//! A SPIRE-compatible server that is not ours: our server behind a door that knows only some of its methods, and that
//! ends connections as often as it is told.
//!
//! The door ends TLS with a certificate that the server's own authority signed, and goes in with the credentials of
//! whoever came: it reads the agent's key from the agent's folder.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use avouch_credential::key::PrivateKey;
use avouch_credential::x509::facts::CertFacts;
use base64::Engine as _;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::Service as _;

use crate::forge::Authority;
use crate::{Server, mtls};

/// How the door differs from an open one.
#[derive(Clone, Debug, Default)]
pub struct Manners {
    /// Beginnings of paths (`/package.Service/Method`) that it does not know.
    pub unknown: Vec<&'static str>,
    /// Connections are asked to end (GOAWAY) at this age.
    pub age: Option<Duration>,
}

/// The door. Dropped, it is closed.
pub struct Foreign {
    pub port: u16,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    manners: Manners,
    server: SocketAddr,
    agent_dir: PathBuf,
    calls: Mutex<Vec<String>>,
    connections: AtomicUsize,
    ended: AtomicUsize,
    tls: TlsAcceptor,
}

impl Foreign {
    /// Opens a door before `server` for the agent whose keys are in `agent_dir`.
    pub async fn before(server: &Server, agent_dir: &Path, manners: Manners) -> Self {
        let authority =
            Authority::from_parts(&server.bundle().await.x509_authorities[0].asn1, &server.key("x509-CA-A"));
        let leaf = authority.leaf(&format!("spiffe://{}/spire/server", server.trust_domain));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(Arc::new(AnyClient(provider)))
            .with_single_cert(vec![leaf.der.into()], PrivateKeyDer::Pkcs8(leaf.key.into()))
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            manners,
            server: server.address(),
            agent_dir: agent_dir.to_owned(),
            calls: Mutex::default(),
            connections: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            tls: TlsAcceptor::from(Arc::new(config)),
        });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                open.spawn(serve(Arc::clone(&shared), stream));
            }
        });
        Self { port, state, task }
    }

    /// How often a path that ends so was called.
    pub fn calls(&self, path_end: &str) -> usize {
        self.state.calls.lock().iter().filter(|path| path.ends_with(path_end)).count()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// Connections that were asked to end, or have ended.
    pub fn ended(&self) -> usize {
        self.state.ended.load(Ordering::Relaxed)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(state: Arc<State>, stream: TcpStream) {
    let Ok(stream) = state.tls.accept(stream).await else { return };
    state.connections.fetch_add(1, Ordering::Relaxed);
    let chain: Vec<Vec<u8>> =
        stream.get_ref().1.peer_certificates().unwrap_or_default().iter().map(|c| c.to_vec()).collect();
    let key = chain.first().map(|leaf| key_of(&state.agent_dir, leaf)).unwrap_or_default();
    let Ok((channel, _)) = mtls::channel(state.server, &chain, &key).await else { return };
    let counted = Arc::clone(&state);
    let service = tower::service_fn(move |request: Request<Incoming>| {
        let (state, mut channel) = (Arc::clone(&state), channel.clone());
        async move {
            let path = request.uri().path().to_owned();
            state.calls.lock().push(path.clone());
            if state.manners.unknown.iter().any(|unknown| path.starts_with(unknown)) {
                return Ok(Status::unimplemented(format!("unknown method {path}")).into_http());
            }
            std::future::poll_fn(|cx| channel.poll_ready(cx)).await?;
            let answer: Result<Response<Body>, tonic::transport::Error> =
                channel.call(request.map(Body::new)).await;
            answer
        }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
    if let Some(age) = counted.manners.age {
        let over = tokio::time::timeout(age, connection.as_mut()).await.is_ok();
        if !over {
            connection.as_mut().graceful_shutdown();
        }
        counted.ended.fetch_add(1, Ordering::Relaxed);
        if over {
            return;
        }
    }
    let _ = connection.await;
}

/// The agent's key for this certificate.
fn key_of(agent_dir: &Path, leaf: &[u8]) -> Vec<u8> {
    let public = CertFacts::parse(leaf).unwrap().public_key_pkix;
    let text = std::fs::read_to_string(agent_dir.join("keys.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let keys = json["keys"].as_object().unwrap().values();
    keys.map(|key| base64::engine::general_purpose::STANDARD.decode(key.as_str().unwrap()).unwrap())
        .find(|der| PrivateKey::from_pkcs8(der).unwrap().public_key().pkix() == public)
        .expect("the key of the agent's certificate")
}

/// Takes any client certificate, and none.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
