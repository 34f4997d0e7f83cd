//! Verify an X509-SVID: leaf rules, then the path to an authority of the leaf's own trust domain.
//!
//! Never asks a clock, never falls back to another trust domain's authorities, never looks at host names.

use avouch_domain::{IdError, SpiffeId, Timestamp, TrustDomain, X509Authority};
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage, VerifiedPath};

use super::facts::{CRL_SIGN, CertFacts, DIGITAL_SIGNATURE, FactsError, KEY_CERT_SIGN};
use crate::limits::CHAIN_MAX;

/// Why a chain is no valid X509-SVID. Each variant names its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    #[error("no certificate was presented")]
    Empty,
    #[error("chain has {0} certificates, expected at most {CHAIN_MAX}")]
    ChainTooLong(usize),
    #[error("certificate {0} of the chain: {1}")]
    Malformed(usize, FactsError),
    /// X509-03.
    #[error("certificate contains no URI SAN")]
    NoUri,
    /// X509-02.
    #[error("certificate contains more than one URI SAN")]
    ManyUris,
    /// X509-28 and the rules of SPIFFE IDs.
    #[error("certificate URI SAN is no SPIFFE ID: {0}")]
    Id(IdError),
    /// X509-29.
    #[error("leaf certificate's SPIFFE ID has no path")]
    RootPath,
    /// X509-26, X509-10.
    #[error("leaf certificate must not have CA flag set to true")]
    LeafIsCa,
    /// X509-27.
    #[error("leaf certificate must not have 'keyCertSign' set as key usage")]
    LeafSignsCertificates,
    /// X509-27.
    #[error("leaf certificate must not have 'cRLSign' set as key usage")]
    LeafSignsCrls,
    /// X509-15, X509-18.
    #[error("leaf certificate must have 'digitalSignature' set as key usage")]
    NoDigitalSignature,
    /// X509-25, X509-11.
    #[error("intermediate certificate {0} must have CA flag set to true")]
    IntermediateNotCa(usize),
    /// X509-17.
    #[error("intermediate certificate {0} must have 'keyCertSign' set as key usage")]
    IntermediateKeyUsage(usize),
    /// X509-30, X509-39, TDB-16.
    #[error("no X.509 authorities known for trust domain {0}")]
    NoAuthorities(TrustDomain),
    /// X509-30.
    #[error("certificate is of trust domain {0}, expected {1}")]
    TrustDomain(TrustDomain, TrustDomain),
    /// X509-25.
    #[error("certificate has expired")]
    Expired,
    /// X509-25.
    #[error("certificate is not valid yet")]
    NotYetValid,
    /// X509-25.
    #[error("certificate is not signed by an authority of its trust domain")]
    UnknownIssuer,
    /// X509-25, any other step of path validation.
    #[error("certificate path is invalid: {0}")]
    Path(String),
}

/// What the certificate is to be used for; extended key usage is checked only where one is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Any,
    ServerAuth,
    ClientAuth,
}

/// The X.509 authorities of one trust domain, parsed once for many verifications.
#[derive(Clone, Debug, Default)]
pub struct TrustRoots {
    anchors: Vec<Root>,
    skipped: usize,
}

#[derive(Clone, Debug)]
struct Root {
    anchor: TrustAnchor<'static>,
    not_after: Timestamp,
    path_length: Option<u32>,
}

impl TrustRoots {
    /// Parses the authorities; those that can't be read or are no CA certificates verify nothing and are
    /// counted by [`Self::skipped`].
    #[must_use]
    pub fn new(authorities: &[X509Authority]) -> Self {
        let mut roots = Self::default();
        for authority in authorities {
            match root(&authority.der) {
                Some(root) => roots.anchors.push(root),
                None => roots.skipped += 1,
            }
        }
        roots
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty()
    }

    /// How many authorities could not be used.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Those that have not ended: an authority past its end verifies nothing.
    fn at(&self, now: Timestamp) -> Vec<TrustAnchor<'_>> {
        let valid = self.anchors.iter().filter(|root| now <= root.not_after);
        valid
            .map(|Root { anchor, .. }| TrustAnchor {
                subject: anchor.subject.as_ref().into(),
                subject_public_key_info: anchor.subject_public_key_info.as_ref().into(),
                name_constraints: anchor.name_constraints.as_ref().map(|c| c.as_ref().into()),
            })
            .collect()
    }

    /// A trust anchor has no path length of its own, so the library can't check the root's (X509-13).
    fn check_path_length(&self, path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
        let below = path.intermediate_certificates().count();
        let anchor = path.anchor();
        let fits = |root: &&Root| root.path_length.is_none_or(|most| below as u64 <= u64::from(most));
        self.anchors
            .iter()
            .filter(|r| r.anchor.subject == anchor.subject)
            .filter(|r| r.anchor.subject_public_key_info == anchor.subject_public_key_info)
            .find(fits)
            .map(|_| ())
            .ok_or(webpki::Error::PathLenConstraintViolated)
    }
}

