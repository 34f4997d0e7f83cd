//! The task that follows announcements. What it does about one is decided in `judge`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use avouch_credential::rules::SignedRules;
use avouch_domain::{Now, TrustDomain};
use avouch_engine::backoff::{Backoff, Jitter, Policy};
use tokio_util::sync::CancellationToken;

use super::judge::{Standing, Unusable, Verdict, fits, judge, verified};
use super::{Book, Held, Parts, kept};
use crate::limits::{RULES_SPREAD_EACH, RULES_SPREAD_MAX};
use crate::metrics::Metrics;
use crate::sys;
use crate::upstream::{Announced, AnnouncedRules, CallError, FetchedRules, RulesSource};

/// Pauses between attempts to fetch rules that were announced.
const AGAIN: Policy =
    Policy { first: Duration::from_millis(500), most: Duration::from_secs(30), growth_percent: 200 };

type Files = Vec<(String, String)>;

pub(super) struct Task {
    source: Arc<dyn RulesSource>,
    trust_domain: TrustDomain,
    path: PathBuf,
    metrics: Metrics,
    clock: fn() -> Now,
    jitter: Jitter,
    again: Backoff,
    book: Book,
    held: Option<Standing>,
}

impl Task {
    pub fn new(parts: Parts<'_>, book: Book) -> Self {
        let Parts { source, trust_domain, data_dir, metrics, clock, seed } = parts;
        let path = data_dir.join(kept::FILE);
        let (jitter, again) = (Jitter::new(seed), Backoff::new(AGAIN));
        Self { source, trust_domain, path, metrics, clock, jitter, again, book, held: None }
    }

    pub async fn run(mut self, stop: CancellationToken) {
        let mut announced = self.source.announced();
        announced.mark_changed();
        self.metrics.rules_held(0);
        tokio::select! {
            () = stop.cancelled() => return,
            () = self.take_up() => {}
        }
        let mut retry: Option<Duration> = None;
        loop {
            let rest = async {
                match retry {
                    Some(pause) => tokio::time::sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                changed = announced.changed() => if changed.is_err() { return },
                () = rest => {}
            }
            let Some(now) = announced.borrow_and_update().clone() else { continue };
            retry = tokio::select! {
                () = stop.cancelled() => return,
                retry = self.follow(&now) => retry,
            };
        }
    }

    /// What an earlier life left, if it holds.
    pub async fn take_up(&mut self) {
        let (path, domain) = (self.path.clone(), self.trust_domain.clone());
        let work = move || {
            let Some((signed, files)) = kept::load(&path).map_err(|e| e.to_string())? else {
                return Ok(None);
            };
            let held = ready(&domain, &signed, &files).map_err(|e| e.to_string())?;
            Ok::<_, String>(Some((signed, held)))
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(Some((signed, held)))) => self.hold(&signed, held, "Took up the rules of an earlier life"),
            Ok(Ok(None)) | Err(_) => {}
            Ok(Err(error)) => {
                tracing::warn!(
                    error,
                    subsystem_name = "rules",
                    "Kept rules ignored; the agent waits for its server"
                );
            }
        }
    }

    /// Does what follows from an announcement; gives the pause before the next attempt if there is to be one.
    pub async fn follow(&mut self, announced: &Announced) -> Option<Duration> {
        match (judge(self.held.as_ref(), announced), &announced.rules) {
            (Verdict::Keep, _) | (Verdict::Fetch, None) => {}
            (Verdict::Fetch, Some(rules)) => {
                self.tell_of_key(announced, rules);
                return self.fetch(announced, rules).await;
            }
            (Verdict::Forget, _) => self.forget().await,
            (Verdict::Refuse(refusal), _) => {
                tracing::error!(reason = %refusal, subsystem_name = "rules", "Announced rules refused");
            }
        }
        self.again.succeeded();
        None
    }

