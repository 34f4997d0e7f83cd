//! The agent's own state on disk: `agent-data.json` in the form SPIRE's agent reads and writes.
//!
//! This file is the commit point of an attestation or renewal: the key is on disk before it. Never leaves a half
//! written file behind, and never takes an unreadable one for an empty one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use avouch_credential::x509::pem;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

const FILE: &str = "agent-data.json";
/// Go's zero time, which the file holds where no time is set.
const NO_TIME: &str = "0001-01-01T00:00:00Z";
/// `bootstrap_use` once the agent has been attested.
const USED: i64 = 2;

/// Why the state can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    #[error("unable to {action} {path}: {source}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("unable to read {path}: {problem}; move the file away to attest anew")]
    Unreadable { path: PathBuf, problem: String },
}

/// What survives a restart. DER, leaf first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentData {
    /// Empty: not attested.
    pub svid: Vec<Vec<u8>>,
    /// X.509 authorities of the own trust domain.
    pub bundle: Vec<Vec<u8>>,
    pub reattestable: bool,
}

/// The file as it stands; members in SPIRE's order.
#[derive(Serialize, Deserialize)]
struct Raw {
    #[serde(default)]
    svid: Option<Vec<String>>,
    #[serde(default)]
    bundle: Option<Vec<String>>,
    #[serde(default)]
    reattestable: bool,
    #[serde(default)]
    bootstrap_use: i64,
    #[serde(default = "no_time")]
    bootstrap_start_time: String,
    #[serde(default)]
    connection_attempts: i64,
}

fn no_time() -> String {
    NO_TIME.to_owned()
}

/// The state file: the one writer of it.
#[derive(Debug)]
pub struct StateFile {
    /// The first one decides; a second is a copy of it.
    paths: Vec<PathBuf>,
    data: Mutex<AgentData>,
}

impl StateFile {
    /// Reads the state in `dir`, which is made if need be. No file is an empty state.
    ///
    /// # Errors
    /// [`DiskError`] if the directory can't be made or the file can't be understood.
    pub fn open(dir: &Path) -> Result<Self, DiskError> {
        Self::open_with_keys(None, dir)
    }

    /// As [`StateFile::open`], with a folder where the agent's own key lies: the SVID there is the one of that key, so
    /// it goes before `dir`, which has a copy for those who look for it there.
    ///
    /// # Errors
    /// As [`StateFile::open`].
    pub fn open_with_keys(keys: Option<&Path>, dir: &Path) -> Result<Self, DiskError> {
        fs::create_dir_all(dir).map_err(|source| DiskError::Io {
            action: "create",
            path: dir.to_owned(),
            source,
        })?;
        let folders = keys.into_iter().filter(|keys| *keys != dir).chain([dir]);
        let paths: Vec<_> = folders.map(|dir| dir.join(FILE)).collect();
        let mut data = AgentData::default();
        for path in &paths {
            match fs::read(path) {
                Ok(bytes) => {
                    data = parse(path, &bytes)?;
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(DiskError::Io { action: "read", path: path.clone(), source }),
            }
        }
        Ok(Self { paths, data: Mutex::new(data) })
    }

    /// The state as last written.
    #[must_use]
    pub fn get(&self) -> AgentData {
        self.data.lock().clone()
    }

    /// Changes the state and writes it; unchanged state is not written. Blocks.
    ///
    /// # Errors
    /// [`DiskError`]; the state in memory then is as it was.
    pub fn update(&self, change: impl FnOnce(&mut AgentData)) -> Result<(), DiskError> {
        let mut held = self.data.lock();
        let mut data = held.clone();
        change(&mut data);
        if data == *held {
            return Ok(());
        }
        for path in &self.paths {
            write_private(path, render(&data).as_bytes())?;
        }
        *held = data;
        Ok(())
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<AgentData, DiskError> {
    let fail = |problem: String| DiskError::Unreadable { path: path.to_owned(), problem };
    let raw: Raw = serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
    let list = |items: Option<Vec<String>>| {
        let mut list = Vec::new();
        for item in items.unwrap_or_default() {
            let text = BASE64_STANDARD.decode(item).map_err(|e| fail(e.to_string()))?;
            list.extend(pem::certificates(&text).map_err(|e| fail(e.to_string()))?);
        }
        Ok(list)
    };
    Ok(AgentData { svid: list(raw.svid)?, bundle: list(raw.bundle)?, reattestable: raw.reattestable })
}

fn render(data: &AgentData) -> String {
    let list = |items: &[Vec<u8>]| {
        let one = |der: &Vec<u8>| BASE64_STANDARD.encode(pem::encode(pem::CERTIFICATE, der));
        (!items.is_empty()).then(|| items.iter().map(one).collect())
    };
    let raw = Raw {
        svid: list(&data.svid),
        bundle: list(&data.bundle),
        reattestable: data.reattestable,
        bootstrap_use: USED,
        bootstrap_start_time: no_time(),
        connection_attempts: 0,
    };
    serde_json::to_string(&raw).unwrap_or_default()
}

/// Replaces a file as a whole, mode 0600: written beside it, synced, renamed, directory synced.
///
/// # Errors
/// [`DiskError::Io`] with the step that failed; the old file then still stands.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), DiskError> {
    let at = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| DiskError::Io { action, path, source }
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".tmp");
    let beside = PathBuf::from(beside);
    // A leftover of a crash may have any mode.
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at("remove", &beside)(e)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .map_err(at("create", &beside))?;
    file.write_all(bytes).map_err(at("write", &beside))?;
    file.sync_all().map_err(at("sync", &beside))?;
    fs::rename(&beside, path).map_err(at("replace", path))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at("sync", dir))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn data() -> AgentData {
        AgentData { svid: vec![b"leaf".to_vec()], bundle: vec![b"root".to_vec()], reattestable: true }
    }

