//! Unix sockets of the agent: who may make them, when an old one may go, and the loop that only accepts.
//!
//! Never removes a socket that somebody listens on, never serves from a directory that someone else owns.

use std::fs::{DirBuilder, Permissions};
use std::future::Future;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use avouch_attestors::Peer;
use avouch_attestors::limits::PINS_OPEN_MAX;
use avouch_attestors::process::Pins;
use avouch_domain::Now;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;
use tokio::time::Sleep;
use tokio_stream::Stream;

use super::refusals::Refusals;
use crate::fair::FairShare;
use crate::limits::{
    ACCEPT_PAUSE, BACKLOG, CONNECTIONS_MAX, CONNECTIONS_MIN, DESCRIPTORS_RESERVED, OPEN_FILES_DIVISOR,
    SOCKET_PATH_MAX, UNPINNED_DIVISOR,
};
use crate::metrics::Metrics;
use crate::peer::{Caller, PeerStream};
use crate::sys;

/// Mode of the workload socket: every local process may ask; who gets what is decided per caller.
const WORKLOAD_MODE: u32 = 0o777;
/// Mode of the admin socket.
const ADMIN_MODE: u32 = 0o770;
/// Mode of directories the agent makes for the workload socket.
const WORKLOAD_DIR_MODE: u32 = 0o755;
/// Mode of directories the agent makes for the admin socket.
const ADMIN_DIR_MODE: u32 = 0o750;

/// Why a socket can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "socket path has {len} bytes, the system allows at most {SOCKET_PATH_MAX}: choose a shorter path than {path}"
    )]
    PathTooLong { path: PathBuf, len: usize },
    #[error("socket path {0} names no file in a directory")]
    NoFileName(PathBuf),
    #[error("unable to make directory {path} for the socket: {source}")]
    Directory { path: PathBuf, source: io::Error },
    #[error(
        "directory {path} of the socket is owned by uid {owner}, expected uid {expected} or root: its owner could put another socket in place; remove it or choose another path"
    )]
    DirectoryOwner { path: PathBuf, owner: u32, expected: u32 },
    #[error("{path} is owned by uid {owner}, expected uid {expected}: remove it or choose another path")]
    Owner { path: PathBuf, owner: u32, expected: u32 },
    #[error("{0} is there and is not a socket: remove it or choose another path")]
    NotASocket(PathBuf),
    #[error("another process listens on {0}: stop it or choose another path")]
    InUse(PathBuf),
    #[error("unable to listen on {path}: {source}")]
    Bind { path: PathBuf, source: io::Error },
    #[error(
        "admin socket cannot be in the same directory or a subdirectory as that containing the Workload API socket"
    )]
    AdminPlace,
}

/// The workload socket: given by the service manager if it has one for this path, else made.
///
/// # Errors
/// [`ListenError`] says what is in the way.
pub fn bind_workload(path: &Path) -> Result<UnixListener, ListenError> {
    bind(path, WORKLOAD_MODE, WORKLOAD_DIR_MODE)
}

/// The admin socket; it may not lie where workloads can see it.
///
/// # Errors
/// [`ListenError`] says what is in the way.
pub fn bind_admin(path: &Path, workload_path: &Path) -> Result<UnixListener, ListenError> {
    check_admin_place(path, workload_path)?;
    bind(path, ADMIN_MODE, ADMIN_DIR_MODE)
}

