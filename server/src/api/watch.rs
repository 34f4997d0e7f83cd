//! Watch service: every change that concerns an agent, pushed to it over one long stream.
//!
//! Never queues without bound: a few small frames wait for a slow reader, and what happens meanwhile is merged into
//! the next update, or replaced by a resync marker and a snapshot. The stream ends with the agent's standing: at the
//! end of its SVID, at a ban, at an eviction.

use std::sync::Arc;
use std::time::Duration;

use avouch_domain::limits::AWAY_MAX;
use avouch_domain::{Bundle, Entry, EntryId, Revision, SpiffeId, Timestamp, TrustDomain};
use avouch_engine::history;
use avouch_proto::convert::{
    DeniedReason, bundle_to_wire, code_digest, entry_to_wire, permission_denied, position_from_wire,
    position_to_wire, sync_entry_mask,
};
use avouch_proto::types;
use avouch_proto::watch_v1::follow_request::Step;
use avouch_proto::watch_v1::follow_response::Frame;
use avouch_proto::watch_v1::node_state::State;
use avouch_proto::watch_v1::watch_server::Watch;
use avouch_proto::watch_v1::{
    Away, BundleNotice, Delta, FetchBundlesRequest, FetchBundlesResponse, FetchIdentitiesRequest,
    FetchIdentitiesResponse, FollowRequest, FollowResponse, Heartbeat, Hello, NodeState, Position, Renewed,
    ReportCodeRequest, ReportCodeResponse, Resync, RulesNotice, SnapshotChunk, Welcome,
};
use aws_lc_rs::digest::{SHA256, digest};
use prost::Message;
use tokio::sync::mpsc::{self, Sender};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::api::call::{Call, open};
use crate::api::emergencies::told;
use crate::api::status::write_failed;
use crate::limits::{
    IDENTITIES_PER_FETCH, WATCH_FRAME_BYTES, WATCH_HEARTBEAT, WATCH_HELLO_TIME, WATCH_QUEUE,
};
use crate::service::{
    AgentFeed, AgentUpdate, BundleChange, InForce, KnownEntry, NodeChange, RulesReceiver, Services,
    UpdateKind,
};

/// The version of the protocol that this server speaks.
const VERSION: u32 = 1;
/// Bytes that a frame needs around its items: tags, lengths, a position.
const FRAME_OVERHEAD: usize = 256;
/// Bytes that an item needs around itself.
const ITEM_OVERHEAD: usize = 8;

/// The service over TCP.
#[derive(Clone)]
pub struct WatchApi {
    pub services: Services,
}

impl std::fmt::Debug for WatchApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WatchApi")
    }
}

type Replies = Sender<Result<FollowResponse, Status>>;

