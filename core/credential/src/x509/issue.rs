//! Issue: the self-signed CA certificate and the leaves below it.
//!
//! Fills in every field itself; nothing of a request but the public key reaches a certificate unasked. The
//! issuer name is the subject of the CA certificate, byte for byte.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::{SpiffeId, Timestamp, TrustDomain};
use time::OffsetDateTime;

use super::extension;
use super::facts::{CertFacts, FactsError};
use super::name::Name;
use crate::der::{self, GENERALIZED_TIME, INTEGER, OID, SEQUENCE, UTC_TIME, context_constructed};
use crate::key::{PublicAlgorithm, PublicKey};
use crate::limits::BACKDATE;
use crate::signer::{SignError, Signer};

/// Why a certificate was not issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("CA certificate is unusable: {0}")]
    Ca(#[from] FactsError),
    #[error("CA certificate and signing key do not belong together")]
    KeyMismatch,
    #[error("certificate is no CA certificate for X509-SVIDs: {0}")]
    NotCa(&'static str),
    /// X509-05.
    #[error("SPIFFE ID {0} has no path: an X509-SVID names a workload, not a trust domain")]
    RootPath(SpiffeId),
    /// X509-09.
    #[error("SPIFFE ID {id} is not a member of trust domain {domain}")]
    ForeignTrustDomain { id: SpiffeId, domain: TrustDomain },
    #[error("CA certificate has expired")]
    CaExpired,
    #[error("time {0} can't be written into a certificate")]
    Time(Timestamp),
}

/// An issued certificate and what was decided for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub der: Vec<u8>,
    pub serial: [u8; 16],
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Certificate {
    /// The serial number as the API writes it.
    #[must_use]
    pub fn serial_decimal(&self) -> String {
        decimal(self.serial)
    }
}

/// What a self-signed CA certificate is made of.
#[derive(Clone, Copy, Debug)]
pub struct CaTemplate<'a> {
    pub trust_domain: &'a TrustDomain,
    /// The certificate's serial number is appended to it as serialNumber, unless it has one.
    pub subject: &'a Name,
    /// From [`crate::random::serial`].
    pub serial: [u8; 16],
    pub now: Timestamp,
    pub ttl: Duration,
}

/// Issues a self-signed CA certificate: URI SAN is the trust domain alone (X509-07, X509-08, ID-25), no path
/// length, no authority key identifier.
///
/// # Errors
/// [`IssueError::Sign`] or [`IssueError::Time`].
pub fn self_signed_ca(template: &CaTemplate<'_>, signer: &dyn Signer) -> Result<Certificate, IssueError> {
    let subject = template.subject.with_serial_number(&decimal(template.serial));
    let validity = Validity::new(template.now, template.now + template.ttl);
    let key = signer.public_key();
    let fields = Fields { serial: template.serial, issuer: &subject, validity, subject: &subject, key };
    sign(&fields, signer, |out| {
        extension::ca_key_usage(out);
        extension::basic_constraints(out, true);
        extension::subject_key_identifier(out, &key.ski());
        let id = SpiffeId::of_domain(template.trust_domain);
        extension::subject_alt_name(out, &[], Some(&id), subject.is_empty());
    })
}

/// A CA certificate with its key, parsed once and shared by everything that signs.
pub struct Issuer {
    ca_der: Arc<[u8]>,
    subject: Name,
    ski: Vec<u8>,
    authority_id: String,
    trust_domain: TrustDomain,
    not_after: Timestamp,
    signer: Arc<dyn Signer>,
}

impl Issuer {
    /// Reads the CA certificate and checks that it may sign (X509-11, X509-17), that it names a trust domain
    /// (X509-08), and that the key is its key.
    ///
    /// # Errors
    /// [`IssueError::Ca`], [`IssueError::NotCa`] or [`IssueError::KeyMismatch`].
    pub fn new(ca_der: &[u8], signer: Arc<dyn Signer>) -> Result<Self, IssueError> {
        let facts = CertFacts::parse(ca_der)?;
        if !facts.is_ca {
            return Err(IssueError::NotCa("basicConstraints do not say CA"));
        }
        if !facts.may_sign_certificates() {
            return Err(IssueError::NotCa("keyUsage lacks keyCertSign"));
        }
        if facts.public_key_pkix != signer.public_key().pkix() {
            return Err(IssueError::KeyMismatch);
        }
        let uri = match facts.uri_sans.as_slice() {
            [uri] => uri,
            _ => return Err(IssueError::NotCa("expected exactly one URI SAN, the trust domain's ID")),
        };
        let id = SpiffeId::parse(uri).map_err(|_| IssueError::NotCa("its URI SAN is no SPIFFE ID"))?;
        if !id.path().is_empty() {
            return Err(IssueError::NotCa("its SPIFFE ID has a path"));
        }
        let ski = facts.ski.unwrap_or_else(|| signer.public_key().ski().to_vec());
        Ok(Self {
            ca_der: ca_der.into(),
            subject: facts.subject,
            authority_id: hex::encode(&ski),
            ski,
            trust_domain: id.trust_domain().clone(),
            not_after: facts.not_after,
            signer,
        })
    }

