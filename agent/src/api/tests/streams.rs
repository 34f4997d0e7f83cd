//! Streams: what is sent, when, in which order, and how they end (conformance 2.4).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use avouch_domain::{Timestamp, X509Authority};
use avouch_proto::workload as wire;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::Channel;

use super::super::answer::{AnswerBook, Kind};
use super::super::conn::connection;
use super::super::route::WorkloadService;
use super::super::shared::Shared;
use super::super::{Stop, WorkloadOptions};
use super::kit::{
    self, SOON, Setup, World, bundle, call, grant, identity, jwt_bundle, next, nothing, own, root, silent,
    state,
};
use super::refused;
use crate::fair::FairShare;
use crate::limits::ANSWER_MAX;
use crate::peer::{Caller, PeerStream};
use crate::supply::Want;

#[tokio::test]
async fn the_first_message_holds_every_identity_in_order_of_entry_ids() {
    let own = own();
    let world = World::new(state(&own, vec![identity("1", "/a", "internal"), identity("2", "/b", "")]));
    let message = next(&mut world.x509().await.unwrap()).await.unwrap();
    let first = &message.svids[0];
    assert_eq!(first.spiffe_id, "spiffe://example.org/a");
    assert_eq!(first.x509_svid, b"leafintermediate");
    assert_eq!(first.x509_svid_key, b"key");
    assert_eq!(first.bundle, own.x509_authorities[0].der.to_vec());
    assert_eq!(first.hint, "internal");
    assert_eq!(message.svids[1].spiffe_id, "spiffe://example.org/b");
    assert!(message.crl.is_empty() && message.federated_bundles.is_empty());
    assert_eq!(world.supply.asked.lock()[0].1, Want::X509);
}

#[tokio::test]
async fn every_new_stream_gets_the_state_an_old_one_has() {
    let world = World::new(state(&own(), vec![identity("1", "/a", "")]));
    let mut old = world.x509().await.unwrap();
    let first = next(&mut old).await.unwrap();
    assert_eq!(next(&mut world.x509().await.unwrap()).await.unwrap(), first);
}

#[tokio::test]
async fn a_state_that_says_nothing_new_is_not_sent() {
    let own = own();
    let world = World::new(state(&own, vec![identity("1", "/a", "")]));
    let mut stream = world.x509().await.unwrap();
    next(&mut stream).await.unwrap();
    world.supply.set(state(&own, vec![identity("1", "/a", "")]));
    assert!(silent(&mut stream).await, "a repeat");
    world.supply.set(state(&own, vec![identity("1", "/a", "new hint")]));
    assert_eq!(next(&mut stream).await.unwrap().svids[0].hint, "new hint");
}

#[tokio::test]
async fn a_removed_identity_is_missing_from_the_next_message() {
    let own = own();
    let world = World::new(state(&own, vec![identity("1", "/a", ""), identity("2", "/b", "")]));
    let mut stream = world.x509().await.unwrap();
    assert_eq!(next(&mut stream).await.unwrap().svids.len(), 2);
    world.supply.set(state(&own, vec![identity("2", "/b", "")]));
    assert_eq!(next(&mut stream).await.unwrap().svids[0].spiffe_id, "spiffe://example.org/b");
}

#[tokio::test]
async fn with_the_last_identity_every_stream_ends_denied() {
    let own = own();
    let world = World::new(state(&own, vec![identity("1", "/a", "")]));
    let mut client = world.client().await;
    let mut svids = world.x509().await.unwrap();
    let mut bundles =
        client.fetch_x509_bundles(call(wire::X509BundlesRequest {})).await.unwrap().into_inner();
    let mut keys = client.fetch_jwt_bundles(call(wire::JwtBundlesRequest {})).await.unwrap().into_inner();
    next(&mut svids).await.unwrap();
    next(&mut bundles).await.unwrap();
    next(&mut keys).await.unwrap();
    world.supply.set(nothing(&own));
    let denied = (Code::PermissionDenied, "no identity issued".to_owned());
    assert_eq!(refused(next(&mut svids).await), denied);
    assert_eq!(refused(next(&mut bundles).await), denied);
    assert_eq!(refused(next(&mut keys).await), denied);
}

#[tokio::test]
async fn a_stopping_agent_ends_streams_with_unavailable() {
    let world = World::new(state(&own(), vec![identity("1", "/a", "")]));
    let mut stream = world.x509().await.unwrap();
    next(&mut stream).await.unwrap();
    world.stop.cancel();
    assert_eq!(refused(next(&mut stream).await), (Code::Unavailable, "the agent is stopping".into()));
}

