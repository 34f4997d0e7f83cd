//! The push stream of our own server, `avouch.watch.v1`.
//!
//! Never keeps more than a few frames: the reader sets the pace, and a server that falls silent is left.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use avouch_domain::{Bundle, EntryId, Timestamp, TrustDomain};
use avouch_engine::sync::{Frame, NodeStanding};
use avouch_proto::convert::{bundle_from_wire, delivered_entry, position_from_wire, position_to_wire};
use avouch_proto::revision::EntryRevision;
use avouch_proto::types;
use avouch_proto::watch_v1::follow_request::Step;
use avouch_proto::watch_v1::follow_response::Frame as WireFrame;
use avouch_proto::watch_v1::node_state::State;
use avouch_proto::watch_v1::watch_client::WatchClient;
use avouch_proto::watch_v1::{self, FetchBundlesRequest, FollowRequest, FollowResponse};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::rules::announced;
use super::{Announced, CallError, Following, Hello, Line, Said};
use crate::limits::{ANSWER_FROM_SERVER_MAX, FRAMES_WAITING, STREAM_SILENCE_MAX};

/// Version of the protocol spoken here.
const VERSION: u32 = 1;

pub(super) fn malformed(what: impl std::fmt::Display) -> CallError {
    CallError::Failed { code: Code::Internal, message: format!("malformed frame: {what}") }
}

pub(super) async fn follow(
    line: &Line,
    hello: &Hello,
    board: &watch::Sender<Option<Announced>>,
) -> Result<Following, CallError> {
    let (says, queue) = mpsc::channel::<Said>(FRAMES_WAITING);
    let first = tokio_stream::once(FollowRequest { step: Some(Step::Hello(say_hello(hello))) });
    let renews = Arc::new(AtomicBool::new(false));
    let answers_renewals = renews.clone();
    let step = move |said| {
        let step = match said {
            Said::Applied(revision) => Step::Ack(watch_v1::Ack { revision: revision.0 }),
            Said::Renew(_) if !answers_renewals.load(Ordering::Relaxed) => return None,
            Said::Renew(number) => Step::Renew(watch_v1::Renew { number }),
        };
        Some(FollowRequest { step: Some(step) })
    };
    let requests = first.chain(ReceiverStream::new(queue).filter_map(step));
    let mut client = WatchClient::new(line.channel.clone()).max_decoding_message_size(ANSWER_FROM_SERVER_MAX);
    let answers = client.follow(requests).await?.into_inner();
    let (send, frames) = mpsc::channel(FRAMES_WAITING);
    let agent = line.agent.clone();
    let beside = Beside { board: board.clone(), fleet: None, renews };
    tokio::spawn(async move { pump(answers, &agent, beside, &send).await });
    Ok(Following { frames, says })
}

/// Hands frames on until the stream ends, breaks, falls silent, or nobody reads.
async fn pump(
    mut answers: Streaming<FollowResponse>,
    agent: &avouch_domain::SpiffeId,
    mut beside: Beside,
    frames: &mpsc::Sender<Result<Frame, CallError>>,
) {
    let mut parts = watch_v1::Delta::default();
    loop {
        let read = tokio::select! {
            read = timeout(STREAM_SILENCE_MAX, answers.message()) => read,
            () = frames.closed() => return,
        };
        let frame = match read {
            Ok(Ok(Some(response))) => {
                beside.look(&response);
                gather(&mut parts, response).map_or(Ok(None), |r| frame(agent, r))
            }
            Ok(Ok(None)) => Err(CallError::Unreachable("the server ended the stream".to_owned())),
            Ok(Err(status)) => Err(status.into()),
            Err(_) => {
                let silence = STREAM_SILENCE_MAX.as_secs();
                Err(CallError::Unreachable(format!("the stream was silent for {silence} s")))
            }
        };
        let last = frame.is_err();
        let Some(frame) = frame.transpose() else { continue };
        if frames.send(frame).await.is_err() || last {
            return;
        }
    }
}

