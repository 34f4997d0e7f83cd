//! One test per rule of X509-SVID validation.

use avouch_domain::KeyType;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use super::*;
use crate::fixtures::{HOUR, NOW, authority, domain, id, issuer, issuer_at, svid};

const WEB: &str = "spiffe://example.org/web";

/// An authority made by another builder, which makes certificates that ours refuses to make.
struct Forge {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

fn params(name: &str, uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = uris.iter().map(|u| SanType::URI((*u).try_into().unwrap())).collect();
    params.not_before = OffsetDateTime::from_unix_timestamp(NOW.secs() - 10).unwrap();
    params.not_after = OffsetDateTime::from_unix_timestamp(NOW.secs() + 3600).unwrap();
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = params(name, &["spiffe://example.org"]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn leaf_params() -> CertificateParams {
    let mut params = params("leaf", &[WEB]);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

impl Forge {
    fn root(params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    fn below(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &self.issuer).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = leaf_params();
        change(&mut params);
        self.below(params).der
    }

    fn roots(&self) -> TrustRoots {
        TrustRoots::new(&[X509Authority { der: self.der.as_slice().into(), tainted: false }])
    }
}

fn verify(chain: &[Vec<u8>], roots: &TrustRoots) -> Result<SpiffeId, VerifyError> {
    verify_svid(chain, roots, &domain("example.org"), NOW)
}

/// The answer to a leaf changed in one point.
fn changed(change: impl FnOnce(&mut CertificateParams)) -> Result<SpiffeId, VerifyError> {
    let root = Forge::root(ca_params("root"));
    verify(&[root.leaf(change)], &root.roots())
}

fn sans(uris: &'static [&'static str]) -> impl FnOnce(&mut CertificateParams) {
    move |p| p.subject_alt_names = params("", uris).subject_alt_names
}

#[test]
fn an_svid_of_ours_is_valid() {
    for key_type in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
        let issuer = issuer_at("example.org", key_type, NOW);
        let roots = TrustRoots::new(&[authority(&issuer)]);
        let svid = svid(&issuer, WEB);
        assert_eq!(verify_svid(&svid.chain, &roots, &domain("example.org"), NOW), Ok(id(WEB)));
    }
}

#[test]
fn a_foreign_svid_is_valid_with_or_without_basic_constraints() {
    assert_eq!(changed(|_| {}), Ok(id(WEB)));
    assert_eq!(changed(|p| p.is_ca = IsCa::NoCa), Ok(id(WEB)));
}

#[test]
fn x509_02_more_than_one_uri_is_refused() {
    assert_eq!(changed(sans(&[WEB, "https://x"])), Err(VerifyError::ManyUris));
}

#[test]
fn x509_03_a_certificate_without_uri_is_no_svid() {
    let dns =
        |p: &mut CertificateParams| p.subject_alt_names = vec![SanType::DnsName("a".try_into().unwrap())];
    assert_eq!(changed(dns), Err(VerifyError::NoUri));
}

#[test]
fn x509_28_the_scheme_is_spiffe() {
    assert_eq!(changed(sans(&["https://example.org/web"])), Err(VerifyError::Id(IdError::Scheme)));
}

#[test]
fn x509_29_a_leaf_has_a_path() {
    assert_eq!(changed(sans(&["spiffe://example.org"])), Err(VerifyError::RootPath));
}

#[test]
fn x509_26_a_leaf_is_no_ca() {
    let ca = |p: &mut CertificateParams| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(changed(ca), Err(VerifyError::LeafIsCa));
}

#[test]
fn x509_27_a_leaf_signs_no_certificates() {
    let sign = |p: &mut CertificateParams| p.key_usages.push(KeyUsagePurpose::KeyCertSign);
    assert_eq!(changed(sign), Err(VerifyError::LeafSignsCertificates));
}

#[test]
fn x509_27_a_leaf_signs_no_revocation_lists() {
    let sign = |p: &mut CertificateParams| p.key_usages.push(KeyUsagePurpose::CrlSign);
    assert_eq!(changed(sign), Err(VerifyError::LeafSignsCrls));
}

#[test]
fn x509_18_a_leaf_may_sign_digitally() {
    let other = |p: &mut CertificateParams| p.key_usages = vec![KeyUsagePurpose::KeyAgreement];
    assert_eq!(changed(other), Err(VerifyError::NoDigitalSignature));
}

#[test]
fn x509_15_a_leaf_states_its_key_usage() {
    assert_eq!(changed(|p| p.key_usages.clear()), Err(VerifyError::NoDigitalSignature));
}

#[test]
fn x509_25_time_counts_at_both_ends() {
    let issuer = issuer("example.org");
    let roots = TrustRoots::new(&[authority(&issuer)]);
    let svid = svid(&issuer, WEB);
    let at = |now| verify_svid(&svid.chain, &roots, &domain("example.org"), now);
    assert_eq!(at(svid.not_after), Ok(id(WEB)));
    assert_eq!(at(svid.not_after + HOUR), Err(VerifyError::Expired));
    assert_eq!(at(svid.not_before - HOUR), Err(VerifyError::NotYetValid));
}

#[test]
fn x509_25_a_changed_certificate_is_refused() {
    let root = Forge::root(ca_params("root"));
    let mut leaf = root.leaf(|_| {});
    let at = leaf.windows(3).position(|w| w == b"web").unwrap();
    leaf[at] = b'W';
    assert!(matches!(verify(&[leaf], &root.roots()), Err(VerifyError::Path(_))));
}

#[test]
fn x509_25_another_authority_with_the_same_name_is_refused() {
    let (root, other) = (Forge::root(ca_params("root")), Forge::root(ca_params("root")));
    assert!(matches!(verify(&[other.leaf(|_| {})], &root.roots()), Err(VerifyError::Path(_))));
}

#[test]
fn x509_25_an_unknown_issuer_is_refused() {
    let (root, other) = (Forge::root(ca_params("root")), Forge::root(ca_params("other")));
    assert_eq!(verify(&[other.leaf(|_| {})], &root.roots()), Err(VerifyError::UnknownIssuer));
}

#[test]
fn x509_25_an_unknown_critical_extension_is_refused() {
    let critical = |p: &mut CertificateParams| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]);
        extension.set_criticality(true);
        p.custom_extensions = vec![extension];
    };
    assert!(matches!(changed(critical), Err(VerifyError::Path(_))));
}