#[tokio::test]
async fn an_entitled_caller_waits_for_its_first_svid() {
    let own = own();
    let mut unsigned = nothing(&own);
    unsigned.matched = 1;
    let world = World::new(unsigned);
    let client = world.client().await;
    let mut both = client.clone();
    // Bundles never wait for SVIDs.
    let mut bundles = both.fetch_x509_bundles(call(wire::X509BundlesRequest {})).await.unwrap().into_inner();
    next(&mut bundles).await.unwrap();
    let mut stream = world.x509().await.unwrap();
    assert!(silent(&mut stream).await, "nothing is there to send, but nothing is denied");
    world.supply.set(state(&own, vec![identity("1", "/a", "")]));
    assert_eq!(next(&mut stream).await.unwrap().svids.len(), 1);
}

#[tokio::test]
async fn a_first_message_waits_for_identities_that_are_being_signed() {
    let own = own();
    let mut half = state(&own, vec![identity("2", "/b", "")]);
    (half.matched, half.waiting) = (2, 1);
    let world = World::new(half);
    let mut stream = world.x509().await.unwrap();
    assert!(silent(&mut stream).await, "the default identity is not there yet");
    world.supply.set(state(&own, vec![identity("1", "/a", ""), identity("2", "/b", "")]));
    let message = next(&mut stream).await.unwrap();
    assert_eq!(message.svids[0].spiffe_id, "spiffe://example.org/a");
    assert_eq!(message.svids.len(), 2);
}

#[tokio::test]
async fn a_first_message_waits_for_a_slow_signature_only_so_long() {
    let mut half = state(&own(), vec![identity("2", "/b", "")]);
    (half.matched, half.waiting) = (2, 1);
    let world = World::new(half);
    let message = next(&mut world.x509().await.unwrap()).await.unwrap();
    assert_eq!(message.svids[0].spiffe_id, "spiffe://example.org/b");
}

#[tokio::test]
async fn an_open_stream_does_not_wait_for_an_identity_that_is_added() {
    let own = own();
    let world = World::new(state(&own, vec![identity("2", "/b", "")]));
    let mut stream = world.x509().await.unwrap();
    next(&mut stream).await.unwrap();
    let mut more = state(&own, vec![identity("2", "/b", "changed")]);
    (more.matched, more.waiting) = (2, 1);
    world.supply.set(more);
    assert_eq!(next(&mut stream).await.unwrap().svids[0].hint, "changed");
}

fn holding(push: bool) -> Setup {
    let options = WorkloadOptions { no_identity_hold: SOON * 6, ..WorkloadOptions::default() };
    Setup { push, options, ..Setup::default() }
}

#[tokio::test]
async fn a_caller_without_entry_is_held_and_served_when_the_entry_comes() {
    let own = own();
    let world = World::with(nothing(&own), holding(true));
    let supply = world.supply.clone();
    let granting = async {
        while supply.asked.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        supply.set(state(&own, vec![identity("1", "/a", "")]));
    };
    let (stream, ()) = tokio::join!(world.x509(), granting);
    assert_eq!(next(&mut stream.unwrap()).await.unwrap().svids.len(), 1);
}

#[tokio::test]
async fn nobody_is_held_while_the_server_does_not_push() {
    let world = World::with(nothing(&own()), holding(false));
    let answer = tokio::time::timeout(SOON, world.x509()).await.expect("an answer at once");
    assert_eq!(refused(answer).0, Code::PermissionDenied);
}

#[tokio::test]
async fn a_hold_that_brings_nothing_ends_denied() {
    let options = WorkloadOptions {
        no_identity_hold: std::time::Duration::from_millis(30),
        ..WorkloadOptions::default()
    };
    let world = World::with(nothing(&own()), Setup { options, ..Setup::default() });
    assert_eq!(refused(world.x509().await), (Code::PermissionDenied, "no identity issued".into()));
}

#[tokio::test]
async fn a_caller_without_entry_is_sent_to_come_again_until_the_server_has_been_heard() {
    let options = WorkloadOptions {
        no_identity_hold: std::time::Duration::from_millis(30),
        ..WorkloadOptions::default()
    };
    let world = World::with(nothing(&own()), Setup { push: false, options, ..Setup::default() });
    world.supply.synced.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(refused(world.x509().await).0, Code::Unavailable, "it may have an entry by now");
    world.supply.synced.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(refused(world.x509().await).0, Code::PermissionDenied);
}

