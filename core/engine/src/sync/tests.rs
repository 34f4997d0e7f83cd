//! Rules of following a server, one per test.

use std::collections::BTreeMap;
use std::time::Duration;

use avouch_domain::fixtures::{domain, entry};
use avouch_domain::{Bundle, Entry, EntryId, Epoch, Head, LogPosition, Now, Revision, Tick, Timestamp};

use super::*;

struct Rig {
    sync: Sync,
    now: Now,
    entries: BTreeMap<EntryId, Entry>,
    opens: Vec<(StreamId, Option<LogPosition>, usize)>,
    acks: Vec<u64>,
    fetches: usize,
    polls: Vec<bool>,
    alarms: usize,
    resyncs: usize,
    refusals: Vec<AgentRefusal>,
    synced: usize,
    renewed: Vec<u64>,
    away: Vec<Duration>,
}

fn at(epoch: i64, revision: u64) -> LogPosition {
    let head = Head([revision as u8; 32]);
    LogPosition { epoch: Epoch { started: epoch, random: 1 }, revision: Revision(revision), head }
}

impl Rig {
    fn new() -> Self {
        let settings = Settings { poll_interval: Duration::from_secs(5), sync_entries: true, seed: 3 };
        let mut rig = Self {
            sync: Sync::new(settings),
            now: Now { wall: Timestamp::from_secs(1000), mono: Tick(0) },
            entries: BTreeMap::new(),
            opens: Vec::new(),
            acks: Vec::new(),
            fetches: 0,
            polls: Vec::new(),
            alarms: 0,
            resyncs: 0,
            refusals: Vec::new(),
            synced: 0,
            renewed: Vec::new(),
            away: Vec::new(),
        };
        rig.put(Input::Start);
        rig
    }

    fn put(&mut self, input: Input) {
        self.sync.handle(self.now, input);
        while let Some(effect) = self.sync.poll() {
            match effect {
                Effect::OpenFollow { stream, position, known } => {
                    self.opens.push((stream, position, known.len()));
                }
                Effect::Ack { revision, .. } => self.acks.push(revision.0),
                Effect::FetchBundles { .. } => self.fetches += 1,
                Effect::Poll { whole, .. } => self.polls.push(whole),
                Effect::Entries { upserts, removed } => {
                    for id in removed {
                        self.entries.remove(&id);
                    }
                    self.entries.extend(upserts.into_iter().map(|e| (e.id.clone(), e)));
                }
                Effect::Synced => self.synced += 1,
                Effect::Renewed(number) => self.renewed.push(number),
                Effect::Away(longer) => self.away.push(longer),
                Effect::Refused(refusal) => self.refusals.push(refusal),
                Effect::Alarm(_) => self.alarms += 1,
                Effect::Resync(_) => self.resyncs += 1,
                Effect::CloseFollow { .. }
                | Effect::Bundles { .. }
                | Effect::Connected
                | Effect::ServerTime(_) => {}
            }
        }
    }

    fn pass(&mut self, d: Duration) {
        self.now = Now { wall: self.now.wall + d, mono: self.now.mono + d };
        self.put(Input::Tick);
    }

    fn stream(&self) -> StreamId {
        self.opens.last().unwrap().0
    }

    fn frame(&mut self, frame: Frame) {
        self.put(Input::Frame { stream: self.stream(), frame });
    }

    fn welcome(&mut self) {
        self.frame(Frame::Welcome { server_time: self.now.wall, agents: None });
    }

    fn snapshot(&mut self, ids: &[&str], unchanged: &[&str], position: LogPosition, last: bool) {
        let entries = ids.iter().map(|id| entry(id, "/w", "/n", &["u:1"])).collect();
        let unchanged = unchanged.iter().map(|id| EntryId::new(id).unwrap()).collect();
        self.frame(Frame::Snapshot { entries, unchanged, position, last });
    }

    fn delta(&mut self, ids: &[&str], removed: &[&str], position: LogPosition) {
        let upserts = ids.iter().map(|id| entry(id, "/w", "/n", &["u:1"])).collect();
        let removed = removed.iter().map(|id| EntryId::new(id).unwrap()).collect();
        self.frame(Frame::Delta { upserts, removed, position });
    }

    fn ids(&self) -> Vec<&str> {
        self.entries.keys().map(EntryId::as_str).collect()
    }

    fn lost(&mut self) {
        self.put(Input::FollowEnded { stream: self.stream(), failure: Failure::Away("lost".into()) });
    }
}

#[test]
fn a_snapshot_is_applied_only_when_its_last_part_is_there() {
    let mut rig = Rig::new();
    rig.welcome();
    rig.snapshot(&["a"], &[], at(1, 5), false);
    assert!(rig.ids().is_empty() && rig.synced == 0);
    rig.snapshot(&["b"], &[], at(1, 5), true);
    assert_eq!((rig.ids(), rig.synced, rig.acks.as_slice()), (vec!["a", "b"], 1, [5].as_slice()));
}

