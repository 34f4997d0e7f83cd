//! One server: the real registry, plans, history and rotation over the real database; only its sockets are played.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use avouch_domain::{
    Authority, AuthorityId, AuthorityKind, Bundle, Entry, EntryId, Holder, JwtSvid, Now, Plan, Revision,
    Slot, SlotState, SpiffeId, Timestamp, TrustDomain, X509Svid,
};
use avouch_engine::cache::SignFailure;
use avouch_engine::entitle::{
    Concerned, KnownEntry, concerned_between, delta, is_authorized, visible_bundles,
};
use avouch_engine::history::{History, KEPT, Resync, Standing, Start, resume};
use avouch_engine::invariants::{self, Broken};
use avouch_engine::plan;
use avouch_engine::rotation::timing::KEEP_AFTER_END;
use avouch_engine::rotation::{self, Rotation};
use avouch_engine::sync::{AgentRefusal, Failure, Frame, Known, NodeStanding, StreamId};
use avouch_engine::{Machine, Registry};
use avouch_store::{CommitError, Db};
use std::time::Duration;

use crate::clock::Clock;

pub const CA_TTL: Duration = Duration::from_secs(40 * 60);
pub const SVID_TTL: Duration = Duration::from_secs(5 * 60);
pub const TOKEN_TTL: Duration = Duration::from_secs(2 * 60);
const KINDS: [AuthorityKind; 2] = [AuthorityKind::X509, AuthorityKind::Jwt];
/// How long a silent agent may hold up a new authority.
pub const PROPAGATION_BOUND: Duration = Duration::from_secs(90);

#[derive(Debug)]
struct Follower {
    told: Registry,
    bundles: BTreeMap<TrustDomain, Arc<Bundle>>,
    standing: NodeStanding,
}

#[derive(Debug)]
pub struct Server {
    pub name: Arc<str>,
    pub up: bool,
    pub registry: Registry,
    pub domain: TrustDomain,
    pub clock: Clock,
    history: History,
    /// X.509 authorities are this server's own; the JWT authority is held by the trust domain, and both servers
    /// drive it.
    rotations: BTreeMap<AuthorityKind, Rotation>,
    followers: BTreeMap<Line, Follower>,
    acknowledged: BTreeMap<SpiffeId, Revision>,
    made: BTreeMap<(AuthorityKind, Slot), plan::authorities::Prepared>,
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
    judged: (Revision, u64),
}

/// One stream of one life of an agent.
pub type Line = (usize, u64, StreamId);
/// A frame for one agent's stream.
pub type Outgoing = (Line, Frame);

impl Server {
    pub fn start(name: &str, domain: TrustDomain, db: &mut Db, clock: Clock, now: Now) -> Self {
        let registry = Registry::from_image(db.image(now.wall).expect("the store opens"));
        let rotations = KINDS.iter().map(|kind| {
            let journal = journal(&registry, *kind, &holder(name, *kind));
            let settings = rotation::Settings { kind: *kind, propagation_bound: PROPAGATION_BOUND };
            (*kind, Rotation::new(settings, now, &journal))
        });
        Self {
            name: name.into(),
            up: true,
            clock,
            rotations: rotations.collect(),
            history: History::new(registry.clone(), KEPT),
            registry,
            domain,
            followers: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            made: BTreeMap::new(),
            published: BTreeMap::new(),
            heard: BTreeSet::new(),
            unheard: BTreeSet::new(),
            serial: 0,
            broken: Vec::new(),
            pruned: 0,
            judged: (Revision(0), u64::MAX),
        }
    }

    pub fn crash(&mut self) -> Vec<Line> {
        self.up = false;
        std::mem::take(&mut self.followers).into_keys().collect()
    }

    fn holder(&self, kind: AuthorityKind) -> Holder {
        holder(&self.name, kind)
    }

    pub fn followers(&self) -> usize {
        self.followers.len()
    }

    pub fn lines(&self) -> Vec<Line> {
        self.followers.keys().copied().collect()
    }

    fn check(&mut self, outcome: Result<(), Broken>) {
        self.broken.extend(outcome.err());
    }

    /// Plans from memory, commits, and plans again if another server was faster.
    pub fn write<T>(&mut self, db: &mut Db, now: Now, decide: impl Fn(&Registry) -> (Plan, T)) -> T {
        loop {
            let (plan, outcome) = decide(&self.registry);
            if plan.is_empty() {
                return outcome;
            }
            self.check(invariants::inv8_every_change_is_audited(&plan));
            match db.commit(self.registry.position(), std::slice::from_ref(&plan)) {
                Ok(positions) => {
                    let before = self.registry.clone();
                    self.registry.apply(&plan, positions[0]);
                    self.seen(&before, now);
                    return outcome;
                }
                Err(CommitError::Behind(_)) => self.follow(db, now),
                Err(other) => panic!("commit failed: {other}"),
            }
        }
    }

