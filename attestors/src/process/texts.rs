//! The files below `/proc/PID` that name a process image, and the fields used of them.
//!
//! Never: no judgement about what changed (that is `process.rs`).

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io;

use super::{ProcessGone, gone, malformed};
use crate::sys;

/// The fields used of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub parent: i32,
    pub start_time: u64,
    /// Zombie or dead: its memory is gone, only its number is still taken.
    pub dead: bool,
}

pub(super) fn read_stat(pid: i32) -> Result<Stat, ProcessGone> {
    let text = sys::read_proc(&format!("/proc/{pid}/stat")).map_err(|e| gone("the start time", e))?;
    parse_stat(&text).ok_or_else(|| malformed("the start time"))
}

/// The name of a process may hold spaces and parentheses: fields are counted from the last `)`.
pub(super) fn parse_stat(bytes: &[u8]) -> Option<Stat> {
    let close = bytes.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?; // field 3
    let parent = fields.next()?.parse().ok()?; // field 4
    let start_time = fields.nth(17)?.parse().ok()?; // field 22
    Some(Stat { parent, start_time, dead: matches!(state, "Z" | "X" | "x") })
}

/// Effective user and group, and supplementary groups in the kernel's order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Credentials {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Reads as far as the groups, which the kernel writes after the user and the group.
pub(super) fn parse_status(bytes: &[u8]) -> Option<Credentials> {
    let (mut uid, mut gid) = (None, None);
    // The name in the first line may hold anything but a newline, which the kernel escapes.
    for line in bytes.split(|b| *b == b'\n') {
        let effective = |rest: &[u8]| numbers(rest)?.get(1).copied();
        if let Some(rest) = line.strip_prefix(b"Uid:") {
            uid = effective(rest);
        } else if let Some(rest) = line.strip_prefix(b"Gid:") {
            gid = effective(rest);
        } else if let Some(rest) = line.strip_prefix(b"Groups:") {
            return Some(Credentials { uid: uid?, gid: gid?, groups: numbers(rest)? });
        }
    }
    None
}

fn numbers(text: &[u8]) -> Option<Vec<u32>> {
    std::str::from_utf8(text).ok()?.split_ascii_whitespace().map(|n| n.parse().ok()).collect()
}

/// The image that a process runs now: made of what the kernel told the program at its start. Zero if the agent may not
/// know.
///
/// # Errors
/// [`ProcessGone::Exited`] if it has no memory any more.
pub(super) fn image_of(pid: i32) -> Result<u64, ProcessGone> {
    let text = match sys::read_proc(&format!("/proc/{pid}/auxv")) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Ok(0),
        Err(e) => return Err(gone("the program image", e)),
    };
    if text.is_empty() {
        return Err(ProcessGone::Exited);
    }
    let mut hasher = DefaultHasher::new();
    hasher.write(&text);
    Ok(hasher.finish().max(1))
}

/// The open status of one process. It can't come to mean another one, whatever becomes of its pid.
#[derive(Debug)]
pub(super) struct Status(File);

impl Status {
    pub(super) fn open(pid: i32) -> Result<Self, ProcessGone> {
        File::open(format!("/proc/{pid}/status")).map(Self).map_err(|e| gone("the status", e))
    }

    /// The credentials that the process has now.
    pub(super) fn credentials(&self, pid: i32) -> Result<Credentials, ProcessGone> {
        let text = match sys::read_from_start(&self.0) {
            // Longer than usual: in pieces it must be nobody else's file, or the pieces may be of different texts.
            Ok(None) => sys::read_proc(&format!("/proc/{pid}/status")),
            Ok(Some(text)) => Ok(text),
            Err(error) => Err(error),
        };
        parse_status(&text.map_err(|e| gone("the status", e))?).ok_or_else(|| malformed("the status"))
    }
}
