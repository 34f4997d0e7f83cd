//! One server: the real registry, plans, history and rotation over the real database; only its sockets are played.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use avouch_domain::{
    Authority, AuthorityId, AuthorityKind, Entry, EntryId, Holder, JwtSvid, Now, Plan, Revision, Slot,
    SlotState, SpiffeId, Timestamp, TrustDomain, X509Svid,
};
use avouch_engine::cache::SignFailure;
use avouch_engine::entitle::is_authorized;
use avouch_engine::history::{History, KEPT};
use avouch_engine::invariants::{self, Broken};
use avouch_engine::plan;
use avouch_engine::rotation::timing::KEEP_AFTER_END;
use avouch_engine::rotation::{self, Rotation, can_go_on};
use avouch_engine::sync::NodeStanding;
use avouch_engine::{Machine, Registry};
use avouch_store::CommitError;
use std::time::Duration;

use crate::clock::Clock;
use crate::coverage::Coverage;
use crate::feed::{Follower, Line, Speaks, node_standing};
use crate::host::{Host, KeyFile};

pub const CA_TTL: Duration = Duration::from_secs(40 * 60);
pub const SVID_TTL: Duration = Duration::from_secs(5 * 60);
pub const TOKEN_TTL: Duration = Duration::from_secs(2 * 60);
const KINDS: [AuthorityKind; 2] = [AuthorityKind::X509, AuthorityKind::Jwt];
/// Why nothing is signed for an agent that is not (or no longer) a node.
pub const NOT_ATTESTED: &str = "agent is not attested";
/// Steps that one input may set going: make, publish, activate, retire, prune, and room for as many again.
const STEPS_MAX: usize = 16;
/// How long a silent agent may hold up a new authority.
pub const PROPAGATION_BOUND: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub struct Server {
    pub name: Arc<str>,
    pub up: bool,
    pub registry: Registry,
    pub domain: TrustDomain,
    pub clock: Clock,
    pub speaks: Speaks,
    pub history: History,
    /// X.509 authorities are this server's own; the JWT authority is held by the trust domain, and both servers
    /// drive it.
    rotations: BTreeMap<AuthorityKind, Rotation>,
    pub followers: BTreeMap<Line, Follower>,
    pub acknowledged: BTreeMap<SpiffeId, Revision>,
    made: BTreeMap<(AuthorityKind, Slot), plan::authorities::Prepared>,
    /// Authorities whose key this life has read or made.
    in_hand: BTreeSet<AuthorityId>,
    /// When this life published what, in monotonic milliseconds.
    published: BTreeMap<AuthorityId, u64>,
    /// Authorities that all agents alive at some moment had acknowledged; who joined later began with them.
    heard: BTreeSet<AuthorityId>,
    /// Agents that were too silent to be waited for when an authority began to sign.
    pub unheard: BTreeSet<(AuthorityId, SpiffeId)>,
    serial: u64,
    pub broken: Vec<Broken>,
    /// Authorities taken out of the bundle long after their end.
    pub pruned: u64,
    /// It dies when it has performed one more step of a rotation, before it knows that it has.
    pub doomed: bool,
    pub died: bool,
    pub coverage: Coverage,
}

impl Server {
    /// A new process. What the journal names and can't go on is forgotten.
    pub fn start(name: &str, domain: TrustDomain, host: &mut Host, clock: Clock, now: Now) -> Self {
        let registry = Registry::from_image(host.db.image(now.wall).expect("the store opens"));
        let mut server = Self {
            name: name.into(),
            up: true,
            clock,
            speaks: Speaks::Push,
            rotations: BTreeMap::new(),
            history: History::new(registry.clone(), KEPT),
            registry,
            domain,
            followers: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            made: BTreeMap::new(),
            in_hand: BTreeSet::new(),
            published: BTreeMap::new(),
            heard: BTreeSet::new(),
            unheard: BTreeSet::new(),
            serial: 0,
            broken: Vec::new(),
            pruned: 0,
            doomed: false,
            died: false,
            coverage: Coverage::default(),
        };
        for kind in KINDS {
            let usable = server.take_up(host, now, kind);
            let settings = rotation::Settings { kind, propagation_bound: PROPAGATION_BOUND };
            server.rotations.insert(kind, Rotation::new(settings, now, &usable));
        }
        server
    }

