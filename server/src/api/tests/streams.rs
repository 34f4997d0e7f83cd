//! The watch stream, and how streams end when the server or the agent's standing does.

use avouch_proto::agent_v1::{BanAgentRequest, DeleteAgentRequest, RenewAgentRequest};
use avouch_proto::convert::{DeniedReason, denied_reason};
use avouch_proto::entry_v1::{BatchUpdateEntryRequest, SyncAuthorizedEntriesRequest};
use avouch_proto::watch_v1::follow_request::Step as Ask;
use avouch_proto::watch_v1::follow_response::Frame;
use avouch_proto::watch_v1::watch_client::WatchClient;
use avouch_proto::watch_v1::{
    Ack, FetchBundlesRequest, FollowRequest, FollowResponse, Hello, Position, Renew, node_state::State,
};
use tokio::sync::mpsc::{self, Sender};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::*;

struct Follower {
    asks: Sender<FollowRequest>,
    frames: Streaming<FollowResponse>,
}

impl Follower {
    async fn open(world: &World, svid: &CallerSvid, position: Option<Position>) -> Self {
        Self::over(world.holder(svid), position).await
    }

    async fn over(channel: Channel, position: Option<Position>) -> Self {
        let (asks, stream) = mpsc::channel(4);
        let hello = Hello { version: 1, position, agent_version: "test".into(), known: vec![] };
        asks.send(FollowRequest { step: Some(Ask::Hello(hello)) }).await.unwrap();
        let mut client = WatchClient::new(channel);
        let frames = client.follow(ReceiverStream::new(stream)).await.unwrap().into_inner();
        let mut follower = Self { asks, frames };
        assert!(
            matches!(follower.frame().await, Frame::Welcome(w) if w.version == 1 && w.server_time_ms > 0)
        );
        follower
    }

    /// The next frame that is not about rules, which have tests of their own.
    async fn frame(&mut self) -> Frame {
        loop {
            match self.frames.message().await.unwrap().unwrap().frame.unwrap() {
                Frame::Rules(_) => {}
                frame => return frame,
            }
        }
    }

    /// The first update: standing, own bundle, snapshot. Gives the paths and the position.
    async fn snapshot(&mut self) -> (Vec<String>, Position) {
        assert!(matches!(self.frame().await, Frame::Node(n) if n.state == i32::from(State::Active)));
        assert!(matches!(self.frame().await, Frame::Bundle(b) if b.trust_domain == "example.org"));
        let Frame::Snapshot(chunk) = self.frame().await else { panic!("expected a snapshot") };
        assert!(chunk.last);
        (chunk.entries.into_iter().map(|e| e.spiffe_id.unwrap().path).collect(), chunk.position.unwrap())
    }

    async fn end(mut self) -> Status {
        loop {
            match self.frames.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended with OK"),
                Err(status) => return status,
            }
        }
    }
}

#[tokio::test]
async fn an_agent_gets_a_snapshot_and_then_what_changes_for_it() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    world.entry(&agent.id, "/first").await;
    let mut follower = Follower::open(&world, &agent, None).await;
    let (paths, position) = follower.snapshot().await;
    assert_eq!(paths, ["/first"]);
    follower
        .asks
        .send(FollowRequest { step: Some(Ask::Ack(Ack { revision: position.revision })) })
        .await
        .unwrap();
    world.entry(&id("/other"), "/not-mine").await;
    world.entry(&agent.id, "/second").await;
    let Frame::Delta(delta) = follower.frame().await else { panic!("expected a delta") };
    let paths: Vec<_> = delta.upserts.into_iter().map(|e| e.spiffe_id.unwrap().path).collect();
    assert_eq!(paths, ["/second"]);
    assert!(delta.position.unwrap().revision > position.revision);
}

