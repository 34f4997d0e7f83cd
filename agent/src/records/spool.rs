//! Records on their way to the disk and to the server: files of lines, one chain.
//!
//! Never overwrites or reorders a line, never leaves half a line behind a whole one, and never drops a file before the
//! server has what is in it and after it. Blocks; holds no lock and asks no clock.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use avouch_credential::ledger::{RecordError, hash_of, node_line};
use avouch_credential::limits::RECORD_MAX;
use avouch_domain::{NodeChain, Note, Stand, Timestamp};

/// Why nothing was recorded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SpoolError {
    /// No record can name its node yet.
    #[error("the agent does not know yet who it is")]
    NotReady,
    #[error(
        "{bytes} bytes of records wait for the server, and no more are kept: see why it does not take them"
    )]
    Full { bytes: u64 },
    #[error("{0} callers wait for the disk to have their record, and no more may")]
    Busy(usize),
    #[error("it can't be recorded: {0}")]
    Record(RecordError),
    #[error("unable to {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: Arc<io::Error> },
    /// The disk did not keep what it was given; only a restart finds out what there is.
    #[error("the records on disk can't be relied on since an earlier error ({0}): restart the agent")]
    Failed(String),
}

/// An I/O error with what was done to which file.
pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let path = path.to_owned();
    move |source| SpoolError::Io { action, path, source: Arc::new(source) }
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub spool: u64,
    pub segment: u64,
}

/// One file of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub first: u64,
    pub last: u64,
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    chain: NodeChain,
    room: Room,
    /// Oldest first; the last one is written to.
    segments: VecDeque<Segment>,
    file: Option<Arc<File>>,
    /// Files and folder with something that the disk may not have.
    unsynced: Vec<Arc<File>>,
    folder_unsynced: bool,
    stand: Stand,
    /// Number of the last record that the disk has.
    synced: u64,
    bytes: u64,
}

/// What has to be synced for everything up to a record to be on disk.
#[derive(Debug)]
pub(super) struct Unsynced {
    files: Vec<Arc<File>>,
    folder: Option<PathBuf>,
    pub chain: NodeChain,
    pub seq: u64,
}

/// Lines read for the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub first: u64,
    pub lines: Vec<String>,
}

/// Where a reader stands in a file, so that it need not read what is before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    segment: u64,
    seq: u64,
    offset: u64,
}

/// The file of the records from `first` on.
pub(super) fn path_of(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.jsonl"))
}

/// The folder is its owner's alone.
pub(super) fn make_folder(folder: &Path) -> Result<(), SpoolError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(io("create", folder))
}

impl Spool {
    /// A chain that has no record yet.
    pub fn fresh(folder: &Path, chain: NodeChain, room: Room) -> Self {
        Self::of(folder, chain, room, VecDeque::new(), Stand::default(), None)
    }

    /// A chain as it was found: `file` is the last segment's.
    pub fn of(
        folder: &Path,
        chain: NodeChain,
        room: Room,
        segments: VecDeque<Segment>,
        stand: Stand,
        file: Option<Arc<File>>,
    ) -> Self {
        let bytes = segments.iter().map(|segment| segment.bytes).sum();
        let (unsynced, synced) = (Vec::new(), stand.seq);
        let (folder, folder_unsynced) = (folder.to_owned(), false);
        Self { folder, chain, room, segments, file, unsynced, folder_unsynced, stand, synced, bytes }
    }

    pub fn chain(&self) -> &NodeChain {
        &self.chain
    }

