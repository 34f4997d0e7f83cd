//! Authorities that hand over while agents and workloads are connected.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use avouch_credential::x509::facts::CertFacts;
use avouch_credential::x509::verify::{TrustRoots, verify_svid};
use avouch_domain::{Timestamp, TrustDomain, X509Authority};
use avouch_proto::workload::X509svid;
use avouch_tests::{AgentOptions, ServerOptions, World, within};

#[allow(clippy::disallowed_methods)] // certificates are verified at the real time
fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    Timestamp(i64::try_from(now).unwrap())
}

/// Splits certificates that stand one after the other.
fn split(mut der: &[u8]) -> Vec<Vec<u8>> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let mut all = Vec::new();
    while !der.is_empty() {
        let (rest, _) = X509Certificate::from_der(der).unwrap();
        all.push(der[..der.len() - rest.len()].to_vec());
        der = rest;
    }
    all
}

/// Verifies an SVID by the roots that came with it; gives the serial number of the one that signed it.
pub fn verified(svid: &X509svid) -> String {
    let roots: Vec<_> = split(&svid.bundle)
        .into_iter()
        .map(|der| X509Authority { der: der.into(), tainted: false })
        .collect();
    let chain: Vec<std::sync::Arc<[u8]>> = split(&svid.x509_svid).into_iter().map(Into::into).collect();
    let wall = now();
    let domain = TrustDomain::new("example.org").unwrap();
    let id = verify_svid(&chain, &TrustRoots::new(&roots), &domain, wall).unwrap();
    assert_eq!(id.as_str(), svid.spiffe_id);
    let signer = roots.iter().find(|root| {
        let root = std::slice::from_ref(*root);
        verify_svid(&chain, &TrustRoots::new(root), &domain, wall).is_ok()
    });
    CertFacts::parse(&signer.unwrap().der).unwrap().serial_decimal
}

#[tokio::test]
async fn svids_go_on_verifying_while_one_authority_hands_over_to_the_next() {
    let server = "ca_ttl = \"9s\"\n default_x509_svid_ttl = \"3s\"\n agent_ttl = \"4s\"";
    let options = ServerOptions { server: server.into(), ..ServerOptions::default() };
    let world = World::start_with(options, AgentOptions::default()).await;
    world.grant("/web").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    let mut signers = BTreeSet::new();
    let all = within("three authorities in use", async {
        while signers.len() < 3 {
            let answer = stream.next().await.unwrap();
            signers.insert(verified(&answer.svids[0]));
        }
    });
    all.await;
    assert!(world.agent.daemon().status().is_none() && world.server.daemon().status().is_none());
}
