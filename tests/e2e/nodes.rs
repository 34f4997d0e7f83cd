//! Nodes: how they come in, and how they are put out.

use avouch_proto::agent_v1;
use avouch_tests::server::wire_id;
use avouch_tests::{Agent, AgentOptions, Proof, Server, ServerOptions, World, entry, eventually};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
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

/// A foreign PKI in the server's folder: a root and a node's certificate.
struct NodePki {
    root: std::path::PathBuf,
    leaf: std::path::PathBuf,
    key: std::path::PathBuf,
}

impl NodePki {
    fn new(dir: &std::path::Path) -> Self {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut leaf = CertificateParams::new(Vec::new()).unwrap();
        leaf.distinguished_name.push(DnType::CommonName, "node-7");
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let made = Self { root: dir.join("root.pem"), leaf: dir.join("leaf.pem"), key: dir.join("leaf.key") };
        std::fs::write(&made.root, root.self_signed(&root_key).unwrap().pem()).unwrap();
        let leaf = leaf.signed_by(&key, &Issuer::new(root, root_key)).unwrap();
        std::fs::write(&made.leaf, leaf.pem()).unwrap();
        std::fs::write(&made.key, key.serialize_pem()).unwrap();
        made
    }
}

#[tokio::test]
async fn a_node_certificate_admits_its_agent_again_and_again() {
    let pki_dir = avouch_tests::server::private_dir();
    let pki = NodePki::new(pki_dir.path());
    let plugins = format!(
        "NodeAttestor \"x509pop\" {{\n plugin_data {{\n ca_bundle_path = \"{}\"\n }}\n }}",
        pki.root.display()
    );
    let server = Server::start_with(ServerOptions { plugins, ..ServerOptions::default() }).await;
    let proof = Proof::X509pop(pki.leaf.clone(), pki.key.clone());
    let mut agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    agent.restart().await;
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
    let pki_dir = avouch_tests::server::private_dir();
    let pki = NodePki::new(pki_dir.path());
    let plugins = format!(
        "NodeAttestor \"x509pop\" {{\n plugin_data {{\n ca_bundle_path = \"{}\"\n }}\n }}",
        pki.root.display()
    );
    let server = Server::start_with(ServerOptions { plugins, ..ServerOptions::default() }).await;
    let proof = Proof::X509pop(pki.leaf.clone(), pki.key.clone());
    let mut agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    agent.restart().await;
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
    let pki_dir = avouch_tests::server::private_dir();
    let pki = NodePki::new(pki_dir.path());
    let plugins = format!(
        "NodeAttestor \"x509pop\" {{\n plugin_data {{\n ca_bundle_path = \"{}\"\n }}\n }}",
        pki.root.display()
    );
    let server = Server::start_with(ServerOptions { plugins, ..ServerOptions::default() }).await;
    let proof = Proof::X509pop(pki.leaf.clone(), pki.key.clone());
    let mut agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    agent.restart().await;
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
