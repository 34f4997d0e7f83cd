//! The other end of a Unix socket, as the kernel names it at accept.
//!
//! Never: no reading below /proc here: the accept loop calls this and must not wait.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::sys;

/// Who connected. All four values are of the moment of connect(): a child that inherits the socket, or a
/// parent that passes it on, shows up as the process that connected.
#[derive(Debug)]
pub struct Peer {
    pub pid: i32,
    /// Effective user ID at connect().
    pub uid: u32,
    /// Effective group ID at connect().
    pub gid: u32,
    /// Handle of exactly that process; `None` on kernels before 6.5, where the start time guards instead.
    pub pidfd: Option<OwnedFd>,
}

impl Peer {
    /// Asks the kernel for the peer of an accepted socket. The pidfd comes first, so that it can't belong to
    /// a later process than the credentials.
    ///
    /// # Errors
    /// An error of the kernel, or `InvalidData` for a peer in a process namespace that the agent can't see.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let socket = socket.as_fd();
        let pidfd = sys::peer_pidfd(socket)?;
        let (pid, uid, gid) = sys::peer_credentials(socket)?;
        if pid <= 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the caller lives in a process namespace the agent can't see: run the agent in the host's",
            ));
        }
        Ok(Self { pid, uid, gid, pidfd })
    }
}
