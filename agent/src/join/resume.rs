//! What one life of the agent takes up of the one before: its SVID, and what was sealed for it.
//!
//! Never asks the server for anything, and never serves past the end of the agent's own SVID, whatever the wall clock
//! says; whether that SVID is still good for the server is the server's to say.

use avouch_credential::x509::facts::CertFacts;
use avouch_domain::Timestamp;

use super::{Current, Join, JoinError, bundle_of};
use crate::clock;
use crate::sealed::{Kept, Owner};
use crate::shell::{OwnSvid, Shell};

/// What was sealed, and what time it is at least by what it knew.
type Sealed = (Kept, Timestamp);

impl Join {
    /// Takes up what an earlier life left, its SVID and the sealed state: with both the shell serves at once. Asks
    /// nothing of the server.
    ///
    /// # Errors
    /// [`JoinError`] that ends the agent.
    pub async fn take_up(&mut self, shell: &Shell) -> Result<(), JoinError> {
        if let Some((current, kept)) = self.resume().await? {
            self.resumed = Some(current);
            if let Some((kept, least)) = kept {
                shell.restore(kept, least).await;
            }
        }
        Ok(())
    }

    /// The SVID of an earlier life, if it is still good and its key is here, and what was sealed for it.
    pub(super) async fn resume(&mut self) -> Result<Option<(Current, Option<Sealed>)>, JoinError> {
        let data = self.parts.state.get();
        if !data.bundle.is_empty() {
            self.parts.roots.set(&bundle_of(&self.parts.trust_domain, &data.bundle));
            self.met = true;
        }
        let Some(leaf) = data.svid.first() else { return Ok(None) };
        let Ok(facts) = CertFacts::parse(leaf) else { return Ok(None) };
        let begun = (self.parts.clock)().mono;
        let key = self.parts.keys.find(&facts.public_key_pkix);
        self.parts.metrics.key_fetched(key.is_some(), (self.parts.clock)().mono.since(begun));
        let Some(key) = key else {
            tracing::warn!(subsystem_name = "attestor", "Key of the agent SVID not found; attesting anew");
            return Ok(None);
        };
        if facts.not_after <= (self.parts.clock)().wall {
            tracing::warn!(subsystem_name = "attestor", "Agent SVID has expired; attesting anew");
            let chain = data.svid.iter().map(|der| der.as_slice().into()).collect();
            self.parts.own.send_replace(Some(OwnSvid { chain, not_after: facts.not_after }));
            return Ok(None);
        }
        if data.bundle.is_empty() {
            return Err(JoinError::NoBundle);
        }
        match self.use_svid(&key, &data.svid, data.reattestable) {
            Ok(current) => {
                self.parts.metrics.bootstrapped(true);
                tracing::info!(
                    spiffe_id = %current.id,
                    subsystem_name = "attestor",
                    "Took up the agent SVID of an earlier life"
                );
                Ok(Some((current, self.kept(&facts).await)))
            }
            Err(attempt) => {
                tracing::warn!(error = %attempt, subsystem_name = "attestor", "Agent SVID not usable; attesting anew");
                Ok(None)
            }
        }
    }

    /// What was sealed for the agent with this SVID, and what time it is at least by what it knew.
    async fn kept(&self, svid: &CertFacts) -> Option<Sealed> {
        let owner = Owner::new(svid.spiffe_id().ok()?, svid);
        let vault = self.parts.vault.clone();
        let kept = tokio::task::spawn_blocking(move || vault.load(&owner)).await.ok()??;
        let least = kept.latest.carried((self.parts.clock)(), clock::boot_id());
        if svid.not_after <= least {
            let reason = "by the latest moment known the agent's own SVID has ended: the clock was set back";
            tracing::warn!(
                reason,
                subsystem_name = "sealed",
                "Sealed state ignored; the agent waits for its server"
            );
            return None;
        }
        Some((kept, least))
    }

    /// What was sealed is of another life of this agent from now on.
    pub(super) async fn erase(&self) {
        let vault = self.parts.vault.clone();
        let _ = tokio::task::spawn_blocking(move || vault.erase()).await;
    }
}
