//! Where the sealed state and its secret lie: with the keys that the KeyManager keeps on disk, or in memory that
//! outlives the process, else nowhere.
//!
//! Never puts a key that is to stay in memory on a disk, and never where workloads or other users can reach it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use crate::config::{AgentConfig, KeyManagerConfig, SealedStateDir};

/// Below the directory that the service manager gives.
const OWN_FOLDER: &str = "sealed";

/// The folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// State and secret apart: who has the one has not the other.
    Disk { state: PathBuf, secret: PathBuf },
    /// One folder on tmpfs for both, and for the agent's own key and SVID.
    Memory(PathBuf),
    /// Nothing is kept, and why.
    Nowhere(String),
}

impl Place {
    /// The folder on tmpfs, if that is where things are kept.
    #[must_use]
    pub fn memory(&self) -> Option<&Path> {
        match self {
            Self::Memory(dir) => Some(dir),
            Self::Disk { .. } | Self::Nowhere(_) => None,
        }
    }

    /// Says it once, at the start.
    pub fn tell(&self) {
        match self {
            Self::Disk { state: dir, .. } | Self::Memory(dir) => {
                tracing::info!(dir = %dir.display(), subsystem_name = "sealed", "Keeps what a start without the server needs");
            }
            Self::Nowhere(reason) => {
                tracing::warn!(
                    reason,
                    subsystem_name = "sealed",
                    "Keeps nothing for a start without the server"
                );
            }
        }
    }
}

/// The directory that the service manager gives; of several the first.
#[must_use]
pub fn runtime_dir() -> Option<PathBuf> {
    let given = std::env::var_os("RUNTIME_DIRECTORY")?;
    let first = given.as_bytes().split(|b| *b == b':').next()?;
    (!first.is_empty()).then(|| OsStr::from_bytes(first).into())
}

/// Chooses by the configuration; `runtime_dir` is what the service manager gives. Makes the folder (0700) if need be.
#[must_use]
pub fn choose(config: &AgentConfig, runtime_dir: Option<&Path>) -> Place {
    let named = match &config.sealed_state_dir {
        SealedStateDir::Off => {
            return Place::Nowhere("experimental.sealed_state_dir is \"none\"".to_owned());
        }
        SealedStateDir::At(dir) => Some(dir.as_path()),
        SealedStateDir::Default => None,
    };
    if let KeyManagerConfig::Disk { directory } = &config.key_manager {
        let state = named.unwrap_or(&config.data_dir);
        return match make(state) {
            Ok(()) => Place::Disk { state: state.to_owned(), secret: directory.clone() },
            Err(error) => Place::Nowhere(format!("{}: {error}", state.display())),
        };
    }
    let sockets = config.socket_path.parent().unwrap_or(Path::new("/"));
    let fit = |dir: &Path| fit(dir, sockets).map_err(|why| format!("{} {why}", dir.display()));
    let hint = "with KeyManager \"memory\" it is kept on tmpfs only, where nobody else can write and workloads \
                can't look: name such a folder in experimental.sealed_state_dir";
    if let Some(dir) = named {
        return match fit(dir) {
            Ok(()) => Place::Memory(dir.to_owned()),
            Err(why) => Place::Nowhere(format!("{why}; {hint}")),
        };
    }
    let own = runtime_dir.map(|dir| dir.join(OWN_FOLDER));
    let mut reasons = Vec::new();
    for dir in [Some(config.data_dir.clone()), own].into_iter().flatten() {
        match fit(&dir) {
            Ok(()) => return Place::Memory(dir),
            Err(why) => reasons.push(why),
        }
    }
    Place::Nowhere(format!("{}; {hint}", reasons.join(", ")))
}