    pub fn stand(&self) -> Stand {
        self.stand
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of the last record that the disk has.
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// Number of the oldest record that is here; the next one's if there is none.
    pub fn oldest(&self) -> u64 {
        self.segments.front().map_or(self.stand.seq.saturating_add(1), |segment| segment.first)
    }

    /// Writes a record. When this returns the kernel has it; the disk has it after [`Unsynced::sync`].
    pub fn write(&mut self, at: Timestamp, note: &Note) -> Result<u64, SpoolError> {
        let mut line = node_line(&self.chain, &self.stand, at, note).map_err(SpoolError::Record)?;
        let hash = hash_of(&line);
        line.push('\n');
        let length = line.len() as u64;
        if self.bytes.saturating_add(length) > self.room.spool {
            return Err(SpoolError::Full { bytes: self.bytes });
        }
        let seq = self.stand.seq.saturating_add(1);
        self.make_room(seq, length)?;
        let (Some(file), Some(segment)) = (&self.file, self.segments.back_mut()) else {
            return Err(SpoolError::NotReady);
        };
        if let Err(error) = (&**file).write_all(line.as_bytes()) {
            let path = path_of(&self.folder, segment.first);
            // Half a line must not stand before the next one.
            file.set_len(segment.bytes).map_err(|e| SpoolError::Failed(format!("{error}, then {e}")))?;
            return Err(io("write to", &path)(error));
        }
        segment.last = seq;
        segment.bytes += length;
        self.bytes += length;
        self.stand = Stand { seq, hash };
        if !self.unsynced.last().is_some_and(|last| Arc::ptr_eq(last, file)) {
            self.unsynced.push(file.clone());
        }
        Ok(seq)
    }

    /// Begins a new file if the present one has no room for a record.
    fn make_room(&mut self, seq: u64, length: u64) -> Result<(), SpoolError> {
        let full = self
            .segments
            .back()
            .is_none_or(|s| s.bytes.saturating_add(length) > self.room.segment && s.bytes > 0);
        if !full {
            return Ok(());
        }
        let path = path_of(&self.folder, seq);
        let made = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        let file = made.map_err(io("create", &path))?;
        self.file = Some(Arc::new(file));
        self.folder_unsynced = true;
        self.segments.push_back(Segment { first: seq, last: seq.saturating_sub(1), bytes: 0 });
        Ok(())
    }

    /// What the disk may not have yet. Who takes it syncs it, and says so by [`Spool::was_synced`].
    pub fn take_unsynced(&mut self) -> Unsynced {
        let folder = std::mem::take(&mut self.folder_unsynced).then(|| self.folder.clone());
        let files = std::mem::take(&mut self.unsynced);
        Unsynced { files, folder, chain: self.chain.clone(), seq: self.stand.seq }
    }

    /// The present file is synced once more.
    pub fn sync_again(&mut self) {
        self.unsynced.extend(self.file.clone());
    }

    /// The disk has everything up to this record.
    pub fn was_synced(&mut self, done: &Unsynced) {
        if done.chain == self.chain {
            self.synced = self.synced.max(done.seq);
        }
    }

    /// The server has everything up to this record. Gives the files that may go.
    pub fn acknowledged(&mut self, seq: u64) -> Vec<PathBuf> {
        let mut gone = Vec::new();
        // The last acknowledged record stays: the next one's place in the chain hangs on it.
        while let Some(segment) = self.segments.front().copied()
            && segment.last < seq.min(self.synced)
            && self.segments.len() > 1
        {
            self.segments.pop_front();
            self.bytes = self.bytes.saturating_sub(segment.bytes);
            gone.push(path_of(&self.folder, segment.first));
        }
        gone
    }

    /// The file in which the record after `seq` stands, if the disk has it: its path, its segment, and the last record
    /// that may be read.
    pub fn place_after(&self, seq: u64) -> Option<(PathBuf, Segment, u64)> {
        let wanted = seq.saturating_add(1).max(self.oldest());
        let segment = self.segments.iter().find(|segment| segment.last >= wanted)?;
        let upto = segment.last.min(self.synced);
        (wanted <= upto).then(|| (path_of(&self.folder, segment.first), *segment, upto))
    }
}

impl Unsynced {
    /// Waits until the disk has it.
    pub fn sync(&self) -> Result<(), SpoolError> {
        for file in &self.files {
            file.sync_data().map_err(io("sync", Path::new("the records")))?;
        }
        match &self.folder {
            Some(folder) => File::open(folder).and_then(|f| f.sync_all()).map_err(io("sync", folder)),
            None => Ok(()),
        }
    }
}

/// Removes files that the server has; one that can't be removed is found again at the next start.
pub(super) fn remove(files: &[PathBuf]) {
    for file in files {
        if let Err(error) = fs::remove_file(file) {
            tracing::warn!(%error, path = %file.display(), subsystem_name = "records", "Could not remove records that the server has");
        }
    }
}

/// Reads whole lines of one file, from a record on.
pub(super) fn read_batch(
    place: &(PathBuf, Segment, u64),
    from: u64,
    cursor: &mut Cursor,
    lines_max: usize,
    bytes_max: usize,
) -> Result<Batch, SpoolError> {
    let (path, segment, upto) = place;
    let mut file = File::open(path).map_err(io("open", path))?;
    let known = cursor.segment == segment.first && cursor.seq == from;
    let (mut seq, mut offset) = if known { (from, cursor.offset) } else { (segment.first, 0) };
    file.seek(SeekFrom::Start(offset)).map_err(io("read", path))?;
    let mut reader = BufReader::new(file);
    let (mut batch, mut bytes, mut line) = (Batch { first: from, lines: Vec::new() }, 0, String::new());
    while seq <= *upto && batch.lines.len() < lines_max {
        line.clear();
        let read =
            (&mut reader).take(RECORD_MAX as u64 + 1).read_line(&mut line).map_err(io("read", path))?;
        if !line.ends_with('\n') {
            let cut = io::Error::new(io::ErrorKind::UnexpectedEof, format!("record {seq} is cut off"));
            return Err(io("read", path)(cut));
        }
        if seq >= from {
            bytes += read;
            if bytes > bytes_max && !batch.lines.is_empty() {
                break;
            }
            line.pop();
            batch.lines.push(line.clone());
        }
        offset += read as u64;
        seq += 1;
    }
    *cursor = Cursor { segment: segment.first, seq, offset };
    Ok(batch)
}
