//! Requests of our own and of a foreign builder, and each way a request is refused.

use avouch_domain::KeyType;
use rcgen::{Attribute, CertificateParams, CustomExtension, KeyPair, SanType};

use super::*;
use crate::fixtures::{id, key};

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn dns(text: &str) -> SanType {
    SanType::DnsName(text.try_into().unwrap())
}

fn params(sans: &[SanType]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = sans.to_vec();
    params
}

/// A request by another builder.
fn foreign(sans: &[SanType]) -> Vec<u8> {
    params(sans).serialize_request(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn names(sans: &[SanType]) -> Result<CsrNames, CsrError> {
    Csr::parse(&foreign(sans)).unwrap().names()
}

const WEB: &str = "spiffe://example.org/web";

#[test]
fn a_request_of_ours_is_read_back() {
    for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let key = key(key_type);
        let subject = Name::svid_default();
        let dns_names = ["b.org".to_owned(), "a.org".to_owned()];
        let template = CsrTemplate { subject: &subject, id: Some(&id(WEB)), dns_names: &dns_names };
        let csr = Csr::parse(&build(&template, &key).unwrap()).unwrap();
        csr.verify().unwrap();
        assert_eq!((csr.public_key(), csr.subject()), (key.public_key(), &subject));
        assert_eq!(csr.names(), Ok(CsrNames { id: id(WEB), dns_names: dns_names.to_vec() }));
    }
}

#[test]
fn a_request_of_ours_satisfies_another_reader() {
    use x509_parser::prelude::{FromDer, X509CertificationRequest};
    let key = key(KeyType::EcP256);
    let template = CsrTemplate { subject: &Name::svid_default(), id: None, dns_names: &[] };
    let der = build(&template, &key).unwrap();
    let (rest, csr) = X509CertificationRequest::from_der(&der).unwrap();
    csr.verify_signature().unwrap();
    assert!(rest.is_empty() && csr.certification_request_info.attributes().is_empty());
}

#[test]
fn a_foreign_request_is_read() {
    let csr = Csr::parse(&foreign(&[dns("a.org"), uri(WEB), dns("b.org")])).unwrap();
    csr.verify().unwrap();
    assert_eq!(csr.names().unwrap().dns_names, ["a.org", "b.org"]);
}

#[test]
fn unknown_extensions_and_attributes_are_passed_over() {
    let mut params = params(&[uri(WEB)]);
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3], b"\x04\x01x".to_vec())];
    let challenge = Attribute { oid: &[1, 2, 840, 113_549, 1, 9, 7], values: b"\x31\x03\x16\x01x".to_vec() };
    let odd = Attribute { oid: &[1, 2, 3, 4], values: b"\x31\x06\x02\x01\x01\x02\x01\x02".to_vec() };
    let der = params
        .serialize_request_with_attributes(&KeyPair::generate().unwrap(), vec![challenge, odd])
        .unwrap();
    let csr = Csr::parse(der.der()).unwrap();
    csr.verify().unwrap();
    assert_eq!(csr.names().unwrap().id, id(WEB));
}

#[test]
fn no_bytes_are_a_missing_request() {
    assert_eq!(Csr::parse(&[]).unwrap_err().to_string(), "missing CSR");
}

#[test]
fn bytes_that_are_no_request_are_malformed() {
    let mut trailing = foreign(&[]);
    trailing.push(0);
    for bad in [b"hello".to_vec(), trailing, foreign(&[])[..100].to_vec()] {
        assert!(Csr::parse(&bad).unwrap_err().to_string().starts_with("malformed CSR: "));
    }
}

#[test]
fn size_is_limited_before_anything_is_read() {
    let reason = Csr::parse(&vec![0; CSR_MAX + 1]).unwrap_err().reason();
    assert_eq!(reason, "65537 bytes, expected at most 65536");
}

#[test]
fn a_changed_request_fails_its_signature() {
    let mut der = foreign(&[uri(WEB)]);
    let at = der.windows(3).position(|w| w == b"web").unwrap();
    der[at] = b'W';
    let error = Csr::parse(&der).unwrap().verify().unwrap_err();
    assert_eq!(error.to_string(), "failed to verify CSR signature: signature does not match");
    assert_eq!(error.reason(), "signature does not match");
}

#[test]
fn an_algorithm_that_does_not_fit_the_key_fails() {
    let mut csr = Csr::parse(&foreign(&[])).unwrap();
    csr.algorithm = rustls_pki_types::alg_id::RSA_PKCS1_SHA256.as_ref().to_vec();
    assert!(matches!(csr.verify(), Err(CsrError::Signature(reason)) if reason.starts_with("algorithm")));
}

#[test]
fn a_request_names_exactly_one_uri() {
    assert_eq!(names(&[dns("a.org")]).unwrap_err().to_string(), "CSR URI SAN is required");
    let two = names(&[uri(WEB), uri("https://example.org")]).unwrap_err();
    assert_eq!(two.to_string(), "only one URI SAN is expected");
}

#[test]
fn the_uri_is_a_spiffe_id() {
    let error = names(&[uri("https://example.org/web")]).unwrap_err();
    assert_eq!(error.to_string(), "CSR URI SAN is invalid: scheme is missing or invalid");
}

#[test]
fn dns_names_follow_the_rules_of_entries() {
    let error = names(&[uri(WEB), dns("a..b")]).unwrap_err();
    assert_eq!(error.to_string(), "CSR DNS name is invalid: label is empty");
}

#[test]
fn a_wildcard_may_not_cover_another_name() {
    let error = names(&[uri(WEB), dns("*.example.org"), dns("a.example.org")]).unwrap_err();
    assert!(
        error.to_string().starts_with("CSR DNS name contains a wildcard that covers another non-wildcard")
    );
    assert!(names(&[uri(WEB), dns("*.example.org"), dns("a.b.example.org"), dns("example.org")]).is_ok());
}
