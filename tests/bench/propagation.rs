//! Rows about the way from an admin's call to a workload's stream, with a real server and a hundred real agents. Time
//! counts from the return of the call to the arrival of the message, as the two clients alone can see it.

use std::time::Instant;

use avouch_proto::workload as wire;
use avouch_proto::{bundle_v1, entry_v1, localauthority_v1, types};
use avouch_tests::forge::Authority;
use avouch_tests::workload::{Stream, request};
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, Server, entry, eventually, uds, within};
use tokio::sync::mpsc;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::issuing::{Bench, production};
use crate::report::{Bar, Report, quantile};

const AGENTS: usize = 100;
const SAMPLES: usize = 60;

/// Milliseconds of each sample, told as median, 99th percentile and worst.
fn tell(report: &Report, what: &str, waits: &[f64]) {
    report.plain(&format!("{what}, p50"), quantile(waits, 0.5), "ms", Bar::AtMost(5.0));
    report.plain(&format!("{what}, p99"), quantile(waits, 0.99), "ms", Bar::AtMost(30.0));
    report.plain(&format!("{what}, worst"), quantile(waits, 1.0), "ms", Bar::AtMost(250.0));
}

/// Messages of one kind with the moment of their arrival, read by a task so that nobody's turn delays the look.
struct Arrivals<T> {
    messages: mpsc::UnboundedReceiver<(Instant, T)>,
}

impl<T: Send + 'static> Arrivals<T> {
    fn of(mut stream: Stream<T>) -> Self {
        let (arrived, messages) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(message)) = stream.0.message().await {
                if arrived.send((Instant::now(), message)).is_err() {
                    return;
                }
            }
        });
        Self { messages }
    }

    /// Milliseconds from `since` to the first message that fits; 0 if it was there before.
    async fn wait(&mut self, since: Instant, fits: impl Fn(&T) -> bool) -> f64 {
        within("a message that fits", async {
            loop {
                let (at, message) = self.messages.recv().await.expect("an open stream");
                if fits(&message) {
                    return at.saturating_duration_since(since).as_secs_f64() * 1e3;
                }
            }
        })
        .await
    }
}

fn has(answer: &wire::X509svidResponse, path: &str) -> bool {
    answer.svids.iter().any(|s| s.spiffe_id.ends_with(path))
}

struct Fleet {
    server: Server,
    agents: Vec<Agent>,
    streams: Vec<Arrivals<wire::X509svidResponse>>,
}

impl Fleet {
    async fn start() -> Self {
        let server = Server::start_with(production()).await;
        let options = AgentOptions { log_level: "INFO", ..AgentOptions::default() };
        let (mut agents, mut streams) = (Vec::new(), Vec::new());
        for n in 0..AGENTS {
            let proof = Proof::JoinToken(server.token().await);
            let mut agent = Agent::prepare(&server, &format!("a{n}"), &proof, &options).await;
            agent.restart().await;
            server.create(entry(&agent.id, &format!("/base/{n}"), &[&my_uid()])).await;
            let stream = eventually("a stream", async || agent.workload().await.x509().await.ok()).await;
            let mut stream = Arrivals::of(stream);
            stream.wait(Instant::now(), |m| has(m, &format!("/base/{n}"))).await;
            streams.push(stream);
            agents.push(agent);
        }
        Self { server, agents, streams }
    }
}

/// All rows of this part.
pub async fn run(report: &Report) {
    let mut fleet = Fleet::start().await;
    one_agent(report, &mut fleet).await;
    every_agent(report, &mut fleet).await;
    bundles(report, &mut fleet).await;
    tainted(report, &mut fleet).await;
    beside_batches(report, &mut fleet).await;
    held_callers(report).await;
    thousand_svids(report).await;
}

/// Milliseconds to the stream of one agent, for entries created and for entries deleted.
async fn changes(
    server: &Server,
    agents: &[Agent],
    streams: &mut [Arrivals<wire::X509svidResponse>],
    samples: usize,
) -> [Vec<f64>; 2] {
    let (mut made, mut ended) = (Vec::new(), Vec::new());
    for n in 0..samples {
        let at = n % AGENTS;
        let path = format!("/new/{n}");
        let created = server.create(entry(&agents[at].id, &path, &[&my_uid()])).await;
        made.push(streams[at].wait(Instant::now(), |m| has(m, &path)).await);
        server.delete(&created.id).await;
        ended.push(streams[at].wait(Instant::now(), |m| !has(m, &path)).await);
    }
    [made, ended]
}

