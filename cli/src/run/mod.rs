//! `avouch run`: starts a command as an identity, and stays beside it.
//!
//! The node agent sees this process as the root of the run: whatever descends from it belongs to the identity and gets
//! no other. Never decides anything itself; it holds the line to the node agent on which its gates ask.

mod asks;
mod child;
pub(crate) mod code;
mod confine;
mod gates;
mod hold;
mod kin;
mod signals;

use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use avouch_proto::run_v1::{Begin, Begun};
use clap::Args;
use serde_json::json;
use tokio::time::Instant;

pub use hold::{Answer, Hold, Lost};

use crate::children;
use crate::exit::FAILED;
use crate::failure::Failure;
use crate::out::Out;
use child::{Child, Ended, Places};
use confine::Domain;
use signals::{Heard, Signals};

/// What the kernel calls the supervisor of a run (`/proc/PID/comm`, at most 15 bytes): no file is called so.
pub const SUPERVISOR: &CStr = c"avouch run";
/// How long a command that has lost its identity has to end by itself.
const END_GRACE: Duration = Duration::from_secs(5);
/// Pause between two rounds of killing.
const KILL_AGAIN: Duration = Duration::from_millis(100);

/// What to run, and as what.
#[derive(Debug, Args)]
pub struct Run {
    /// The identity: its SPIFFE ID, or the last part of it
    pub identity: String,
    /// What this run is about, as a code such as fix-4711
    #[arg(long, value_name = "CODE", default_value = "run")]
    pub task: String,
    /// Only these resources, such as files/read_file; can be repeated, or take commas [default: whatever the rules allow]
    #[arg(long, value_name = "RESOURCE", value_delimiter = ',')]
    pub tools: Vec<String>,
    /// Most calls of the task [default: 1000]
    #[arg(long, value_name = "NUMBER")]
    pub calls: Option<u32>,
    /// A file or folder that belongs to its code, beside the command and the files among its arguments
    #[arg(long, value_name = "PATH")]
    pub code: Vec<PathBuf>,
    /// Let the command trace and signal processes outside of the run, and open guarded folders
    #[arg(long)]
    pub unconfined: bool,
    /// Let the command go on when the identity is stopped; it can do nothing as that identity then
    #[arg(long)]
    pub keep_running: bool,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// Runs the command; its exit code, or why there was none.
pub async fn run(arguments: Run, agent_socket: &Path, json: bool, out: &mut Out) -> u8 {
    match supervised(arguments, agent_socket, json, out).await {
        Ok(code) => code,
        Err(failure) => Failure::code_of(Err(failure), out),
    }
}

async fn supervised(arguments: Run, agent_socket: &Path, json: bool, out: &mut Out) -> Result<u8, Failure> {
    let (name, rest) = arguments.command.split_first().ok_or_else(|| Failure::usage("no command"))?;
    let program = code::find(name)?;
    let loose = if arguments.unconfined { Some("--unconfined lets it out") } else { confine::hindrance() };
    let confined = loose.is_none();
    let begin = Begin {
        identity: arguments.identity.clone(),
        task: arguments.task.clone(),
        tools: arguments.tools.clone(),
        calls: arguments.calls.unwrap_or_default(),
        code: code::listed(&program, rest, &arguments.code)?,
        confined,
    };
    child::be_its_guardian().map_err(|e| Failure::new(FAILED, format!("cannot guard the command: {e}")))?;
    let signals =
        Signals::new().map_err(|e| Failure::new(FAILED, format!("cannot wait for signals: {e}")))?;
    let (hold, mut begun) = Hold::begin(agent_socket, begin).await?;
    told(&begun, loose, json, out);
    let mut host = gates::Host::open(&mut begun, hold.clone())
        .map_err(|e| Failure::new(FAILED, format!("cannot open the socket of the gates: {e}")))?;
    // After the folder of the run is there: it is among what the command may open.
    let domain = confined.then(|| Domain::without(&closed_to(&begun))).transpose();
    let domain = domain.map_err(|e| Failure::new(FAILED, format!("cannot confine the command: {e}")))?;
    let variables = std::mem::take(&mut host.variables);
    let places = Places {
        agent: agent_socket,
        gates: &host.socket,
        temporary: &host.temporary,
        variables: &variables,
    };
    let code = match Child::spawn((&program, name), rest, &begun, &arguments.task, places, domain) {
        Ok(mut child) => {
            let watch = Watch { hold: hold.clone(), signals, keep_running: arguments.keep_running };
            watch.until_its_end(&mut child, &mut host, out).await
        }
        Err(e) => Err(Failure::new(FAILED, format!("{}: {e}", program.display()))),
    };
    host.close().await;
    // Whatever is left belongs to the run, and must not outlive it: after the line below it would be just any process of
    // this user.
    let _ = tokio::task::spawn_blocking(children::end_all).await;
    drop(hold);
    code
}

/// Folders and files that only gates and the node agent may open.
fn closed_to(begun: &Begun) -> Vec<PathBuf> {
    let guards = begun.gates.iter().flat_map(|gate| &gate.guards);
    guards.chain(&begun.closed).map(PathBuf::from).collect()
}

/// Standard error: standard output is the command's.
fn told(begun: &Begun, loose: Option<&str>, as_json: bool, out: &mut Out) {
    let code = hex::encode(&begun.code_digest);
    if as_json {
        let line = json!({"spiffe_id": begun.spiffe_id, "instance_id": begun.instance_id,
            "agent_id": begun.agent_id, "code": code, "rules": begun.rules_number, "confined": loose.is_none(), "advisory": loose});
        out.complain(&format!("{line}\n"));
        return;
    }
    let rules = match begun.rules_number {
        0 => "no rules are published yet, so every gate denies".to_owned(),
        number => format!("rules {number}"),
    };
    let short = code.get(..12).unwrap_or_default();
    let held =
        loose.map(|why| format!("; advisory, it can reach around its gates: {why}")).unwrap_or_default();
    let missing =
        begun.gates.iter().filter_map(|gate| Some((&gate.name, gate.api.as_ref()?.secret.as_ref()?)));
    for (gate, secret) in missing.filter(|(_, secret)| !secret.missing.is_empty()) {
        let why = &secret.missing;
        out.complain(&format!(
            "avouch run: the gate {gate} has no secret, and lets nothing through: {why}\n"
        ));
    }
    out.complain(&format!(
        "avouch run: {} ({}), code {short}, {rules}{held}\n",
        begun.spiffe_id, begun.instance_id
    ));
}

/// What is looked after while the command runs.
struct Watch {
    hold: Hold,
    signals: Signals,
    keep_running: bool,
}

impl Watch {
    /// Until the command has ended. One that has lost its identity is told to end, and killed after [`END_GRACE`].
    async fn until_its_end(
        mut self,
        child: &mut Child,
        host: &mut gates::Host,
        out: &mut Out,
    ) -> Result<u8, Failure> {
        let (mut told, mut kill_at) = (false, None);
        loop {
            tokio::select! {
                ended = child.wait() => return Ok(code_of(ended.map_err(|e| Failure::new(FAILED, e))?)),
                heard = self.signals.next() => match heard {
                    Heard::Pass(signal) => child.signal(signal),
                    Heard::Ended => children::bury_orphans(),
                },
                lost = self.hold.lost(), if !told => {
                    told = true;
                    let Lost { reason } = lost;
                    out.complain(&format!("avouch run: {reason}\n"));
                    // Told first: a command that stands in for a tool server ends also when its gate does, and otherwise.
                    if !self.keep_running {
                        child.end();
                        kill_at = Some(Instant::now() + END_GRACE);
                    }
                    host.stop();
                }
                () = due(kill_at) => {
                    children::kill_once();
                    // Whoever came meanwhile is killed in the next round.
                    kill_at = Some(Instant::now() + KILL_AGAIN);
                }
            }
        }
    }
}

async fn due(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn code_of(ended: Ended) -> u8 {
    match ended {
        Ended::Code(code) => code,
        Ended::Signal(signal) => 128_u8.saturating_add(signal),
    }
}
