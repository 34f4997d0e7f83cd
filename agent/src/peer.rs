//! Socket peer → pinned process: whom the kernel names at accept, pinned at once and watched after.
//!
//! Accepting never waits for /proc; the process is pinned when its connection is served for the first time, before it
//! has asked anything: what it becomes by an exec after that is not what connected. A connection whose process is gone or changed is closed, so that the client
//! connects anew and is looked at anew.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use avouch::authority::Mended;
use avouch_attestors::process::{Look, Pins};
use avouch_attestors::{Peer, PinnedProcess, ProcessGone};
use avouch_engine::runs::Process;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use crate::fair::Share;
use crate::limits::CLOSE_GRACE;

/// The process at the other end of one connection.
#[derive(Debug)]
pub struct Caller {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
    /// The agent itself.
    own: bool,
    pins: Arc<Pins>,
    pinned: Mutex<Pinned>,
    closing: CancellationToken,
    /// Itself and the root of its run, once it was found in one.
    in_run: OnceLock<[Process; 2]>,
    _share: Option<Share>,
}

#[derive(Debug)]
enum Pinned {
    NotYet(Option<Peer>),
    Held(Arc<PinnedProcess>),
    Gone,
}

impl Caller {
    /// Takes the kernel's word for who connected.
    #[must_use]
    pub fn new(peer: Peer, pins: Arc<Pins>, share: Option<Share>) -> Self {
        Self {
            pid: peer.pid,
            uid: peer.uid,
            gid: peer.gid,
            // Asked once: it is a call of the system each time.
            own: u32::try_from(peer.pid).is_ok_and(|pid| pid == std::process::id()),
            pins,
            pinned: Mutex::new(Pinned::NotYet(Some(peer))),
            closing: CancellationToken::new(),
            in_run: OnceLock::new(),
            _share: share,
        }
    }

    /// The pinned process, still the one that connected.
    ///
    /// # Errors
    /// [`ProcessGone`] if it exited or changed; the connection closes soon after.
    pub fn process(&self) -> Result<Arc<PinnedProcess>, ProcessGone> {
        self.looked_at(Look::Whole)
    }

    /// The pinned process, still the one that connected as far as `look` goes.
    ///
    /// # Errors
    /// As [`Caller::process`].
    pub fn looked_at(&self, look: Look) -> Result<Arc<PinnedProcess>, ProcessGone> {
        self.checked(|process| process.still_same(look))
    }

    /// The pinned process, which still runs: enough to begin something for it. Whoever tells it what came of that looks at it
    /// again before.
    ///
    /// # Errors
    /// As [`Caller::process`], but for what it has become.
    pub fn running(&self) -> Result<Arc<PinnedProcess>, ProcessGone> {
        self.checked(PinnedProcess::still_runs)
    }

    fn checked(
        &self,
        check: impl FnOnce(&PinnedProcess) -> Result<(), ProcessGone>,
    ) -> Result<Arc<PinnedProcess>, ProcessGone> {
        let result = self.pin_or_find().and_then(|(process, just_checked)| {
            if !just_checked {
                check(&process)?;
            }
            Ok(process)
        });
        if result.is_err() {
            *self.pinned.lock() = Pinned::Gone;
            self.closing.cancel();
        }
        result
    }

    /// The pinned process as it was when it was pinned. Whoever hands something out because of it asks
    /// [`Caller::still_same`] right before.
    ///
    /// # Errors
    /// [`ProcessGone`] if it was found gone or changed before.
    pub fn pin(&self) -> Result<Arc<PinnedProcess>, ProcessGone> {
        self.pin_or_find().map(|(process, _)| process)
    }

    /// The pin, and whether it was made just now, which is a check in itself.
    fn pin_or_find(&self) -> Result<(Arc<PinnedProcess>, bool), ProcessGone> {
        let pinned = &mut *self.pinned.lock();
        match pinned {
            Pinned::Held(process) => Ok((process.clone(), false)),
            Pinned::Gone => Err(ProcessGone::Exited),
            Pinned::NotYet(peer) => {
                let process = self.pins.pin(peer.take().ok_or(ProcessGone::Exited)?)?;
                *pinned = Pinned::Held(process.clone());
                Ok((process, true))
            }
        }
    }

