//! The only place that builds TLS configurations.
//!
//! Never resumes a session: a resumed handshake skips certificate verification and shows the peer of the first
//! handshake, so a rotated, foreign or banned certificate would pass unseen. No other file may name rustls builders.

mod cells;
mod verifier;

pub use cells::{IdentityCell, RootsCell};
pub use verifier::{ServerExpectation, explain};

use std::sync::{Arc, LazyLock};

use rustls::client::Resumption as ClientResumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, Ipv4Addr, ServerName};

use crate::key::KeyError;
use cells::NoIdentity;
use verifier::{InsecureVerifier, SpiffeVerifier};

/// Why a TLS identity or configuration can't be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    #[error("X509-SVID has no certificate")]
    EmptyChain,
    #[error("X509-SVID key is unusable: {0}")]
    Key(#[from] KeyError),
    #[error("X509-SVID can't be used for TLS: {0}")]
    Library(String),
}

impl From<rustls::Error> for TlsError {
    fn from(e: rustls::Error) -> Self {
        Self::Library(e.to_string())
    }
}

/// What the server does about client certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Not asked for (federation bundle endpoint).
    Ignored,
    /// Asked for; none is fine, a wrong one ends the handshake.
    Optional,
    /// Asked for; none or a wrong one ends the handshake.
    Required,
}

/// The application protocols offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// `h2` only.
    Grpc,
    /// `h2` and `http/1.1`.
    Https,
    /// `http/1.1` only.
    Http1,
}

impl Alpn {
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Self::Grpc => vec![b"h2".to_vec()],
            Self::Https => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Self::Http1 => vec![b"http/1.1".to_vec()],
        }
    }
}

/// How a listener treats its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerPolicy {
    pub client_certificates: ClientCertificates,
    pub alpn: Alpn,
}

impl ServerPolicy {
    /// The server's API: agents show their SVID, a new agent has none yet.
    pub const GRPC: Self = Self { client_certificates: ClientCertificates::Optional, alpn: Alpn::Grpc };
    /// The bundle endpoint, profile `https_spiffe`.
    pub const BUNDLE_ENDPOINT: Self =
        Self { client_certificates: ClientCertificates::Ignored, alpn: Alpn::Https };
    /// An HTTP gate of its own: whoever comes proves who it is.
    pub const GATE: Self = Self { client_certificates: ClientCertificates::Required, alpn: Alpn::Http1 };
}

/// TLS 1.2 is the oldest version spoken.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// aws-lc, with the hybrid post-quantum group first.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    PROVIDER.clone()
}

/// A listener's configuration. Identity and roots are read anew for each handshake; without an identity every
/// handshake fails.
///
/// # Errors
/// [`TlsError::Library`] if the library refuses the provider or versions.
pub fn server_config(
    identity: Arc<IdentityCell>,
    roots: Arc<RootsCell>,
    policy: ServerPolicy,
) -> Result<Arc<ServerConfig>, TlsError> {
    build_server(identity, roots, policy, Resumption::Off, VERSIONS).map(Arc::new)
}

/// A gRPC client's configuration (ALPN `h2`). Identity and roots are read anew for each handshake.
///
/// # Errors
/// [`TlsError::Library`] if the library refuses the provider or versions.
pub fn client_config(
    identity: Option<Arc<IdentityCell>>,
    roots: Arc<RootsCell>,
    expectation: ServerExpectation,
) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_with(identity, roots, expectation, Alpn::Grpc)
}

/// [`client_config`] with the application protocols chosen.
///
/// # Errors
/// As [`client_config`].
pub fn client_config_with(
    identity: Option<Arc<IdentityCell>>,
    roots: Arc<RootsCell>,
    expectation: ServerExpectation,
    alpn: Alpn,
) -> Result<Arc<ClientConfig>, TlsError> {
    build_client(identity, roots, expectation, alpn, Resumption::Off, VERSIONS).map(Arc::new)
}

/// The configuration of a client of ordinary web servers (ALPN `http/1.1`): the server's name is what is checked, with
/// `roots`. Those that can't be read are left out. For SPIFFE peers this is the wrong one.
///
/// # Errors
/// [`TlsError::Library`] if the library refuses the provider or versions.
pub fn web_client_config(
    roots: impl IntoIterator<Item = CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = ClientResumption::disabled();
    Ok(Arc::new(config))
}

/// The name sent in the handshake. Nothing is checked against it; for a host that can't be sent, none is.
#[must_use]
pub fn server_name(host: &str) -> ServerName<'static> {
    // An address is never sent, so any will do.
    ServerName::try_from(host.to_owned()).unwrap_or_else(|_| Ipv4Addr::from([127, 0, 0, 1]).into())
}

/// `On` exists in tests alone, to show that the tests would notice it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resumption {
    Off,
    #[cfg(test)]
    On,
}

fn build_server(
    identity: Arc<IdentityCell>,
    roots: Arc<RootsCell>,
    policy: ServerPolicy,
    resumption: Resumption,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
    let builder = match policy.client_certificates {
        ClientCertificates::Ignored => builder.with_no_client_auth(),
        asked @ (ClientCertificates::Optional | ClientCertificates::Required) => {
            let mandatory = asked == ClientCertificates::Required;
            builder.with_client_cert_verifier(Arc::new(SpiffeVerifier::of_clients(roots, mandatory)))
        }
    };
    let mut config = builder.with_cert_resolver(identity);
    config.alpn_protocols = policy.alpn.protocols();
    if resumption == Resumption::Off {
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(config)
}

fn build_client(
    identity: Option<Arc<IdentityCell>>,
    roots: Arc<RootsCell>,
    expectation: ServerExpectation,
    alpn: Alpn,
    resumption: Resumption,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConfig, TlsError> {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions)?.dangerous();
    let builder = match expectation {
        ServerExpectation::Exactly(id) => {
            builder.with_custom_certificate_verifier(Arc::new(SpiffeVerifier::of_server(roots, id)))
        }
        ServerExpectation::Insecure(id) => {
            builder.with_custom_certificate_verifier(Arc::new(InsecureVerifier { expected: id }))
        }
    };
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(identity),
        None => builder.with_client_cert_resolver(Arc::new(NoIdentity)),
    };
    config.alpn_protocols = alpn.protocols();
    if resumption == Resumption::Off {
        config.resumption = ClientResumption::disabled();
    }
    Ok(config)
}

#[cfg(test)]
mod tests;
