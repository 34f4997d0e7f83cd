//! The rules in force as agents are shown them: signed, with their folder at hand.
//!
//! Never shows rules before they are on disk, signs after the fact, and holds one folder in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use avouch_credential::rules::SignedRules;
use avouch_credential::signer::Signer;
use avouch_domain::{Epoch, KeyType, PublishedRules, RulesFolder, TrustDomain};
use avouch_rules::{Folder, Hook};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::timed;
use crate::datastore::Datastore;
use crate::keys::KeyManager;
use crate::limits::RULES_AGAIN;
use crate::writer::Writer;

/// The name of the key.
const KEY_ID: &str = "rules";

/// Which rules are in force, in one life of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    pub epoch: Epoch,
    /// `None`: none are published.
    pub rules: Option<Shown>,
}

/// What agents are shown of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub signed: SignedRules,
    pub folder: RulesFolder,
    /// The gates that are workloads of their own by these rules, by name.
    pub hooks: BTreeMap<String, Hook>,
    /// The actions of each resource.
    pub actions: BTreeMap<String, BTreeSet<String>>,
}

impl InForce {
    /// 0: none are published.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.rules.as_ref().map_or(0, |shown| shown.signed.number)
    }
}

/// Tells which rules are in force; `None` until that is known.
pub type Receiver = watch::Receiver<Option<Arc<InForce>>>;

/// What signing works with.
pub(crate) struct Parts {
    pub store: Datastore,
    pub writer: Writer,
    pub keys: Arc<dyn KeyManager>,
    pub trust_domain: TrustDomain,
    pub clock: crate::clock::Clock,
}

/// Starts the task, which works until `stop`.
pub(crate) fn start(parts: Parts, stop: CancellationToken) -> Receiver {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(run(parts, sender, stop));
    receiver
}

async fn run(parts: Parts, shown: watch::Sender<Option<Arc<InForce>>>, stop: CancellationToken) {
    let mut positions = parts.writer.subscribe();
    loop {
        positions.mark_unchanged();
        let failed = parts.show(&shown).await.is_err();
        tokio::select! {
            () = stop.cancelled() => return,
            changed = positions.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RULES_AGAIN), if failed => {}
        }
    }
}

impl Parts {
    /// Shows what is in force by the registry of now, if that is not shown already. Errors are logged here.
    async fn show(&self, shown: &watch::Sender<Option<Arc<InForce>>>) -> Result<(), ()> {
        let registry = self.writer.registry();
        let epoch = registry.position().epoch;
        let wanted = registry.rules_in_force();
        let number = wanted.map_or(0, |rules| rules.number);
        let same = |now: &Option<Arc<InForce>>| {
            now.as_ref().is_some_and(|now| now.epoch == epoch && now.number() == number)
        };
        if same(&shown.borrow()) {
            return Ok(());
        }
        let rules = match wanted {
            None => None,
            Some(rules) => {
                let (made, elapsed) = timed(self.clock, self.sign(epoch, rules)).await;
                self.store.metrics().rules_signed(made.is_ok(), elapsed);
                Some(made.map_err(
                    |e| tracing::error!(error = %e, number, "Could not sign the rules in force; will try again"),
                )?)
            }
        };
        self.store.metrics().rules_in_force(number);
        shown.send_replace(Some(Arc::new(InForce { epoch, rules })));
        Ok(())
    }

    async fn sign(&self, epoch: Epoch, rules: &PublishedRules) -> Result<Shown, String> {
        let folder = self.store.rules_folder(rules.digest).await.map_err(|e| e.to_string())?;
        let folder = folder.ok_or_else(|| format!("the folder {} is not in the store", rules.digest))?;
        let (keys, domain) = (self.keys.clone(), self.trust_domain.clone());
        let (number, digest) = (rules.number, rules.digest);
        let valid_from = rules.valid_from.unwrap_or(rules.published_at);
        // The key may lie elsewhere and take its time.
        let signed = tokio::task::spawn_blocking(move || {
            let key = key(&*keys)?;
            SignedRules::sign(&domain, epoch, number, digest, valid_from, &*key).map_err(|e| e.to_string())
        });
        let signed = signed.await.map_err(|e| e.to_string())??;
        // What was published passed the check.
        let read = Folder::new(folder.files.iter().cloned());
        let read = read.map(|f| (avouch_rules::hooks(&f, &self.trust_domain), avouch_rules::actions(&f)));
        let (hooks, actions) = read.unwrap_or_default();
        Ok(Shown { signed, folder, hooks, actions })
    }
}

fn key(keys: &dyn KeyManager) -> Result<Arc<dyn Signer>, String> {
    match keys.get(KEY_ID) {
        Some(key) => Ok(key),
        None => keys.generate(KEY_ID, KeyType::EcP256).map_err(|e| e.to_string()),
    }
}