    /// The cheap check before each delivery; of all that what is delivered rests on.
    ///
    /// # Errors
    /// As [`Caller::process`].
    pub fn still_same(&self, look: Look) -> Result<(), ProcessGone> {
        self.looked_at(look).map(|_| ())
    }

    /// Ends the connection once answers on their way are out.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Itself and the root of its run, if it was found in one: what is below a root stays below it, so that its ancestors
    /// need not be read again.
    #[must_use]
    pub fn in_run(&self) -> Option<&[Process]> {
        self.in_run.get().map(<[Process; 2]>::as_slice)
    }

    /// Notes that it was found in a run; true the first time.
    #[must_use]
    pub fn enters_run(&self, itself: Process, root: Process) -> bool {
        self.in_run.set([itself, root]).is_ok()
    }

    /// True for the agent itself, whose own probes are not news.
    #[must_use]
    pub fn is_self(&self) -> bool {
        self.own
    }
}

/// A Unix connection that knows its caller and ends when the caller is no longer the one that connected.
pub struct PeerStream {
    inner: Mended<UnixStream>,
    caller: Arc<Caller>,
    closed: Pin<Box<dyn Future<Output = ()> + Send>>,
    pinned: bool,
    done: bool,
}

impl std::fmt::Debug for PeerStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerStream").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl PeerStream {
    /// Joins a connection and its caller.
    #[must_use]
    pub fn new(inner: UnixStream, caller: Arc<Caller>) -> Self {
        let closing = caller.closing.clone();
        let closed = Box::pin(async move {
            closing.cancelled().await;
            tokio::time::sleep(CLOSE_GRACE).await;
        });
        Self { inner: Mended::new(inner), caller, closed, pinned: false, done: false }
    }

    #[must_use]
    pub fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !std::mem::replace(&mut this.pinned, true) {
            // A failure closes the connection, and says so to whoever still asks.
            let _ = this.caller.process();
        }
        if this.done || this.closed.as_mut().poll(cx).is_ready() {
            this.done = true;
            return Poll::Ready(Ok(())); // end of stream
        }
        Pin::new(&mut this.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerStream {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    fn myself() -> Peer {
        let pid = i32::try_from(std::process::id()).unwrap();
        Peer { pid, uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw(), pidfd: None }
    }

    #[tokio::test]
    async fn a_live_caller_is_pinned_once() {
        let caller = Caller::new(myself(), Arc::default(), None);
        let one = caller.process().unwrap();
        assert!(Arc::ptr_eq(&one, &caller.process().unwrap()));
        assert!(caller.is_self());
    }

    /// A child that has answered once: right after `spawn` the kernel may still be at work on its image.
    pub(crate) fn waiting_child() -> std::process::Child {
        use std::io::{Read, Write};
        use std::process::{Command, Stdio};
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 1]).unwrap();
        child
    }

    #[tokio::test]
    async fn the_connection_of_a_caller_that_exited_is_closed() {
        let mut child = waiting_child();
        let peer = Peer { pid: i32::try_from(child.id()).unwrap(), ..myself() };
        let caller = Arc::new(Caller::new(peer, Arc::default(), None));
        caller.process().unwrap();
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut stream = PeerStream::new(ours, caller.clone());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(caller.still_same(Look::Whole).is_err());
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "end of stream");
        assert!(caller.process().is_err(), "and for good");
    }

    #[tokio::test]
    async fn what_a_caller_becomes_after_it_connected_is_not_who_connected() {
        use std::io::{BufRead, BufReader, Write};
        use std::process::{Command, Stdio};
        let mut child = Command::new("sh")
            .args(["-c", "echo ready; read go; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let peer = Peer { pid: i32::try_from(child.id()).unwrap(), ..myself() };
        let caller = Arc::new(Caller::new(peer, Arc::default(), None));
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut stream = PeerStream::new(ours, caller.clone());
        // The connection is served, and nothing is asked yet.
        assert!(
            std::future::poll_fn(|cx| {
                let mut byte = [0];
                Poll::Ready(Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending())
            })
            .await
        );
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"go\necho of cat\n").unwrap();
        line.clear();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "echo of cat\n", "cat runs now");
        assert!(matches!(caller.process(), Err(ProcessGone::Changed("binary"))));
        drop(stdin);
        child.wait().unwrap();
    }
}
