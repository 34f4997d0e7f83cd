//! JWT-SVIDs in the cache: one per entry and audience set, minted once however many ask.
//!
//! Never refreshes a token nobody has asked for since its last refresh, and never hands out an expired one: an
//! older token that still lives stands in only if a fresh one can't be had.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use avouch_domain::{Bundle, Entry, EntryId, JwtSvid, Now, SelectorSet, SpiffeId, Tick, Timestamp};

use super::{Effect, Input, JwtGrant, JwtRefusal, KeptJwt, RequestId, SignFailure, Ticket};
use crate::backoff::Jitter;
use crate::faults::{Fault, planted};
use crate::renew::renew_at;

/// How long a caller waits for a fresh token while an older one still lives.
const STAND_IN_AFTER: Duration = Duration::from_secs(5);
/// Pause after a refresh that failed while the old token still lives.
const REFRESH_AGAIN: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    entry: EntryId,
    /// Sorted, no repeats.
    audience: Arc<[String]>,
    /// Set for tokens that may not be shared (each carries its own `jti`).
    only: Option<RequestId>,
}

#[derive(Debug)]
struct Token {
    svid: JwtSvid,
    key_id: Arc<str>,
    /// As first asked for.
    audience: Vec<String>,
    renew_at: Timestamp,
    asked: bool,
    used: u64,
    timer: Timestamp,
}

#[derive(Debug)]
struct Mint {
    key: Key,
    id: SpiffeId,
    audience: Vec<String>,
    /// The entry has changed since: the token goes to those who wait, not into the cache.
    outdated: bool,
    waiters: BTreeSet<RequestId>,
}

#[derive(Debug)]
enum State {
    Waiting { ticket: Ticket, stand_in: Option<JwtSvid> },
    Done(JwtSvid),
    Failed(String),
}

#[derive(Debug)]
struct Part {
    entry: Entry,
    state: State,
}

#[derive(Debug)]
struct Pending {
    selectors: SelectorSet,
    parts: BTreeMap<EntryId, Part>,
    deadline: Option<Tick>,
    /// All parts came out of the cache, and would again until then.
    lendable: Option<Timestamp>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Jwts {
    /// The moment of the input that is being handled.
    pub now: Now,
    max: usize,
    jitter: Jitter,
    clock: u64,
    tokens: BTreeMap<Key, Token>,
    lru: BTreeSet<(u64, Key)>,
    mints: BTreeMap<Ticket, Mint>,
    /// The mint that a new caller may join.
    joinable: BTreeMap<Key, Ticket>,
    pending: BTreeMap<RequestId, Pending>,
    /// Which callers have a part that belongs to an entry.
    callers: BTreeSet<(EntryId, RequestId)>,
    /// Callers to look at once the input is handled: what it withdraws must not slip out on the way.
    touched: BTreeSet<RequestId>,
    tainted: BTreeSet<Arc<str>>,
    timers: BTreeSet<(Timestamp, Key)>,
    deadlines: BTreeSet<(Tick, RequestId)>,
    /// Some answer was lent and not recalled.
    lent: bool,
}

impl Jwts {
    pub fn new(max: usize, jitter: Jitter) -> Self {
        Self {
            now: Now::default(),
            max,
            jitter,
            clock: 0,
            tokens: BTreeMap::new(),
            lru: BTreeSet::new(),
            mints: BTreeMap::new(),
            joinable: BTreeMap::new(),
            pending: BTreeMap::new(),
            callers: BTreeSet::new(),
            touched: BTreeSet::new(),
            tainted: BTreeSet::new(),
            timers: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            lent: false,
        }
    }

    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Nobody waits and nothing is being minted.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
            && self.callers.is_empty()
            && self.deadlines.is_empty()
            && self.mints.is_empty()
    }

