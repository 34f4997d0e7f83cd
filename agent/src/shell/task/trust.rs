//! What the agent relies on: the own bundle's authorities, and the server's clock.

use std::collections::BTreeSet;
use std::sync::Arc;

use avouch_credential::x509::facts::authority_id;
use avouch_domain::{AuthorityId, Bundle, Tick, Timestamp, TrustDomain};
use avouch_engine::cache;
use avouch_engine::renew::Pace;

use super::Task;
use crate::limits::CLOCK_SKEW_WARN_MS;
use crate::metrics::Papers;

impl Task {
    pub(super) fn take_bundles(&mut self, upserts: Vec<Arc<Bundle>>, removed: Vec<TrustDomain>) {
        self.changed();
        for bundle in &upserts {
            self.bundles.insert(bundle.trust_domain.clone());
            if bundle.trust_domain == self.parts.trust_domain {
                self.parts.own_bundle.send_replace(Some(bundle.clone()));
                self.watch_authorities(bundle);
            }
        }
        for domain in &removed {
            self.bundles.remove(domain);
        }
        let (begun, before) = ((self.parts.clock)().mono, self.cache.counts().tally.tainted_jwt);
        self.tell_cache_quietly(cache::Input::Bundles { upserts, removed });
        self.count_tainted(Papers::Jwt, self.cache.counts().tally.tainted_jwt - before, begun);
    }

    pub(super) fn count_tainted(&self, papers: Papers, found: usize, begun: Tick) {
        if found > 0 {
            self.parts.metrics.tainted(papers, found, (self.parts.clock)().mono.since(begun));
        }
    }

    /// Tells the cache which of the own authorities are tainted, and which have left the bundle.
    pub(super) fn watch_authorities(&mut self, own: &Bundle) {
        let ids = |tainted_only: bool| -> BTreeSet<AuthorityId> {
            let list = own.x509_authorities.iter().filter(|a| a.tainted || !tainted_only);
            list.filter_map(|a| Some(authority_id(&a.der).ok()?.into())).collect()
        };
        let now_trusted = ids(false);
        let left: Vec<_> = self.trusted.difference(&now_trusted).cloned().collect();
        let pace = if left.is_empty() { Pace::Among(self.sync.fleet()) } else { Pace::AtOnce };
        self.revoked.extend(left);
        self.revoked.retain(|id| !now_trusted.contains(id));
        self.trusted = now_trusted;
        let authorities = ids(true).union(&self.revoked).cloned().collect();
        let (begun, before) = ((self.parts.clock)().mono, self.cache.counts().tally.tainted_x509);
        self.tell_cache_quietly(cache::Input::Distrusted { authorities, pace });
        self.count_tainted(Papers::X509, self.cache.counts().tally.tainted_x509 - before, begun);
    }

    /// A server that does not push tells no time, but it stamps what it signs: a token with its clock, a certificate
    /// with some moment before (so that one that begins in our future says something, any other does not).
    pub(super) fn guess_time(&mut self, stamp: Timestamp, exact: bool) {
        if !self.sync.is_pushed() && (exact || stamp > (self.parts.clock)().wall) {
            self.server_time(stamp);
        }
    }

    pub(super) fn server_time(&mut self, at: Timestamp) {
        self.server_clock.saw(at, (self.parts.clock)());
        // How long they hold was said by another clock.
        self.lent.recall();
        let skew = self.server_clock.skew_ms();
        self.parts.metrics.clock_skew(skew);
        let wide = skew.abs() > CLOCK_SKEW_WARN_MS;
        if wide && !self.skew_warned {
            tracing::warn!(
                skew_ms = skew,
                subsystem_name = "manager",
                "Clock differs from the server's by more than 5 s"
            );
        }
        self.skew_warned = wide;
    }
}
