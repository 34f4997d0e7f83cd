//! A TLS client that presents whatever it is told and remembers what the server showed: the probe for both sides' rules.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// What the server presented: leaf first.
pub type Presented = Arc<Mutex<Vec<Vec<u8>>>>;

/// Takes any server certificate and keeps it.
#[derive(Debug)]
struct Recorder {
    provider: Arc<CryptoProvider>,
    presented: Presented,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.presented.lock() = std::iter::once(leaf).chain(rest).map(|c| c.to_vec()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Presents a certificate without looking at it, as no decent client would.
#[derive(Debug)]
struct Unchecked(Arc<CertifiedKey>);

impl ResolvesClientCert for Unchecked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Opens a gRPC channel over TLS, presenting `chain` (leaf first, may be empty) with its key (PKCS#8).
///
/// # Errors
/// The transport's. A refused client certificate may show only at the first call (TLS 1.3).
pub async fn channel(
    address: SocketAddr,
    chain: &[Vec<u8>],
    key: &[u8],
) -> Result<(Channel, Presented), tonic::transport::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let presented = Presented::default();
    let recorder = Recorder { provider: Arc::clone(&provider), presented: Arc::clone(&presented) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(recorder));
    let mut config = if chain.is_empty() {
        builder.with_no_client_auth()
    } else {
        let chain = chain.iter().map(|c| CertificateDer::from(c.clone())).collect();
        let key = PrivateKeyDer::Pkcs8(key.to_vec().into());
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        builder.with_client_cert_resolver(Arc::new(Unchecked(Arc::new(CertifiedKey::new(chain, key)))))
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(config));
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let tcp = TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from("server").unwrap();
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
        }
    });
    let channel = Endpoint::from_static("http://server").connect_with_connector(connect).await?;
    Ok((channel, presented))
}
