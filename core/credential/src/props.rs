//! What holds for any bytes: readers never panic, and what was changed after signing is never believed.

use std::sync::{Arc, LazyLock};

use avouch_domain::{Bundle, JwtAuthority, KeyType, SpiffeId};
use proptest::prelude::*;

use crate::bundle_doc;
use crate::fixtures::{HOUR, NOW, bundle, domain, id, issuer, key};
use crate::jwt::issue::{JwtIssuer, JwtTemplate};
use crate::jwt::verify::{JwtKeys, peek, verify};
use crate::key::{PrivateKey, PublicKey};
use crate::x509::csr::{Csr, CsrTemplate, build};
use crate::x509::facts::{CertFacts, authority_id, split};
use crate::x509::issue::{Issuer, LeafTemplate};
use crate::x509::name::Name;
use crate::x509::pem;
use crate::x509::verify::{TrustRoots, svid_id, verify_svid};

const WEB: &str = "spiffe://example.org/web";

/// One valid paper of each kind, made once: the properties change them.
struct Papers {
    issuer: Issuer,
    roots: TrustRoots,
    leaf: Vec<u8>,
    csr: Vec<u8>,
    token: String,
    keys: JwtKeys,
    key: Arc<PrivateKey>,
}

static PAPERS: LazyLock<Papers> = LazyLock::new(|| {
    let (issuer, key) = (issuer("example.org"), Arc::new(key(KeyType::EcP256)));
    let subject = Name::svid_default();
    let template = LeafTemplate {
        id: &id(WEB),
        public_key: key.public_key(),
        dns_names: &["web.example.org".into()],
        subject: &subject,
        serial: [7; 16],
        now: NOW,
        ttl: HOUR,
    };
    let leaf = issuer.leaf(&template).unwrap().der;
    let request = CsrTemplate { subject: &subject, id: Some(&id(WEB)), dns_names: &["a.b".into()] };
    let csr = build(&request, &*key).unwrap();
    let mut own = Bundle::empty(domain("example.org"));
    own.jwt_authorities.push(JwtAuthority {
        key_id: "K".into(),
        public_key: key.public_key().pkix().into(),
        expires_at: None,
        tainted: false,
    });
    let signer = JwtIssuer::new("K", key.clone(), NOW + HOUR).unwrap();
    let (name, audience) = (id(WEB), ["x".to_owned()]);
    let template =
        JwtTemplate { id: &name, audience: &audience, issuer: None, jti: None, now: NOW, ttl: HOUR };
    let token = signer.sign(&template).unwrap().token.to_string();
    let roots = TrustRoots::new(&bundle(&[&issuer]).x509_authorities);
    Papers { roots, leaf, csr, token, keys: JwtKeys::new([&own]), key, issuer }
});

/// Every reader of bytes that strangers send.
fn read_everything(bytes: &[u8]) {
    let _ = (Csr::parse(bytes).map(|csr| (csr.verify(), csr.names())), CertFacts::parse(bytes), split(bytes));
    let _ = (Name::from_der(bytes).map(|n| n.text()), PublicKey::from_pkix(bytes), authority_id(bytes));
    let _ = (PrivateKey::from_pkcs8(bytes).is_ok(), svid_id(bytes), pem::certificates(bytes));
    let _ = (pem::private_key(bytes), bundle_doc::parse(&domain("example.org"), bytes));
    let _ = verify_svid(&[bytes], &PAPERS.roots, &domain("example.org"), NOW);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (peek(text), verify(text, &PAPERS.keys, &["x".into()], NOW));
    }
}

fn flip(bytes: &[u8], at: prop::sample::Index, bit: u8) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    changed[at.index(bytes.len())] ^= 1 << bit;
    changed
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_everything(&bytes);
    }

    /// Bytes that begin well get further into the readers than noise does.
    #[test]
    fn no_damage_makes_a_reader_panic(
        which in 0..5usize,
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        keep in any::<prop::sample::Index>(),
    ) {
        let pkcs8 = PAPERS.key.pkcs8();
        let papers: [&[u8]; 5] =
            [&PAPERS.leaf, &PAPERS.csr, PAPERS.token.as_bytes(), PAPERS.issuer.ca_der(), &pkcs8];
        let mut bytes = papers[which].to_vec();
        for (at, value) in cuts {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        read_everything(&bytes);
        bytes.truncate(keep.index(bytes.len()));
        read_everything(&bytes);
    }

    #[test]
    fn id_27_a_certificate_changed_in_any_bit_is_refused(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let domain = domain("example.org");
        prop_assert!(verify_svid(&[&PAPERS.leaf], &PAPERS.roots, &domain, NOW).is_ok());
        prop_assert!(verify_svid(&[flip(&PAPERS.leaf, at, bit)], &PAPERS.roots, &domain, NOW).is_err());
    }

    #[test]
    fn a_request_changed_in_any_bit_is_refused(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let accepted = |bytes: &[u8]| Csr::parse(bytes).and_then(|csr| csr.verify()).is_ok();
        prop_assert!(accepted(&PAPERS.csr));
        prop_assert!(!accepted(&flip(&PAPERS.csr, at, bit)));
    }

    #[test]
    fn id_27_a_token_changed_in_any_character_is_refused(at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_.-]") {
        let accepted = |token: &str| verify(token, &PAPERS.keys, &["x".into()], NOW).is_ok();
        prop_assert!(accepted(&PAPERS.token));
        let mut changed = PAPERS.token.clone();
        let at = at.index(changed.len());
        changed.replace_range(at..=at, &with);
        prop_assert_eq!(accepted(&changed), changed == PAPERS.token);
    }

    #[test]
    fn what_is_issued_says_what_was_asked_and_verifies(
        path in "(/[A-Za-z0-9._-]{1,20}[a-z]){1,4}",
        dns_names in prop::collection::btree_set("[a-z][a-z0-9]{0,8}(\\.[a-z0-9]{1,8}){0,3}", 0..4),
        serial in any::<[u8; 16]>(),
        minutes in 1..200u64,
    ) {
        let name = SpiffeId::parse(&format!("spiffe://example.org{path}")).unwrap();
        let dns_names: Vec<_> = dns_names.into_iter().collect();
        let subject = Name::svid_default();
        let ttl = std::time::Duration::from_secs(60 * minutes);
        let template = LeafTemplate {
            id: &name,
            public_key: PAPERS.key.public_key(),
            dns_names: &dns_names,
            subject: &subject,
            serial,
            now: NOW,
            ttl,
        };
        let leaf = PAPERS.issuer.leaf(&template).unwrap();
        let facts = CertFacts::parse(&leaf.der).unwrap();
        prop_assert_eq!(&facts.uri_sans, &[name.to_string()]);
        prop_assert_eq!(facts.common_name.as_ref(), dns_names.first());
        prop_assert_eq!(&facts.dns_sans, &dns_names);
        prop_assert_eq!(&facts.serial_decimal, &leaf.serial_decimal());
        prop_assert_eq!((facts.not_before, facts.not_after), (leaf.not_before, leaf.not_after));
        prop_assert!(facts.not_after <= NOW + ttl && facts.not_before <= NOW);
        let verified = verify_svid(&[leaf.der], &PAPERS.roots, &domain("example.org"), NOW);
        prop_assert_eq!(verified, Ok(name));
    }
}
