//! The one place of the agent with `unsafe`: descriptors that the service manager passes by number, an option of sockets
//! that no crate knows yet, and the allocator.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::libc;
use parking_lot::Mutex;

/// Descriptors not taken yet; `None` before the first question.
static GIVEN: Mutex<Option<Vec<UnixListener>>> = Mutex::new(None);

/// The listening socket for `path` that the service manager passed (LISTEN_FDS), if there is one.
///
/// # Errors
/// The passed descriptors can't be used.
pub fn listener_for(path: &Path) -> io::Result<Option<UnixListener>> {
    let given = &mut *GIVEN.lock();
    let open = match given {
        Some(open) => open,
        None => given.insert(take_all()?),
    };
    let at = open
        .iter()
        .position(|listener| listener.local_addr().is_ok_and(|address| address.as_pathname() == Some(path)));
    if at.is_none() && !open.is_empty() {
        tracing::warn!(
            subsystem_name = "endpoints",
            path = %path.display(),
            passed = open.len(),
            "None of the sockets that the service manager passed has this path"
        );
    }
    Ok(at.map(|at| open.swap_remove(at)))
}

fn take_all() -> io::Result<Vec<UnixListener>> {
    let mut listeners = Vec::new();
    for number in sd_notify::listen_fds()? {
        let number: RawFd = number;
        // SAFETY: the protocol gives these numbers to this process alone, `listen_fds` checked LISTEN_PID, and
        // `GIVEN` makes sure that they are taken once.
        let owned = unsafe { OwnedFd::from_raw_fd(number) };
        nix::fcntl::fcntl(&owned, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
        let listener = UnixListener::from(owned);
        // Something else than a Unix socket has no address of this kind and matches no path.
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Lets the kernel refuse descriptors that callers send (Linux 6.16): closing one can take as long as its sender likes, and
/// holds up whoever received it. Inherited by accepted connections. On an older kernel nothing changes.
pub fn take_no_descriptors(socket: BorrowedFd<'_>) {
    const SO_PASSRIGHTS: libc::c_int = 83;
    let no: libc::c_int = 0;
    // SAFETY: the value is an integer of the length that is told, and outlives the call.
    let _ = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const no).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
}

/// Hands memory that is free back to the system. The allocator of other C libraries does so by itself.
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may be called from any thread at any time.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