    /// Within one life of the store a key changes when a server keeps its keys in memory, or when another server speaks.
    fn tell_of_key(&self, announced: &Announced, rules: &AnnouncedRules) {
        if self.held.as_ref().is_some_and(|held| held.epoch == announced.epoch && held.key != rules.key) {
            tracing::warn!(
                number = rules.number,
                subsystem_name = "rules",
                "The server signs rules with another key than before"
            );
        }
    }

    async fn fetch(&mut self, announced: &Announced, rules: &AnnouncedRules) -> Option<Duration> {
        let fleet = announced.fleet.map_or(1, std::num::NonZeroU32::get);
        let spread = RULES_SPREAD_EACH.saturating_mul(fleet).min(RULES_SPREAD_MAX);
        tokio::time::sleep(self.jitter.within(spread)).await;
        let begun = (self.clock)().mono;
        let got = self.get(announced, rules).await;
        self.metrics.rules_fetched(got.is_ok(), (self.clock)().mono.since(begun));
        match got {
            Ok((signed, held, files)) => {
                self.hold(&signed, held, "Rules taken up");
                self.keep(signed, files).await;
                self.again.succeeded();
                None
            }
            Err(Failure::Call(error)) => {
                tracing::warn!(%error, number = rules.number, subsystem_name = "rules", "Failed to fetch rules; will try again");
                Some(self.again.failed(&mut self.jitter))
            }
            // The same bytes would fail again: the next announcement is waited for.
            Err(Failure::Unusable(error)) => {
                let held = self.held.as_ref().map_or(0, |held| held.number);
                tracing::error!(%error, number = rules.number, held, subsystem_name = "rules", "Announced rules not taken up");
                None
            }
        }
    }

    async fn get(
        &self,
        announced: &Announced,
        rules: &AnnouncedRules,
    ) -> Result<(SignedRules, Held, Files), Failure> {
        let FetchedRules { signed, files } = self.source.fetch_rules().await.map_err(Failure::Call)?;
        fits(announced, rules, &signed).map_err(Failure::Unusable)?;
        let domain = self.trust_domain.clone();
        // Up to a second of a core, which the node's callers must not wait for.
        let work = move || ready(&domain, &signed, &files).map(|held| (signed, held, files));
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(Unusable::Ended)).map_err(Failure::Unusable)
    }

    fn hold(&mut self, signed: &SignedRules, held: Held, message: &str) {
        let (number, digest) = (held.number, held.digest);
        self.book.swap(Some(Arc::new(held)));
        self.held = Some(signed.into());
        self.metrics.rules_held(number);
        tracing::info!(number, %digest, subsystem_name = "rules", "{message}");
    }

    async fn keep(&self, signed: SignedRules, files: Files) {
        let path = self.path.clone();
        let kept = tokio::task::spawn_blocking(move || {
            let kept = kept::store(&path, &signed, files);
            sys::give_back_memory();
            kept
        });
        if let Ok(Err(error)) = kept.await {
            tracing::error!(%error, subsystem_name = "rules", "Failed to keep the rules for a start without the server");
        }
    }

    async fn forget(&mut self) {
        self.book.swap(None);
        self.held = None;
        self.metrics.rules_held(0);
        tracing::warn!(
            subsystem_name = "rules",
            "The server's store was restored to a time without rules: none are held"
        );
        let path = self.path.clone();
        let _ = tokio::task::spawn_blocking(move || kept::remove(&path)).await;
    }
}

/// Why rules that were announced are not held.
enum Failure {
    Call(CallError),
    Unusable(Unusable),
}

/// Rules that passed everything. Blocks for up to a second.
fn ready(domain: &TrustDomain, signed: &SignedRules, files: &[(String, String)]) -> Result<Held, Unusable> {
    let folder = verified(domain, signed, files)?;
    let rules = avouch_rules::check(&folder).map_err(|findings| Unusable::found(&findings))?;
    Ok(Held { number: signed.number, digest: signed.digest, rules })
}
