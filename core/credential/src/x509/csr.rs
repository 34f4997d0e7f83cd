//! Certificate signing requests: read whatever a client sends, build what an agent sends.
//!
//! Nothing of a request is believed but its public key; [`Csr::names`] is for the one caller that lets a request
//! name its subject. Extensions and attributes of any kind are passed over, so this reads the structure itself.

use std::fmt::Write as _;

use avouch_domain::entry::check_dns_name;
use avouch_domain::{EntryError, IdError, SpiffeId};

use super::extension;
use super::issue::{assemble, signature_algorithm};
use super::name::Name;
use crate::der::{self, BOOLEAN, DerError, OCTET_STRING, OID, Reader, SEQUENCE, SET, context_constructed};
use crate::key::PublicKey;
use crate::limits::CSR_MAX;
use crate::signer::{SignError, Signer};

/// Why a request is refused. The texts are those of SPIRE's minting call; other calls put their own words before
/// [`CsrError::reason`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    #[error("missing CSR")]
    Missing,
    #[error("malformed CSR: {0}")]
    Malformed(String),
    #[error("failed to verify CSR signature: {0}")]
    Signature(&'static str),
    #[error("CSR URI SAN is required")]
    NoUri,
    #[error("only one URI SAN is expected")]
    ManyUris,
    #[error("CSR URI SAN is invalid: {0}")]
    Uri(IdError),
    #[error("CSR DNS name is invalid: {}", dns_reason(.0))]
    DnsName(EntryError),
    #[error("CSR DNS name contains a wildcard that covers another non-wildcard name: {0}")]
    WildcardOverlap(String),
}

impl CsrError {
    /// The part of the text that says what is wrong, without the part that says where.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Malformed(reason) | Self::WildcardOverlap(reason) => reason.clone(),
            Self::Signature(reason) => (*reason).to_owned(),
            Self::Uri(e) => e.to_string(),
            Self::DnsName(e) => dns_reason(e),
            Self::Missing | Self::NoUri | Self::ManyUris => self.to_string(),
        }
    }
}

fn dns_reason(error: &EntryError) -> String {
    match error {
        EntryError::DnsName(reason) => (*reason).to_owned(),
        other => other.to_string(),
    }
}

/// The names a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsrNames {
    pub id: SpiffeId,
    /// In the order of the request.
    pub dns_names: Vec<String>,
}

/// A request that could be read. Its signature is checked by [`Csr::verify`].
#[derive(Clone, Debug)]
pub struct Csr {
    public_key: PublicKey,
    subject: Name,
    uris: Vec<String>,
    dns_names: Vec<String>,
    signed: Vec<u8>,
    algorithm: Vec<u8>,
    signature: Vec<u8>,
}

impl Csr {
    /// Reads a PKCS#10 request of at most [`CSR_MAX`] bytes.
    ///
    /// # Errors
    /// [`CsrError::Missing`] for no bytes, else [`CsrError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, CsrError> {
        if bytes.is_empty() {
            return Err(CsrError::Missing);
        }
        if bytes.len() > CSR_MAX {
            return Err(CsrError::Malformed(format!("{} bytes, expected at most {CSR_MAX}", bytes.len())));
        }
        let mut outer = der::only(bytes, SEQUENCE)?.inside();
        let signed = outer.expect(SEQUENCE)?;
        let algorithm = outer.expect(SEQUENCE)?.content.to_vec();
        let signature = outer.bits()?.to_vec();
        outer.end()?;