    pub fn next_wall(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub fn next_mono(&self) -> Option<Tick> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A caller wants tokens for these entries, which it matches.
    #[allow(clippy::too_many_arguments)] // one call, every part of it named
    pub fn want(
        &mut self,
        request: RequestId,
        selectors: SelectorSet,
        entries: Vec<Entry>,
        audience: Vec<String>,
        now: Now,
        ticket: &mut dyn FnMut() -> Ticket,
        effects: &mut VecDeque<Effect>,
    ) {
        let sorted = sorted(&audience);
        let lendable = Some(Timestamp::MAX);
        let mut pending = Pending { selectors, parts: BTreeMap::new(), deadline: None, lendable };
        for entry in entries {
            let only = entry.jwt_svid_include_jti.then_some(request);
            let key = Key { entry: entry.id.clone(), audience: sorted.clone(), only };
            let cached = self.touch(&key, now);
            let state = match cached {
                Some((svid, renew_at)) if renew_at > now.wall => {
                    let ends = renew_at.min(svid.expires_at).min(entry.expires_at.unwrap_or(Timestamp::MAX));
                    pending.lendable = pending.lendable.map(|until| until.min(ends));
                    State::Done(svid)
                }
                aging => {
                    pending.lendable = None;
                    let ticket = self.join(request, key, &entry.spiffe_id, &audience, ticket, effects);
                    State::Waiting { ticket, stand_in: aging.map(|(svid, _)| svid) }
                }
            };
            if matches!(state, State::Waiting { stand_in: Some(_), .. }) {
                pending.deadline = Some(now.mono + STAND_IN_AFTER);
            }
            self.callers.insert((entry.id.clone(), request));
            pending.parts.insert(entry.id.clone(), Part { entry, state });
        }
        if let Some(at) = pending.deadline {
            self.deadlines.insert((at, request));
        }
        self.pending.insert(request, pending);
        self.touched.insert(request);
    }

    /// A living token and the end of the first part of its life.
    fn touch(&mut self, key: &Key, now: Now) -> Option<(JwtSvid, Timestamp)> {
        self.clock += 1;
        let token = self.tokens.get_mut(key).filter(|t| t.svid.expires_at > now.wall)?;
        self.lru.remove(&(token.used, key.clone()));
        token.used = self.clock;
        token.asked = true;
        self.lru.insert((token.used, key.clone()));
        Some((token.svid.clone(), token.renew_at))
    }

    fn join(
        &mut self,
        request: RequestId,
        key: Key,
        id: &SpiffeId,
        audience: &[String],
        ticket: &mut dyn FnMut() -> Ticket,
        effects: &mut VecDeque<Effect>,
    ) -> Ticket {
        if let Some(ticket) = self.joinable.get(&key).copied()
            && let Some(mint) = self.mints.get_mut(&ticket)
        {
            mint.waiters.insert(request);
            return ticket;
        }
        let ticket = ticket();
        self.launch(key, id.clone(), audience.to_vec(), [request].into(), ticket, effects);
        ticket
    }

    fn launch(
        &mut self,
        key: Key,
        id: SpiffeId,
        audience: Vec<String>,
        waiters: BTreeSet<RequestId>,
        ticket: Ticket,
        effects: &mut VecDeque<Effect>,
    ) {
        let (entry, names) = (key.entry.clone(), audience.clone());
        effects.push_back(Effect::MintJwt { ticket, entry, id: id.clone(), audience: names });
        self.joinable.insert(key.clone(), ticket);
        self.mints.insert(ticket, Mint { key, id, audience, outdated: false, waiters });
    }

    /// A caller has gone. A token that now nobody waits for is said to be so: it need not be begun any more.
    pub fn abandon(&mut self, request: RequestId, effects: &mut VecDeque<Effect>) {
        let Some(pending) = self.take_pending(request) else { return };
        for part in pending.parts.into_values() {
            let State::Waiting { ticket, .. } = part.state else { continue };
            let Some(mint) = self.mints.get_mut(&ticket) else { continue };
            if mint.waiters.remove(&request) && mint.waiters.is_empty() {
                effects.push_back(Effect::NobodyWaits { ticket });
            }
        }
    }

    fn take_pending(&mut self, request: RequestId) -> Option<Pending> {
        let pending = self.pending.remove(&request)?;
        if let Some(at) = pending.deadline {
            self.deadlines.remove(&(at, request));
        }
        for entry in pending.parts.keys() {
            self.callers.remove(&(entry.clone(), request));
        }
        Some(pending)
    }

    fn callers_of(&self, id: &EntryId) -> Vec<RequestId> {
        let range = (id.clone(), RequestId::MIN)..=(id.clone(), RequestId::MAX);
        self.callers.range(range).map(|(_, request)| *request).collect()
    }

    fn end_mint(&mut self, ticket: Ticket) -> Option<Mint> {
        let mint = self.mints.remove(&ticket)?;
        if self.joinable.get(&mint.key) == Some(&ticket) {
            self.joinable.remove(&mint.key);
        }
        Some(mint)
    }

    pub fn signed(&mut self, ticket: Ticket, svid: JwtSvid, key_id: Arc<str>, now: Now) {
        let wrong = match self.mints.get(&ticket) {
            None => return,
            Some(mint) if svid.id != mint.id => {
                Some(format!("got a JWT-SVID for {}, expected {}", svid.id, mint.id))
            }
            Some(_) if svid.expires_at <= now.wall => {
                Some(format!("got a JWT-SVID that ended at {}, now is {}", svid.expires_at, now.wall))
            }
            Some(_) => None,
        };
        if let Some(reason) = wrong {
            self.failed(ticket, &SignFailure::Refused(reason), now);
            return;
        }
        let Some(mint) = self.end_mint(ticket) else { return };
        for request in &mint.waiters {
            let part = self.pending.get_mut(request).and_then(|p| p.parts.get_mut(&mint.key.entry));
            if let Some(part) = part {
                part.state = State::Done(svid.clone());
                self.touched.insert(*request);
            }
        }
        if mint.key.only.is_none() && !mint.outdated && !self.tainted.contains(&key_id) {
            self.store(mint, svid, key_id);
        }
    }

    fn store(&mut self, mint: Mint, svid: JwtSvid, key_id: Arc<str>) {
        let renew_at = renew_at(svid.issued_at, svid.expires_at, None, &mut self.jitter);
        self.insert(mint.key, svid, key_id, mint.audience, renew_at);
    }

    /// All tokens, least recently used first.
    pub fn kept(&self) -> Vec<KeptJwt> {
        let kept = |(_, key): &(u64, Key)| {
            let token = self.tokens.get(key)?;
            Some(KeptJwt {
                entry: key.entry.clone(),
                audience: token.audience.clone(),
                svid: token.svid.clone(),
                key_id: token.key_id.clone(),
                renew_at: token.renew_at,
            })
        };
        self.lru.iter().filter_map(kept).collect()
    }

    /// Takes up a token of an earlier life. The entry must grant it.
    pub fn take_up(&mut self, kept: KeptJwt) {
        let KeptJwt { entry, audience, svid, key_id, renew_at } = kept;
        if svid.expires_at > self.now.wall && !self.tainted.contains(&key_id) {
            let key = Key { entry, audience: sorted(&audience), only: None };
            self.insert(key, svid, key_id, audience, renew_at);
        }
    }

    fn insert(
        &mut self,
        key: Key,
        svid: JwtSvid,
        key_id: Arc<str>,
        audience: Vec<String>,
        renew_at: Timestamp,
    ) {
        self.drop_token(&key);
        self.clock += 1;
        let token =
            Token { svid, key_id, audience, renew_at, asked: false, used: self.clock, timer: renew_at };
        self.lru.insert((self.clock, key.clone()));
        self.timers.insert((renew_at, key.clone()));
        self.tokens.insert(key, token);
        while self.tokens.len() > self.max && !planted(Fault::KeepEveryToken) {
            let Some((_, key)) = self.lru.first().cloned() else { return };
            self.drop_token(&key);
        }
    }

    pub fn failed(&mut self, ticket: Ticket, failure: &SignFailure, now: Now) {
        let Some(mint) = self.end_mint(ticket) else { return };
        let again = now.wall + REFRESH_AGAIN + self.jitter.within(REFRESH_AGAIN);
        if let Some(token) = self.tokens.get_mut(&mint.key) {
            token.renew_at = again;
            token.asked = true;
            self.set_timer(&mint.key, again);
        }
        for request in &mint.waiters {
            let part = self.pending.get_mut(request).and_then(|p| p.parts.get_mut(&mint.key.entry));
            let Some(part) = part else { continue };
            part.state = match &part.state {
                State::Waiting { stand_in: Some(svid), .. } if svid.expires_at > now.wall => {
                    State::Done(svid.clone())
                }
                _ => State::Failed(failure.to_string()),
            };
            self.touched.insert(*request);
        }
    }

    /// Answers the callers for whom nothing is waited for any more.
    pub fn answer(&mut self, effects: &mut VecDeque<Effect>) {
        while let Some(request) = self.touched.pop_first() {
            self.settle(request, effects);
        }
    }

    fn settle(&mut self, request: RequestId, effects: &mut VecDeque<Effect>) {
        let waiting = |p: &Pending| p.parts.values().any(|part| matches!(part.state, State::Waiting { .. }));
        if self.pending.get(&request).is_none_or(waiting) {
            return;
        }
        let Some(pending) = self.take_pending(request) else { return };
        let (mut grants, mut reason) = (Vec::new(), None);
        for (entry_id, part) in pending.parts {
            match part.state {
                // It was good when it came; another one was waited for too long.
                State::Done(svid) if svid.expires_at <= self.now.wall => {
                    reason = reason.or_else(|| Some(format!("the token of {} ended meanwhile", svid.id)));
                }
                State::Done(svid) => grants.push(JwtGrant {
                    entry_id,
                    created_at: part.entry.created_at,
                    hint: part.entry.hint.as_str().into(),
                    rests_on_groups: part.entry.rests_on_groups(),
                    svid,
                }),
                State::Failed(why) => reason = reason.or(Some(why)),
                State::Waiting { .. } => {}
            }
        }
        let answer = match (grants.is_empty(), reason) {
            (false, _) => Ok(grants),
            (true, Some(reason)) => Err(JwtRefusal::Unavailable(reason)),
            (true, None) => Err(JwtRefusal::NoIdentity),
        };
        let lent_until = pending.lendable.filter(|_| answer.is_ok());
        self.lent |= lent_until.is_some();
        effects.push_back(Effect::AnswerJwt { request, answer, lent_until });
    }

    /// Takes back what was lent if questions that were answered may have other answers after `input`.
    pub fn recall_before(&mut self, input: &Input, effects: &mut VecDeque<Effect>) {
        if input.changes_grants() && std::mem::take(&mut self.lent) && !planted(Fault::KeepLentTokens) {
            effects.push_back(Effect::RecallJwt);
        }
    }

    /// Drops what is cached for an entry that is gone or another now.
    pub fn forget_entry(&mut self, id: &EntryId) {
        for key in of_entry(&self.tokens, id) {
            self.drop_token(&key);
        }
        for key in of_entry(&self.joinable, id) {
            if let Some(mint) = self.joinable.remove(&key).and_then(|t| self.mints.get_mut(&t)) {
                mint.outdated = true;
            }
        }
    }

    /// Nobody who waits may get a token of this entry any more.
    pub fn withdraw(&mut self, id: &EntryId) {
        self.withdraw_if(id, |_| true);
    }

    /// Nobody who waits may get a token of this entry unless it holds all these selectors.
    pub fn withdraw_unless(&mut self, id: &EntryId, set: &SelectorSet) {
        self.withdraw_if(id, |theirs| !set.is_subset_of(theirs));
    }

    fn withdraw_if(&mut self, id: &EntryId, falls: impl Fn(&SelectorSet) -> bool) {
        for request in self.callers_of(id) {
            if planted(Fault::GrantWithdrawn) {
                return;
            }
            let Some(pending) = self.pending.get_mut(&request).filter(|p| falls(&p.selectors)) else {
                continue;
            };
            pending.parts.remove(id);
            self.callers.remove(&(id.clone(), request));
            self.touched.insert(request);
        }
    }

    /// Tokens signed by a key that is tainted now, or that has left the bundle, are not handed out again. Tells how
    /// many there were.
    pub fn own_bundle_changed(&mut self, old: Option<&Bundle>, new: &Bundle) -> usize {
        let ids = |b: &Bundle| b.jwt_authorities.iter().map(|a| a.key_id.clone()).collect::<BTreeSet<_>>();
        self.tainted = new.jwt_authorities.iter().filter(|a| a.tainted).map(|a| a.key_id.clone()).collect();
        let mut bad = self.tainted.clone();
        if let Some(old) = old {
            bad.extend(ids(old).difference(&ids(new)).cloned());
        }
        if bad.is_empty() {
            return 0;
        }
        let hit: Vec<_> =
            self.tokens.iter().filter(|(_, t)| bad.contains(&t.key_id)).map(|(k, _)| k.clone()).collect();
        for key in &hit {
            self.withdraw_stand_in(key);
            self.drop_token(key);
        }
        hit.len()
    }

    fn withdraw_stand_in(&mut self, key: &Key) {
        let Some(bad) = self.tokens.get(key).map(|token| token.svid.token.clone()) else { return };
        for request in self.callers_of(&key.entry) {
            let part = self.pending.get_mut(&request).and_then(|p| p.parts.get_mut(&key.entry));
            if let Some(State::Waiting { stand_in, .. }) = part.map(|part| &mut part.state) {
                stand_in.take_if(|svid| Arc::ptr_eq(&svid.token, &bad));
            }
        }
    }

    /// Drops expired tokens, refreshes those in demand, and ends waits that have an older token to fall back on.
    pub fn tick(&mut self, now: Now, ticket: &mut dyn FnMut() -> Ticket, effects: &mut VecDeque<Effect>) {
        while let Some((at, key)) = self.timers.first().cloned() {
            if at > now.wall {
                break;
            }
            self.ring(&key, now, ticket, effects);
        }
        while let Some((at, request)) = self.deadlines.first().copied() {
            if at > now.mono {
                break;
            }
            self.deadlines.pop_first();
            self.stand_in(request, now);
        }
    }

    fn ring(
        &mut self,
        key: &Key,
        now: Now,
        ticket: &mut dyn FnMut() -> Ticket,
        effects: &mut VecDeque<Effect>,
    ) {
        let Some(token) = self.tokens.get_mut(key) else {
            self.timers.pop_first();
            return;
        };
        let ends = token.svid.expires_at;
        if ends <= now.wall {
            self.drop_token(key);
            return;
        }
        let refresh = token.asked.then(|| (token.svid.id.clone(), token.audience.clone()));
        token.asked = false;
        self.set_timer(key, ends);
        if let Some((id, audience)) = refresh.filter(|_| !self.joinable.contains_key(key)) {
            self.launch(key.clone(), id, audience, BTreeSet::new(), ticket(), effects);
        }
    }

    fn stand_in(&mut self, request: RequestId, now: Now) {
        let Some(pending) = self.pending.get_mut(&request) else { return };
        pending.deadline = None;
        for part in pending.parts.values_mut() {
            if let State::Waiting { stand_in: Some(svid), .. } = &part.state
                && svid.expires_at > now.wall
            {
                part.state = State::Done(svid.clone());
            }
        }
        self.touched.insert(request);
    }

    fn set_timer(&mut self, key: &Key, at: Timestamp) {
        if let Some(token) = self.tokens.get_mut(key) {
            self.timers.remove(&(token.timer, key.clone()));
            token.timer = at;
            self.timers.insert((at, key.clone()));
        }
    }

    fn drop_token(&mut self, key: &Key) {
        if let Some(token) = self.tokens.remove(key) {
            self.timers.remove(&(token.timer, key.clone()));
            self.lru.remove(&(token.used, key.clone()));
        }
    }
}

/// Without repeats.
fn sorted(audience: &[String]) -> Arc<[String]> {
    audience.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect()
}

fn of_entry<T>(map: &BTreeMap<Key, T>, id: &EntryId) -> Vec<Key> {
    let first = Key { entry: id.clone(), audience: Arc::new([]), only: None };
    map.range(first..).map(|(key, _)| key).take_while(|key| key.entry == *id).cloned().collect()
}