    /// Catches up with what other servers have written.
    pub fn follow(&mut self, db: &mut Db, now: Now) {
        if db.position().expect("a position") == self.registry.position() {
            return;
        }
        let before = self.registry.clone();
        match db.changes_since(self.registry.position(), 1000) {
            Ok(tail) => {
                let (plan, position) = tail.into_plan();
                self.registry.apply(&plan, position);
            }
            Err(_) => self.registry = Registry::from_image(db.image(now.wall).expect("the store opens")),
        }
        self.seen(&before, now);
    }

    fn seen(&mut self, before: &Registry, now: Now) {
        self.history.push(self.registry.clone());
        let registry = self.registry.clone();
        self.check(invariants::inv6_position_only_grows(before.position(), registry.position()));
        self.check(invariants::one_signer_per_holder(&registry));
        let Some(bundle) = registry.bundle(&self.domain) else { return };
        if let Some(earlier) = before.bundle(&self.domain) {
            self.check(invariants::inv5_authority_outlives_its_svids(earlier, bundle, end_of, now.wall));
        }
        let signs = |a: &&Authority| a.state == SlotState::Active && a.not_after > now.wall;
        for active in registry.authorities().filter(signs) {
            self.check(invariants::inv4_signer_is_published(active, bundle));
        }
    }

    /// INV-1 on the server's side: what an agent is handed and what it may have signed are the same.
    /// Asked when something was written and once in a while, because entries end by themselves.
    pub fn hands_out_what_it_may(&mut self, agents: &[SpiffeId], now: Now) -> Result<(), Broken> {
        let asked = (self.registry.position().revision, now.mono.0 / 60_000);
        if std::mem::replace(&mut self.judged, asked) == asked {
            return Ok(());
        }
        agents.iter().try_for_each(|id| invariants::inv1_entitled_only(&self.registry, id, now.wall))
    }

    /// Everything that has to be told now, by stream. Only streams that the routing names are looked at.
    pub fn tell(&mut self, now: Now, agents: &[SpiffeId]) -> Vec<Outgoing> {
        let mut out = Vec::new();
        for (line, follower) in &mut self.followers {
            if follower.told.position() == self.registry.position() {
                continue;
            }
            let Some(id) = agents.get(line.0) else { continue };
            let concerned = match concerned_between(&follower.told, &self.registry, &self.domain) {
                Concerned::Nobody => false,
                Concerned::Everyone => true,
                Concerned::Agents(ids) => ids.contains(id),
            };
            if concerned {
                let frames = tell_one(follower, &self.registry, id, &self.domain, now);
                out.extend(frames.into_iter().map(|f| (*line, f)));
            }
            follower.told = self.registry.clone();
        }
        out
    }

    pub fn heartbeats(&self, now: Now) -> Vec<Outgoing> {
        self.followers
            .iter()
            .map(|(line, follower)| {
                let position = Some(follower.told.position());
                (*line, Frame::Heartbeat { server_time: now.wall, position })
            })
            .collect()
    }

    pub fn open(
        &mut self,
        db: &mut Db,
        now: Now,
        line: Line,
        id: &SpiffeId,
        position: Option<avouch_domain::LogPosition>,
        known: &Known,
    ) -> Result<Vec<Frame>, Failure> {
        if position.is_some_and(|p| p.revision > self.registry.position().revision) {
            // The agent was told more by a sibling than this server has read yet.
            self.follow(db, now);
        }
        let standing = node_standing(&self.registry, id);
        match standing {
            NodeStanding::Banned => return Err(Failure::Refused(AgentRefusal::Banned)),
            NodeStanding::Evicted => return Err(Failure::Refused(AgentRefusal::NotAttested)),
            NodeStanding::Active => {}
        }
        let known: Vec<KnownEntry> = known
            .iter()
            .map(|(id, v)| KnownEntry {
                id: id.clone(),
                revision_number: v.revision,
                created_at: v.created_at,
            })
            .collect();
        let judged = position.as_ref().map(|p| self.history.standing(p));
        let verified = match (&judged, position) {
            (Some(Standing::Old), Some(p)) => db.changes_since(p, 1).is_ok(),
            _ => false,
        };
        let bundles = visible_bundles(&self.registry, id, &self.domain, now.wall);
        // As the product does: bundles before the entries, so that what is acknowledged includes them.
        let mut frames = vec![Frame::Welcome { server_time: now.wall }, Frame::Node(standing)];
        frames.extend(bundles.values().map(|b| notice(b)));
        let position = self.registry.position();
        match resume(&self.registry, id, now.wall, judged.as_ref(), &known, verified) {
            Start::Delta(d) => frames.push(Frame::Delta { upserts: d.upserts, removed: d.removed, position }),
            Start::Digest { digest, resync } => {
                frames.extend(resync.map(|why| Frame::Resync {
                    reason: why.reason().to_owned(),
                    history_differs: matches!(why, Resync::Foreign(_)),
                }));
                let (entries, unchanged) = (digest.entries, digest.unchanged);
                frames.push(Frame::Snapshot { entries, unchanged, position, last: true });
            }
        }
        self.followers.retain(|(agent, _, _), _| *agent != line.0);
        self.followers.insert(line, Follower { told: self.registry.clone(), bundles, standing });
        Ok(frames)
    }

