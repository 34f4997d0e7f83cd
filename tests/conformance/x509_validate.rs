//! X509-SVID, the validator's rules: forged certificates, signed by the server's own authority, at its TLS door and
//! in the library that both daemons verify with.

use avouch_credential::x509::facts::check_authority;
use avouch_credential::x509::verify::{TrustRoots, verify_svid};
use avouch_domain::{Timestamp, fixtures};
use avouch_proto::bundle_v1;
use avouch_proto::bundle_v1::bundle_client::BundleClient;
use avouch_tests::forge::{Authority, Leaf, now, uri};
use avouch_tests::{Server, World, conforms, mtls, within};
use rcgen::{BasicConstraints, CustomExtension, IsCa, KeyUsagePurpose};

/// Trust roots from DER certificates.
pub fn roots(authorities: &[&[u8]]) -> TrustRoots {
    let list: Vec<_> = authorities.iter().map(|der| check_authority(der).unwrap()).collect();
    TrustRoots::new(&list)
}

/// True if a client with this certificate gets through the server's TLS to a call that is open to all.
pub async fn server_takes(server: &Server, chain: &[Vec<u8>], key: &[u8]) -> bool {
    let Ok((channel, _)) = mtls::channel(server.address(), chain, key).await else { return false };
    let call = async { BundleClient::new(channel).get_bundle(bundle_v1::GetBundleRequest::default()).await };
    within("the server's answer or refusal", call).await.is_ok()
}

/// The authority of a running server, with its key.
pub async fn authority_of(server: &Server) -> Authority {
    Authority::from_parts(&server.bundle().await.x509_authorities[0].asn1, &server.key("x509-CA-A"))
}

/// Both judges refuse; and both take a leaf without the fault, else the refusal proves nothing.
async fn refused(world: &World, fault: &str, authority: &Authority, chain: &[Vec<u8>], key: &[u8]) {
    let roots = roots(&[&authority_root(world).await]);
    let at = Timestamp::from_secs(now());
    let good = authority.leaf("spiffe://example.org/good");
    if authority.der == authority_root(world).await {
        assert!(verify_svid(&[&good.der], &roots, &fixtures::domain(), at).is_ok(), "the good leaf");
        assert!(server_takes(&world.server, &[good.der], &good.key).await, "the good leaf");
    }
    assert!(verify_svid(chain, &roots, &fixtures::domain(), at).is_err(), "library: {fault}");
    assert!(!server_takes(&world.server, chain, key).await, "server: {fault}");
}

async fn authority_root(world: &World) -> Vec<u8> {
    world.server.bundle().await.x509_authorities[0].asn1.clone()
}

async fn leaf_refused(fault: &str, make: impl FnOnce(&Authority) -> Leaf) {
    let world = World::shared().await;
    let authority = authority_of(&world.server).await;
    let leaf = make(&authority);
    refused(&world, fault, &authority, &[leaf.der], &leaf.key).await;
}

const GOOD: &str = "spiffe://example.org/forged";

#[tokio::test]
async fn a_second_uri_name_of_any_kind_is_refused() {
    conforms!("X509-02");
    for extra in ["https://example.org/x", "spiffe://example.org/other"] {
        leaf_refused(extra, |a| a.leaf_with(GOOD, |p| p.subject_alt_names.push(uri(extra)))).await;
    }
}

#[tokio::test]
async fn a_certificate_without_a_uri_name_is_no_svid() {
    conforms!("X509-03");
    leaf_refused("DNS name only", |a| {
        a.leaf_with(GOOD, |p| {
            p.subject_alt_names = vec![rcgen::SanType::DnsName("x.org".try_into().unwrap())]
        })
    })
    .await;
}

#[tokio::test]
async fn a_leaf_without_a_path_is_refused() {
    conforms!("X509-05", "X509-29");
    leaf_refused("no path", |a| a.leaf("spiffe://example.org")).await;
}

#[tokio::test]
async fn a_uri_name_of_another_scheme_is_refused() {
    conforms!("X509-28");
    leaf_refused("https", |a| a.leaf("https://example.org/a")).await;
}

#[tokio::test]
async fn an_authority_does_not_authenticate_a_peer() {
    conforms!("X509-10");
    let world = World::shared().await;
    let authority = authority_of(&world.server).await;
    let chain = std::slice::from_ref(&authority.der);
    refused(&world, "the authority itself", &authority, chain, &authority.key).await;
}

#[tokio::test]
async fn a_leaf_that_says_it_is_an_authority_is_refused() {
    conforms!("X509-26");
    leaf_refused("cA", |a| a.leaf_with(GOOD, |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))).await;
}

#[tokio::test]
async fn a_leaf_that_may_sign_certificates_or_lists_is_refused() {
    conforms!("X509-27");
    for usage in [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign] {
        leaf_refused("usage", |a| a.leaf_with(GOOD, |p| p.key_usages.push(usage))).await;
    }
}

#[tokio::test]
async fn a_certificate_outside_its_time_is_refused() {
    conforms!("X509-25");
    leaf_refused("expired", |a| a.leaf_with(GOOD, |p| p.not_after = rcgen::date_time_ymd(2020, 1, 1))).await;
    leaf_refused("not yet valid", |a| a.leaf_with(GOOD, |p| p.not_before = rcgen::date_time_ymd(3000, 1, 1)))
        .await;
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    conforms!("X509-25");
    let stranger = Authority::fresh("spiffe://example.org");
    let leaf = stranger.leaf(GOOD);
    let world = World::shared().await;
    refused(&world, "unknown authority", &stranger, &[leaf.der], &leaf.key).await;
}

#[tokio::test]
async fn a_broken_signature_is_refused() {
    conforms!("X509-25");
    leaf_refused("signature", |a| {
        let mut leaf = a.leaf(GOOD);
        *leaf.der.last_mut().unwrap() ^= 1;
        leaf
    })
    .await;
}

#[tokio::test]
async fn an_unknown_critical_extension_is_refused() {
    conforms!("X509-25");
    leaf_refused("critical extension", |a| {
        a.leaf_with(GOOD, |p| {
            let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
            extension.set_criticality(true);
            p.custom_extensions.push(extension);
        })
    })
    .await;
}

#[tokio::test]
async fn a_path_longer_than_allowed_is_refused() {
    conforms!("X509-25");
    let top = Authority::fresh_with("spiffe://example.org", |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0))
    });
    let middle = top.below(|_| {});
    let leaf = middle.leaf(GOOD);
    let at = Timestamp::from_secs(now());
    let chain = [leaf.der, middle.der];
    assert!(verify_svid(&chain, &roots(&[&top.der]), &fixtures::domain(), at).is_err());
    let open = Authority::fresh("spiffe://example.org");
    let middle = open.below(|_| {});
    let leaf = middle.leaf(GOOD);
    assert!(verify_svid(&[leaf.der, middle.der], &roots(&[&open.der]), &fixtures::domain(), at).is_ok());
}

#[tokio::test]
async fn without_authorities_no_certificate_is_valid() {
    conforms!("X509-39");
    let leaf = Authority::fresh("spiffe://example.org").leaf(GOOD);
    let at = Timestamp::from_secs(now());
    assert!(verify_svid(&[&leaf.der], &TrustRoots::new(&[]), &fixtures::domain(), at).is_err());
    // The server has no authority of this trust domain at all.
    let world = World::shared().await;
    let stranger = Authority::fresh("spiffe://unknown.org");
    let leaf = stranger.leaf("spiffe://unknown.org/a");
    refused(&world, "a trust domain without bundle", &stranger, &[leaf.der], &leaf.key).await;
}
