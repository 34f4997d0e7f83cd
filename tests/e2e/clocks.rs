//! Clocks that are wrong: an hour off, jumping, standing still. Nothing expired is handed out by the true time, nothing
//! dies of it, and a clock that is put right is all it takes to go on.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use avouch_proto::workload::X509svidResponse;
use avouch_tests::daemon::{Daemon, binary};
use avouch_tests::false_clock::FalseClock;
use avouch_tests::forge::now;
use avouch_tests::workload::{Stream, Workload};
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, Server, ServerOptions, entry, eventually, within};
use x509_parser::parse_x509_certificate;

const HOUR: i64 = 3600;
/// Seconds that an SVID lives here.
const LIFE: i64 = 8;

fn run(name: &str, clock: &FalseClock, config: &Path) -> Daemon {
    let mut command = Command::new(binary(name));
    Daemon::spawn(name, clock.show(command.args(["run", "-config"]).arg(config)))
}

/// A server, an agent with an entry for this user, and the clocks of both, which are right.
struct World {
    agent: Agent,
    server: Server,
    agent_clock: FalseClock,
    server_clock: FalseClock,
}

impl World {
    /// Everything but the agent's process. `None` where a clock can't be faked.
    async fn prepare() -> Option<Self> {
        let options = ServerOptions {
            server: format!("default_x509_svid_ttl = \"{LIFE}s\"\n agent_ttl = \"30m\""),
            ..ServerOptions::default()
        };
        let mut server = Server::prepare(&options);
        let server_clock = FalseClock::new(server.dir.path().join("server.clock"))?;
        let agent_clock = FalseClock::new(server.dir.path().join("agent.clock"))?;
        server.adopt(run("avouch-server", &server_clock, &server.config)).await;
        let proof = Proof::JoinToken(server.token().await);
        let agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
        server.create(entry(&agent.id, "/web", &[&my_uid()])).await;
        Some(Self { agent, server, agent_clock, server_clock })
    }

    async fn start() -> Option<Self> {
        let mut world = Self::prepare().await?;
        let daemon = world.spawn();
        world.agent.adopt(daemon).await;
        Some(world)
    }

    fn spawn(&self) -> Daemon {
        run("avouch-agent", &self.agent_clock, &self.agent.config)
    }
}

/// When the SVID of an answer ends by the true time, if it holds one.
fn end(answer: &X509svidResponse) -> Option<i64> {
    let svid = answer.svids.first()?;
    let (_, leaf) = parse_x509_certificate(&svid.x509_svid).unwrap();
    Some(leaf.validity().not_after.timestamp())
}

/// Reads until an SVID comes that ends later than `after`; none on the way may have ended.
async fn fresh(stream: &mut Stream<X509svidResponse>, after: i64) -> i64 {
    within("a later SVID", async {
        loop {
            let Some(end) = end(&stream.next().await.unwrap()) else { continue };
            assert!(end > now(), "ended {} s ago", now() - end);
            if end > after {
                return end;
            }
        }
    })
    .await
}

/// A caller of this moment gets an SVID that has not ended.
async fn served(agent: &Agent) -> i64 {
    eventually("an SVID", async || {
        let answer = Workload::connect(&agent.socket).await.ok()?.fetch_x509().await.ok()?;
        end(&answer).inspect(|end| assert!(*end > now(), "ended {} s ago", now() - end))
    })
    .await
}

#[tokio::test]
async fn an_agent_whose_clock_is_an_hour_off_says_so_and_joins_once_it_is_right() {
    for (off, why) in
        [("+3600", "has expired: check the clocks"), ("-3600", "is not valid yet: check the clocks")]
    {
        let Some(mut world) = World::prepare().await else { return };
        world.agent_clock.set(off);
        let daemon = world.spawn();
        daemon.line(why).await;
        world.agent_clock.set("+0");
        world.agent.adopt(daemon).await;
        served(&world.agent).await;
    }
}

#[tokio::test]
async fn an_agent_that_was_started_an_hour_ahead_takes_up_its_svid_once_the_clock_is_right() {
    let Some(mut world) = World::start().await else { return };
    world.agent.stop().await;
    world.agent_clock.set("+3600");
    let daemon = world.spawn();
    daemon.line("Failed to attest the node; will try again").await;
    world.agent_clock.set("+0");
    daemon.line("Took up the agent SVID of an earlier life").await;
    world.agent.adopt(daemon).await;
    served(&world.agent).await;
}

#[tokio::test]
async fn a_clock_that_jumps_under_an_agent_ends_nothing_for_good_and_prolongs_nothing() {
    let Some(world) = World::start().await else { return };
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    let mut last = fresh(&mut stream, 0).await;
    for off in ["+3600", "-3600", "+86400", "-86400"] {
        world.agent_clock.set(off);
        // Long enough for each SVID of before to end.
        let over = now() + LIFE + 1;
        while now() < over {
            let message = tokio::time::timeout(Duration::from_secs(1), stream.next()).await;
            if let Ok(answer) = message {
                let ends = end(&answer.unwrap());
                assert!(ends.is_none_or(|end| end > now()), "{off}: {ends:?}");
            }
        }
        world.agent_clock.set("+0");
        last = fresh(&mut stream, last).await;
        served(&world.agent).await;
    }
    assert!(world.agent.daemon().status().is_none());
}

#[tokio::test]
async fn a_clock_that_stands_still_under_an_agent_keeps_no_svid_alive() {
    let Some(world) = World::start().await else { return };
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    let mut last = fresh(&mut stream, 0).await;
    world.agent_clock.freeze(now());
    for _ in 0..3 {
        last = fresh(&mut stream, last).await;
        served(&world.agent).await;
    }
}

#[tokio::test]
async fn a_servers_clock_that_jumps_is_told_and_costs_nothing_once_it_is_right() {
    let Some(world) = World::start().await else { return };
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    let mut last = fresh(&mut stream, 0).await;
    for (told, off) in [HOUR, -HOUR].into_iter().enumerate() {
        world.server_clock.set(&format!("{off:+}"));
        world.server.create(entry(&world.agent.id, &format!("/at/{}", off + HOUR), &[&my_uid()])).await;
        eventually("a word of the agent's", async || {
            let log = world.agent.daemon().log();
            // Ahead it refuses the agent's SVID, behind it only says another time.
            let words =
                ["by the server's clock and not by this machine's", "Clock differs from the server's"];
            log.contains(words[told]).then_some(())
        })
        .await;
        world.server_clock.set("+0");
        last = fresh(&mut stream, last.max(now())).await;
        served(&world.agent).await;
    }
    assert!(world.server.daemon().status().is_none() && world.agent.daemon().status().is_none());
}

#[tokio::test]
async fn a_servers_clock_that_stands_still_costs_nothing_once_it_is_right() {
    let Some(world) = World::start().await else { return };
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    let last = fresh(&mut stream, 0).await;
    world.server_clock.freeze(now());
    world.server.create(entry(&world.agent.id, "/more", &[&my_uid()])).await;
    world.server_clock.set("+0");
    fresh(&mut stream, last).await;
    assert!(world.server.daemon().status().is_none() && world.agent.daemon().status().is_none());
}
