//! One server: the real registry, plans, history and rotation over the real database; only its sockets are played.

use std::collections::BTreeMap;
use std::sync::Arc;

use avouch_domain::{
    Authority, AuthorityId, AuthorityKind, Bundle, EntryId, Holder, Now, Plan, Revision, Slot, SlotState,
    SpiffeId, TrustDomain, X509Svid,
};
use avouch_engine::cache::SignFailure;
use avouch_engine::entitle::{
    Concerned, KnownEntry, concerned_between, delta, is_authorized, visible_bundles,
};
use avouch_engine::history::{History, KEPT, Standing, Start, resume};
use avouch_engine::invariants::{self, Broken};
use avouch_engine::plan;
use avouch_engine::rotation::{self, Rotation};
use avouch_engine::sync::{AgentRefusal, Failure, Frame, Known, NodeStanding, StreamId};
use avouch_engine::{Machine, Registry};
use avouch_store::{CommitError, Db};
use std::time::Duration;

pub const CA_TTL: Duration = Duration::from_secs(40 * 60);
pub const SVID_TTL: Duration = Duration::from_secs(5 * 60);
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
    history: History,
    rotation: Rotation,
    followers: BTreeMap<Line, Follower>,
    acknowledged: BTreeMap<SpiffeId, Revision>,
    made: BTreeMap<Slot, plan::authorities::Prepared>,
    serial: u64,
    pub broken: Vec<Broken>,
}

/// One stream of one life of an agent.
pub type Line = (usize, u64, StreamId);
/// A frame for one agent's stream.
pub type Outgoing = (Line, Frame);

impl Server {
    pub fn start(name: &str, domain: TrustDomain, db: &mut Db, now: Now) -> Self {
        let registry = Registry::from_image(db.image(now.wall).expect("the store opens"));
        let holder = Holder::Server(name.into());
        let journal: Vec<Authority> =
            registry.authorities().filter(|a| a.holder == holder).cloned().collect();
        let settings = rotation::Settings { kind: AuthorityKind::X509, propagation_bound: PROPAGATION_BOUND };
        Self {
            name: name.into(),
            up: true,
            history: History::new(registry.clone(), KEPT),
            rotation: Rotation::new(settings, now, &journal),
            registry,
            domain,
            followers: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            made: BTreeMap::new(),
            serial: 0,
            broken: Vec::new(),
        }
    }

    pub fn crash(&mut self) -> Vec<Line> {
        self.up = false;
        std::mem::take(&mut self.followers).into_keys().collect()
    }

