//! The watch stream, and how streams end when the server or the agent's standing does.

use avouch_proto::agent_v1::BanAgentRequest;
use avouch_proto::convert::{DeniedReason, denied_reason};
use avouch_proto::watch_v1::follow_request::Step as Ask;
use avouch_proto::watch_v1::follow_response::Frame;
use avouch_proto::watch_v1::watch_client::WatchClient;
use avouch_proto::watch_v1::{
    Ack, FetchBundlesRequest, FollowRequest, FollowResponse, Hello, Position, node_state::State,
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

    async fn frame(&mut self) -> Frame {
        self.frames.message().await.unwrap().unwrap().frame.unwrap()
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
