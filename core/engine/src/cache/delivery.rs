//! What a subscriber gets to see, and whether it is anything new.
//!
//! Never delivers before the first sync or without the own bundle, and never the same twice. Who wants bundles only
//! is handed no keys: their SVIDs may be evicted, and nobody would take them back.

use std::collections::BTreeSet;
use std::sync::Arc;

use avouch_domain::Bundle;

use super::{Cache, Effect, Group, Identity, WorkloadUpdate};
use crate::faults::{Fault, planted};

impl Cache {
    pub(super) fn deliver(&mut self) {
        if !self.synced {
            return;
        }
        let Some(own) = self.bundles.get(&self.settings.trust_domain).cloned() else { return };
        for number in std::mem::take(&mut self.dirty) {
            let Some(group) = self.groups.get(&number) else { continue };
            let update = self.compose(group, &own);
            if group.last.as_deref().is_some_and(|last| says_the_same(last, &update)) {
                continue;
            }
            let update = Arc::new(update);
            if let Some(group) = self.groups.get_mut(&number) {
                group.last = Some(update.clone());
                let selectors = group.selectors.clone();
                self.effects.push_back(Effect::Deliver { selectors, update });
            }
        }
    }

    fn compose(&self, group: &Group, own: &Arc<Bundle>) -> WorkloadUpdate {
        let mut identities = Vec::with_capacity(group.matched.len());
        let mut domains = BTreeSet::new();
        let (mut waiting, mut rests_on_groups) = (0, false);
        for slot in group.matched.iter().filter_map(|id| self.slots.get(id)) {
            rests_on_groups |= slot.entry.rests_on_groups();
            domains.extend(slot.entry.federates_with.iter().filter(|d| **d != own.trust_domain));
            if let Some(held) = slot
                .held
                .as_ref()
                .filter(|_| group.x509 > 0)
                .filter(|h| h.svid.not_after > self.now.wall || planted(Fault::DeliverExpired))
            {
                identities.push(Identity {
                    entry_id: slot.entry.id.clone(),
                    created_at: slot.entry.created_at,
                    hint: slot.hint.clone(),
                    svid: held.svid.clone(),
                });
            } else if slot.error.is_none() {
                waiting += 1;
            }
        }
        WorkloadUpdate {
            matched: group.matched.len(),
            waiting,
            identities,
            own: own.clone(),
            federated: domains.into_iter().filter_map(|d| self.bundles.get(d).cloned()).collect(),
            rests_on_groups,
        }
    }
}

/// True if a subscriber would see no difference. How many entries match or wait for their SVID is no difference;
/// that there are any is one, and so is what must be looked at before it is handed out.
fn says_the_same(old: &WorkloadUpdate, new: &WorkloadUpdate) -> bool {
    let sight = |u: &WorkloadUpdate| (u.matched > 0, u.waiting > 0, u.rests_on_groups);
    sight(old) == sight(new)
        && old.identities == new.identities
        && old.own == new.own
        && old.federated == new.federated
}