#[test]
fn x509_25_the_path_length_is_obeyed() {
    let mut params = ca_params("root");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let root = Forge::root(params);
    let intermediate = root.below(ca_params("intermediate"));
    let chain = [intermediate.leaf(|_| {}), intermediate.der.clone()];
    assert!(matches!(verify(&chain, &root.roots()), Err(VerifyError::Path(_))));
}

#[test]
fn x509_25_the_path_length_of_an_intermediate_is_obeyed() {
    let root = Forge::root(ca_params("root"));
    let mut params = ca_params("first");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let first = root.below(params);
    let second = first.below(ca_params("second"));
    let chain = [second.leaf(|_| {}), second.der.clone(), first.der.clone()];
    assert!(matches!(verify(&chain, &root.roots()), Err(VerifyError::Path(_))));
}

#[test]
fn x509_11_an_authority_that_is_no_ca_verifies_nothing() {
    for change in [(|p| p.is_ca = IsCa::ExplicitNoCa) as fn(&mut CertificateParams), |p| {
        p.key_usages = vec![KeyUsagePurpose::DigitalSignature]
    }] {
        let mut params = ca_params("root");
        change(&mut params);
        let root = Forge::root(params);
        assert_eq!(root.roots().skipped(), 1);
        let refused = verify(&[root.leaf(|_| {})], &root.roots());
        assert_eq!(refused, Err(VerifyError::NoAuthorities(domain("example.org"))));
    }
}

#[test]
fn a_chain_through_an_intermediate_is_valid() {
    let root = Forge::root(ca_params("root"));
    let intermediate = root.below(ca_params("intermediate"));
    let chain = [intermediate.leaf(|_| {}), intermediate.der.clone()];
    assert_eq!(verify(&chain, &root.roots()), Ok(id(WEB)));
    assert_eq!(verify(&chain[..1], &root.roots()), Err(VerifyError::UnknownIssuer));
}

