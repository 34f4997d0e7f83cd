//! What one server tells its agents: streams with deltas and digests, heartbeats, and answers to those that poll.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::num::NonZeroU32;
use std::sync::Arc;

use avouch_domain::{Bundle, EntryId, Epoch, LogPosition, Now, Revision, SpiffeId, TrustDomain};
use avouch_engine::Registry;
use avouch_engine::entitle::{
    Concerned, KnownEntry, authorized_entries, concerned_between, delta, digest, visible_bundles,
};
use avouch_engine::history::{Resync, Standing, Start, resume};
use avouch_engine::sync::{AgentRefusal, Failure, Frame, Known, NodeStanding, StreamId};

use crate::host::Host;
use crate::net::Tell;
use crate::server::Server;

/// A fleet so big that agents wait for each other: one more of it is played here.
const FLEET: Option<NonZeroU32> = NonZeroU32::new(10_000);

/// One stream of one life of an agent.
pub type Line = (usize, u64, StreamId);
/// A frame for one agent's stream.
pub type Outgoing = (Line, Frame);

/// Which protocol a server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speaks {
    #[default]
    Push,
    SyncEntries,
    GetEntries,
}

#[derive(Debug)]
pub struct Follower {
    told: Registry,
    bundles: BTreeMap<TrustDomain, Arc<Bundle>>,
    standing: NodeStanding,
}

/// Why a stream began as it did, in the words of [`RESUMES`].
pub type Began = &'static str;

/// Every way in which a stream may begin while the store keeps what it confirms.
pub const RESUMES: [Began; 5] = [
    "delta",
    "all, as wished",
    "the position is too old for a delta",
    "the log does not confirm the position",
    "the store began a new epoch",
];

impl Server {
    pub fn lines(&self) -> Vec<Line> {
        self.followers.keys().copied().collect()
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
                (*line, Frame::Heartbeat { server_time: now.wall, position, agents: FLEET })
            })
            .collect()
    }

    pub fn open(
        &mut self,
        host: &mut Host,
        now: Now,
        line: Line,
        id: &SpiffeId,
        position: Option<LogPosition>,
        known: &Known,
    ) -> Result<(Began, Vec<Frame>), Failure> {
        if self.speaks != Speaks::Push {
            return Err(Failure::Unimplemented);
        }
        if position.is_some_and(|p| p.revision > self.registry.position().revision) {
            // The agent was told more by a sibling than this server has read yet.
            self.follow(host, now);
        }
        let standing = self.welcomes(id)?;
        let known = known_entries(known);
        let judged = position.as_ref().map(|p| self.history.standing(p));
        let verified = match (&judged, position) {
            (Some(Standing::Old), Some(p)) => host.db.changes_since(p, 1).is_ok(),
            _ => false,
        };
        let bundles = visible_bundles(&self.registry, id, &self.domain, now.wall);
        // As the product does: bundles before the entries, so that what is acknowledged includes them.
        let mut frames = vec![Frame::Welcome { server_time: now.wall, agents: FLEET }, Frame::Node(standing)];
        frames.extend(bundles.values().map(|b| notice(b)));
        let position = self.registry.position();
        let began = match resume(&self.registry, id, now.wall, judged.as_ref(), &known, verified) {
            Start::Delta(d) => {
                frames.push(Frame::Delta { upserts: d.upserts, removed: d.removed, position });
                "delta"
            }
            Start::Digest { digest, resync } => {
                frames.extend(resync.map(|why| Frame::Resync {
                    reason: why.reason().to_owned(),
                    history_differs: matches!(why, Resync::Foreign(_)),
                }));
                let (mut entries, mut unchanged) = (digest.entries, digest.unchanged);
                // In two parts, as the product tells what does not fit into one message.
                let (first, last) = (entries.split_off(entries.len() / 2), entries);
                if !first.is_empty() {
                    let unchanged = std::mem::take(&mut unchanged);
                    frames.push(Frame::Snapshot { entries: first, unchanged, position, last: false });
                }
                frames.push(Frame::Snapshot { entries: last, unchanged, position, last: true });
                resync.map_or("all, as wished", |why| why.reason())
            }
        };
        self.followers.insert(line, Follower { told: self.registry.clone(), bundles, standing });
        Ok((began, frames))
    }

    fn welcomes(&self, id: &SpiffeId) -> Result<NodeStanding, Failure> {
        match node_standing(&self.registry, id) {
            NodeStanding::Banned => Err(Failure::Refused(AgentRefusal::Banned)),
            NodeStanding::Evicted => Err(Failure::Refused(AgentRefusal::NotAttested)),
            NodeStanding::Active => Ok(NodeStanding::Active),
        }
    }

    /// One round of the SPIRE protocol. `learnt`: the life of the store in which the agent learnt what it holds.
    ///
    /// A known limit of that protocol: revision numbers repeat after a restore, and it can't tell one life of the store
    /// from another. What is held from another life is not compared here, as if that agent had been restarted.
    pub fn poll(&self, now: Now, id: &SpiffeId, whole: bool, known: &Known, learnt: Option<Epoch>) -> Tell {
        let epoch = self.registry.position().epoch;
        let nothing = Known::new();
        let known = if learnt == Some(epoch) { known } else { &nothing };
        if !whole && self.speaks == Speaks::GetEntries {
            return Tell::PollFailed(Failure::Unimplemented);
        }
        if let Err(refused) = self.welcomes(id) {
            return Tell::PollFailed(refused);
        }
        let visible = visible_bundles(&self.registry, id, &self.domain, now.wall);
        let bundles = visible.values().map(|b| (**b).clone()).collect();
        if whole {
            let entries = authorized_entries(&self.registry, id, now.wall);
            return Tell::Polled { entries, unchanged: Vec::new(), bundles, epoch };
        }
        let digest = digest(&self.registry, id, now.wall, &known_entries(known));
        Tell::Polled { entries: digest.entries, unchanged: digest.unchanged, bundles, epoch }
    }

    pub fn fetch(&self, now: Now, agent: &SpiffeId, domains: &[TrustDomain]) -> Vec<Bundle> {
        let visible = visible_bundles(&self.registry, agent, &self.domain, now.wall);
        domains.iter().filter_map(|d| visible.get(d)).map(|b| (**b).clone()).collect()
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
}

fn known_entries(known: &Known) -> Vec<KnownEntry> {
    let one = |(id, v): (&EntryId, &avouch_engine::sync::Version)| KnownEntry {
        id: id.clone(),
        revision_number: v.revision,
        created_at: v.created_at,
    };
    known.iter().map(one).collect()
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
    let mut digest = DefaultHasher::new();
    bundle.sequence_number.hash(&mut digest);
    for root in &bundle.x509_authorities {
        (&root.der, root.tainted).hash(&mut digest);
    }
    for key in &bundle.jwt_authorities {
        (&key.key_id, key.tainted).hash(&mut digest);
    }
    let digest = digest.finish().to_be_bytes().to_vec();
    Frame::BundleNotice { domain: bundle.trust_domain.clone(), digest, removed: false }
}

pub fn node_standing(registry: &Registry, id: &SpiffeId) -> NodeStanding {
    match registry.node(id) {
        None => NodeStanding::Evicted,
        Some(node) if node.is_banned() => NodeStanding::Banned,
        Some(_) => NodeStanding::Active,
    }
}
