//! What an agent owes its callers, asked of the simulated one: each answer is judged, and each agent after each step.

use super::*;

impl Agent {
    /// The entries these selectors are entitled to, found without the cache's index.
    pub(super) fn entitled(&self, now: Now, selectors: &SelectorSet) -> Vec<&Entry> {
        let fits = |e: &&Entry| e.selector_set().is_subset_of(selectors) && !e.is_expired(now.wall);
        self.held.values().filter(fits).collect()
    }

    /// INV-1 and INV-2 at the moment of delivery.
    pub(super) fn judge(&mut self, now: Now, selectors: &SelectorSet, update: &WorkloadUpdate) {
        let entitled = self.entitled(now, selectors);
        let one = invariants::inv1_delivered_is_entitled(update, &entitled).err();
        let two = invariants::inv2_nothing_expired(update, now.wall).err();
        self.broken.extend(one.into_iter().chain(two));
    }

    /// The same for tokens; and every caller is answered once.
    pub(super) fn answered(
        &mut self,
        now: Now,
        request: u64,
        answer: Result<Vec<cache::JwtGrant>, cache::JwtRefusal>,
        lent_until: Option<Timestamp>,
    ) {
        let Some((pin, _)) = self.waiting.remove(&request) else {
            self.broken.push(Broken { number: 1, what: format!("caller {request} is answered twice") });
            return;
        };
        // The last look before the answer goes out: is it still the process that asked?
        let Some(reached) = self.processes.reached(pin).cloned() else {
            self.unreached += 1;
            return;
        };
        let grants = answer.unwrap_or_default();
        for grant in &grants {
            self.tokens += 1;
            self.broken.extend(self.token_is_wrong(now, &reached, &grant.entry_id, &grant.svid));
        }
        self.lent.extend(lent_until.map(|until| (reached, grants, until)));
    }

    /// What is lent is judged after each input, as if somebody asked for it each time.
    pub(super) fn lent_is_wrong(&self, now: Now) -> Option<Broken> {
        self.lent.iter().find_map(|(selectors, grants, _)| {
            grants.iter().find_map(|g| self.token_is_wrong(now, selectors, &g.entry_id, &g.svid))
        })
    }

    pub(super) fn token_is_wrong(
        &self,
        now: Now,
        selectors: &SelectorSet,
        entry: &EntryId,
        svid: &JwtSvid,
    ) -> Option<Broken> {
        let entitled = self.entitled(now, selectors);
        if !entitled.iter().any(|e| e.id == *entry && e.spiffe_id == svid.id) {
            let what = format!(
                "a token of {} for {selectors:?} of {}, which holds {:?} at {}",
                svid.id,
                self.id,
                self.held.get(entry).map(|e| (e.selector_set(), &e.spiffe_id, e.expires_at)),
                now.wall
            );
            return Some(Broken { number: 1, what });
        }
        invariants::inv2_token_is_alive(svid, now.wall).err()
    }

    /// INV-3 Nothing a subscriber holds is past its end, although it may have been cut off for long.
    pub fn holds_nothing_expired(&self, now: Now) -> Option<Broken> {
        let wall = now.wall - SLEEP_SLACK;
        if self.unaware || self.first_end.is_none_or(|end| end >= wall) {
            return None;
        }
        self.views.values().find_map(|view| invariants::inv3_holds_nothing_expired(view, wall).err())
    }

    /// INV-9 Every caller has its answer in time.
    pub fn keeps_nobody_waiting(&self, now: Now) -> Option<Broken> {
        let late = |(_, since): &&(Pin, Tick)| now.mono.0 > since.0 + ANSWER_MAX;
        let (pin, since) = self.waiting.values().find(late)?;
        let what = format!("{pin:?} of {} waits since {}", self.id, since.0);
        Some(Broken { number: 9, what })
    }

    /// INV-9 What one agent keeps stays within what it is for.
    pub fn keeps_within_limits(&mut self) -> Option<Broken> {
        let counts = self.cache.counts();
        let sizes = (counts, self.held.len(), self.wanted.len());
        if std::mem::replace(&mut self.sizes, sizes) == sizes {
            return None;
        }
        let matched =
            |set: &SelectorSet| self.held.values().filter(|e| e.selector_set().is_subset_of(set)).count();
        let used: usize = self.wanted.iter().map(matched).sum();
        let limits = [
            ("entries", counts.entries, self.held.len()),
            ("X509-SVIDs", counts.x509_held, (X509_MAX + used).max(self.taken_up)),
            ("JWT-SVIDs", counts.jwt_held, JWT_MAX),
            ("selector sets", counts.subscribed_sets, self.wanted.len()),
        ];
        limits.into_iter().find_map(|(name, n, most)| invariants::inv9_queue_is_bounded(name, n, most).err())
    }

    /// INV-4 at the edge: whatever is held verifies with the bundle held beside it. Gives the first authority for
    /// which it does not, of those that `excused` does not name.
    pub fn holds_something_unverifiable(&self, excused: impl Fn(&AuthorityId) -> bool) -> Option<Broken> {
        for view in self.views.values() {
            let known = |id: &AuthorityId| view.own.x509_authorities.iter().any(|a| id_of(&a.der) == *id);
            for identity in &view.identities {
                let authority = identity.svid.chain.first().and_then(|leaf| self.signed_by.get(&**leaf));
                let Some(authority) = authority.filter(|id| !known(id) && !excused(id)) else { continue };
                let what = format!(
                    "{} of {authority}, which the bundle beside it lacks ({} at {:?}, pushed: {}, server {})",
                    identity.svid.id,
                    self.id,
                    self.position,
                    self.sync.is_pushed(),
                    self.server
                );
                return Some(Broken { number: 4, what });
            }
        }
        None
    }
}