    /// The authorities of the journal that go on; the slots of the others are freed.
    fn take_up(&mut self, host: &mut Host, now: Now, kind: AuthorityKind) -> Vec<Authority> {
        let holder = self.holder(kind);
        let bundle = self.registry.bundle(&self.domain).cloned();
        let here = |row: &Authority| host.keys.read(&key_file(row)).as_ref() == Some(&row.id);
        let goes_on = |row: &Authority| can_go_on(row, bundle.as_deref(), here(row), now.wall);
        let (usable, lost): (Vec<_>, Vec<_>) =
            journal(&self.registry, kind, &holder).into_iter().partition(goes_on);
        self.in_hand.extend(usable.iter().filter(|row| here(row)).map(|row| row.id.clone()));
        for row in lost.iter().filter(|row| row.state == SlotState::Old || row.not_after <= now.wall) {
            host.keys.remove(key_file(row));
            host.keys.sync();
        }
        let slots: Vec<Slot> = lost.iter().map(|row| row.slot).collect();
        self.write(host, now, |r| plan::authorities::forget(r, now.wall, kind, &holder, &slots));
        usable
    }

    pub fn crash(&mut self) -> Vec<Line> {
        self.up = false;
        std::mem::take(&mut self.followers).into_keys().collect()
    }

    fn holder(&self, kind: AuthorityKind) -> Holder {
        holder(&self.name, kind)
    }

    /// The X.509 authority that signs here, and its end, for the trace.
    pub fn signer(&self) -> Option<(AuthorityId, Timestamp)> {
        let holder = self.holder(AuthorityKind::X509);
        let mut all = self.registry.authorities().filter(|a| a.holder == holder);
        all.find(|a| a.state == SlotState::Active).map(|a| (a.id.clone(), a.not_after))
    }

    fn check(&mut self, outcome: Result<(), Broken>) {
        self.broken.extend(outcome.err());
    }

    /// Plans from memory, commits, and plans again if another server was faster.
    pub fn write<T>(&mut self, host: &mut Host, now: Now, decide: impl Fn(&Registry) -> (Plan, T)) -> T {
        loop {
            let (plan, outcome) = decide(&self.registry);
            if plan.is_empty() {
                return outcome;
            }
            self.check(invariants::inv8_every_change_is_audited_once(&plan));
            match host.commit(now, self.registry.position(), &plan) {
                Ok(position) => {
                    let before = self.registry.clone();
                    self.registry.apply(&plan, position);
                    // Asked of each commit by itself: who reads two at once misses the taint before a revocation.
                    if let (Some(old), Some(new)) =
                        (before.bundle(&self.domain), self.registry.bundle(&self.domain))
                    {
                        let kept = invariants::inv5_authority_outlives_its_svids(old, new, end_of, now.wall);
                        self.broken.extend(kept.err());
                    }
                    self.seen(&before, now);
                    return outcome;
                }
                Err(CommitError::Behind(_)) => self.follow(host, now),
                Err(other) => panic!("commit failed: {other}"),
            }
        }
    }

    /// Catches up with what other servers have written.
    pub fn follow(&mut self, host: &mut Host, now: Now) {
        if host.position() == self.registry.position() {
            return;
        }
        let before = self.registry.clone();
        match host.db.changes_since(self.registry.position(), 1000) {
            Ok(tail) => {
                let (plan, position) = tail.into_plan();
                self.registry.apply(&plan, position);
            }
            Err(_) => self.registry = Registry::from_image(host.db.image(now.wall).expect("the store opens")),
        }
        self.find_keys(host);
        self.seen(&before, now);
    }

    /// Another server may have made the authority of the trust domain: its key is where both find it.
    fn find_keys(&mut self, host: &Host) {
        let rows = journal(&self.registry, AuthorityKind::Jwt, &self.holder(AuthorityKind::Jwt));
        let here = rows.iter().filter(|row| host.keys.read(&key_file(row)).as_ref() == Some(&row.id));
        self.in_hand.extend(here.map(|row| row.id.clone()));
    }

