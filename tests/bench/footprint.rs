//! Rows about starting and resting: time to ready, memory and CPU of daemons that have nothing or much to hold.

use std::time::{Duration, Instant};

use avouch_tests::daemon::{Daemon, binary};
use avouch_tests::workload::Stream;
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, Server, World, entry, uds, within};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::issuing::production;
use crate::process::{allow_descriptors, cpu, memory};
use crate::registry;
use crate::report::{Bar, Report, median, quantile};
use crate::workload::world;

const STARTS: usize = 7;
/// Between two looks whether a daemon is ready.
const LOOK: Duration = Duration::from_millis(1);

/// All rows of this part.
pub async fn run(report: &Report) {
    starts(report).await;
    rest(report).await;
    streams(report).await;
    crowd(report).await;
    full(report).await;
}

/// Milliseconds from spawn until `ready` answers.
async fn until_ready(spawn: impl Fn() -> Daemon, ready: impl AsyncFn() -> bool) -> (Daemon, f64) {
    let begun = Instant::now();
    let daemon = spawn();
    within("a ready daemon", async {
        while !ready().await {
            tokio::time::sleep(LOOK).await;
        }
    })
    .await;
    (daemon, begun.elapsed().as_secs_f64() * 1e3)
}

async fn starts(report: &Report) {
    let (mut servers, mut agents) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let mut server = Server::prepare(&production());
        let healthy = async || {
            let Ok(channel) = uds(&server.socket).await else { return false };
            let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
            answer.is_ok_and(|a| a.into_inner().status == 1)
        };
        let (daemon, took) = until_ready(|| server.spawn(), healthy).await;
        server.adopt(daemon).await;
        servers.push(took);
        let token = server.token().await;
        server.create(entry(&server.agent_id(&token), "/first", &[&my_uid()])).await;
        let options = AgentOptions { log_level: "INFO", ..AgentOptions::default() };
        let agent = Agent::prepare(&server, "a", &Proof::JoinToken(token), &options).await;
        let serving = async || match uds(&agent.socket).await {
            Ok(_) => agent.workload().await.fetch_x509().await.is_ok(),
            Err(_) => false,
        };
        let (_daemon, took) = until_ready(|| agent.spawn(), serving).await;
        agents.push(took);
    }
    report.plain("server cold start to healthy", median(servers), "ms", Bar::AtMost(100.0));
    report.plain("agent cold start, attested, first SVID", median(agents), "ms", Bar::AtMost(80.0));
}

/// How long a daemon is watched at rest.
const REST: Duration = Duration::from_secs(20);

async fn rest(report: &Report) {
    let world = world().await;
    let pids = [world.server.daemon().pid(), world.agent.daemon().pid()];
    let before = pids.map(cpu);
    tokio::time::sleep(REST).await;
    let limits = [("server", 25.0, 10.0), ("agent", 15.0, 6.0)];
    for ((pid, before), (name, resident, anonymous)) in pids.into_iter().zip(before).zip(limits) {
        let share = (cpu(pid) - before).as_secs_f64() / REST.as_secs_f64() * 100.0;
        let held = memory(pid);
        report.plain(&format!("{name} at rest: CPU of a core"), share, "%", Bar::AtMost(0.2));
        report.plain(&format!("{name} at rest: resident"), held.resident, "MiB", Bar::AtMost(resident));
        report.plain(&format!("{name} at rest: anonymous"), held.anonymous, "MiB", Bar::AtMost(anonymous));
    }
}

/// Opens this many streams, each on a connection of its own.
async fn open(world: &World, number: usize) -> Vec<Stream<avouch_proto::workload::X509svidResponse>> {
    const AT_ONCE: usize = 100;
    let mut streams = Vec::new();
    while streams.len() < number {
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..AT_ONCE {
            let socket = world.agent.socket.clone();
            opening.spawn(async move {
                let mut workload = avouch_tests::workload::Workload::connect(&socket).await.unwrap();
                let mut stream = workload.x509().await.unwrap();
                stream.next().await.unwrap();
                stream
            });
        }
        streams.extend(opening.join_all().await);
    }
    streams
}

