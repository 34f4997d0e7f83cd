//! Lets clients in whose `:authority` over a Unix socket is the socket's path.
//!
//! gRPC's C core (Python, C++, Ruby) and older Java clients name the percent-encoded path there, which is no
//! authority by RFC 3986, and the HTTP/2 library refuses such a request before anybody sees it. On a Unix socket
//! the field means nothing, so it is replaced by `localhost` on the way in. Never touches anything but that
//! field, and never more than the header blocks of what a client sends.

mod fields;
mod mender;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use mender::Mender;

/// Bytes read from the socket at a time; on the stack, so that a quiet connection costs none.
const READ_BYTES: usize = 4096;

/// A Unix connection whose requests carry an authority that can be read.
#[derive(Debug)]
pub struct Mended<S> {
    inner: S,
    mender: Mender,
    ready: Vec<u8>,
    taken: usize,
}

impl<S> Mended<S> {
    /// Wraps a connection before its first byte is read.
    #[must_use]
    pub fn new(inner: S) -> Self {
        Self { inner, mender: Mender::new(), ready: Vec::new(), taken: 0 }
    }

    fn hand_out(&mut self, buf: &mut ReadBuf<'_>) {
        let rest = self.ready.get(self.taken..).unwrap_or_default();
        let some = rest.get(..rest.len().min(buf.remaining())).unwrap_or_default();
        buf.put_slice(some);
        self.taken += some.len();
        if self.taken == self.ready.len() {
            // Given back at once: streams are many and mostly silent.
            self.ready = Vec::new();
            self.taken = 0;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Mended<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.ready.is_empty() {
            let mut bytes = [0_u8; READ_BYTES];
            let mut fresh = ReadBuf::new(&mut bytes);
            match Pin::new(&mut this.inner).poll_read(cx, &mut fresh) {
                Poll::Ready(Ok(())) if fresh.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => this
                    .mender
                    .push(fresh.filled(), &mut this.ready)
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?,
                other => return other,
            }
        }
        this.hand_out(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mended<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }
    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
