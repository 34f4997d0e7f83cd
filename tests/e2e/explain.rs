//! `avouch explain`: each of its twenty causes, produced with real daemons, and the sentence that names it.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use avouch_proto::agent_v1;
use avouch_proto::types::Entry;
use avouch_tests::cli::{self, Said};
use avouch_tests::node_pki::NodePki;
use avouch_tests::server::{free_port, private_dir, wire_id};
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, Server, ServerOptions, World, entry, eventually, forge};

const WEB: &str = "spiffe://example.org/web";

/// Who is asked about, and whom.
struct Ask<'a> {
    pid: i32,
    id: &'a str,
    server: &'a Path,
    agent: &'a Path,
    admin: &'a Path,
}

impl<'a> Ask<'a> {
    /// About this test's own process.
    fn of(server: &'a Server, agent: &'a Agent) -> Self {
        let pid = i32::try_from(std::process::id()).unwrap();
        Self { pid, id: WEB, server: &server.socket, agent: &agent.socket, admin: &agent.admin_socket }
    }

    async fn run(&self, more: &[&str]) -> Said {
        let pid = self.pid.to_string();
        let path = |p: &'a Path| p.to_str().unwrap();
        let places = [
            "explain",
            "--server-socket",
            path(self.server),
            "--agent-socket",
            path(self.agent),
            "--admin-socket",
            path(self.admin),
        ];
        cli::run("avouch", places.iter().chain(more).copied().chain([pid.as_str(), self.id])).await
    }

    /// The cause must be this one, with this exit code and sentence; gives what was said.
    async fn says(&self, cause: &str, exit: i32, sentence: &str) -> String {
        let said = self.run(&[]).await;
        assert_eq!((said.code, said.err.as_str()), (exit, ""), "{said:?}");
        assert!(said.out.starts_with(&format!("{cause}: {sentence}\n")), "{said:?}");
        assert!(said.out.contains("\nnext: "), "{said:?}");
        said.out
    }
}

fn ask(world: &World) -> Ask<'_> {
    Ask::of(&world.server, &world.agent)
}

/// A world with one entry of the ID that is asked about.
async fn with_entry(change: impl FnOnce(&mut Entry)) -> World {
    let world = World::start().await;
    let mut made = entry(&world.agent.id, "/web", &[&my_uid()]);
    change(&mut made);
    world.server.create(made).await;
    world
}

/// The answer once the agent has heard of the entry.
async fn granted(world: &World) -> Said {
    eventually("a grant", async || {
        let said = ask(world).run(&[]).await;
        assert!(matches!(said.code, 0 | 5), "{said:?}");
        (said.code == 0).then_some(said)
    })
    .await
}

/// The server goes on at another port: whoever asks on its socket is answered, the agent is not.
async fn cut_off(server: &mut Server) {
    server.stop().await;
    let text = std::fs::read_to_string(&server.config).unwrap();
    let other = text.replace(&server.port.to_string(), &free_port().to_string());
    std::fs::write(&server.config, other).unwrap();
    server.restart().await;
}

#[test]
fn every_cause_of_the_table_is_produced_here() {
    let tests = include_str!("explain.rs");
    assert_eq!(avouch::explain::TABLE.len(), 20);
    for row in avouch::explain::TABLE {
        assert!(tests.contains(&format!("\"{}\"", row.name)), "{}", row.name);
        assert!(tests.contains(&format!("\"{}\"", row.sentence)), "{}", row.sentence);
    }
}