#[test]
fn a_delta_moves_the_position_and_a_reconnect_shows_it() {
    let mut rig = Rig::new();
    rig.welcome();
    rig.snapshot(&["a"], &[], at(1, 5), true);
    rig.delta(&["b"], &["a"], at(1, 9));
    assert_eq!(rig.ids(), ["b"]);
    rig.lost();
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.opens.last().map(|o| (o.1, o.2)), Some((Some(at(1, 9)), 1)));
}

#[test]
fn a_snapshot_after_a_reconnect_drops_what_it_does_not_name() {
    let mut rig = Rig::new();
    rig.welcome();
    rig.snapshot(&["a", "b", "c"], &[], at(1, 5), true);
    rig.lost();
    rig.pass(Duration::from_secs(1));
    rig.welcome();
    rig.snapshot(&["d"], &["a"], at(1, 8), true);
    assert_eq!(rig.ids(), ["a", "d"]);
}

#[test]
fn an_older_position_is_refused() {
    for older in [at(1, 4), at(0, 99)] {
        let mut rig = Rig::new();
        rig.welcome();
        rig.snapshot(&["a"], &[], at(1, 5), true);
        rig.lost();
        rig.pass(Duration::from_secs(1));
        rig.welcome();
        rig.snapshot(&["z"], &[], older, true);
        assert_eq!((rig.ids(), rig.alarms), (vec!["a"], 1));
        assert_eq!(rig.sync.position(), Some(at(1, 5)));
    }
}

#[test]
fn a_newer_life_of_the_store_is_taken_as_a_whole() {
    let mut rig = Rig::new();
    rig.welcome();
    rig.snapshot(&["a"], &[], at(1, 5), true);
    rig.delta(&["b"], &[], at(2, 6));
    assert_eq!((rig.ids(), rig.alarms), (vec!["a"], 1), "a delta can't lead into another life");
    rig.pass(Duration::from_secs(1));
    rig.welcome();
    rig.snapshot(&["c"], &[], at(2, 1), true);
    assert_eq!(rig.ids(), ["c"]);
}

#[test]
fn another_history_at_the_same_revision_starts_over() {
    let mut rig = Rig::new();
    rig.welcome();
    rig.snapshot(&["a"], &[], at(1, 5), true);
    let mut other = at(1, 5);
    other.head = Head([99; 32]);
    rig.frame(Frame::Heartbeat { server_time: rig.now.wall, position: Some(other), agents: None });
    assert_eq!(rig.alarms, 1);
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.opens.len(), 2);
}

#[test]
fn an_answer_counts_only_where_everything_before_it_is_applied() {
    let mut rig = Rig::new();
    rig.welcome();
    rig.frame(Frame::Renewed(1));
    assert!(rig.renewed.is_empty(), "a stop may be in what is still to come");
    rig.snapshot(&["a"], &[], at(1, 5), true);
    rig.frame(Frame::Renewed(2));
    assert_eq!(rig.renewed, [2]);
    rig.frame(Frame::Resync { reason: "x".into(), history_differs: false });
    rig.frame(Frame::Renewed(3));
    assert_eq!(rig.renewed, [2]);
}

#[test]
fn a_server_that_goes_away_is_believed_only_where_everything_before_that_is_applied() {
    let mut rig = Rig::new();
    let minute = Duration::from_secs(60);
    rig.welcome();
    rig.frame(Frame::Away(minute));
    assert!(rig.away.is_empty(), "a stop may be in what is still to come");
    rig.snapshot(&["a"], &[], at(1, 5), true);
    rig.frame(Frame::Away(minute));
    assert_eq!(rig.away, [minute]);
}

#[test]
fn a_late_word_of_an_older_stream_is_ignored() {
    let mut rig = Rig::new();
    rig.put(Input::Start);
    rig.put(Input::Frame { stream: 1, frame: Frame::Node(NodeStanding::Banned) });
    rig.put(Input::FollowEnded { stream: 1, failure: Failure::Unimplemented });
    assert!(rig.refusals.is_empty() && rig.polls.is_empty());
}

