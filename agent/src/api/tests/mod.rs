//! The workload socket seen by gRPC clients: codes, texts, streams. One rule per test.

mod kit;
mod streams;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use avouch::logs::{Level, LogHandle};
use avouch_proto::workload as wire;
use avouch_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use prost_types::value::Kind;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::{AdminOptions, Stop, WorkloadOptions, listener, serve_admin};
use crate::limits::REQUEST_MAX;
use crate::metrics::Metrics;
use crate::supply::JwtRefusal;
use kit::{
    FakeSupply, Setup, World, bundle, call, grant, identity, jwt_bundle, next, nothing, own, state, token,
};

fn refused<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let status = result.expect_err("a refusal");
    (status.code(), status.message().to_owned())
}

async fn every_call(
    client: &mut SpiffeWorkloadApiClient<Channel>,
    header: &dyn Fn(&mut tonic::metadata::MetadataMap),
) -> Vec<(Code, String)> {
    fn with<T>(message: T, header: &dyn Fn(&mut tonic::metadata::MetadataMap)) -> Request<T> {
        let mut request = Request::new(message);
        header(request.metadata_mut());
        request
    }
    let jwt = wire::JwtsvidRequest { audience: vec!["a".into()], spiffe_id: String::new() };
    let check = wire::ValidateJwtsvidRequest { audience: "a".into(), svid: "t".into() };
    let wit = wire::WitsvidRequest { spiffe_id: String::new() };
    vec![
        refused(client.fetch_x509svid(with(wire::X509svidRequest {}, header)).await),
        refused(client.fetch_x509_bundles(with(wire::X509BundlesRequest {}, header)).await),
        refused(client.fetch_jwtsvid(with(jwt, header)).await),
        refused(client.fetch_jwt_bundles(with(wire::JwtBundlesRequest {}, header)).await),
        refused(client.validate_jwtsvid(with(check, header)).await),
        refused(client.fetch_witsvid(with(wit, header)).await),
        refused(client.fetch_wit_bundles(with(wire::WitBundlesRequest {}, header)).await),
    ]
}

