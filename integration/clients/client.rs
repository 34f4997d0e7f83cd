//! Drives the Rust `spiffe` crate against the agent at SPIFFE_ENDPOINT_SOCKET; exit 0 = the scenario held.
//!
//! Says "asking" before its first question and "served" after the first answer, for whoever changes the world then.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // all of it is test code

use std::time::Duration;

use spiffe::{JwtSource, TrustDomain, WorkloadApiClient, X509Source};

const ID: &str = "spiffe://example.org/web";
/// The runner has its own, shorter limit; this one only keeps a forgotten process from staying.
const LIMIT: Duration = Duration::from_secs(120);

async fn x509() {
    let client = WorkloadApiClient::connect_env().await.unwrap();
    let context = client.fetch_x509_context().await.unwrap();
    let svid = context.default_svid().unwrap();
    assert_eq!(svid.spiffe_id().to_string(), ID);
    assert!(!svid.cert_chain().is_empty());
    assert_eq!(source().await.svid().unwrap().spiffe_id().to_string(), ID);
}

async fn jwt() {
    let client = WorkloadApiClient::connect_env().await.unwrap();
    let svid = client.fetch_jwt_svid(["db"], None).await.unwrap();
    assert_eq!(svid.spiffe_id().to_string(), ID);
    let checked = client.validate_jwt_token("db", svid.token()).await.unwrap();
    assert_eq!(checked.spiffe_id().to_string(), ID);
    client.validate_jwt_token("other", svid.token()).await.expect_err("another audience");
    let source = JwtSource::new().await.unwrap();
    assert_eq!(source.fetch_jwt_svid(["db"]).await.unwrap().spiffe_id().to_string(), ID);
}

async fn bundles() {
    let domain = TrustDomain::new("example.org").unwrap();
    let client = WorkloadApiClient::connect_env().await.unwrap();
    let x509 = client.fetch_x509_bundles().await.unwrap();
    assert!(!x509.get(&domain).unwrap().authorities().is_empty());
    let jwt = client.fetch_jwt_bundles().await.unwrap();
    assert!(jwt.get(&domain).is_some());
}

async fn source() -> X509Source {
    println!("asking");
    let source = X509Source::new().await.unwrap();
    println!("served");
    source
}

async fn wait() {
    let svid = source().await.svid().unwrap();
    assert_eq!(svid.spiffe_id().to_string(), ID);
}

/// Follows until another SVID has come: over a rotation, or over a restart of the agent and the rotation after it.
async fn follow() {
    let source = source().await;
    let leaf = || source.svid().unwrap().cert_chain().first().unwrap().as_ref().to_vec();
    let first = leaf();
    let mut updates = source.updated();
    while leaf() == first {
        updates.changed().await.unwrap();
    }
    assert_eq!(source.svid().unwrap().spiffe_id().to_string(), ID);
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let scenario = std::env::args().nth(1).unwrap_or_default();
    let run = async {
        match scenario.as_str() {
            "x509" => x509().await,
            "jwt" => jwt().await,
            "bundles" => bundles().await,
            "wait" => wait().await,
            "follow" => follow().await,
            other => panic!("no scenario {other:?}: expected x509, jwt, bundles, wait or follow"),
        }
    };
    tokio::time::timeout(LIMIT, run).await.expect("the scenario ends in time");
}
