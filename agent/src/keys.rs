//! Keys of the agent: its own, kept over restarts if so configured, and those of workloads, made for one SVID each.
//!
//! Never overwrites the key in use: a new one goes to the other slot, and the loader finds the right one by the
//! certificate's public key. Workload keys never touch the disk but sealed ([`crate::sealed`]).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use avouch_credential::key::{KeyError, PrivateKey};
use avouch_credential::signer::SignError;
use avouch_credential::x509::csr::{self, CsrTemplate};
use avouch_credential::x509::name::Name;
use avouch_domain::{KeyType, SpiffeId};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use parking_lot::Mutex;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use zeroize::{Zeroize as _, Zeroizing};

use crate::disk::{DiskError, write_private};

const FILE: &str = "keys.json";
/// The two slots of the agent's own key.
const SLOTS: [&str; 2] = ["agent-svid-A", "agent-svid-B"];

/// Why a key can't be made, kept or found.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(transparent)]
    Disk(#[from] DiskError),
    #[error("unable to read {path}: {problem}; move the file away to attest anew")]
    Unreadable { path: PathBuf, problem: String },
    #[error("unable to make a key: {0}")]
    Key(#[from] KeyError),
    #[error("unable to sign with a new key: {0}")]
    Sign(#[from] SignError),
}

/// The agent's own keys by slot, in memory or in `keys.json`.
#[derive(Debug)]
pub struct OwnKeys {
    path: Option<PathBuf>,
    keys: Mutex<BTreeMap<String, Arc<PrivateKey>>>,
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    keys: BTreeMap<String, String>,
}

/// Writes keys without a copy in ordinary strings that would stay in memory.
struct Keys<'a>(&'a BTreeMap<String, Arc<PrivateKey>>);

impl Serialize for Keys<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (id, key) in self.0 {
            map.serialize_entry(id, &*Zeroizing::new(BASE64_STANDARD.encode(&*key.pkcs8())))?;
        }
        map.end()
    }
}

impl OwnKeys {
    /// Keys that end with the process: after a restart the node must be attested anew.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { path: None, keys: Mutex::default() }
    }

    /// Keys in `dir`, which is made (0700) if need be.
    ///
    /// # Errors
    /// [`KeysError`] if the directory or the file can't be used.
    pub fn on_disk(dir: &Path) -> Result<Self, KeysError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| DiskError::Io { action: "create", path: dir.to_owned(), source })?;
        let path = dir.join(FILE);
        let keys = match fs::read(&path).map(Zeroizing::new) {
            Ok(bytes) => parse(&path, &bytes)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(DiskError::Io { action: "read", path, source }.into()),
        };
        Ok(Self { path: Some(path), keys: Mutex::new(keys) })
    }

    /// Whether keys outlive the process.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        self.path.is_some()
    }

    /// The key whose public half is `pkix`, in whatever slot.
    #[must_use]
    pub fn find(&self, pkix: &[u8]) -> Option<Arc<PrivateKey>> {
        self.keys.lock().values().find(|key| key.public_key().pkix() == pkix).cloned()
    }

    /// Makes a P-256 key in the slot that does not hold `current`, and keeps it before it is used. Blocks.
    ///
    /// # Errors
    /// [`KeysError`]; the keys then are as they were.
    pub fn make(&self, current: Option<&[u8]>) -> Result<Arc<PrivateKey>, KeysError> {
        let mut held = self.keys.lock();
        let taken = |slot: &str| held.get(slot).is_some_and(|k| Some(k.public_key().pkix()) == current);
        let slot = SLOTS.into_iter().find(|slot| !taken(slot)).unwrap_or(SLOTS[0]);
        let key = Arc::new(PrivateKey::generate(KeyType::EcP256)?);
        let mut keys = held.clone();
        keys.insert(slot.to_owned(), key.clone());
        if let Some(path) = &self.path {
            write_private(path, &render(&keys))?;
        }
        *held = keys;
        Ok(key)
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, Arc<PrivateKey>>, KeysError> {
    let fail = |problem: String| KeysError::Unreadable { path: path.to_owned(), problem };
    let file: File = serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
    let mut keys = BTreeMap::new();
    for (id, mut text) in file.keys {
        let der = BASE64_STANDARD.decode(&text).map(Zeroizing::new);
        text.zeroize();
        let der = der.map_err(|_| fail(format!("key {id} is no base64")))?;
        let key = PrivateKey::from_pkcs8(&der).map_err(|e| fail(format!("key {id}: {e}")))?;
        keys.insert(id, Arc::new(key));
    }
    Ok(keys)
}

fn render(keys: &BTreeMap<String, Arc<PrivateKey>>) -> Zeroizing<Vec<u8>> {
    #[derive(Serialize)]
    struct Out<'a> {
        keys: Keys<'a>,
    }
    let mut text = Zeroizing::new(Vec::with_capacity(4096));
    let form = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut writer = serde_json::Serializer::with_formatter(&mut *text, form);
    // Writing maps of strings into memory can't fail.
    let _ = Out { keys: Keys(keys) }.serialize(&mut writer);
    text
}

