//! What one life of the cache leaves to the next, so that workloads are served before the server answers.
//!
//! Never takes up what has ended, what its entry does not grant, or what is to be replaced as if it were fresh.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::{AuthorityId, Bundle, Entry, EntryId, JwtSvid, Tick, Timestamp, X509Svid};

use super::slot::Held;
use super::{Cache, Input, SignFailure};

/// How long a signature waits for the server's word before those who wait for it are told that it did not come.
const EARLY_MAX: Duration = Duration::from_secs(5);

/// Everything the cache needs to go on without a server. Shares its values with the cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub bundles: Vec<Arc<Bundle>>,
    pub entries: Vec<Entry>,
    pub x509: Vec<KeptX509>,
    /// Least recently used first.
    pub jwt: Vec<KeptJwt>,
    /// As last told by [`super::Input::Distrusted`].
    pub distrusted: BTreeSet<AuthorityId>,
}

/// An X509-SVID in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptX509 {
    pub entry: EntryId,
    pub svid: Arc<X509Svid>,
    /// The key identifiers of all issuers in the chain.
    pub authorities: Vec<AuthorityId>,
    pub renew_at: Timestamp,
}

/// A JWT-SVID in the cache. Those that may not be shared never are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptJwt {
    pub entry: EntryId,
    /// As first asked for.
    pub audience: Vec<String>,
    pub svid: JwtSvid,
    /// The token's `kid`.
    pub key_id: Arc<str>,
    pub renew_at: Timestamp,
}

/// Signatures that came before the server's word did: each is taken up beside the bundle that verifies it (INV-4).
/// There are no more than were asked for.
#[derive(Debug, Default)]
pub(super) struct Early {
    signatures: Vec<Input>,
    since: Option<Tick>,
}

impl Early {
    pub fn put(&mut self, signature: Input, now: Tick) {
        self.signatures.push(signature);
        self.since.get_or_insert(now);
    }

    /// When the first one has waited long enough.
    pub fn until(&self) -> Option<Tick> {
        Some(self.since? + EARLY_MAX)
    }
}

impl Cache {
    /// The server's whole word is here.
    pub(super) fn hear(&mut self) {
        (self.synced, self.cut_off) = (true, false);
        for signature in std::mem::take(&mut self.early).signatures {
            self.take(signature);
        }
        self.upstream_back();
    }

    /// Signatures that waited long enough are asked for again another time.
    pub(super) fn give_up_early(&mut self) {
        if self.early.until().is_none_or(|until| until > self.now.mono) {
            return;
        }
        let failure = SignFailure::Away("the server signs, but has not told its bundles yet".into());
        for signature in std::mem::take(&mut self.early).signatures {
            match signature {
                Input::Signed { ticket, entry, .. } => self.sign_failed(ticket, &entry, &failure),
                Input::JwtSigned { ticket, .. } => self.jwts.failed(ticket, &failure, self.now),
                _ => {}
            }
        }
    }

    /// What a later life needs, as of the last input. Clones no bytes.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let held = |id: &EntryId, slot: &super::Slot| {
            let held = slot.held.as_ref()?;
            Some(KeptX509 {
                entry: id.clone(),
                svid: held.svid.clone(),
                authorities: held.authorities.clone(),
                renew_at: held.renew_at,
            })
        };
        Snapshot {
            bundles: self.bundles.values().cloned().collect(),
            entries: self.slots.values().map(|slot| slot.entry.clone()).collect(),
            x509: self.slots.iter().filter_map(|(id, slot)| held(id, slot)).collect(),
            jwt: self.jwts.kept(),
            distrusted: self.distrusted.clone(),
        }
    }

    pub(super) fn restore(&mut self, snapshot: Snapshot) {
        self.set_bundles(snapshot.bundles, &[]);
        self.distrusted = snapshot.distrusted;
        for entry in snapshot.entries {
            self.upsert(entry);
        }
        for kept in snapshot.x509 {
            self.take_up(kept);
        }
        for kept in snapshot.jwt {
            let slot = self.slots.get(&kept.entry);
            if slot
                .is_some_and(|slot| slot.entry.spiffe_id == kept.svid.id && !slot.entry.jwt_svid_include_jti)
            {
                self.jwts.take_up(kept);
            }
        }
        self.synced = true;
        // Those who use the SVIDs come back one by one.
        self.cut_off = true;
    }

    fn take_up(&mut self, kept: KeptX509) {
        let KeptX509 { entry: id, svid, authorities, renew_at } = kept;
        let granted = self.slots.get(&id).is_some_and(|slot| slot.entry.spiffe_id == svid.id);
        if !granted || svid.not_after <= self.now.wall {
            return;
        }
        self.take_signing(&id);
        let Some(slot) = self.slots.get_mut(&id) else { return };
        if slot.held.replace(Box::new(Held { svid, authorities, renew_at, outdated: false })).is_none() {
            self.held += 1;
        }
        self.mark_groups_of(&id);
        self.reconcile(&id);
    }
}
