//! What keeps the command from reaching around its gates: a Landlock domain of its own.
//!
//! From inside it nobody traces, reads or signals a process outside, and the closed folders do not open. Never a promise
//! that the kernel does not hold: without Landlock, or with the powers of root, the run is called advisory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _, Scope, path_beneath_rules,
};
use nix::libc;
use rustix::process::{geteuid, getuid};
use rustix::thread::{
    CapabilitySet, capabilities, capability_is_in_ambient_set, capability_is_in_bounding_set,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// The first version that can keep signals in (Linux 6.12).
const NEEDED: ABI = ABI::V6;

/// Pastes into a console of the kernel (`ioctl_console(2)`).
const TIOCLINUX: u64 = 0x541c;

/// Each of these reaches around a domain: into the environment of any process, the kernel, what is mounted, or the disk.
const BEYOND: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::BPF)
    .union(CapabilitySet::SYS_MODULE)
    .union(CapabilitySet::SYS_RAWIO);

/// A domain that a process is yet to enter.
pub(super) struct Domain {
    ruleset: RulesetCreated,
    calls: BpfProgram,
}

/// Why nothing would keep a command of this process in; none if a domain would.
pub(super) fn hindrance() -> Option<&'static str> {
    if whole().is_err() {
        return Some("this kernel cannot keep it in (Linux 6.12 with Landlock can)");
    }
    reaches_beyond().then_some("it has powers of root, so nothing keeps it in; run it as an ordinary user")
}

/// True if a command would have one of these powers. What can't be found out counts as had.
fn reaches_beyond() -> bool {
    let root = getuid().is_root() || geteuid().is_root();
    let inherited = capabilities(None).map_or(CapabilitySet::all(), |sets| sets.inheritable);
    // Programs of root gain what bounds them (capabilities(7)); others keep what is ambient.
    BEYOND.iter().any(|power| match root {
        true => inherited.contains(power) || capability_is_in_bounding_set(power).unwrap_or(true),
        false => capability_is_in_ambient_set(power).unwrap_or(true),
    })
}

fn whole() -> Result<RulesetCreated, landlock::RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))?
        .scope(Scope::Signal)?
        .create()
}

/// What no domain holds: a limit set for another process of the same user ends it (`prlimit`, RLIMIT_CPU), and words put into
/// the terminal are read by whoever reads it next, such as the shell after the run. Reading limits, and setting one's own, go
/// on.
fn calls() -> Result<BpfProgram, seccompiler::Error> {
    let not_itself = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
    let sets = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
    let asks_for = |request: u64| {
        SeccompRule::new(vec![SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request)?])
    };
    let rules = [
        (libc::SYS_prlimit64, vec![SeccompRule::new(vec![not_itself, sets])?]),
        (libc::SYS_ioctl, vec![asks_for(libc::TIOCSTI)?, asks_for(TIOCLINUX)?]),
    ];
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules.into(), SeccompAction::Allow, refused, arch)?.try_into()?)
}

impl Domain {
    /// A domain in which everything is as it was, but for these folders.
    ///
    /// # Errors
    /// The kernel does not hold it.
    pub(super) fn without(closed: &[PathBuf]) -> io::Result<Self> {
        // What is closed is a folder, by whatever name it is called.
        let real = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        let closed: Vec<_> = closed.iter().map(real).collect();
        let open = open_beneath(Path::new("/"), &closed);
        let rules = path_beneath_rules(open, AccessFs::from_all(NEEDED));
        let created = whole().and_then(|ruleset| ruleset.add_rules(rules)).map_err(io::Error::other)?;
        Ok(Self { ruleset: created, calls: calls().map_err(io::Error::other)? })
    }

    /// What the process that enters is to do.
    pub(super) fn enter(self) -> impl FnMut() -> io::Result<()> + Send + Sync + 'static {
        let Self { ruleset, calls } = self;
        let mut once = Some(ruleset);
        move || match once.take() {
            Some(ruleset) => {
                ruleset.restrict_self().map_err(io::Error::other)?;
                seccompiler::apply_filter(&calls).map_err(io::Error::other)
            }
            None => Ok(()),
        }
    }
}

/// The paths that together are everything beneath a folder but the closed ones.
fn open_beneath(folder: &Path, closed: &[PathBuf]) -> Vec<PathBuf> {
    if !closed.iter().any(|path| path.starts_with(folder)) {
        return vec![folder.to_owned()];
    }
    // A folder with something closed in it is opened by what else is in it now: what is made there later is not.
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    // A link is open if what it leads to is: that has a path of its own.
    let real = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()));
    let paths = real.map(|entry| entry.path());
    paths.filter(|path| !closed.contains(path)).flat_map(|path| open_beneath(&path, closed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_open_but_what_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b/c", "b/d"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let at = |name: &str| dir.path().join(name);
        assert_eq!(open_beneath(dir.path(), &[]), [dir.path()]);
        let mut open = open_beneath(dir.path(), &[at("b/c")]);
        open.sort();
        assert_eq!(open, [at("a"), at("b/d")]);
        std::os::unix::fs::symlink(at("b/c"), at("b/link")).unwrap();
        let mut open = open_beneath(dir.path(), &[at("b/c")]);
        open.sort();
        assert_eq!(open, [at("a"), at("b/d")], "a link opens nothing that is closed");
        let mut open = open_beneath(dir.path(), &[at("none/x")]);
        open.sort();
        assert_eq!(open, [at("a"), at("b")], "what is not there is closed all the same");
    }
}