    fn seen(&mut self, before: &Registry, now: Now) {
        self.history.push(self.registry.clone());
        let registry = self.registry.clone();
        self.check(invariants::inv6_position_only_grows(before.position(), registry.position()));
        self.check(invariants::one_signer_per_holder(&registry));
        let Some(bundle) = registry.bundle(&self.domain) else { return };
        let signs = |a: &&Authority| a.state == SlotState::Active && a.not_after > now.wall;
        for active in registry.authorities().filter(signs) {
            self.check(invariants::inv4_signer_is_published(active, bundle));
        }
    }

    /// What signs now, and the entry it may sign for.
    fn authorized(
        &mut self,
        now: Now,
        kind: AuthorityKind,
        agent: &SpiffeId,
        entry: &EntryId,
    ) -> Result<(Entry, Authority), SignFailure> {
        let refused = |why: &str| SignFailure::Refused(why.to_owned());
        if node_standing(&self.registry, agent) != NodeStanding::Active {
            return Err(refused(NOT_ATTESTED));
        }
        let entry =
            is_authorized(&self.registry, agent, entry, now.wall).ok_or_else(|| refused("not authorized"))?;
        let holder = self.holder(kind);
        let signs = |a: &&Authority| a.kind == kind && a.holder == holder && a.state == SlotState::Active;
        let active = self.registry.authorities().filter(signs).find(|a| a.not_after > now.wall).cloned();
        let active = active.ok_or_else(|| refused("no authority"))?;
        if let Some(bundle) = self.registry.bundle(&self.domain).cloned() {
            self.check(invariants::inv4_signer_is_published(&active, &bundle));
        }
        if !self.in_hand.contains(&active.id) {
            let what = format!("{} signs as {}, whose key it has not", self.name, active.id);
            self.broken.push(Broken { number: 4, what });
        }
        self.serial += 1;
        Ok((entry, active))
    }

    pub fn sign(
        &mut self,
        now: Now,
        agent: &SpiffeId,
        entry: &EntryId,
    ) -> Result<(Arc<X509Svid>, AuthorityId), SignFailure> {
        let (entry, active) = self.authorized(now, AuthorityKind::X509, agent, entry)?;
        let leaf = format!("{}/{}/{}", self.name, active.id, self.serial).into_bytes();
        let svid = X509Svid {
            id: entry.spiffe_id.clone(),
            chain: vec![leaf.into()].into(),
            key: Arc::default(),
            not_before: now.wall - Duration::from_secs(10),
            not_after: (now.wall + SVID_TTL).min(active.not_after),
        };
        Ok((Arc::new(svid), active.id))
    }

    pub fn mint(
        &mut self,
        now: Now,
        agent: &SpiffeId,
        entry: &EntryId,
    ) -> Result<(JwtSvid, AuthorityId), SignFailure> {
        let (entry, active) = self.authorized(now, AuthorityKind::Jwt, agent, entry)?;
        let token = format!("{}.{}.{}", active.id, entry.spiffe_id, self.serial);
        let svid = JwtSvid {
            id: entry.spiffe_id.clone(),
            token: Arc::new(token.into()),
            issued_at: now.wall,
            expires_at: (now.wall + TOKEN_TTL).min(active.not_after),
        };
        Ok((svid, active.id))
    }

    /// Drives rotation and pruning.
    pub fn tick(&mut self, host: &mut Host, now: Now) {
        self.follow(host, now);
        if self.registry.expired_entries(now.wall).next().is_some() {
            self.write(host, now, |r| plan::entries::prune(r, now.wall, "server"));
        }
        if self.registry.due_to_pause(now.wall).next().is_some() {
            self.write(host, now, |r| plan::identities::pause_due(r, now.wall, "server"));
        }
        let live = self.live_agents(now);
        let everywhere = live
            .iter()
            .map(|id| self.acknowledged.get(id).copied().unwrap_or_default())
            .min()
            .unwrap_or_default();
        let heard = |a: &&Authority| a.published_at.is_some_and(|at| at <= everywhere);
        self.heard.extend(self.registry.authorities().filter(heard).map(|a| a.id.clone()));
        for kind in KINDS {
            let rows = journal(&self.registry, kind, &self.holder(kind));
            let tainted = rows.iter().filter(|r| r.tainted).map(|r| rotation::Input::Taint(r.id.clone()));
            let mut inputs: Vec<_> = tainted.collect();
            if kind == AuthorityKind::Jwt {
                self.find_keys(host);
                inputs.push(rotation::Input::Journal(rows));
            }
            inputs.push(rotation::Input::Acknowledged(everywhere));
            inputs.push(rotation::Input::Tick);
            for input in inputs {
                self.drive(host, now, kind, input);
            }
        }
    }

