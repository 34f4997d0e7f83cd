//! Which facts of a process decide what it gets, and what the operator can read about a refusal.

use avouch_tests::cli;
use avouch_tests::daemon::binary;
use avouch_tests::workload::Workload;
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, Server, ServerOptions, World, entry, eventually};
use tonic::Code;

use crate::governed::{CODER, first_person, good};

fn digest_of(path: &std::path::Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    hex::encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes))
}

/// Every selector that the unix attestor must find for this process.
fn mine() -> Vec<String> {
    use nix::unistd::{Group, User, getegid, geteuid, getgroups};
    let exe = std::env::current_exe().unwrap();
    let mut all = vec![
        my_uid(),
        format!("unix:gid:{}", getegid()),
        format!("unix:path:{}", exe.display()),
        format!("unix:sha256:{}", digest_of(&exe)),
    ];
    all.extend(User::from_uid(geteuid()).unwrap().map(|u| format!("unix:user:{}", u.name)));
    all.extend(Group::from_gid(getegid()).unwrap().map(|g| format!("unix:group:{}", g.name)));
    for gid in getgroups().unwrap() {
        all.push(format!("unix:supplementary_gid:{gid}"));
        all.extend(Group::from_gid(gid).unwrap().map(|g| format!("unix:supplementary_group:{}", g.name)));
    }
    all
}

#[tokio::test]
async fn an_entry_with_every_selector_of_a_process_is_for_that_process() {
    let options = AgentOptions { unix: "discover_workload_path = true".into(), ..AgentOptions::default() };
    let world = World::start_with(ServerOptions::default(), options).await;
    let all = mine();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    world.server.create(entry(&world.agent.id, "/all", &all)).await;
    let other = [&all[..], &["unix:sha256:00"]].concat();
    world.server.create(entry(&world.agent.id, "/other", &other)).await;
    let answer = world.agent.workload().await.fetch_x509().await.unwrap();
    let ids: Vec<_> = answer.svids.iter().map(|s| s.spiffe_id.as_str()).collect();
    assert_eq!(ids, ["spiffe://example.org/all"]);
}

#[tokio::test]
async fn an_owned_identity_whose_entry_asks_for_a_digest_is_not_for_another_binary_of_the_same_user() {
    let options = AgentOptions { unix: "discover_workload_path = true".into(), ..AgentOptions::default() };
    let world = World::start_with(ServerOptions::default(), options).await;
    first_person(&world.server).await;
    good(&world.server, CODER).await;
    let program = binary("avouch-agent");
    let digest = format!("unix:sha256:{}", digest_of(&program));
    world.server.create(entry(&world.agent.id, "/test/coder", &[&my_uid(), &digest])).await;
    let fetch = ["api", "fetch", "x509", "-socketPath", world.agent.socket.to_str().unwrap()];
    let own = eventually("the identity of that binary", async || {
        let said = cli::run_program(&program, fetch, |_| {}).await;
        (said.code == 0).then_some(said)
    })
    .await;
    assert!(own.out.contains("spiffe://example.org/test/coder"), "{own:?}");
    // This process is of the same user, and of another binary.
    let refused = world.agent.workload().await.fetch_x509().await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
}

#[tokio::test]
async fn a_binary_over_the_size_limit_is_not_attested() {
    let server = Server::start().await;
    let proof = Proof::JoinToken(server.token().await);
    let unix = "discover_workload_path = true\nworkload_size_limit = 1000".into();
    let agent = Agent::prepare(&server, "a", &proof, &AgentOptions { unix, ..AgentOptions::default() }).await;
    server.create(entry(&agent.id, "/web", &[&my_uid()])).await;
    let daemon = agent.spawn();
    let line = eventually("an attestation that fails", async || {
        let status = Workload::connect(&agent.socket).await.ok()?.fetch_x509().await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        if status.message() != "workload attestation failed" {
            return None; // not in sync yet
        }
        Some(daemon.line("Workload attestation failed").await)
    })
    .await;
    assert!(line.contains("exceeds size limit 1000"), "the operator learns why: {line}");
}

#[tokio::test]
async fn a_refusal_leaves_one_line_with_process_selectors_and_nearest_entry() {
    let world = World::start().await;
    let me = my_uid();
    let near = entry(&world.agent.id, "/near", &[&me, "unix:user:nobody-of-this-name"]);
    let near = world.server.create(near).await;
    let far = ["unix:uid:4294967294", "unix:gid:4294967294"];
    world.server.create(entry(&world.agent.id, "/far", &far)).await;
    let mut workload = world.agent.workload().await;
    for _ in 0..3 {
        assert_eq!(workload.fetch_x509().await.unwrap_err().code(), Code::PermissionDenied);
    }
    let line = world.agent.daemon().line("No identity issued").await;
    for part in [
        format!("pid={}", std::process::id()),
        me,
        format!("entry {} of spiffe://example.org/near also needs unix:user:nobody-of-this-name", near.id),
        "method=FetchX509SVID".to_owned(),
    ] {
        assert!(line.contains(&part), "{part}: {line}");
    }
    assert_eq!(world.agent.daemon().log().matches("No identity issued").count(), 1, "the others are counted");
}

#[tokio::test]
async fn the_admin_socket_tells_facts_and_changes_the_log_level() {
    let world = World::start().await;
    world.grant("/web").await;
    world.agent.workload().await.fetch_x509().await.unwrap();
    let channel = avouch_tests::uds(&world.agent.admin_socket).await.unwrap();
    let mut debug = avouch_proto::agent_debug_v1::debug_client::DebugClient::new(channel.clone());
    let info = debug.get_info(avouch_proto::agent_debug_v1::GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.cached_x509_svids_count, 1);
    assert_eq!(info.svid_chain.len(), 2, "the agent's SVID and its root: {info:?}");
    assert!(info.last_sync_success > 0);
    let mut logger = avouch_proto::agent_logger_v1::logger_client::LoggerClient::new(channel);
    let quiet = avouch_proto::types::LogLevel::Error.into();
    let set = avouch_proto::agent_logger_v1::SetLogLevelRequest { new_level: quiet };
    let levels = logger.set_log_level(set).await.unwrap().into_inner();
    assert_eq!(levels.current_level, quiet);
    assert_ne!(levels.launch_level, quiet);
    let health =
        cli::run("avouch-agent", ["healthcheck", "-socketPath", world.agent.socket.to_str().unwrap()]);
    assert_eq!(health.await.code, 0);
}