fn root(der: &[u8]) -> Option<Root> {
    let facts = CertFacts::parse(der).ok().filter(|f| f.is_ca)?;
    if facts.key_usage.is_some() && !facts.may_sign_certificates() {
        return None;
    }
    let der = CertificateDer::from(der);
    let anchor = webpki::anchor_from_trusted_cert(&der).ok()?.to_owned();
    Some(Root { anchor, not_after: facts.not_after, path_length: facts.path_length })
}

/// Verifies a chain, leaf first, whose leaf has to be of trust domain `domain`.
///
/// # Errors
/// The first rule broken.
pub fn verify_svid<C: AsRef<[u8]>>(
    chain: &[C],
    roots: &TrustRoots,
    domain: &TrustDomain,
    now: Timestamp,
) -> Result<SpiffeId, VerifyError> {
    let chain: Vec<_> = chain.iter().map(|c| CertificateDer::from(c.as_ref())).collect();
    let (leaf, intermediates) = chain.split_first().ok_or(VerifyError::Empty)?;
    let id = leaf_id(leaf)?;
    if id.trust_domain() != domain {
        return Err(VerifyError::TrustDomain(id.trust_domain().clone(), domain.clone()));
    }
    verify_path(leaf, intermediates, &id, roots, Purpose::Any, now)?;
    Ok(id)
}

/// The SPIFFE ID of a leaf by the leaf rules alone. For a certificate that the TLS layer has already verified.
///
/// # Errors
/// The first rule broken.
pub fn svid_id(leaf: &[u8]) -> Result<SpiffeId, VerifyError> {
    leaf_id(&CertificateDer::from(leaf))
}

impl CertFacts {
    /// The one SPIFFE ID this certificate names, path or not.
    ///
    /// # Errors
    /// [`VerifyError::NoUri`], [`VerifyError::ManyUris`] or [`VerifyError::Id`].
    pub fn spiffe_id(&self) -> Result<SpiffeId, VerifyError> {
        match self.uri_sans.as_slice() {
            [] => Err(VerifyError::NoUri),
            [uri] => SpiffeId::parse(uri).map_err(VerifyError::Id),
            _ => Err(VerifyError::ManyUris),
        }
    }
}

/// Leaf rules X509-02, X509-03, X509-15, X509-18, X509-26 to X509-29.
pub(crate) fn leaf_id(leaf: &CertificateDer<'_>) -> Result<SpiffeId, VerifyError> {
    let facts = CertFacts::parse(leaf).map_err(|e| VerifyError::Malformed(0, e))?;
    let id = facts.spiffe_id()?;
    if facts.is_ca {
        return Err(VerifyError::LeafIsCa);
    }
    let usage = facts.key_usage.unwrap_or_default();
    if usage & KEY_CERT_SIGN != 0 {
        return Err(VerifyError::LeafSignsCertificates);
    }
    if usage & CRL_SIGN != 0 {
        return Err(VerifyError::LeafSignsCrls);
    }
    if usage & DIGITAL_SIGNATURE == 0 {
        return Err(VerifyError::NoDigitalSignature);
    }
    if id.path().is_empty() {
        return Err(VerifyError::RootPath);
    }
    Ok(id)
}

/// Path validation (X509-25) with the roots of the leaf's own trust domain (X509-30), and the rules for
/// intermediates.
pub(crate) fn verify_path(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    id: &SpiffeId,
    roots: &TrustRoots,
    purpose: Purpose,
    now: Timestamp,
) -> Result<(), VerifyError> {
    if intermediates.len() >= CHAIN_MAX {
        return Err(VerifyError::ChainTooLong(intermediates.len() + 1));
    }
    for (at, der) in intermediates.iter().enumerate().map(|(at, der)| (at + 1, der)) {
        let facts = CertFacts::parse(der).map_err(|e| VerifyError::Malformed(at, e))?;
        if !facts.is_ca {
            return Err(VerifyError::IntermediateNotCa(at));
        }
        if !facts.may_sign_certificates() {
            return Err(VerifyError::IntermediateKeyUsage(at));
        }
    }
    let anchors = roots.at(now);
    if anchors.is_empty() {
        return Err(VerifyError::NoAuthorities(id.trust_domain().clone()));
    }
    let end_entity = EndEntityCert::try_from(leaf).map_err(path_error)?;
    let since_epoch = now.since(Timestamp(0));
    end_entity
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            intermediates,
            UnixTime::since_unix_epoch(since_epoch),
            purpose,
            None,
            Some(&|path| roots.check_path_length(path)),
        )
        .map(|_| ())
        .map_err(path_error)
}

impl ExtendedKeyUsageValidator for Purpose {
    fn validate(&self, mut iter: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        match self {
            Self::Any => iter.try_for_each(|id| id.map(|_| ())),
            Self::ServerAuth => KeyUsage::server_auth().validate(iter),
            Self::ClientAuth => KeyUsage::client_auth().validate(iter),
        }
    }
}

fn path_error(error: webpki::Error) -> VerifyError {
    match error {
        webpki::Error::CertExpired { .. } => VerifyError::Expired,
        webpki::Error::CertNotValidYet { .. } => VerifyError::NotYetValid,
        webpki::Error::UnknownIssuer => VerifyError::UnknownIssuer,
        other => VerifyError::Path(other.to_string()),
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
