//! The command: started below this process, signalled and waited for.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;

use avouch_proto::run_v1::Begun;
use nix::sys::prctl::{set_child_subreaper, set_dumpable, set_name};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use super::SUPERVISOR;
use super::confine::Domain;
use crate::access_place;
use crate::children;
use crate::gate::SOCKET_VARIABLE;
use crate::sys;
use crate::verbs::place::VARIABLE;

/// What the run is about.
const TASK: &str = "AVOUCH_TASK";
/// The name of the identity.
const IDENTITY: &str = "AVOUCH_IDENTITY";

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Code(u8),
    Signal(u8),
}

/// Paths that the command is told of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places<'a> {
    /// The Workload API.
    pub agent: &'a Path,
    pub gates: &'a Path,
    /// A folder for temporary files.
    pub temporary: &'a Path,
    /// What says where gates are that are asked by URL.
    pub variables: &'a [(String, String)],
}

/// The command.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    pid: Pid,
}

/// From now on nobody of the same user reads this process or writes into it, and what descends from it stays below it.
pub(super) fn be_its_guardian() -> io::Result<()> {
    set_dumpable(false)?;
    // Whoever looks at the ancestors of a process sees by it that it belongs to a run.
    set_name(SUPERVISOR)?;
    set_child_subreaper(true)?;
    Ok(())
}

impl Child {
    pub(super) fn spawn(
        (program, name): (&Path, &str),
        arguments: &[String],
        begun: &Begun,
        task: &str,
        places: Places<'_>,
        domain: Option<Domain>,
    ) -> io::Result<Self> {
        let mut command = Command::new(program);
        command
            // A program may be another one by another name.
            .arg0(name)
            .args(arguments)
            .env(VARIABLE, format!("unix://{}", places.agent.display()))
            .env(SOCKET_VARIABLE, places.gates)
            .env("TMPDIR", places.temporary)
            .env(TASK, task)
            .env(IDENTITY, &begun.spiffe_id)
            .envs(places.variables.iter().map(|(name, value)| (name, value)));
        let access = access_place::beside(places.agent);
        // A node agent of before it was has none, and that of another is none of its business.
        match access.exists() {
            true => command.env(access_place::VARIABLE, access),
            false => command.env_remove(access_place::VARIABLE),
        };
        match domain {
            Some(domain) => sys::end_with_parent_after(&mut command, domain.enter()),
            None => sys::end_with_parent(&mut command),
        }
        let process = children::spawn(&mut command)?;
        let pid = process.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        Ok(Self { process, pid: pid.ok_or(io::ErrorKind::NotFound)? })
    }

    pub(super) async fn wait(&mut self) -> io::Result<Ended> {
        let status = self.process.wait().await?;
        let small = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => Ended::Code(small(code)),
            (None, signal) => Ended::Signal(small(signal.unwrap_or(0))),
        })
    }

    pub(super) fn signal(&self, signal: Signal) {
        // One that has ended meanwhile needs none.
        let _ = kill(self.pid, signal);
    }

    /// Asks it to end.
    pub(super) fn end(&self) {
        self.signal(Signal::SIGTERM);
    }
}