    /// Issues a leaf: valid from ten seconds ago to `now + ttl`, never longer than the CA.
    ///
    /// # Errors
    /// An ID outside the trust domain or without a path, a CA past its end, or a failure of the key.
    pub fn leaf(&self, template: &LeafTemplate<'_>) -> Result<Certificate, IssueError> {
        if template.id.path().is_empty() {
            return Err(IssueError::RootPath(template.id.clone()));
        }
        if template.id.trust_domain() != &self.trust_domain {
            let domain = self.trust_domain.clone();
            return Err(IssueError::ForeignTrustDomain { id: template.id.clone(), domain });
        }
        if template.now >= self.not_after {
            return Err(IssueError::CaExpired);
        }
        let named = template.dns_names.first().map(|cn| template.subject.with_common_name(cn));
        let subject = named.as_ref().unwrap_or(template.subject);
        let end = (template.now + template.ttl).min(self.not_after);
        let fields = Fields {
            serial: template.serial,
            issuer: &self.subject,
            validity: Validity::new(template.now, end),
            subject,
            key: template.public_key,
        };
        sign(&fields, &*self.signer, |out| {
            extension::leaf_key_usage(out);
            extension::extended_key_usage(out);
            extension::basic_constraints(out, false);
            extension::subject_key_identifier(out, &template.public_key.ski());
            extension::authority_key_identifier(out, &self.ski);
            extension::subject_alt_name(out, template.dns_names, Some(template.id), subject.is_empty());
        })
    }

    /// The CA certificate.
    #[must_use]
    pub fn ca_der(&self) -> &Arc<[u8]> {
        &self.ca_der
    }

    /// End of the CA certificate.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Lower-case hex of the CA's subject key identifier.
    #[must_use]
    pub fn authority_id(&self) -> &str {
        &self.authority_id
    }

    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("authority_id", &self.authority_id).finish_non_exhaustive()
    }
}

/// What a leaf is made of.
#[derive(Clone, Copy, Debug)]
pub struct LeafTemplate<'a> {
    pub id: &'a SpiffeId,
    pub public_key: &'a PublicKey,
    /// Written in this order before the URI (X509-04); the first becomes the common name.
    pub dns_names: &'a [String],
    /// Usually [`Name::svid_default`], built once.
    pub subject: &'a Name,
    /// From [`crate::random::serial`].
    pub serial: [u8; 16],
    pub now: Timestamp,
    pub ttl: Duration,
}

/// Both ends of a validity, in whole seconds.
#[derive(Clone, Copy)]
struct Validity {
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Validity {
    /// 9999-12-31 23:59:59, the last second a certificate can name.
    const LAST: Timestamp = Timestamp::from_secs(253_402_300_799);

    fn new(now: Timestamp, end: Timestamp) -> Self {
        let whole = |t: Timestamp| Timestamp::from_secs(t.secs());
        Self { not_before: whole(now - BACKDATE), not_after: whole(end).min(Self::LAST) }
    }
}

struct Fields<'a> {
    serial: [u8; 16],
    issuer: &'a Name,
    validity: Validity,
    subject: &'a Name,
    key: &'a PublicKey,
}

/// Writes the part to be signed, has it signed, and puts both together.
fn sign(
    fields: &Fields<'_>,
    signer: &dyn Signer,
    extensions: impl FnOnce(&mut Vec<u8>),
) -> Result<Certificate, IssueError> {
    let algorithm = signature_algorithm(signer.public_key())?;
    let Validity { not_before, not_after } = fields.validity;
    let (begin, end) = (time_text(not_before)?, time_text(not_after)?);
    let mut signed = Vec::with_capacity(1024);
    der::element(&mut signed, SEQUENCE, |out| {
        der::element(out, context_constructed(0), |out| der::primitive(out, INTEGER, &[2]));
        der::unsigned(out, &fields.serial);
        out.extend_from_slice(algorithm);
        out.extend_from_slice(fields.issuer.der());
        der::element(out, SEQUENCE, |out| {
            for (tag, text) in [&begin, &end] {
                der::primitive(out, *tag, text.as_bytes());
            }
        });
        out.extend_from_slice(fields.subject.der());
        out.extend_from_slice(fields.key.pkix());
        der::element(out, context_constructed(3), |out| der::element(out, SEQUENCE, extensions));
    });
    let der = assemble(&signed, algorithm, &signer.sign(&signed)?);
    Ok(Certificate { der, serial: fields.serial, not_before, not_after })
}

/// Signed part, algorithm, signature: the outer shape of certificates and requests.
pub(super) fn assemble(signed: &[u8], algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(signed.len() + signature.len() + 32);
    der::element(&mut out, SEQUENCE, |out| {
        out.extend_from_slice(signed);
        out.extend_from_slice(algorithm);
        der::bit_string(out, signature);
    });
    out
}

/// The AlgorithmIdentifier of what [`Signer::sign`] makes with this key.
pub(super) fn signature_algorithm(key: &PublicKey) -> Result<&'static [u8], SignError> {
    match key.algorithm() {
        PublicAlgorithm::EcP256 => Ok(&[0x30, 0x0a, OID, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]),
        PublicAlgorithm::EcP384 => Ok(&[0x30, 0x0a, OID, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3]),
        PublicAlgorithm::Rsa => {
            Ok(&[0x30, 0x0d, OID, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b, 5, 0])
        }
        other => Err(SignError::Unsupported(other.name())),
    }
}

/// UTCTime up to 2049, GeneralizedTime after (RFC 5280 4.1.2.5).
fn time_text(time: Timestamp) -> Result<(u8, String), IssueError> {
    let t = OffsetDateTime::from_unix_timestamp(time.secs()).map_err(|_| IssueError::Time(time))?;
    let rest =
        format!("{:02}{:02}{:02}{:02}{:02}Z", u8::from(t.month()), t.day(), t.hour(), t.minute(), t.second());
    match t.year() {
        year @ 1950..=2049 => Ok((UTC_TIME, format!("{:02}{rest}", year % 100))),
        year @ 0..=9999 => Ok((GENERALIZED_TIME, format!("{year:04}{rest}"))),
        _ => Err(IssueError::Time(time)),
    }
}

fn decimal(serial: [u8; 16]) -> String {
    u128::from_be_bytes(serial).to_string()
}

#[cfg(test)]
#[path = "issue_tests.rs"]
mod tests;
