//! The one place of the server with `unsafe`: descriptors that the service manager passes by number.
#![allow(unsafe_code)]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use parking_lot::Mutex;

/// Descriptors not taken yet; `None` before the first question.
static GIVEN: Mutex<Option<Vec<OwnedFd>>> = Mutex::new(None);

/// The listening socket for `path` that the service manager passed (LISTEN_FDS), if there is one.
///
/// # Errors
/// The passed descriptors can't be used.
pub fn unix_listener_for(path: &Path) -> io::Result<Option<UnixListener>> {
    let fits = |listener: &UnixListener| {
        listener.local_addr().is_ok_and(|address| address.as_pathname() == Some(path))
    };
    take(fits)
}

/// As [`unix_listener_for`], for a TCP address.
///
/// # Errors
/// The passed descriptors can't be used.
pub fn tcp_listener_for(address: SocketAddr) -> io::Result<Option<TcpListener>> {
    // A dual-stack socket of the service manager has the IPv6 form of an unspecified address.
    let fits = |listener: &TcpListener| {
        listener.local_addr().is_ok_and(|given| {
            let any = given.ip().is_unspecified() && address.ip().is_unspecified();
            given.port() == address.port() && (given.ip() == address.ip() || any)
        })
    };
    take(fits)
}

/// How many passed sockets nobody has asked for.
#[must_use]
pub fn unclaimed() -> usize {
    GIVEN.lock().as_ref().map_or(0, Vec::len)
}

fn take<L: From<OwnedFd> + Into<OwnedFd>>(fits: impl Fn(&L) -> bool) -> io::Result<Option<L>> {
    let given = &mut *GIVEN.lock();
    let open = match given {
        Some(open) => open,
        None => given.insert(take_all()?),
    };
    let (mut found, mut rest) = (None, Vec::new());
    for descriptor in open.drain(..) {
        // A socket of another kind has no address of this one and fits nothing.
        let listener = L::from(descriptor);
        if found.is_none() && fits(&listener) {
            found = Some(listener);
        } else {
            rest.push(listener.into());
        }
    }
    *open = rest;
    Ok(found)
}

fn take_all() -> io::Result<Vec<OwnedFd>> {
    let mut descriptors = Vec::new();
    for number in sd_notify::listen_fds()? {
        let number: RawFd = number;
        // SAFETY: the protocol gives these numbers to this process alone, `listen_fds` checked LISTEN_PID and marked
        // them close-on-exec, and `GIVEN` makes sure that they are taken once.
        descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
    }
    Ok(descriptors)
}
