//! The two doors: TCP with TLS for agents and remote admins, a Unix socket for local admins.
//!
//! The accept loops only accept: handshakes and questions to the kernel run in the connection's own task, within
//! named limits.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use avouch::authority::Mended;
use avouch_domain::{SpiffeId, TrustDomain};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::api::caller::{Leaf, LocalPeer, Peer};
use crate::api::conn;
use crate::api::gate::Stack;
use crate::limits::{
    ACCEPT_PAUSE, ADMIN_CONNECTIONS_MAX, BACKLOG, CONNECTION_AGE, CONNECTION_AGE_SPREAD,
    DESCRIPTORS_RESERVED_MAX, DESCRIPTORS_RESERVED_SHARE, HANDSHAKE_TIME_MAX, HANDSHAKES_MAX,
    SOCKET_PATH_MAX, TCP_CONNECTIONS_MAX,
};
use crate::sys;

/// Why a door can't be opened. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("unable to listen on {address}: {source}")]
    Tcp { address: SocketAddr, source: io::Error },
    #[error(
        "socket path {path} has {bytes} bytes, expected at most {SOCKET_PATH_MAX}: choose a shorter socket_path"
    )]
    PathTooLong { path: PathBuf, bytes: usize },
    #[error("socket path {0} has no directory: give an absolute socket_path")]
    NoDirectory(PathBuf),
    #[error("{0} exists and is no socket: remove it or choose another socket_path")]
    NotASocket(PathBuf),
    #[error(
        "socket {path} belongs to uid {owner}, expected uid {expected}: remove it or choose another socket_path"
    )]
    Owner { path: PathBuf, owner: u32, expected: u32 },
    #[error("another process listens on {0}: stop it or choose another socket_path")]
    Taken(PathBuf),
    #[error("unable to prepare socket {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// Opens the TCP door, or takes it over from the service manager.
///
/// # Errors
/// [`ListenError::Tcp`].
pub fn bind_tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bind = || {
        if let Some(given) = sys::tcp_listener_for(address)? {
            given.set_nonblocking(true)?;
            return TcpListener::from_std(given);
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bind().map_err(|source| ListenError::Tcp { address, source })
}

/// For whom a Unix socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Local admins: socket 0770 in a directory 0750.
    Admin,
    /// Any local user, who is a person or is not: socket 0666 in a directory 0755.
    People,
}

impl Door {
    /// Modes of the directory, if it is made, and of the socket.
    fn modes(self) -> (u32, u32) {
        match self {
            Self::Admin => (0o750, 0o770),
            Self::People => (0o755, 0o666),
        }
    }
}

/// Opens a Unix door, or takes it over from the service manager: makes the directory if need be, and removes a socket
/// that nobody listens on.
///
/// # Errors
/// [`ListenError`], with nothing of anybody else's touched.
pub fn bind_unix(path: &Path, door: Door) -> Result<UnixListener, ListenError> {
    let (directory_mode, mode) = door.modes();
    let bytes = path.as_os_str().len();
    if bytes > SOCKET_PATH_MAX {
        return Err(ListenError::PathTooLong { path: path.into(), bytes });
    }
    let directory = path.parent().ok_or_else(|| ListenError::NoDirectory(path.into()))?;
    let io = |source| ListenError::Io { path: path.into(), source };
    if let Some(given) = sys::unix_listener_for(path).map_err(io)? {
        given.set_nonblocking(true).map_err(io)?;
        return UnixListener::from_std(given).map_err(io);
    }
    if !directory.as_os_str().is_empty() && !directory.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(directory_mode).create(directory).map_err(io)?;
        // Whatever the umask takes away.
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(directory_mode)).map_err(io)?;
    }
    clear(path)?;
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(io)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(io)?;
    listener.set_nonblocking(true).map_err(io)?;
    UnixListener::from_std(listener).map_err(io)
}

fn clear(path: &Path) -> Result<(), ListenError> {
    let io = |source| ListenError::Io { path: path.into(), source };
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
    };
    if !found.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.into()));
    }
    let expected = nix::unistd::geteuid().as_raw();
    if found.uid() != expected {
        return Err(ListenError::Owner { path: path.into(), owner: found.uid(), expected });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(ListenError::Taken(path.into())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(io)
        }
        // A full backlog is a living listener too.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(ListenError::Taken(path.into())),
        Err(error) => Err(io(error)),
    }
}

/// What the TCP door needs to let a connection in.
#[derive(Clone, Debug)]
pub struct TcpTerms {
    pub tls: Arc<ServerConfig>,
    pub trust_domain: TrustDomain,
    /// Foreign IDs that may connect all the same.
    pub admin_ids: Arc<BTreeSet<SpiffeId>>,
    /// Connections at one time; see [`connections_for`].
    pub connections: usize,
}

/// TCP connections that fit under a limit of descriptors: a flood of them must not keep the admin out, nor the store
/// from its files.
#[must_use]
pub fn connections_for(descriptors: u64) -> usize {
    let reserved = (descriptors / DESCRIPTORS_RESERVED_SHARE).min(DESCRIPTORS_RESERVED_MAX);
    usize::try_from(descriptors - reserved).unwrap_or(usize::MAX).min(TCP_CONNECTIONS_MAX)
}