#[tokio::test]
async fn an_agent_resumes_where_it_was() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    world.entry(&agent.id, "/first").await;
    let mut follower = Follower::open(&world, &agent, None).await;
    let (_, position) = follower.snapshot().await;
    drop(follower);
    world.entry(&agent.id, "/second").await;
    let mut follower = Follower::open(&world, &agent, Some(position)).await;
    loop {
        match follower.frame().await {
            Frame::Delta(delta) => {
                let paths: Vec<_> = delta.upserts.into_iter().map(|e| e.spiffe_id.unwrap().path).collect();
                assert_eq!(paths, ["/second"]);
                break;
            }
            Frame::Node(_) | Frame::Bundle(_) => {}
            other => panic!("expected a delta, came {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_ban_is_told_and_ends_the_stream() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    let mut follower = Follower::open(&world, &agent, None).await;
    follower.snapshot().await;
    let request = BanAgentRequest { id: Some(spiffe_id_to_wire(&agent.id)) };
    AgentClient::new(world.local()).ban_agent(request).await.unwrap();
    assert!(matches!(follower.frame().await, Frame::Node(n) if n.state == i32::from(State::Banned)));
    let status = follower.end().await;
    assert_eq!(denied_reason(&status), Some(DeniedReason::AgentBanned));
}

#[tokio::test]
async fn an_eviction_is_told_and_ends_the_stream() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    let mut follower = Follower::open(&world, &agent, None).await;
    follower.snapshot().await;
    let request = DeleteAgentRequest { id: Some(spiffe_id_to_wire(&agent.id)) };
    AgentClient::new(world.local()).delete_agent(request).await.unwrap();
    assert!(matches!(follower.frame().await, Frame::Node(n) if n.state == i32::from(State::Evicted)));
    let status = follower.end().await;
    assert_eq!(denied_reason(&status), Some(DeniedReason::AgentNotAttested));
}

#[tokio::test]
async fn an_svid_that_was_replaced_hears_nothing_more() {
    let world = World::start().await;
    let old = world.agent("t1").await;
    let mut follower = Follower::open(&world, &old, None).await;
    follower.snapshot().await;
    let params = Some(AgentX509svidParams { csr: new_csr(None) });
    let renewed =
        AgentClient::new(world.holder(&old)).renew_agent(RenewAgentRequest { params }).await.unwrap();
    let new = caller_of(&renewed.into_inner().svid.unwrap());
    Follower::open(&world, &new, None).await.snapshot().await;
    world.entry(&old.id, "/after").await;
    let status = loop {
        match follower.frames.message().await {
            Ok(Some(FollowResponse { frame: Some(Frame::Delta(delta)) })) => panic!("told {delta:?}"),
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended with OK"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

#[tokio::test]
async fn a_silent_stream_beats_and_says_where_it_stands() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    let mut follower = Follower::open(&world, &agent, None).await;
    let (_, position) = follower.snapshot().await;
    // From here on time passes as soon as nothing else happens.
    tokio::time::pause();
    let Frame::Heartbeat(beat) = follower.frame().await else { panic!("expected a heartbeat") };
    assert!(beat.server_time_ms > 0);
    assert_eq!(beat.position, Some(position));
}

#[tokio::test]
async fn a_renewal_is_answered_and_puts_no_heartbeat_off() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    let mut follower = Follower::open(&world, &agent, None).await;
    follower.snapshot().await;
    let mut beats = 0;
    for number in 1..=8 {
        let renew = Some(Ask::Renew(Renew { number }));
        follower.asks.send(FollowRequest { step: renew }).await.unwrap();
        loop {
            match follower.frame().await {
                Frame::Renewed(renewed) => break assert_eq!(renewed.number, number),
                Frame::Heartbeat(_) => beats += 1,
                other => panic!("{other:?}"),
            }
        }
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(3)).await;
        tokio::time::resume();
    }
    assert!(beats >= 1, "24 s passed");
}

#[tokio::test]
async fn a_newer_agent_is_answered_with_the_version_of_the_server() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    let hello = Hello { version: 7, ..Hello::default() };
    let (asks, stream) = mpsc::channel(1);
    asks.send(FollowRequest { step: Some(Ask::Hello(hello)) }).await.unwrap();
    let mut client = WatchClient::new(world.holder(&agent));
    let mut frames = client.follow(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let first = frames.message().await.unwrap().unwrap().frame.unwrap();
    assert!(matches!(first, Frame::Welcome(welcome) if welcome.version == 1));
}

#[tokio::test]
async fn what_a_slow_reader_missed_comes_merged_and_not_one_by_one() {
    const CHANGES: usize = 400;
    let world = World::start().await;
    let agent = world.agent("t1").await;
    // Each message has 20 kB; together they are more than windows, pipe and queue hold.
    let selector = |n| types::Selector { r#type: "t".into(), value: format!("{n:0200}") };
    let entry =
        types::Entry { selectors: (0..100).map(selector).collect(), ..wire_entry(&agent.id, "/busy") };
    let mut client = EntryClient::new(world.local());
    let request = BatchCreateEntryRequest { entries: vec![entry], output_mask: None };
    let made = client.batch_create_entry(request).await.unwrap().into_inner().results.remove(0);
    let entry_id = made.entry.unwrap().id;
    let mut follower = Follower::open(&world, &agent, None).await;
    follower.snapshot().await;
    for n in 0..CHANGES {
        let entry = types::Entry { id: entry_id.clone(), hint: n.to_string(), ..Default::default() };
        let input_mask = Some(types::EntryMask { hint: true, ..Default::default() });
        let request = BatchUpdateEntryRequest { entries: vec![entry], input_mask, output_mask: None };
        client.batch_update_entry(request).await.unwrap();
    }
    let mut deltas = 0;
    loop {
        let Frame::Delta(delta) = follower.frame().await else { continue };
        deltas += 1;
        if delta.upserts.iter().any(|e| e.hint == (CHANGES - 1).to_string()) {
            break;
        }
    }
    assert!(deltas < CHANGES, "{deltas} of {CHANGES}");
}

#[tokio::test]
async fn a_stream_ends_with_the_svid_that_opened_it() {
    let world = World::start().await;
    let mut agent = world.agent("t1").await;
    agent.not_after = clock::now().wall + std::time::Duration::from_millis(300);
    let mut follower = Follower::open(&world, &agent, None).await;
    follower.snapshot().await;
    assert_eq!(follower.end().await.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_stopping_server_ends_streams_with_unavailable() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    let mut follower = Follower::open(&world, &agent, None).await;
    follower.snapshot().await;
    world.gate.drain.begun().cancel();
    let status = follower.end().await;
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    world.stop.cancel();
}

#[tokio::test]
async fn a_stopping_server_ends_every_other_stream_the_same_way() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    let entry = |n: usize| wire_entry(&agent.id, &format!("/w{n}"));
    let request = BatchCreateEntryRequest { entries: (0..501).map(entry).collect(), output_mask: None };
    EntryClient::new(world.local()).batch_create_entry(request).await.unwrap();
    let (asks, stream) = mpsc::channel(1);
    asks.send(SyncAuthorizedEntriesRequest::default()).await.unwrap();
    let mut client = EntryClient::new(world.holder(&agent));
    let mut sync = client.sync_authorized_entries(ReceiverStream::new(stream)).await.unwrap().into_inner();
    while sync.message().await.unwrap().unwrap().more {}
    let (proofs, stream) = mpsc::channel::<AttestAgentRequest>(1);
    let mut client = AgentClient::new(world.nobody());
    let mut attest = client.attest_agent(ReceiverStream::new(stream)).await.unwrap().into_inner();
    world.gate.drain.begun().cancel();
    for code in [refusal(sync.message().await).0, refusal(attest.message().await).0] {
        assert_eq!(code, Code::Unavailable);
    }
    drop((asks, proofs));
}

#[tokio::test]
async fn an_old_connection_ends_its_stream_and_the_next_call_finds_a_new_one() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    let peer = Peer::Remote { address: "192.0.2.1:7".parse().unwrap(), leaf: Leaf::Svid(agent) };
    let age = std::time::Duration::from_millis(200);
    let channel = channel_of_age(world.tcp.clone(), peer, Some(age));
    let mut follower = Follower::over(channel.clone(), None).await;
    let (_, position) = follower.snapshot().await;
    assert_eq!(follower.end().await.code(), Code::Unavailable);
    Follower::over(channel, Some(position)).await;
}

#[tokio::test]
async fn a_stream_without_a_hello_or_a_version_is_refused() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    for (step, text) in [
        (Ask::Ack(Ack { revision: 1 }), "expected hello first"),
        (Ask::Hello(Hello::default()), "hello names no version, expected 1"),
    ] {
        let asks = tokio_stream::iter([FollowRequest { step: Some(step) }]);
        let mut client = WatchClient::new(world.holder(&agent));
        let mut frames = client.follow(asks).await.unwrap().into_inner();
        assert_eq!(refusal(frames.message().await), (Code::InvalidArgument, text.into()));
    }
}

#[tokio::test]
async fn bundles_are_fetched_by_name() {
    let world = World::start().await;
    let agent = world.agent("t1").await;
    let trust_domains = vec!["example.org".into(), "other.org".into(), "Bad".into()];
    let mut client = WatchClient::new(world.holder(&agent));
    let reply = client.fetch_bundles(FetchBundlesRequest { trust_domains }).await.unwrap().into_inner();
    let seen: Vec<_> = reply.bundles.into_iter().map(|b| b.trust_domain).collect();
    assert_eq!(seen, ["example.org"]);
}