/// # Errors
/// [`ListenError::AdminPlace`] for an admin socket in or below the directory of the workload socket.
pub fn check_admin_place(path: &Path, workload_path: &Path) -> Result<(), ListenError> {
    match (absolute(path).parent(), absolute(workload_path).parent()) {
        (Some(admin), Some(public)) if admin.starts_with(public) => Err(ListenError::AdminPlace),
        _ => Ok(()),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn bind(path: &Path, mode: u32, directory_mode: u32) -> Result<UnixListener, ListenError> {
    let path = absolute(path);
    let failed = |source| ListenError::Bind { path: path.clone(), source };
    if let Some(given) = sys::listener_for(&path).map_err(failed)? {
        given.set_nonblocking(true).map_err(failed)?;
        sys::take_no_descriptors(given.as_fd());
        tracing::info!(
            subsystem_name = "endpoints",
            path = %path.display(),
            "Took over a socket from the service manager"
        );
        return UnixListener::from_std(given).map_err(failed);
    }
    let len = path.as_os_str().len();
    if len > SOCKET_PATH_MAX {
        return Err(ListenError::PathTooLong { path, len });
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ListenError::NoFileName(path));
    };
    make_directory(directory, directory_mode)?;
    check_owner(directory)?;
    check_old(&path)?;
    // Bound beside and renamed into place: clients that look for the file never miss it, and nobody can connect
    // before the mode is right.
    let mut beside = directory.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    if beside.as_os_str().len() > SOCKET_PATH_MAX {
        beside.clone_from(&path);
        remove(&path).map_err(failed)?;
    }
    remove(&beside).map_err(failed)?;
    let listen = || -> io::Result<UnixListener> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
        socket.bind(&SockAddr::unix(&beside)?)?;
        std::fs::set_permissions(&beside, Permissions::from_mode(mode))?;
        sys::take_no_descriptors(socket.as_fd());
        socket.listen(BACKLOG)?;
        if beside != path {
            std::fs::rename(&beside, &path)?;
        }
        UnixListener::from_std(socket.into())
    };
    listen().map_err(failed)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes what is missing, each part with `mode` whatever the umask says.
fn make_directory(directory: &Path, mode: u32) -> Result<(), ListenError> {
    let failed = |source| ListenError::Directory { path: directory.to_owned(), source };
    let missing: Vec<_> = directory.ancestors().take_while(|part| !part.exists()).collect();
    for part in missing.into_iter().rev() {
        match DirBuilder::new().mode(mode).create(part) {
            Ok(()) => {
                std::fs::set_permissions(part, Permissions::from_mode(mode)).map_err(failed)?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

fn check_owner(directory: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Directory { path: directory.to_owned(), source };
    let owner = std::fs::metadata(directory).map_err(failed)?.uid();
    let expected = nix::unistd::geteuid().as_raw();
    if owner != 0 && owner != expected {
        return Err(ListenError::DirectoryOwner { path: directory.to_owned(), owner, expected });
    }
    Ok(())
}

/// What lies at the path already may go only if it is our own socket and nobody listens on it.
fn check_old(path: &Path) -> Result<(), ListenError> {
    let meta = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(ListenError::Bind { path: path.to_owned(), source }),
        Ok(meta) => meta,
    };
    if !meta.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    let expected = nix::unistd::geteuid().as_raw();
    if meta.uid() != expected {
        return Err(ListenError::Owner { path: path.to_owned(), owner: meta.uid(), expected });
    }
    match BlockingStream::connect(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            Ok(())
        }
        Ok(_) => Err(ListenError::InUse(path.to_owned())),
        // A full backlog belongs to a listener.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(ListenError::InUse(path.to_owned())),
        Err(source) => Err(ListenError::Bind { path: path.to_owned(), source }),
    }
}

/// What a descriptor limit has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Workload connections and, each counted as one more, the processes that have them.
    pub connections: usize,
    /// Processes of which a file stays open, so that a look at them costs less.
    pub open_files: usize,
}

/// Shares out a descriptor limit.
#[must_use]
pub fn room_for(descriptors: u64) -> Room {
    let all = descriptors.saturating_sub(DESCRIPTORS_RESERVED);
    let open = (all / OPEN_FILES_DIVISOR).min(PINS_OPEN_MAX as u64);
    let rest = all - open - all / UNPINNED_DIVISOR;
    let number = |of: u64| usize::try_from(of).unwrap_or(usize::MAX);
    Room { connections: number(rest).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX), open_files: number(open) }
}

/// Accepted connections with their callers. Accepting takes the kernel's word and nothing else.
pub struct Incoming {
    listener: UnixListener,
    pins: Arc<Pins>,
    shares: Option<FairShare>,
    metrics: Metrics,
    pause: Option<Pin<Box<Sleep>>>,
    clock: fn() -> Now,
    /// Keeps callers that the kernel can't name from flooding the log.
    unnamed: Refusals,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Incoming {
    /// With `shares`, connections beyond a fair share are closed at once.
    #[must_use]
    pub fn new(
        listener: UnixListener,
        shares: Option<FairShare>,
        pins: impl Into<Arc<Pins>>,
        metrics: Metrics,
        clock: fn() -> Now,
    ) -> Self {
        let (pins, unnamed) = (pins.into(), Refusals::default());
        Self { listener, pins, shares, metrics, pause: None, clock, unnamed }
    }

    /// The connection with its caller; `None` if it may not stay.
    fn seat(&self, stream: tokio::net::UnixStream) -> Option<PeerStream> {
        let peer = match Peer::of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                if let Some(unlogged) = self.unnamed.due(0, (self.clock)().mono) {
                    tracing::warn!(
                        subsystem_name = "endpoints",
                        unlogged,
                        %error,
                        "Closed a connection whose caller is unknown"
                    );
                }
                return None;
            }
        };
        let share = match self.shares.as_ref().map(|shares| shares.take(peer.pid, peer.uid)).transpose() {
            Ok(share) => share,
            Err(error) => {
                self.metrics.over_share("connect");
                tracing::debug!(
                    subsystem_name = "endpoints",
                    pid = peer.pid,
                    uid = peer.uid,
                    %error,
                    "Closed a connection"
                );
                return None;
            }
        };
        let caller = Arc::new(Caller::new(peer, self.pins.clone(), share));
        Some(PeerStream::new(stream, caller))
    }
}

