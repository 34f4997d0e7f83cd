//! A pinned process: every fact about a caller is read through it, and checked alive and unchanged after.
//!
//! Never: no fact is used that was read without the check that follows it; no selector is built here.
//!
//! # Which facts are re-read, and why they are enough
//! [`PinnedProcess::still_same`] runs before every answer. What can turn one caller into another is:
//! - **exit** and reuse of the pid: the pidfd is polled last; a pid can't be given away while its process
//!   lives. Without a pidfd the start time (10 ms ticks) of `/proc/PID/stat` guards.
//! - **exec**: the binary (device, inode, size, modification time) behind `/proc/PID/exe`, and the image: what
//!   the kernel told the program at its start (`/proc/PID/auxv`), with addresses that it draws anew at each exec
//!   (zero, and so no help, if the agent may not trace the process). It is opened anew each time: a descriptor
//!   shows for ever what ran when it was opened.
//! - **setuid, setgid, setgroups**: `Uid`, `Gid` and `Groups` of `/proc/PID/status`. The effective uid and gid
//!   must also be those of connect(): privileges changed since then need a new connection. Where the groups decide
//!   nothing ([`Look::ButGroups`]) the pidfd is asked for the other two (Linux 6.13), which costs a tenth.
//!
//! The status stays open for the first processes that connect (see [`Pins`]): reading it costs less then.
//!
//! An unlink or a rename over the binary is no change: a package upgrade does not take an identity away from
//! a process that runs. Writing into a running binary is refused by the kernel (ETXTBSY).
//!
//! Credentials are those of connect(). A process that hands its socket to another speaks for itself through
//! it; that is why an exec since pinning ends the connection instead of being attested anew: a child that
//! kept the socket could else borrow the identity of what its parent became.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::sync::Arc;

use crate::limits::EXE_PATH_MAX;
use crate::peer::Peer;
use crate::sys;

mod line;
mod pins;
mod texts;

pub use line::{Link, is_running};
pub use pins::Pins;
use pins::Place;
use texts::{Credentials, Status, image_of, read_stat};

/// Why a process can't be relied on any more. Texts are for logs: the caller hears only "unavailable".
#[derive(Debug, thiserror::Error)]
pub enum ProcessGone {
    #[error("the process has exited")]
    Exited,
    #[error("the process changed its {0} since it connected")]
    Changed(&'static str),
    #[error("could not read {what} of the process: {source}")]
    Unreadable { what: &'static str, source: io::Error },
}

/// Why the binary of a process could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    #[error(transparent)]
    Gone(#[from] ProcessGone),
    #[error("could not open the binary: {0}")]
    Open(io::Error),
}

/// The binary a process runs. A new one at the same path has another inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExeId {
    pub device: u64,
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Seconds and nanoseconds since the Unix epoch.
    pub modified: (i64, i64),
}

impl ExeId {
    pub(crate) fn of(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        }
    }
}

/// What one process image is: two callers with equal keys get equal selectors. Names looked up for the IDs in
/// it are not part of it, so a cache by this key needs an age limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessKey {
    pub pid: i32,
    /// Clock ticks since boot.
    pub start_time: u64,
    /// Made of what the kernel told the program at its start: differs after each exec. Zero if the agent may not know.
    pub image: u64,
    /// `None` if the agent may not know.
    pub exe: Option<ExeId>,
    /// Effective user ID.
    pub uid: u32,
    /// Effective group ID.
    pub gid: u32,
    /// Supplementary group IDs, in the kernel's order.
    pub groups: Arc<[u32]>,
}

/// Everything known about a process, read together and checked after.
#[derive(Clone, Debug)]
pub struct ProcessFacts {
    pub key: ProcessKey,
    /// Path of the binary as the kernel shows it to the agent, with " (deleted)" if it is gone from there.
    /// `None` if the agent may not know.
    pub exe_path: Option<Vec<u8>>,
    /// Raw text of `/proc/PID/cgroup`; empty if unreadable.
    pub cgroup: Arc<str>,
    /// Namespace name (such as `mnt`) to inode; empty if the agent may not know.
    pub namespaces: BTreeMap<String, u64>,
}

/// How much of a process a check looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// At all that selectors are made of.
    Whole,
    /// The supplementary groups may be left out, the dearest part: for what is handed out because of none of them.
    ButGroups,
}

/// One process, held so that its pid can't come to mean another one unnoticed.
#[derive(Debug)]
pub struct PinnedProcess {
    key: ProcessKey,
    pidfd: Option<Arc<OwnedFd>>,
    /// The status, open as long as the process is pinned, if there was a place.
    kept: Option<(Status, Place)>,
}

