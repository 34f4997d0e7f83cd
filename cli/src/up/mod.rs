//! `avouch up`: a private server and agent, you registered, your first SVIDs fetched and verified, a live table.
//!
//! Never claims what it has not verified: both SVIDs are checked against the bundles the agent hands out.

pub(crate) mod fetch;
mod table;
pub(crate) mod world;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use avouch_domain::{SpiffeId, Timestamp, TrustDomain};
use tokio::signal::unix::{SignalKind, signal};

use crate::clock;
use crate::exit::{FAILED, FINDING};
use crate::out::Out;
use fetch::{Registration, Seen};
use world::{Base, Daemon, Node, World};

/// How long one step of the demonstration may take before it is called a fault.
const STEP_LIMIT: Duration = Duration::from_secs(30);
/// How often the remaining lifetimes on the screen are counted down.
const REDRAW_EVERY: Duration = Duration::from_secs(1);
/// The name of the one registered identity.
const DEMO_PATH: &str = "/demo/you";

/// Why the demonstration could not go on.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error("`{name}` is not in {}; build all three binaries: cargo build --workspace --bins", dir.display())]
    MissingBinary { name: &'static str, dir: PathBuf },
    #[error("cannot write {}: {why}", path.display())]
    Folder { path: PathBuf, why: String },
    #[error("no free loopback port: {0}")]
    Port(io::Error),
    #[error("cannot start {name}: {source}")]
    Spawn { name: &'static str, source: io::Error },
    #[error("{name} ended by itself ({status}); its last lines:\n{log}")]
    Ended { name: &'static str, status: String, log: String },
    #[error("{step} did not happen within {} s", STEP_LIMIT.as_secs())]
    TooSlow { step: &'static str },
    #[error("{step}: {why}")]
    Refused { step: &'static str, why: String },
    #[error("verification failed: {0}")]
    NotVerified(String),
}

impl UpError {
    /// 3 for an SVID that does not verify, which is a finding about the system; 1 for what kept it from being looked at.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::NotVerified(_)) { FINDING } else { FAILED }
    }

    fn folder(path: &Path, why: &io::Error) -> Self {
        Self::Folder { path: path.to_path_buf(), why: why.to_string() }
    }
}

/// Runs the demonstration until Ctrl-C, or with `once` until the first verified fetch.
///
/// # Errors
/// [`UpError`] names the step that failed and, for a daemon, shows its last log lines.
pub async fn run(once: bool, out: &mut Out) -> Result<(), UpError> {
    let domain = TrustDomain::new("example.org").map_err(|e| UpError::NotVerified(e.to_string()))?;
    let world = World::new(domain, "up", Base::Own)?;
    let node = world.node("agent");
    let mut daemons = Vec::new();
    let outcome = tokio::select! {
        outcome = show(&world, &node, &mut daemons, once, out) => outcome,
        () = told_to_stop() => Ok(()),
    };
    for daemon in daemons.iter_mut().rev() {
        daemon.stop().await;
    }
    world.remove();
    if outcome.is_ok() && !once {
        out.line("\nstopped; nothing is left behind");
    }
    outcome
}

/// Ctrl-C, a polite kill, or the end of the terminal: in each case the daemons go first.
pub(crate) async fn told_to_stop() {
    let wait = async |kind| match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => {}
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::hangup()) => {}
    }
}

async fn show(
    world: &World,
    node: &Node,
    daemons: &mut Vec<Daemon>,
    once: bool,
    out: &mut Out,
) -> Result<(), UpError> {
    let begun = clock::now();
    let since =
        |then: avouch_domain::Now| format!("{:.1} s", clock::now().mono.since(then.mono).as_secs_f64());
    daemons.push(world.start_server("")?);
    step("the server's start", daemons, out, fetch::server_ready(&world.server_socket)).await?;
    out.line(&format!("trust domain  {:<21} server  ready {}", world.trust_domain.to_string(), since(begun)));

    let attesting = clock::now();
    let Registration { token, bundle_pem, agent_id } =
        step("a join token", daemons, out, fetch::admit_agent(&world.server_socket, &world.trust_domain))
            .await?;
    daemons.push(world.start_agent(node, &bundle_pem, &token)?);
    step("your entry", daemons, out, fetch::register_caller(&world.server_socket, &agent_id, DEMO_PATH))
        .await?;
    let mut watch = step("the agent's start", daemons, out, fetch::Watch::open(&node.socket)).await?;
    out.line(&format!("agent         attested (join token) {}", since(attesting)));

    let seen = step("your first SVID", daemons, out, watch.next()).await?;
    let verified = step("verification", daemons, out, fetch::verify(&node.socket, &seen)).await?;
    out.line(&format!("you           {}", table::first(&seen, now())));
    out.line(&format!("verified      {verified}"));
    if once {
        out.line(
            "next          avouch up, without --once, keeps server and agent running for you to try them",
        );
        return Ok(());
    }
    out.line(&next_steps(world, node, &agent_id));
    live(daemons, watch, seen, out).await
}

/// Waits for a step, for a daemon's unexpected end, or for the limit, whichever comes first.
async fn step<T>(
    name: &'static str,
    daemons: &mut [Daemon],
    out: &mut Out,
    work: impl Future<Output = Result<T, UpError>>,
) -> Result<T, UpError> {
    let first = async {
        tokio::select! {
            done = tokio::time::timeout(STEP_LIMIT, work) => done.unwrap_or(Err(UpError::TooSlow { step: name })),
            fault = any_ended(daemons) => Err(fault),
        }
    };
    out.during(&format!("waiting for {name}"), first).await
}

async fn any_ended(daemons: &mut [Daemon]) -> UpError {
    match daemons {
        [server] => server.ended().await,
        [server, agent, ..] => tokio::select! { e = server.ended() => e, e = agent.ended() => e },
        [] => std::future::pending().await,
    }
}

async fn live(
    daemons: &mut [Daemon],
    mut watch: fetch::Watch,
    mut seen: Seen,
    out: &mut Out,
) -> Result<(), UpError> {
    let mut renewals = 0_u64;
    let mut redraw = tokio::time::interval(REDRAW_EVERY);
    loop {
        tokio::select! {
            _ = redraw.tick() => out.redraw(&table::live(&seen, renewals, now())),
            next = watch.next() => {
                seen = next?;
                fetch::verify_x509(&seen)?;
                renewals += 1;
            }
            fault = any_ended(daemons) => return Err(fault),
        }
    }
}

/// Whole commands, to be copied: another identity for the same processes, a look at it, and why it is given.
fn next_steps(world: &World, node: &Node, agent_id: &SpiffeId) -> String {
    let bin = world.bin.display();
    let (server, agent, admin) =
        (world.server_socket.display(), node.socket.display(), node.admin_socket.display());
    let second = format!("spiffe://{}/demo/second", world.trust_domain);
    let uid = nix::unistd::getuid();
    format!(
        "next, in another terminal:
  {bin}/avouch-server entry create -socketPath {server} -parentID {agent_id} -spiffeID {second} -selector unix:uid:{uid}
  {bin}/avouch-agent api fetch x509 -socketPath {agent}
  {bin}/avouch explain --server-socket {server} --agent-socket {agent} --admin-socket {admin} $$ {second}
  export SPIFFE_ENDPOINT_SOCKET=unix://{agent}    # for your own SPIFFE client
or govern an AI agent (docs/guides/first-agent.md):
  export SPIRE_SERVER_PRIVATE_SOCKET={server} SPIRE_AGENT_PUBLIC_SOCKET={agent}
  {bin}/avouch init 'Your Name'
  {bin}/avouch console    # a link to the pages, in your browser
"
    )
}

fn now() -> Timestamp {
    clock::now().wall
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_svid_that_does_not_verify_is_a_finding() {
        assert_eq!(UpError::NotVerified("no".into()).exit_code(), 3);
        assert_eq!(UpError::TooSlow { step: "a start" }.exit_code(), 1);
    }
}
