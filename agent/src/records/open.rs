//! What one life of the agent takes up of the records of the one before.
//!
//! Never goes on behind a record that does not hold, never overwrites one: the torn end of a crash is cut off, anything
//! else is set aside under another name, and the next record says so.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use avouch_credential::ledger::{ChainReader, read_node_line};
use avouch_credential::limits::RECORD_MAX;
use avouch_domain::{ChainId, NodeChain, NodeEvent, Note, SpiffeId, Stand, Timestamp};

use super::spool::{Room, Segment, Spool, SpoolError, io, make_folder, path_of};

/// How set-aside files begin.
const ASIDE: &str = "aside-";

/// Why records were set aside; the word stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aside {
    /// They are of another node: the agent has a new SPIFFE ID.
    AnotherNode,
    /// They do not hold.
    Broken,
    /// The server has records that are not here: the folder is of an earlier moment.
    ServerAhead,
    /// The server has other records under these numbers.
    Conflict,
}

impl Aside {
    pub fn word(self) -> &'static str {
        match self {
            Self::AnotherNode => "another_node",
            Self::Broken => "broken",
            Self::ServerAhead => "server_ahead",
            Self::Conflict => "conflict",
        }
    }
}

/// What was found in the folder.
enum Found {
    Nothing,
    Chain {
        spool: Box<Spool>,
        torn: Option<u64>,
    },
    /// The chain it was, if that can be told, and its last record that holds.
    Useless {
        why: Aside,
        chain: Option<NodeChain>,
        last: u64,
    },
}

