//! The one place of this library with `unsafe`: what a child does between fork and exec.
#![allow(unsafe_code)]

use std::io;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};
use tokio::process::Command;

/// The child is told to stop (SIGTERM) when the thread that spawns it ends, however that ends. Call it, and spawn,
/// only on a thread that lives as long as the process.
pub(crate) fn end_with_parent(command: &mut Command) {
    let parent = getpid();
    // SAFETY: between fork and exec the closure calls nothing but prctl and getppid.
    unsafe { command.pre_exec(move || tie_to(parent)) };
}

/// As [`end_with_parent`], and `enter` is called last before the program starts. It must do no more than calls of the system.
pub(crate) fn end_with_parent_after(
    command: &mut Command,
    enter: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    end_with_parent(command);
    // SAFETY: the caller's word; on success it makes calls of the system and closes a descriptor.
    unsafe { command.pre_exec(enter) };
}

fn tie_to(parent: Pid) -> io::Result<()> {
    set_pdeathsig(Signal::SIGTERM)?;
    // A parent that died before the line above sends no signal any more.
    if getppid() == parent { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
}