#[tokio::test]
async fn a_process_with_a_fitting_entry_gets_the_id() {
    let world = with_entry(|_| {}).await;
    let said = granted(&world).await;
    assert!(said.out.starts_with("granted: the process gets this SPIFFE ID\n  entry: "), "{said:?}");
    // What is explained as given is given.
    assert_eq!(world.agent.workload().await.fetch_x509().await.unwrap().svids[0].spiffe_id, WEB);
    let said = ask(&world).run(&["--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &json["granted"], &json["cause"]), (0, &true.into(), &"granted".into()), "{json}");
}

#[tokio::test]
async fn a_question_that_names_no_id_is_a_wrong_call() {
    let said = cli::run("avouch", ["explain", "1", "example.org/web"]).await;
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains("invalid value 'example.org/web'"), "{said:?}");
}

#[tokio::test]
async fn a_process_that_ended() {
    let world = World::start().await;
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let asked = Ask { pid: i32::try_from(child.id()).unwrap(), ..ask(&world) };
    asked.says("process_gone", 2, "no such process runs now").await;
}

#[tokio::test]
async fn an_agent_that_is_not_there_or_has_ended() {
    let mut world = World::start().await;
    let nowhere = Ask { agent: Path::new("/nonexistent/api.sock"), ..ask(&world) };
    nowhere.says("socket_missing", 4, "the agent's Workload API socket does not exist").await;
    world.agent.stop().await;
    let sentence = "the Workload API socket is there, but nobody listens on it";
    ask(&world).says("socket_deserted", 4, sentence).await;
}

#[tokio::test]
async fn a_socket_that_the_process_may_not_open() {
    let world = with_entry(|_| {}).await;
    let mut command = Command::new("sleep");
    command.arg("1000").stdin(Stdio::null());
    let root = nix::unistd::geteuid().is_root();
    if root {
        command.uid(65_534).gid(65_534);
    }
    let mut child = command.spawn().unwrap();
    // Root may open everything, so that a process of somebody else stands for it.
    let mode = if root { 0o700 } else { 0o000 };
    std::fs::set_permissions(&world.agent.socket, std::fs::Permissions::from_mode(mode)).unwrap();
    let asked = Ask { pid: i32::try_from(child.id()).unwrap(), ..ask(&world) };
    let said = asked.run(&[]).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(said.code, 2, "{said:?}");
    let sentence = "the process may not open the Workload API socket";
    assert!(said.out.starts_with(&format!("{}: {sentence}\n", "socket_denied")), "{said:?}");
    assert!(said.out.contains("may not write "), "{said:?}");
}

#[tokio::test]
async fn an_agent_or_a_server_that_can_not_be_asked() {
    let world = with_entry(|_| {}).await;
    let nowhere = Path::new("/nonexistent/api.sock");
    let asked = Ask { admin: nowhere, ..ask(&world) };
    asked.says("agent_unreachable", 4, "the agent's administration socket does not answer").await;
    let asked = Ask { server: nowhere, ..ask(&world) };
    asked.says("server_unreachable", 4, "the server's private socket does not answer").await;
}

#[tokio::test]
async fn an_agent_that_still_waits_for_its_server() {
    let mut server = Server::start().await;
    let token = Proof::JoinToken(server.token().await);
    let agent = Agent::prepare(&server, "a", &token, &AgentOptions::default()).await;
    server.stop().await;
    let daemon = agent.spawn();
    daemon.line("Starting Admin APIs").await;
    let sentence = "the agent runs, but the server has not admitted it yet";
    Ask::of(&server, &agent).says("agent_starting", 5, sentence).await;
}

#[tokio::test]
async fn an_id_that_no_workload_of_this_agent_can_have() {
    let world = World::start().await;
    let asked = Ask { id: "spiffe://other.org/web", ..ask(&world) };
    let sentence = "the SPIFFE ID belongs to another trust domain than the agent";
    asked.says("foreign_trust_domain", 2, sentence).await;
    let asked = Ask { id: &world.agent.id, ..ask(&world) };
    let sentence = "paths below /spire are for servers and agents, never for workloads";
    asked.says("reserved_id", 2, sentence).await;
}

#[tokio::test]
async fn an_agent_that_is_behind_then_banned_then_unknown() {
    let mut world = World::start().await;
    cut_off(&mut world.server).await;
    let behind = eventually("an entry that the agent has not heard of", async || {
        let made = world.grant("/web").await;
        let said = ask(&world).run(&[]).await;
        world.server.delete(&made.id).await;
        (said.code == 5).then_some(said)
    })
    .await;
    let sentence = "everything fits, but the agent has not heard from the server since the entry was made";
    assert!(behind.out.starts_with(&format!("{}: {sentence}\n", "agent_behind")), "{behind:?}");
    let mut agents = world.server.agents().await;
    let id = Some(wire_id(&world.agent.id));
    agents.ban_agent(agent_v1::BanAgentRequest { id: id.clone() }).await.unwrap();
    ask(&world).says("agent_banned", 2, "the agent is banned").await;
    agents.delete_agent(agent_v1::DeleteAgentRequest { id }).await.unwrap();
    let sentence = "the server does not know this agent: it was evicted or belongs to another server";
    ask(&world).says("agent_unknown", 2, sentence).await;
}

#[tokio::test]
async fn an_agent_whose_own_svid_has_expired() {
    let dir = private_dir();
    let pki = NodePki::new(dir.path());
    let server = "agent_ttl = \"8s\"".to_owned();
    let options = ServerOptions { server, plugins: pki.plugin(), ..ServerOptions::default() };
    let mut server = Server::start_with(options).await;
    let mut agent = Agent::prepare(&server, "a", &pki.proof(), &AgentOptions::default()).await;
    agent.restart().await;
    cut_off(&mut server).await;
    let said = eventually("the end of the agent's SVID", async || {
        let said = Ask::of(&server, &agent).run(&[]).await;
        said.out.starts_with("agent_expired").then_some(said)
    })
    .await;
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.out.contains(": the agent's own SVID has expired\n"), "{said:?}");
    Ask::of(&server, &agent).says("agent_expired", 2, "the agent's own SVID has expired").await;
}