impl PinnedProcess {
    /// Reads the facts that name the process. Call it once per connection, as early as possible.
    ///
    /// # Errors
    /// [`ProcessGone`] if the peer has exited or its effective uid or gid is not that of connect().
    pub fn pin(peer: Peer) -> Result<Self, ProcessGone> {
        let Peer { pid, uid, gid, pidfd } = peer;
        Self::pin_by(pid, (uid, gid), pidfd.map(Arc::new), None)
    }

    fn pin_by(
        pid: i32,
        connected_as: (u32, u32),
        pidfd: Option<Arc<OwnedFd>>,
        place: Option<Place>,
    ) -> Result<Self, ProcessGone> {
        let stat = read_stat(pid)?;
        if stat.dead {
            return Err(ProcessGone::Exited);
        }
        let image = image_of(pid)?;
        let status = Status::open(pid)?;
        let Credentials { uid, gid, groups } = status.credentials(pid)?;
        let exe = exe_of(pid)?;
        let later = image_of(pid)?;
        let (start_time, groups) = (stat.start_time, groups.into());
        let key = ProcessKey { pid, start_time, image, exe, uid, gid, groups };
        let process = Self { key, pidfd, kept: place.map(|place| (status, place)) };
        process.check_alive()?;
        // Else what was read in between is of two images.
        if later != process.key.image {
            return Err(ProcessGone::Changed("program image"));
        }
        if uid != connected_as.0 {
            return Err(ProcessGone::Changed("user"));
        }
        if gid != connected_as.1 {
            return Err(ProcessGone::Changed("group"));
        }
        Ok(process)
    }

    /// [`PinnedProcess::pin`] from the single values.
    ///
    /// # Errors
    /// As [`PinnedProcess::pin`].
    pub fn from_peer(pid: i32, uid: u32, gid: u32, pidfd: Option<OwnedFd>) -> Result<Self, ProcessGone> {
        Self::pin(Peer { pid, uid, gid, pidfd })
    }

    #[must_use]
    pub fn pid(&self) -> i32 {
        self.key.pid
    }

