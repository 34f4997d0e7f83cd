//! An agent before a SPIRE-compatible server that is not ours: no stream of changes, only SPIRE's own methods, and
//! connections that end every few minutes.

use std::time::Duration;

use avouch_proto::governance_v1::IdentityRequest;
use avouch_proto::governance_v1::governance_client::GovernanceClient;
use avouch_tests::foreign::{Foreign, Manners};
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, Server, entry, eventually};

use crate::governed::{CODER, first_person, good};

const WATCH: &str = "/avouch.watch.v1.Watch/";
const SYNC: &str = "/spire.api.server.entry.v1.Entry/SyncAuthorizedEntries";

/// A server, an agent, and between them the door that the agent believes to be the server.
struct Abroad {
    agent: Agent,
    door: Foreign,
    server: Server,
}

impl Abroad {
    async fn start(manners: Manners, interval: &str) -> Self {
        let server = Server::start().await;
        let proof = Proof::JoinToken(server.token().await);
        let agent = format!("experimental {{\n sync_interval = \"{interval}\"\n }}");
        let options = AgentOptions { agent, ..AgentOptions::default() };
        let mut agent = Agent::prepare(&server, "a", &proof, &options).await;
        let door = Foreign::before(&server, &agent.data_dir, manners).await;
        let text = std::fs::read_to_string(&agent.config).unwrap();
        let (ours, theirs) =
            (format!("server_port = \"{}\"", server.port), format!("server_port = \"{}\"", door.port));
        assert!(text.contains(&ours));
        std::fs::write(&agent.config, text.replace(&ours, &theirs)).unwrap();
        agent.restart().await;
        Self { agent, door, server }
    }

    async fn grant(&self, path: &str) -> avouch_proto::types::Entry {
        self.server.create(entry(&self.agent.id, path, &[&my_uid()])).await
    }

    /// Follows entries that come, change and go, and says how often `method` was called meanwhile each time.
    async fn follow(&self, method: &str) -> Vec<usize> {
        let mut rounds = Vec::new();
        let first = self.grant("/one").await;
        let mut workload = self.agent.workload().await;
        let mut stream = eventually("the first identity", async || {
            let mut stream = workload.x509().await.ok()?;
            stream.next().await.ok().map(|_| stream)
        })
        .await;
        let before = self.door.calls(method);
        let second = self.grant("/two").await;
        stream.until("a second identity", |m| m.svids.len() == 2).await;
        rounds.push(self.door.calls(method) - before);
        let before = self.door.calls(method);
        self.server.update(avouch_proto::types::Entry { hint: "second".into(), ..second }).await;
        stream.until("the new hint", |m| m.svids.iter().any(|s| s.hint == "second")).await;
        rounds.push(self.door.calls(method) - before);
        let before = self.door.calls(method);
        self.server.delete(&first.id).await;
        let left = stream.until("the withdrawal", |m| m.svids.len() == 1).await;
        rounds.push(self.door.calls(method) - before);
        assert_eq!(left.svids[0].spiffe_id, "spiffe://example.org/two");
        rounds
    }
}

/// One call may be under way when the change is made; the next brings it.
fn within_one_interval(rounds: &[usize]) {
    assert!(rounds.iter().all(|calls| *calls <= 2), "calls until each change came: {rounds:?}");
}

#[tokio::test]
async fn a_server_without_our_stream_delivers_the_same_within_one_sync_interval() {
    let manners = Manners { unknown: vec![WATCH], ..Manners::default() };
    let abroad = Abroad::start(manners, "1s").await;
    within_one_interval(&abroad.follow("/SyncAuthorizedEntries").await);
    assert_eq!(abroad.door.calls("/GetAuthorizedEntries"), 0);
    assert_eq!(abroad.door.calls("/Follow"), 1, "the stream is not asked for at every turn");
    let token = abroad.agent.workload().await.jwt(&["x"], "").await.unwrap();
    assert_eq!(token[0].spiffe_id, "spiffe://example.org/two");
}