#[tokio::test]
async fn a_call_without_exactly_one_true_header_is_invalid_before_anything_else() {
    let world = World::with(nothing(&own()), Setup { ready: false, ..Setup::default() });
    let mut client = world.client().await;
    let values: [&[&str]; 7] = [&[], &["True"], &["TRUE"], &["1"], &[""], &["false"], &["true", "true"]];
    for list in values {
        let answers = every_call(&mut client, &|metadata| {
            for value in list {
                metadata.append("workload.spiffe.io", value.parse().unwrap());
            }
        })
        .await;
        for answer in answers {
            assert_eq!(
                answer,
                (Code::InvalidArgument, "security header missing from request".into()),
                "{list:?}"
            );
        }
    }
    assert_eq!(world.looker.looks.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn before_the_first_sync_every_call_is_unavailable_and_never_denied() {
    let world = World::with(nothing(&own()), Setup { ready: false, ..Setup::default() });
    let mut client = world.client().await;
    let header = |metadata: &mut tonic::metadata::MetadataMap| {
        metadata.insert("workload.spiffe.io", "true".parse().unwrap());
    };
    let answers = every_call(&mut client, &header).await;
    for answer in &answers[..5] {
        assert_eq!(answer, &(Code::Unavailable, "the agent is not in sync with its server yet".into()));
    }
    world.supply.ready.send_replace(true);
    assert_eq!(refused(world.x509().await).0, Code::PermissionDenied);
}

#[tokio::test]
async fn wit_calls_are_unimplemented() {
    let world = World::new(nothing(&own()));
    let mut client = world.client().await;
    let header = |metadata: &mut tonic::metadata::MetadataMap| {
        metadata.insert("workload.spiffe.io", "true".parse().unwrap());
    };
    let answers = every_call(&mut client, &header).await;
    assert_eq!(answers[5], (Code::Unimplemented, "fetching WIT-SVIDs is not implemented".into()));
    assert_eq!(answers[6], (Code::Unimplemented, "fetching WIT bundles is not implemented".into()));
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let world = World::new(nothing(&own()));
    let mut grpc = tonic::client::Grpc::new(world.channel().await);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/SpiffeWorkloadAPI/Nope");
    let codec = tonic_prost::ProstCodec::<wire::X509svidRequest, wire::X509svidResponse>::default();
    let answer = grpc.unary(call(wire::X509svidRequest {}), path, codec).await;
    assert_eq!(refused(answer), (Code::Unimplemented, "method Nope not implemented".into()));
}

#[tokio::test]
async fn a_caller_that_cannot_be_looked_at_gets_unavailable() {
    let world = World::with(nothing(&own()), Setup { fail: true, ..Setup::default() });
    assert_eq!(refused(world.x509().await), (Code::Unavailable, "workload attestation failed".into()));
}

#[tokio::test]
async fn without_an_entry_every_fetch_is_denied_with_the_words_clients_look_for() {
    let world = World::new(nothing(&own()));
    let denied = (Code::PermissionDenied, "no identity issued".to_owned());
    let mut client = world.client().await;
    assert_eq!(refused(world.x509().await), denied);
    assert_eq!(refused(client.fetch_x509_bundles(call(wire::X509BundlesRequest {})).await), denied);
    assert_eq!(refused(client.fetch_jwt_bundles(call(wire::JwtBundlesRequest {})).await), denied);
    assert_eq!(refused(world.jwt(&["a"], "").await), denied);
}

#[tokio::test]
async fn an_audience_is_mandatory_and_not_empty() {
    let world = World::new(nothing(&own()));
    let missing = (Code::InvalidArgument, "audience must be specified".to_owned());
    assert_eq!(refused(world.jwt(&[], "").await), missing);
    assert_eq!(refused(world.jwt(&[""], "").await), missing);
    assert_eq!(refused(world.jwt(&["a", ""], "").await), missing);
    assert_eq!(refused(world.validate("", "token").await), missing);
}

#[tokio::test]
async fn audiences_are_counted() {
    let world = World::new(nothing(&own()));
    let (code, text) = refused(world.jwt(&["a"; 33], "").await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.starts_with("33 audiences are too many"), "{text}");
}

#[tokio::test]
async fn a_request_that_is_too_big_is_not_read() {
    let world = World::new(nothing(&own()));
    let (code, text) = refused(world.validate("a", &"x".repeat(REQUEST_MAX)).await);
    let expected = format!("grpc: received message larger than max ({} vs. {REQUEST_MAX})", REQUEST_MAX + 7);
    assert_eq!((code, text), (Code::ResourceExhausted, expected));
}

#[tokio::test]
async fn a_requested_id_must_be_a_spiffe_id() {
    let world = World::new(nothing(&own()));
    let (code, text) = refused(world.jwt(&["a"], "http://example.org/x").await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.starts_with("invalid requested SPIFFE ID: "), "{text}");
}

#[tokio::test]
async fn jwt_svids_come_for_all_identities_or_the_one_asked_for() {
    let world = World::new(nothing(&own()));
    *world.supply.jwt.lock() = Ok(vec![grant("1", "/a", "x"), grant("2", "/b", "")]);
    let all = world.jwt(&["b", "a"], "").await.unwrap().svids;
    let view: Vec<_> = all.iter().map(|s| (s.spiffe_id.as_str(), s.svid.as_str(), s.hint.as_str())).collect();
    assert_eq!(
        view,
        [("spiffe://example.org/a", "token-of-1", "x"), ("spiffe://example.org/b", "token-of-2", "")]
    );
    assert_eq!(*world.supply.audiences.lock(), [["b", "a"]], "order is kept");
    assert_eq!(world.jwt(&["a"], "spiffe://example.org/b").await.unwrap().svids.len(), 1);
    let other = world.jwt(&["a"], "spiffe://example.org/c").await;
    assert_eq!(refused(other), (Code::PermissionDenied, "no identity issued".into()));
}

#[tokio::test]
async fn failed_minting_is_unavailable_with_its_reason() {
    let world = World::new(nothing(&own()));
    *world.supply.jwt.lock() = Err(JwtRefusal::Unavailable("the server is away".into()));
    let expected = (Code::Unavailable, "could not fetch JWT-SVID: the server is away".to_owned());
    assert_eq!(refused(world.jwt(&["a"], "").await), expected);
}

#[tokio::test]
async fn of_jwt_svids_with_one_hint_the_oldest_entry_wins() {
    let world = World::new(nothing(&own()));
    let mut younger = grant("1", "/a", "internal");
    younger.created_at = avouch_domain::Timestamp(5);
    *world.supply.jwt.lock() = Ok(vec![younger, grant("2", "/b", "internal"), grant("3", "/c", "")]);
    let svids = world.jwt(&["a"], "").await.unwrap().svids;
    let view: Vec<_> = svids.iter().map(|s| s.svid.as_str()).collect();
    assert_eq!(view, ["token-of-2", "token-of-3"]);
}

#[tokio::test]
async fn a_jwt_call_without_entry_is_held_until_the_entry_comes() {
    let options = WorkloadOptions { no_identity_hold: kit::SOON, ..WorkloadOptions::default() };
    let own = own();
    let world = World::with(nothing(&own), Setup { options, ..Setup::default() });
    let supply = world.supply.clone();
    let granting = async {
        while supply.asked.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        *supply.jwt.lock() = Ok(vec![grant("1", "/a", "")]);
        supply.set(state(&own, vec![identity("1", "/a", "")]));
    };
    let (answer, ()) = tokio::join!(world.jwt(&["a"], ""), granting);
    assert_eq!(answer.unwrap().svids.len(), 1);
}

#[tokio::test]
async fn a_good_token_is_validated_for_callers_without_identity_too() {
    let (own, issuer) = jwt_bundle("example.org");
    let world = World::new(nothing(&Arc::new(own)));
    let token = token(&issuer, "spiffe://example.org/a", "aud1");
    let answer = world.validate("aud1", &token).await.unwrap();
    assert_eq!(answer.spiffe_id, "spiffe://example.org/a");
    let claims = answer.claims.unwrap().fields;
    assert!(matches!(claims["aud"].kind, Some(Kind::ListValue(_))));
    assert!(matches!(claims["exp"].kind, Some(Kind::NumberValue(_))));
    assert!(claims.contains_key("iss"), "all claims of the own trust domain are shown");
    let bad = world.validate("other", &token).await;
    assert_eq!(
        refused(bad),
        (Code::InvalidArgument, "expected audience in [\"other\"] (audience=[\"aud1\"])".into())
    );
    assert_eq!(
        refused(world.validate("aud1", "").await),
        (Code::InvalidArgument, "svid must be specified".into())
    );
    let (code, text) = refused(world.validate("aud1", "not a token").await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.starts_with("unable to parse JWT token"), "{text}");
}

#[tokio::test]
async fn claims_of_foreign_tokens_are_filtered_by_the_allowed_list() {
    let own = own();
    let (foreign, issuer) = jwt_bundle("other.org");
    let mut seen = state(&own, vec![identity("1", "/a", "")]);
    seen.federated = vec![Arc::new(foreign)];
    let token = token(&issuer, "spiffe://other.org/a", "aud1");

    let world = World::new(seen.clone());
    let claims = world.validate("aud1", &token).await.unwrap().claims.unwrap().fields;
    let names: Vec<_> = claims.keys().map(String::as_str).collect();
    assert_eq!(names, ["aud", "exp", "sub"]);

    let options =
        WorkloadOptions { allowed_foreign_jwt_claims: vec!["iss".into()], ..WorkloadOptions::default() };
    let world = World::with(seen, Setup { options, ..Setup::default() });
    let claims = world.validate("aud1", &token).await.unwrap().claims.unwrap().fields;
    assert!(claims.contains_key("iss") && !claims.contains_key("iat"));

    let world = World::new(nothing(&own));
    let (code, text) = refused(world.validate("aud1", &token).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.contains("no keys found for trust domain"), "{text}");
}

#[tokio::test]
async fn health_needs_no_header_and_follows_the_first_sync() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    let world = World::with(nothing(&own()), Setup { ready: false, ..Setup::default() });
    let mut client = HealthClient::new(world.channel().await);
    let ask = |service: &str| HealthCheckRequest { service: service.into() };
    assert_eq!(client.check(ask("")).await.unwrap().into_inner().status, 2, "NOT_SERVING");
    world.supply.ready.send_replace(true);
    assert_eq!(client.check(ask("")).await.unwrap().into_inner().status, 1, "SERVING");
    let named = client.check(ask("SpiffeWorkloadAPI")).await;
    assert_eq!(refused(named), (Code::InvalidArgument, "per-service health is not supported".into()));
    assert_eq!(refused(client.watch(ask("")).await).0, Code::Unimplemented);
}

#[tokio::test]
async fn reflection_needs_no_header_and_lists_the_services() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let world = World::new(nothing(&own()));
    let mut client = ServerReflectionClient::new(world.channel().await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = client.server_reflection_info(tokio_stream::iter([ask])).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = list.service.iter().map(|s| s.name.as_str()).collect();
    assert!(names.contains(&"SpiffeWorkloadAPI") && names.contains(&"grpc.health.v1.Health"), "{names:?}");
}

#[tokio::test]
async fn selectors_are_looked_up_once_per_process_image() {
    let own = own();
    let world = World::new(state(&own, vec![identity("1", "/a", "")]));
    for _ in 0..3 {
        next(&mut world.x509().await.unwrap()).await.unwrap();
    }
    assert_eq!(world.looker.looks.load(Ordering::SeqCst), 1);
    let asked = world.supply.asked.lock();
    assert_eq!(asked[0].0, avouch_domain::fixtures::set(&["unix:uid:1"]));
}

async fn admin(supply: Arc<FakeSupply>, logs: LogHandle) -> (Channel, tempfile::TempDir, Stop) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("private/admin.sock");
    let bound = listener::bind_admin(&path, &dir.path().join("public/api.sock")).unwrap();
    let started = avouch::clock::now().mono;
    let options = AdminOptions { logs, started, metrics: Metrics::plain(), clock: avouch::clock::now };
    let stop = Stop::new();
    tokio::spawn(serve_admin(bound, supply, options, stop.clone()));
    let endpoint = tonic::transport::Endpoint::try_from(format!("unix://{}", path.display())).unwrap();
    (endpoint.connect().await.unwrap(), dir, stop)
}

