//! Issued certificates, read back and compared field by field.

use avouch_domain::KeyType;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::*;
use crate::fixtures::{HOUR, NOW, domain, id, issuer, issuer_at, key};
use crate::random;
use crate::x509::name::Attribute;

/// Extensions as (OID, critical, value in hex), in the order of the certificate.
fn extensions(der: &[u8]) -> Vec<(String, bool, String)> {
    let (_, cert) = X509Certificate::from_der(der).unwrap();
    let read = |e: &x509_parser::prelude::X509Extension<'_>| {
        (e.oid.to_id_string(), e.critical, hex::encode(e.value))
    };
    cert.extensions().iter().map(read).collect()
}

fn template<'a>(spiffe_id: &'a SpiffeId, key: &'a PublicKey, subject: &'a Name) -> LeafTemplate<'a> {
    LeafTemplate {
        id: spiffe_id,
        public_key: key,
        dns_names: &[],
        subject,
        serial: [0x80; 16],
        now: NOW,
        ttl: HOUR,
    }
}

/// A leaf of `issuer` for `spiffe://example.org/web` after `change`.
fn leaf(issuer: &Issuer, change: impl FnOnce(&mut LeafTemplate<'_>)) -> Certificate {
    let (spiffe_id, key, subject) =
        (id("spiffe://example.org/web"), key(KeyType::EcP256), Name::svid_default());
    let mut template = template(&spiffe_id, key.public_key(), &subject);
    change(&mut template);
    issuer.leaf(&template).unwrap()
}

fn ca(subject: &Name) -> (Certificate, PrivateKey) {
    let key = key(KeyType::EcP256);
    let template = CaTemplate {
        trust_domain: &domain("example.org"),
        subject,
        serial: random::serial().unwrap(),
        now: NOW,
        ttl: HOUR * 24,
    };
    (self_signed_ca(&template, &key).unwrap(), key)
}

use crate::key::PrivateKey;

#[test]
fn a_ca_certificate_has_exactly_the_extensions_of_spire() {
    let (ca, key) = ca(&Name::ca_default());
    let ski = hex::encode(key.public_key().ski());
    let san = format!("3016 8614 {}", hex::encode("spiffe://example.org")).replace(' ', "");
    assert_eq!(
        extensions(&ca.der),
        [
            ("2.5.29.15".into(), true, "03020106".into()),
            ("2.5.29.19".into(), true, "30030101ff".into()),
            ("2.5.29.14".into(), false, format!("0414{ski}")),
            ("2.5.29.17".into(), false, san),
        ]
    );
}

#[test]
fn a_leaf_has_exactly_the_extensions_of_spire() {
    let issuer = issuer("example.org");
    let key = key(KeyType::EcP256);
    let leaf = leaf(&issuer, |t| t.public_key = Box::leak(Box::new(key.public_key().clone())));
    let ski = hex::encode(key.public_key().ski());
    let san = format!("301a8618{}", hex::encode("spiffe://example.org/web"));
    assert_eq!(
        extensions(&leaf.der),
        [
            ("2.5.29.15".into(), true, "030203a8".into()),
            ("2.5.29.37".into(), false, "301406082b0601050507030106082b06010505070302".into()),
            ("2.5.29.19".into(), true, "3000".into()),
            ("2.5.29.14".into(), false, format!("0414{ski}")),
            ("2.5.29.35".into(), false, format!("30168014{}", issuer.authority_id())),
            ("2.5.29.17".into(), false, san),
        ]
    );
}

#[test]
fn a_ca_subject_ends_with_the_serial_number_in_decimal() {
    let (ca, _) = ca(&Name::ca_default());
    let facts = CertFacts::parse(&ca.der).unwrap();
    assert_eq!(facts.serial_decimal, ca.serial_decimal());
    assert_eq!(facts.subject_text, format!("SERIALNUMBER={},O=SPIFFE,C=US", ca.serial_decimal()));
    assert!(facts.self_issued);
}

#[test]
fn the_issuer_of_a_leaf_is_byte_for_byte_the_subject_of_the_ca() {
    let organizations = ["b".to_owned(), "a".to_owned(), "ü".to_owned()];
    let subject = Name::new(&[(Attribute::Organization, &organizations)]);
    let (ca, key) = ca(&subject);
    let issuer = Issuer::new(&ca.der, Arc::new(key)).unwrap();
    let leaf = leaf(&issuer, |_| {});
    let (_, ca) = X509Certificate::from_der(&ca.der).unwrap();
    let (_, leaf) = X509Certificate::from_der(&leaf.der).unwrap();
    assert_eq!(leaf.issuer().as_raw(), ca.subject().as_raw());
    assert_eq!(ca.subject().iter_organization().count(), 3);
}

#[test]
fn a_validity_begins_ten_seconds_early_and_has_whole_seconds() {
    let leaf = leaf(&issuer("example.org"), |_| {});
    let facts = CertFacts::parse(&leaf.der).unwrap();
    assert_eq!(facts.not_before.secs(), NOW.secs() - 10);
    assert_eq!(facts.not_after.secs(), NOW.secs() + 3600);
    assert_eq!((facts.not_before, facts.not_after), (leaf.not_before, leaf.not_after));
}

#[test]
fn a_leaf_never_outlives_its_ca() {
    let issuer = issuer("example.org");
    let leaf = leaf(&issuer, |t| t.ttl = Duration::from_secs(2_000_000_000));
    assert_eq!(leaf.not_after, issuer.not_after());
}

#[test]
fn an_expired_ca_issues_nothing() {
    let issuer = issuer("example.org");
    let (spiffe_id, key, subject) =
        (id("spiffe://example.org/web"), key(KeyType::EcP256), Name::svid_default());
    let late = LeafTemplate { now: issuer.not_after(), ..template(&spiffe_id, key.public_key(), &subject) };
    assert_eq!(issuer.leaf(&late), Err(IssueError::CaExpired));
}

#[test]
fn a_ca_may_live_past_2049_and_up_to_9999() {
    for (years, tag) in [(10, 0x17), (30, 0x18)] {
        let key = key(KeyType::EcP256);
        let (domain, subject) = (domain("example.org"), Name::ca_default());
        let ttl = HOUR * 24 * 365 * years;
        let template =
            CaTemplate { trust_domain: &domain, subject: &subject, serial: [1; 16], now: NOW, ttl };
        let ca = self_signed_ca(&template, &key).unwrap();
        let facts = CertFacts::parse(&ca.der).unwrap();
        assert_eq!(facts.not_after.secs(), NOW.secs() + i64::try_from(ttl.as_secs()).unwrap());
        assert_eq!(time_text(facts.not_after).unwrap().0, tag);
    }
    assert_eq!(Validity::new(NOW, Timestamp::MAX).not_after, Validity::LAST);
}

#[test]
fn dns_names_stand_in_order_before_the_uri_and_the_first_is_the_common_name() {
    let names = ["*.z.org".to_owned(), "a.org".to_owned()];
    let leaf = leaf(&issuer("example.org"), |t| t.dns_names = Box::leak(Box::new(names.clone())));
    let facts = CertFacts::parse(&leaf.der).unwrap();
    assert_eq!(facts.dns_sans, names);
    assert_eq!(facts.uri_sans, ["spiffe://example.org/web"]);
    assert_eq!(facts.subject_text, "CN=*.z.org,O=SPIRE,C=US");
    let (_, san) =
        extensions(&leaf.der).into_iter().find(|e| e.0 == "2.5.29.17").map(|e| (e.1, e.2)).unwrap();
    assert!(san.find(&hex::encode("a.org")) < san.find(&hex::encode("spiffe://")));
}

#[test]
fn an_empty_subject_makes_the_san_critical() {
    let empty = Name::new(&[]);
    let (spiffe_id, key) = (id("spiffe://example.org/web"), key(KeyType::EcP256));
    let leaf = issuer("example.org").leaf(&template(&spiffe_id, key.public_key(), &empty)).unwrap();
    assert!(extensions(&leaf.der).iter().any(|e| e.0 == "2.5.29.17" && e.1));
}

#[test]
fn a_serial_with_its_top_bit_set_stays_positive() {
    let leaf = leaf(&issuer("example.org"), |_| {});
    let (_, cert) = X509Certificate::from_der(&leaf.der).unwrap();
    assert_eq!(cert.raw_serial(), [[0].as_slice(), &[0x80; 16]].concat());
    assert_eq!(CertFacts::parse(&leaf.der).unwrap().serial_decimal, leaf.serial_decimal());
}

#[test]
fn the_key_of_the_ca_decides_the_signature_algorithm() {
    for (key_type, oid) in [
        (KeyType::EcP256, "1.2.840.10045.4.3.2"),
        (KeyType::EcP384, "1.2.840.10045.4.3.3"),
        (KeyType::Rsa2048, "1.2.840.113549.1.1.11"),
    ] {
        let issuer = issuer_at("example.org", key_type, NOW);
        let leaf = leaf(&issuer, |_| {});
        let (_, ca) = X509Certificate::from_der(issuer.ca_der()).unwrap();
        let (_, cert) = X509Certificate::from_der(&leaf.der).unwrap();
        assert_eq!(cert.signature_algorithm.algorithm.to_id_string(), oid);
        cert.verify_signature(Some(ca.public_key())).unwrap();
        ca.verify_signature(None).unwrap();
    }
}

#[test]
fn a_leaf_for_the_trust_domain_itself_is_refused() {
    let (spiffe_id, key, subject) = (id("spiffe://example.org"), key(KeyType::EcP256), Name::svid_default());
    let refused = issuer("example.org").leaf(&template(&spiffe_id, key.public_key(), &subject));
    assert_eq!(refused, Err(IssueError::RootPath(spiffe_id)));
}

#[test]
fn a_leaf_of_another_trust_domain_is_refused() {
    let (spiffe_id, key, subject) = (id("spiffe://other.org/a"), key(KeyType::EcP256), Name::svid_default());
    let refused = issuer("example.org").leaf(&template(&spiffe_id, key.public_key(), &subject));
    assert!(matches!(refused, Err(IssueError::ForeignTrustDomain { .. })));
}

#[test]
fn a_key_that_is_not_the_cas_makes_no_issuer() {
    let (ca, _) = ca(&Name::ca_default());
    let refused = Issuer::new(&ca.der, Arc::new(key(KeyType::EcP256)));
    assert_eq!(refused.unwrap_err(), IssueError::KeyMismatch);
}

#[test]
fn a_leaf_makes_no_issuer() {
    let key = Arc::new(key(KeyType::EcP256));
    let leaf = leaf(&issuer("example.org"), |t| t.public_key = Box::leak(Box::new(key.public_key().clone())));
    assert!(matches!(Issuer::new(&leaf.der, key), Err(IssueError::NotCa(_))));
}
