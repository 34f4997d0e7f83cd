//! Stops where many nodes may run the same: every one confirms, those that are halted are named, and those that hear of no
//! server stop by themselves what matters most. One server and eight node agents, all of them real.

use std::collections::BTreeSet;

use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, entry, eventually, within};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::apart::registration;
use crate::coder::{Client, Scene};
use crate::governed::json as read;
use crate::own_code::{Own, is_let, is_shut};
use crate::stops::{SILENT, critical};

const NODES: usize = 8;
/// Of them are halted.
const HALTED: usize = 2;

/// A scene with more nodes, each of which may run the same.
struct Fleet {
    // They go first, as the scene's own does.
    more: Vec<Agent>,
    scene: Scene,
}

impl Fleet {
    /// Every node may run coder, and these.
    async fn start(others: &[&str]) -> Self {
        let scene = Scene::start().await;
        for name in others {
            let words = registration(name);
            scene.good(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
        }
        let identities: Vec<_> = ["coder"].into_iter().chain(others.iter().copied()).collect();
        let mut more = Vec::new();
        for n in 1..NODES {
            let server = &scene.world.server;
            let proof = Proof::JoinToken(server.token().await);
            let mut agent = Agent::prepare(server, &format!("a{n}"), &proof, &AgentOptions::default()).await;
            agent.restart().await;
            for name in &identities {
                let placed = scene.run_on(&agent, &["identity", "place", name]).await;
                assert_eq!(placed.code, 0, "{placed:?}");
            }
            more.push(agent);
        }
        let fleet = Self { more, scene };
        for agent in fleet.agents() {
            for name in &identities {
                eventually("a place on each node", async || {
                    let began = fleet.scene.run_on(agent, &["run", name, "--", "true"]).await;
                    (began.code == 0 && began.err.contains("rules 1")).then_some(())
                })
                .await;
            }
        }
        fleet
    }

    fn agents(&self) -> impl Iterator<Item = &Agent> {
        std::iter::once(&self.scene.world.agent).chain(&self.more)
    }

    /// An AI agent at work on each node, in the order of the nodes.
    async fn at_work(&self) -> Vec<AtWork> {
        let mut all = Vec::new();
        for agent in self.agents() {
            let gate = self.scene.client_on(agent, "files", "coder", &[]).await;
            let mut one = AtWork { gate, own: Own::start(&self.scene, agent) };
            one.goes_on().await;
            all.push(one);
        }
        all
    }
}

/// One AI agent on one node, in two runs: behind a gate, and with code that asks for itself.
struct AtWork {
    gate: Client,
    own: Own,
}

impl AtWork {
    async fn goes_on(&mut self) {
        let answer = self.gate.call("read_file").await;
        assert!(is_done(&answer), "{answer}");
        let answer = self.own.ask().await;
        assert!(is_let(&answer), "{answer}");
    }

    async fn is_denied(&mut self) {
        let call = json!({"name": "read_file", "arguments": {"path": "a"}});
        // The gate may be gone already.
        let answer = self.gate.try_ask("tools/call", call).await;
        assert!(!answer.as_ref().is_some_and(is_done), "{answer:?}");
        let answer = self.own.ask().await;
        assert!(is_shut(&answer), "{answer}");
    }
}

/// Whether the tool server answered.
fn is_done(answer: &Value) -> bool {
    answer["result"]["content"][0]["text"] == "done"
}

fn names<'a>(agents: impl Iterator<Item = &'a Agent>) -> BTreeSet<String> {
    agents.map(|agent| agent.id.clone()).collect()
}