#[tokio::test]
async fn an_agent_that_only_polls_loses_a_paused_identity_with_its_next_sync() {
    let manners = Manners { unknown: vec![WATCH], ..Manners::default() };
    let abroad = Abroad::start(manners, "1s").await;
    first_person(&abroad.server).await;
    good(&abroad.server, CODER).await;
    abroad.grant("/test/coder").await;
    let mut workload = abroad.agent.workload().await;
    let mut stream = eventually("the first identity", async || {
        let mut stream = workload.x509().await.ok()?;
        stream.next().await.ok().map(|_| stream)
    })
    .await;
    abroad.grant("/other").await;
    stream.until("both identities", |m| m.svids.len() == 2).await;
    let mut people = GovernanceClient::new(abroad.server.channel().await);
    let before = abroad.door.calls("/SyncAuthorizedEntries");
    let request = IdentityRequest { name: "coder".into() };
    let paused = people.pause_identity(request).await.unwrap().into_inner();
    let left = stream.until("the pause", |m| m.svids.len() == 1).await;
    within_one_interval(&[abroad.door.calls("/SyncAuthorizedEntries") - before]);
    assert_eq!(left.svids[0].spiffe_id, "spiffe://example.org/other");
    // Whoever does not follow confirms nothing, and is not said to have.
    let nodes: Vec<_> = paused.nodes.iter().map(|node| (node.node.as_str(), node.confirmed)).collect();
    assert_eq!(nodes, [(abroad.agent.id.as_str(), false)]);
}

#[tokio::test]
async fn a_server_of_old_that_knows_no_sync_is_asked_for_all_entries() {
    let manners = Manners { unknown: vec![WATCH, SYNC], ..Manners::default() };
    let abroad = Abroad::start(manners, "1s").await;
    within_one_interval(&abroad.follow("/GetAuthorizedEntries").await);
    assert_eq!(abroad.door.calls("/SyncAuthorizedEntries"), 1, "once is enough to know");
}

/// Lines of the agent's log that an operator would look at.
fn complaints(agent: &Agent) -> Vec<String> {
    let log = agent.daemon().log();
    let bad = |line: &&str| line.contains("level=warning") || line.contains("level=error");
    // Of the settings that the test itself makes, and of its question before there is an entry.
    let known = |line: &&str| {
        line.contains("Experimental features have been enabled") || line.contains("No identity issued")
    };
    log.lines().filter(bad).filter(|l| !known(l)).map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn connections_that_end_are_normal_life_for_a_polling_agent() {
    let age = Some(Duration::from_millis(300));
    let abroad = Abroad::start(Manners { unknown: vec![WATCH], age }, "100ms").await;
    within_one_interval(&abroad.follow("/SyncAuthorizedEntries").await);
    let begun = abroad.door.connections();
    eventually("ten more connections", async || (abroad.door.connections() >= begun + 10).then_some(()))
        .await;
    assert_eq!(complaints(&abroad.agent), Vec::<String>::new());
}

#[tokio::test]
async fn connections_that_end_are_normal_life_for_a_following_agent() {
    let age = Some(Duration::from_millis(300));
    let abroad = Abroad::start(Manners { unknown: vec![], age }, "5s").await;
    abroad.grant("/one").await;
    let mut workload = abroad.agent.workload().await;
    let mut stream = workload.x509().await.unwrap();
    stream.until("the first identity", |m| m.svids.len() == 1).await;
    for count in 2..=6 {
        let door = &abroad.door;
        eventually("every connection to be asked to end", async || {
            (door.ended() == door.connections()).then_some(())
        })
        .await;
        let before = door.connections();
        abroad.grant(&format!("/n{count}")).await;
        stream.until("one more identity", |m| m.svids.len() == count).await;
        assert!(door.connections() > before, "its signature came over a new connection");
    }
    assert_eq!(complaints(&abroad.agent), Vec::<String>::new());
}
