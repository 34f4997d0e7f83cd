//! Keeps the TLS roots in step with the bundles.
//!
//! Never polls: it wakes with each commit and touches only what changed.

use std::sync::Arc;

use avouch_credential::tls::RootsCell;
use avouch_engine::Registry;
use tokio_util::sync::CancellationToken;

use crate::writer::Writer;

/// Sets what differs between two registries.
pub(super) fn refresh(roots: &RootsCell, before: &Registry, after: &Registry) {
    for (old, new) in before.changed_bundles(after) {
        match (old, new) {
            (_, Some(bundle)) => roots.set(bundle),
            (Some(bundle), None) => roots.remove(&bundle.trust_domain),
            (None, None) => {}
        }
    }
}

/// Follows the writer until `stop`.
pub(super) async fn follow(roots: Arc<RootsCell>, writer: Writer, stop: CancellationToken) {
    let mut positions = writer.subscribe();
    let mut held = Arc::new(Registry::new());
    loop {
        let registry = writer.registry();
        refresh(&roots, &held, &registry);
        held = registry;
        tokio::select! {
            () = stop.cancelled() => return,
            changed = positions.changed() => if changed.is_err() { return },
        }
    }
}