/// Accepts over TCP until the drain begins.
pub async fn serve_tcp(listener: TcpListener, terms: TcpTerms, stack: Stack) {
    let drain = stack.gate().drain.clone();
    let free = Arc::new(Semaphore::new(terms.connections));
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let accepted = tokio::select! {
            () = drain.begun().cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let Ok(place) = free.clone().try_acquire_owned() else {
            tracing::warn!(caller_addr = %address, limit = terms.connections, "Too many connections: one is closed");
            continue;
        };
        let (terms, stack, handshakes) = (terms.clone(), stack.clone(), handshakes.clone());
        drain.spawn(async move {
            let _place = place;
            open_tcp(stream, address, &terms, stack, &handshakes).await;
        });
    }
}

async fn open_tcp(
    stream: TcpStream,
    address: SocketAddr,
    terms: &TcpTerms,
    stack: Stack,
    handshakes: &Semaphore,
) {
    if let Err(error) = stream.set_nodelay(true) {
        return tracing::debug!(caller_addr = %address, error = %error, "Connection ended before it began");
    }
    let shaken = async {
        let _turn = handshakes.acquire().await.map_err(io::Error::other)?;
        TlsAcceptor::from(terms.tls.clone()).accept(stream).await
    };
    let begun = stack.gate().drain.begun().clone();
    let shaken = tokio::select! {
        () = begun.cancelled() => return,
        shaken = tokio::time::timeout(HANDSHAKE_TIME_MAX, shaken) => shaken,
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return tracing::debug!(caller_addr = %address, error = %error, "TLS handshake failed");
        }
        Err(_) => {
            return tracing::debug!(caller_addr = %address, "TLS handshake took too long");
        }
    };
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = Peer::remote(address, leaf.map(AsRef::as_ref));
    if let Peer::Remote { leaf: Leaf::Svid(svid), .. } = &peer
        && *svid.id.trust_domain() != terms.trust_domain
        && !terms.admin_ids.contains(&svid.id)
    {
        return tracing::warn!(caller_addr = %address, caller_id = %svid.id, "Client of a foreign trust domain is no admin: connection closed");
    }
    conn::serve(stream, peer, stack, Some(age())).await;
}

/// Age at which a connection is told to go away, different for each.
fn age() -> Duration {
    let bits = avouch_credential::random::bytes::<4>().map_or(0, u32::from_ne_bytes);
    let share = f64::from(bits) / f64::from(u32::MAX);
    CONNECTION_AGE.mul_f64(1.0 + CONNECTION_AGE_SPREAD * (2.0 * share - 1.0))
}

/// Accepts on a Unix socket until the drain begins.
pub async fn serve_unix(listener: UnixListener, stack: Stack) {
    let drain = stack.gate().drain.clone();
    let free = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = drain.begun().cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let Ok(place) = free.clone().try_acquire_owned() else {
            tracing::warn!(
                limit = ADMIN_CONNECTIONS_MAX,
                "Too many connections on a local socket: one is closed"
            );
            continue;
        };
        let stack = stack.clone();
        drain.spawn(async move {
            let _place = place;
            let peer = Peer::Local(LocalPeer::of(&stream));
            conn::serve(Mended::new(stream), peer, stack, None).await;
        });
    }
}

async fn pause_after(error: &io::Error) {
    tracing::error!(error = %error, "Unable to accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_admin_socket_has_its_modes_and_replaces_a_dead_one() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("private/api.sock");
        drop(bind_unix(&path, Door::Admin).unwrap());
        let listener = bind_unix(&path, Door::Admin).unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o770);
        assert_eq!(mode(path.parent().unwrap()), 0o750);
        assert!(matches!(bind_unix(&path, Door::Admin), Err(ListenError::Taken(_))), "somebody listens");
        drop(listener);
    }

    #[tokio::test]
    async fn the_socket_for_people_is_open_to_every_local_user() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("people/api.sock");
        let _listener = bind_unix(&path, Door::People).unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o666, 0o755));
    }

    #[tokio::test]
    async fn a_path_too_long_is_refused_with_both_numbers() {
        let path = PathBuf::from(format!("/tmp/{}", "s".repeat(103)));
        let text = bind_unix(&path, Door::Admin).unwrap_err().to_string();
        assert!(text.contains("has 108 bytes, expected at most 107"), "{text}");
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("api.sock");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(bind_unix(&path, Door::Admin), Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn somebody_elses_socket_is_refused_with_both_uids() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("api.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        if std::os::unix::fs::chown(&path, Some(12_345), None).is_err() {
            return; // Only root may give files away.
        }
        let text = bind_unix(&path, Door::Admin).unwrap_err().to_string();
        assert!(text.contains("belongs to uid 12345"), "{text}");
    }

    #[test]
    fn connections_leave_descriptors_for_the_server_itself() {
        assert_eq!(connections_for(256), 192);
        assert_eq!(connections_for(20_000), 18_976);
        assert_eq!(connections_for(1 << 30), TCP_CONNECTIONS_MAX, "memory is a limit too");
    }

    #[test]
    fn ages_differ_by_a_tenth_at_most() {
        for _ in 0..100 {
            let seconds = age().as_secs_f64();
            assert!((162.0..=198.0).contains(&seconds), "{seconds}");
        }
    }
}
