//! Callers that change while they are answered: nobody ever gets an SVID but the process that was attested, and a
//! stream whose peer changed ends.
//!
//! The same many thousand times, against the attestor alone, is `attestors/src/process/race`.

use avouch_proto::types;
use avouch_tests::actor::{Actor, LATER_USER, USER};
use avouch_tests::daemon::{Daemon, binary};
use avouch_tests::workload::Workload;
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, ServerOptions, World, entry, eventually};
use tonic::{Code, Status};

/// A world in which this process, the actors, and those they become have an identity each.
async fn stage() -> Option<(World, types::Entry)> {
    if !nix::unistd::geteuid().is_root() {
        println!("not run: needs root, to be several users");
        return None;
    }
    let world = World::start().await;
    world.grant("/reader").await;
    let other = entry(&world.agent.id, "/other", &[&format!("unix:uid:{LATER_USER}")]);
    world.server.create(other).await;
    let actor = world.server.create(entry(&world.agent.id, "/actor", &[&format!("unix:uid:{USER}")])).await;
    Some((world, actor))
}

async fn ids(workload: &mut Workload) -> Result<Vec<String>, Status> {
    Ok(workload.fetch_x509().await?.svids.into_iter().map(|s| s.spiffe_id).collect())
}

/// A connection of a process that obeyed `word` on an open stream: the stream ends at the next change, and nothing
/// is handed out any more.
async fn changed_by(word: &str) {
    let Some((world, actors)) = stage().await else { return };
    let mut actor = Actor::start(&world.agent.socket);
    let mut workload = actor.workload().await;
    let mut stream = workload.x509().await.unwrap();
    let first = stream.next().await.unwrap();
    assert_eq!(first.svids[0].spiffe_id, "spiffe://example.org/actor");
    if word == "kill" {
        actor.kill()
    } else {
        actor.tell(word)
    }
    world.server.update(types::Entry { hint: "new".into(), ..actors }).await;
    let end = stream.next().await.expect_err("no SVID for what the caller is now");
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    let more = ids(&mut workload).await.expect_err("nor on a new stream of this connection");
    assert!(matches!(more.code(), Code::Unavailable | Code::Unknown), "{more:?}");
}

#[tokio::test]
async fn a_connection_that_was_handed_over_speaks_for_the_process_that_made_it() {
    let Some((world, _)) = stage().await else { return };
    let mut actor = Actor::start(&world.agent.socket);
    let mut over = actor.workload().await;
    assert_eq!(ids(&mut over).await.unwrap(), ["spiffe://example.org/actor"], "never what its reader is");
    let mut own = world.agent.workload().await;
    assert_eq!(
        ids(&mut own).await.unwrap(),
        ["spiffe://example.org/reader"],
        "never what others handed over"
    );
}

#[tokio::test]
async fn a_stream_ends_when_its_process_runs_another_program() {
    changed_by("another program").await;
}

#[tokio::test]
async fn a_stream_ends_when_its_process_runs_the_same_program_anew() {
    changed_by("the same program").await;
}

#[tokio::test]
async fn a_stream_ends_when_its_process_becomes_another_user() {
    changed_by("another user").await;
}

#[tokio::test]
async fn a_stream_ends_when_its_process_has_exited() {
    changed_by("exit").await;
}

#[tokio::test]
async fn a_stream_ends_when_its_process_was_killed() {
    changed_by("kill").await;
}

#[tokio::test]
async fn a_process_that_is_gone_before_it_asks_gets_nothing() {
    let Some((world, _)) = stage().await else { return };
    for word in ["exit", "kill"] {
        let mut actor = Actor::start(&world.agent.socket);
        if word == "kill" {
            actor.kill()
        } else {
            actor.tell(word)
        }
        let status = ids(&mut actor.workload().await).await.expect_err("nobody is there");
        assert!(matches!(status.code(), Code::Unavailable | Code::Unknown), "{word}: {status:?}");
    }
}