#[tokio::test]
async fn a_held_caller_of_a_stopping_agent_gets_unavailable() {
    let world = World::with(nothing(&own()), holding(true));
    let supply = world.supply.clone();
    let stop = world.stop.clone();
    let stopping = async {
        while supply.asked.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (answer, ()) = tokio::join!(world.x509(), stopping);
    assert_eq!(refused(answer).0, Code::Unavailable);
}

#[tokio::test]
async fn of_identities_with_one_hint_the_oldest_entry_wins() {
    let own = own();
    let mut younger = identity("1", "/a", "internal");
    younger.created_at = Timestamp(9);
    let world =
        World::new(state(&own, vec![younger, identity("2", "/b", "internal"), identity("3", "/c", "")]));
    let message = next(&mut world.x509().await.unwrap()).await.unwrap();
    let ids: Vec<_> = message.svids.iter().map(|s| s.spiffe_id.as_str()).collect();
    assert_eq!(ids, ["spiffe://example.org/b", "spiffe://example.org/c"]);
}

#[tokio::test]
async fn foreign_bundles_are_keyed_by_id_and_empty_ones_left_out() {
    let own = own();
    let mut seen = state(&own, vec![identity("1", "/a", "")]);
    let (foreign, _) = jwt_bundle("other.org");
    let mut empty = bundle("empty.org");
    empty.x509_authorities.clear();
    seen.federated = vec![Arc::new(empty), own.clone(), Arc::new(foreign.clone())];
    let world = World::new(seen);
    let message = next(&mut world.x509().await.unwrap()).await.unwrap();
    let keys: Vec<_> = message.federated_bundles.keys().map(String::as_str).collect();
    assert_eq!(keys, ["spiffe://other.org"]);
    assert_eq!(message.federated_bundles["spiffe://other.org"], foreign.x509_authorities[0].der.to_vec());

    let mut client = world.client().await;
    let mut bundles =
        client.fetch_x509_bundles(call(wire::X509BundlesRequest {})).await.unwrap().into_inner();
    let bundles = next(&mut bundles).await.unwrap().bundles;
    assert_eq!(bundles.keys().collect::<Vec<_>>(), ["spiffe://example.org", "spiffe://other.org"]);

    let mut keys = client.fetch_jwt_bundles(call(wire::JwtBundlesRequest {})).await.unwrap().into_inner();
    let keys = next(&mut keys).await.unwrap().bundles;
    let foreign: serde_json::Value = serde_json::from_slice(&keys["spiffe://other.org"]).unwrap();
    assert_eq!(foreign["keys"][0]["kid"], "kid-1");
    assert!(foreign["keys"][0].get("use").is_none(), "no use, as the Workload API has it");
    let own: serde_json::Value = serde_json::from_slice(&keys["spiffe://example.org"]).unwrap();
    assert_eq!(own["keys"], serde_json::json!([]));
}

#[tokio::test]
async fn an_unusable_foreign_authority_spoils_nothing() {
    let own = own();
    let mut seen = state(&own, vec![identity("1", "/a", "")]);
    let mut foreign = bundle("other.org");
    let good = foreign.x509_authorities[0].der.to_vec();
    foreign.x509_authorities.push(X509Authority { der: Arc::from(&b"rubbish"[..]), tainted: false });
    seen.federated = vec![Arc::new(foreign)];
    let world = World::new(seen);
    let message = next(&mut world.x509().await.unwrap()).await.unwrap();
    assert_eq!(message.federated_bundles["spiffe://other.org"], good);
}

#[tokio::test]
async fn verifiers_without_identity_get_the_own_bundle_if_the_operator_allows() {
    let options = WorkloadOptions {
        allow_unauthenticated_verifiers: true,
        no_identity_hold: SOON * 6,
        ..WorkloadOptions::default()
    };
    let own = own();
    let world = World::with(nothing(&own), Setup { options, ..Setup::default() });
    let mut client = world.client().await;
    let mut stream = client.fetch_x509_bundles(call(wire::X509BundlesRequest {})).await.unwrap().into_inner();
    let message = next(&mut stream).await.unwrap();
    assert_eq!(message.bundles.keys().collect::<Vec<_>>(), ["spiffe://example.org"]);
    assert!(world.supply.asked.lock().iter().all(|(_, want)| *want == Want::Bundles));
}

#[test]
fn one_encoding_serves_every_stream_and_goes_with_its_state() {
    let book = AnswerBook::default();
    let update = Arc::new(state(&own(), vec![identity("1", "/a", "")]));
    let one = book.answer(Kind::X509Svid, &update).unwrap();
    let two = book.answer(Kind::X509Svid, &update).unwrap();
    assert_eq!(one.bytes.as_ptr(), two.bytes.as_ptr());
    assert_eq!(book.states(), 1);
    drop(update);
    book.one_left();
    assert_eq!(book.states(), 0);
}

#[test]
fn two_hundred_federated_bundles_stay_under_the_limit_of_clients() {
    let own = own();
    let mut update = state(&own, vec![identity("1", "/a", "")]);
    let der = root(&own.trust_domain);
    update.federated = foreign(200, 5, &der);
    let update = Arc::new(update);
    for kind in [Kind::X509Svid, Kind::X509Bundles] {
        let answer = AnswerBook::default().answer(kind, &update).unwrap();
        assert!(answer.bytes.len() < ANSWER_MAX / 4, "{} bytes", answer.bytes.len());
    }
}

#[tokio::test]
async fn a_client_with_default_limits_takes_two_hundred_federated_bundles() {
    let own = own();
    let mut update = state(&own, vec![identity("1", "/a", "")]);
    update.federated = foreign(200, 5, &root(&own.trust_domain));
    let world = World::new(update);
    let message = next(&mut world.x509().await.unwrap()).await.unwrap();
    assert_eq!((message.svids.len(), message.federated_bundles.len()), (1, 200));
    let mut client = world.client().await;
    let mut bundles =
        client.fetch_x509_bundles(call(wire::X509BundlesRequest {})).await.unwrap().into_inner();
    assert_eq!(next(&mut bundles).await.unwrap().bundles.len(), 201);
    let mut keys = client.fetch_jwt_bundles(call(wire::JwtBundlesRequest {})).await.unwrap().into_inner();
    assert_eq!(next(&mut keys).await.unwrap().bundles.len(), 201);
}

#[test]
fn what_would_not_fit_is_left_out_so_that_the_identity_still_comes() {
    use prost::Message;
    let own = own();
    let mut update = state(&own, vec![identity("1", "/a", "")]);
    let der = root(&own.trust_domain);
    update.federated = foreign(200, 60, &der);
    let answer = AnswerBook::default().answer(Kind::X509Svid, &Arc::new(update)).unwrap();
    assert!(answer.bytes.len() < ANSWER_MAX);
    let message = wire::X509svidResponse::decode(answer.bytes).unwrap();
    assert_eq!(message.svids.len(), 1);
    assert!(message.federated_bundles.len() > 100);
}

async fn client_of(
    service: WorkloadService,
    peer: avouch_attestors::Peer,
) -> wire::spiffe_workload_api_client::SpiffeWorkloadApiClient<Channel> {
    let channel = channel_of(Routes::new(service), peer).await;
    wire::spiffe_workload_api_client::SpiffeWorkloadApiClient::new(channel)
}

/// Serves over one end of a pair on behalf of another process.
async fn channel_of(routes: Routes, peer: avouch_attestors::Peer) -> Channel {
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    let caller = Arc::new(Caller::new(peer, Arc::default(), None));
    tokio::spawn(connection(PeerStream::new(ours, caller), routes, Stop::new()));
    let mut theirs = Some(theirs);
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = theirs.take().map(hyper_util::rt::TokioIo::new);
        async move { stream.ok_or_else(|| std::io::Error::other("one connection only")) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connector).await.unwrap()
}

#[tokio::test]
async fn nothing_more_is_delivered_once_the_process_is_gone() {
    let own = own();
    let world = World::new(state(&own, vec![identity("1", "/a", "")]));
    let mut child = crate::peer::tests::waiting_child();
    let peer = avouch_attestors::Peer { pid: i32::try_from(child.id()).unwrap(), ..myself() };
    let mut client = client_of(world.service(), peer).await;
    let mut stream = client.fetch_x509svid(call(wire::X509svidRequest {})).await.unwrap().into_inner();
    next(&mut stream).await.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    world.supply.set(state(&own, vec![identity("2", "/b", "")]));
    let (code, text) = refused(next(&mut stream).await);
    assert_eq!(code, Code::Unavailable);
    assert_eq!(text, "workload attestation failed: the calling process changed since it connected");
    let page = world.metrics.registry().render();
    assert!(
        page.contains("spire_agent_rpc_workload_api_fetch_x509svid{status=\"Unavailable\"} 1"),
        "calls of other processes are counted: {page}"
    );
}

fn myself() -> avouch_attestors::Peer {
    let pid = i32::try_from(std::process::id()).unwrap();
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    avouch_attestors::Peer { pid, uid, gid, pidfd: None }
}

#[tokio::test]
async fn a_call_over_its_share_is_refused_before_any_work() {
    let world = World::new(state(&own(), vec![identity("1", "/a", "")]));
    let mut service = world.service();
    Arc::get_mut(&mut service.0).unwrap().calls = FairShare::new(1);
    let mut client = client_of(service, myself()).await;
    let mut first = client.fetch_x509svid(call(wire::X509svidRequest {})).await.unwrap().into_inner();
    next(&mut first).await.unwrap();
    let looks = world.looker.looks.load(Ordering::SeqCst);
    let busy =
        |method: &str| (Code::Unavailable, format!("rate limit exceeded for /SpiffeWorkloadAPI/{method}"));
    let second = client.fetch_x509_bundles(call(wire::X509BundlesRequest {})).await;
    assert_eq!(refused(second), busy("FetchX509Bundles"));
    let token = wire::JwtsvidRequest { audience: vec!["a".into()], spiffe_id: String::new() };
    assert_eq!(refused(client.fetch_jwtsvid(call(token)).await), busy("FetchJWTSVID"));
    let page = world.metrics.registry().render();
    let counted = "spire_agent_workload_api_rate_limit_exceeded{method=\"FetchX509Bundles\"} 1\n";
    assert!(page.contains(counted), "{page}");
    assert_eq!(world.looker.looks.load(Ordering::SeqCst), looks);
}

#[tokio::test]
async fn health_and_reflection_take_a_share_like_every_other_call() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_health::pb::health_server::HealthServer;
    let world = World::new(nothing(&own()));
    let calls = FairShare::new(1);
    let health = HealthServer::new(super::super::health::WorkloadHealth::new(world.supply.clone()));
    let shared = Shared::new(&(calls.clone(), world.metrics.clone()), health);
    let mut client = HealthClient::new(channel_of(Routes::new(shared), myself()).await);
    client.check(HealthCheckRequest::default()).await.unwrap();
    client.check(HealthCheckRequest::default()).await.expect("the share came back with the answer");
    let _taken = calls.take(1, 1).unwrap();
    let busy = (Code::Unavailable, "rate limit exceeded for grpc.health.v1.Health".to_owned());
    assert_eq!(refused(client.check(HealthCheckRequest::default()).await), busy);
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_its_question_for_a_token_back_and_gives_up_its_share() {
    let world = World::new(state(&own(), vec![identity("1", "/a", "")]));
    *world.supply.jwt.lock() = Ok(vec![grant("1", "/a", "")]);
    world.supply.slow.send_replace(true);
    let mut service = world.service();
    Arc::get_mut(&mut service.0).unwrap().minting = FairShare::new(1);
    let workload = service.0.clone();
    let mut client = client_of(service, myself()).await;
    let ask = || call(wire::JwtsvidRequest { audience: vec!["a".into()], spiffe_id: String::new() });
    let waiting = |count| {
        let (supply, workload) = (world.supply.clone(), workload.clone());
        let reached = async move {
            while Arc::strong_count(&supply.waiting) != 1 + count || workload.minting.taken() != count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, reached)
    };
    tokio::select! {
        answer = client.fetch_jwtsvid(ask()) => panic!("{answer:?}"),
        reached = waiting(1) => reached.expect("a caller that waits"),
    }
    waiting(0).await.expect("nobody waits");
    world.supply.slow.send_replace(false);
    assert_eq!(client.fetch_jwtsvid(ask()).await.unwrap().into_inner().svids.len(), 1);
}

#[tokio::test]
async fn connections_over_their_share_are_closed_and_the_others_stay() {
    use tokio::io::AsyncReadExt;
    let world = World::new(state(&own(), vec![identity("1", "/a", "")]));
    let mut open = Vec::new();
    for _ in 0..kit::CONNECTIONS {
        open.push(tokio::net::UnixStream::connect(&world.path).await.unwrap());
    }
    let mut last = open.pop().unwrap();
    let mut byte = [0];
    // A connection that stays hears the server's settings first; one that may not stay hears nothing.
    assert_eq!(tokio::time::timeout(SOON, last.read(&mut byte)).await.expect("its end").unwrap(), 0);
    assert_eq!(open[0].read(&mut byte).await.unwrap(), 1);
}

fn foreign(count: usize, roots: usize, der: &Arc<[u8]>) -> Vec<Arc<avouch_domain::Bundle>> {
    let one = |i: usize| {
        let name = avouch_domain::TrustDomain::new(&format!("td{i:03}.org")).unwrap();
        let mut bundle = avouch_domain::Bundle::empty(name);
        bundle.x509_authorities = vec![X509Authority { der: der.clone(), tainted: false }; roots];
        Arc::new(bundle)
    };
    (0..count).map(one).collect()
}
