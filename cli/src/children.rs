//! Child processes of a supervisor that also takes in orphans: which of its children it started itself, and how all end.
//!
//! A child that was started here is waited for by whoever started it; all others were left by their parents, and nobody
//! else takes their exit codes.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
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

/// Kills every child, once. What is below them comes here as they end.
pub(crate) fn kill_once() {
    for pid in children() {
        // One that has ended meanwhile needs no signal; its number is nobody else's before it is waited for.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Kills everything below this process, and waits until nothing is. Only when nobody waits for a child any more.
pub(crate) fn end_all() {
    loop {
        kill_once();
        match waitpid(None, None) {
            // Its own children came here before it could be waited for.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
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