    pub fn close(&mut self, line: Line) {
        self.followers.remove(&line);
    }

    pub fn has(&self, line: Line) -> bool {
        self.followers.contains_key(&line)
    }

    pub fn acknowledge(&mut self, id: &SpiffeId, revision: Revision) {
        let held = self.acknowledged.entry(id.clone()).or_default();
        *held = (*held).max(revision);
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
            return Err(refused("not attested"));
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

    pub fn fetch(&self, now: Now, agent: &SpiffeId, domains: &[TrustDomain]) -> Vec<Bundle> {
        let visible = visible_bundles(&self.registry, agent, &self.domain, now.wall);
        domains.iter().filter_map(|d| visible.get(d)).map(|b| (**b).clone()).collect()
    }

    /// Drives rotation and pruning.
    pub fn tick(&mut self, db: &mut Db, now: Now) {
        self.follow(db, now);
        self.write(db, now, |r| plan::entries::prune(r, now.wall, "server"));
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
                inputs.push(rotation::Input::Journal(rows));
            }
            inputs.push(rotation::Input::Acknowledged(everywhere));
            inputs.push(rotation::Input::Tick);
            for input in inputs {
                self.drive(db, now, kind, input);
            }
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

    fn drive(&mut self, db: &mut Db, now: Now, kind: AuthorityKind, input: rotation::Input) {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let Some(machine) = self.rotations.get_mut(&kind) else { return };
            machine.handle(now, input);
            next = machine.poll().map(|effect| self.perform(db, now, kind, effect));
        }
    }

    fn perform(
        &mut self,
        db: &mut Db,
        now: Now,
        kind: AuthorityKind,
        effect: rotation::Effect,
    ) -> rotation::Input {
        let (holder, domain) = (self.holder(kind), self.domain.clone());
        match effect {
            rotation::Effect::MakeKey { slot } => {
                self.serial += 1;
                let id: AuthorityId = format!("{}-{}-{}", self.name, now.mono.0, self.serial).into();
                let (issued_at, not_after) = (now.wall, now.wall + CA_TTL);
                let public: Arc<[u8]> = format!("{id}@{}", not_after.0).into_bytes().into();
                let id_made = id.clone();
                let prepared =
                    plan::authorities::Prepared { kind, holder, slot, id, public, issued_at, not_after };
                self.made.insert((kind, slot), prepared);
                rotation::Input::KeyMade { slot, id: id_made, issued_at, not_after }
            }
            rotation::Effect::Publish { slot, .. } => {
                let Some(made) = self.made.get(&(kind, slot)).cloned() else {
                    return rotation::Input::Failed;
                };
                match self.write(db, now, |r| plan::authorities::publish(r, now.wall, &domain, &made)) {
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
                let activate =
                    |r: &Registry| plan::authorities::activate(r, now.wall, kind, &holder, slot, &id);
                match self.write(db, now, activate) {
                    Ok(()) => rotation::Input::Activated { slot },
                    Err(_) => rotation::Input::Failed,
                }
            }
            rotation::Effect::Retire { slot, .. } => rotation::Input::Retired { slot },
            rotation::Effect::Prune => {
                let prune = |r: &Registry| {
                    let (x509, jwt) = ended(r, &domain, now);
                    match plan::bundles::prune(r, now.wall, &domain, &x509, &jwt) {
                        Ok(plan) => (plan, Some(x509.len() + jwt.len())),
                        Err(_) => (Plan::default(), None),
                    }
                };
                match self.write(db, now, prune) {
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

fn tell_one(
    follower: &mut Follower,
    registry: &Registry,
    id: &SpiffeId,
    domain: &TrustDomain,
    now: Now,
) -> Vec<Frame> {
    let mut frames = Vec::new();
    let change = delta(&follower.told, registry, id, now.wall);
    let position = registry.position();
    let visible = visible_bundles(registry, id, domain, now.wall);
    let changed =
        visible.iter().filter(|(d, b)| follower.bundles.get(*d) != Some(*b)).map(|(_, b)| notice(b));
    frames.extend(changed);
    let gone = follower.bundles.keys().filter(|d| !visible.contains_key(*d));
    frames.extend(gone.map(|d| Frame::BundleNotice { domain: d.clone(), digest: Vec::new(), removed: true }));
    follower.bundles = visible;
    if !change.is_empty() || !frames.is_empty() {
        frames.push(Frame::Delta { upserts: change.upserts, removed: change.removed, position });
    }
    let standing = node_standing(registry, id);
    if standing != follower.standing {
        follower.standing = standing;
        frames.push(Frame::Node(standing));
    }
    frames
}

fn notice(bundle: &Bundle) -> Frame {
    let digest = avouch_store::sha256(format!("{bundle:?}").as_bytes()).to_vec();
    Frame::BundleNotice { domain: bundle.trust_domain.clone(), digest, removed: false }
}

fn node_standing(registry: &Registry, id: &SpiffeId) -> NodeStanding {
    match registry.node(id) {
        None => NodeStanding::Evicted,
        Some(node) if node.is_banned() => NodeStanding::Banned,
        Some(_) => NodeStanding::Active,
    }
}