#[tonic::async_trait]
impl Watch for WatchApi {
    type FollowStream = ReceiverStream<Result<FollowResponse, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<FollowRequest>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let (call, steps) = open(request)?;
        let services = self.services.clone();
        let (replies, stream) = mpsc::channel(WATCH_QUEUE);
        tokio::spawn(async move {
            let line = call.audit();
            let ended = tokio::select! {
                // First, so that it may say farewell.
                biased;
                ended = follow(&services, &call, steps, &replies) => ended,
                () = standing_over(&call) => Err(Status::unavailable("agent SVID has ended")),
                () = call.connection.leaving.cancelled() => Err(going_away()),
                () = replies.closed() => Err(Status::cancelled("agent went away")),
            };
            let ended = match line.conclude(ended) {
                Ok(never) => match never {},
                Err(status) => status,
            };
            if ended.code() != Code::Cancelled {
                // A full queue must not keep a stream alive whose agent lost its standing.
                let told = replies.send(Err(ended));
                let _ = tokio::time::timeout(WATCH_HEARTBEAT, told).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn fetch_bundles(
        &self,
        request: Request<FetchBundlesRequest>,
    ) -> Result<Response<FetchBundlesResponse>, Status> {
        let (call, request) = open(request)?;
        let wanted: Vec<TrustDomain> =
            request.trust_domains.iter().filter_map(|name| TrustDomain::new(name).ok()).collect();
        let bundles = self.services.visible_bundles(call.now().wall, call.caller_id()?, &wanted);
        call.audit().item(Code::Ok, "");
        Ok(Response::new(FetchBundlesResponse {
            bundles: bundles.iter().map(|bundle| bundle_to_wire(bundle, None)).collect(),
        }))
    }

    async fn fetch_identities(
        &self,
        request: Request<FetchIdentitiesRequest>,
    ) -> Result<Response<FetchIdentitiesResponse>, Status> {
        let (call, request) = open(request)?;
        if request.spiffe_ids.len() > IDENTITIES_PER_FETCH {
            let (had, most) = (request.spiffe_ids.len(), IDENTITIES_PER_FETCH);
            return Err(Status::invalid_argument(format!("{had} SPIFFE IDs, expected at most {most}")));
        }
        let wanted: Vec<_> = request.spiffe_ids.iter().filter_map(|id| SpiffeId::parse(id).ok()).collect();
        let agent = call.caller_id()?;
        // What is told here is decided by for a while, as after a renewal.
        self.services.renews(agent);
        let wall = call.now().wall;
        let served = self.services.served_identities(wall, agent, &wanted);
        call.audit().item(Code::Ok, "");
        Ok(Response::new(FetchIdentitiesResponse {
            identities: served
                .iter()
                .map(|(identity, active)| told(&self.services, wall, identity, *active))
                .collect(),
            rules_number: self.services.find_rules(0).map_or(0, |rules| rules.number),
        }))
    }

    async fn report_code(
        &self,
        request: Request<ReportCodeRequest>,
    ) -> Result<Response<ReportCodeResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("identity", &request.spiffe_id);
        let reported = async {
            let name = SpiffeId::parse(&request.spiffe_id)
                .map_err(|e| Status::invalid_argument(format!("SPIFFE ID: {e}")))?;
            let found = code_digest(&request.code).map_err(|e| Status::invalid_argument(e.to_string()))?;
            let paused = self.services.other_code(call.now(), call.caller_id()?, name, found).await;
            paused.map_err(|e| write_failed("failed to pause the identity", &e))
        };
        let paused = line.conclude(reported.await)?;
        Ok(Response::new(ReportCodeResponse { paused }))
    }
}

/// Resolves when the caller's SVID ends.
async fn standing_over(call: &Call) {
    let end = call.svid().map_or(Timestamp::default(), |svid| svid.not_after);
    loop {
        let left = end.since(call.now().wall);
        if left.is_zero() {
            return;
        }
        // The wall clock may be set while we sleep; look again at times.
        tokio::time::sleep(left.min(Duration::from_secs(60))).await;
    }
}

/// What a stream that never ends well gives back.
enum Never {}

async fn follow(
    services: &Services,
    call: &Arc<Call>,
    mut steps: Streaming<FollowRequest>,
    replies: &Replies,
) -> Result<Never, Status> {
    let hello = hello(&mut steps).await?;
    let agent = call.caller_id()?;
    let (version, server_time_ms) = (VERSION.min(hello.version), call.now().wall.0);
    // This one is not among the followers yet.
    let agents_now = agents(services).saturating_add(1);
    let welcome = Welcome { version, server_time_ms, agents: agents_now, renews: true };
    send(replies, Frame::Welcome(welcome)).await?;
    let resume = hello.position.as_ref().and_then(|position| position_from_wire(position).ok());
    let known = hello.known.into_iter().filter_map(|known| {
        Some(KnownEntry {
            id: EntryId::new(known.id.as_str()).ok()?,
            revision_number: known.revision_number,
            created_at: Timestamp::from_secs(known.created_at),
        })
    });
    let mut feed = services.follow(call.now().wall, agent, resume, known.collect());
    tracing::debug!(subsystem_name = "watch", spiffe_id = %agent, version = %hello.agent_version, resumes = resume.is_some(), "Agent follows");
    let mut rules = services.follow_rules();
    tell_rules(&mut rules, replies).await?;
    // Renewals do not put it off: an agent rests on what only a heartbeat says.
    let mut silence = tokio::time::interval_at(Instant::now() + WATCH_HEARTBEAT, WATCH_HEARTBEAT);
    silence.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            Ok(()) = rules.changed() => tell_rules(&mut rules, replies).await?,
            update = feed.next(call.gate.clock) => {
                let update = update.ok_or_else(|| Status::unavailable("server is stopping"))?;
                if replaced(call).await? {
                    return Err(Status::unavailable("agent SVID was replaced: follow again with the new one"));
                }
                deliver(update, replies).await?;
                silence.reset();
            }
            step = steps.next() => match step.transpose()?.map(|request| request.step) {
                Some(Some(Step::Ack(ack))) => feed.acknowledge(Revision(ack.revision)),
                Some(Some(Step::Renew(renew))) => {
                    // Noted before it is answered: what the agent counts from is not later.
                    services.renews(agent);
                    send(replies, Frame::Renewed(Renewed { number: renew.number })).await?;
                }
                Some(_) => return Err(Status::invalid_argument("expected an acknowledgement or a renewal")),
                None => return Err(Status::cancelled("agent closed the stream")),
            },
            _ = silence.tick() => beat(services, &feed, call, replies).await?,
            () = call.connection.leaving.cancelled() => {
                if call.gate.drain.begun().is_cancelled() {
                    if rules.has_changed().unwrap_or(false) {
                        tell_rules(&mut rules, replies).await?;
                    } else {
                        farewell(&mut feed, call, replies).await?;
                    }
                }
                return Err(going_away());
            }
        }
    }
}