/// Callers die at every moment of their question; each answer that comes is theirs.
#[tokio::test]
async fn processes_that_die_in_the_middle_get_their_own_identity_or_nothing() {
    let Some((world, _)) = stage().await else { return };
    let mut answered = 0;
    for round in 0..60 {
        let mut actor = Actor::start(&world.agent.socket);
        let mut workload = actor.workload().await;
        let death = tokio::task::spawn_blocking(move || {
            // Not a wait: a spread of moments over the time that a question takes.
            std::thread::sleep(std::time::Duration::from_micros(round * 10));
            actor.kill();
        });
        match ids(&mut workload).await {
            Ok(ids) => {
                assert_eq!(ids, ["spiffe://example.org/actor"]);
                answered += 1;
            }
            Err(status) => assert!(matches!(status.code(), Code::Unavailable | Code::Unknown), "{status:?}"),
        }
        death.await.unwrap();
    }
    println!("{answered} of 60 were answered before they died");
    assert!(world.agent.daemon().status().is_none());
}

#[tokio::test]
async fn a_process_in_a_process_namespace_is_known_by_what_it_is_outside() {
    let Some((world, _)) = stage().await else { return };
    let wrapper = ["unshare", "--pid", "--fork", "--kill-child"];
    let Some(mut actor) = Actor::start_below(&wrapper, &world.agent.socket) else {
        println!("not run: no process namespaces here");
        return;
    };
    let mut workload = actor.workload().await;
    assert_eq!(ids(&mut workload).await.unwrap(), ["spiffe://example.org/actor"]);
}

/// A world in which whoever runs the actors' binary has an identity, by its path, and whoever runs one elsewhere another.
async fn stage_of_paths(elsewhere: &std::path::Path) -> Option<World> {
    if !nix::unistd::geteuid().is_root() {
        println!("not run: needs root, to be several users");
        return None;
    }
    let unix = "discover_workload_path = true".into();
    let world =
        World::start_with(ServerOptions::default(), AgentOptions { unix, ..AgentOptions::default() }).await;
    let real = binary("avouch-caller").canonicalize().unwrap();
    for (path, name) in [(real.as_path(), "/real"), (elsewhere, "/elsewhere")] {
        let selectors = [format!("unix:uid:{USER}"), format!("unix:path:{}", path.display())];
        let selectors: Vec<_> = selectors.iter().map(String::as_str).collect();
        world.server.create(entry(&world.agent.id, name, &selectors)).await;
    }
    Some(world)
}

#[tokio::test]
async fn a_binary_that_is_started_by_a_link_is_known_by_where_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("trusted");
    std::os::unix::fs::symlink(binary("avouch-caller"), &link).unwrap();
    let Some(world) = stage_of_paths(&link).await else { return };
    let script = format!("exec '{}' \"$@\"", link.display());
    let mut actor = Actor::start_below(&["sh", "-c", &script], &world.agent.socket).unwrap();
    assert_eq!(ids(&mut actor.workload().await).await.unwrap(), ["spiffe://example.org/real"]);
}

#[tokio::test]
async fn an_agent_in_a_process_namespace_serves_nobody_it_can_not_see() {
    let Some((world, _)) = stage().await else { return };
    let proof = Proof::JoinToken(world.server.token().await);
    let agent = Agent::prepare(&world.server, "b", &proof, &AgentOptions::default()).await;
    world.server.create(entry(&agent.id, "/blind", &[&my_uid()])).await;
    let mut command = std::process::Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(binary("avouch-agent"));
    let daemon = Daemon::spawn("agent", command.args(["run", "-config"]).arg(&agent.config));
    let asked = eventually("an answer", async || {
        if daemon.status().is_some() {
            return Some(None);
        }
        let mut workload = Workload::connect(&agent.socket).await.ok()?;
        Some(Some(workload.fetch_x509().await.expect_err("nobody knows this caller")))
    })
    .await;
    match asked {
        None => println!("not run: no process namespaces here: {}", daemon.log()),
        Some(_) => {
            let line = daemon.line("Closed a connection whose caller is unknown").await;
            assert!(line.contains("run the agent in the host's"), "{line}");
        }
    }
}
