//! Rows about the agent's answers, with a real agent: its CPU for one call, beside a bare echo of the same size.

use std::path::Path;
use std::time::{Duration, Instant};

use avouch_proto::workload as wire;
use avouch_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use avouch_tests::workload::{Workload, request};
use avouch_tests::{AgentOptions, World, uds};
use prost::Message as _;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::echo::Echo;
use crate::issuing::production;
use crate::process::cpu_each;
use crate::report::{Bar, Report, Yard, quantile};
use crate::yardstick;

/// Calls in one sample.
const CALLS: usize = 960;
const CALLERS: [usize; 2] = [1, 32];

type Client = SpiffeWorkloadApiClient<Channel>;

/// What one call of a row does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    X509,
    Jwt,
}

/// A world whose daemons log as in production, with one entry for this user.
pub async fn world() -> World {
    let options = AgentOptions { log_level: "INFO", ..AgentOptions::default() };
    let world = World::start_with(production(), options).await;
    world.grant("/bench").await;
    let mut workload = world.agent.workload().await;
    avouch_tests::eventually("the entry", async || workload.fetch_x509().await.ok()).await;
    world
}

async fn call(client: &mut Client, what: Call) -> usize {
    match what {
        Call::X509 => {
            let asked = request(wire::X509svidRequest::default());
            let mut answers = client.fetch_x509svid(asked).await.unwrap().into_inner();
            answers.message().await.unwrap().unwrap().encoded_len()
        }
        Call::Jwt => {
            let asked = wire::JwtsvidRequest { audience: vec!["db".into()], spiffe_id: String::new() };
            client.fetch_jwtsvid(request(asked)).await.unwrap().into_inner().encoded_len()
        }
    }
}

/// All calls of one sample, from as many callers at once.
async fn calls(socket: &Path, what: Call, callers: usize, fresh: bool) {
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let socket = socket.to_owned();
        all.spawn(async move {
            let mut client = Client::new(uds(&socket).await.unwrap());
            for _ in 0..CALLS / callers {
                if fresh {
                    client = Client::new(uds(&socket).await.unwrap());
                }
                call(&mut client, what).await;
            }
        });
    }
    all.join_all().await;
}

/// All rows of this part.
pub async fn run(report: &Report) {
    let world = world().await;
    let floor = yardstick::floor();
    for (what, name) in [(Call::X509, "FetchX509SVID"), (Call::Jwt, "FetchJWTSVID cached")] {
        let mut workload: Workload = world.agent.workload().await;
        let size = call(&mut workload.raw, what).await;
        let echo = Echo::start(world.server.dir.path(), size).await;
        for (fresh, title, share) in [(false, "open connection", 0.6), (true, "new connection", 1.2)] {
            for callers in CALLERS {
                let cost = async |pid, socket: &Path| {
                    cpu_each(pid, CALLS, async || calls(socket, what, callers, fresh).await).await
                };
                let bare = cost(echo.daemon.pid(), &echo.socket).await;
                let ours = cost(world.agent.daemon().pid(), &world.agent.socket).await;
                let yard = Yard { name: "allowed", value: bare + share * floor.value };
                let what = format!("{name}, {title}, {callers} callers");
                report.ratio(&format!("{what}: agent CPU"), ours, yard, Bar::AtMost(1.0));
                report.plain(&format!("{what}: CPU of an echo"), bare, "us", Bar::Free);
            }
        }
        if what == Call::X509 {
            let bare = open_loop(&echo.socket).await;
            let ours = open_loop(&world.agent.socket).await;
            report.plain("an echo's p99 at 5,000 calls/s over 32 connections", bare, "ms", Bar::Free);
            report.plain("FetchX509SVID p99 at the same", ours, "ms", Bar::AtMost(1.0));
        }
    }
}

/// The 99th percentile in milliseconds of calls that come whether or not the earlier ones are answered.
async fn open_loop(socket: &Path) -> f64 {
    const CONNECTIONS: usize = 32;
    const BETWEEN: Duration = Duration::from_micros(200);
    const ALL: usize = 15_000;
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::new(uds(socket).await.unwrap()));
    }
    let (arrivals, mut arrived) = mpsc::unbounded_channel();
    // A thread of its own keeps the beat: the runtime's timer counts in whole milliseconds.
    std::thread::spawn(move || {
        let begun = Instant::now();
        for n in 0..ALL {
            let due = BETWEEN * n as u32;
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            if arrivals.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    let mut running = tokio::task::JoinSet::new();
    let mut n = 0;
    while let Some(begun) = arrived.recv().await {
        let mut client = clients[n % CONNECTIONS].clone();
        n += 1;
        running.spawn(async move {
            call(&mut client, Call::X509).await;
            begun.elapsed().as_secs_f64() * 1e3
        });
    }
    quantile(&running.join_all().await, 0.99)
}
