//! The X.509 extensions of certificates and requests, as bytes.
//!
//! Never decides which certificate gets which extension: that is `issue.rs` and `csr.rs`.

use avouch_domain::SpiffeId;

use crate::der::{self, BOOLEAN, OCTET_STRING, OID, SEQUENCE, context};

/// Content of the OID of subjectAltName, 2.5.29.17.
pub(crate) const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// Content of the OID of extensionRequest, 1.2.840.113549.1.9.14.
pub(crate) const EXTENSION_REQUEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x0e];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const SUBJECT_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x0e];
const AUTHORITY_KEY_IDENTIFIER: &[u8] = &[0x55, 0x1d, 0x23];

const CRITICAL: bool = true;
const NOT_CRITICAL: bool = false;

/// GeneralName tags (RFC 5280 4.2.1.6).
pub(crate) const DNS_NAME: u8 = context(2);
pub(crate) const URI: u8 = context(6);

fn extension(out: &mut Vec<u8>, oid: &[u8], critical: bool, value: impl FnOnce(&mut Vec<u8>)) {
    der::element(out, SEQUENCE, |out| {
        der::primitive(out, OID, oid);
        if critical {
            der::primitive(out, BOOLEAN, &[0xff]);
        }
        der::element(out, OCTET_STRING, value);
    });
}

/// Leaf: digitalSignature, keyEncipherment, keyAgreement (X509-16, X509-18 to X509-20).
pub(crate) fn leaf_key_usage(out: &mut Vec<u8>) {
    extension(out, KEY_USAGE, CRITICAL, |out| out.extend([0x03, 0x02, 0x03, 0xa8]));
}

/// CA: keyCertSign and cRLSign (X509-16, X509-17, X509-21).
pub(crate) fn ca_key_usage(out: &mut Vec<u8>) {
    extension(out, KEY_USAGE, CRITICAL, |out| out.extend([0x03, 0x02, 0x01, 0x06]));
}

/// serverAuth, then clientAuth (X509-22, X509-23).
pub(crate) fn extended_key_usage(out: &mut Vec<u8>) {
    extension(out, EXTENDED_KEY_USAGE, NOT_CRITICAL, |out| {
        der::element(out, SEQUENCE, |out| {
            for purpose in [1, 2] {
                der::primitive(out, OID, &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, purpose]);
            }
        });
    });
}

/// cA true without a path length (X509-11), or false, which is written although it is the default (X509-12, CL-10).
pub(crate) fn basic_constraints(out: &mut Vec<u8>, is_ca: bool) {
    extension(out, BASIC_CONSTRAINTS, CRITICAL, |out| {
        der::element(out, SEQUENCE, |out| {
            if is_ca {
                der::primitive(out, BOOLEAN, &[0xff]);
            }
        });
    });
}

pub(crate) fn subject_key_identifier(out: &mut Vec<u8>, ski: &[u8]) {
    extension(out, SUBJECT_KEY_IDENTIFIER, NOT_CRITICAL, |out| der::primitive(out, OCTET_STRING, ski));
}

/// The issuer's key identifier and nothing else.
pub(crate) fn authority_key_identifier(out: &mut Vec<u8>, issuer_ski: &[u8]) {
    extension(out, AUTHORITY_KEY_IDENTIFIER, NOT_CRITICAL, |out| {
        der::element(out, SEQUENCE, |out| der::primitive(out, context(0), issuer_ski));
    });
}

/// DNS names in the order given, then the one URI (X509-01, X509-04). Critical only beside an empty subject
/// (X509-06).
pub(crate) fn subject_alt_name(
    out: &mut Vec<u8>,
    dns_names: &[String],
    id: Option<&SpiffeId>,
    critical: bool,
) {
    extension(out, SUBJECT_ALT_NAME, critical, |out| {
        der::element(out, SEQUENCE, |out| {
            for name in dns_names {
                der::primitive(out, DNS_NAME, name.as_bytes());
            }
            if let Some(id) = id {
                der::primitive(out, URI, id.as_str().as_bytes());
            }
        });
    });
}