async fn one_agent(report: &Report, fleet: &mut Fleet) {
    let [made, ended] = changes(&fleet.server, &fleet.agents, &mut fleet.streams, SAMPLES).await;
    tell(report, "entry created, one of 100 agents concerned", &made);
    tell(report, "entry deleted, withdrawn", &ended);
}

async fn beside_batches(report: &Report, fleet: &mut Fleet) {
    let Fleet { server, agents, streams } = fleet;
    let bench = Bench::at(server).await;
    let p99 = async || quantile(&changes(server, agents, streams, AGENTS).await[0], 0.99);
    bench.beside_batches(report, "entry created,", p99).await;
}

async fn every_agent(report: &Report, fleet: &mut Fleet) {
    let mut last = Vec::new();
    for round in 0..SAMPLES / 6 {
        let path = format!("/all/{round}");
        let entries = fleet.agents.iter().map(|agent| entry(&agent.id, &path, &[&my_uid()])).collect();
        fleet.server.create_all(entries).await;
        let returned = Instant::now();
        let mut worst: f64 = 0.0;
        for stream in &mut fleet.streams {
            worst = worst.max(stream.wait(returned, |m| has(m, &path)).await);
        }
        last.push(worst);
    }
    report.plain("all 100 concerned, the last, median", quantile(&last, 0.5), "ms", Bar::AtMost(100.0));
    report.plain("all 100 concerned, the last, worst", quantile(&last, 1.0), "ms", Bar::AtMost(250.0));
}

/// An authority that was never there before, as a message of the API.
fn new_authority(trust_domain: &str) -> types::X509Certificate {
    let asn1 = Authority::fresh(&format!("spiffe://{trust_domain}")).der;
    types::X509Certificate { asn1, ..Default::default() }
}

fn holds(answer: &wire::X509BundlesResponse, root: &[u8]) -> bool {
    answer.bundles.values().any(|b| b.windows(root.len()).any(|part| part == root))
}

async fn bundles(report: &Report, fleet: &mut Fleet) {
    let mut streams = Vec::new();
    for agent in &fleet.agents {
        streams.push(Arrivals::of(agent.workload().await.x509_bundle_stream().await.unwrap()));
    }
    let mut bundles = fleet.server.bundles().await;
    let mut federated = entry(&fleet.agents[0].id, "/federated", &[&my_uid()]);
    federated.federates_with = vec!["other.example".to_owned()];
    let mut waits = Vec::new();
    for round in 0..SAMPLES / 2 {
        let authority = new_authority("other.example");
        let root = authority.asn1.clone();
        let bundle = types::Bundle {
            trust_domain: "other.example".to_owned(),
            x509_authorities: vec![authority],
            ..Default::default()
        };
        let request =
            bundle_v1::BatchSetFederatedBundleRequest { bundle: vec![bundle], ..Default::default() };
        bundles.batch_set_federated_bundle(request).await.unwrap();
        let returned = Instant::now();
        if round == 0 {
            fleet.server.create(federated.clone()).await;
        }
        let wait = streams[0].wait(returned, |m| holds(m, &root)).await;
        waits.extend((round > 0).then_some(wait));
    }
    tell(report, "foreign bundle changed, one of 100 agents concerned", &waits);
    let mut last = Vec::new();
    for _ in 0..SAMPLES / 6 {
        let authority = new_authority("example.org");
        let root = authority.asn1.clone();
        let request =
            bundle_v1::AppendBundleRequest { x509_authorities: vec![authority], ..Default::default() };
        bundles.append_bundle(request).await.unwrap();
        let returned = Instant::now();
        let mut worst: f64 = 0.0;
        for stream in &mut streams {
            worst = worst.max(stream.wait(returned, |m| holds(m, &root)).await);
        }
        last.push(worst);
    }
    let median = quantile(&last, 0.5);
    report.plain("own bundle changed, the last of 100 agents, median", median, "ms", Bar::AtMost(100.0));
}

/// The authority of a fleet's SVIDs is tainted: each agent spreads its own by the size of the fleet.
async fn tainted(report: &Report, fleet: &mut Fleet) {
    let mut last = Vec::new();
    for _ in 0..5 {
        let signer = taint(&fleet.server).await;
        let returned = Instant::now();
        let mut worst: f64 = 0.0;
        for stream in &mut fleet.streams {
            worst = worst.max(stream.wait(returned, |m| signed_by(m, &signer)).await);
        }
        last.push(worst);
    }
    let what = "authority tainted, the last of 100 agents with 11 SVIDs each, median";
    report.plain(what, quantile(&last, 0.5), "ms", Bar::AtMost(1000.0));
}