#[test]
fn x509_11_an_intermediate_is_a_ca() {
    let root = Forge::root(ca_params("root"));
    let mut params = ca_params("intermediate");
    params.is_ca = IsCa::ExplicitNoCa;
    let intermediate = root.below(params);
    let chain = [intermediate.leaf(|_| {}), intermediate.der.clone()];
    assert_eq!(verify(&chain, &root.roots()), Err(VerifyError::IntermediateNotCa(1)));
}

#[test]
fn x509_17_an_intermediate_may_sign_certificates() {
    let root = Forge::root(ca_params("root"));
    let mut params = ca_params("intermediate");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let intermediate = root.below(params);
    let chain = [intermediate.leaf(|_| {}), intermediate.der.clone()];
    assert_eq!(verify(&chain, &root.roots()), Err(VerifyError::IntermediateKeyUsage(1)));
}

#[test]
fn x509_30_an_svid_of_another_trust_domain_is_refused() {
    let issuer = issuer("other.org");
    let roots = TrustRoots::new(&[authority(&issuer)]);
    let svid = svid(&issuer, "spiffe://other.org/a");
    let refused = verify_svid(&svid.chain, &roots, &domain("example.org"), NOW);
    assert_eq!(refused, Err(VerifyError::TrustDomain(domain("other.org"), domain("example.org"))));
}

#[test]
fn x509_39_without_authorities_every_svid_is_invalid() {
    let svid = svid(&issuer("example.org"), WEB);
    let refused = verify_svid(&svid.chain, &TrustRoots::default(), &domain("example.org"), NOW);
    assert_eq!(refused, Err(VerifyError::NoAuthorities(domain("example.org"))));
}

#[test]
fn an_authority_past_its_end_verifies_nothing() {
    let mut params = ca_params("root");
    params.not_after = OffsetDateTime::from_unix_timestamp(NOW.secs() - 1).unwrap();
    let root = Forge::root(params);
    let refused = verify(&[root.leaf(|_| {})], &root.roots());
    assert_eq!(refused, Err(VerifyError::NoAuthorities(domain("example.org"))));
}

#[test]
fn an_authority_that_cannot_be_read_is_left_out() {
    let issuer = issuer("example.org");
    let junk = X509Authority { der: [1, 2, 3].as_slice().into(), tainted: false };
    let roots = TrustRoots::new(&[junk, authority(&issuer)]);
    assert_eq!(roots.skipped(), 1);
    assert!(verify_svid(&svid(&issuer, WEB).chain, &roots, &domain("example.org"), NOW).is_ok());
}

#[test]
fn a_chain_has_a_sane_length() {
    let root = Forge::root(ca_params("root"));
    let mut chain = vec![root.leaf(|_| {})];
    chain.resize(CHAIN_MAX + 1, root.der.clone());
    assert_eq!(verify(&chain, &root.roots()), Err(VerifyError::ChainTooLong(CHAIN_MAX + 1)));
    assert_eq!(verify(&[], &root.roots()), Err(VerifyError::Empty));
}

#[test]
fn bytes_behind_a_certificate_are_refused() {
    let root = Forge::root(ca_params("root"));
    let mut leaf = root.leaf(|_| {});
    leaf.push(0);
    assert_eq!(verify(&[leaf], &root.roots()), Err(VerifyError::Malformed(0, FactsError::Trailing)));
}

#[test]
fn extended_key_usage_is_judged_for_tls_only_where_present() {
    use rcgen::ExtendedKeyUsagePurpose::ServerAuth;
    let root = Forge::root(ca_params("root"));
    let path = |leaf: Vec<u8>, purpose| {
        verify_path(&leaf.into(), &[], &id(WEB), &root.roots(), purpose, NOW).is_ok()
    };
    let servers_only = || root.leaf(|p| p.extended_key_usages = vec![ServerAuth]);
    assert!(path(servers_only(), Purpose::Any) && path(servers_only(), Purpose::ServerAuth));
    assert!(!path(servers_only(), Purpose::ClientAuth));
    assert!(path(root.leaf(|_| {}), Purpose::ClientAuth));
}
