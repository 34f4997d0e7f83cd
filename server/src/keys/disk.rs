//! Keys in one file, in the form of SPIRE's `keys.json`.
//!
//! Never leaves a half-written file: each change goes to a file beside it, is flushed, and takes its place.
//! Never readable by others (mode 0600), never written without the keys it held before, and never used by two
//! servers: a lock file lies beside it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use avouch_credential::key::PrivateKey;
use avouch_credential::signer::Signer;
use avouch_domain::KeyType;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use zeroize::{Zeroize, Zeroizing};

pub use super::KeyError as DiskKeysError;
use super::KeyError;
use super::KeyManager;
use avouch::lock::{LockError, LockFile};

type Keys = BTreeMap<String, Arc<PrivateKey>>;

/// See the module.
#[derive(Debug)]
pub struct DiskKeys {
    path: PathBuf,
    keys: Mutex<Keys>,
    _lock: Option<LockFile>,
}

#[derive(serde::Deserialize)]
struct Document {
    /// Absent or null = none. No serde default: with one, `[]` would pass for a document.
    keys: Option<BTreeMap<String, String>>,
}

impl DiskKeys {
    /// Locks and reads the file; a missing one holds no keys.
    ///
    /// # Errors
    /// [`KeyError`] if another server has it, or it can't be read or holds something else.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        let lock = LockFile::take(&lock).map_err(|error| match error {
            LockError::Io(source) => KeyError::Io { path: lock, source },
            LockError::Held(pid) => KeyError::InUse { path: path.to_owned(), pid },
        })?;
        Self::read(path, Some(lock))
    }

    /// The keys beside whoever holds the lock, as a test looks at them.
    #[cfg(test)]
    pub(crate) fn beside(path: &Path) -> Self {
        Self::read(path, None).unwrap()
    }

    fn read(path: &Path, lock: Option<LockFile>) -> Result<Self, KeyError> {
        let keys = match std::fs::read(path) {
            Ok(bytes) => {
                warn_if_open(path);
                parse(path, &Zeroizing::new(bytes))?
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Keys::new(),
            Err(source) => return Err(KeyError::Io { path: path.to_owned(), source }),
        };
        Ok(Self { path: path.to_owned(), keys: Mutex::new(keys), _lock: lock })
    }

    fn save(&self, keys: &Keys) -> Result<(), KeyError> {
        let io = |source| KeyError::Io { path: self.path.clone(), source };
        let beside = self.path.with_extension("json.new");
        let text = render(keys);
        // A left-over of a crash may have any mode: it is made anew.
        match std::fs::remove_file(&beside) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(io)?;
        file.write_all(text.as_bytes()).map_err(io)?;
        file.sync_all().map_err(io)?;
        std::fs::rename(&beside, &self.path).map_err(io)?;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder).and_then(|f| f.sync_all()).map_err(io)
    }
}

/// Somebody else's tool or hand may have left the file open to others; the next write makes it private.
fn warn_if_open(path: &Path) {
    let mode = std::fs::metadata(path).map_or(0, |facts| facts.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            mode = format!("{mode:o}"),
            "Signing keys can be read by others: expected mode 600; run chmod 600 on the file"
        );
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Keys, KeyError> {
    let bad = |problem: String| KeyError::Format { path: path.to_owned(), problem };
    let document: Document = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
    let mut keys = Keys::new();
    for (id, mut text) in document.keys.unwrap_or_default() {
        let der = STANDARD.decode(&text).map(Zeroizing::new);
        text.zeroize();
        let der = der.map_err(|e| bad(format!("key {id}: {e}")))?;
        let key = PrivateKey::from_pkcs8(&der).map_err(|e| bad(format!("key {id}: {e}")))?;
        keys.insert(id, Arc::new(key));
    }
    Ok(keys)
}

/// Tabs, sorted names, no final newline: byte for byte what SPIRE writes. Names are ours and need no escaping.
fn render(keys: &Keys) -> Zeroizing<String> {
    // Room for all, so that growing leaves no copy of a key behind.
    let mut text = Zeroizing::new(String::with_capacity(64 + keys.len() * 4096));
    text.push_str("{\n\t\"keys\": {");
    for (i, (id, key)) in keys.iter().enumerate() {
        text.push_str(if i == 0 { "\n\t\t\"" } else { ",\n\t\t\"" });
        text.push_str(id);
        text.push_str("\": \"");
        STANDARD.encode_string(key.pkcs8().as_slice(), &mut text);
        text.push('"');
    }
    text.push_str(if keys.is_empty() { "}\n}" } else { "\n\t}\n}" });
    text
}

impl KeyManager for DiskKeys {
    fn generate(&self, id: &str, key_type: KeyType) -> Result<Arc<dyn Signer>, KeyError> {
        let key = Arc::new(PrivateKey::generate(key_type).map_err(|e| KeyError::Key(e.to_string()))?);
        let mut keys = self.keys.lock();
        let mut next = keys.clone();
        next.insert(id.to_owned(), key.clone());
        self.save(&next)?;
        *keys = next;
        Ok(key)
    }

    fn get(&self, id: &str) -> Option<Arc<dyn Signer>> {
        self.keys.lock().get(id).map(|k| k.clone() as Arc<dyn Signer>)
    }

    fn remove(&self, id: &str) -> Result<(), KeyError> {
        let mut keys = self.keys.lock();
        let mut next = keys.clone();
        if next.remove(id).is_some() {
            self.save(&next)?;
            *keys = next;
        }
        Ok(())
    }
}
