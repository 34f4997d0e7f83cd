//! Frees rows whose time is over: entries at the second they end, join tokens and nodes some time after.
//!
//! Never is what makes them end: that is judged by time wherever they are used. Sleeps until the next end.

use std::sync::Arc;
use std::time::Duration;

use avouch_domain::Timestamp;
use avouch_engine::Registry;
use avouch_engine::plan::{entries, nodes, tokens};
use tokio_util::sync::CancellationToken;

use super::{Settings, WriteError};
use crate::clock::Clock;
use crate::limits::{NODE_PRUNE_INTERVAL, TOKEN_KEPT, WALL_SLEEP_MAX};
use crate::writer::Writer;

/// Works until `stop`.
pub(super) async fn run(writer: Writer, settings: Arc<Settings>, clock: Clock, stop: CancellationToken) {
    let mut positions = writer.subscribe();
    let mut nodes_at = clock().wall + NODE_PRUNE_INTERVAL;
    loop {
        let now = clock().wall;
        let mut pause = WALL_SLEEP_MAX;
        if let Some(end) = next_due(&writer.registry()) {
            if end <= now {
                if let Err(e) = prune(&writer, clock).await {
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
            if let Err(e) = prune_nodes(&writer, &settings, now).await {
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
    registry.next_entry_end().into_iter().chain(token).min()
}

async fn prune(writer: &Writer, clock: Clock) -> Result<(), WriteError> {
    let ended = writer.write(move |registry| entries::prune(registry, clock().wall, "server")).await?;
    for id in &ended {
        tracing::info!(entry_id = %id, "Pruned an expired registration");
    }
    writer
        .write(move |registry| {
            let now = clock().wall;
            tokens::prune(registry, now, now - TOKEN_KEPT)
        })
        .await?;
    Ok(())
}

async fn prune_nodes(writer: &Writer, settings: &Settings, now: Timestamp) -> Result<(), WriteError> {
    let Some(expired_for) = settings.prune_attested_nodes_expired_for else { return Ok(()) };
    let (before, single_use_too) = (now - expired_for, settings.prune_tofu_nodes);
    let limit = settings.prune_attested_nodes_batch_size;
    let gone =
        writer.write(move |registry| nodes::prune(registry, now, before, single_use_too, limit)).await?;
    if gone > 0 {
        tracing::info!(count = gone, "Pruned nodes whose SVID ended long ago");
    }
    Ok(())
}
