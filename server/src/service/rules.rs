//! Verbs on published rules.
//!
//! Never keeps a folder that the check finds something in, and never decides who the caller is.

use std::sync::Arc;

use avouch_domain::{Now, PersonId, PublishedRules, RulesFolder};
use avouch_engine::plan::rules::{self, RulesError};
use avouch_rules::{Finding, Folder};
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::{Services, WriteError};
use crate::limits::RULES_TURN_MAX;
use crate::rules::{InForce, Receiver};

/// What comes of a folder that somebody wants to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publication {
    Published(PublishedRules),
    /// Nothing was published.
    Found(Vec<Finding>),
}

type Outcome = Result<Result<PublishedRules, RulesError>, WriteError>;

impl Services {
    /// Checks a folder and publishes it.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was published. `Busy` also while another folder is being checked.
    pub async fn publish_rules(
        &self,
        now: Now,
        actor: &PersonId,
        files: Vec<(String, String)>,
        note: Arc<str>,
    ) -> Result<Result<Publication, RulesError>, WriteError> {
        // Before the work, and again when it is written.
        if let Err(refused) = rules::may_publish(&self.registry(), actor) {
            return Ok(Err(refused));
        }
        // A check takes up to a second of one core: one at a time.
        let _turn = self.0.rules_check.try_acquire().map_err(|_| WriteError::Busy)?;
        let checked = tokio::task::spawn_blocking(move || checked(files));
        let folder = match checked.await.map_err(|_| WriteError::Stopped)? {
            Ok(folder) => folder,
            Err(findings) => return Ok(Ok(Publication::Found(findings))),
        };
        let actor = actor.clone();
        let write = move |registry: &_| rules::publish(registry, now.wall, &actor, &folder, &note);
        Ok(self.0.writer.write(write).await?.map(Publication::Published))
    }

    /// Says yes to rules that wait for it.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was said.
    pub async fn approve_rules(&self, now: Now, actor: &PersonId, number: u64) -> Outcome {
        let actor = actor.clone();
        self.0.writer.write(move |registry| rules::approve(registry, now.wall, &actor, number)).await
    }

    /// Takes rules back that wait for a yes, or publishes again what was in force before.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was withdrawn.
    pub async fn withdraw_rules(&self, now: Now, actor: &PersonId, number: u64) -> Outcome {
        let before = rules::before(&self.registry(), number).map(|before| (before.number, before.digest));
        if let Some((before, digest)) = before
            && self.rules_folder(digest).await?.is_none()
        {
            return Ok(Err(RulesError::NotKept(before)));
        }
        let actor = actor.clone();
        self.0.writer.write(move |registry| rules::withdraw(registry, now.wall, &actor, number)).await
    }

    /// Published rules below a number, descending, and the number of those in force.
    #[must_use]
    pub fn list_rules(&self, before: u64, limit: usize) -> (Vec<PublishedRules>, Option<u64>) {
        let registry = self.registry();
        let below = registry.all_rules().rev().filter(|rules| before == 0 || rules.number < before);
        (below.take(limit).cloned().collect(), registry.rules_in_force().map(|rules| rules.number))
    }

    /// Published rules by number, 0: those in force.
    ///
    /// # Errors
    /// [`RulesError::Unknown`].
    pub fn find_rules(&self, number: u64) -> Result<PublishedRules, RulesError> {
        let registry = self.registry();
        let found = if number == 0 { registry.rules_in_force() } else { registry.rules(number) };
        found.cloned().ok_or(RulesError::Unknown(number))
    }

    /// The folder of published rules, if it is kept.
    ///
    /// # Errors
    /// [`WriteError::Store`] if the store can't be read.
    pub async fn rules_folder(
        &self,
        digest: avouch_domain::RulesDigest,
    ) -> Result<Option<RulesFolder>, WriteError> {
        self.0.store.rules_folder(digest).await.map_err(|e| WriteError::Store(e.to_string()))
    }

    /// The rules in force as agents are shown them; `None` until they are signed.
    #[must_use]
    pub fn shown_rules(&self) -> Option<Arc<InForce>> {
        self.0.rules.borrow().clone()
    }

    /// Waits for a turn to hand rules out, at most [`RULES_TURN_MAX`]: few go at once, and none while a stop is on its way.
    pub async fn rules_turn(&self) -> Option<SemaphorePermit<'_>> {
        let turn = async {
            let turn = self.0.rules_turns.acquire().await.ok();
            self.0.feed.unwaited().await;
            turn
        };
        timeout(RULES_TURN_MAX, turn).await.ok().flatten()
    }

    /// Tells when other rules come into force.
    #[must_use]
    pub fn follow_rules(&self) -> Receiver {
        self.0.rules.clone()
    }
}

/// Blocks for up to a second.
fn checked(files: Vec<(String, String)>) -> Result<RulesFolder, Vec<Finding>> {
    let folder = Folder::new(files)?;
    avouch_rules::check(&folder)?;
    let files = folder.files().map(|(name, text)| (name.to_owned(), text.to_owned())).collect();
    Ok(RulesFolder { digest: folder.rules_digest(), files })
}
