//! Where the sync machine stands, as the simulator counts it: every listed transition must be visited.
//!
//! Never compiled into a product.

use super::{AgentRefusal, Failure, Frame, Input, Mode, NodeStanding, Sync};

/// What the machine is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not started, or refused: waits for a new SVID.
    Idle,
    /// No stream; one is opened when its time comes.
    Apart,
    /// A stream is being opened.
    Opening,
    /// The stream is welcomed, nothing of it is applied.
    Greeted,
    /// Everything told so far is applied.
    Following,
    /// Asks SyncAuthorizedEntries from time to time.
    Polling,
    /// Asks GetAuthorizedEntries from time to time.
    PollingAll,
}

impl Sync {
    /// See [`Phase`].
    #[must_use]
    pub fn phase(&self) -> Phase {
        match (self.running, self.mode, &self.stream) {
            (false, _, _) => Phase::Idle,
            (_, Mode::SyncEntries, _) => Phase::Polling,
            (_, Mode::GetEntries, _) => Phase::PollingAll,
            (_, Mode::Follow, None) => Phase::Apart,
            (_, Mode::Follow, Some(stream)) if stream.current => Phase::Following,
            (_, Mode::Follow, Some(stream)) if stream.welcomed => Phase::Greeted,
            (_, Mode::Follow, Some(_)) => Phase::Opening,
        }
    }
}

fn of_failure(failure: &Failure, names: [&'static str; 3]) -> &'static str {
    let [unimplemented, refused, away] = names;
    match failure {
        Failure::Unimplemented => unimplemented,
        Failure::Refused(AgentRefusal::Banned) | Failure::Refused(_) => refused,
        Failure::Away(_) => away,
    }
}

/// The kind of an input, in the words of [`TRANSITIONS`].
#[must_use]
pub fn kind(input: &Input) -> &'static str {
    match input {
        Input::Start => "start",
        Input::Frame { frame, .. } => match frame {
            Frame::Welcome { .. } => "welcome",
            Frame::Snapshot { .. } => "snapshot",
            Frame::Delta { .. } => "delta",
            Frame::BundleNotice { removed: false, .. } => "bundle notice",
            Frame::BundleNotice { removed: true, .. } => "bundle gone",
            Frame::Node(NodeStanding::Active) => "active",
            Frame::Node(NodeStanding::Banned) => "banned",
            Frame::Node(NodeStanding::Evicted) => "evicted",
            Frame::Heartbeat { .. } => "heartbeat",
            Frame::Renewed(_) => "renewed",
            Frame::Away(_) => "away",
            Frame::Resync { .. } => "resync",
        },
        Input::FollowEnded { failure, .. } => {
            of_failure(failure, ["no stream there", "stream refused", "stream lost"])
        }
        Input::BundlesFetched { .. } => "bundles",
        Input::BundlesFailed => "bundles lost",
        Input::Polled(_) => "polled",
        Input::PollFailed(failure) => of_failure(failure, ["poll unknown", "poll refused", "poll lost"]),
        Input::Refused(_) => "refused",
        Input::Restore { .. } => "restore",
        Input::Tick => "tick",
    }
}

/// Phase before, input, phase after.
pub type Transition = (Phase, &'static str, Phase);

/// Everything that can happen to an agent whose servers tell the truth.
pub const TRANSITIONS: &[Transition] = {
    use Phase::*;
    &[
        (Idle, "heartbeat", Idle),
        (Idle, "poll lost", Idle),
        (Idle, "refused", Idle),
        (Idle, "restore", Idle),
        (Idle, "start", Opening),
        (Idle, "start", Polling),
        (Idle, "start", PollingAll),
        (Idle, "stream lost", Idle),
        (Idle, "tick", Idle),
        (Apart, "active", Apart),
        (Apart, "bundle notice", Apart),
        (Apart, "bundles lost", Apart),
        (Apart, "bundles", Apart),
        (Apart, "refused", Idle),
        (Apart, "tick", Apart),
        (Apart, "tick", Opening),
        (Apart, "welcome", Apart),
        (Opening, "bundles lost", Opening),
        (Opening, "bundles", Opening),
        (Opening, "late word", Opening),
        (Opening, "no stream there", Polling),
        (Opening, "refused", Idle),
        (Opening, "stream lost", Apart),
        (Opening, "stream refused", Idle),
        (Opening, "tick", Opening),
        (Opening, "welcome", Greeted),
        (Greeted, "active", Greeted),
        (Greeted, "bundle notice", Greeted),
        (Greeted, "bundles lost", Greeted),
        (Greeted, "bundles", Greeted),
        (Greeted, "delta", Following),
        (Greeted, "late word", Greeted),
        (Greeted, "refused", Idle),
        (Greeted, "resync", Greeted),
        (Greeted, "snapshot", Following),
        (Greeted, "snapshot", Greeted),
        (Greeted, "stream lost", Apart),
        (Greeted, "tick", Greeted),
        (Following, "banned", Idle),
        (Following, "bundle gone", Following),
        (Following, "bundle notice", Following),
        (Following, "bundles lost", Following),
        (Following, "bundles", Following),
        (Following, "delta", Following),
        (Following, "evicted", Idle),
        (Following, "heartbeat", Following),
        (Following, "late word", Following),
        (Following, "refused", Idle),
        (Following, "stream lost", Apart),
        (Following, "tick", Following),
        (Polling, "poll lost", Polling),
        (Polling, "poll refused", Idle),
        (Polling, "poll unknown", PollingAll),
        (Polling, "polled", Polling),
        (Polling, "refused", Idle),
        (Polling, "stream lost", Polling),
        (Polling, "tick", Polling),
        (Polling, "welcome", Greeted),
        (PollingAll, "poll lost", PollingAll),
        (PollingAll, "poll refused", Idle),
        (PollingAll, "polled", PollingAll),
        (PollingAll, "refused", Idle),
        (PollingAll, "stream lost", PollingAll),
        (PollingAll, "tick", PollingAll),
        (PollingAll, "welcome", Greeted),
    ]
};