fn make(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// A folder of ours on tmpfs, away from the directory that workloads see; or what is wrong with it.
fn fit(dir: &Path, sockets: &Path) -> Result<(), String> {
    make(dir).map_err(|e| format!("can't be made: {e}"))?;
    let real = |path: &Path| fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    let (dir, sockets) = match (real(dir), real(sockets)) {
        (Ok(dir), Ok(sockets)) => (dir, sockets),
        (Err(e), _) | (_, Err(e)) => return Err(format!("can't be found: {e}")),
    };
    let kind = statfs(&dir).map_err(|e| format!("can't be looked at: {e}"))?.filesystem_type();
    if kind != TMPFS_MAGIC {
        return Err("is not on tmpfs".to_owned());
    }
    // Containers have that directory mounted, some of them as root.
    if dir.starts_with(&sockets) {
        return Err("is in or below the directory of socket_path".to_owned());
    }
    let facts = fs::metadata(&dir).map_err(|e| format!("can't be looked at: {e}"))?;
    if facts.uid() != nix::unistd::geteuid().as_raw() {
        return Err("belongs to another user".to_owned());
    }
    match facts.permissions().mode() & 0o022 {
        0 => Ok(()),
        _ => Err("can be written by others".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Flags};

    fn config(keys: &str, agent: &str, data_dir: &Path) -> AgentConfig {
        let text = format!(
            r#"agent {{
                server_address = "127.0.0.1"
                server_port = 1
                trust_domain = "example.org"
                insecure_bootstrap = true
                data_dir = "{}"
                {agent}
            }}
            plugins {{
                NodeAttestor "join_token" {{}}
                KeyManager {keys}
                WorkloadAttestor "unix" {{}}
            }}"#,
            data_dir.display()
        );
        config::read(&text, Path::new("agent.conf"), &Flags::default()).unwrap()
    }

    fn named(dir: &Path) -> String {
        format!("experimental {{\n sealed_state_dir = \"{}\"\n }}", dir.display())
    }

    fn on_disk() -> tempfile::TempDir {
        tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
    }

    /// A folder on tmpfs; `None` where the machine has none.
    fn in_memory() -> Option<tempfile::TempDir> {
        let shared = Path::new("/dev/shm");
        if !statfs(shared).is_ok_and(|facts| facts.filesystem_type() == TMPFS_MAGIC) {
            println!("not run: /dev/shm is no tmpfs");
            return None;
        }
        tempfile::tempdir_in(shared).ok()
    }

    fn reason(place: Place) -> String {
        match place {
            Place::Nowhere(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn with_keys_on_disk_the_secret_lies_with_them_and_the_state_with_the_data() {
        let dir = on_disk();
        let (keys, data) = (dir.path().join("k"), dir.path().join("d"));
        let disk = format!("\"disk\" {{\n plugin_data {{\n directory = \"{}\"\n }}\n }}", keys.display());
        let place = choose(&config(&disk, "", &data), None);
        assert_eq!(place, Place::Disk { state: data.clone(), secret: keys.clone() });
        let other = dir.path().join("o");
        let place = choose(&config(&disk, &named(&other), &data), None);
        assert_eq!(place, Place::Disk { state: other, secret: keys });
    }

    #[test]
    fn it_can_be_turned_off() {
        let dir = on_disk();
        let place = choose(&config("\"memory\" {}", &named(Path::new("none")), dir.path()), None);
        assert!(reason(place).contains("\"none\""));
    }

    #[test]
    fn with_keys_in_memory_nothing_is_kept_on_a_disk() {
        let dir = on_disk();
        let why = reason(choose(&config("\"memory\" {}", "", dir.path()), None));
        assert!(why.contains("is not on tmpfs") && why.contains("experimental.sealed_state_dir"), "{why}");
        let other = dir.path().join("o");
        let why = reason(choose(&config("\"memory\" {}", &named(&other), dir.path()), None));
        assert!(why.contains("is not on tmpfs"), "{why}");
    }

    #[test]
    fn with_keys_in_memory_the_first_fitting_folder_on_tmpfs_is_taken() {
        let Some(memory) = in_memory() else { return };
        let disk = on_disk();
        let plain = config("\"memory\" {}", "", disk.path());
        assert_eq!(choose(&plain, Some(memory.path())), Place::Memory(memory.path().join("sealed")));
        let (data, chosen) = (memory.path().join("d"), memory.path().join("c"));
        assert_eq!(choose(&config("\"memory\" {}", "", &data), None), Place::Memory(data.clone()));
        let config = config("\"memory\" {}", &named(&chosen), &data);
        assert_eq!(choose(&config, None), Place::Memory(chosen));
    }

    #[test]
    fn a_folder_that_workloads_or_other_users_can_reach_is_not_taken() {
        let Some(memory) = in_memory() else { return };
        let disk = on_disk();
        let (open, below) = (memory.path().join("open"), memory.path().join("s/below"));
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let why = reason(choose(&config("\"memory\" {}", &named(&open), disk.path()), None));
        assert!(why.contains("can be written by others"), "{why}");
        let sockets = format!("socket_path = \"{}/s/api.sock\"\n{}", memory.path().display(), named(&below));
        let why = reason(choose(&config("\"memory\" {}", &sockets, disk.path()), None));
        assert!(why.contains("below the directory of socket_path"), "{why}");
    }
}
