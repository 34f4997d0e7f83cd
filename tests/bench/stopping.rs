//! Rows about stops: from the call until the last node has confirmed, with thousands of streams open.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use avouch_proto::governance_v1::governance_client::GovernanceClient;
use avouch_proto::governance_v1::{
    IdentityRequest, InitRequest, PlaceIdentityRequest, PublishRulesRequest, RegisterIdentityRequest,
    StopResponse,
};
use avouch_proto::rules_v1::rules_client::RulesClient;
use avouch_proto::rules_v1::{FetchRequest, File};
use avouch_proto::watch_v1::follow_request::Step;
use avouch_proto::watch_v1::follow_response::Frame;
use avouch_proto::watch_v1::watch_client::WatchClient;
use avouch_proto::watch_v1::{Ack, FollowRequest, Hello};
use avouch_rules::STARTER;
use avouch_tests::bare_agent::BareAgent;
use avouch_tests::{Agent, AgentOptions, Proof, Server, eventually, uds};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::issuing::production;
use crate::process::{SAMPLES, allow_descriptors, cpu};
use crate::report::{Bar, Report, median, quantile};

/// Streams that are followed as agents follow them, by one process.
const SIMULATED: usize = 5_000;
/// Agents of their own.
const REAL: usize = 20;
/// Streams that nobody reads.
const DEAF: usize = 1;
/// How much of a folder of rules is delivered beside a stop, in bytes.
const RULES: usize = 60 * 1024;

type People = GovernanceClient<Channel>;

/// All rows of this part.
pub async fn run(report: &Report) {
    allow_descriptors();
    let server = Arc::new(Server::start_with(production()).await);
    let mut people = GovernanceClient::new(uds(&server.socket).await.expect("the admin socket"));
    people.init(InitRequest { name: "Ada Example".into() }).await.expect("the first person");
    register(&mut people).await;
    let fetched = Arc::new(AtomicUsize::new(0));
    let (agents, nodes) = fleet(&server, &fetched).await;
    for node in &nodes {
        let place = PlaceIdentityRequest { name: "coder".into(), node: node.clone(), uid: 7 };
        people.place_identity(place).await.expect("a place");
    }
    settled(&mut people).await;
    let of = format!("{SIMULATED} streams, {REAL} agents, one that never reads");
    quiet(report, &mut people, server.daemon().pid(), &of).await;
    beside_rules(report, &mut people, &fetched, &of).await;
    drop(agents);
}

async fn register(people: &mut People) {
    let new = RegisterIdentityRequest {
        name: "coder".into(),
        kind: "ai_agent".into(),
        environment: "test".into(),
        purpose: "fix-bugs".into(),
        ends_at: avouch::clock::now().wall.secs() + 86_400,
        ..RegisterIdentityRequest::default()
    };
    people.register_identity(new).await.expect("an identity");
}

fn coder() -> IdentityRequest {
    IdentityRequest { name: "coder".into() }
}

async fn drill(people: &mut People) -> StopResponse {
    people.drill_stop(coder()).await.expect("a drill").into_inner()
}

/// Resolves when every node has applied all that came before.
async fn settled(people: &mut People) {
    const TRIES: usize = 60;
    let mut left = SIMULATED + REAL;
    for _ in 0..TRIES {
        left = missing(&drill(people).await);
        if left == 0 {
            return;
        }
    }
    assert_eq!(left, 0, "nodes that did not confirm {TRIES} drills");
}

/// Back as before the pause, so that the next one finds nothing on its way.
async fn resume(people: &mut People) {
    people.resume_identity(coder()).await.expect("a resumption");
    settled(people).await;
}

/// Nodes that did not confirm and could have.
fn missing(stop: &StopResponse) -> usize {
    let confirmed = stop.nodes.iter().filter(|node| node.confirmed).count();
    (SIMULATED + REAL).saturating_sub(confirmed)
}

/// Milliseconds of each node that could confirm; who did not in time took as long as is waited.
fn took(stop: &StopResponse) -> Vec<f64> {
    const WAITED: f64 = 1_000.0;
    let confirmed = stop.nodes.iter().filter(|node| node.confirmed);
    let took = confirmed.map(|node| f64::from(node.took_ms));
    took.chain(std::iter::repeat_n(WAITED, missing(stop))).collect()
}

