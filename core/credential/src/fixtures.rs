//! Authorities, SVIDs and bundles for this crate's tests. Never used outside them.

use std::sync::Arc;
use std::time::Duration;

use avouch_domain::{Bundle, KeyType, SpiffeId, Timestamp, TrustDomain, X509Authority, X509Svid};

use crate::key::PrivateKey;
use crate::random;
use crate::x509::issue::{CaTemplate, Issuer, LeafTemplate, self_signed_ca};
use crate::x509::name::Name;

/// Noon of 2026-11-24, with a fraction that has to be cut.
pub(crate) const NOW: Timestamp = Timestamp(1_795_521_600_789);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn domain(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

pub(crate) fn key(key_type: KeyType) -> PrivateKey {
    PrivateKey::generate(key_type).unwrap()
}

/// A CA of this trust domain that lives a day from `now`.
pub(crate) fn issuer_at(trust_domain: &str, key_type: KeyType, now: Timestamp) -> Issuer {
    let signer = Arc::new(key(key_type));
    let subject = Name::ca_default();
    let template = CaTemplate {
        trust_domain: &domain(trust_domain),
        subject: &subject,
        serial: random::serial().unwrap(),
        now,
        ttl: HOUR * 24,
    };
    let ca = self_signed_ca(&template, &*signer).unwrap();
    Issuer::new(&ca.der, signer).unwrap()
}

pub(crate) fn issuer(trust_domain: &str) -> Issuer {
    issuer_at(trust_domain, KeyType::EcP256, NOW)
}

/// An SVID of one hour from `now`.
pub(crate) fn svid_at(issuer: &Issuer, spiffe_id: &str, now: Timestamp) -> X509Svid {
    let key = key(KeyType::EcP256);
    let subject = Name::svid_default();
    let template = LeafTemplate {
        id: &id(spiffe_id),
        public_key: key.public_key(),
        dns_names: &[],
        subject: &subject,
        serial: random::serial().unwrap(),
        now,
        ttl: HOUR,
    };
    let leaf = issuer.leaf(&template).unwrap();
    X509Svid {
        id: id(spiffe_id),
        chain: [leaf.der.into()].into(),
        key: Arc::new(key.pkcs8()),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
    }
}

pub(crate) fn svid(issuer: &Issuer, spiffe_id: &str) -> X509Svid {
    svid_at(issuer, spiffe_id, NOW)
}

pub(crate) fn authority(issuer: &Issuer) -> X509Authority {
    X509Authority { der: issuer.ca_der().clone(), tainted: false }
}

/// The bundle with these issuers' certificates.
pub(crate) fn bundle(issuers: &[&Issuer]) -> Bundle {
    let mut bundle = Bundle::empty(issuers[0].trust_domain().clone());
    bundle.x509_authorities = issuers.iter().map(|i| authority(i)).collect();
    bundle
}
