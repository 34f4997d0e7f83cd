//! What the kernel says about a process, as the selectors of the unix attestor.
//!
//! Only for explaining: an agent never decides by this, it pins the process first.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use avouch_domain::{Selector, SelectorSet};
use aws_lc_rs::digest;
use nix::unistd::{Gid, Group, Uid, User};

/// Largest executable whose digest is taken, in bytes; more would keep the caller waiting.
const DIGEST_MAX: u64 = 512 << 20;

/// The selectors a process has.
#[derive(Clone, Debug)]
pub struct ProcessFacts {
    pub selectors: SelectorSet,
    /// Could its binary be looked at? Only root and the process's own user may.
    pub binary_seen: bool,
}

/// Effective user, group and groups of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

/// Reads user, group and groups of a process; `None` if it is gone.
#[must_use]
pub fn ids(pid: i32) -> Option<Ids> {
    std::fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(|text| read_ids(&text))
}

fn read_ids(status: &str) -> Option<Ids> {
    let line = |name: &str| status.lines().find_map(|l| l.strip_prefix(name));
    // Real, effective, saved, file system: the attestor goes by the effective one, as the socket's peer has it.
    let effective = |name: &str| line(name)?.split_whitespace().nth(1)?.parse::<u32>().ok();
    let groups = line("Groups:").unwrap_or_default().split_whitespace().filter_map(|g| g.parse().ok());
    Some(Ids { uid: effective("Uid:")?, gid: effective("Gid:")?, groups: groups.collect() })
}

/// Reads the selectors of a process; `None` if it is gone.
#[must_use]
pub fn look(pid: i32) -> Option<ProcessFacts> {
    let ids = ids(pid)?;
    let mut texts = vec![format!("uid:{}", ids.uid), format!("gid:{}", ids.gid)];
    texts.extend(user(ids.uid).map(|name| format!("user:{name}")));
    texts.extend(group(ids.gid).map(|name| format!("group:{name}")));
    for gid in ids.groups {
        texts.push(format!("supplementary_gid:{gid}"));
        texts.extend(group(gid).map(|name| format!("supplementary_group:{name}")));
    }
    let exe = format!("/proc/{pid}/exe");
    let path = std::fs::read_link(&exe);
    let binary_seen = path.is_ok();
    if let Ok(path) = path {
        texts.push(format!("path:{}", path.display()));
        texts.extend(sha256(Path::new(&exe)).map(|hash| format!("sha256:{hash}")));
    }
    let selectors = texts.iter().filter_map(|value| Selector::new("unix", value).ok());
    SelectorSet::new(selectors).ok().map(|selectors| ProcessFacts { selectors, binary_seen })
}

fn user(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|u| u.name)
}

fn group(gid: u32) -> Option<String> {
    Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|g| g.name)
}

fn sha256(exe: &Path) -> Option<String> {
    let small = std::fs::metadata(exe).ok()?.len() <= DIGEST_MAX;
    let bytes = if small { std::fs::read(exe).ok()? } else { return None };
    Some(hex::encode(digest::digest(&digest::SHA256, &bytes)))
}

/// What keeps a process with these IDs from opening the socket at `path`; `None` if nothing does.
#[must_use]
pub fn barrier(path: &Path, ids: &Ids) -> Option<String> {
    if ids.uid == 0 {
        return None;
    }
    let allowed = |at: &Path, bit: u32| {
        std::fs::metadata(at).is_ok_and(|m| {
            let shift = if m.uid() == ids.uid {
                6
            } else if m.gid() == ids.gid || ids.groups.contains(&m.gid()) {
                3
            } else {
                0
            };
            m.mode() >> shift & bit == bit
        })
    };
    let above = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty());
    if let Some(folder) = above.collect::<Vec<_>>().into_iter().rev().find(|p| !allowed(p, 1)) {
        return Some(format!("user {} may not search {}", ids.uid, folder.display()));
    }
    (!allowed(path, 2)).then(|| format!("user {} may not write {}", ids.uid, path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_effective_ids_count() {
        let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n";
        assert_eq!(read_ids(status), Some(Ids { uid: 2, gid: 6, groups: vec![9, 10] }));
        assert_eq!(read_ids(""), None);
    }

    #[test]
    fn this_process_has_its_user_and_path() {
        let facts = look(i32::try_from(std::process::id()).unwrap()).unwrap();
        let uid: Selector = format!("unix:uid:{}", Uid::effective()).parse().unwrap();
        assert!(facts.selectors.contains(&uid));
        assert!(facts.selectors.iter().any(|s| s.value().starts_with("sha256:")));
        assert!(look(i32::MAX).is_none());
    }

    #[test]
    fn a_socket_without_write_permission_is_a_barrier_for_all_but_root() {
        let path = std::env::temp_dir().join(format!("avouch-barrier-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let stranger = Ids { uid: 4_000_001, gid: 4_000_001, groups: Vec::new() };
        let found = barrier(&path, &stranger);
        let root = barrier(&path, &Ids { uid: 0, ..stranger });
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found, Some(format!("user 4000001 may not write {}", path.display())));
        assert_eq!(root, None);
    }
}