#[test]
fn a_server_without_a_stream_is_polled_and_asked_again_later() {
    let mut rig = Rig::new();
    rig.put(Input::FollowEnded { stream: 1, failure: Failure::Unimplemented });
    assert_eq!(rig.polls, [false]);
    rig.put(Input::PollFailed(Failure::Unimplemented));
    assert_eq!(rig.polls, [false, true]);
    rig.put(Input::Polled(Polled { entries: vec![entry("a", "/a", "/n", &["u:1"])], ..Polled::default() }));
    assert_eq!((rig.ids(), rig.synced), (vec!["a"], 1));
    rig.pass(Duration::from_secs(6));
    assert_eq!(rig.polls.len(), 3);
    rig.put(Input::Polled(Polled::default()));
    assert!(rig.ids().is_empty(), "an empty answer means that nothing is authorized");
    rig.pass(Duration::from_secs(700));
    assert_eq!(rig.opens.len(), 2);
}

#[test]
fn failing_polls_are_spaced_out() {
    let mut rig = Rig::new();
    rig.put(Input::FollowEnded { stream: 1, failure: Failure::Unimplemented });
    let mut polls = 0;
    for _ in 0..3600 {
        if !rig.polls.is_empty() {
            polls += rig.polls.len();
            rig.polls.clear();
            rig.put(Input::PollFailed(Failure::Away("x".into())));
        }
        rig.pass(Duration::from_secs(1));
    }
    assert!((15..30).contains(&polls), "{polls} in an hour");
}

#[test]
fn a_refused_agent_tries_nothing_until_it_is_told_to_start() {
    let mut rig = Rig::new();
    rig.welcome();
    rig.frame(Frame::Node(NodeStanding::Evicted));
    assert_eq!(rig.refusals, [AgentRefusal::NotAttested]);
    rig.pass(Duration::from_secs(3600));
    assert_eq!((rig.opens.len(), rig.sync.next_wakeup()), (1, None));
    rig.put(Input::Start);
    assert_eq!(rig.opens.len(), 2);
}

#[test]
fn the_first_sync_waits_for_the_bundles_announced_before_it() {
    let mut rig = Rig::new();
    rig.welcome();
    rig.frame(Frame::BundleNotice { domain: domain(), digest: vec![1], removed: false });
    rig.snapshot(&["a"], &[], at(1, 1), true);
    assert_eq!((rig.fetches, rig.synced), (1, 0));
    rig.put(Input::BundlesFetched { bundles: vec![Bundle::empty(domain())] });
    assert_eq!(rig.synced, 1);
    rig.frame(Frame::BundleNotice { domain: domain(), digest: vec![1], removed: false });
    assert_eq!(rig.fetches, 1, "a known digest is not fetched again");
}

#[test]
fn a_bundle_fetch_that_failed_is_repeated() {
    let mut rig = Rig::new();
    rig.welcome();
    rig.frame(Frame::BundleNotice { domain: domain(), digest: vec![1], removed: false });
    rig.put(Input::BundlesFailed);
    assert_eq!(rig.fetches, 1);
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.fetches, 2);
}

#[test]
fn the_first_sync_is_not_done_before_the_bundles_announced_are_here() {
    let mut rig = Rig::new();
    rig.welcome();
    rig.frame(Frame::BundleNotice { domain: domain(), digest: vec![1], removed: false });
    rig.snapshot(&["a"], &[], at(1, 1), true);
    rig.put(Input::BundlesFailed);
    assert_eq!(rig.synced, 0, "a failed fetch is no knowledge");
    rig.pass(Duration::from_secs(1));
    rig.put(Input::BundlesFetched { bundles: vec![Bundle::empty(domain())] });
    assert_eq!(rig.synced, 1);
}

#[test]
fn a_revision_is_acknowledged_only_when_the_bundles_announced_before_it_are_here() {
    let mut rig = Rig::new();
    rig.welcome();
    rig.snapshot(&["a"], &[], at(1, 1), true);
    rig.frame(Frame::BundleNotice { domain: domain(), digest: vec![2], removed: false });
    rig.delta(&[], &[], at(1, 2));
    assert_eq!(rig.acks, [1]);
    rig.put(Input::BundlesFailed);
    rig.delta(&["b"], &[], at(1, 3));
    assert_eq!(rig.acks, [1], "a failed fetch is no knowledge");
    rig.pass(Duration::from_secs(1));
    rig.put(Input::BundlesFetched { bundles: vec![Bundle::empty(domain())] });
    assert_eq!(rig.acks, [1, 3]);
}

#[test]
fn a_heartbeat_moves_nothing_before_the_stream_has_begun() {
    let mut rig = Rig::new();
    rig.welcome();
    rig.snapshot(&["a"], &[], at(1, 5), true);
    rig.lost();
    rig.pass(Duration::from_secs(1));
    rig.welcome();
    let beat =
        |position| Frame::Heartbeat { server_time: Timestamp(0), position: Some(position), agents: None };
    rig.snapshot(&["a"], &[], at(1, 9), false);
    rig.frame(beat(at(1, 9)));
    assert_eq!(rig.sync.position(), Some(at(1, 5)), "half a snapshot is no position");
    rig.snapshot(&["b"], &[], at(1, 9), true);
    rig.frame(beat(at(1, 11)));
    assert_eq!((rig.ids(), rig.sync.position()), (vec!["a", "b"], Some(at(1, 11))));
}

