//! Debug, Logger and Health: there on the admin socket, unknown over TCP.

use avouch::health_http::HealthState;
use avouch_proto::agent_v1::PostStatusRequest;
use avouch_proto::debug_v1::GetInfoRequest;
use avouch_proto::debug_v1::debug_client::DebugClient;
use avouch_proto::logger_v1::logger_client::LoggerClient;
use avouch_proto::logger_v1::{GetLoggerRequest, ResetLogLevelRequest, SetLogLevelRequest};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;
use crate::health::ServerHealth;

#[tokio::test]
async fn services_of_the_admin_socket_are_unknown_over_tcp() {
    let world = World::start().await;
    let refused = DebugClient::new(world.nobody()).get_info(GetInfoRequest::default()).await;
    assert_eq!(
        refusal(refused),
        (Code::Unimplemented, "unknown service spire.api.server.debug.v1.Debug".into())
    );
    let refused = HealthClient::new(world.nobody()).check(HealthCheckRequest::default()).await;
    assert_eq!(refusal(refused), (Code::Unimplemented, "unknown service grpc.health.v1.Health".into()));
}

#[tokio::test]
async fn debug_shows_counts_and_the_chain_up_to_the_root() {
    let world = World::start().await;
    world.agent("t1").await;
    let info =
        DebugClient::new(world.local()).get_info(GetInfoRequest::default()).await.unwrap().into_inner();
    assert_eq!((info.agents_count, info.entries_count, info.federated_bundles_count), (1, 0, 1));
    assert_eq!(info.svid_chain.len(), 2);
    assert_eq!(info.svid_chain[0].id.as_ref().unwrap().path, "/spire/server");
    assert_eq!(info.svid_chain[1].id.as_ref().unwrap().path, "");
}

#[tokio::test]
async fn the_log_level_is_set_and_reset() {
    let world = World::start().await;
    let mut client = LoggerClient::new(world.local());
    let set = client.set_log_level(SetLogLevelRequest { new_level: 6 }).await.unwrap().into_inner();
    assert_eq!((set.current_level, set.launch_level), (6, 5));
    let refused = client.set_log_level(SetLogLevelRequest { new_level: 0 }).await;
    assert_eq!(refusal(refused).0, Code::InvalidArgument);
    assert_eq!(client.get_logger(GetLoggerRequest {}).await.unwrap().into_inner().current_level, 6);
    let reset = client.reset_log_level(ResetLogLevelRequest {}).await.unwrap().into_inner();
    assert_eq!(reset.current_level, 5);
}

#[tokio::test]
async fn health_is_of_the_whole_server_only() {
    let world = World::start().await;
    let mut client = HealthClient::new(world.local());
    let healthy = client.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(healthy.status, 1);
    let refused = client.check(HealthCheckRequest { service: "x".into() }).await;
    assert_eq!(refusal(refused), (Code::InvalidArgument, "per-service health is not supported".into()));
    let refused = client.watch(HealthCheckRequest::default()).await.map(drop);
    assert_eq!(refusal(refused), (Code::Unimplemented, "method Watch not implemented".into()));
}

#[tokio::test]
async fn probes_turn_bad_with_the_store_and_name_it() {
    let world = World::start().await;
    let health = || ServerHealth::new(world.gate.services.clone(), world.store.clone(), clock::now);
    let (live, ready) = (health().live().await, health().ready().await);
    assert!(live.good && ready.good, "{live:?} {ready:?}");
    world.store.close().await;
    let probe = health().live().await;
    let bad: Vec<_> = probe.details.iter().filter(|(_, detail)| !detail.is_empty()).collect();
    assert!(!probe.good);
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert!(bad[0].0 == "catalog.datastore" && bad[0].1.contains_key("list_bundle_err"), "{bad:?}");
}

#[tokio::test]
async fn each_call_is_counted_by_method_and_code() {
    let world = World::start().await;
    let mut client = LoggerClient::new(world.local());
    client.get_logger(GetLoggerRequest {}).await.unwrap();
    let _ = client.set_log_level(SetLogLevelRequest { new_level: 0 }).await;
    let page = world.gate.metrics.registry().render();
    assert!(page.contains("spire_server_rpc_logger_get_logger{status=\"OK\"} 1\n"), "{page}");
    assert!(page.contains("spire_server_rpc_logger_set_log_level{status=\"InvalidArgument\"} 1\n"), "{page}");
    assert!(
        page.contains("spire_server_rpc_logger_get_logger_elapsed_time_count{status=\"OK\"} 1\n"),
        "{page}"
    );
}

#[tokio::test]
async fn a_turn_at_a_limit_is_counted_and_callers_on_the_admin_socket_take_none() {
    let world = World::start().await;
    // Attests on the admin socket.
    let agent = world.agent("t1").await;
    let request = PostStatusRequest { current_bundle_serial: 0, agent_version: "1".into() };
    AgentClient::new(world.holder(&agent)).post_status(request).await.unwrap();
    let page = world.gate.metrics.registry().render();
    assert!(
        page.contains("spire_server_rateLimit_rpc_agent_v1_agent_post_status{status=\"OK\"} 1\n"),
        "{page}"
    );
    assert!(!page.contains("rateLimit_rpc_agent_v1_agent_attest_agent"), "{page}");
}
