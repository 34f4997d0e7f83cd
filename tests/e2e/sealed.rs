//! The sealed state: what a restarted agent serves while its server is away, and what it must not.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use avouch_credential::sealing::Sealer;
use avouch_proto::workload::X509svidResponse;
use avouch_proto::{agent_v1, bundle_v1, sealed_v1, types};
use avouch_tests::daemon::Daemon;
use avouch_tests::forge::{Authority, now};
use avouch_tests::node_pki::NodePki;
use avouch_tests::server::{free_port, wire_id};
use avouch_tests::workload::Workload;
use avouch_tests::world::my_uid;
use avouch_tests::{
    Agent, AgentOptions, Proof, Server, ServerOptions, World, cli, entry, eventually, within,
};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use prost::Message as _;
use tempfile::TempDir;
use tonic::Code;

use avouch_tests::http::get;

/// How long a stream must stay silent to count as silent.
const SILENCE: Duration = Duration::from_millis(500);
/// A start that takes longer is broken, whatever the machine does besides. The bar on a quiet one is 150 ms.
const START_MAX: Duration = Duration::from_secs(2);

/// Waits until the agent has sealed so many SVIDs.
async fn sealed(agent: &Agent, x509: usize, jwt: usize) {
    agent.daemon().line(&format!("jwt={jwt} subsystem_name=sealed x509={x509}")).await;
}

fn state_of(agent: &Agent) -> PathBuf {
    agent.data_dir.join("sealed-state")
}

fn envelope(agent: &Agent) -> Option<sealed_v1::Envelope> {
    sealed_v1::Envelope::decode(std::fs::read(state_of(agent)).ok()?.as_slice()).ok()
}

#[allow(clippy::disallowed_methods)] // a real start is measured
fn clock() -> Instant {
    Instant::now()
}

