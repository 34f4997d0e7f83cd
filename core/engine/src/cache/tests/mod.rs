//! Rules of the cache, one per test, and a model of it under any sequence of changes.

mod eviction;
mod jwt;
mod kept;
mod model;
mod signing;
mod streams;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::fixtures::{domain, entry, entry_parts, id, set};
use avouch_domain::{
    Bundle, Entry, EntryId, JwtAuthority, JwtSvid, Now, SelectorSet, SpiffeId, Tick, Timestamp, TrustDomain,
    X509Svid,
};
use zeroize::Zeroizing;

use super::*;
use crate::Machine;
use crate::renew::Pace;

const HOUR: i64 = 3600;

struct Rig {
    cache: Cache,
    now: Now,
    delivered: BTreeMap<SelectorSet, Arc<WorkloadUpdate>>,
    deliveries: usize,
    signs: Vec<(Ticket, EntryId, SpiffeId, Priority)>,
    hurried: Vec<Ticket>,
    unneeded: Vec<Ticket>,
    mints: Vec<(Ticket, EntryId, SpiffeId, Vec<String>)>,
    answers: BTreeMap<RequestId, Result<Vec<JwtGrant>, JwtRefusal>>,
    /// Requests whose answers may be given again, and until when.
    lent: BTreeMap<RequestId, Timestamp>,
}

fn entry_id(text: &str) -> EntryId {
    EntryId::new(text).unwrap()
}

fn svid(id: &SpiffeId, from: Timestamp, secs: u64) -> Arc<X509Svid> {
    Arc::new(X509Svid {
        id: id.clone(),
        chain: Arc::new([]),
        key: Arc::new(Zeroizing::new(Vec::new())),
        not_before: from,
        not_after: from + Duration::from_secs(secs),
    })
}

fn jwt(id: &SpiffeId, from: Timestamp, secs: u64, text: &str) -> JwtSvid {
    JwtSvid {
        id: id.clone(),
        token: Arc::new(Zeroizing::new(text.into())),
        issued_at: from,
        expires_at: from + Duration::from_secs(secs),
    }
}

fn foreign(name: &str, sequence: u64) -> Arc<Bundle> {
    let mut bundle = Bundle::empty(TrustDomain::new(name).unwrap());
    bundle.sequence_number = sequence;
    Arc::new(bundle)
}

impl Rig {
    fn sized(x509_max: usize, jwt_max: usize) -> Self {
        let settings =
            Settings { trust_domain: domain(), x509_max, jwt_max, availability_target: None, seed: 11 };
        let mut rig = Self {
            cache: Cache::new(settings),
            now: Now { wall: Timestamp::from_secs(1_000_000), mono: Tick(0) },
            delivered: BTreeMap::new(),
            deliveries: 0,
            signs: Vec::new(),
            hurried: Vec::new(),
            unneeded: Vec::new(),
            mints: Vec::new(),
            answers: BTreeMap::new(),
            lent: BTreeMap::new(),
        };
        rig.put(Input::Bundles { upserts: vec![Arc::new(Bundle::empty(domain()))], removed: vec![] });
        rig.put(Input::Synced);
        rig
    }

    fn new() -> Self {
        Self::sized(100, 100)
    }

    fn put(&mut self, input: Input) {
        self.cache.handle(self.now, input);
        while let Some(effect) = self.cache.poll() {
            match effect {
                Effect::Sign { ticket, entry, id, priority } => {
                    self.signs.push((ticket, entry, id, priority))
                }
                Effect::Hurry { ticket } => self.hurried.push(ticket),
                Effect::NobodyWaits { ticket } => self.unneeded.push(ticket),
                Effect::MintJwt { ticket, entry, id, audience } => {
                    self.mints.push((ticket, entry, id, audience));
                }
                Effect::Deliver { selectors, update } => {
                    for identity in &update.identities {
                        assert!(identity.svid.not_after > self.now.wall, "INV-2");
                    }
                    self.deliveries += 1;
                    self.delivered.insert(selectors, update);
                }
                Effect::Drop { selectors } => {
                    self.delivered.remove(&selectors);
                }
                Effect::RecallJwt => self.lent.clear(),
                Effect::AnswerJwt { request, answer, lent_until } => {
                    self.lent.extend(lent_until.map(|until| (request, until)));
                    assert!(self.answers.insert(request, answer).is_none(), "answered once");
                }
            }
        }
    }

    fn pass(&mut self, d: Duration) {
        self.now = Now { wall: self.now.wall + d, mono: self.now.mono + d };
        self.put(Input::Tick);
    }

    fn upsert(&mut self, entries: Vec<Entry>) {
        self.put(Input::Entries { upserts: entries, removed: vec![] });
    }

    fn remove(&mut self, entry: &str) {
        self.put(Input::Entries { upserts: vec![], removed: vec![entry_id(entry)] });
    }

    fn subscribe(&mut self, list: &[&str]) {
        self.put(Input::Subscribe { selectors: set(list), want: Want::X509 });
    }

    /// Signs all that is asked for, until nothing is.
    fn sign_all(&mut self) {
        while let Some((ticket, entry, id, _)) = self.signs.pop() {
            let svid = svid(&id, self.now.wall, HOUR as u64);
            self.put(Input::Signed { ticket, entry, svid, authorities: vec!["aa".into()] });
        }
    }

    fn fail(&mut self, failure: &SignFailure) {
        for (ticket, entry, ..) in std::mem::take(&mut self.signs) {
            self.put(Input::SignFailed { ticket, entry, failure: failure.clone() });
        }
    }

    fn update(&self, list: &[&str]) -> &WorkloadUpdate {
        &self.delivered[&set(list)]
    }

    fn held_by(&self, list: &[&str]) -> Vec<String> {
        self.update(list).identities.iter().map(|i| i.entry_id.to_string()).collect()
    }

    fn want_jwt(&mut self, request: RequestId, list: &[&str], audience: &[&str]) {
        let audience = audience.iter().map(|s| (*s).to_owned()).collect();
        self.put(Input::JwtWanted { request, selectors: set(list), audience, id: None });
    }

    fn mint_all(&mut self, text: &str) {
        for (ticket, _, id, _) in std::mem::take(&mut self.mints) {
            let svid = jwt(&id, self.now.wall, 300, text);
            self.put(Input::JwtSigned { ticket, svid, key_id: "k1".into() });
        }
    }

    fn token(&self, request: RequestId) -> String {
        self.answers[&request].as_ref().unwrap()[0].svid.token.to_string()
    }
}
