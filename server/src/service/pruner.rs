//! Frees rows whose time is over: entries at the second they end, join tokens and nodes some time after. Pauses
//! identities at their end, and keeps how far the nodes confirmed that.
//!
//! Never is what makes them end: that is judged by time wherever they are used. Sleeps until the next end.

use std::time::Duration;

use avouch_domain::limits::REQUEST_KEPT;
use avouch_domain::{Plan, Timestamp};
use avouch_engine::Registry;
use avouch_engine::plan::{emergencies, entries, grants, nodes, requests, tokens};
use tokio_util::sync::CancellationToken;

use super::{Services, WriteError};
use crate::clock::timed;
use crate::limits::{NODE_PRUNE_INTERVAL, TOKEN_KEPT, WALL_SLEEP_MAX};
use crate::metrics::{Metrics, Pruned};

/// What pruning works with.
pub(super) struct Parts {
    pub services: Services,
    pub metrics: Metrics,
}

/// Works until `stop`.
pub(super) async fn run(parts: Parts, stop: CancellationToken) {
    let mut positions = parts.services.subscribe();
    let mut nodes_at = (parts.services.0.clock)().wall + NODE_PRUNE_INTERVAL;
    loop {
        let now = (parts.services.0.clock)().wall;
        let mut pause = WALL_SLEEP_MAX;
        if let Some(end) = next_due(&parts.services.registry()) {
            if end <= now {
                if let Err(e) = parts.prune().await {
                    tracing::warn!(error = %e, "Could not prune ended entries and tokens");
                } else {
                    continue;
                }
            } else {
                // The end is exclusive: wake just after it.
                pause = pause.min(end.since(now) + Duration::from_millis(1));
            }
        }
        if now >= nodes_at {
            nodes_at = now + NODE_PRUNE_INTERVAL;
            if let Err(e) = parts.prune_nodes(now).await {
                tracing::warn!(error = %e, "Could not prune nodes");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            changed = positions.changed() => if changed.is_err() { return },
        }
    }
}

/// When the next row is to go.
fn next_due(registry: &Registry) -> Option<Timestamp> {
    let token = registry.next_token_end().map(|end| end + TOKEN_KEPT);
    let request = registry.next_request_end().map(|end| end + REQUEST_KEPT);
    let grant = registry.next_grant_end().map(|end| end + REQUEST_KEPT);
    let emergency = registry.next_emergency_end().map(|end| end + REQUEST_KEPT);
    let due = [registry.next_entry_end(), registry.next_pause(), token, request, grant, emergency];
    due.into_iter().flatten().min()
}

impl Parts {
    async fn counted<T: Send + 'static>(
        &self,
        what: Pruned,
        decide: impl FnMut(&Registry) -> (Plan, T) + Send + 'static,
    ) -> Result<T, WriteError> {
        let (written, elapsed) = timed(self.services.0.clock, self.services.0.writer.write(decide)).await;
        self.metrics.pruned(what, written.is_ok(), elapsed);
        written
    }

    async fn prune(&self) -> Result<(), WriteError> {
        let clock = self.services.0.clock;
        let entries = move |registry: &Registry| entries::prune(registry, clock().wall, "server");
        for id in self.counted(Pruned::Entries, entries).await? {
            tracing::info!(entry_id = %id, "Pruned an expired registration");
        }
        let now = clock();
        let paused = self.services.pause_due(now).await?;
        if !paused.names.is_empty() {
            let services = self.services.clone();
            // Beside the pruning: what ends next does not wait for nodes that are silent.
            self.services.0.tasks.spawn(async move { services.confirmations(now, vec![paused]).await });
        }
        let tokens = move |registry: &Registry| {
            let now = clock().wall;
            tokens::prune(registry, now, now - TOKEN_KEPT)
        };
        self.counted(Pruned::JoinTokens, tokens).await?;
        let requests = move |registry: &Registry| {
            let now = clock().wall;
            requests::forget(registry, now, now - REQUEST_KEPT, "server")
        };
        self.counted(Pruned::Requests, requests).await?;
        let grants = move |registry: &Registry| {
            let now = clock().wall;
            grants::forget(registry, now, now - REQUEST_KEPT, "server")
        };
        self.counted(Pruned::Grants, grants).await?;
        let emergencies = move |registry: &Registry| {
            let now = clock().wall;
            emergencies::forget(registry, now, now - REQUEST_KEPT, "server")
        };
        self.counted(Pruned::Emergencies, emergencies).await?;
        Ok(())
    }

    async fn prune_nodes(&self, now: Timestamp) -> Result<(), WriteError> {
        let Some(expired_for) = self.services.0.settings.prune_attested_nodes_expired_for else {
            return Ok(());
        };
        let (before, single_use_too) = (now - expired_for, self.services.0.settings.prune_tofu_nodes);
        let limit = self.services.0.settings.prune_attested_nodes_batch_size;
        let nodes = move |registry: &Registry| nodes::prune(registry, now, before, single_use_too, limit);
        let gone = self.counted(Pruned::Nodes, nodes).await?;
        if gone > 0 {
            tracing::info!(count = gone, "Pruned nodes whose SVID ended long ago");
        }
        Ok(())
    }
}