    /// Effective user ID.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.key.uid
    }

    /// Effective group ID.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.key.gid
    }

    /// The key under which selectors of this process may be cached.
    #[must_use]
    pub fn key(&self) -> &ProcessKey {
        &self.key
    }

    /// The process and its ancestors, the nearest first, as far as the agent sees them.
    ///
    /// # Errors
    /// [`ProcessGone`] if it exited, or if its ancestors can't be told: then it must not pass for one that has none.
    pub fn line(&self) -> Result<Vec<Link>, ProcessGone> {
        let line = line::of(Link { pid: self.key.pid, start_time: self.key.start_time })?;
        self.check_alive()?;
        Ok(line)
    }

    /// Whether it still runs, whatever it has become: the first look before something is done for it. Nothing is handed out
    /// because of it; that takes [`PinnedProcess::still_same`] after.
    ///
    /// # Errors
    /// [`ProcessGone`] if it exited.
    pub fn still_runs(&self) -> Result<(), ProcessGone> {
        self.check_alive()
    }

    /// The cheap check before every answer (see the list at the top of this file).
    ///
    /// # Errors
    /// [`ProcessGone`]: end the call with Unavailable and close the connection.
    pub fn still_same(&self, look: Look) -> Result<(), ProcessGone> {
        let was = &self.key;
        let (uid, gid, groups) = match self.asked_of_pidfd(look)? {
            Some((uid, gid)) => (uid, gid, None),
            None => {
                let Credentials { uid, gid, groups } = self.credentials()?;
                (uid, gid, Some(groups))
            }
        };
        let exe = exe_of(was.pid)?;
        let image = image_of(was.pid)?;
        let changed = match () {
            () if uid != was.uid => Some("user"),
            () if gid != was.gid => Some("group"),
            () if groups.is_some_and(|now| *now != *was.groups) => Some("supplementary groups"),
            () if exe != was.exe => Some("binary"),
            () if image != was.image => Some("program image"),
            () => None,
        };
        // The pidfd comes last: only a process alive now makes what was read above its own.
        self.check_alive()?;
        changed.map_or(Ok(()), |what| Err(ProcessGone::Changed(what)))
    }

    /// Effective user and group without a look into /proc, if that is enough and the kernel can do it.
    fn asked_of_pidfd(&self, look: Look) -> Result<Option<(u32, u32)>, ProcessGone> {
        match &self.pidfd {
            Some(pidfd) if look == Look::ButGroups => {
                sys::effective_ids(pidfd).map_err(|e| gone("the user and group", e))
            }
            _ => Ok(None),
        }
    }

    fn credentials(&self) -> Result<Credentials, ProcessGone> {
        match &self.kept {
            Some((status, _)) => status.credentials(self.key.pid),
            None => Status::open(self.key.pid)?.credentials(self.key.pid),
        }
    }

    /// Reads everything, then checks.
    ///
    /// # Errors
    /// [`ProcessGone`] if any of it can't be relied on.
    pub fn facts(&self) -> Result<ProcessFacts, ProcessGone> {
        let pid = self.key.pid;
        let exe_path = match self.key.exe {
            Some(exe) => Some(self.exe_path(exe)?),
            None => None,
        };
        let facts = ProcessFacts {
            key: self.key.clone(),
            exe_path,
            cgroup: control_group(pid),
            namespaces: read_namespaces(pid),
        };
        self.still_same(Look::Whole)?;
        Ok(facts)
    }

    /// Opens the binary that the pinned image runs, wherever its path leads by now.
    ///
    /// # Errors
    /// [`ProcessError`] if the process is gone or changed, or the agent may not read the binary.
    pub fn open_exe(&self) -> Result<File, ProcessError> {
        let file = File::open(self.exe_link()).map_err(ProcessError::Open)?;
        self.check_exe(&file)?;
        self.still_same(Look::Whole)?;
        Ok(file)
    }

    fn exe_link(&self) -> String {
        format!("/proc/{}/exe", self.key.pid)
    }

    fn check_exe(&self, file: &File) -> Result<(), ProcessGone> {
        let meta =
            file.metadata().map_err(|source| ProcessGone::Unreadable { what: "the binary", source })?;
        if self.key.exe == Some(ExeId::of(&meta)) { Ok(()) } else { Err(ProcessGone::Changed("binary")) }
    }

    /// The path is asked of a handle on the very file that the key names, so that two execs in a row can't
    /// slip another program's path in between.
    fn exe_path(&self, exe: ExeId) -> Result<Vec<u8>, ProcessGone> {
        let unreadable = |source| ProcessGone::Unreadable { what: "the path of the binary", source };
        let handle = fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::fcntl::OFlag::O_PATH.bits())
            .open(self.exe_link())
            .map_err(unreadable)?;
        if ExeId::of(&handle.metadata().map_err(unreadable)?) != exe {
            return Err(ProcessGone::Changed("binary"));
        }
        let path = fs::read_link(format!("/proc/self/fd/{}", handle.as_raw_fd())).map_err(unreadable)?;
        let path = path.into_os_string().into_vec();
        if path.len() > EXE_PATH_MAX {
            return Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, "path too long")));
        }
        Ok(path)
    }

    fn check_alive(&self) -> Result<(), ProcessGone> {
        let Some(pidfd) = &self.pidfd else {
            // Without a pidfd: the start time, read once more, after everything else.
            let stat = read_stat(self.key.pid)?;
            return if stat.start_time == self.key.start_time && !stat.dead {
                Ok(())
            } else {
                Err(ProcessGone::Exited)
            };
        };
        match sys::is_alive(pidfd) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ProcessGone::Exited),
            Err(source) => Err(ProcessGone::Unreadable { what: "the pidfd", source }),
        }
    }
}

/// The control groups of whatever process has this pid now, as one text; empty if unreadable. For sharing out what is
/// scarce only: unlike [`ProcessFacts::cgroup`] it proves nothing about a caller.
#[must_use]
pub fn control_group(pid: i32) -> Arc<str> {
    String::from_utf8_lossy(&sys::read_proc(&format!("/proc/{pid}/cgroup")).unwrap_or_default()).into()
}

/// The binary that a process runs now; `None` if the agent may not know.
fn exe_of(pid: i32) -> Result<Option<ExeId>, ProcessGone> {
    match fs::metadata(format!("/proc/{pid}/exe")) {
        Ok(meta) => Ok(Some(ExeId::of(&meta))),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(None),
        Err(e) => Err(gone("the binary", e)),
    }
}

fn gone(what: &'static str, source: io::Error) -> ProcessGone {
    // ENOENT: reaped; ESRCH: exited between open and read.
    if source.kind() == io::ErrorKind::NotFound || source.raw_os_error() == Some(nix::libc::ESRCH) {
        return ProcessGone::Exited;
    }
    ProcessGone::Unreadable { what, source }
}

fn malformed(what: &'static str) -> ProcessGone {
    ProcessGone::Unreadable { what, source: io::ErrorKind::InvalidData.into() }
}

fn read_namespaces(pid: i32) -> BTreeMap<String, u64> {
    let Ok(dir) = fs::read_dir(format!("/proc/{pid}/ns")) else { return BTreeMap::new() };
    dir.filter_map(|entry| {
        let entry = entry.ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        let (_, inode) = target.to_str()?.split_once(":[")?;
        Some((entry.file_name().into_string().ok()?, inode.strip_suffix(']')?.parse().ok()?))
    })
    .collect()
}

#[cfg(test)]
mod race;
#[cfg(test)]
mod tests;