#[tokio::test]
async fn no_entry_of_that_id_or_one_that_has_ended() {
    let world = World::start().await;
    let sentence = "no registration entry gives this SPIFFE ID";
    ask(&world).says("no_entry", 2, sentence).await;
    let mut ended = entry(&world.agent.id, "/web", &[&my_uid()]);
    ended.expires_at = forge::now() - 1;
    world.server.create(ended).await;
    ask(&world).says("no_entry", 2, sentence).await;
}

#[tokio::test]
async fn an_entry_that_names_agents() {
    let world = with_entry(|e| e.parent_id = Some(wire_id("spiffe://example.org/spire/server"))).await;
    let sentence = "the entry's parent is the server, so it names agents and is never given to a workload";
    ask(&world).says("node_alias", 2, sentence).await;
}

#[tokio::test]
async fn an_entry_below_nobody() {
    let world = with_entry(|e| e.parent_id = Some(wire_id("spiffe://example.org/nobody"))).await;
    let sentence = "the entry's parent is neither a known agent nor given by another entry";
    ask(&world).says("parent_missing", 2, sentence).await;
}

#[tokio::test]
async fn an_entry_below_somebody_else() {
    let world = with_entry(|e| e.parent_id = Some(wire_id("spiffe://example.org/cluster"))).await;
    let others = entry("spiffe://example.org/spire/server", "/cluster", &["x509pop:subject:cn:other"]);
    world.server.create(others).await;
    let sentence = "the entry's parent is not this agent and not one of its aliases";
    ask(&world).says("other_agent", 2, sentence).await;
}

#[tokio::test]
async fn an_entry_for_a_store() {
    let world = with_entry(|e| e.store_svid = true).await;
    let sentence = "the entry's SVIDs go into a store, not to workloads";
    ask(&world).says("stored_svid", 2, sentence).await;
}

#[tokio::test]
async fn a_selector_that_the_agent_does_not_look_for() {
    let sentence = "the entry asks for a selector that this agent does not look for";
    let binary = format!("path:{}", std::env::current_exe().unwrap().display());
    for (kind, value) in [("k8s", "ns:a"), ("unix", binary.as_str())] {
        let world = with_entry(|e| {
            e.selectors[0].r#type = kind.to_owned();
            e.selectors[0].value = value.to_owned();
        })
        .await;
        let said = ask(&world).says("unseen_selector", 2, sentence).await;
        assert!(said.contains(&format!("selector: {kind}:{value}\n")), "{said}");
    }
}

#[tokio::test]
async fn an_agent_that_looks_at_binaries_gives_what_asks_for_them() {
    let unix = "discover_workload_path = true".to_owned();
    let options = AgentOptions { unix, ..AgentOptions::default() };
    let world = World::start_with(ServerOptions::default(), options).await;
    let binary = format!("unix:path:{}", std::env::current_exe().unwrap().display());
    world.server.create(entry(&world.agent.id, "/web", &[&binary])).await;
    let said = granted(&world).await;
    assert!(!said.out.contains("discover_workload_path"), "{said:?}");
    assert_eq!(world.agent.workload().await.fetch_x509().await.unwrap().svids[0].spiffe_id, WEB);
}

#[tokio::test]
async fn a_selector_that_the_process_lacks() {
    let world = with_entry(|e| e.selectors[0].value = "uid:4000000".to_owned()).await;
    let sentence = "the process lacks a selector that the entry asks for";
    let said = ask(&world).says("selector_missing", 2, sentence).await;
    assert!(said.contains("missing: unix:uid:4000000\n"), "{said}");
    assert!(said.contains(&format!("the process has: unix:gid:{}", nix::unistd::getegid())), "{said}");
}
