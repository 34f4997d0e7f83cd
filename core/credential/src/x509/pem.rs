//! PEM text around DER: 64-character lines, as OpenSSL and Go write.
//!
//! Never guesses: sections of other kinds are skipped, damaged ones are errors.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use zeroize::{Zeroize, Zeroizing};

/// Label of a certificate.
pub const CERTIFICATE: &str = "CERTIFICATE";
/// Label of a public key (PKIX).
pub const PUBLIC_KEY: &str = "PUBLIC KEY";
/// Label of a PKCS#8 key.
pub const PRIVATE_KEY: &str = "PRIVATE KEY";

/// Why PEM text can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    #[error("malformed PEM: {0}")]
    Malformed(String),
    #[error("no PEM block of type {0} found")]
    None(&'static str),
}

/// One PEM block, ending with a newline. For keys use [`encode_private_key`].
#[must_use]
pub fn encode(label: &str, der: &[u8]) -> String {
    let mut body = STANDARD.encode(der);
    let mut out = String::with_capacity(body.len() + body.len() / 64 + 64);
    write_block(&mut out, label, &body);
    body.zeroize();
    out
}

/// A PKCS#8 key as PEM, in memory that is wiped.
#[must_use]
pub fn encode_private_key(pkcs8: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(encode(PRIVATE_KEY, pkcs8))
}

/// Certificates one after the other.
pub fn certificates_to_pem<T: AsRef<[u8]>>(certificates: impl IntoIterator<Item = T>) -> String {
    certificates.into_iter().map(|der| encode(CERTIFICATE, der.as_ref())).collect()
}

/// All certificates in a PEM text, DER.
///
/// # Errors
/// [`PemError`] if a block is damaged or there is no certificate.
pub fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, PemError> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pem).map(|c| c.map(|c| c.as_ref().to_vec())).collect();
    let found = found.map_err(|e| PemError::Malformed(e.to_string()))?;
    if found.is_empty() { Err(PemError::None(CERTIFICATE)) } else { Ok(found) }
}

/// The first PKCS#8 key in a PEM text, DER.
///
/// # Errors
/// [`PemError`] if a block is damaged or there is no such key.
pub fn private_key(pem: &[u8]) -> Result<Zeroizing<Vec<u8>>, PemError> {
    match PrivatePkcs8KeyDer::pem_slice_iter(pem).next() {
        Some(Ok(key)) => Ok(Zeroizing::new(key.secret_pkcs8_der().to_vec())),
        Some(Err(e)) => Err(PemError::Malformed(e.to_string())),
        None => Err(PemError::None(PRIVATE_KEY)),
    }
}

/// The first public key in a PEM text, PKIX, DER.
///
/// # Errors
/// [`PemError`] if a block is damaged or there is no such key.
pub fn public_key(pem: &[u8]) -> Result<Vec<u8>, PemError> {
    match SubjectPublicKeyInfoDer::pem_slice_iter(pem).next() {
        Some(Ok(key)) => Ok(key.as_ref().to_vec()),
        Some(Err(e)) => Err(PemError::Malformed(e.to_string())),
        None => Err(PemError::None(PUBLIC_KEY)),
    }
}

fn write_block(out: &mut String, label: &str, body: &str) {
    out.push_str("-----BEGIN ");
    out.push_str(label);
    out.push_str("-----\n");
    let mut rest = body;
    while !rest.is_empty() {
        let (line, after) = rest.split_at_checked(64).unwrap_or((rest, ""));
        out.push_str(line);
        out.push('\n');
        rest = after;
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_64_characters() {
        let text = encode(CERTIFICATE, &[7; 100]);
        let lines: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(lines, [27, 64, 64, 8, 25]);
        assert!(text.ends_with("-----\n"));
    }

    #[test]
    fn certificates_are_found_among_other_blocks() {
        let text = format!("junk\n{}{}", encode(PRIVATE_KEY, &[1]), certificates_to_pem([[2], [3]]));
        assert_eq!(certificates(text.as_bytes()), Ok(vec![vec![2], vec![3]]));
        assert_eq!(*private_key(text.as_bytes()).unwrap(), [1]);
        assert_eq!(public_key(format!("{text}{}", encode(PUBLIC_KEY, &[4])).as_bytes()), Ok(vec![4]));
    }

    #[test]
    fn a_text_without_a_certificate_is_an_error() {
        assert_eq!(certificates(b"hello"), Err(PemError::None(CERTIFICATE)));
        assert_eq!(private_key(b"hello"), Err(PemError::None(PRIVATE_KEY)));
    }
}