#[tokio::test]
async fn the_logger_api_changes_the_level_and_returns_it_to_the_configured_one() {
    use avouch_proto::agent_logger_v1::logger_client::LoggerClient;
    use avouch_proto::agent_logger_v1::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
    let world = World::new(nothing(&own()));
    let logs = LogHandle::detached(Level::Info);
    let (channel, _dir, _stop) = admin(world.supply.clone(), logs.clone()).await;
    let mut client = LoggerClient::new(channel);
    let levels = client.set_log_level(SetLogLevelRequest { new_level: 6 }).await.unwrap().into_inner();
    assert_eq!((levels.current_level, levels.launch_level), (6, 5));
    assert_eq!(logs.level(), Level::Debug);
    let unspecified = client.set_log_level(SetLogLevelRequest { new_level: 0 }).await;
    assert_eq!(
        refused(unspecified),
        (Code::InvalidArgument, "newLevel value cannot be LogLevel_UNSPECIFIED".into())
    );
    let unknown = client.set_log_level(SetLogLevelRequest { new_level: 99 }).await;
    assert_eq!(refused(unknown), (Code::InvalidArgument, "unsupported log level".into()));
    client.reset_log_level(ResetLogLevelRequest {}).await.unwrap();
    let levels = client.get_logger(GetLoggerRequest {}).await.unwrap().into_inner();
    assert_eq!((levels.current_level, levels.launch_level), (5, 5));
}

#[tokio::test]
async fn debug_info_has_counts_and_last_sync() {
    use avouch_proto::agent_debug_v1::GetInfoRequest;
    use avouch_proto::agent_debug_v1::debug_client::DebugClient;
    let world = World::new(nothing(&Arc::new(bundle("example.org"))));
    let (channel, _dir, _stop) = admin(world.supply.clone(), LogHandle::detached(Level::Info)).await;
    let info = DebugClient::new(channel).get_info(GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.cached_x509_svids_count, info.cached_jwt_svids_count), (3, 2));
    assert_eq!(info.last_sync_success, 1000);
    assert!(info.svid_chain.is_empty());
}
