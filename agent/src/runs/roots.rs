//! Roots of runs on disk: an agent that starts anew knows which processes belong to runs, and gives them nothing before the
//! root has gone on as the identity it had.
//!
//! A file for each root. Outlives the agent and not the machine, so nothing is synced.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use avouch_attestors::process::{Link, is_running};
use avouch_domain::SpiffeId;
use avouch_engine::runs::{Process, RUNS_MAX};

use crate::clock;

/// Longest file that is read, in bytes: a boot ID and a SPIFFE ID.
const FILE_MAX: u64 = 4 * 1024;

/// The files of a folder, and the roots whose run has ended while they go on.
#[derive(Debug)]
pub(super) struct Roots {
    folder: PathBuf,
    ended: Vec<Process>,
}

pub(super) fn is_alive(process: Process) -> bool {
    is_running(Link { pid: process.pid, start_time: process.start_time })
}

impl Roots {
    /// Opens the folder, and gives the roots in it that still run. What is of an earlier boot, or has exited, is removed.
    ///
    /// # Errors
    /// The folder can't be made or read.
    pub(super) fn open(folder: PathBuf) -> io::Result<(Self, Vec<(Process, SpiffeId)>)> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut live = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            match read(&path).filter(|(root, _)| is_alive(*root) && live.len() < RUNS_MAX) {
                Some(root) => live.push(root),
                None => fs::remove_file(&path)?,
            }
        }
        let ended = live.iter().map(|(root, _)| *root).collect();
        Ok((Self { folder, ended }, live))
    }

    /// Before anybody is told that the run began.
    ///
    /// # Errors
    /// It can't be written; then the run must not begin.
    pub(super) fn put(&mut self, root: Process, identity: &SpiffeId) -> io::Result<()> {
        self.ended.retain(|ended| *ended != root);
        // A name that no root has: what a crash leaves half is nobody's.
        let (half, path) = (self.folder.join("half"), self.path(root));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
        file.write_all(format!("{} {identity}\n", clock::boot_id()).as_bytes())?;
        fs::rename(half, path)
    }

    /// A run has ended. Its root may go on, and then what is below it is known by it.
    pub(super) fn ended(&mut self, root: Process) {
        self.ended.push(root);
        let ended = std::mem::take(&mut self.ended);
        self.ended = ended.into_iter().filter(|root| is_alive(*root) || !self.remove(*root)).collect();
    }

    /// False if it has to be tried again.
    fn remove(&self, root: Process) -> bool {
        match fs::remove_file(self.path(root)) {
            Ok(()) => true,
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        }
    }

    fn path(&self, root: Process) -> PathBuf {
        self.folder.join(format!("{}-{}", root.pid, root.start_time))
    }
}

/// `None` for what is no root of this boot.
fn read(path: &Path) -> Option<(Process, SpiffeId)> {
    let (pid, start_time) = path.file_name()?.to_str()?.split_once('-')?;
    let root = Process { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? };
    let file = fs::File::open(path).ok()?;
    let text = io::read_to_string(io::Read::take(file, FILE_MAX)).ok()?;
    let (boot, identity) = text.trim_end().split_once(' ')?;
    (boot == clock::boot_id()).then_some((root, SpiffeId::parse(identity).ok()?))
}

#[cfg(test)]
mod tests {
    use avouch_domain::fixtures::id;

    use super::*;

    fn myself() -> Process {
        let pid = i32::try_from(std::process::id()).unwrap();
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        Process { pid, start_time: rest.split_ascii_whitespace().nth(19).unwrap().parse().unwrap() }
    }

    fn open(folder: &tempfile::TempDir) -> (Roots, Vec<(Process, SpiffeId)>) {
        Roots::open(folder.path().join("runs")).unwrap()
    }

    fn files(folder: &tempfile::TempDir) -> usize {
        fs::read_dir(folder.path().join("runs")).unwrap().count()
    }

    #[test]
    fn a_root_that_still_runs_is_known_in_the_next_life() {
        let folder = tempfile::tempdir().unwrap();
        let (mut roots, none) = open(&folder);
        assert_eq!(none, []);
        roots.put(myself(), &id("/test/coder")).unwrap();
        roots.ended(myself());
        assert_eq!(open(&folder).1, [(myself(), id("/test/coder"))], "also when its run has ended");
    }

    #[test]
    fn what_has_exited_is_of_another_boot_or_half_written_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (mut roots, _) = open(&folder);
        roots.put(Process { start_time: 1, ..myself() }, &id("/test/coder")).unwrap();
        let mine = format!("{}-{}", myself().pid, myself().start_time);
        let other = "0d3f2c9a-1111-2222-3333-444455556666 spiffe://example.org/test/coder\n";
        fs::write(folder.path().join("runs").join(mine), other).unwrap();
        fs::write(folder.path().join("runs/half"), "0d3f").unwrap();
        assert_eq!((open(&folder).1, files(&folder)), (Vec::new(), 0));
    }

    #[test]
    fn the_file_of_a_root_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let (mut roots, _) = open(&folder);
        let gone = Process { start_time: 1, ..myself() };
        for root in [gone, myself()] {
            roots.put(root, &id("/test/coder")).unwrap();
        }
        roots.ended(gone);
        assert_eq!(files(&folder), 1);
        roots.ended(myself());
        assert_eq!(files(&folder), 1, "what still runs is known by it");
    }
}
