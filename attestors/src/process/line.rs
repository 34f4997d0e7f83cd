//! A process and its ancestors.
//!
//! Never takes a process for an ancestor that is none: after each look at a parent the child is asked again whether that
//! still is its parent. An orphan goes to the nearest ancestor that takes orphans, so whatever is found was above it.

use super::texts::{Stat, read_stat};
use super::{ProcessGone, gone};
use crate::limits::{LINE_LOOKS, LINE_MAX};

/// One process of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    pub pid: i32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

/// True if this very process has not exited.
#[must_use]
pub fn is_running(link: Link) -> bool {
    read_stat(link.pid).is_ok_and(|stat| stat.start_time == link.start_time && !stat.dead)
}

pub(super) fn of(first: Link) -> Result<Vec<Link>, ProcessGone> {
    let mut line = vec![first];
    let mut at = first;
    while let Some(parent) = parent_of(at)? {
        if line.len() >= LINE_MAX {
            return Err(unclear("it is longer than any that is known"));
        }
        line.push(parent);
        at = parent;
    }
    Ok(line)
}

/// The parent of a process; `None` if there is none that the agent sees.
fn parent_of(child: Link) -> Result<Option<Link>, ProcessGone> {
    let same = |stat: &Stat| stat.start_time == child.start_time;
    let mut now = read_stat(child.pid)?;
    for _ in 0..LINE_LOOKS {
        if !same(&now) {
            return Err(ProcessGone::Exited);
        }
        if now.parent == 0 {
            return Ok(None);
        }
        let parent = read_stat(now.parent);
        let again = read_stat(child.pid)?;
        if let Ok(stat) = parent
            && again.parent == now.parent
            && same(&again)
        {
            return Ok(Some(Link { pid: now.parent, start_time: stat.start_time }));
        }
        // The parent has exited in between: the child has another one.
        now = again;
    }
    Err(unclear("its parents exit faster than they can be looked at"))
}

fn unclear(why: &'static str) -> ProcessGone {
    gone("the line of ancestors", std::io::Error::other(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::child;

    fn link(pid: i32) -> Link {
        Link { pid, start_time: read_stat(pid).unwrap().start_time }
    }

    #[test]
    fn a_child_has_this_process_above_it_and_the_first_of_all_last() {
        let mut child = child::waiting(std::path::Path::new("cat"));
        let pid = i32::try_from(child.id()).unwrap();
        let line = of(link(pid)).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(line.iter().map(|l| l.pid).take(2).collect::<Vec<_>>(), [pid, own]);
        assert_eq!(read_stat(line.last().unwrap().pid).unwrap().parent, 0);
        assert!(is_running(link(pid)) && !is_running(Link { pid, start_time: 1 }));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(matches!(of(Link { pid, start_time: 1 }), Err(ProcessGone::Exited)));
    }
}