/// The first answer of an agent that has just been started, asked for again and again.
async fn first_answer(socket: &Path) -> X509svidResponse {
    within("the first SVID", async {
        loop {
            if let Ok(mut workload) = Workload::connect(socket).await
                && let Ok(answer) = workload.fetch_x509().await
            {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
}

/// Starts the killed agent; its first answer, and how long after the start that was.
async fn revive(agent: &mut Agent) -> (X509svidResponse, Duration) {
    // What the killed one left would be taken for a listener.
    let _ = std::fs::remove_file(&agent.socket);
    let begun = clock();
    let daemon = agent.spawn();
    let answer = first_answer(&agent.socket).await;
    let took = begun.elapsed();
    agent.adopt(daemon).await;
    (answer, took)
}

/// A foreign bundle and an entry that federates with it.
async fn federate(world: &World) {
    let foreign = Authority::fresh("spiffe://other.org").der;
    let bundle = types::Bundle {
        trust_domain: "other.org".to_owned(),
        x509_authorities: vec![types::X509Certificate { asn1: foreign, tainted: false }],
        ..Default::default()
    };
    let request = bundle_v1::BatchSetFederatedBundleRequest { bundle: vec![bundle], output_mask: None };
    world.server.bundles().await.batch_set_federated_bundle(request).await.unwrap();
    let web = types::Entry {
        federates_with: vec!["other.org".to_owned()],
        ..entry(&world.agent.id, "/web", &[&my_uid()])
    };
    world.server.create(web).await;
}

#[tokio::test]
async fn a_killed_agent_serves_all_it_had_at_once_while_its_server_is_away() {
    let mut world = World::start().await;
    federate(&world).await;
    let mut workload = world.agent.workload().await;
    let mut stream = workload.x509().await.unwrap();
    let before = stream.until("the foreign bundle", |m| !m.federated_bundles.is_empty()).await;
    let token = workload.jwt(&["cached"], "").await.unwrap();
    let bundles = workload.x509_bundles().await.unwrap();
    let keys = workload.jwt_bundle_stream().await.unwrap().next().await.unwrap();
    sealed(&world.agent, 1, 1).await;
    world.server.daemon().kill().await;
    let mut times = Vec::new();
    for _ in 0..5 {
        world.agent.daemon().kill().await;
        let (answer, took) = revive(&mut world.agent).await;
        assert_eq!(answer, before, "keys, hints and bundles too");
        times.push(took);
    }
    println!("from the start of the process to the first SVID: {times:?}");
    let best = times.iter().min().unwrap();
    assert!(*best <= START_MAX, "{times:?}");
    let mut workload = world.agent.workload().await;
    assert_eq!(workload.jwt(&["cached"], "").await.unwrap(), token);
    assert_eq!(workload.x509_bundles().await.unwrap(), bundles);
    assert_eq!(workload.jwt_bundle_stream().await.unwrap().next().await.unwrap(), keys);
    workload.validate("cached", &token[0].svid).await.unwrap();
    let status = workload.jwt(&["never asked for before"], "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let said =
        cli::run("avouch-agent", ["healthcheck", "-socketPath", world.agent.socket.to_str().unwrap()]).await;
    assert_eq!(said.code, 0, "{said:?}");
}

#[tokio::test]
async fn who_has_no_identity_by_what_was_left_is_denied_none_before_the_server_is_heard() {
    let mut world = World::start().await;
    sealed(&world.agent, 0, 0).await;
    world.agent.daemon().kill().await;
    world.grant("/meanwhile").await;
    world.server.stop().await;
    let daemon = world.agent.spawn();
    daemon.line("Serves what an earlier life left").await;
    world.agent.adopt(daemon).await;
    let mut workload = world.agent.workload().await;
    for status in [workload.fetch_x509().await.unwrap_err(), workload.jwt(&["x"], "").await.unwrap_err()] {
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    }
    world.server.restart().await;
    let answer = async || workload.fetch_x509().await.ok();
    assert_eq!(eventually("the identity", answer).await.svids[0].spiffe_id, "spiffe://example.org/meanwhile");
}

#[tokio::test]
async fn a_server_that_is_back_makes_everything_fresh() {
    let mut world = World::start().await;
    let old = world.grant("/old").await;
    world.agent.workload().await.fetch_x509().await.unwrap();
    sealed(&world.agent, 1, 0).await;
    world.agent.daemon().kill().await;
    world.server.delete(&old.id).await;
    world.server.stop().await;
    assert_eq!(revive(&mut world.agent).await.0.svids[0].spiffe_id, "spiffe://example.org/old");
    let mut workload = world.agent.workload().await;
    let mut stream = workload.x509().await.unwrap();
    stream.next().await.unwrap();
    world.server.restart().await;
    let begun = clock();
    world.grant("/new").await;
    stream
        .until("the new entry alone", |m| m.svids.len() == 1 && m.svids[0].spiffe_id.ends_with("/new"))
        .await;
    println!("from the server's return to a new entry: {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(world.server.nodes().await.len(), 1, "the same node");
}

/// An agent with a health listener.
async fn with_health(server: ServerOptions) -> (World, u16) {
    let server = Server::start_with(server).await;
    let proof = Proof::JoinToken(server.token().await);
    let mut agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    let port = free_port();
    let more = format!(
        "health_checks {{\n listener_enabled = true\n bind_port = \"{port}\"\n bind_address = \"127.0.0.1\"\n }}\n"
    );
    let text = std::fs::read_to_string(&agent.config).unwrap();
    std::fs::write(&agent.config, text + &more).unwrap();
    agent.restart().await;
    (World { agent, server }, port)
}

async fn readiness(port: u16) -> (u16, String) {
    eventually("the health listener", async || get(port, "/ready").await).await
}

async fn is_silent(agent: &Agent) -> bool {
    let mut stream = agent.workload().await.x509().await.unwrap();
    tokio::time::timeout(SILENCE, stream.0.message()).await.is_err()
}

#[tokio::test]
async fn past_their_end_no_svid_is_served_and_readiness_says_why() {
    const LIFE: i32 = 8;
    let (mut world, port) = with_health(ServerOptions::default()).await;
    let short = types::Entry {
        x509_svid_ttl: LIFE,
        jwt_svid_ttl: LIFE,
        ..entry(&world.agent.id, "/short", &[&my_uid()])
    };
    world.server.create(short).await;
    let mut workload = world.agent.workload().await;
    workload.fetch_x509().await.unwrap();
    workload.jwt(&["x"], "").await.unwrap();
    sealed(&world.agent, 1, 1).await;
    world.agent.daemon().kill().await;
    world.server.daemon().kill().await;
    // In this life they are served to their end, in the next not at all.
    let daemon = world.agent.spawn();
    daemon.line("Serves what an earlier life left").await;
    world.agent.adopt(daemon).await;
    let why = "every X509-SVID has ended, and the server has not been reached";
    let unready = async || Some(readiness(port).await).filter(|(_, body)| body.contains(why));
    assert_eq!(eventually("the end of the SVID", unready).await.0, 500);
    for life in ["first", "second"] {
        assert!(is_silent(&world.agent).await, "{life}");
        let status = world.agent.workload().await.jwt(&["x"], "").await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{life}: {status:?}");
        let (status, body) = readiness(port).await;
        assert!(status == 500 && body.contains(why), "{life}: {body}");
        let socket = world.agent.socket.to_str().unwrap();
        assert_ne!(cli::run("avouch-agent", ["healthcheck", "-socketPath", socket]).await.code, 0, "{life}");
        world.agent.daemon().kill().await;
        world.agent.restart().await;
    }
    let mut workload = world.agent.workload().await;
    let mut stream = workload.x509().await.unwrap();
    world.server.restart().await;
    assert_eq!(stream.next().await.unwrap().svids[0].spiffe_id, "spiffe://example.org/short");
    assert_eq!(readiness(port).await.0, 200);
}

#[tokio::test]
async fn past_the_end_of_the_agents_own_svid_nothing_is_served_and_readiness_says_why() {
    let options = ServerOptions { server: "agent_ttl = \"5s\"".into(), ..ServerOptions::default() };
    let (world, port) = with_health(options).await;
    world.grant("/web").await;
    world.agent.workload().await.fetch_x509().await.unwrap();
    sealed(&world.agent, 1, 0).await;
    world.server.daemon().kill().await;
    world.agent.daemon().kill().await;
    let end = now() + 6;
    eventually("the end of the agent's SVID", async || (now() > end).then_some(())).await;
    let daemon = world.agent.spawn();
    daemon.line("Agent SVID has expired").await;
    let (status, body) = readiness(port).await;
    assert!(status == 500 && body.contains("the agent's own SVID ended at 20"), "{body}");
    let refused = world.agent.workload().await.fetch_x509().await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
}

/// Makes the stopped agent's state one that was written this much later, as if the clock had been set back since.
fn set_back(agent: &Agent, by: Duration) {
    let envelope = envelope(agent).unwrap();
    let secret = std::fs::read(agent.data_dir.join("sealing-secret")).unwrap();
    let sealer = Sealer::new(&secret.try_into().unwrap(), "avouch.sealed.v1").unwrap();
    let sealed_v1::Envelope { version, trust_domain, agent_id, serial, sealed } = envelope.clone();
    let owner = format!("{version}\n{trust_domain}\n{agent_id}\n{serial}");
    let plain = sealer.open(owner.as_bytes(), sealed).unwrap();
    let mut state = sealed_v1::State::decode(plain.as_slice()).unwrap();
    state.latest_ms += i64::try_from(by.as_millis()).unwrap();
    let sealed = sealer.seal(owner.as_bytes(), state.encode_to_vec().into()).unwrap();
    let bytes = sealed_v1::Envelope { sealed, ..envelope }.encode_to_vec();
    std::fs::write(state_of(agent), bytes).unwrap();
}

#[tokio::test]
async fn a_clock_that_was_set_back_revives_nothing_and_costs_nothing_once_the_server_is_heard() {
    let mut world = World::start().await;
    let minute = types::Entry { x509_svid_ttl: 60, ..entry(&world.agent.id, "/minute", &[&my_uid()]) };
    world.server.create(minute).await;
    world.agent.workload().await.fetch_x509().await.unwrap();
    sealed(&world.agent, 1, 0).await;
    // Past the end of the workload's SVID, then past that of the agent's own.
    for (by, message) in
        [(120, "Serves what an earlier life left"), (10 * 365 * 86_400, "Sealed state ignored")]
    {
        world.agent.daemon().kill().await;
        world.server.stop().await;
        set_back(&world.agent, Duration::from_secs(by));
        let daemon = world.agent.spawn();
        daemon.line(message).await;
        daemon.line("Server not reached").await;
        match world.agent.workload().await.x509().await {
            Ok(mut stream) => {
                let answer = tokio::time::timeout(SILENCE, stream.0.message()).await;
                assert!(!matches!(answer, Ok(Ok(_))), "{by}: {answer:?}");
            }
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{by}: {status:?}"),
        }
        world.server.restart().await;
        world.agent.adopt(daemon).await;
        let answer = async || world.agent.workload().await.fetch_x509().await.ok();
        assert_eq!(eventually("an SVID", answer).await.svids.len(), 1, "{by}");
        let fresh = async || {
            envelope(&world.agent).filter(|_| world.agent.daemon().log().contains("Sealed state written"))
        };
        eventually("a state of now", fresh).await;
    }
    assert_eq!(world.server.nodes().await.len(), 1);
}

#[tokio::test]
async fn a_renewed_agent_svid_takes_the_state_over() {
    let options = ServerOptions { server: "agent_ttl = \"12s\"".into(), ..ServerOptions::default() };
    let mut world = World::start_with(options, AgentOptions::default()).await;
    world.grant("/web").await;
    world.agent.workload().await.fetch_x509().await.unwrap();
    sealed(&world.agent, 1, 0).await;
    let serial = envelope(&world.agent).unwrap().serial;
    world.agent.daemon().line("Agent SVID renewed").await;
    let renewed = async || envelope(&world.agent).filter(|now| now.serial != serial);
    eventually("a state for the new SVID", renewed).await;
    world.server.daemon().kill().await;
    world.agent.daemon().kill().await;
    assert_eq!(revive(&mut world.agent).await.0.svids.len(), 1);
}

#[tokio::test]
async fn a_ban_and_an_eviction_erase_the_state() {
    for banned in [true, false] {
        let world = World::start().await;
        world.grant("/web").await;
        world.agent.workload().await.fetch_x509().await.unwrap();
        sealed(&world.agent, 1, 0).await;
        let secret = world.agent.data_dir.join("sealing-secret");
        assert!(state_of(&world.agent).exists() && secret.exists());
        let id = Some(wire_id(&world.agent.id));
        let mut agents = world.server.agents().await;
        if banned {
            agents.ban_agent(agent_v1::BanAgentRequest { id }).await.unwrap();
        } else {
            agents.delete_agent(agent_v1::DeleteAgentRequest { id }).await.unwrap();
        }
        assert_eq!(world.agent.daemon().end().await.code(), Some(1));
        assert!(!state_of(&world.agent).exists() && !secret.exists(), "banned: {banned}");
    }
}

#[tokio::test]
async fn a_node_that_attests_anew_begins_with_an_empty_state() {
    let dir = avouch_tests::server::private_dir();
    let pki = NodePki::new(dir.path());
    let options = ServerOptions { plugins: pki.plugin(), ..ServerOptions::default() };
    let server = Server::start_with(options).await;
    let mut agent = Agent::prepare(&server, "a", &pki.proof(), &AgentOptions::default()).await;
    agent.restart().await;
    let node = eventually("the node", async || server.nodes().await.into_iter().next()).await;
    // Evicted, it attests again in the same life.
    let sealed = async |agent: &Agent| {
        let serial = server.nodes().await[0].x509svid_serial_number.clone();
        envelope(agent).filter(|state| state.serial == serial)
    };
    eventually("a state", async || sealed(&agent).await).await;
    let request = agent_v1::DeleteAgentRequest { id: node.id };
    server.agents().await.delete_agent(request).await.unwrap();
    agent.daemon().line("Sealed state erased").await;
    eventually("the node", async || server.nodes().await.into_iter().next()).await;
    eventually("a state for the new SVID", async || sealed(&agent).await).await;
    // Without its own SVID it does so in the next.
    agent.stop().await;
    std::fs::remove_file(agent.data_dir.join("agent-data.json")).unwrap();
    agent.restart().await;
    agent.daemon().line("Sealed state erased").await;
}

#[tokio::test]
async fn a_torn_or_foreign_state_is_ignored_with_a_message() {
    let mut world = World::start().await;
    world.grant("/web").await;
    world.agent.workload().await.fetch_x509().await.unwrap();
    sealed(&world.agent, 1, 0).await;
    world.agent.stop().await;
    let whole = std::fs::read(state_of(&world.agent)).unwrap();
    let mut foreign = envelope(&world.agent).unwrap();
    foreign.agent_id = "spiffe://example.org/spire/agent/other".to_owned();
    let torn = (whole[..whole.len() / 2].to_vec(), "Sealed state ignored");
    let foreign = (foreign.encode_to_vec(), "it is of agent ");
    for (bytes, message) in [torn, foreign] {
        std::fs::write(state_of(&world.agent), bytes).unwrap();
        let daemon = world.agent.spawn();
        daemon.line(message).await;
        world.agent.adopt(daemon).await;
        assert_eq!(world.agent.workload().await.fetch_x509().await.unwrap().svids.len(), 1, "by the server");
        world.agent.stop().await;
    }
}

/// An agent with its keys in memory and this folder for the sealed state.
async fn in_memory(dir: &Path) -> World {
    let options = AgentOptions {
        agent: format!("experimental {{\n sealed_state_dir = \"{}\"\n }}", dir.display()),
        key_manager: Some("KeyManager \"memory\" {\n plugin_data {}\n }".to_owned()),
        ..AgentOptions::default()
    };
    World::start_with(ServerOptions::default(), options).await
}

fn on_tmpfs(path: &Path) -> bool {
    statfs(path).is_ok_and(|facts| facts.filesystem_type() == TMPFS_MAGIC)
}

/// A folder on tmpfs; `None`, and a word about it, where the machine has none.
#[allow(clippy::print_stdout)] // what did not run must be seen
fn memory_folder() -> Option<TempDir> {
    let shared = ["/dev/shm", "/run"].map(Path::new).into_iter().find(|path| on_tmpfs(path));
    let made = shared.and_then(|path| tempfile::Builder::new().prefix("av").tempdir_in(path).ok());
    if made.is_none() {
        println!("not run: neither /dev/shm nor /run is a tmpfs to write to");
    }
    made
}

fn names(dir: &Path) -> Vec<String> {
    let list = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = list.map(|f| f.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn an_agent_with_its_keys_in_memory_goes_on_from_a_folder_in_memory() {
    let Some(memory) = memory_folder() else { return };
    let mut world = in_memory(memory.path()).await;
    world.grant("/web").await;
    let before = world.agent.workload().await.fetch_x509().await.unwrap();
    sealed(&world.agent, 1, 0).await;
    world.server.daemon().kill().await;
    world.agent.daemon().kill().await;
    // A new pod: nothing of the old one is left but what is in memory.
    assert_eq!(names(&world.agent.data_dir), ["agent-data.json", "agent.lock", "records", "runs", "salts"]);
    std::fs::remove_file(world.agent.data_dir.join("agent-data.json")).unwrap();
    let (answer, took) = revive(&mut world.agent).await;
    println!("from the start of the process to the first SVID: {took:?}");
    assert_eq!(answer, before);
    assert_eq!(names(memory.path()), ["agent-data.json", "keys.json", "sealed-state", "sealing-secret"]);
    world.server.restart().await;
    world.grant("/new").await;
    let mut workload = world.agent.workload().await;
    workload.x509().await.unwrap().until("the new entry", |m| m.svids.len() == 2).await;
    assert_eq!(world.server.nodes().await.len(), 1, "the same node");
}

#[tokio::test]
async fn an_agent_with_its_keys_in_memory_keeps_nothing_on_a_disk() {
    let disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    if on_tmpfs(disk.path()) {
        println!("not run: {} is a tmpfs", disk.path().display());
        return;
    }
    let mut world = in_memory(disk.path()).await;
    world.grant("/web").await;
    world.agent.workload().await.fetch_x509().await.unwrap();
    world.agent.daemon().line("Keeps nothing for a start without the server").await;
    world.server.daemon().kill().await;
    world.agent.stop().await;
    assert_eq!(names(disk.path()), Vec::<String>::new());
    assert_eq!(names(&world.agent.data_dir), ["agent-data.json", "agent.lock", "records", "runs", "salts"]);
    let daemon: Daemon = world.agent.spawn();
    daemon.line("Failed to attest the node").await;
    let status = world.agent.workload().await.fetch_x509().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}
