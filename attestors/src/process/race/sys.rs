//! Children for the race test, made by a bare fork: a few thousand of them in seconds.
//!
//! Never: between fork and exec or exit a child calls nothing but system calls; it shares locks with threads
//! that do not exist in it.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

/// What a child does after it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Waits until the connection is closed.
    Stay,
    Exit,
    /// Becomes `cat`, reading the connection.
    Exec,
    /// Becomes another user, then waits.
    SetUid(u32),
    /// Becomes another user, then `cat`.
    SetUidExec(u32),
}

/// The program that children turn into.
pub(super) const OTHER: &str = "/bin/cat";

/// Forks a child that becomes `user`, connects to `socket`, sends `tag`, and goes on as `then` says.
pub(super) fn fork_caller(socket: &Path, user: Option<u32>, tag: u32, then: Then) -> i32 {
    let (address, length) = address(socket);
    let program = CString::new(OTHER).unwrap();
    let argv = [program.as_ptr(), std::ptr::null()];
    // SAFETY: the child calls only system calls, on values made before the fork, and never returns.
    unsafe {
        let pid = libc::fork();
        if pid != 0 {
            return pid;
        }
        if let Some(user) = user
            && libc::setresuid(user, user, user) != 0
        {
            libc::_exit(11);
        }
        let fd = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
        if libc::connect(fd, (&raw const address).cast(), length) != 0 {
            libc::_exit(12);
        }
        if libc::write(fd, (&raw const tag).cast(), 4) != 4 {
            libc::_exit(13);
        }
        match then {
            Then::SetUid(user) | Then::SetUidExec(user) => {
                if libc::setresuid(user, user, user) != 0 {
                    libc::_exit(14);
                }
            }
            Then::Stay | Then::Exit | Then::Exec => {}
        }
        match then {
            Then::Exit => libc::_exit(0),
            Then::Exec | Then::SetUidExec(_) => {
                libc::dup2(fd, 0);
                libc::close(fd);
                libc::execv(program.as_ptr(), argv.as_ptr());
                libc::_exit(15);
            }
            Then::Stay | Then::SetUid(_) => {
                let mut byte = 0u8;
                while libc::read(fd, (&raw mut byte).cast(), 1) > 0 {}
                libc::_exit(0);
            }
        }
    }
}

/// Forks a child that becomes `cat` on the read end of a pipe, without ever connecting.
pub(super) fn fork_ghost(stdin: i32) -> i32 {
    let program = CString::new(OTHER).unwrap();
    let argv = [program.as_ptr(), std::ptr::null()];
    // SAFETY: as above.
    unsafe {
        let pid = libc::fork();
        if pid != 0 {
            return pid;
        }
        libc::dup2(stdin, 0);
        libc::execv(program.as_ptr(), argv.as_ptr());
        libc::_exit(15);
    }
}

fn address(path: &Path) -> (libc::sockaddr_un, libc::socklen_t) {
    let bytes = path.as_os_str().as_bytes();
    let mut address =
        libc::sockaddr_un { sun_family: libc::AF_UNIX as libc::sa_family_t, sun_path: [0; 108] };
    assert!(bytes.len() < address.sun_path.len(), "socket path too long for the test");
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    let length = std::mem::size_of::<libc::sockaddr_un>();
    (address, libc::socklen_t::try_from(length).unwrap())
}
