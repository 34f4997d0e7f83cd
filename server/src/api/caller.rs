//! Who calls: a process on the admin socket, a holder of an X509-SVID, or nobody.
//!
//! Never judges what the caller may do; that is `authz.rs`.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use avouch::run::SUPERVISOR;
use avouch_attestors::peer::Peer as ProcessPeer;
use avouch_attestors::process::{Link, PinnedProcess};
use avouch_console::sessions::Visitor;
use avouch_credential::x509::facts::CertFacts;
use avouch_credential::x509::verify::svid_id;
use avouch_domain::{SpiffeId, Timestamp};
use aws_lc_rs::digest::{SHA256, digest};

/// The other end of one connection, found out once when the connection opens.
#[derive(Clone, Debug)]
pub enum Peer {
    /// A process on the admin socket.
    Local(LocalPeer),
    /// Somebody who is signed in to the pages of this server.
    Page(Visitor),
    /// Somebody over TCP.
    Remote { address: SocketAddr, leaf: Leaf },
}

/// What the kernel says about a process on the admin socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPeer {
    /// [`NOBODY`] if the kernel does not say.
    pub uid: u32,
    pub gid: u32,
    /// Absent if the process lives in another pid namespace.
    pub pid: Option<i32>,
    /// Absent if it may not be read or the process is gone.
    pub exe: Option<String>,
    pub standing: Standing,
}

/// Whether a local caller may be a person or an admin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nothing above it is an `avouch run`.
    Free,
    /// It descends from an `avouch run`, or is gone before that could be told: an AI agent or another identity, whoever's
    /// user it has.
    OfARun,
    /// Its ancestors are hidden from this server.
    #[default]
    Hidden,
}

/// The client certificate of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leaf {
    None,
    Svid(CallerSvid),
    /// The certificate was accepted by TLS but names nobody; each call is refused with this text.
    Unusable(String),
}

/// What a call needs to know of the caller's X509-SVID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerSvid {
    pub id: SpiffeId,
    /// Decimal text, as nodes keep it.
    pub serial: Arc<str>,
    pub not_after: Timestamp,
    /// SHA-256 of the certificate.
    pub leaf: [u8; 32],
}

impl Peer {
    /// Reads a TCP peer: `leaf` is the client certificate (DER) that TLS verified.
    #[must_use]
    pub fn remote(address: SocketAddr, leaf: Option<&[u8]>) -> Self {
        let leaf = match leaf {
            None => Leaf::None,
            Some(der) => read_leaf(der).map_or_else(Leaf::Unusable, Leaf::Svid),
        };
        Self::Remote { address, leaf }
    }

    /// The SPIFFE ID of the caller.
    #[must_use]
    pub fn id(&self) -> Option<&SpiffeId> {
        match self {
            Self::Remote { leaf: Leaf::Svid(svid), .. } => Some(&svid.id),
            _ => None,
        }
    }

    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local(_) | Self::Page(_))
    }

    /// How the audit rows name the caller.
    #[must_use]
    pub fn actor(&self) -> String {
        match self {
            Self::Local(peer) => {
                let exe = peer.exe.as_deref().unwrap_or("unknown");
                let pid = peer.pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
                format!("local uid={} gid={} pid={pid} exe={exe}", peer.uid, peer.gid)
            }
            Self::Page(visitor) => format!("page person={}", visitor.person.as_str()),
            Self::Remote { leaf: Leaf::Svid(svid), .. } => svid.id.to_string(),
            Self::Remote { address, .. } => format!("address {}", address.ip()),
        }
    }
}

fn read_leaf(der: &[u8]) -> Result<CallerSvid, String> {
    let id = svid_id(der).map_err(|e| format!("client certificate is not a valid X509-SVID: {e}"))?;
    let facts = CertFacts::parse(der).map_err(|e| format!("client certificate is malformed: {e}"))?;
    let mut leaf = [0; 32];
    leaf.copy_from_slice(digest(&SHA256, der).as_ref());
    let serial = facts.serial_decimal.as_str().into();
    Ok(CallerSvid { id, serial, not_after: facts.not_after, leaf })
}

/// The user and group that no process has.
pub const NOBODY: u32 = u32::MAX;

impl Default for LocalPeer {
    /// Somebody of whom nothing is known: never user 0 by omission.
    fn default() -> Self {
        Self { uid: NOBODY, gid: NOBODY, pid: None, exe: None, standing: Standing::Hidden }
    }
}

impl LocalPeer {
    /// Asks the kernel about the process at the other end. Reads `/proc`, so not in the accept loop.
    pub fn of(stream: &tokio::net::UnixStream) -> Self {
        let mut local = Self::default();
        if let Ok(credentials) = stream.peer_cred() {
            local.uid = credentials.uid();
            local.gid = credentials.gid();
            local.pid = credentials.pid().filter(|pid| *pid > 0);
        }
        let process = ProcessPeer::of(stream.as_fd()).ok().and_then(|peer| PinnedProcess::pin(peer).ok());
        if local.pid.is_some() && sees_processes() {
            local.standing = process.as_ref().map_or(Standing::OfARun, standing);
        }
        if let Some(facts) = process.and_then(|process| process.facts().ok()) {
            local.exe = facts.exe_path.map(|path| String::from_utf8_lossy(&path).into_owned());
        }
        local
    }
}

/// A line of ancestors that can't be told is one to hide a run in.
fn standing(process: &PinnedProcess) -> Standing {
    let supervises = |link: &Link| {
        let comm = std::fs::read(format!("/proc/{}/comm", link.pid)).unwrap_or_default();
        comm.strip_suffix(b"\n") == Some(SUPERVISOR.to_bytes())
    };
    match process.line() {
        Ok(line) if !line.iter().any(supervises) => Standing::Free,
        _ => Standing::OfARun,
    }
}

/// False where `/proc` shows a process only its own user's (`hidepid`, `ProtectProc`).
fn sees_processes() -> bool {
    std::fs::read("/proc/1/stat").is_ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// Who is at the other end of a socket that `program` connected.
    async fn met(script: &str) -> LocalPeer {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let mut python = Command::new("python3");
        python.args(["-c", script]).arg(&path);
        let mut child = python.spawn().unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        // Whoever connected for the other has gone by now.
        stream.read_u8().await.unwrap();
        let peer = LocalPeer::of(&stream);
        drop(stream);
        child.wait().unwrap();
        peer
    }

    #[tokio::test]
    async fn who_had_another_connect_and_go_is_taken_for_part_of_a_run() {
        if Command::new("python3").arg("-V").output().is_err() {
            println!("not run: no Python");
            return;
        }
        let itself = "import socket,sys\ns=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.send(b'x'); s.recv(1)";
        assert_eq!(met(itself).await.standing, Standing::Free);
        let handed = "import os,socket,sys\ns=socket.socket(socket.AF_UNIX)\np=os.fork()\nif p==0: s.connect(sys.argv[1]); os._exit(0)\nos.waitpid(p,0); s.send(b'x'); s.recv(1)";
        assert_eq!(met(handed).await.standing, Standing::OfARun);
    }

    #[test]
    fn a_caller_of_whom_nothing_is_known_is_hidden() {
        assert_eq!(LocalPeer::default().standing, Standing::Hidden);
    }
}
