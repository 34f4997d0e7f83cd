//! The one place of the kit with `unsafe`: a descriptor that another process sent.
#![allow(unsafe_code)]

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// The descriptor that comes with the next byte; `None` if the other end is gone.
pub fn received(line: &UnixStream) -> Option<OwnedFd> {
    loop {
        let (mut byte, mut space) = ([0], nix::cmsg_space!([std::os::fd::RawFd; 1]));
        let mut word = [IoSliceMut::new(&mut byte)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(line.as_raw_fd(), &mut word, Some(&mut space), flags) {
            // The end of a child interrupts it.
            Err(Errno::EINTR) => continue,
            received => received.unwrap(),
        };
        return message.cmsgs().unwrap().find_map(|part| match part {
            // SAFETY: the kernel has just made this descriptor for this process, and nobody else knows of it.
            ControlMessageOwned::ScmRights(passed) => Some(unsafe { OwnedFd::from_raw_fd(*passed.first()?) }),
            _ => None,
        });
    }
}
