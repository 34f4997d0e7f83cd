//! A key manager whose work is counted.
//!
//! Never keeps a key itself.

use std::sync::Arc;

use avouch_credential::signer::Signer;
use avouch_domain::KeyType;

use super::{KeyError, KeyManager};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// See the module.
#[derive(Debug)]
pub struct CountedKeys {
    inner: Arc<dyn KeyManager>,
    metrics: Metrics,
    clock: Clock,
}

impl CountedKeys {
    /// Counts what `inner` does.
    #[must_use]
    pub fn new(inner: Arc<dyn KeyManager>, metrics: Metrics, clock: Clock) -> Self {
        Self { inner, metrics, clock }
    }
}

impl KeyManager for CountedKeys {
    fn generate(&self, id: &str, key_type: KeyType) -> Result<Arc<dyn Signer>, KeyError> {
        let begun = (self.clock)().mono;
        let made = self.inner.generate(id, key_type);
        self.metrics.key_generated(made.is_ok(), (self.clock)().mono.since(begun));
        made
    }

    fn get(&self, id: &str) -> Option<Arc<dyn Signer>> {
        let begun = (self.clock)().mono;
        let found = self.inner.get(id);
        self.metrics.key_fetched(found.is_some(), (self.clock)().mono.since(begun));
        found
    }

    fn remove(&self, id: &str) -> Result<(), KeyError> {
        self.inner.remove(id)
    }
}
