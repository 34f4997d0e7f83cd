//! The thread that waits for the disk, so that everybody who waits shares one wait.
//!
//! Never says that a record is on disk before the disk did, and never tries again what failed: after a failed sync the
//! kernel may have forgotten what was to be written.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::spool::{SpoolError, io};
use super::{Inner, Progress, Shared};
use crate::limits::SYNC_AFTER;

/// Starts it. It ends when the records are closed.
pub(super) fn spawn(shared: Arc<Shared>) -> Result<(), SpoolError> {
    let folder = shared.parts.folder.clone();
    let thread = std::thread::Builder::new().name("records".into());
    thread.spawn(move || keep_synced(&shared)).map(drop).map_err(io("start the thread that syncs", &folder))
}

fn keep_synced(shared: &Shared) {
    let mut inner = shared.inner.lock();
    while wait_for_work(shared, &mut inner) {
        let upto = inner.written;
        match inner.take_unsynced() {
            // Synced at the change of chains.
            None => inner.synced = upto,
            Some(unsynced) => match MutexGuard::unlocked(&mut inner, || unsynced.sync()) {
                Ok(()) => {
                    inner.synced = upto;
                    inner.spool.iter_mut().for_each(|spool| spool.was_synced(&unsynced));
                }
                Err(error) => {
                    tracing::error!(%error, subsystem_name = "records", "Records can't be kept");
                    inner.failed = Some(error.to_string());
                }
            },
        }
        shared.progress.send_replace(Progress { synced: inner.synced, failed: inner.failed.clone() });
    }
    // Who still waits hears the end.
    let failed = inner.failed.clone().or_else(|| Some("the agent is stopping".into()));
    shared.progress.send_replace(Progress { synced: inner.synced, failed });
}

/// Waits until there is something to sync, and a little longer if nobody waits for it. False: it is over.
fn wait_for_work(shared: &Shared, inner: &mut MutexGuard<'_, Inner>) -> bool {
    while inner.written == inner.synced || inner.failed.is_some() {
        if inner.stopped {
            return false;
        }
        shared.work.wait(inner);
    }
    if inner.wanted <= inner.synced && !inner.stopped {
        shared.work.wait_for(inner, SYNC_AFTER);
    }
    true
}