    /// A prepared authority gives up its place for the one that an operator wants.
    pub fn make_room(&mut self, host: &mut Host, now: Now, kind: AuthorityKind) {
        let holder = self.holder(kind);
        let gone = self.write(host, now, |r| plan::operator::make_room(r, now.wall, kind, &holder));
        if let Some(id) = gone {
            self.drive(host, now, kind, rotation::Input::Revoke(id));
        }
    }

    fn live_agents(&self, now: Now) -> Vec<SpiffeId> {
        let live = self.registry.nodes().filter(|n| !n.is_banned() && n.expires_at > now.wall);
        live.map(|n| n.id.clone()).collect()
    }

    /// INV-4 for the fleet: a successor signs when every live agent knows it, or has been waited for. Agents that
    /// do not know it are noted, those that were not alive, too: they may come back with what they had.
    fn judge_activation(&mut self, now: Now, slot: Slot) {
        let holder = self.holder(AuthorityKind::X509);
        let row = |slot| self.registry.authority(AuthorityKind::X509, &holder, slot).cloned();
        let Some(next) = row(slot) else { return };
        let replaces =
            row(slot.other()).is_some_and(|a| a.state == SlotState::Active && a.not_after > now.wall);
        let knows = |id: &SpiffeId| self.acknowledged.get(id).copied() >= next.published_at;
        let bound = u64::try_from(PROPAGATION_BOUND.as_millis()).unwrap_or(0);
        let waited = self.published.get(&next.id).is_none_or(|at| now.mono.0 >= at + bound);
        let must_wait = replaces && !waited && !self.heard.contains(&next.id);
        if let Some(id) = self.live_agents(now).iter().find(|id| must_wait && !knows(id)) {
            let what = format!("{} begins to sign before {id} knows it", next.id);
            self.broken.push(Broken { number: 4, what });
        }
        let all = self.registry.nodes().map(|n| &n.id).chain(self.acknowledged.keys());
        let unheard: Vec<_> = all.filter(|id| !knows(id)).map(|id| (next.id.clone(), id.clone())).collect();
        self.unheard.extend(unheard);
    }

    pub fn drive(&mut self, host: &mut Host, now: Now, kind: AuthorityKind, input: rotation::Input) {
        let (mut next, mut causes) = (Some(input), Vec::new());
        while let Some(input) = next.take() {
            let Some(machine) = self.rotations.get_mut(&kind) else { return };
            let (then, before) = (machine.phase(), machine.phase_at(now.wall));
            if then != before {
                self.coverage.rotation((then, "time", before));
            }
            let cause = rotation::phase::kind(&input);
            machine.handle(now, input);
            self.coverage.rotation((before, cause, machine.phase()));
            causes.push(cause);
            if causes.len() > STEPS_MAX {
                // INV-9 What one input sets going comes to rest.
                let what =
                    format!("rotation of {kind:?} at {} never rests: {:?}", self.name, machine.phase());
                self.broken.push(Broken { number: 9, what: format!("{what} after {causes:?}") });
                return;
            }
            next = machine.poll().map(|effect| self.perform(host, now, kind, effect));
            if self.doomed && next.is_some() {
                (self.died, next) = (true, None);
            }
        }
    }

