//! Changes on the server reach open streams and waiting callers by push.

use avouch_proto::bundle_v1;
use avouch_proto::types;
use avouch_tests::workload::request;
use avouch_tests::world::my_uid;
use avouch_tests::{AgentOptions, ServerOptions, World, entry, within};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

fn ids(answer: &avouch_proto::workload::X509svidResponse) -> Vec<String> {
    answer.svids.iter().map(|s| s.spiffe_id.clone()).collect()
}

#[tokio::test]
async fn an_entry_that_comes_after_the_question_still_answers_it() {
    let options = AgentOptions {
        agent: "experimental {\n no_identity_hold = \"30s\"\n }".into(),
        ..Default::default()
    };
    let world = World::start_with(ServerOptions::default(), options).await;
    let channel = avouch_tests::uds(&world.agent.socket).await.unwrap();
    let mut workload =
        avouch_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient::new(channel.clone());
    let waiting = tokio::spawn(async move {
        let mut stream = workload.fetch_x509svid(request(Default::default())).await?.into_inner();
        stream.message().await
    });
    // One connection keeps its order: once this later call is answered, the agent has the earlier one.
    tokio::task::yield_now().await;
    let asked = HealthCheckRequest::default();
    within("a health check", HealthClient::new(channel).check(asked)).await.unwrap();
    assert!(!waiting.is_finished(), "nothing can have answered yet");
    world.grant("/late").await;
    let answer = within("the held answer", waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(ids(&answer), ["spiffe://example.org/late"]);
}

#[tokio::test]
async fn a_caller_that_stays_unknown_is_refused_after_the_hold() {
    let world = World::start().await;
    let status = world.agent.workload().await.fetch_x509().await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, "no identity issued"));
}

#[tokio::test]
async fn updates_and_deletions_of_entries_reach_the_open_stream() {
    let world = World::start().await;
    let one = world.grant("/one").await;
    let two = world.grant("/two").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    stream.until("both identities", |m| m.svids.len() == 2).await;
    let renamed = types::Entry { dns_names: vec!["new.example.org".into()], hint: "h".into(), ..one };
    let renamed = world.server.update(renamed).await;
    let answer = stream.until("the new hint", |m| m.svids.iter().any(|s| s.hint == "h")).await;
    assert_eq!(answer.svids.len(), 2);
    world.server.delete(&two.id).await;
    stream.until("one identity", |m| ids(m) == ["spiffe://example.org/one"]).await;
    world.server.delete(&renamed.id).await;
    let end = stream.end().await;
    assert_eq!((end.code(), end.message()), (Code::PermissionDenied, "no identity issued"));
}

#[tokio::test]
async fn of_many_changes_in_a_row_the_last_one_is_seen_and_then_nothing_more() {
    const CHANGES: usize = 50;
    let world = World::start().await;
    let mut entry = world.grant("/web").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    stream.next().await.unwrap();
    for n in 1..=CHANGES {
        entry = world.server.update(types::Entry { hint: format!("hint {n}"), ..entry }).await;
    }
    let last = format!("hint {CHANGES}");
    let mut seen = stream.until("the last change", |m| m.svids[0].hint == last).await;
    // What follows is the SVID of the changed entry, and then a stream without news is silent.
    let quiet = std::time::Duration::from_millis(500);
    while let Ok(message) = tokio::time::timeout(quiet, stream.next()).await {
        let message = message.unwrap();
        assert_eq!(message.svids[0].hint, last);
        assert_ne!(message, seen, "a repeat");
        seen = message;
    }
    assert_eq!(world.agent.workload().await.fetch_x509().await.unwrap(), seen);
}

#[tokio::test]
async fn a_federated_bundle_reaches_the_streams_of_its_entries() {
    let world = World::start().await;
    let foreign = avouch_tests::forge::Authority::fresh("spiffe://other.org");
    let mut bundles = world.server.bundles().await;
    let bundle = |authorities: Vec<types::X509Certificate>| types::Bundle {
        trust_domain: "other.org".into(),
        x509_authorities: authorities,
        ..Default::default()
    };
    let certificate = types::X509Certificate { asn1: foreign.der.clone(), tainted: false };
    let set = |bundle| bundle_v1::BatchSetFederatedBundleRequest { bundle: vec![bundle], output_mask: None };
    bundles.batch_set_federated_bundle(set(bundle(vec![certificate]))).await.unwrap();
    let entry = types::Entry {
        federates_with: vec!["other.org".into()],
        ..entry(&world.agent.id, "/fed", &[&my_uid()])
    };
    world.server.create(entry).await;
    let mut workload = world.agent.workload().await;
    let mut svids = workload.x509().await.unwrap();
    let answer = svids.until("the foreign bundle", |m| !m.federated_bundles.is_empty()).await;
    assert_eq!(answer.federated_bundles["spiffe://other.org"], foreign.der);
    let mut stream = workload.x509_bundle_stream().await.unwrap();
    stream.until("both bundles", |m| m.bundles.len() == 2).await;
    let second = avouch_tests::forge::Authority::fresh("spiffe://other.org");
    let certificate = types::X509Certificate { asn1: second.der.clone(), tainted: false };
    bundles.batch_set_federated_bundle(set(bundle(vec![certificate]))).await.unwrap();
    stream.until("the new foreign bundle", |m| m.bundles["spiffe://other.org"] == second.der).await;
}

#[tokio::test]
async fn an_own_authority_added_reaches_bundle_streams() {
    let world = World::start().await;
    world.grant("/web").await;
    let mut stream = world.agent.workload().await.x509_bundle_stream().await.unwrap();
    let before = stream.next().await.unwrap().bundles["spiffe://example.org"].len();
    let extra = avouch_tests::forge::Authority::fresh("spiffe://example.org");
    let request = bundle_v1::AppendBundleRequest {
        x509_authorities: vec![types::X509Certificate { asn1: extra.der.clone(), tainted: false }],
        ..Default::default()
    };
    world.server.bundles().await.append_bundle(request).await.unwrap();
    stream
        .until("the added authority", |m| m.bundles["spiffe://example.org"].len() == before + extra.der.len())
        .await;
}