fn going_away() -> Status {
    Status::unavailable("connection is going away: follow again")
}

/// Says that this server goes away, if the agent has heard of everything; what it has not is told instead.
async fn farewell(feed: &mut AgentFeed, call: &Call, replies: &Replies) -> Result<(), Status> {
    tokio::select! {
        biased;
        update = feed.next(call.gate.clock) => match update {
            Some(update) => deliver(update, replies).await,
            None => Ok(()),
        },
        () = std::future::ready(()) => {
            if !feed.may_be_left() {
                return Ok(());
            }
            let seconds = u32::try_from(AWAY_MAX.as_secs()).unwrap_or(u32::MAX);
            send(replies, Frame::Away(Away { seconds })).await
        }
    }
}

/// True if the agent has a newer SVID in use than the one of this stream. Whether it is banned or gone is told by the
/// feed, with a frame of its own.
async fn replaced(call: &Call) -> Result<bool, Status> {
    let reason = call.gate.check_agent(call.svid()?).await?;
    Ok(matches!(reason, Some(DeniedReason::AgentNotActive | DeniedReason::AgentExpired)))
}

async fn hello(steps: &mut Streaming<FollowRequest>) -> Result<Hello, Status> {
    let first = tokio::time::timeout(WATCH_HELLO_TIME, steps.message());
    let first = first.await.map_err(|_| Status::deadline_exceeded("no hello came"))??;
    match first.and_then(|request| request.step) {
        Some(Step::Hello(hello)) if hello.version > 0 => Ok(hello),
        Some(Step::Hello(_)) => Err(Status::invalid_argument("hello names no version, expected 1")),
        Some(Step::Ack(_) | Step::Renew(_)) => Err(Status::invalid_argument("expected hello first")),
        None => Err(Status::cancelled("agent closed the stream")),
    }
}

async fn beat(services: &Services, feed: &AgentFeed, call: &Call, replies: &Replies) -> Result<(), Status> {
    let (server_time_ms, position) = (call.now().wall.0, Some(position_to_wire(&feed.position())));
    send(replies, Frame::Heartbeat(Heartbeat { server_time_ms, position, agents: agents(services) })).await
}

/// How many agents follow: each spreads by it what all of them do at once.
fn agents(services: &Services) -> u32 {
    u32::try_from(services.followers()).unwrap_or(u32::MAX)
}

async fn send(replies: &Replies, frame: Frame) -> Result<(), Status> {
    let response = FollowResponse { frame: Some(frame) };
    replies.send(Ok(response)).await.map_err(|_| Status::cancelled("agent went away"))
}

/// Sends one update. A node that lost its standing ends the stream.
async fn deliver(update: AgentUpdate, replies: &Replies) -> Result<(), Status> {
    let node = update.node;
    for frame in frames(update) {
        send(replies, frame).await?;
    }
    let refused = |reason| Err(permission_denied(reason, "agent may not follow any more"));
    match node {
        Some(NodeChange::Banned) => refused(DeniedReason::AgentBanned),
        Some(NodeChange::Evicted) => refused(DeniedReason::AgentNotAttested),
        Some(NodeChange::Active) | None => Ok(()),
    }
}

/// The frames of one update, each below the named size unless a single item is larger: standing first, then
/// bundles, then entries. Only the last frame about entries carries the position it leads to.
fn frames(update: AgentUpdate) -> Vec<Frame> {
    let mut list = Vec::new();
    if let Some(node) = update.node {
        let state = match node {
            NodeChange::Active => State::Active,
            NodeChange::Banned => State::Banned,
            NodeChange::Evicted => State::Evicted,
        };
        list.push(Frame::Node(NodeState { state: state.into() }));
        if !matches!(node, NodeChange::Active) {
            return list;
        }
    }
    if let Some(why) = update.resync {
        let history_differs = matches!(why, history::Resync::Foreign(_));
        list.push(Frame::Resync(Resync { reason: why.reason().to_owned(), history_differs }));
    }
    list.extend(update.bundles.iter().map(|change| Frame::Bundle(notice(change))));
    let position = position_to_wire(&update.position);
    match update.kind {
        UpdateKind::Snapshot { entries, unchanged } => {
            list.extend(snapshot(&entries, unchanged, &position).into_iter().map(Frame::Snapshot));
        }
        UpdateKind::Delta { upserts, removed } => {
            list.extend(delta(&upserts, removed, position).into_iter().map(Frame::Delta));
        }
    }
    list
}

