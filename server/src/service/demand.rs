//! Owners that are demanded: warns of what has none, and has nodes told when the moment comes.
//!
//! Never is what withholds: that is judged by time wherever entries are used. Sleeps until the moment.

use std::time::Duration;

use avouch_domain::{Entry, Timestamp};
use avouch_engine::entitle::agents_of_unowned;
use avouch_engine::found;
use avouch_engine::plan::entries::EntryWriteError;
use tokio_util::sync::CancellationToken;

use super::Services;
use crate::clock::log_time;
use crate::limits::WALL_SLEEP_MAX;

/// Works until `stop`. `began`: what time it was before anybody was told anything.
pub(super) async fn follow(services: Services, from: Timestamp, began: Timestamp, stop: CancellationToken) {
    let mut demanded = began >= from;
    services.warn_of_found(from, demanded);
    loop {
        let wall = (services.0.clock)().wall;
        // Also back, if the clock is set: who was told by the wrong one hears it anew.
        if demanded != (wall >= from) {
            demanded = !demanded;
            services.warn_of_found(from, demanded);
            let agents = agents_of_unowned(&services.registry());
            let why =
                if demanded { "owners are demanded from now on" } else { "owners are not demanded yet" };
            services.0.feed.begin_anew(&agents, why);
        }
        let left = if demanded { WALL_SLEEP_MAX } else { from.since(wall).min(WALL_SLEEP_MAX) };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(left + Duration::from_millis(1)) => {}
        }
    }
}

impl Services {
    fn warn_of_found(&self, from: Timestamp, demanded: bool) {
        let (names, from) = (found::count(&self.registry()), log_time(from));
        if names == 0 {
            return;
        }
        if demanded {
            tracing::warn!(
                names,
                from,
                "Owners are demanded: entries whose SPIFFE ID nobody owns are withheld; `avouch found` lists them, `avouch adopt` gives them an owner"
            );
        } else {
            tracing::warn!(
                names,
                from,
                "Owners will be demanded: entries whose SPIFFE ID nobody owns are withheld from then on; `avouch found` lists them, `avouch adopt` gives them an owner"
            );
        }
    }

    /// Says of entries that were written whether nobody owns what they give out, if that is demanded some day.
    pub(super) fn warn_of_unowned(&self, outcomes: &[Result<Entry, EntryWriteError>]) {
        let Some(from) = self.settings().owners_demanded_from else { return };
        let registry = self.registry();
        for entry in outcomes.iter().flatten().filter(|entry| registry.wants_owner(entry)) {
            tracing::warn!(
                entry_id = %entry.id,
                spiffe_id = %entry.spiffe_id,
                from = log_time(from),
                "Nobody owns what this entry gives out: it is withheld from then on; `avouch adopt` gives it an owner"
            );
        }
    }
}
