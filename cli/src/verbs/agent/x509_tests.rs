//! Tests of the X.509 verbs, with real certificates.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use avouch_credential::key::PrivateKey;
use avouch_credential::random;
use avouch_credential::x509::issue::{CaTemplate, Issuer, LeafTemplate, self_signed_ca};
use avouch_credential::x509::name::Name;
use avouch_domain::{KeyType, TrustDomain};
use avouch_proto::workload::X509svid;

use super::*;

fn reply() -> X509svidResponse {
    let key = Arc::new(PrivateKey::generate(KeyType::EcP256).unwrap());
    let trust_domain = TrustDomain::new("example.org").unwrap();
    let now = clock::now().wall;
    let ca = CaTemplate {
        trust_domain: &trust_domain,
        subject: &Name::ca_default(),
        serial: random::serial().unwrap(),
        now,
        ttl: Duration::from_secs(3600),
    };
    let ca = self_signed_ca(&ca, key.as_ref()).unwrap().der;
    let id: SpiffeId = "spiffe://example.org/web".parse().unwrap();
    let leaf_key = PrivateKey::generate(KeyType::EcP256).unwrap();
    let leaf = LeafTemplate {
        id: &id,
        public_key: leaf_key.public_key(),
        dns_names: &[],
        subject: &Name::svid_default(),
        serial: random::serial().unwrap(),
        now,
        ttl: Duration::from_secs(60),
    };
    let leaf = Issuer::new(&ca, key).unwrap().leaf(&leaf).unwrap();
    let svid = X509svid {
        spiffe_id: id.to_string(),
        x509_svid: leaf.der,
        x509_svid_key: leaf_key.pkcs8().to_vec(),
        bundle: ca.clone(),
        hint: "web".into(),
    };
    let federated_bundles = [("spiffe://other.org".to_owned(), ca)].into();
    X509svidResponse { svids: vec![svid], crl: Vec::new(), federated_bundles }
}

#[test]
fn an_update_reads_as_spire_prints_it() {
    let update = read_update(reply()).unwrap();
    let text = update_text(&update, 2_840_000).unwrap();
    let labels: Vec<_> = text.lines().map(|l| l.split('\t').next().unwrap_or_default()).collect();
    assert_eq!(
        labels,
        [
            "Received 1 svid after 2.84ms",
            "",
            "SPIFFE ID:",
            "Hint:",
            "SVID Valid After:",
            "SVID Valid Until:",
            "CA #1 Valid After:",
            "CA #1 Valid Until:",
            "[spiffe://other.org] CA #1 Valid After:",
            "[spiffe://other.org] CA #1 Valid Until:",
            "",
        ]
    );
    assert!(text.contains("SPIFFE ID:\t\tspiffe://example.org/web\nHint:\t\t\tweb\n"));
    assert!(text.lines().filter(|l| l.contains(" Valid ")).all(|l| l.ends_with(" +0000 UTC")));
}

#[test]
fn an_svid_of_another_bundle_is_refused() {
    let (mut mine, other) = (reply(), reply());
    mine.svids[0].bundle = other.svids[0].bundle.clone();
    let Err(error) = read_update(mine) else { panic!("accepted") };
    assert!(error.to_string().starts_with("X509-SVID does not verify: "), "{error}");
}

#[test]
fn an_svid_that_came_under_another_id_is_refused() {
    let mut reply = reply();
    reply.svids[0].spiffe_id = "spiffe://example.org/db".into();
    assert!(read_update(reply).is_err());
}

#[test]
fn files_are_named_by_number_and_keys_are_the_owners() {
    let update = read_update(reply()).unwrap();
    let folder = std::env::temp_dir().join(format!("avouch-fetch-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let said = write_update(&folder, &update).unwrap();
    let mode = std::fs::metadata(folder.join("svid.0.key")).unwrap().permissions().mode() & 0o777;
    let bundle = std::fs::read(folder.join("bundle.0.pem")).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let d = folder.display();
    assert_eq!(
        said,
        format!(
            "Writing SVID #0 to file {d}/svid.0.pem.\nWriting key #0 to file {d}/svid.0.key.\nWriting bundle #0 to file {d}/bundle.0.pem.\nWriting federated bundle #0 for trust domain spiffe://other.org to file {d}/federated_bundle.0.0.pem.\n"
        )
    );
    assert_eq!(mode, 0o600);
    assert_eq!(pem::certificates(&bundle).unwrap(), update.identities[0].bundle);
}