fn notice(change: &BundleChange) -> BundleNotice {
    match change {
        BundleChange::Changed(bundle) => BundleNotice {
            trust_domain: bundle.trust_domain.to_string(),
            digest: bundle_digest(bundle),
            sequence: bundle.sequence_number,
            removed: false,
        },
        BundleChange::Removed(domain) => {
            BundleNotice { trust_domain: domain.to_string(), removed: true, ..Default::default() }
        }
    }
}

/// Says which rules are in force, if that is known: a frame of fixed size, so that nothing waits behind it.
async fn tell_rules(rules: &mut RulesReceiver, replies: &Replies) -> Result<(), Status> {
    let in_force = rules.borrow_and_update().clone();
    match in_force {
        Some(in_force) => send(replies, Frame::Rules(rules_notice(&in_force))).await,
        None => Ok(()),
    }
}

fn rules_notice(in_force: &InForce) -> RulesNotice {
    let signed = in_force.rules.as_ref().map(|shown| &shown.signed);
    RulesNotice {
        epoch_started: in_force.epoch.started,
        epoch_random: in_force.epoch.random,
        number: in_force.number(),
        digest: signed.map(|signed| signed.digest.0.to_vec()).unwrap_or_default(),
        key: signed.map(|signed| signed.key.clone()).unwrap_or_default(),
    }
}

/// SHA-256 over the bundle as `FetchBundles` sends it.
fn bundle_digest(bundle: &Bundle) -> Vec<u8> {
    digest(&SHA256, &bundle_to_wire(bundle, None).encode_to_vec()).as_ref().to_vec()
}

/// What an agent needs of an entry; its end is there too, so that it acts by time.
fn wire_entry(entry: &Entry) -> types::Entry {
    let mask = types::EntryMask { expires_at: true, ..sync_entry_mask() };
    entry_to_wire(entry, Some(&mask))
}

/// Items of a frame that fit into its bytes.
struct Packer<T> {
    done: Vec<Vec<T>>,
    open: Vec<T>,
    bytes: usize,
}

impl<T> Packer<T> {
    fn pack(items: impl Iterator<Item = (T, usize)>) -> Vec<Vec<T>> {
        let mut packer = Self { done: Vec::new(), open: Vec::new(), bytes: FRAME_OVERHEAD };
        for (item, bytes) in items {
            if packer.bytes + bytes + ITEM_OVERHEAD > WATCH_FRAME_BYTES && !packer.open.is_empty() {
                packer.done.push(std::mem::take(&mut packer.open));
                packer.bytes = FRAME_OVERHEAD;
            }
            packer.open.push(item);
            packer.bytes += bytes + ITEM_OVERHEAD;
        }
        packer.done.push(packer.open);
        packer.done
    }
}

/// An entry to hand over, or the ID of one to keep or drop.
enum Item {
    Entry(Box<types::Entry>),
    Id(String),
}

fn pack(entries: &[Entry], ids: Vec<EntryId>) -> Vec<Vec<Item>> {
    let ids = ids.into_iter().map(|id| {
        let id = id.to_string();
        let bytes = id.len();
        (Item::Id(id), bytes)
    });
    let entries = entries.iter().map(|entry| {
        let entry = wire_entry(entry);
        let bytes = entry.encoded_len();
        (Item::Entry(Box::new(entry)), bytes)
    });
    Packer::pack(ids.chain(entries))
}

fn part(items: Vec<Item>) -> (Vec<types::Entry>, Vec<String>) {
    let (mut entries, mut ids) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Entry(entry) => entries.push(*entry),
            Item::Id(id) => ids.push(id),
        }
    }
    (entries, ids)
}

fn snapshot(entries: &[Entry], unchanged: Vec<EntryId>, position: &Position) -> Vec<SnapshotChunk> {
    let parts = pack(entries, unchanged);
    let last = parts.len();
    let chunk = |(at, items)| {
        let (entries, unchanged) = part(items);
        SnapshotChunk { entries, last: at + 1 == last, position: Some(position.clone()), unchanged }
    };
    parts.into_iter().enumerate().map(chunk).collect()
}

