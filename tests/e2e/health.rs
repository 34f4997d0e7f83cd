//! What an agent says of itself to probes: the truth, at every stage of its life.

use avouch_proto::agent_v1;
use avouch_tests::http::get;
use avouch_tests::node_pki::PkiWorld;
use avouch_tests::server::{free_port, wire_id};
use avouch_tests::{Agent, AgentOptions, Proof, Server, ServerOptions, World, cli, eventually, forge, uds};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Adds a health listener to a stopped agent's configuration; gives its port.
fn listen(agent: &Agent) -> u16 {
    let port = free_port();
    let more = format!(
        "health_checks {{\n listener_enabled = true\n bind_address = \"127.0.0.1\"\n bind_port = \"{port}\"\n}}\n"
    );
    let text = std::fs::read_to_string(&agent.config).unwrap();
    std::fs::write(&agent.config, text + &more).unwrap();
    port
}

/// `/live`, `/ready`, and gRPC health on the workload socket; `None` where nobody answers.
async fn asked(agent: &Agent, port: u16) -> (Option<u16>, Option<u16>, Option<ServingStatus>) {
    let status = async |path| get(port, path).await.map(|(status, _)| status);
    let serving = async {
        let mut client = HealthClient::new(uds(&agent.socket).await.ok()?);
        let answer = client.check(HealthCheckRequest::default()).await.ok()?;
        Some(answer.into_inner().status())
    };
    (status("/live").await, status("/ready").await, serving.await)
}

async fn healthcheck(agent: &Agent) -> i32 {
    cli::run("avouch-agent", ["healthcheck", "-socketPath", agent.socket.to_str().unwrap()]).await.code
}

const WELL: (Option<u16>, Option<u16>, Option<ServingStatus>) =
    (Some(200), Some(200), Some(ServingStatus::Serving));

/// An agent that answers its callers, with a health listener on this port.
async fn watched(mut world: World) -> (World, u16) {
    world.agent.stop().await;
    let port = listen(&world.agent);
    world.agent.restart().await;
    (world, port)
}

#[tokio::test]
async fn before_its_first_sync_an_agent_is_live_and_not_ready() {
    let mut server = Server::start().await;
    let proof = Proof::JoinToken(server.token().await);
    let mut agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    let port = listen(&agent);
    server.stop().await;
    let daemon = agent.spawn();
    daemon.line("Failed to attest the node; will try again").await;
    assert_eq!(asked(&agent, port).await, (Some(200), Some(500), Some(ServingStatus::NotServing)));
    let (_, body) = get(port, "/ready").await.unwrap();
    assert!(body.contains("workload api is unavailable"), "{body}");
    assert_ne!(healthcheck(&agent).await, 0);
    server.restart().await;
    agent.adopt(daemon).await;
    assert_eq!(asked(&agent, port).await, WELL);
    assert_eq!(get(port, "/ready").await.unwrap().1.trim(), "{\"agent\":{}}");
    assert_eq!(healthcheck(&agent).await, 0);
}

#[tokio::test]
async fn while_its_server_is_away_an_agent_with_a_valid_svid_is_ready() {
    let (mut world, port) = watched(World::start().await).await;
    world.grant("/web").await;
    world.agent.workload().await.fetch_x509().await.unwrap();
    world.server.stop().await;
    world.agent.daemon().line("Server not reached; will try again").await;
    assert_eq!(asked(&world.agent, port).await, WELL);
    world.agent.workload().await.fetch_x509().await.expect("and what it says is true");
}

#[tokio::test]
async fn past_the_end_of_its_svid_an_agent_is_live_and_not_ready_until_it_attests_again() {
    let options = ServerOptions { server: "agent_ttl = \"12s\"".into(), ..ServerOptions::default() };
    let PkiWorld { agent, server, .. } = &mut PkiWorld::start(options).await;
    agent.stop().await;
    let port = listen(agent);
    agent.restart().await;
    // It answers workloads a moment before it answers probes.
    eventually("an agent that is well", async || (asked(agent, port).await == WELL).then_some(())).await;
    server.stop().await;
    let ended = forge::now() + 12;
    let unready = async || (asked(agent, port).await.1 == Some(500)).then(forge::now);
    let seen = eventually("an agent that is not ready", unready).await;
    assert!(seen <= ended + 1, "it said so {} s late", seen - ended);
    assert_eq!(asked(agent, port).await, (Some(200), Some(500), Some(ServingStatus::NotServing)));
    server.restart().await;
    eventually("a ready agent", async || (asked(agent, port).await == WELL).then_some(())).await;
}

#[tokio::test]
async fn of_a_banned_agent_nobody_says_that_it_is_ready() {
    let (world, port) = watched(World::start().await).await;
    assert_eq!(asked(&world.agent, port).await, WELL);
    let request = agent_v1::BanAgentRequest { id: Some(wire_id(&world.agent.id)) };
    world.server.agents().await.ban_agent(request).await.unwrap();
    assert_eq!(world.agent.daemon().end().await.code(), Some(1));
    assert_eq!(asked(&world.agent, port).await, (None, None, None));
    assert_ne!(healthcheck(&world.agent).await, 0);
}