async fn streams(report: &Report) {
    /// As many as one process may hold of an agent with 20,000 descriptors, whoever else is there.
    const STREAMS: usize = 4000;
    const AFTER: Duration = Duration::from_secs(60);
    allow_descriptors();
    let world = world().await;
    let pid = world.agent.daemon().pid();
    let idle = memory(pid).resident;
    let open_now = open(&world, STREAMS).await;
    let full = memory(pid).resident;
    let each = (full - idle) * 1024.0 / STREAMS as f64;
    report.plain("4,000 streams, each on its connection: resident a stream", each, "KiB", Bar::AtMost(40.0));
    drop(open_now);
    tokio::time::sleep(AFTER).await;
    let after = memory(pid).resident - idle;
    report.plain("60 s after they closed: resident above idle", after, "MiB", Bar::AtMost(8.0));
    registry::create(&world.server, &world.agent.id, 0, 10_000).await;
    let begun = cpu(pid);
    let open_now = open(&world, 1000).await;
    report.plain("agent CPU to open 1,000 streams", (cpu(pid) - begun).as_secs_f64(), "s", Bar::Free);
    let held = memory(pid).resident;
    report.plain("agent, 10,000 entries and 1,000 streams: resident", held, "MiB", Bar::AtMost(50.0));
    drop(open_now);
}

/// Streams that twenty processes of one user open at once, each on a connection of its own.
async fn crowd(report: &Report) {
    const PROCESSES: usize = 20;
    const EACH: usize = 500;
    let world = world().await;
    let pid = world.agent.daemon().pid();
    let idle = memory(pid).resident;
    let (mut callers, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..PROCESSES {
        let (start, hold) = std::io::pipe().expect("a pipe");
        let mut command = std::process::Command::new(binary("avouch-caller"));
        command.arg("crowd").arg(&world.agent.socket).arg(EACH.to_string());
        callers.push(Daemon::spawn_with("caller", &mut command, start.into()));
        starts.push(hold);
    }
    drop(starts); // they begin
    let mut seconds = Vec::new();
    for caller in &callers {
        let line = caller.line("done ").await;
        let micros = line.split_whitespace().skip(2);
        seconds.extend(micros.map(|micros| micros.parse::<f64>().expect("microseconds") / 1e6));
    }
    let (all, answered) = ((PROCESSES * EACH) as f64, seconds.len() as f64);
    let each = (memory(pid).resident - idle) * 1024.0 / all;
    let of = "10,000 streams at once, 20 processes of one user, 20,000 descriptors";
    report.plain(&format!("{of}: not answered"), all - answered, "", Bar::AtMost(0.0));
    report.plain("the same: p99", quantile(&seconds, 0.99), "s", Bar::AtMost(3.0));
    report.plain("the same: resident a stream", each, "KiB", Bar::AtMost(40.0));
}

/// An agent that holds a hundred thousand entries while nothing changes.
async fn full(report: &Report) {
    /// Between two looks whether it still signs what came.
    const SETTLE: Duration = Duration::from_secs(10);
    const CALM: Duration = Duration::from_millis(20);
    let world = world().await;
    let pid = world.agent.daemon().pid();
    registry::create(&world.server, &world.agent.id, 0, registry::MANY).await;
    // Changes come in their order: with this one, all of them are there.
    world.grant("/last").await;
    let mut stream = world.agent.workload().await.x509().await.expect("a stream");
    within("the last entry", async {
        while !stream
            .next()
            .await
            .expect("an answer")
            .svids
            .iter()
            .any(|svid| svid.spiffe_id.ends_with("/last"))
        {}
    })
    .await;
    let mut before = cpu(pid);
    loop {
        tokio::time::sleep(SETTLE).await;
        let now = cpu(pid);
        if now - before < CALM {
            break;
        }
        before = now;
    }
    let before = cpu(pid);
    tokio::time::sleep(REST).await;
    let share = (cpu(pid) - before).as_secs_f64() / REST.as_secs_f64() * 100.0;
    report.plain("agent with 100,000 entries at rest: CPU of a core", share, "%", Bar::AtMost(0.2));
    report.plain("agent with 100,000 entries: resident", memory(pid).resident, "MiB", Bar::Free);
}