async fn quiet(report: &Report, people: &mut People, server: i32, of: &str) {
    let (mut p99, mut last, mut each, mut lost) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..SAMPLES {
        let before = cpu(server);
        let stop = people.pause_identity(coder()).await.expect("a pause").into_inner();
        each.push((cpu(server) - before).as_secs_f64() * 1e6 / (SIMULATED + REAL) as f64);
        resume(people).await;
        p99.push(quantile(&took(&stop), 0.99));
        last.push(quantile(&took(&stop), 1.0));
        lost += missing(&stop);
    }
    report.plain(&format!("pause confirmed ({of}): p99"), median(p99), "ms", Bar::AtMost(300.0));
    report.plain("the same: the last", median(last), "ms", Bar::AtMost(1000.0));
    report.plain("the same: missing in all", lost as f64, "", Bar::AtMost(0.0));
    report.plain("the same: CPU of the server a node", median(each), "us", Bar::Free);
}

/// All agents fetch a folder of rules while the stop is on its way; some have it already.
async fn beside_rules(report: &Report, people: &mut People, fetched: &AtomicUsize, of: &str) {
    let (mut last, mut lost) = (Vec::new(), 0);
    for n in 0..SAMPLES {
        eventually("the rules at all", async || {
            (fetched.load(Ordering::Relaxed) >= n * SIMULATED).then_some(())
        })
        .await;
        let files = STARTER.iter().map(|(name, text)| {
            let more =
                if *name == "rules.cedar" { format!("// {n}{}\n", " ".repeat(RULES)) } else { String::new() };
            File { name: (*name).to_owned(), text: format!("{text}{more}") }
        });
        let publish = PublishRulesRequest { files: files.collect(), note: String::new() };
        let published = people.publish_rules(publish).await.expect("an answer").into_inner();
        assert!(published.rules.is_some(), "{published:?}");
        let some = n * SIMULATED + SIMULATED / 10;
        while fetched.load(Ordering::Relaxed) < some {
            tokio::task::yield_now().await;
        }
        let stop = people.pause_identity(coder()).await.expect("a pause").into_inner();
        last.push(quantile(&took(&stop), 1.0));
        lost += missing(&stop);
        resume(people).await;
    }
    let what = format!("pause while {} KiB of rules are delivered to all ({of}): the last", RULES / 1024);
    report.plain(&what, median(last), "ms", Bar::AtMost(1000.0));
    report.plain("while rules are delivered: missing in all", lost as f64, "", Bar::AtMost(0.0));
}

/// Everybody who follows; and the SPIFFE IDs of all nodes.
async fn fleet(server: &Arc<Server>, fetched: &Arc<AtomicUsize>) -> (Vec<Agent>, Vec<String>) {
    const AT_ONCE: usize = 16;
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut joining = JoinSet::new();
    for n in 0..SIMULATED + DEAF {
        let (server, turns, fetched) = (server.clone(), turns.clone(), fetched.clone());
        joining.spawn(async move {
            let _turn = turns.acquire().await.expect("a turn");
            let agent = BareAgent::join(&server).await;
            let channel = agent.connect(&server).await;
            let (says, steps) = mpsc::channel(16);
            let hello = Hello { version: 1, ..Hello::default() };
            says.send(FollowRequest { step: Some(Step::Hello(hello)) }).await.expect("a stream");
            let frames = WatchClient::new(channel.clone()).follow(ReceiverStream::new(steps)).await;
            let mut frames = frames.expect("a stream").into_inner();
            tokio::spawn(async move {
                if n < DEAF {
                    std::future::pending::<()>().await;
                }
                while let Some(Ok(answer)) = frames.next().await {
                    let position = match answer.frame {
                        Some(Frame::Snapshot(chunk)) if chunk.last => chunk.position,
                        Some(Frame::Delta(delta)) => delta.position,
                        Some(Frame::Rules(notice)) if notice.number > 0 => {
                            let (mut rules, fetched) = (RulesClient::new(channel.clone()), fetched.clone());
                            tokio::spawn(async move {
                                if rules.fetch(FetchRequest {}).await.is_ok() {
                                    fetched.fetch_add(1, Ordering::Relaxed);
                                }
                            });
                            None
                        }
                        _ => None,
                    };
                    if let Some(position) = position {
                        let step = Some(Step::Ack(Ack { revision: position.revision }));
                        let _ = says.send(FollowRequest { step }).await;
                    }
                }
            });
            agent.uri()
        });
    }
    let mut nodes = joining.join_all().await;
    let options = AgentOptions { log_level: "INFO", ..AgentOptions::default() };
    let mut agents = Vec::new();
    for n in 0..REAL {
        let proof = Proof::JoinToken(server.token().await);
        let mut agent = Agent::prepare(server, &format!("a{n}"), &proof, &options).await;
        agent.restart().await;
        nodes.push(agent.id.clone());
        agents.push(agent);
    }
    (agents, nodes)
}
