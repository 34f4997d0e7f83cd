//! Nodes: how they come in, and how they are put out.

use avouch_proto::agent_v1;
use avouch_tests::node_pki::PkiWorld;
use avouch_tests::server::wire_id;
use avouch_tests::{Agent, AgentOptions, Proof, Server, ServerOptions, World, entry, eventually};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tonic::Code;

#[tokio::test]
async fn a_join_token_admits_one_agent_once() {
    let server = Server::start().await;
    let token = server.token().await;
    let proof = Proof::JoinToken(token);
    let mut first = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    first.restart().await;
    let second = Agent::prepare(&server, "b", &proof, &AgentOptions::default()).await;
    let second = second.spawn();
    second.line("join token does not exist or has already been used").await;
    let agents = server.nodes().await;
    assert_eq!(agents.len(), 1);
}

#[tokio::test]
async fn a_guessed_token_admits_nobody() {
    let server = Server::start().await;
    let proof = Proof::JoinToken("00000000-0000-4000-8000-000000000000".into());
    let agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await.spawn();
    agent.line("join token does not exist or has already been used").await;
    let agents = server.nodes().await;
    assert!(agents.is_empty());
}

#[tokio::test]
async fn a_banned_agent_stops_at_once_with_code_1() {
    let world = World::start().await;
    let request = agent_v1::BanAgentRequest { id: Some(wire_id(&world.agent.id)) };
    world.server.agents().await.ban_agent(request).await.unwrap();
    assert_eq!(world.agent.daemon().end().await.code(), Some(1));
    let log = world.agent.daemon().log();
    assert!(log.contains("banned"), "{log}");
}

#[tokio::test]
async fn an_evicted_agent_does_not_go_on_with_its_old_identity() {
    let world = World::start().await;
    world.grant("/web").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    stream.next().await.unwrap();
    let request = agent_v1::DeleteAgentRequest { id: Some(wire_id(&world.agent.id)) };
    world.server.agents().await.delete_agent(request).await.unwrap();
    let end = stream.end().await;
    assert!(matches!(end.code(), Code::Unavailable | Code::PermissionDenied), "{end:?}");
}

#[tokio::test]
async fn a_node_certificate_admits_its_agent_again_and_again() {
    let PkiWorld { agent, server, .. } = &mut PkiWorld::start(ServerOptions::default()).await;
    let node = eventually("the node", async || server.nodes().await.into_iter().next()).await;
    assert_eq!(node.attestation_type, "x509pop");
    assert!(node.can_reattest);
    let selectors: Vec<_> = node.selectors.iter().map(|s| s.value.as_str()).collect();
    assert!(selectors.contains(&"subject:cn:node-7"), "{selectors:?}");
    let id = node.id.unwrap();
    let id = format!("spiffe://{}{}", id.trust_domain, id.path);
    server.create(entry(&id, "/web", &[&avouch_tests::world::my_uid()])).await;
    assert_eq!(agent.workload().await.fetch_x509().await.unwrap().svids.len(), 1);
    // Without its own state the node proves itself anew and is the same node.
    agent.stop().await;
    std::fs::remove_dir_all(&agent.data_dir).unwrap();
    std::fs::create_dir(&agent.data_dir).unwrap();
    agent.restart().await;
    assert_eq!(agent.workload().await.fetch_x509().await.unwrap().svids.len(), 1);
    let agents = server.nodes().await;
    assert_eq!(agents.len(), 1);
}

#[tokio::test]
async fn a_node_entry_gives_its_agents_what_lies_below_it() {
    let PkiWorld { agent, server, .. } = &PkiWorld::start(ServerOptions::default()).await;
    server
        .create(entry("spiffe://example.org/spire/server", "/cluster", &["x509pop:subject:cn:node-7"]))
        .await;
    server.create(entry("spiffe://example.org/cluster", "/web", &[&avouch_tests::world::my_uid()])).await;
    let answer = agent.workload().await.fetch_x509().await.unwrap();
    assert_eq!(answer.svids[0].spiffe_id, "spiffe://example.org/web");
}

#[tokio::test]
async fn a_node_that_can_prove_itself_again_is_told_to_when_it_renews() {
    use base64::Engine as _;
    let PkiWorld { agent, server, .. } = &PkiWorld::start(ServerOptions::default()).await;
    // Its own SVID and key, from its state: nobody else can call as this agent.
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(agent.data_dir.join(name)).unwrap()).unwrap()
    };
    let decode = |text: &serde_json::Value| {
        base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap()
    };
    let pem = decode(&read("agent-data.json")["svid"][0]);
    let (_, block) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    let keys = read("keys.json");
    let key = decode(keys["keys"].as_object().unwrap().values().next().unwrap());
    let (channel, _) = avouch_tests::mtls::channel(server.address(), &[block.contents], &key).await.unwrap();
    let mut client = agent_v1::agent_client::AgentClient::new(channel);
    let refused = client.renew_agent(agent_v1::RenewAgentRequest::default()).await.unwrap_err();
    assert_eq!(refused.message(), "agent must reattest instead of renew");
    let reason = avouch_proto::convert::denied_reason(&refused);
    assert_eq!(reason, Some(avouch_proto::convert::DeniedReason::AgentMustReattest));
}

/// A server whose agents live for seconds.
fn short_lived() -> ServerOptions {
    ServerOptions { server: "agent_ttl = \"12s\"".into(), ..ServerOptions::default() }
}

