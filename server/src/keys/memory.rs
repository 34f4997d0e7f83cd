//! Keys that live as long as the process. After a restart new authorities are made.
//!
//! Never touches a disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use avouch_credential::key::PrivateKey;
use avouch_credential::signer::Signer;
use avouch_domain::KeyType;
use parking_lot::Mutex;

use super::{KeyError, KeyManager};

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryKeys {
    keys: Mutex<BTreeMap<String, Arc<PrivateKey>>>,
}

impl MemoryKeys {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl KeyManager for MemoryKeys {
    fn generate(&self, id: &str, key_type: KeyType) -> Result<Arc<dyn Signer>, KeyError> {
        let key = Arc::new(PrivateKey::generate(key_type).map_err(|e| KeyError::Key(e.to_string()))?);
        self.keys.lock().insert(id.to_owned(), key.clone());
        Ok(key)
    }

    fn get(&self, id: &str) -> Option<Arc<dyn Signer>> {
        self.keys.lock().get(id).map(|k| k.clone() as Arc<dyn Signer>)
    }

    fn remove(&self, id: &str) -> Result<(), KeyError> {
        self.keys.lock().remove(id);
        Ok(())
    }
}
