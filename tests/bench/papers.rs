//! Rows about issuing: the whole way from a request's bytes to an SVID's bytes.

use std::sync::Arc;
use std::time::Duration;

use avouch_credential::jwt::issue::{JwtIssuer, JwtTemplate};
use avouch_credential::key::PrivateKey;
use avouch_credential::random;
use avouch_credential::x509::csr::{self, Csr, CsrTemplate};
use avouch_credential::x509::issue::{CaTemplate, Issuer, LeafTemplate, self_signed_ca};
use avouch_credential::x509::name::Name;
use avouch_domain::{KeyType, SpiffeId, Timestamp, TrustDomain};

use crate::report::{Bar, Report};
use crate::yardstick::{self, measure};

const HOUR: Duration = Duration::from_secs(3600);
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// Both papers.
pub fn run(report: &Report) {
    report.ratio("X.509-SVID from a CSR", x509_from_csr(), yardstick::floor(), Bar::AtMost(1.25));
    report.ratio("JWT-SVID", jwt(), yardstick::sign(), Bar::AtMost(1.25));
}

/// CSR parsed and verified, leaf built and signed, in microseconds.
fn x509_from_csr() -> f64 {
    let domain = TrustDomain::new("example.org").expect("a name");
    let id = SpiffeId::new(&domain, "/web").expect("an ID");
    let ca_key = Arc::new(PrivateKey::generate(KeyType::EcP256).expect("a key"));
    let template = CaTemplate {
        trust_domain: &domain,
        subject: &Name::ca_default(),
        serial: random::serial().expect("a serial"),
        now: NOW,
        ttl: 24 * HOUR,
    };
    let ca = self_signed_ca(&template, ca_key.as_ref()).expect("a CA");
    let issuer = Issuer::new(&ca.der, ca_key).expect("an issuer");
    let key = PrivateKey::generate(KeyType::EcP256).expect("a key");
    let subject = Name::svid_default();
    let request =
        csr::build(&CsrTemplate { subject: &subject, id: Some(&id), dns_names: &[] }, &key).expect("a CSR");
    measure(|| {
        let csr = Csr::parse(&request).expect("a CSR");
        csr.verify().expect("a true signature");
        let leaf = LeafTemplate {
            id: &id,
            public_key: csr.public_key(),
            dns_names: &[],
            subject: &subject,
            serial: random::serial().expect("a serial"),
            now: NOW,
            ttl: HOUR,
        };
        std::hint::black_box(issuer.leaf(&leaf).expect("a leaf"));
    })
}

/// A JWT-SVID built and signed, in microseconds.
fn jwt() -> f64 {
    let domain = TrustDomain::new("example.org").expect("a name");
    let id = SpiffeId::new(&domain, "/web").expect("an ID");
    let key = Arc::new(PrivateKey::generate(KeyType::EcP256).expect("a key"));
    let issuer = JwtIssuer::new("kid", key, NOW + 24 * HOUR).expect("an issuer");
    let audience = vec!["db".to_owned()];
    measure(|| {
        let template = JwtTemplate {
            id: &id,
            audience: &audience,
            issuer: None,
            jti: None,
            now: NOW,
            ttl: 5 * HOUR / 60,
        };
        std::hint::black_box(issuer.sign(&template).expect("a token"));
    })
}
