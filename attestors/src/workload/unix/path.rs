//! Whether the path of a binary is the one that everybody else knows by it.
//!
//! Any user may make a user namespace, and in it a mount namespace in which a program of theirs lies at the path of another.
//! The kernel then shows that path to everybody.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::process::{ExeId, ProcessFacts};

/// False if the process is in a user namespace that is not the agent's, and at this path there is another file for the agent.
pub(super) fn is_everybodys(facts: &ProcessFacts, path: &str) -> bool {
    let own = std::fs::metadata("/proc/self/ns/user").ok().map(|namespace| namespace.ino());
    if own.is_some() && facts.namespaces.get("user").copied() == own {
        return true;
    }
    // Nothing there to be taken for: a path of a container.
    let Ok(there) = std::fs::metadata(Path::new(path)) else { return true };
    facts.key.exe == Some(ExeId::of(&there))
}
