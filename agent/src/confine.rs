//! At its start the agent gives up what it does not need: capabilities, new privileges, running programs, and reaching
//! into other processes.
//!
//! Done on the first thread before there is another: what a thread gives up, only its children lack. Never fails the
//! start: what this kernel or this user can't do is said once, and left. Never Landlock: whoever is under its rules may
//! not look at a process that is not, and looking is the agent's work.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use avouch::access_place;
use nix::libc;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::config::{AgentConfig, KeyManagerConfig, SealedStateDir};

/// Looking at other users' processes: `/proc/PID/exe` and `auxv`, and reading their binaries.
const LOOKING: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);
/// Ports below this need a capability.
const FREE_PORTS: u16 = 1024;
/// Running programs, and all else that [`LOOKING`] would allow with other processes.
const REFUSED_CALLS: [libc::c_long; 6] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
];

/// What became of it.
#[derive(Debug)]
pub struct Confined {
    kept: io::Result<CapabilitySet>,
    new_privileges: io::Result<()>,
    calls: Result<(), seccompiler::Error>,
}

/// Gives up everything that an agent with this configuration does not need.
#[must_use]
pub fn confine(config: &AgentConfig, runtime_dir: Option<&Path>) -> Confined {
    let needed = needed(config, runtime_dir);
    let new_privileges = set_no_new_privs(true).map_err(io::Error::from);
    Confined { kept: keep_only(needed), new_privileges, calls: refuse_calls() }
}

impl Confined {
    /// Says it once, when there is a log.
    pub fn tell(&self) {
        if let (Ok(kept), Ok(()), Ok(())) = (&self.kept, &self.new_privileges, &self.calls) {
            tracing::info!(
                capabilities = %names(*kept),
                "Gave up other capabilities, new privileges, running programs and reaching into processes"
            );
            return;
        }
        let outcome = |error: Option<String>| error.unwrap_or_else(|| "given up".to_owned());
        tracing::warn!(
            capabilities = outcome(self.kept.as_ref().err().map(ToString::to_string)),
            new_privileges = outcome(self.new_privileges.as_ref().err().map(ToString::to_string)),
            programs_and_processes = outcome(self.calls.as_ref().err().map(ToString::to_string)),
            "Could not give up all that is not needed"
        );
    }
}

/// The capabilities that this configuration needs.
fn needed(config: &AgentConfig, runtime_dir: Option<&Path>) -> CapabilitySet {
    let mut needed = LOOKING;
    let health = config.health.as_ref().map(|health| health.port);
    let metrics = config.telemetry.prometheus.as_ref().map(|(_, port)| *port);
    if [health, metrics].into_iter().flatten().any(|port| port < FREE_PORTS) {
        needed |= CapabilitySet::NET_BIND_SERVICE;
    }
    // Root writes to what belongs to others by this alone.
    if written(config, runtime_dir).iter().any(|path| is_foreign(path)) {
        needed |= CapabilitySet::DAC_OVERRIDE;
    }
    needed
}

/// What the agent writes to, and what lies in its own folders already.
fn written(config: &AgentConfig, runtime_dir: Option<&Path>) -> Vec<PathBuf> {
    let keys = match &config.key_manager {
        KeyManagerConfig::Disk { directory } => Some(directory.as_path()),
        KeyManagerConfig::Memory => None,
    };
    let sealed = match &config.sealed_state_dir {
        SealedStateDir::At(directory) => Some(directory.as_path()),
        SealedStateDir::Default | SealedStateDir::Off => None,
    };
    let folders = [Some(config.data_dir.as_path()), keys, sealed, runtime_dir];
    let mut all = Vec::new();
    for folder in folders.into_iter().flatten() {
        all.push(folder.to_owned());
        let inside = fs::read_dir(folder).into_iter().flatten().flatten();
        all.extend(inside.map(|entry| entry.path()));
    }
    let sockets = [Some(&config.socket_path), config.admin_socket_path.as_ref()];
    all.extend(sockets.into_iter().flatten().chain(&config.log.file).cloned());
    all.push(access_place::beside(&config.socket_path));
    all.extend(config.log.file.as_deref().and_then(Path::parent).map(Path::to_owned));
    all
}

/// True if it, or the folder in which it will be made, belongs to another user.
fn is_foreign(path: &Path) -> bool {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = path.ancestors().find_map(|part| fs::metadata(part).ok());
    there.is_some_and(|facts| facts.uid() != nix::unistd::geteuid().as_raw())
}

/// Gives up all capabilities but these, as far as they are there.
fn keep_only(needed: CapabilitySet) -> io::Result<CapabilitySet> {
    let had = capabilities(None)?;
    if had.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().iter().filter(|capability| !needed.contains(*capability)) {
            // Kernels do not know the newest ones.
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    // Kernels before 4.3 have none.
    let _ = clear_ambient_capability_set();
    let kept = had.permitted & needed;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)?;
    Ok(kept)
}

fn names(set: CapabilitySet) -> String {
    let names: Vec<_> = set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

/// From now on these calls fail with EPERM on this thread and its children.
fn refuse_calls() -> Result<(), seccompiler::Error> {
    let rules: BTreeMap<_, _> = REFUSED_CALLS.into_iter().map(|call| (call, Vec::new())).collect();
    let refused = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, refused, std::env::consts::ARCH.try_into()?)?;
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a thread of its own: what it gives up stays given up.
    fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(work).join().unwrap()
    }

    #[test]
    fn no_program_runs_any_more_and_files_are_still_read() {
        apart(|| {
            refuse_calls().unwrap();
            let refused = std::process::Command::new("/bin/true").status().unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
            fs::read("/proc/self/status").unwrap();
        });
    }

    #[test]
    fn only_needed_capabilities_are_kept_and_none_is_gained() {
        apart(|| {
            let had = capabilities(None).unwrap().permitted;
            let kept = keep_only(LOOKING).unwrap();
            assert_eq!(kept, had & LOOKING);
            let now = capabilities(None).unwrap();
            assert_eq!((now.permitted, now.effective), (kept, kept));
            assert!(now.inheritable.is_empty());
        });
    }

    #[test]
    fn what_is_not_there_yet_belongs_to_the_owner_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/below");
        assert!(!is_foreign(&path));
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(4001), None).unwrap();
            assert!(is_foreign(&path));
        } else {
            println!("not run: folders of other users (needs root)");
        }
    }
}
