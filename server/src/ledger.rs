//! Signs the end of the log, so that nobody can change what stands before it.
//!
//! Never holds a write up: heads are signed after the fact, one for everything that was written meanwhile.

use std::sync::Arc;

use avouch_credential::ledger::SignedHead;
use avouch_credential::signer::Signer;
use avouch_domain::{KeyType, LogPosition, TrustDomain};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, timed};
use crate::datastore::Datastore;
use crate::keys::KeyManager;
use crate::limits::HEAD_PAUSE;

/// The name of the key.
const KEY_ID: &str = "record-head";

/// What signing heads works with.
pub(crate) struct Parts {
    pub store: Datastore,
    pub keys: Arc<dyn KeyManager>,
    pub trust_domain: TrustDomain,
    pub positions: watch::Receiver<LogPosition>,
    pub clock: Clock,
}

/// Works until `stop`, and signs once more then.
pub(crate) async fn run(mut parts: Parts, stop: CancellationToken) {
    let mut signer = None;
    loop {
        // What is written in a row is signed together, and a start has other things to do.
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(HEAD_PAUSE) => {}
        }
        // Marked as seen before the log is read: what is written meanwhile wakes once more.
        parts.positions.mark_unchanged();
        let (signed, elapsed) = timed(parts.clock, parts.sign(&mut signer)).await;
        match signed {
            Ok(false) => {}
            Ok(true) => parts.store.metrics().head_signed(true, elapsed),
            Err(e) => {
                parts.store.metrics().head_signed(false, elapsed);
                tracing::warn!(error = %e, "Could not sign the head of the records");
            }
        }
        if stop.is_cancelled() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            changed = parts.positions.changed() => if changed.is_err() { return },
        }
    }
}

impl Parts {
    /// False if there was nothing to sign.
    async fn sign(&self, signer: &mut Option<Arc<dyn Signer>>) -> Result<bool, String> {
        let unsigned = self.store.unsigned().await.map_err(|e| e.to_string())?;
        let Some((seq, hash)) = unsigned else { return Ok(false) };
        let key = match signer {
            Some(key) => key.clone(),
            None => signer.insert(self.key().await?).clone(),
        };
        let (domain, at) = (self.trust_domain.clone(), (self.clock)().wall);
        // The key may lie elsewhere and take its time.
        let signed = tokio::task::spawn_blocking(move || SignedHead::sign(&domain, seq, hash, at, &*key));
        let head = signed.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        self.store.keep_head(head).await.map_err(|e| e.to_string())?;
        Ok(true)
    }

    async fn key(&self) -> Result<Arc<dyn Signer>, String> {
        key(self.keys.clone()).await
    }
}

/// The key that signs heads, and receipts of nodes' heads; made at its first use.
///
/// # Errors
/// What the key manager says.
pub(crate) async fn key(keys: Arc<dyn KeyManager>) -> Result<Arc<dyn Signer>, String> {
    // Two that ask at once must not make two.
    static MAKING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
    let _alone = MAKING.lock().await;
    let found = tokio::task::spawn_blocking(move || match keys.get(KEY_ID) {
        Some(key) => Ok(key),
        None => keys.generate(KEY_ID, KeyType::EcP256),
    });
    found.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
}
