//! The kernel's own words about a peer and a process: socket options, pidfds, files below /proc.
//!
//! Never: no interpretation (that is `process.rs`), and no unsafe code but one question to a pidfd.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use crate::limits::{PROC_FILE_MAX, PROC_FILE_USUAL};

/// The peer's pidfd: `Ok(None)` on kernels before 6.5, which do not know the option.
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    match getsockopt(&socket, sockopt::PeerPidfd) {
        Ok(pidfd) => Ok(Some(pidfd)),
        Err(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// The peer's pid, uid and gid at the time it called connect().
pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<(i32, u32, u32)> {
    let seen = getsockopt(&socket, sockopt::PeerCredentials)?;
    Ok((seen.pid(), seen.uid(), seen.gid()))
}

/// True while the process of a pidfd has not exited: a pidfd turns readable at the exit of the last thread.
pub(crate) fn is_alive(pidfd: &OwnedFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(ready) => return Ok(ready == 0),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// The effective user and group that the process of a pidfd has now; `None` on kernels before 6.13, which do not know
/// the question.
///
/// # Errors
/// ESRCH if the process has been reaped.
pub(crate) fn effective_ids(pidfd: &OwnedFd) -> io::Result<Option<(u32, u32)>> {
    // SAFETY: the struct is plain numbers, of which zero is one.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = u64::from(libc::PIDFD_INFO_CREDS);
    // SAFETY: the kernel writes at most the size that is part of the request's number, which is that of the struct.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    match Errno::result(done) {
        Ok(_) if info.mask & u64::from(libc::PIDFD_INFO_CREDS) != 0 => Ok(Some((info.euid, info.egid))),
        // ENOTTY: no such question, or a pidfd that is no file of pidfs; a filter of system calls says EPERM or ENOSYS.
        Ok(_) | Err(Errno::ENOTTY | Errno::EINVAL | Errno::EPERM | Errno::ENOSYS) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads a small file below /proc whole. The kernel makes such a text in one piece: a read that does not fill the
/// buffer has brought all of it.
pub(crate) fn read_proc(path: &str) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    if let Some(bytes) = read_from_start(&file)? {
        return Ok(bytes);
    }
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(PROC_FILE_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads such a file whole that may be read again and by others at the same time; `None` if it is longer than usual.
pub(crate) fn read_from_start(file: &File) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; PROC_FILE_USUAL];
    let length = loop {
        match file.read_at(&mut bytes, 0) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    bytes.truncate(length);
    Ok((length < PROC_FILE_USUAL).then_some(bytes))
}
