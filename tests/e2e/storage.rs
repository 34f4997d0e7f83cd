//! What the server keeps: backup and restore beside real agents, damage, and ends that come by time.

use std::time::{SystemTime, UNIX_EPOCH};

use avouch_proto::{agent_v1, types};
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, Server, ServerOptions, World, cli, entry, eventually};
use tonic::Code;

#[allow(clippy::disallowed_methods)] // ends by time are compared with the real one
fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

async fn verb(server: &Server, verb: &str, file: &std::path::Path) -> cli::Said {
    let config = server.config.as_os_str();
    cli::run("avouch-server", [verb.as_ref(), "-config".as_ref(), config, file.as_os_str()]).await
}

#[tokio::test]
async fn a_backup_of_a_running_server_is_restored_and_its_agents_follow() {
    let mut world = World::start().await;
    world.grant("/kept").await;
    let file = world.server.dir.path().join("backup");
    let said = verb(&world.server, "backup", &file).await;
    assert!(said.code == 0 && said.out.contains("at revision"), "{said:?}");
    let twice = verb(&world.server, "backup", &file).await;
    assert!(twice.code == 1 && twice.err.contains("is not overwritten"), "{twice:?}");

    world.grant("/lost").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    stream.until("both identities", |m| m.svids.len() == 2).await;
    let busy = verb(&world.server, "restore", &file).await;
    assert!(busy.code == 1 && busy.err.contains("is used by a running server"), "{busy:?}");

    world.server.stop().await;
    let said = verb(&world.server, "restore", &file).await;
    assert!(said.code == 0 && said.out.contains("in a new epoch"), "{said:?}");
    assert!(said.out.contains("The store that was there is now"), "{said:?}");
    world.server.restart().await;
    // The revision of the backup is behind what the agent has seen: only the epoch tells it to start anew.
    let answer = stream.until("what the backup holds", |m| m.svids.len() == 1).await;
    assert_eq!(answer.svids[0].spiffe_id, "spiffe://example.org/kept");
    world.grant("/new").await;
    stream.until("what came after", |m| m.svids.len() == 2).await;
}

#[tokio::test]
async fn a_damaged_keys_file_stops_the_server_and_is_left_as_it_is() {
    let mut server = Server::start().await;
    server.stop().await;
    let path = server.data_dir().join("keys.json");
    let whole = std::fs::read(&path).unwrap();
    let torn = &whole[..whole.len() / 2];
    std::fs::write(&path, torn).unwrap();
    let daemon = server.spawn();
    assert_eq!(daemon.end().await.code(), Some(1));
    let log = daemon.log();
    assert!(log.contains("keys.json is no key file") && log.contains("expected"), "{log}");
    assert_eq!(std::fs::read(&path).unwrap(), torn);
    // With the file back in its place nothing was lost.
    std::fs::write(&path, whole).unwrap();
    server.restart().await;
    assert_eq!(server.bundle().await.x509_authorities.len(), 1);
}

#[tokio::test]
async fn a_missing_keys_file_stops_the_server_and_no_other_takes_its_place() {
    let mut server = Server::start().await;
    let before = server.bundle().await;
    server.stop().await;
    let path = server.data_dir().join("keys.json");
    let kept = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let daemon = server.spawn();
    assert_eq!(daemon.end().await.code(), Some(1));
    let log = daemon.log();
    assert!(log.contains("keys.json is missing") && log.contains("put it back from a backup"), "{log}");
    assert!(!path.exists());
    std::fs::write(&path, kept).unwrap();
    server.restart().await;
    assert_eq!(server.bundle().await, before, "with the file back nothing was lost");
    server.stop().await;
    // What the message offers to those who have no backup.
    std::fs::write(&path, "{\"keys\": {}}").unwrap();
    server.restart().await;
    assert_eq!(
        server.bundle().await.x509_authorities.len(),
        2,
        "a new authority beside the one that was lost"
    );
}

#[tokio::test]
async fn a_damaged_database_stops_the_server_and_is_left_as_it_is() {
    let mut server = Server::start().await;
    server.stop().await;
    let path = server.data_dir().join("datastore.sqlite3");
    let mut bytes = std::fs::read(&path).unwrap();
    for page in 1..bytes.len() / 4096 {
        bytes[page * 4096..page * 4096 + 64].fill(0xee);
    }
    std::fs::write(&path, &bytes).unwrap();
    let daemon = server.spawn();
    assert_eq!(daemon.end().await.code(), Some(1));
    let log = daemon.log();
    assert!(log.contains("is damaged") && log.contains("nothing was changed"), "{log}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[tokio::test]
async fn a_late_token_admits_nobody_and_the_agent_says_that_it_expired() {
    let server = Server::start().await;
    let request = agent_v1::CreateJoinTokenRequest { ttl: 1, ..Default::default() };
    let token = server.agents().await.create_join_token(request).await.unwrap().into_inner();
    eventually("the token's end", async || (now() > token.expires_at).then_some(())).await;
    let proof = Proof::JoinToken(token.value);
    let agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await.spawn();
    agent.line("join token expired").await;
    let nodes = server.nodes().await;
    assert!(nodes.is_empty());
}

#[tokio::test]
async fn an_identity_ends_on_the_open_stream_at_the_second_its_entry_ends() {
    let world = World::start().await;
    let mut item = entry(&world.agent.id, "/short", &[&my_uid()]);
    item.expires_at = now() + 3;
    let made: types::Entry = world.server.create(item).await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    stream.until("the identity", |m| m.svids.len() == 1).await;
    let end = stream.end().await;
    let at = now();
    assert_eq!((end.code(), end.message()), (Code::PermissionDenied, "no identity issued"));
    assert!((made.expires_at..=made.expires_at + 2).contains(&at), "ended at {at}, not {}", made.expires_at);
}

#[tokio::test]
async fn an_svid_of_the_trust_domain_admits_its_node_in_mode_spiffe_under_the_id_of_the_template() {
    let plugins = r#"NodeAttestor "x509pop" { plugin_data {
        mode = "spiffe"
        spiffe_prefix = "/machines/"
        agent_path_template = "/pop/{{ .SVIDPathTrimmed | upper }}"
    } }"#;
    let server = Server::start_with(ServerOptions { plugins: plugins.into(), ..Default::default() }).await;
    let mint = async |path: &str| {
        let dir = server.dir.path().join(path);
        std::fs::create_dir(&dir).unwrap();
        let id = format!("spiffe://example.org/{path}/n7");
        let socket = server.socket.to_str().unwrap();
        let dir_text = dir.to_str().unwrap();
        let args = ["x509", "mint", "-socketPath", socket, "-spiffeID", &id, "-write", dir_text];
        let said = cli::run("avouch-server", args).await;
        assert_eq!(said.code, 0, "{said:?}");
        Proof::X509pop(dir.join("svid.pem"), dir.join("key.pem"))
    };
    let other =
        Agent::prepare(&server, "b", &mint("workloads").await, &AgentOptions::default()).await.spawn();
    other.line("is not below spiffe_prefix").await;
    let mut agent = Agent::prepare(&server, "a", &mint("machines").await, &AgentOptions::default()).await;
    agent.restart().await;
    let node = eventually("the node", async || server.nodes().await.into_iter().next()).await;
    assert_eq!(node.id.unwrap().path, "/spire/agent/pop/N7");
}