/// What the stream says to others than the shell: which rules are in force, and what the server answers.
struct Beside {
    board: watch::Sender<Option<Announced>>,
    fleet: Option<NonZeroU32>,
    /// The server answers renewals.
    renews: Arc<AtomicBool>,
}

impl Beside {
    fn look(&mut self, response: &FollowResponse) {
        match &response.frame {
            Some(WireFrame::Welcome(welcome)) => {
                self.fleet = NonZeroU32::new(welcome.agents);
                self.renews.store(welcome.renews, Ordering::Relaxed);
            }
            Some(WireFrame::Heartbeat(beat)) => self.fleet = NonZeroU32::new(beat.agents),
            Some(WireFrame::Rules(notice)) => match announced(notice.clone(), self.fleet) {
                Ok(new) => {
                    // Said anew on each stream: only what differs wakes anybody.
                    self.board.send_if_modified(|old| {
                        let same = |old: &Announced| old.epoch == new.epoch && old.rules == new.rules;
                        let differs = !old.as_ref().is_some_and(same);
                        if differs {
                            *old = Some(new);
                        }
                        differs
                    });
                }
                Err(error) => tracing::warn!(%error, subsystem_name = "rules", "Malformed notice left out"),
            },
            _ => {}
        }
    }
}

/// Puts the parts of one change together: only the last of them says where it leads. `None`: more follow.
fn gather(parts: &mut watch_v1::Delta, mut response: FollowResponse) -> Option<FollowResponse> {
    if let Some(WireFrame::Delta(delta)) = &mut response.frame {
        parts.upserts.append(&mut delta.upserts);
        parts.removed.append(&mut delta.removed);
        delta.position.as_ref()?;
        delta.upserts = std::mem::take(&mut parts.upserts);
        delta.removed = std::mem::take(&mut parts.removed);
    }
    Some(response)
}

fn say_hello(hello: &Hello) -> watch_v1::Hello {
    watch_v1::Hello {
        version: VERSION,
        position: hello.position.as_ref().map(position_to_wire),
        agent_version: hello.agent_version.clone(),
        known: hello
            .known
            .iter()
            .map(|(id, version)| EntryRevision {
                id: id.text().clone(),
                revision_number: version.revision,
                created_at: version.created_at.secs(),
            })
            .collect(),
    }
}

/// `None` for a frame of a newer server that means nothing here.
fn frame(agent: &avouch_domain::SpiffeId, wire: FollowResponse) -> Result<Option<Frame>, CallError> {
    let Some(frame) = wire.frame else { return Ok(None) };
    Ok(Some(match frame {
        WireFrame::Welcome(welcome) => Frame::Welcome {
            server_time: Timestamp(welcome.server_time_ms),
            agents: NonZeroU32::new(welcome.agents),
        },
        WireFrame::Snapshot(chunk) => Frame::Snapshot {
            entries: entries(agent, &chunk.entries),
            unchanged: ids(&chunk.unchanged),
            position: position(chunk.position.as_ref())?,
            last: chunk.last,
        },
        WireFrame::Delta(delta) => Frame::Delta {
            upserts: entries(agent, &delta.upserts),
            removed: ids(&delta.removed),
            position: position(delta.position.as_ref())?,
        },
        WireFrame::Bundle(notice) => Frame::BundleNotice {
            domain: TrustDomain::new(&notice.trust_domain).map_err(malformed)?,
            digest: notice.digest,
            removed: notice.removed,
        },
        WireFrame::Node(node) => match node.state() {
            State::Banned => Frame::Node(NodeStanding::Banned),
            State::Evicted => Frame::Node(NodeStanding::Evicted),
            State::Active | State::Unspecified => Frame::Node(NodeStanding::Active),
        },
        WireFrame::Renewed(renewed) => Frame::Renewed(renewed.number),
        WireFrame::Away(away) => Frame::Away(Duration::from_secs(away.seconds.into())),
        WireFrame::Heartbeat(beat) => Frame::Heartbeat {
            agents: NonZeroU32::new(beat.agents),
            server_time: Timestamp(beat.server_time_ms),
            position: beat.position.as_ref().map(|p| position(Some(p))).transpose()?,
        },
        // Looked at already.
        WireFrame::Rules(_) => return Ok(None),
        WireFrame::Resync(resync) => {
            Frame::Resync { reason: resync.reason, history_differs: resync.history_differs }
        }
    }))
}