fn signed_by(answer: &wire::X509svidResponse, signer: &[u8]) -> bool {
    let signed = |s: &wire::X509svid| s.x509_svid.windows(signer.len()).any(|part| part == signer);
    answer.svids.iter().all(signed)
}

/// Callers that asked before their entry existed and are held.
async fn held_callers(report: &Report) {
    let server = Server::start_with(production()).await;
    let agent = "experimental {\n no_identity_hold = \"30s\"\n }".to_owned();
    let agent = Agent::start_with(&server, AgentOptions { agent, ..AgentOptions::default() }).await;
    let mut waits = Vec::new();
    for n in 0..SAMPLES / 2 {
        let channel = uds(&agent.socket).await.unwrap();
        let mut workload = wire::spiffe_workload_api_client::SpiffeWorkloadApiClient::new(channel.clone());
        let asking = tokio::spawn(async move {
            let asked = request(wire::X509svidRequest::default());
            let mut stream = workload.fetch_x509svid(asked).await.unwrap().into_inner();
            stream.message().await.unwrap().unwrap();
            Instant::now()
        });
        tokio::task::yield_now().await;
        // One connection keeps its order: once this later call is answered, the agent has the earlier one.
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
        let created = server.create(entry(&agent.id, &format!("/held/{n}"), &[&my_uid()])).await;
        let returned = Instant::now();
        let answered = within("a held answer", asking).await.unwrap();
        waits.push(answered.saturating_duration_since(returned).as_secs_f64() * 1e3);
        let mut watching = agent.workload().await.x509().await.unwrap();
        server.delete(&created.id).await;
        watching.end().await;
    }
    tell(report, "entry created for a held caller", &waits);
}

/// A thousand SVIDs of one stream signed anew: their entries change, then their authority is tainted.
async fn thousand_svids(report: &Report) {
    const ALL: usize = 1000;
    let server = Server::start_with(production()).await;
    let options = AgentOptions { log_level: "INFO", ..AgentOptions::default() };
    let agent = Agent::start_with(&server, options).await;
    let mut client = server.entries().await;
    let one = |n| entry(&agent.id, &format!("/many/{n}"), &[&my_uid()]);
    let mut entries = server.create_all((0..ALL).map(one).collect()).await;
    let stream = eventually("a stream", async || agent.workload().await.x509().await.ok()).await;
    let mut stream = Arrivals::of(stream);
    stream.wait(Instant::now(), |m| m.svids.len() == ALL).await;
    let mut waits = Vec::new();
    for round in 0..5 {
        let name = format!("r{round}.example.org");
        for entry in &mut entries {
            entry.dns_names = vec![name.clone()];
        }
        for half in entries.chunks(ALL / 2) {
            let request = entry_v1::BatchUpdateEntryRequest { entries: half.to_vec(), ..Default::default() };
            client.batch_update_entry(request).await.unwrap();
        }
        let fresh = |m: &wire::X509svidResponse| {
            let renewed =
                |s: &wire::X509svid| s.x509_svid.windows(name.len()).any(|part| part == name.as_bytes());
            m.svids.len() == ALL && m.svids.iter().all(renewed)
        };
        waits.push(stream.wait(Instant::now(), fresh).await);
    }
    let what = "1,000 SVIDs signed anew after a change of their entries, delivered";
    report.plain(what, quantile(&waits, 0.5), "ms", Bar::AtMost(300.0));
    let mut waits = Vec::new();
    for _ in 0..5 {
        let signer = taint(&server).await;
        waits.push(stream.wait(Instant::now(), |m| m.svids.len() == ALL && signed_by(m, &signer)).await);
    }
    let what = "1,000 SVIDs replaced after a taint of their authority, delivered";
    report.plain(&format!("{what}, median"), quantile(&waits, 0.5), "ms", Bar::AtMost(300.0));
    report.plain(&format!("{what}, worst"), quantile(&waits, 1.0), "ms", Bar::AtMost(300.0));
}

/// Puts a new X.509 authority to use and taints the one before; gives the name of the new one, as certificates have it.
async fn taint(server: &Server) -> Vec<u8> {
    let (authority_id, next) = server.rotate_x509().await;
    let request = localauthority_v1::TaintX509AuthorityRequest { authority_id };
    server.authorities().await.taint_x509_authority(request).await.unwrap();
    hex::decode(next).unwrap()
}