fn gap(subject: String, detail: Vec<(&'static str, String)>) -> Note {
    Note { event: NodeEvent::SpoolGap, actor: "agent".into(), subject, detail }
}

/// Takes up the chain of this node, or begins one with the ID `fresh`. Gives what is to be recorded first.
pub(super) fn take_up(
    folder: &Path,
    source: &SpiffeId,
    fresh: ChainId,
    room: Room,
    at: Timestamp,
) -> Result<(Spool, Vec<Note>), SpoolError> {
    make_folder(folder)?;
    let new = NodeChain { source: source.clone(), id: fresh };
    match look(folder, source, room)? {
        Found::Nothing => Ok((Spool::fresh(folder, new, room), Vec::new())),
        Found::Chain { spool, torn: None } => Ok((*spool, Vec::new())),
        Found::Chain { spool, torn: Some(bytes) } => {
            let detail = vec![
                ("reason", "torn".to_owned()),
                ("after", spool.stand().seq.to_string()),
                ("bytes", bytes.to_string()),
            ];
            let note = gap(spool.chain().id.to_string(), detail);
            Ok((*spool, vec![note]))
        }
        Found::Useless { why, chain, last } => {
            let note = set_aside(folder, why, chain.as_ref(), last, at)?;
            Ok((Spool::fresh(folder, new, room), vec![note]))
        }
    }
}

/// Renames all files of the chain, and says in a note under which name they are.
pub(super) fn set_aside(
    folder: &Path,
    why: Aside,
    chain: Option<&NodeChain>,
    last: u64,
    at: Timestamp,
) -> Result<Note, SpoolError> {
    let mut kept_as = None;
    for (first, path) in segments(folder)? {
        let aside = free_name(folder, at, first);
        fs::rename(&path, &aside).map_err(io("set aside", &path))?;
        kept_as.get_or_insert(aside);
    }
    File::open(folder).and_then(|f| f.sync_all()).map_err(io("sync", folder))?;
    let kept_as = kept_as.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let detail = vec![
        ("reason", why.word().to_owned()),
        ("last", last.to_string()),
        ("kept_as", kept_as.unwrap_or_default()),
    ];
    Ok(gap(chain.map_or_else(|| "unknown".to_owned(), |chain| chain.id.to_string()), detail))
}

/// A name that nothing has.
fn free_name(folder: &Path, at: Timestamp, first: u64) -> PathBuf {
    let mut moment = at.0;
    loop {
        let path = folder.join(format!("{ASIDE}{moment}-{first:020}.jsonl"));
        if !path.exists() {
            return path;
        }
        moment = moment.saturating_add(1);
    }
}

/// The files of the chain, by the number of their first record.
fn segments(folder: &Path) -> Result<Vec<(u64, PathBuf)>, SpoolError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io("read", folder))? {
        let path = entry.map_err(io("read", folder))?.path();
        let digits = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jsonl"));
        if let Some(first) = digits.filter(|d| d.len() == 20).and_then(|d| d.parse::<u64>().ok()) {
            found.push((first, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn look(folder: &Path, source: &SpiffeId, room: Room) -> Result<Found, SpoolError> {
    let files = segments(folder)?;
    let Some((first, path)) = files.first() else { return Ok(Found::Nothing) };
    let Some(chain) = first_chain(path, room)? else {
        // One file with less than a record in it: a crash in the very first write.
        if files.len() == 1 && read(path, room)?.is_some_and(|bytes| whole_lines(&bytes).is_empty()) {
            fs::remove_file(path).map_err(io("remove", path))?;
            return Ok(Found::Nothing);
        }
        return Ok(Found::Useless { why: Aside::Broken, chain: None, last: 0 });
    };
    if chain.source != *source {
        return Ok(Found::Useless { why: Aside::AnotherNode, last: 0, chain: Some(chain) });
    }
    let mut reader = ChainReader::from(chain.clone(), *first);
    let mut found = VecDeque::new();
    let mut torn = None;
    for (at, (first, path)) in files.iter().enumerate() {
        let last_file = at + 1 == files.len();
        let useless = |reader: &ChainReader| Found::Useless {
            why: Aside::Broken,
            chain: Some(chain.clone()),
            last: reader.stand().map_or(0, |stand| stand.seq),
        };
        if *first != reader.next() {
            return Ok(useless(&reader));
        }
        let Some(bytes) = read(path, room)? else { return Ok(useless(&reader)) };
        let good = follow(&mut reader, &bytes);
        let rest = bytes.get(good..).unwrap_or_default();
        if !rest.is_empty() {
            if !last_file || !is_torn(rest) {
                return Ok(useless(&reader));
            }
            torn = Some(rest.len() as u64);
            cut(path, good as u64)?;
        }
        if good == 0 {
            // Nothing of it was ever whole.
            fs::remove_file(path).map_err(io("remove", path))?;
            continue;
        }
        let last = reader.next().saturating_sub(1);
        found.push_back(Segment { first: *first, last, bytes: good as u64 });
    }
    let Some(stand) = reader.stand() else { return Ok(Found::Nothing) };
    let spool = resume(folder, chain, room, found, stand)?;
    Ok(Found::Chain { spool: Box::new(spool), torn })
}

fn resume(
    folder: &Path,
    chain: NodeChain,
    room: Room,
    segments: VecDeque<Segment>,
    stand: Stand,
) -> Result<Spool, SpoolError> {
    let file = match segments.back() {
        Some(segment) => {
            let path = path_of(folder, segment.first);
            let file = OpenOptions::new().append(true).open(&path).map_err(io("open", &path))?;
            // A life that was killed may have left lines that the kernel has and the disk has not.
            file.sync_all().map_err(io("sync", &path))?;
            Some(Arc::new(file))
        }
        None => None,
    };
    File::open(folder).and_then(|f| f.sync_all()).map_err(io("sync", folder))?;
    Ok(Spool::of(folder, chain, room, segments, stand, file))
}

/// The chain that the first line of a file names.
fn first_chain(path: &Path, room: Room) -> Result<Option<NodeChain>, SpoolError> {
    let Some(bytes) = read(path, room)? else { return Ok(None) };
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    if line.len() == bytes.len() {
        return Ok(None);
    }
    let Some(record) = std::str::from_utf8(line).ok().and_then(|line| read_node_line(line).ok()) else {
        return Ok(None);
    };
    let (source, id) = (SpiffeId::parse(&record.source).ok(), ChainId::from_text(&record.chain));
    Ok(source.zip(id).map(|(source, id)| NodeChain { source, id }))
}

/// `None`: it is bigger than any file of records.
fn read(path: &Path, room: Room) -> Result<Option<Vec<u8>>, SpoolError> {
    let most = room.segment.saturating_add(RECORD_MAX as u64 + 1);
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io("open", path))?;
    file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(io("read", path))?;
    Ok((bytes.len() as u64 <= most).then_some(bytes))
}

/// The part of it that ends with a line break.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    bytes.get(..end).unwrap_or_default()
}

/// Follows whole lines as far as they hold; gives the bytes that they take.
fn follow(reader: &mut ChainReader, bytes: &[u8]) -> usize {
    let mut good = 0;
    for line in whole_lines(bytes).split_inclusive(|b| *b == b'\n') {
        let text = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
        if text.is_none_or(|text| reader.line(text).is_err()) {
            break;
        }
        good += line.len();
    }
    good
}

/// What a crash leaves behind the last whole record: part of one, or blocks that were never written. Where a record
/// follows it is something else.
fn is_torn(rest: &[u8]) -> bool {
    let reads = |line: &[u8]| std::str::from_utf8(line).is_ok_and(|line| read_node_line(line).is_ok());
    // What has no line break was never whole, even if nothing else of it is missing.
    !whole_lines(rest).split(|b| *b == b'\n').any(reads)
}

fn cut(path: &Path, length: u64) -> Result<(), SpoolError> {
    let done = |file: File| -> io::Result<()> {
        file.set_len(length)?;
        file.sync_all()
    };
    OpenOptions::new().write(true).open(path).and_then(done).map_err(io("cut the torn end of", path))
}
