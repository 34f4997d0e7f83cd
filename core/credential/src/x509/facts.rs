//! Facts of a certificate: what it says, read once, not yet believed.
//!
//! Never verifies a signature and never judges: `verify.rs` does.

use avouch_domain::{Timestamp, X509Authority};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use super::name::{Name, NameError};
use crate::key::{KeyError, PublicKey};
use crate::limits::{CERTIFICATE_MAX, CONCATENATED_MAX};

/// keyUsage bit `digitalSignature`.
pub const DIGITAL_SIGNATURE: u16 = 1;
/// keyUsage bit `keyCertSign`.
pub const KEY_CERT_SIGN: u16 = 1 << 5;
/// keyUsage bit `cRLSign`.
pub const CRL_SIGN: u16 = 1 << 6;

/// Why bytes are no readable certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    #[error("malformed certificate: {0}")]
    Malformed(String),
    #[error("certificate has {0} bytes, expected at most {CERTIFICATE_MAX}")]
    TooLong(usize),
    #[error("trailing data after the certificate")]
    Trailing,
    #[error("more certificates than the {CONCATENATED_MAX} expected at most")]
    TooMany,
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What one certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertFacts {
    /// As the API writes it.
    pub serial_decimal: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub uri_sans: Vec<String>,
    pub dns_sans: Vec<String>,
    pub ski: Option<Vec<u8>>,
    /// Key identifier part only.
    pub aki: Option<Vec<u8>>,
    pub subject: Name,
    /// Go style: `O=SPIRE,C=US`.
    pub subject_text: String,
    pub common_name: Option<String>,
    pub is_ca: bool,
    /// Most intermediates below a CA; `None` = no limit.
    pub path_length: Option<u32>,
    /// Bit n of RFC 5280 4.2.1.3 is bit n here; `None` = no keyUsage extension.
    pub key_usage: Option<u16>,
    /// DER `SubjectPublicKeyInfo`.
    pub public_key_pkix: Vec<u8>,
    /// Issuer and subject are the same bytes.
    pub self_issued: bool,
}

impl CertFacts {
    /// Reads one DER certificate with nothing behind it.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn parse(der: &[u8]) -> Result<Self, FactsError> {
        let cert = read(der)?;
        let mut facts = Self {
            serial_decimal: cert.tbs_certificate.serial.to_string(),
            not_before: Timestamp::from_secs(cert.validity().not_before.timestamp()),
            not_after: Timestamp::from_secs(cert.validity().not_after.timestamp()),
            uri_sans: Vec::new(),
            dns_sans: Vec::new(),
            ski: None,
            aki: None,
            subject: Name::from_der(cert.subject().as_raw())?,
            subject_text: String::new(),
            common_name: None,
            is_ca: false,
            path_length: None,
            key_usage: None,
            public_key_pkix: cert.public_key().raw.to_vec(),
            self_issued: cert.issuer().as_raw() == cert.subject().as_raw(),
        };
        facts.subject_text = facts.subject.text();
        facts.common_name = facts.subject.common_name();
        for extension in cert.extensions() {
            facts.take(extension.parsed_extension())?;
        }
        Ok(facts)
    }

    /// True if keyUsage has `keyCertSign`.
    #[must_use]
    pub fn may_sign_certificates(&self) -> bool {
        self.key_usage.is_some_and(|usage| usage & KEY_CERT_SIGN != 0)
    }

    /// The public key, checked.
    ///
    /// # Errors
    /// [`KeyError`] for a type this product does not use.
    pub fn public_key(&self) -> Result<PublicKey, KeyError> {
        PublicKey::from_pkix(&self.public_key_pkix)
    }

    fn take(&mut self, extension: &ParsedExtension<'_>) -> Result<(), FactsError> {
        match extension {
            ParsedExtension::BasicConstraints(constraints) => {
                self.is_ca = constraints.ca;
                self.path_length = constraints.path_len_constraint;
            }
            ParsedExtension::KeyUsage(usage) => self.key_usage = Some(usage.flags),
            ParsedExtension::SubjectKeyIdentifier(id) => self.ski = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.aki = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                for name in &names.general_names {
                    match name {
                        GeneralName::URI(uri) => self.uri_sans.push((*uri).to_owned()),
                        GeneralName::DNSName(dns) => self.dns_sans.push((*dns).to_owned()),
                        GeneralName::Invalid(tag, _) => {
                            return Err(FactsError::Malformed(format!("unreadable SAN of kind {}", tag.0)));
                        }
                        _ => {}
                    }
                }
            }
            ParsedExtension::ParseError { error } => {
                return Err(FactsError::Malformed(format!("unreadable extension: {error}")));
            }
            _ => {}
        }
        Ok(())
    }
}

