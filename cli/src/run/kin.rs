//! Whether a process descends from this one.
//!
//! Never sure of who is gone: such a process is not kin.

use std::fs;
use std::process;

/// Deepest line that is followed.
const LINE_MAX: usize = 256;

/// True if the process is below this one. An orphan comes to this one, so whoever was below stays so.
pub(super) fn descends_from_me(pid: i32) -> bool {
    let me = i32::try_from(process::id()).unwrap_or(0);
    let mut at = pid;
    for _ in 0..LINE_MAX {
        match parent(at) {
            Some(parent) if parent == me => return true,
            Some(parent) if parent > 1 => at = parent,
            _ => return false,
        }
    }
    false
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything: fields are counted from the last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_kin_and_the_first_process_is_not() {
        let mut child = process::Command::new("sleep").arg("600").spawn().unwrap();
        assert!(descends_from_me(i32::try_from(child.id()).unwrap()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!descends_from_me(1));
    }
}