fn position(wire: Option<&watch_v1::Position>) -> Result<avouch_domain::LogPosition, CallError> {
    position_from_wire(wire.ok_or_else(|| malformed("no position"))?).map_err(malformed)
}

fn ids(wire: &[String]) -> Vec<EntryId> {
    wire.iter().filter_map(|id| EntryId::new(id).ok()).collect()
}

fn entries(agent: &avouch_domain::SpiffeId, wire: &[types::Entry]) -> Vec<avouch_domain::Entry> {
    let one = |entry: &types::Entry| match delivered_entry(agent, entry) {
        Ok(entry) => Some(entry),
        Err(error) => {
            tracing::warn!(entry_id = %entry.id, %error, "Malformed entry left out");
            None
        }
    };
    wire.iter().filter_map(one).collect()
}

pub(super) async fn fetch_bundles(line: &Line, domains: &[TrustDomain]) -> Result<Vec<Bundle>, CallError> {
    let mut client = WatchClient::new(line.channel.clone()).max_decoding_message_size(ANSWER_FROM_SERVER_MAX);
    let trust_domains = domains.iter().map(ToString::to_string).collect();
    let answer = client.fetch_bundles(FetchBundlesRequest { trust_domains }).await?.into_inner();
    answer.bundles.iter().map(|wire| bundle_from_wire(wire).map_err(malformed)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(removed: &str, last: bool) -> FollowResponse {
        let position = last.then(watch_v1::Position::default);
        let delta = watch_v1::Delta { upserts: Vec::new(), removed: vec![removed.into()], position };
        FollowResponse { frame: Some(WireFrame::Delta(delta)) }
    }

    #[test]
    fn a_notice_of_rules_goes_beside_the_shell_and_wakes_nobody_twice() {
        let (board, mut seen) = watch::channel(None);
        let mut beside = Beside { board, fleet: None, renews: Arc::default() };
        let notice = |number| {
            let notice = watch_v1::RulesNotice { number, digest: vec![1; 32], ..Default::default() };
            FollowResponse { frame: Some(WireFrame::Rules(notice)) }
        };
        let welcome = watch_v1::Welcome { agents: 7, ..Default::default() };
        beside.look(&FollowResponse { frame: Some(WireFrame::Welcome(welcome)) });
        beside.look(&notice(3));
        assert!(seen.has_changed().unwrap());
        let first = seen.borrow_and_update().clone().unwrap();
        assert_eq!((first.rules.map(|rules| rules.number), first.fleet), (Some(3), NonZeroU32::new(7)));
        beside.look(&notice(3));
        assert!(!seen.has_changed().unwrap());
        beside.look(&notice(4));
        assert!(seen.has_changed().unwrap());
        let agent = avouch_domain::fixtures::id("/spire/agent/x");
        assert!(matches!(frame(&agent, notice(5)), Ok(None)));
    }

    #[test]
    fn the_parts_of_a_change_are_applied_together() {
        let mut parts = watch_v1::Delta::default();
        assert_eq!(gather(&mut parts, delta("a", false)), None);
        let whole = gather(&mut parts, delta("b", true)).and_then(|r| r.frame);
        assert!(matches!(whole, Some(WireFrame::Delta(d)) if d.removed == ["a", "b"]));
        let next = gather(&mut parts, delta("c", true)).and_then(|r| r.frame);
        assert!(matches!(next, Some(WireFrame::Delta(d)) if d.removed == ["c"]));
    }
}
