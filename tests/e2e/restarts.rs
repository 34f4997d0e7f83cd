//! Daemons that stop, start again, and what their callers see.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use avouch_tests::manager::Manager;
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, Server, World, entry, within};
use tonic::Code;

#[tokio::test]
async fn a_stopping_agent_ends_its_streams_as_unavailable_and_itself_with_success() {
    let mut world = World::start().await;
    world.grant("/web").await;
    let mut workload = world.agent.workload().await;
    let mut svids = workload.x509().await.unwrap();
    svids.next().await.unwrap();
    let mut bundles = workload.jwt_bundle_stream().await.unwrap();
    bundles.next().await.unwrap();
    let (ended, status) = tokio::join!(world.agent.stop(), svids.end());
    assert!(ended.success(), "{ended}");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(bundles.end().await.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_restarted_agent_keeps_its_node_and_answers_again() {
    let mut world = World::start().await;
    world.grant("/web").await;
    world.agent.stop().await;
    world.agent.restart().await;
    let answer = world.agent.workload().await.fetch_x509().await.unwrap();
    assert_eq!(answer.svids[0].spiffe_id, "spiffe://example.org/web");
    assert_eq!(world.server.nodes().await.len(), 1, "it did not attest as another node");
}

#[tokio::test]
async fn an_agent_serves_while_its_server_is_away_and_follows_it_after() {
    let mut world = World::start().await;
    world.grant("/web").await;
    let mut workload = world.agent.workload().await;
    let mut stream = workload.x509().await.unwrap();
    stream.next().await.unwrap();
    assert!(world.server.stop().await.success());
    let mut newcomer = world.agent.workload().await;
    assert_eq!(
        newcomer.fetch_x509().await.unwrap().svids.len(),
        1,
        "a new caller is answered from the cache"
    );
    world.server.restart().await;
    world.grant("/after").await;
    stream.until("the entry made after the restart", |m| m.svids.len() == 2).await;
    let log = world.agent.daemon().log();
    assert!(!log.contains("another history"), "a restart is no reason to worry: {log}");
}

#[tokio::test]
async fn a_server_that_lost_commits_is_an_alarm_and_followed_to_what_it_has() {
    let mut world = World::start().await;
    world.grant("/kept").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    stream.until("the first entry", |m| m.svids.len() == 1).await;
    world.server.stop().await;
    let (store, copy) =
        (world.server.data_dir().join("datastore.sqlite3"), world.server.dir.path().join("copy"));
    std::fs::copy(&store, &copy).unwrap();
    world.server.restart().await;
    world.grant("/lost").await;
    stream.until("the second entry", |m| m.svids.len() == 2).await;
    world.server.stop().await;
    std::fs::copy(&copy, &store).unwrap();
    world.server.restart().await;
    let line = world.agent.daemon().line("The server has another history than this agent").await;
    assert!(line.contains("level=warning"), "{line}");
    stream.until("what the server has", |m| m.svids.len() == 1).await;
}

#[tokio::test]
async fn a_restarted_server_keeps_its_authorities_and_entries() {
    let mut world = World::start().await;
    let entry = world.grant("/web").await;
    let before = world.server.bundle().await;
    world.server.stop().await;
    world.server.restart().await;
    let after = world.server.bundle().await;
    assert_eq!(before.x509_authorities, after.x509_authorities);
    assert_eq!(before.jwt_authorities, after.jwt_authorities);
    let asked = avouch_proto::entry_v1::GetEntryRequest { id: entry.id.clone(), output_mask: None };
    assert_eq!(world.server.entries().await.get_entry(asked).await.unwrap().into_inner(), entry);
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there_after() {
    let mut world = World::start().await;
    let entry = world.grant("/web").await;
    world.server.daemon().kill().await;
    world.server.restart().await;
    let asked = avouch_proto::entry_v1::GetEntryRequest { id: entry.id.clone(), output_mask: None };
    assert_eq!(world.server.entries().await.get_entry(asked).await.unwrap().into_inner(), entry);
}

#[tokio::test]
async fn a_restart_behind_a_service_managers_socket_refuses_no_connection() {
    let server = Server::start().await;
    let proof = Proof::JoinToken(server.token().await);
    let mut agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    let manager = Manager::of(&agent);
    agent.adopt(manager.spawn(&agent, None)).await;
    server.create(entry(&agent.id, "/web", &[&my_uid()])).await;
    agent.workload().await.fetch_x509().await.unwrap();
    for how in ["politely", "at once"] {
        match how {
            "politely" => assert!(agent.stop().await.success()),
            _ => agent.daemon().kill().await,
        }
        // Nobody serves now; still nobody is refused.
        let mut waiting: Vec<_> = (0..16).map(|_| UnixStream::connect(&agent.socket).unwrap()).collect();
        let socket = agent.socket.clone();
        let asked = tokio::spawn(async move {
            let mut workload = avouch_tests::workload::Workload::connect(&socket).await.unwrap();
            workload.fetch_x509().await
        });
        agent.adopt(manager.spawn(&agent, None)).await;
        waiting.push(UnixStream::connect(&agent.socket).unwrap());
        // Answered by the new agent: with the identity, or with the word that asks to try again.
        match within("the answer to a call made meanwhile", asked).await.unwrap() {
            Ok(answer) => assert_eq!(answer.svids.len(), 1),
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
        }
        assert_eq!(agent.workload().await.fetch_x509().await.unwrap().svids.len(), 1);
    }
    assert!(agent.daemon().log().contains("Took over a socket from the service manager"));
}

#[tokio::test]
async fn a_servers_restart_behind_a_service_managers_socket_refuses_no_agent() {
    let mut server = Server::prepare(&avouch_tests::ServerOptions::default());
    let tcp = std::net::TcpListener::bind(server.address()).unwrap();
    let daemon = Manager::spawn_server(&tcp, &server);
    server.adopt(daemon).await;
    let agent = Agent::start(&server).await;
    server.create(entry(&agent.id, "/web", &[&my_uid()])).await;
    let mut workload = agent.workload().await;
    let mut stream = workload.x509().await.unwrap();
    stream.next().await.unwrap();
    server.stop().await;
    // Nobody serves now; still nobody is refused.
    let _waiting = std::net::TcpStream::connect(server.address()).unwrap();
    let daemon = Manager::spawn_server(&tcp, &server);
    server.adopt(daemon).await;
    server.create(entry(&agent.id, "/after", &[&my_uid()])).await;
    stream.until("the entry made after the restart", |m| m.svids.len() == 2).await;
    let log = agent.daemon().log();
    assert!(!log.contains("Connection refused"), "{log}");
}

#[tokio::test]
async fn the_service_manager_hears_that_the_agent_is_ready_lives_and_stops() {
    let server = Server::start().await;
    let proof = Proof::JoinToken(server.token().await);
    let agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    let manager = Manager::of(&agent);
    let daemon = manager.spawn(&agent, Some(Duration::from_millis(400)));
    assert_eq!(manager.hear().await, "READY=1");
    assert!(UnixStream::connect(&agent.socket).is_ok(), "ready means: its sockets are open");
    // Twice in the limit, as long as it lives.
    for _ in 0..5 {
        assert_eq!(manager.hear().await, "WATCHDOG=1");
    }
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    let mut last = manager.hear().await;
    while last == "WATCHDOG=1" {
        last = manager.hear().await;
    }
    assert_eq!(last, "STOPPING=1");
    assert!(daemon.end().await.success());
}

#[tokio::test]
async fn an_agent_killed_at_any_moment_comes_back_as_the_same_node() {
    let mut world = World::start().await;
    world.grant("/web").await;
    for _ in 0..3 {
        world.agent.daemon().kill().await;
        world.agent.restart().await;
        assert_eq!(world.agent.workload().await.fetch_x509().await.unwrap().svids.len(), 1);
    }
    // The server first, then the agent, then the other way round.
    world.server.daemon().kill().await;
    world.agent.daemon().kill().await;
    world.server.restart().await;
    world.agent.restart().await;
    world.agent.daemon().kill().await;
    world.server.daemon().kill().await;
    let daemon = world.agent.spawn();
    daemon.line("Took up the agent SVID of an earlier life").await;
    world.server.restart().await;
    world.agent.adopt(daemon).await;
    assert_eq!(world.agent.workload().await.fetch_x509().await.unwrap().svids.len(), 1);
    assert_eq!(world.server.nodes().await.len(), 1);
}

#[tokio::test]
async fn an_agent_that_moves_to_another_address_of_its_server_stays_who_it_is() {
    let mut world = World::start().await;
    world.grant("/web").await;
    world.agent.stop().await;
    world.server.stop().await;
    let old = format!("port = \"{}\"", world.server.port);
    world.server.port = avouch_tests::server::free_port();
    let new = format!("port = \"{}\"", world.server.port);
    for path in [&world.agent.config, &world.server.config] {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(&old));
        std::fs::write(path, text.replace(&old, &new)).unwrap();
    }
    world.server.restart().await;
    world.agent.restart().await;
    assert_eq!(world.agent.workload().await.fetch_x509().await.unwrap().svids.len(), 1);
    assert_eq!(world.server.nodes().await.len(), 1);
}

#[tokio::test]
async fn a_server_set_up_anew_is_not_trusted_and_the_agent_says_what_to_do() {
    let mut world = World::start().await;
    world.agent.stop().await;
    world.server.stop().await;
    std::fs::remove_dir_all(world.server.data_dir()).unwrap();
    std::fs::create_dir(world.server.data_dir()).unwrap();
    world.server.restart().await;
    let daemon = world.agent.spawn();
    let line = daemon.line("none of the authorities trusted here").await;
    assert!(line.contains("move agent-data.json away"), "{line}");
    assert!(daemon.status().is_none(), "it waits for the right server");
    daemon.stop().await;
    // As it was told, with a token and the bundle of the new server.
    std::fs::remove_file(world.agent.data_dir.join("agent-data.json")).unwrap();
    let token = world.server.token().await;
    let text = std::fs::read_to_string(&world.agent.config).unwrap();
    let old = world.agent.id.rsplit('/').next().unwrap().to_owned();
    std::fs::write(&world.agent.config, text.replace(&old, &token)).unwrap();
    std::fs::write(world.server.dir.path().join("ab.pem"), world.server.bundle_pem().await).unwrap();
    world.agent.restart().await;
    assert_eq!(world.server.nodes().await.len(), 1);
}

#[tokio::test]
async fn a_server_of_another_trust_domain_is_named() {
    let mut world = World::start().await;
    world.agent.stop().await;
    world.server.stop().await;
    let text = std::fs::read_to_string(&world.server.config).unwrap();
    std::fs::write(&world.server.config, text.replace("example.org", "other.test")).unwrap();
    std::fs::remove_dir_all(world.server.data_dir()).unwrap();
    std::fs::create_dir(world.server.data_dir()).unwrap();
    world.server.restart().await;
    let daemon = world.agent.spawn();
    daemon.line("no X.509 authorities known for trust domain other.test").await;
}

#[tokio::test]
async fn damaged_state_is_named_with_the_way_out() {
    let mut world = World::start().await;
    world.agent.stop().await;
    for file in ["agent-data.json", "keys.json"] {
        let path = world.agent.data_dir.join(file);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let daemon = world.agent.spawn();
        assert_eq!(daemon.end().await.code(), Some(1));
        let log = daemon.log();
        assert!(log.contains(file) && log.contains("move the file away to attest anew"), "{log}");
        std::fs::write(&path, whole).unwrap();
    }
    world.agent.restart().await;
    assert_eq!(world.server.nodes().await.len(), 1, "put back, it goes on as it was");
}