fn delta(upserts: &[Entry], removed: Vec<EntryId>, position: Position) -> Vec<Delta> {
    let parts = pack(upserts, removed);
    let last = parts.len();
    let frame = |(at, items)| {
        let (upserts, removed) = part(items);
        Delta { upserts, removed, position: (at + 1 == last).then(|| position.clone()) }
    };
    parts.into_iter().enumerate().map(frame).collect()
}

#[cfg(test)]
mod tests {
    use avouch_domain::LogPosition;
    use avouch_domain::fixtures::{domain, entry};

    use super::*;

    fn entries(count: usize) -> Vec<Entry> {
        (0..count).map(|n| entry(&format!("e{n:04}"), &format!("/w{n}"), "/node", &["unix:uid:0"])).collect()
    }

    fn update(kind: UpdateKind, node: Option<NodeChange>) -> AgentUpdate {
        AgentUpdate { kind, resync: None, bundles: Vec::new(), node, position: LogPosition::default() }
    }

    fn sizes(frames: &[Frame]) -> usize {
        let size = |frame: &Frame| FollowResponse { frame: Some(frame.clone()) }.encoded_len();
        frames.iter().map(size).max().unwrap()
    }

    #[test]
    fn a_big_snapshot_comes_in_small_frames_and_only_the_last_says_so() {
        let kind = UpdateKind::Snapshot { entries: entries(3_000), unchanged: vec![] };
        let frames = frames(update(kind, None));
        assert!(frames.len() > 1 && sizes(&frames) <= WATCH_FRAME_BYTES, "{}", frames.len());
        let lasts: Vec<bool> =
            frames.iter().map(|f| matches!(f, Frame::Snapshot(chunk) if chunk.last)).collect();
        assert_eq!(lasts.iter().filter(|last| **last).count(), 1);
        assert_eq!(lasts.last(), Some(&true));
        let count: usize =
            frames.iter().map(|f| if let Frame::Snapshot(c) = f { c.entries.len() } else { 0 }).sum();
        assert_eq!(count, 3_000);
    }

    #[test]
    fn an_empty_snapshot_is_one_last_chunk() {
        let kind = UpdateKind::Snapshot { entries: vec![], unchanged: vec![] };
        let frames = frames(update(kind, None));
        assert!(
            matches!(frames.as_slice(), [Frame::Snapshot(chunk)] if chunk.last && chunk.position.is_some())
        );
    }

    #[test]
    fn only_the_last_part_of_a_big_delta_moves_the_position() {
        let removed = (0..3_000).map(|n| EntryId::new(&format!("gone-{n}-{}", "x".repeat(40))).unwrap());
        let kind = UpdateKind::Delta { upserts: entries(500), removed: removed.collect() };
        let frames = frames(update(kind, None));
        assert!(frames.len() > 1 && sizes(&frames) <= WATCH_FRAME_BYTES);
        let moved = |f: &Frame| matches!(f, Frame::Delta(delta) if delta.position.is_some());
        assert_eq!(frames.iter().map(moved).filter(|moved| *moved).count(), 1);
        assert!(frames.last().is_some_and(moved));
    }

    #[test]
    fn a_banned_agent_is_told_nothing_but_that() {
        let kind = UpdateKind::Snapshot { entries: entries(3), unchanged: vec![] };
        let frames = frames(update(kind, Some(NodeChange::Banned)));
        assert!(matches!(frames.as_slice(), [Frame::Node(state)] if state.state == i32::from(State::Banned)));
    }

    #[test]
    fn a_bundle_is_announced_by_number_and_digest() {
        let bundle = Bundle { sequence_number: 7, ..Bundle::empty(domain()) };
        let sent = notice(&BundleChange::Changed(Arc::new(bundle.clone())));
        assert_eq!((sent.sequence, sent.digest.len(), sent.removed), (7, 32, false));
        assert_eq!(sent.digest, bundle_digest(&bundle));
        assert!(notice(&BundleChange::Removed(domain())).removed);
    }

    #[test]
    fn entries_carry_their_end_and_no_parent() {
        let mut parts = entries(1).pop().unwrap().to_parts();
        parts.expires_at = Some(Timestamp::from_secs(5));
        let wire = wire_entry(&Entry::new(parts).unwrap());
        assert_eq!((wire.expires_at, wire.parent_id), (5, None));
    }
}
