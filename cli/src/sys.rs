//! The one place of this library with `unsafe`: what a child does between fork and exec, and the turns of a thread.
#![allow(unsafe_code)]

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
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

/// How long a turn of this thread is; nothing on kernels before 6.12, which do not say.
///
/// # Errors
/// A filter of system calls refuses the question.
pub(crate) fn turn() -> io::Result<Duration> {
    attributes().map(|attributes| Duration::from_nanos(attributes.sched_runtime))
}

/// Asks for turns of this length; nothing stands for those of everybody. All else stays as it is.
///
/// # Errors
/// A filter of system calls refuses it, or this thread has a policy without turns.
pub(crate) fn set_turn(turn: Duration) -> io::Result<()> {
    let mut attributes = attributes()?;
    if attributes.sched_policy != libc::SCHED_OTHER.cast_unsigned() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    attributes.sched_runtime = u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel reads a struct whose size it finds in its first field.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    Ok(Errno::result(done).map(drop)?)
}

fn attributes() -> io::Result<libc::sched_attr> {
    let size = u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0);
    // SAFETY: the struct is plain numbers, of which zero is one.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes at most so many bytes to a struct that has them.
    let done = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    Errno::result(done)?;
    Ok(attributes)
}