        let mut info = signed.inside();
        if !info.unsigned()?.is_empty() {
            return Err(CsrError::Malformed("unknown version, expected 0".to_owned()));
        }
        let malformed = |e: &dyn std::fmt::Display| CsrError::Malformed(e.to_string());
        let subject = Name::from_der(info.expect(SEQUENCE)?.raw).map_err(|e| malformed(&e))?;
        let public_key = PublicKey::from_pkix(info.expect(SEQUENCE)?.raw).map_err(|e| malformed(&e))?;
        let mut csr = Self {
            public_key,
            subject,
            uris: Vec::new(),
            dns_names: Vec::new(),
            signed: signed.raw.to_vec(),
            algorithm,
            signature,
        };
        if let Some(attributes) = info.optional(context_constructed(0))? {
            csr.read_attributes(attributes.inside())?;
        }
        info.end()?;
        Ok(csr)
    }

    /// Checks that the requester holds the private key.
    ///
    /// # Errors
    /// [`CsrError::Signature`].
    pub fn verify(&self) -> Result<(), CsrError> {
        let identifier = der::only(self.public_key.pkix(), SEQUENCE)?.inside().expect(SEQUENCE)?.content;
        let algorithm = webpki::ALL_VERIFICATION_ALGS
            .iter()
            .find(|a| {
                a.public_key_alg_id().as_ref() == identifier
                    && a.signature_alg_id().as_ref() == self.algorithm.as_slice()
            })
            .ok_or(CsrError::Signature("algorithm is unsupported or does not fit the key"))?;
        algorithm
            .verify_signature(self.public_key.raw(), &self.signed, &self.signature)
            .map_err(|_| CsrError::Signature("signature does not match"))
    }

    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    #[must_use]
    pub fn subject(&self) -> &Name {
        &self.subject
    }

    /// The SPIFFE ID and DNS names asked for: exactly one URI (X509-01), valid names, and no wildcard beside a
    /// name that it covers.
    ///
    /// # Errors
    /// The first rule broken, in SPIRE's order.
    pub fn names(&self) -> Result<CsrNames, CsrError> {
        let id = match self.uris.as_slice() {
            [] => return Err(CsrError::NoUri),
            [uri] => SpiffeId::parse(uri).map_err(CsrError::Uri)?,
            _ => return Err(CsrError::ManyUris),
        };
        for name in &self.dns_names {
            check_dns_name(name).map_err(CsrError::DnsName)?;
        }
        check_wildcards(&self.dns_names)?;
        Ok(CsrNames { id, dns_names: self.dns_names.clone() })
    }

    fn read_attributes(&mut self, mut attributes: Reader<'_>) -> Result<(), CsrError> {
        while !attributes.is_empty() {
            let mut attribute = attributes.expect(SEQUENCE)?.inside();
            let oid = attribute.expect(OID)?.content;
            let mut values = attribute.expect(SET)?.inside();
            attribute.end()?;
            if oid == extension::EXTENSION_REQUEST {
                while !values.is_empty() {
                    self.read_extensions(values.expect(SEQUENCE)?.inside())?;
                }
            }
        }
        Ok(())
    }

    fn read_extensions(&mut self, mut extensions: Reader<'_>) -> Result<(), CsrError> {
        while !extensions.is_empty() {
            let mut extension = extensions.expect(SEQUENCE)?.inside();
            let oid = extension.expect(OID)?.content;
            extension.optional(BOOLEAN)?;
            let value = extension.expect(OCTET_STRING)?.content;
            extension.end()?;
            if oid == extension::SUBJECT_ALT_NAME {
                self.read_names(der::only(value, SEQUENCE)?.inside())?;
            }
        }
        Ok(())
    }

    fn read_names(&mut self, mut names: Reader<'_>) -> Result<(), CsrError> {
        while !names.is_empty() {
            let name = names.any()?;
            let list = match name.tag {
                extension::DNS_NAME => &mut self.dns_names,
                extension::URI => &mut self.uris,
                _ => continue,
            };
            let text = std::str::from_utf8(name.content).ok().filter(|text| text.is_ascii());
            let text = text.ok_or_else(|| CsrError::Malformed("a SAN is not ASCII text".to_owned()))?;
            list.push(text.to_owned());
        }
        Ok(())
    }
}

impl From<DerError> for CsrError {
    fn from(e: DerError) -> Self {
        Self::Malformed(e.to_string())
    }
}

/// A wildcard covers names that have exactly one more label.
fn check_wildcards(names: &[String]) -> Result<(), CsrError> {
    let covered = names.iter().find_map(|wildcard| {
        let suffix = wildcard.strip_prefix("*.")?;
        let name = names.iter().find(|name| {
            !name.starts_with("*.") && name.split_once('.').is_some_and(|(_, rest)| rest == suffix)
        })?;
        Some((name, wildcard))
    });
    match covered {
        None => Ok(()),
        Some((name, wildcard)) => {
            let mut text = String::new();
            let _ = write!(text, "name {name:?} is covered by {wildcard:?}");
            Err(CsrError::WildcardOverlap(text))
        }
    }
}

/// What a request of ours says.
#[derive(Clone, Copy, Debug)]
pub struct CsrTemplate<'a> {
    pub subject: &'a Name,
    /// URI SAN; with no names at all the request has no extensions.
    pub id: Option<&'a SpiffeId>,
    pub dns_names: &'a [String],
}

/// Builds a request signed with the key it is for.
///
/// # Errors
/// [`SignError`] from the key.
pub fn build(template: &CsrTemplate<'_>, signer: &dyn Signer) -> Result<Vec<u8>, SignError> {
    let algorithm = signature_algorithm(signer.public_key())?;
    let mut signed = Vec::with_capacity(512);
    der::element(&mut signed, SEQUENCE, |out| {
        der::unsigned(out, &[]);
        out.extend_from_slice(template.subject.der());
        out.extend_from_slice(signer.public_key().pkix());
        der::element(out, context_constructed(0), |out| {
            if template.id.is_some() || !template.dns_names.is_empty() {
                der::element(out, SEQUENCE, |out| {
                    der::primitive(out, OID, extension::EXTENSION_REQUEST);
                    der::element(out, SET, |out| {
                        der::element(out, SEQUENCE, |out| {
                            let critical = template.subject.is_empty();
                            extension::subject_alt_name(out, template.dns_names, template.id, critical);
                        });
                    });
                });
            }
        });
    });
    Ok(assemble(&signed, algorithm, &signer.sign(&signed)?))
}

#[cfg(test)]
#[path = "csr_tests.rs"]
mod tests;