    #[test]
    fn the_file_has_the_form_of_spires_agent() {
        let dir = tempfile::tempdir().unwrap();
        StateFile::open(dir.path()).unwrap().update(|d| *d = data()).unwrap();
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        let item = |der: &[u8]| BASE64_STANDARD.encode(pem::encode("CERTIFICATE", der));
        let expected = format!(
            r#"{{"svid":["{}"],"bundle":["{}"],"reattestable":true,"bootstrap_use":2,"bootstrap_start_time":"0001-01-01T00:00:00Z","connection_attempts":0}}"#,
            item(b"leaf"),
            item(b"root"),
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn the_state_survives_a_restart_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        StateFile::open(dir.path()).unwrap().update(|d| *d = data()).unwrap();
        assert_eq!(StateFile::open(dir.path()).unwrap().get(), data());
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_missing_svid_is_null_and_the_bundle_stays() {
        let text = render(&AgentData { svid: vec![], ..data() });
        assert!(text.starts_with(r#"{"svid":null,"bundle":["#), "{text}");
    }

    #[test]
    fn unknown_members_are_ignored_and_missing_ones_are_zero() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), r#"{"novel":[1],"reattestable":true}"#).unwrap();
        let state = StateFile::open(dir.path()).unwrap().get();
        assert_eq!(state, AgentData { reattestable: true, ..AgentData::default() });
    }

    #[test]
    fn an_unreadable_file_is_an_error_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["", "{", r#"{"svid":["!"]}"#] {
            fs::write(dir.path().join(FILE), bad).unwrap();
            assert!(matches!(StateFile::open(dir.path()), Err(DiskError::Unreadable { .. })), "{bad}");
        }
    }

    #[test]
    fn a_file_torn_at_any_byte_is_refused_with_its_name_and_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let whole = render(&data());
        for end in 0..whole.len() {
            fs::write(&path, &whole.as_bytes()[..end]).unwrap();
            let error = StateFile::open(dir.path()).expect_err("half a state").to_string();
            assert!(error.contains("agent-data.json") && error.contains("move the file away"), "{error}");
            assert_eq!(fs::read(&path).unwrap().len(), end, "it stays as it was found");
        }
        fs::write(&path, whole).unwrap();
        assert_eq!(StateFile::open(dir.path()).unwrap().get(), data());
    }

    #[test]
    fn a_write_cut_off_at_any_byte_leaves_the_state_of_before() {
        let dir = tempfile::tempdir().unwrap();
        StateFile::open(dir.path()).unwrap().update(|d| *d = data()).unwrap();
        let next = render(&AgentData { svid: vec![b"next".to_vec()], ..data() });
        for end in 0..=next.len() {
            // What a crash before the rename leaves behind.
            fs::write(dir.path().join("agent-data.json.tmp"), &next.as_bytes()[..end]).unwrap();
            assert_eq!(StateFile::open(dir.path()).unwrap().get(), data());
        }
    }

    #[test]
    fn a_state_that_can_not_be_written_leaves_file_and_memory_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFile::open(dir.path()).unwrap();
        state.update(|d| *d = data()).unwrap();
        // A directory in the way of the new file: even root can't write over it.
        fs::create_dir(dir.path().join("agent-data.json.tmp")).unwrap();
        let error = state.update(|d| d.svid.clear()).unwrap_err().to_string();
        assert!(error.contains("agent-data.json.tmp"), "{error}");
        assert_eq!(state.get(), data());
        assert_eq!(StateFile::open(dir.path()).unwrap().get(), data());
    }

    #[test]
    fn the_state_beside_the_keys_goes_before_the_copy_and_both_are_written() {
        let (keys, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = || StateFile::open_with_keys(Some(keys.path()), dir.path()).unwrap();
        StateFile::open(dir.path()).unwrap().update(|d| *d = data()).unwrap();
        assert_eq!(open().get(), data(), "the copy serves while there is nothing beside the keys");
        open().update(|d| d.svid = vec![b"next".to_vec()]).unwrap();
        let next = AgentData { svid: vec![b"next".to_vec()], ..data() };
        assert_eq!(StateFile::open(dir.path()).unwrap().get(), next);
        StateFile::open(dir.path()).unwrap().update(|d| d.svid.clear()).unwrap();
        assert_eq!(open().get(), next);
    }

    #[test]
    fn a_leftover_of_a_crash_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("agent-data.json.tmp"), "half").unwrap();
        StateFile::open(dir.path()).unwrap().update(|d| *d = data()).unwrap();
        assert!(!dir.path().join("agent-data.json.tmp").exists());
    }
}