    fn holder(&self) -> Holder {
        Holder::Server(self.name.clone())
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
        if let Some(bundle) = self.registry.bundle(&self.domain).cloned() {
            let registry = self.registry.clone();
            self.check(invariants::inv5_authority_outlives_its_svids(before, &bundle, now.wall));
            for active in registry.authorities().filter(|a| a.state == SlotState::Active) {
                self.check(invariants::inv4_signer_is_published(active, &bundle));
            }
        }
        let registry = self.registry.clone();
        self.check(invariants::one_signer_per_holder(&registry));
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
        let mut frames = vec![Frame::Welcome { server_time: now.wall }];
        let position = self.registry.position();
        match resume(&self.registry, id, now.wall, judged.as_ref(), &known, verified) {
            Start::Delta(d) => frames.push(Frame::Delta { upserts: d.upserts, removed: d.removed, position }),
            Start::Digest { digest, reason } => {
                frames.extend(reason.map(|r| Frame::Resync { reason: r.to_owned() }));
                let (entries, unchanged) = (digest.entries, digest.unchanged);
                frames.push(Frame::Snapshot { entries, unchanged, position, last: true });
            }
        }
        let bundles = visible_bundles(&self.registry, id, &self.domain, now.wall);
        frames.extend(bundles.values().map(|b| notice(b)));
        frames.push(Frame::Node(standing));
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

    pub fn sign(
        &mut self,
        now: Now,
        agent: &SpiffeId,
        entry: &EntryId,
    ) -> Result<(Arc<X509Svid>, AuthorityId), SignFailure> {
        let refused = |why: &str| SignFailure::Refused(why.to_owned());
        let entry =
            is_authorized(&self.registry, agent, entry, now.wall).ok_or_else(|| refused("not authorized"))?;
        let holder = self.holder();
        let active = self
            .registry
            .authorities()
            .find(|a| a.holder == holder && a.state == SlotState::Active && a.not_after > now.wall)
            .ok_or_else(|| refused("no authority"))?;
        self.serial += 1;
        let chain: Arc<[Arc<[u8]>]> =
            vec![format!("{}/{}", active.id, self.serial).into_bytes().into()].into();
        let svid = X509Svid {
            id: entry.spiffe_id.clone(),
            chain,
            key: Arc::default(),
            not_before: now.wall - Duration::from_secs(10),
            not_after: (now.wall + SVID_TTL).min(active.not_after),
        };
        Ok((Arc::new(svid), active.id.clone()))
    }

    pub fn fetch(&self, now: Now, agent: &SpiffeId, domains: &[TrustDomain]) -> Vec<Bundle> {
        let visible = visible_bundles(&self.registry, agent, &self.domain, now.wall);
        domains.iter().filter_map(|d| visible.get(d)).map(|b| (**b).clone()).collect()
    }

    /// Drives rotation and pruning.
    pub fn tick(&mut self, db: &mut Db, now: Now) {
        self.follow(db, now);
        self.write(db, now, |r| plan::entries::prune(r, now.wall, "server"));
        let live: Vec<_> = self
            .registry
            .nodes()
            .filter(|n| !n.is_banned() && n.expires_at > now.wall)
            .map(|n| n.id.clone())
            .collect();
        let everywhere = live
            .iter()
            .map(|id| self.acknowledged.get(id).copied().unwrap_or_default())
            .min()
            .unwrap_or_default();
        self.rotation.handle(now, rotation::Input::Acknowledged(everywhere));
        self.rotation.handle(now, rotation::Input::Tick);
        while let Some(effect) = self.rotation.poll() {
            let answer = self.perform(db, now, effect);
            self.rotation.handle(now, answer);
        }
    }

    fn perform(&mut self, db: &mut Db, now: Now, effect: rotation::Effect) -> rotation::Input {
        let holder = self.holder();
        match effect {
            rotation::Effect::MakeKey { slot } => {
                self.serial += 1;
                let id: AuthorityId = format!("{}-{}-{}", self.name, now.wall.secs(), self.serial).into();
                let public: Arc<[u8]> = id.as_bytes().into();
                let (issued_at, not_after) = (now.wall, now.wall + CA_TTL);
                let prepared = plan::authorities::Prepared {
                    kind: AuthorityKind::X509,
                    holder,
                    slot,
                    id: id.clone(),
                    public,
                    issued_at,
                    not_after,
                };
                self.made.insert(slot, prepared);
                rotation::Input::KeyMade { slot, id, issued_at, not_after }
            }
            rotation::Effect::Publish { slot, .. } => {
                let Some(made) = self.made.get(&slot).cloned() else { return rotation::Input::Failed };
                let domain = self.domain.clone();
                match self.write(db, now, |r| plan::authorities::publish(r, now.wall, &domain, &made)) {
                    Ok(revision) => rotation::Input::Published { slot, revision },
                    Err(_) => rotation::Input::Failed,
                }
            }
            rotation::Effect::Activate { slot, id } => {
                let kind = AuthorityKind::X509;
                match self
                    .write(db, now, |r| plan::authorities::activate(r, now.wall, kind, &holder, slot, &id))
                {
                    Ok(()) => rotation::Input::Activated { slot },
                    Err(_) => rotation::Input::Failed,
                }
            }
            rotation::Effect::Retire { slot, .. } => rotation::Input::Retired { slot },
            // No authority has been over for a day within one run.
            rotation::Effect::Prune => rotation::Input::Pruned,
        }
    }
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