#[test]
fn a_server_that_starts_over_is_an_alarm_only_if_it_has_another_history() {
    for (history_differs, expected) in [(false, (0, 1)), (true, (1, 0))] {
        let mut rig = Rig::new();
        rig.welcome();
        rig.snapshot(&["a"], &[], at(1, 5), true);
        rig.lost();
        rig.pass(Duration::from_secs(1));
        rig.welcome();
        rig.frame(Frame::Resync { reason: "because".into(), history_differs });
        rig.snapshot(&["b"], &[], at(1, 6), true);
        assert_eq!((rig.alarms, rig.resyncs), expected);
        assert_eq!(rig.ids(), ["b"]);
    }
}

#[test]
fn commits_that_were_lost_are_an_alarm_even_if_the_server_does_not_know() {
    let mut rig = Rig::new();
    rig.welcome();
    rig.snapshot(&["a"], &[], at(1, 5), true);
    rig.lost();
    rig.pass(Duration::from_secs(1));
    rig.welcome();
    rig.frame(Frame::Resync { reason: "because".into(), history_differs: false });
    rig.snapshot(&["b"], &[], at(1, 4), true);
    assert_eq!((rig.alarms, rig.resyncs), (1, 1));
}

/// A later life that was told what the one before held.
fn reborn(position: Option<LogPosition>, held: &[&str]) -> Rig {
    let mut rig = Rig::new();
    rig.sync = Sync::new(rig.sync.settings.clone());
    let version = Version { revision: 0, created_at: Timestamp(0) };
    let known = held.iter().map(|id| (EntryId::new(id).unwrap(), version)).collect();
    rig.put(Input::Restore { position, known });
    rig.put(Input::Start);
    rig
}

#[test]
fn a_later_life_resumes_where_the_one_before_stood_and_is_synced_once_the_server_goes_on_from_there() {
    let mut rig = reborn(Some(at(1, 5)), &["a", "b"]);
    assert_eq!(rig.opens.last(), Some(&(1, Some(at(1, 5)), 2)));
    rig.welcome();
    assert_eq!((rig.synced, rig.sync.is_synced()), (0, false));
    rig.delta(&["c"], &["a"], at(1, 7));
    assert_eq!((rig.synced, rig.ids(), rig.acks.as_slice()), (1, vec!["c"], [7].as_slice()));
}

#[test]
fn a_snapshot_drops_what_a_later_life_held_and_the_server_does_not_name() {
    let mut rig = reborn(None, &["a", "b"]);
    rig.entries = [("a", "/w"), ("b", "/w")]
        .map(|(i, p)| entry(i, p, "/n", &["u:1"]))
        .map(|e| (e.id.clone(), e))
        .into();
    rig.welcome();
    rig.snapshot(&["c"], &["b"], at(1, 7), true);
    assert_eq!((rig.ids(), rig.synced), (vec!["b", "c"], 1));
}

#[test]
fn a_position_is_left_to_a_later_life_only_with_the_bundles_announced_before_it() {
    let mut rig = Rig::new();
    rig.welcome();
    rig.snapshot(&["a"], &[], at(1, 1), true);
    assert_eq!(rig.sync.settled_position(), Some(at(1, 1)));
    rig.frame(Frame::BundleNotice { domain: domain(), digest: vec![2], removed: false });
    rig.delta(&[], &[], at(1, 2));
    assert_eq!((rig.sync.position(), rig.sync.settled_position()), (Some(at(1, 2)), None));
    rig.put(Input::BundlesFetched { bundles: vec![Bundle::empty(domain())] });
    assert_eq!(rig.sync.settled_position(), Some(at(1, 2)));
}

#[test]
fn a_server_that_is_back_is_found_within_a_second_and_not_in_step() {
    let mut pauses = std::collections::BTreeSet::new();
    let mut rig = Rig::new();
    for _ in 0..50 {
        rig.lost();
        let wake = rig.sync.next_wakeup().unwrap().since(rig.now.wall);
        assert!(wake <= Duration::from_secs(1), "{wake:?}");
        pauses.insert(wake);
        rig.pass(wake);
    }
    assert!(pauses.len() > 20, "{pauses:?}");
}

#[test]
fn a_server_is_reached_while_its_stream_is_open() {
    let mut rig = Rig::new();
    assert!(!rig.sync.is_reached());
    rig.welcome();
    assert!(rig.sync.is_reached());
    rig.lost();
    assert!(!rig.sync.is_reached());
}