/// The nodes that confirmed a stop, or those that did not.
fn nodes(stop: &Value, confirmed: bool) -> BTreeSet<String> {
    let nodes = stop["nodes"].as_array().unwrap().iter().filter(|node| node["confirmed"] == confirmed);
    nodes.map(|node| node["node"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn one_pause_is_confirmed_by_every_node_and_no_later_call_gets_through_on_any() {
    let fleet = Fleet::start(&[]).await;
    let mut at_work = fleet.at_work().await;
    let paused = read(&fleet.scene.good(&["pause", "coder", "--json"]).await);
    assert_eq!(nodes(&paused, true), names(fleet.agents()), "{paused}");
    assert_eq!(nodes(&paused, false), BTreeSet::new(), "{paused}");
    for one in &mut at_work {
        one.is_denied().await;
    }
    assert_eq!(fleet.scene.calls(), NODES, "what began after the answer did not reach the tool server");
}

#[tokio::test]
async fn nodes_that_are_halted_are_named_with_their_limit_and_hold_the_stop_when_they_are_back() {
    let fleet = Fleet::start(&["other"]).await;
    let scene = &fleet.scene;
    let mut at_work = fleet.at_work().await;
    let halted: Vec<_> = fleet.agents().take(HALTED).collect();
    let mut others = Vec::new();
    for agent in &halted {
        others.push(scene.client_on(agent, "files", "other", &[]).await);
    }
    halted.iter().for_each(|agent| agent.daemon().signal(Signal::SIGSTOP));
    let paused = read(&scene.good(&["pause", "coder", "--json"]).await);
    assert_eq!(nodes(&paused, true), names(fleet.agents().skip(HALTED)), "{paused}");
    assert_eq!(nodes(&paused, false), names(halted.iter().copied()), "{paused}");
    for node in paused["nodes"].as_array().unwrap() {
        assert_eq!(node["decides_until"].is_string(), node["confirmed"] == false, "{node}");
    }
    let (cut_off, rest) = at_work.split_at_mut(HALTED);
    for one in rest {
        one.is_denied().await;
    }
    halted.iter().for_each(|agent| agent.daemon().signal(Signal::SIGCONT));
    for one in cut_off {
        // Nobody asks them before they have heard of it.
        within("the end of the run", one.gate.child.wait()).await.unwrap();
        one.is_denied().await;
    }
    assert_eq!(scene.calls(), NODES, "nothing came after the pause");
    for other in &mut others {
        let answer = other.call("read_file").await;
        assert!(is_done(&answer), "another identity goes on there: {answer}");
    }
    for agent in &halted {
        let again = scene.run_on(agent, &["run", "coder", "--", "true"]).await;
        assert_eq!(again.code, 2, "{again:?}");
    }
    eventually("a drill that all confirm", async || {
        let drilled = read(&scene.run(&["stop", "other", "--drill", "--json"]).await);
        (nodes(&drilled, true) == names(fleet.agents())).then_some(())
    })
    .await;
}

#[tokio::test]
async fn while_the_server_is_halted_every_node_stops_what_matters_most_and_serves_the_rest() {
    let fleet = Fleet::start(&[]).await;
    let (scene, server) = (&fleet.scene, &fleet.scene.world.server);
    scene.change_rules(critical).await;
    let mut gates = Vec::new();
    for agent in fleet.agents() {
        let mut gate = scene.client_on(agent, "files", "coder", &[]).await;
        let answer = gate.call("write_file").await;
        assert!(is_done(&answer), "{answer}");
        gates.push(gate);
        server.create(entry(&agent.id, "/billing", &[&my_uid()])).await;
        eventually("the service's identity", async || agent.workload().await.fetch_x509().await.ok()).await;
    }
    server.daemon().signal(Signal::SIGSTOP);
    tokio::time::sleep(SILENT).await;
    for (agent, gate) in fleet.agents().zip(&mut gates) {
        let silent = gate.call("write_file").await;
        let text = silent["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.contains("server_silent)"), "{silent}");
        let answer = gate.call("read_file").await;
        assert!(is_done(&answer), "what can be taken back goes on: {answer}");
        let served = agent.workload().await.fetch_x509().await.unwrap();
        assert_eq!(served.svids.len(), 1, "a service goes on");
    }
    assert_eq!(scene.calls(), 2 * NODES, "one call of each before, and one of each meanwhile");
    server.daemon().signal(Signal::SIGCONT);
    for gate in &mut gates {
        eventually("the server heard again", async || is_done(&gate.call("write_file").await).then_some(()))
            .await;
    }
}