    fn perform(
        &mut self,
        host: &mut Host,
        now: Now,
        kind: AuthorityKind,
        effect: rotation::Effect,
    ) -> rotation::Input {
        let (holder, domain) = (self.holder(kind), self.domain.clone());
        match effect {
            rotation::Effect::MakeKey { .. } if now.mono.0 < host.full_until => rotation::Input::Failed,
            rotation::Effect::Retire { .. } if now.mono.0 < host.full_until => rotation::Input::Failed,
            rotation::Effect::MakeKey { slot } => {
                self.serial += 1;
                let id: AuthorityId = format!("{}-{}-{}", self.name, now.mono.0, self.serial).into();
                let (issued_at, not_after) = (now.wall, now.wall + CA_TTL);
                let public: Arc<[u8]> = format!("{id}@{}", not_after.0).into_bytes().into();
                let id_made = id.clone();
                host.keys.write(file(kind, &holder, slot, &id), id.clone());
                // One that dies now has written the key and not synced it; nobody has heard of it.
                if !self.doomed {
                    host.keys.sync();
                }
                self.in_hand.insert(id.clone());
                let prepared =
                    plan::authorities::Prepared { kind, holder, slot, id, public, issued_at, not_after };
                self.made.insert((kind, slot), prepared);
                rotation::Input::KeyMade { slot, id: id_made, issued_at, not_after }
            }
            rotation::Effect::Publish { slot, .. } => {
                let Some(made) = self.made.get(&(kind, slot)).cloned() else {
                    return rotation::Input::Failed;
                };
                match self
                    .write(host, now, |r| plan::authorities::publish(r, now.wall, "server", &domain, &made))
                {
                    Ok(revision) => {
                        self.published.insert(made.id.clone(), now.mono.0);
                        rotation::Input::Published { slot, revision }
                    }
                    Err(_) => rotation::Input::Failed,
                }
            }
            rotation::Effect::Activate { slot, id } => {
                if kind == AuthorityKind::X509 {
                    self.judge_activation(now, slot);
                }
                let activate = |r: &Registry| {
                    plan::authorities::activate(r, now.wall, "server", (kind, &holder), slot, &id)
                };
                match self.write(host, now, activate) {
                    Ok(()) => rotation::Input::Activated { slot },
                    Err(_) => rotation::Input::Failed,
                }
            }
            rotation::Effect::Retire { slot, id } => {
                host.keys.remove(file(kind, &holder, slot, &id));
                host.keys.sync();
                rotation::Input::Retired { slot }
            }
            rotation::Effect::Prune => {
                let prune = |r: &Registry| {
                    let (x509, jwt) = ended(r, &domain, now);
                    match plan::bundles::prune(r, now.wall, &domain, &x509, &jwt) {
                        Ok(plan) => (plan, Some(x509.len() + jwt.len())),
                        Err(_) => (Plan::default(), None),
                    }
                };
                match self.write(host, now, prune) {
                    Some(count) => {
                        self.pruned += count as u64;
                        rotation::Input::Pruned
                    }
                    None => rotation::Input::Failed,
                }
            }
        }
    }
}

fn holder(name: &str, kind: AuthorityKind) -> Holder {
    match kind {
        AuthorityKind::X509 => Holder::Server(name.into()),
        AuthorityKind::Jwt => Holder::TrustDomain,
    }
}

/// An X.509 key lies in its slot; those of the JWT authority, which servers share, lie under their names.
fn file(kind: AuthorityKind, holder: &Holder, slot: Slot, id: &AuthorityId) -> KeyFile {
    match kind {
        AuthorityKind::X509 => format!("{holder:?}/{slot:?}"),
        AuthorityKind::Jwt => id.to_string(),
    }
}

fn key_file(row: &Authority) -> KeyFile {
    file(row.kind, &row.holder, row.slot, &row.id)
}

fn journal(registry: &Registry, kind: AuthorityKind, holder: &Holder) -> Vec<Authority> {
    registry.authorities().filter(|a| a.kind == kind && a.holder == *holder).cloned().collect()
}

/// The ID in the played certificate of an authority, which is `id@end`.
pub fn id_of(der: &[u8]) -> AuthorityId {
    let text = std::str::from_utf8(der).unwrap_or_default();
    text.split('@').next().unwrap_or_default().into()
}

fn end_of(der: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(der).ok()?;
    text.split_once('@')?.1.parse().ok().map(Timestamp)
}

/// The authorities of the own bundle that ended long enough ago.
fn ended(registry: &Registry, domain: &TrustDomain, now: Now) -> (BTreeSet<Arc<[u8]>>, BTreeSet<Arc<str>>) {
    let over = |end: Option<Timestamp>| end.is_some_and(|end| end + KEEP_AFTER_END <= now.wall);
    let Some(bundle) = registry.bundle(domain) else { return (BTreeSet::new(), BTreeSet::new()) };
    let x509 = bundle.x509_authorities.iter().filter(|a| over(end_of(&a.der))).map(|a| a.der.clone());
    let jwt = bundle.jwt_authorities.iter().filter(|a| over(a.expires_at)).map(|a| a.key_id.clone());
    (x509.collect(), jwt.collect())
}