impl Stream for Incoming {
    type Item = io::Result<PeerStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, _)) => {
                    if let Some(seated) = self.seat(stream) {
                        return Poll::Ready(Some(Ok(seated)));
                    }
                }
                Err(error) => {
                    tracing::warn!(subsystem_name = "endpoints", %error, "Unable to accept a connection");
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn the_workload_socket_is_open_to_all_in_a_directory_of_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/public/api.sock");
        let _listener = bind_workload(&path).unwrap();
        assert_eq!(mode(&path), 0o777);
        assert_eq!(mode(path.parent().unwrap()), 0o755);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside");
    }

    #[tokio::test]
    async fn a_descriptor_that_a_caller_sends_is_refused_where_the_kernel_can() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("public/api.sock");
        let _listener = bind_workload(&path).unwrap();
        let caller = BlockingStream::connect(&path).unwrap();
        let descriptors = [caller.as_raw_fd()];
        let handed = [ControlMessage::ScmRights(&descriptors)];
        let word = [IoSlice::new(b"x")];
        let sent = sendmsg::<()>(caller.as_raw_fd(), &word, &handed, MsgFlags::empty(), None);
        if let Ok(sent) = sent {
            println!("not run: this kernel can't refuse descriptors (Linux 6.16), and took {sent} byte");
            return;
        }
        assert_eq!(sent, Err(nix::errno::Errno::EPERM));
        sendmsg::<()>(caller.as_raw_fd(), &word, &[], MsgFlags::empty(), None).unwrap();
    }

    #[tokio::test]
    async fn the_admin_socket_is_for_the_group_and_away_from_workloads() {
        let dir = tempfile::tempdir().unwrap();
        let workload = dir.path().join("public/api.sock");
        let path = dir.path().join("private/admin.sock");
        let _listener = bind_admin(&path, &workload).unwrap();
        assert_eq!(mode(&path), 0o770);
        for bad in ["public/admin.sock", "public/below/admin.sock"] {
            let error = bind_admin(&dir.path().join(bad), &workload).unwrap_err();
            assert!(matches!(error, ListenError::AdminPlace), "{error}");
        }
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_on_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        drop(bind_workload(&path).unwrap());
        assert!(path.exists(), "a stopped agent leaves its socket for clients to find");
        let _again = bind_workload(&path).unwrap();
        assert!(BlockingStream::connect(&path).is_ok());
    }

    #[tokio::test]
    async fn a_socket_that_somebody_listens_on_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let _first = bind_workload(&path).unwrap();
        let error = bind_workload(&path).unwrap_err();
        assert!(matches!(error, ListenError::InUse(_)), "{error}");
        assert!(BlockingStream::connect(&path).is_ok());
    }

    #[tokio::test]
    async fn the_backlog_is_as_long_as_the_system_allows() {
        let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
        let many = allowed.trim().parse::<usize>().unwrap().min(500);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        let _nobody_accepts = bind_workload(&path).unwrap();
        // A client that does not wait gets EAGAIN from a full backlog.
        let waiting: Vec<_> = (0..many)
            .map(|_| {
                let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
                socket.connect(&SockAddr::unix(&path).unwrap()).unwrap();
                socket
            })
            .collect();
        assert_eq!(waiting.len(), many);
    }

    #[tokio::test]
    async fn a_path_too_long_is_named_with_its_length() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(103)));
        let error = bind_workload(&path).unwrap_err();
        assert!(
            error.to_string().starts_with("socket path has 108 bytes, the system allows at most 107"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_longest_path_works() {
        let dir = tempfile::tempdir().unwrap();
        let room = SOCKET_PATH_MAX - dir.path().as_os_str().len() - 1;
        let path = dir.path().join("x".repeat(room));
        let _listener = bind_workload(&path).unwrap();
        assert!(BlockingStream::connect(&path).is_ok());
    }

    #[tokio::test]
    async fn what_is_not_a_socket_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        std::fs::write(&path, "precious").unwrap();
        let error = bind_workload(&path).unwrap_err();
        assert!(matches!(error, ListenError::NotASocket(_)), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_directory_or_socket_of_someone_else_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return; // only root can give files away
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d/api.sock");
        drop(bind_workload(&path).unwrap());
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        let error = bind_workload(&path).unwrap_err().to_string();
        assert!(error.contains("is owned by uid 12345, expected uid 0"), "{error}");
        std::os::unix::fs::chown(path.parent().unwrap(), Some(12345), None).unwrap();
        let error = bind_workload(&path).unwrap_err();
        assert!(matches!(error, ListenError::DirectoryOwner { owner: 12345, .. }), "{error}");
    }

    #[test]
    fn connections_leave_descriptors_for_the_agent_itself() {
        for limit in [1024, 20_000] {
            let Room { connections, open_files } = room_for(limit);
            let used = connections + open_files;
            assert!(used as u64 + DESCRIPTORS_RESERVED < limit, "{connections} and {open_files} of {limit}");
        }
        assert!(room_for(20_000).connections > 16_000);
        assert_eq!(room_for(100), Room { connections: CONNECTIONS_MIN, open_files: 0 });
        let most = Room { connections: CONNECTIONS_MAX, open_files: PINS_OPEN_MAX };
        assert_eq!(room_for(1 << 30), most, "memory is a limit too");
    }
}
