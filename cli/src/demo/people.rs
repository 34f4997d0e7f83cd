//! How one user is several people: all but the first are other users of this machine.
//!
//! Never gives anybody more than they have: root may be anybody, and the kernel lends an ordinary user the numbers that
//! /etc/subuid says are theirs.

use std::path::Path;

use nix::unistd::{Uid, User};
use tokio::process::Command;

use super::teller::COMES_WITHIN;

/// Local users that nobody is, for root to be.
const SPARE: [u32; 3] = [64_011, 64_012, 64_013];
/// Where the kernel's tools look up which numbers are lent to whom.
const SUBUID: &str = "/etc/subuid";

/// The way to be somebody else here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// By being root.
    Root,
    /// By a user namespace with the numbers from here.
    Lent(u32),
    /// Not at all.
    Nobody,
}

impl Others {
    /// The way there is to start this program as somebody else.
    pub(super) async fn here(program: &Path) -> Self {
        let others = if Uid::effective().is_root() { Some(Self::Root) } else { lent().map(Self::Lent) };
        let Some(others) = others else { return Self::Nobody };
        let Some(mut probe) = others.command(0, program) else { return Self::Nobody };
        probe.arg("--version").kill_on_drop(true);
        match tokio::time::timeout(COMES_WITHIN, probe.output()).await {
            Ok(Ok(said)) if said.status.success() => others,
            _ => Self::Nobody,
        }
    }

    /// The number of the nth other person, as the server sees it.
    pub(super) fn uid(self, nth: u32) -> Option<u32> {
        match self {
            Self::Root => SPARE.get(usize::try_from(nth).ok()?).copied(),
            Self::Lent(first) => first.checked_add(nth),
            Self::Nobody => None,
        }
    }

    /// What is written before a command that the nth other person gives.
    pub(super) fn before(self, nth: u32) -> Option<String> {
        let words = match self {
            Self::Root => {
                let uid = self.uid(nth)?;
                format!("setpriv --clear-groups --reuid={uid} --regid={uid}")
            }
            Self::Lent(_) => {
                // In the namespace the caller is 0, and what is lent begins at 1.
                let number = nth.checked_add(1)?;
                format!("unshare --user --map-root-user --map-auto --setuid={number} --setgid={number}")
            }
            Self::Nobody => return None,
        };
        Some(words)
    }

    /// A program in the hands of the nth other person.
    pub(super) fn command(self, nth: u32, program: &Path) -> Option<Command> {
        let before = self.before(nth)?;
        let mut words = before.split(' ');
        let mut command = Command::new(words.next()?);
        command.args(words).arg(program);
        Some(command)
    }
}

/// The first number that is lent to the caller.
fn lent() -> Option<u32> {
    let name = User::from_uid(Uid::effective()).ok().flatten()?.name;
    first_lent(&std::fs::read_to_string(SUBUID).ok()?, &name, Uid::effective().as_raw())
}

/// In lines of `NAME:FIRST:COUNT`, where the name may be a number.
fn first_lent(text: &str, name: &str, uid: u32) -> Option<u32> {
    text.lines().find_map(|line| {
        let (whose, range) = line.split_once(':')?;
        let (first, count) = range.split_once(':')?;
        let mine = whose == name || whose.parse() == Ok(uid);
        (mine && count.trim().parse::<usize>().ok()? >= SPARE.len()).then(|| first.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_lent_by_name_or_number() {
        let text = "ben:100000:65536\n1000:165536:65536\nada:231072:1\n";
        assert_eq!(first_lent(text, "ben", 7), Some(100_000));
        assert_eq!(first_lent(text, "cyd", 1000), Some(165_536));
        assert_eq!(first_lent(text, "ada", 8), None, "three are needed");
        assert_eq!(first_lent(text, "eve", 9), None);
    }
}
