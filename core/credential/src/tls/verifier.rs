//! The SPIFFE rules as a TLS verifier, for both directions.
//!
//! Never looks at host names. Never trusts across trust domains. Time is what the TLS library hands over.

use std::fmt;
use std::sync::Arc;

use avouch_domain::{SpiffeId, Timestamp};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::cells::RootsCell;
use super::provider;
use crate::x509::verify::{Purpose, VerifyError, leaf_id, verify_path};

/// Which server a client accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerExpectation {
    /// Only the server with this SPIFFE ID, verified with the roots of its trust domain.
    Exactly(SpiffeId),
    /// Any server that names itself by this SPIFFE ID, its chain unverified: first contact without a bundle, on the
    /// operator's explicit word.
    Insecure(SpiffeId),
}

/// The reason in words. The library prints `Debug` of what it carries, so that is the text, too.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A handshake failure in plain words, for logs and errors.
#[must_use]
pub fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(reason))) => {
            format!("peer certificate refused: {reason}")
        }
        other => other.to_string(),
    }
}

/// Verifies peers by SPIFFE ID.
#[derive(Debug)]
pub(super) struct SpiffeVerifier {
    roots: Arc<RootsCell>,
    /// `None` = any member of a trust domain in `roots`.
    expected: Option<SpiffeId>,
    /// A client without a certificate is refused.
    mandatory: bool,
}

impl SpiffeVerifier {
    pub(super) fn of_clients(roots: Arc<RootsCell>, mandatory: bool) -> Self {
        Self { roots, expected: None, mandatory }
    }

    pub(super) fn of_server(roots: Arc<RootsCell>, expected: SpiffeId) -> Self {
        Self { roots, expected: Some(expected), mandatory: true }
    }

    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixTime,
    ) -> Result<(), Error> {
        let id = leaf_id(leaf).map_err(refused)?;
        let roots = self
            .roots
            .get(id.trust_domain())
            .ok_or_else(|| refused(VerifyError::NoAuthorities(id.trust_domain().clone())))?;
        let now = Timestamp::from_secs(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        verify_path(leaf, intermediates, &id, &roots, purpose, now).map_err(refused)?;
        match &self.expected {
            Some(expected) if *expected != id => {
                Err(other(format!("unexpected ID \"{id}\", expected \"{expected}\"")))
            }
            _ => Ok(()),
        }
    }
}

/// Standard reasons keep their TLS alert, so that the peer learns of them.
fn refused(error: VerifyError) -> Error {
    match error {
        VerifyError::Empty => Error::NoCertificatesPresented,
        VerifyError::Malformed(..) => CertificateError::BadEncoding.into(),
        VerifyError::Expired => CertificateError::Expired.into(),
        VerifyError::NotYetValid => CertificateError::NotValidYet.into(),
        VerifyError::UnknownIssuer => CertificateError::UnknownIssuer.into(),
        error => other(error.to_string()),
    }
}

fn other(reason: String) -> Error {
    CertificateError::Other(OtherError(Arc::new(Refusal(reason)))).into()
}

fn check_tls12(
    message: &[u8],
    cert: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls12_signature(message, cert, signature, &provider().signature_verification_algorithms)
}

fn check_tls13(
    message: &[u8],
    cert: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    verify_tls13_signature(message, cert, signature, &provider().signature_verification_algorithms)
}

fn schemes() -> Vec<SignatureScheme> {
    provider().signature_verification_algorithms.supported_schemes()
}

impl ClientCertVerifier for SpiffeVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    /// Empty: hints would change with every rotation of the bundle.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(leaf, intermediates, Purpose::ClientAuth, now)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_tls12(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_tls13(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ServerCertVerifier for SpiffeVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, intermediates, Purpose::ServerAuth, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_tls12(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_tls13(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

/// Accepts any certificate that names the server; the server still has to hold its key. What it keeps out is another
/// trust domain's server, or anything else on a wrong address: mistakes, not attackers.
#[derive(Debug)]
pub(super) struct InsecureVerifier {
    pub expected: SpiffeId,
}

impl ServerCertVerifier for InsecureVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let id = leaf_id(leaf).map_err(refused)?;
        if id != self.expected {
            return Err(other(format!("unexpected ID \"{id}\", expected \"{}\"", self.expected)));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_tls12(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_tls13(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}
