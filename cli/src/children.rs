//! Child processes of a supervisor that also takes in orphans: which of its children it started itself.
//!
//! A child that was started here is waited for by whoever started it; all others were left by their parents, and nobody
//! else takes their exit codes.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use parking_lot::Mutex;
use tokio::process::{Child, Command};

/// Children that are waited for elsewhere.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Starts a child that is waited for by the caller.
///
/// # Errors
/// As spawning.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    // Nobody looks for orphans between its birth and its entry here.
    let mut own = OWN.lock();
    let child = command.spawn()?;
    own.extend(child.id().and_then(|pid| i32::try_from(pid).ok()));
    Ok(child)
}

/// The child with this number has been waited for.
pub(crate) fn waited(pid: Option<u32>) {
    if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()) {
        OWN.lock().remove(&pid);
    }
}

/// Takes the exit codes of orphans that have ended, so that none stays a zombie.
pub(crate) fn bury_orphans() {
    let own = OWN.lock();
    for pid in children().into_iter().filter(|pid| !own.contains(pid)) {
        // One that still runs is left alone.
        let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
    }
}

/// Direct children of this process, as the kernel lists them by thread.
fn children() -> Vec<i32> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let lists =
        threads.flatten().filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}