#[tokio::test]
async fn an_agent_renews_its_own_svid_and_comes_back_with_the_new_one() {
    let world = World::start_with(short_lived(), AgentOptions::default()).await;
    world.grant("/web").await;
    let mut agent = world.agent;
    let serial = world.server.nodes().await[0].x509svid_serial_number.clone();
    agent.daemon().line("Agent SVID renewed").await;
    eventually("the server to see the new SVID", async || {
        (world.server.nodes().await[0].x509svid_serial_number != serial).then_some(())
    })
    .await;
    agent.daemon().kill().await;
    agent.restart().await;
    agent.daemon().line("Took up the agent SVID of an earlier life").await;
    assert_eq!(agent.workload().await.fetch_x509().await.unwrap().svids.len(), 1);
    assert_eq!(world.server.nodes().await.len(), 1);
}

#[tokio::test]
async fn an_agent_that_can_attest_again_does_so_before_its_svid_ends_and_after_it_was_evicted() {
    let PkiWorld { agent, server, .. } = &PkiWorld::start(short_lived()).await;
    let node = server.nodes().await.remove(0);
    let serial = node.x509svid_serial_number.clone();
    eventually("another SVID by another attestation", async || {
        (server.nodes().await[0].x509svid_serial_number != serial).then_some(())
    })
    .await;
    let request = agent_v1::DeleteAgentRequest { id: node.id };
    server.agents().await.delete_agent(request).await.unwrap();
    agent.daemon().line("Agent needs to attest again").await;
    eventually("the node to be back", async || (server.nodes().await.len() == 1).then_some(())).await;
    assert!(agent.daemon().status().is_none(), "all in one process");
}

#[tokio::test]
async fn an_agent_whose_svid_ended_while_its_server_was_away_attests_again_if_it_can() {
    let PkiWorld { agent, server, .. } = &mut PkiWorld::start(short_lived()).await;
    server.stop().await;
    agent.daemon().line("Failed to rotate agent SVID").await;
    let ended = avouch_tests::forge::now() + 12;
    eventually("the end of the SVID", async || (avouch_tests::forge::now() > ended).then_some(())).await;
    assert!(agent.daemon().status().is_none(), "it waits for its server");
    server.restart().await;
    let request = entry("spiffe://example.org/spire/server", "/cluster", &["x509pop:subject:cn:node-7"]);
    server.create(request).await;
    server.create(entry("spiffe://example.org/cluster", "/web", &[&avouch_tests::world::my_uid()])).await;
    let svid = async || agent.workload().await.fetch_x509().await.ok();
    eventually("an identity by the new agent SVID", svid).await;
}

#[tokio::test]
async fn an_agent_whose_svid_ended_and_that_can_not_attest_again_says_so_and_stops_at_the_servers_word() {
    let mut world = World::start_with(short_lived(), AgentOptions::default()).await;
    world.server.stop().await;
    world.agent.daemon().line("The agent's SVID has ended by this machine's clock").await;
    assert!(world.agent.daemon().status().is_none(), "its clock may be wrong");
    world.server.restart().await;
    assert_eq!(world.agent.daemon().end().await.code(), Some(1));
    let log = world.agent.daemon().log();
    assert!(log.contains("does not serve this agent any more") && log.contains("new join token"), "{log}");
}

/// A web server on the loopback that hands out `body`, and the file with the private authority that signed it.
async fn web_server(dir: &std::path::Path, body: String) -> (u16, std::path::PathBuf) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut root = CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let path = dir.join("web-root.pem");
    std::fs::write(&path, root.self_signed(&root_key).unwrap().pem()).unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = vec![0; 4096];
            let _ = stream.read(&mut head).await;
            let length = body.len();
            let _ = stream
                .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes())
                .await;
            let _ = stream.shutdown().await;
        }
    });
    (port, path)
}

#[tokio::test]
async fn the_first_trust_may_come_from_a_url_whose_server_the_systems_authorities_vouch_for() {
    let server = Server::start().await;
    let proof = Proof::JoinToken(server.token().await);
    let mut agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    let (port, root) = web_server(server.dir.path(), server.bundle_pem().await).await;
    let text = std::fs::read_to_string(&agent.config).unwrap();
    let line = text.lines().find(|l| l.contains("trust_bundle_path")).unwrap();
    let url = format!("  trust_bundle_url = \"https://localhost:{port}/bundle.pem\"");
    std::fs::write(&agent.config, text.replace(line, &url)).unwrap();
    let start = |roots: &std::path::Path| {
        let mut command = std::process::Command::new(avouch_tests::daemon::binary("avouch-agent"));
        command.args(["run", "-config"]).arg(&agent.config).env("SSL_CERT_FILE", roots);
        avouch_tests::daemon::Daemon::spawn("agent", &mut command)
    };
    // Without the private authority nothing is believed, and the agent goes on trying.
    let stranger = server.dir.path().join("ab.pem");
    let wary = start(&stranger);
    let line = wary.line("unable to fetch trust bundle URL https://localhost").await;
    assert!(line.contains("SSL_CERT_FILE"), "{line}");
    assert!(wary.status().is_none());
    wary.stop().await;
    let daemon = start(&root);
    agent.adopt(daemon).await;
    assert_eq!(server.nodes().await.len(), 1);
}

#[tokio::test]
async fn an_agent_on_insecure_bootstrap_takes_the_server_at_its_word_once_and_pins_what_it_got() {
    let server = Server::start().await;
    let proof = Proof::JoinToken(server.token().await);
    let mut agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    let text = std::fs::read_to_string(&agent.config).unwrap();
    let line = text.lines().find(|l| l.contains("trust_bundle_path")).unwrap().to_owned();
    std::fs::write(&agent.config, text.replace(&line, "  insecure_bootstrap = true")).unwrap();
    agent.restart().await;
    assert!(agent.daemon().log().contains("Insecure bootstrap enabled"));
    agent.stop().await;
    agent.restart().await;
    assert!(!agent.daemon().log().contains("Insecure bootstrap enabled"), "the second time it knows");
}
