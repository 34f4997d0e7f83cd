//! What TLS configurations read at each handshake: our identity and the roots per trust domain.
//!
//! Replacing a cell's content acts on the next handshake; connections that stand keep what they had.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use avouch_domain::{Bundle, TrustDomain, X509Svid};
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::TlsError;
use crate::x509::verify::TrustRoots;

/// The X509-SVID shown to peers; may be empty.
#[derive(Debug, Default)]
pub struct IdentityCell(ArcSwapOption<CertifiedKey>);

impl IdentityCell {
    /// A cell without an identity: a server with it fails every handshake, a client shows no certificate.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// A cell with an identity.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn new(svid: &X509Svid) -> Result<Self, TlsError> {
        let cell = Self::empty();
        cell.set(svid)?;
        Ok(cell)
    }

    /// Shows this SVID from the next handshake on. On error the cell keeps what it had.
    ///
    /// # Errors
    /// [`TlsError`] if chain or key can't be used or do not belong together.
    pub fn set(&self, svid: &X509Svid) -> Result<(), TlsError> {
        if svid.chain.is_empty() {
            return Err(TlsError::EmptyChain);
        }
        let chain = svid.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.key.as_slice()));
        let certified = CertifiedKey::new(chain, any_supported_type(&key)?);
        certified.keys_match()?;
        self.0.store(Some(Arc::new(certified)));
        Ok(())
    }

    /// Shows no certificate from the next handshake on.
    pub fn clear(&self) {
        self.0.store(None);
    }

    /// What the next handshake will show.
    #[must_use]
    pub fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }
}

impl ResolvesServerCert for IdentityCell {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

impl ResolvesClientCert for IdentityCell {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.current()
    }

    fn has_certs(&self) -> bool {
        self.current().is_some()
    }
}

/// For clients that never show a certificate.
#[derive(Debug)]
pub(super) struct NoIdentity;

impl ResolvesClientCert for NoIdentity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

/// The authorities that peers are verified with, per trust domain. A peer of a trust domain that is not here is
/// refused.
#[derive(Debug, Default)]
pub struct RootsCell(ArcSwap<BTreeMap<TrustDomain, Arc<TrustRoots>>>);

impl RootsCell {
    /// No trust domain: every peer is refused.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// Puts or replaces the authorities of one trust domain.
    pub fn set(&self, bundle: &Bundle) {
        let roots = Arc::new(TrustRoots::new(&bundle.x509_authorities));
        self.0.rcu(|map| {
            let mut map = BTreeMap::clone(map);
            map.insert(bundle.trust_domain.clone(), roots.clone());
            map
        });
    }

    /// Trusts this trust domain no more.
    pub fn remove(&self, domain: &TrustDomain) {
        self.0.rcu(|map| {
            let mut map = BTreeMap::clone(map);
            map.remove(domain);
            map
        });
    }

    /// Replaces everything by these bundles.
    pub fn replace<'a>(&self, bundles: impl IntoIterator<Item = &'a Bundle>) {
        let map = bundles
            .into_iter()
            .map(|b| (b.trust_domain.clone(), Arc::new(TrustRoots::new(&b.x509_authorities))))
            .collect();
        self.0.store(Arc::new(map));
    }

    /// The authorities of one trust domain.
    #[must_use]
    pub fn get(&self, domain: &TrustDomain) -> Option<Arc<TrustRoots>> {
        self.0.load().get(domain).cloned()
    }
}