fn read(der: &[u8]) -> Result<X509Certificate<'_>, FactsError> {
    if der.len() > CERTIFICATE_MAX {
        return Err(FactsError::TooLong(der.len()));
    }
    let (rest, cert) = X509Certificate::from_der(der).map_err(|e| FactsError::Malformed(e.to_string()))?;
    if !rest.is_empty() {
        return Err(FactsError::Trailing);
    }
    cert.extensions_map().map_err(|e| FactsError::Malformed(e.to_string()))?; // refuses repeated extensions
    Ok(cert)
}

/// Lower-case hex of a CA certificate's subject key identifier; computed from the key if the certificate has
/// none.
///
/// # Errors
/// [`FactsError`] if the certificate or its key can't be read.
pub fn authority_id(ca_der: &[u8]) -> Result<String, FactsError> {
    let facts = CertFacts::parse(ca_der)?;
    Ok(match &facts.ski {
        Some(ski) => hex::encode(ski),
        None => hex::encode(facts.public_key()?.ski()),
    })
}

/// Takes one certificate into a bundle if it can be read at all. A root without the CA flag is taken, as SPIRE
/// does: it then verifies nothing.
///
/// # Errors
/// [`FactsError`].
pub fn check_authority(der: &[u8]) -> Result<X509Authority, FactsError> {
    CertFacts::parse(der)?.public_key()?;
    Ok(X509Authority { der: der.into(), tainted: false })
}

/// The certificates of a DER concatenation, as the Workload API's fields hold them: a chain or a set of authorities.
/// Every one is read; nothing may stand between or behind them. No bytes are no certificates.
///
/// # Errors
/// [`FactsError`] if one of them can't be read or is too long, or if there are more than [`CONCATENATED_MAX`].
pub fn split(mut concatenation: &[u8]) -> Result<Vec<Vec<u8>>, FactsError> {
    let mut certificates = Vec::new();
    while !concatenation.is_empty() {
        if certificates.len() == CONCATENATED_MAX {
            return Err(FactsError::TooMany);
        }
        let (rest, certificate) =
            X509Certificate::from_der(concatenation).map_err(|e| FactsError::Malformed(e.to_string()))?;
        let der = certificate.as_raw();
        if der.len() > CERTIFICATE_MAX {
            return Err(FactsError::TooLong(der.len()));
        }
        certificates.push(der.to_vec());
        concatenation = rest;
    }
    Ok(certificates)
}

/// [`split`] by its other name.
///
/// # Errors
/// As [`split`].
pub fn split_chain(bytes: &[u8]) -> Result<Vec<Vec<u8>>, FactsError> {
    split(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::issuer;

    #[test]
    fn concatenated_certificates_are_split_in_their_order() {
        let (a, b) = (issuer("a.org"), issuer("b.org"));
        let both = [&a.ca_der()[..], &b.ca_der()[..]].concat();
        assert_eq!(split(&both), Ok(vec![a.ca_der().to_vec(), b.ca_der().to_vec()]));
        assert_eq!(split(&[]), Ok(Vec::new()));
    }

    #[test]
    fn a_concatenation_has_nothing_but_certificates() {
        let ca = issuer("a.org").ca_der().to_vec();
        for tail in [&[0][..], &ca[..100], &[0x30, 0]] {
            assert!(matches!(split(&[&ca, tail].concat()), Err(FactsError::Malformed(_))), "{tail:?}");
        }
    }

    #[test]
    fn a_concatenation_has_a_bounded_count() {
        let ca = issuer("a.org").ca_der().to_vec();
        assert_eq!(split(&ca.repeat(CONCATENATED_MAX)).unwrap().len(), CONCATENATED_MAX);
        assert_eq!(split(&ca.repeat(CONCATENATED_MAX + 1)), Err(FactsError::TooMany));
    }
}