/// A request for a certificate and the key it is for.
#[derive(Debug)]
pub struct Request {
    pub key: PrivateKey,
    /// DER.
    pub csr: Vec<u8>,
}

/// Makes a key and asks for a certificate with a name in it. Takes about 0.1 ms with P-256: call it off the
/// reactor for more than a few.
///
/// # Errors
/// [`KeysError`] from the cryptography library.
pub fn workload_request(kind: KeyType, id: &SpiffeId) -> Result<Request, KeysError> {
    let key = PrivateKey::generate(kind)?;
    let subject = Name::svid_default();
    let csr = csr::build(&CsrTemplate { subject: &subject, id: Some(id), dns_names: &[] }, &key)?;
    Ok(Request { key, csr })
}

/// A request for the agent's own certificate: the server decides the name.
///
/// # Errors
/// [`KeysError`] from the cryptography library.
pub fn own_request(key: &PrivateKey) -> Result<Vec<u8>, KeysError> {
    let subject = Name::svid_default();
    Ok(csr::build(&CsrTemplate { subject: &subject, id: None, dns_names: &[] }, key)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_never_takes_the_slot_of_the_one_in_use() {
        let keys = OwnKeys::in_memory();
        let first = keys.make(None).unwrap();
        let second = keys.make(Some(first.public_key().pkix())).unwrap();
        let third = keys.make(Some(first.public_key().pkix())).unwrap();
        assert!(keys.find(first.public_key().pkix()).is_some());
        assert!(keys.find(second.public_key().pkix()).is_none(), "its renewal did not come to an end");
        assert!(keys.find(third.public_key().pkix()).is_some());
    }

    #[test]
    fn keys_on_disk_survive_a_restart_in_spires_form() {
        let dir = tempfile::tempdir().unwrap();
        let key = OwnKeys::on_disk(dir.path()).unwrap().make(None).unwrap();
        let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
        let value = BASE64_STANDARD.encode(&*key.pkcs8());
        assert_eq!(text, format!("{{\n\t\"keys\": {{\n\t\t\"agent-svid-A\": \"{value}\"\n\t}}\n}}"));
        assert!(OwnKeys::on_disk(dir.path()).unwrap().find(key.public_key().pkix()).is_some());
    }

    #[test]
    fn a_crash_between_the_new_key_and_its_certificate_leaves_the_old_key_loadable() {
        let dir = tempfile::tempdir().unwrap();
        let keys = OwnKeys::on_disk(dir.path()).unwrap();
        let old = keys.make(None).unwrap();
        let new = keys.make(Some(old.public_key().pkix())).unwrap();
        let again = OwnKeys::on_disk(dir.path()).unwrap();
        assert!(again.find(old.public_key().pkix()).is_some(), "the certificate on disk is still for this");
        assert!(again.find(new.public_key().pkix()).is_some());
    }

    #[test]
    fn a_key_file_torn_at_any_byte_is_refused_with_its_name_and_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        OwnKeys::on_disk(dir.path()).unwrap().make(None).unwrap();
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            let error = OwnKeys::on_disk(dir.path()).expect_err("half a file").to_string();
            assert!(error.contains("keys.json") && error.contains("move the file away"), "{error}");
        }
    }

    #[test]
    fn a_key_file_write_cut_off_at_any_byte_leaves_the_keys_of_before() {
        let dir = tempfile::tempdir().unwrap();
        let key = OwnKeys::on_disk(dir.path()).unwrap().make(None).unwrap();
        let whole = fs::read(dir.path().join(FILE)).unwrap();
        for end in 0..=whole.len() {
            fs::write(dir.path().join("keys.json.tmp"), &whole[..end]).unwrap();
            assert!(OwnKeys::on_disk(dir.path()).unwrap().find(key.public_key().pkix()).is_some());
        }
    }

    #[test]
    fn a_damaged_key_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        for bad in [r#"{"keys":{"agent-svid-A":"AAAA"}}"#, r#"{"keys":{"agent-svid-A":"!"}}"#, "null"] {
            fs::write(dir.path().join(FILE), bad).unwrap();
            assert!(matches!(OwnKeys::on_disk(dir.path()), Err(KeysError::Unreadable { .. })), "{bad}");
        }
    }
}
