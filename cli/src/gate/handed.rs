//! The hello on its way, and with it the shim's standard error: what a tool server says to people is said where the shim
//! was told to say such things, as if the MCP client had started the tool server itself.
//!
//! A descriptor is all that is taken from the AI agent's side, to write to; it can do that already.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as Shim;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::limits::HELLO_MAX;

/// Sends a line, and a descriptor with it.
///
/// # Errors
/// As writing.
pub fn send(stream: &Shim, line: &[u8], stderr: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = [stderr];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut handed = SendAncillaryBuffer::new(&mut space);
    handed.push(SendAncillaryMessage::ScmRights(&descriptors));
    let sent = sendmsg(stream, &[IoSlice::new(line)], &mut handed, SendFlags::NOSIGNAL)?;
    // A line is far smaller than what a socket takes at once.
    if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// The first bytes that come, and the descriptor that came with them. No bytes: nothing comes any more.
///
/// # Errors
/// As reading.
pub async fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    stream.async_io(Interest::READABLE, || take(stream)).await
}

fn take(stream: &UnixStream) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut bytes = vec![0; HELLO_MAX];
    // There is room for one descriptor: the kernel closes all others.
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut handed = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let came = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut handed, flags)?;
    bytes.truncate(came.bytes);
    let mut descriptors = handed.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    let stderr = descriptors.by_ref().flatten().next();
    drop(descriptors);
    Ok((bytes, stderr))
}
