//! Any order of changes, losses and reconnects: what is held is always what the server had at the position shown.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use avouch_domain::fixtures::{domain, entry_parts};
use avouch_domain::{Bundle, Entry, EntryId, Epoch, Head, LogPosition, Now, Revision, Tick, Timestamp};
use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Event {
    Put(u8),
    Delete(u8),
    /// The own bundle changes.
    Rotate,
    Deliver(u8),
    Beat,
    Break,
    Answer {
        fetched: bool,
    },
    Pass(u16),
    /// The agent has a new SVID, and opens a new stream while the old one may still talk.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..6u8).prop_map(Event::Put),
        2 => (0..6u8).prop_map(Event::Delete),
        2 => Just(Event::Rotate),
        8 => (1..5u8).prop_map(Event::Deliver),
        2 => Just(Event::Beat),
        2 => Just(Event::Break),
        4 => any::<bool>().prop_map(|fetched| Event::Answer { fetched }),
        3 => (0..20_000u16).prop_map(Event::Pass),
        1 => Just(Event::Restart),
    ]
}

type Held = BTreeMap<EntryId, Entry>;

/// A server that shows everything to one agent, and the line between them.
struct World {
    sync: Sync,
    now: Now,
    /// What there was at each revision, and which edition of the bundle.
    log: Vec<(Held, u64)>,
    wire: VecDeque<Frame>,
    stream: Option<StreamId>,
    /// What the stream has been told of, as an index into the log.
    told: usize,
    held: Held,
    edition: u64,
    fetching: bool,
    position: Option<LogPosition>,
    revisions: i64,
}

fn at(revision: usize) -> LogPosition {
    let epoch = Epoch { started: 1, random: 1 };
    LogPosition { epoch, revision: Revision(revision as u64), head: Head([revision as u8; 32]) }
}

impl World {
    fn new() -> Self {
        let settings = Settings { poll_interval: Duration::from_secs(5), sync_entries: true, seed: 1 };
        let mut world = Self {
            sync: Sync::new(settings),
            now: Now { wall: Timestamp::from_secs(1000), mono: Tick(0) },
            log: vec![(Held::new(), 0)],
            wire: VecDeque::new(),
            stream: None,
            told: 0,
            held: Held::new(),
            edition: 0,
            fetching: false,
            position: None,
            revisions: 0,
        };
        world.put(Input::Start);
        world
    }

    fn latest(&self) -> &(Held, u64) {
        self.log.last().unwrap()
    }

    fn put(&mut self, input: Input) {
        self.sync.handle(self.now, input);
        while let Some(effect) = self.sync.poll() {
            match effect {
                Effect::OpenFollow { stream, position, known } => self.open(stream, position, &known),
                Effect::CloseFollow { .. } => self.stream = None,
                Effect::Ack { stream, revision } => {
                    assert_eq!(Some(stream), self.stream);
                    let (_, edition) = &self.log[revision.0 as usize];
                    assert!(self.edition >= *edition, "acknowledged without its bundle");
                }
                Effect::FetchBundles { .. } => self.fetching = true,
                Effect::Entries { upserts, removed } => {
                    removed.iter().for_each(|id| drop(self.held.remove(id)));
                    self.held.extend(upserts.into_iter().map(|e| (e.id.clone(), e)));
                }
                Effect::Alarm(why) => panic!("the server never lies: {why}"),
                Effect::Resync(why) => panic!("nobody falls behind here: {why}"),
                Effect::Poll { .. } | Effect::Refused(_) => panic!("{effect:?}"),
                Effect::Bundles { .. }
                | Effect::Synced
                | Effect::Connected
                | Effect::Renewed(_)
                | Effect::Away(_)
                | Effect::ServerTime(_) => {}
            }
        }
        let position = self.sync.position();
        if let Some(after) = position {
            assert_eq!(self.held, self.log[after.revision.0 as usize].0, "not what there was at {after:?}");
            assert!(self.position.is_none_or(|before| before.revision <= after.revision), "INV-6");
        }
        self.position = position;
    }

    fn open(&mut self, stream: StreamId, position: Option<LogPosition>, known: &Known) {
        self.wire.clear();
        self.stream = Some(stream);
        self.told = self.log.len() - 1;
        let bundle = self.notice();
        self.wire.push_back(Frame::Welcome { server_time: self.now.wall, agents: None });
        self.wire.push_back(bundle);
        let from = position.map(|p| p.revision.0 as usize);
        if let Some(from) = from.filter(|from| from % 2 == 0) {
            self.wire.push_back(self.delta(from, self.told));
            return;
        }
        let position = at(self.told);
        let same = |e: &&Entry| known.get(&e.id).is_some_and(|v| v.revision == e.revision_number);
        let (kept, sent): (Vec<_>, Vec<_>) = self.latest().0.values().partition(same);
        let unchanged = kept.iter().map(|e| e.id.clone()).collect();
        let entries: Vec<_> = sent.into_iter().cloned().collect();
        self.wire.push_back(Frame::Snapshot { entries, unchanged, position, last: false });
        let (entries, unchanged) = (Vec::new(), Vec::new());
        self.wire.push_back(Frame::Snapshot { entries, unchanged, position, last: true });
    }

    fn notice(&self) -> Frame {
        Frame::BundleNotice {
            domain: domain(),
            digest: self.latest().1.to_be_bytes().to_vec(),
            removed: false,
        }
    }

    fn delta(&self, from: usize, to: usize) -> Frame {
        let ((before, _), (after, _)) = (&self.log[from], &self.log[to]);
        let removed = before.keys().filter(|id| !after.contains_key(*id)).cloned().collect();
        let upserts = after.values().filter(|e| before.get(&e.id) != Some(*e)).cloned().collect();
        Frame::Delta { upserts, removed, position: at(to) }
    }

    fn commit(&mut self, held: Held, edition: u64) {
        let rotated = edition != self.latest().1;
        self.log.push((held, edition));
        if self.stream.is_some() {
            if rotated {
                self.wire.push_back(self.notice());
            }
            let to = self.log.len() - 1;
            self.wire.push_back(self.delta(self.told, to));
            self.told = to;
        }
    }

    fn apply(&mut self, event: &Event) {
        let (mut held, edition) = self.latest().clone();
        match event {
            Event::Put(name) => {
                let mut parts = entry_parts(&format!("e{name}"), "/w", "/n", &["u:1"]);
                self.revisions += 1;
                parts.revision_number = self.revisions;
                let entry = Entry::new(parts).unwrap();
                held.insert(entry.id.clone(), entry);
                self.commit(held, edition);
            }
            Event::Delete(name) => {
                held.remove(&EntryId::new(&format!("e{name}")).unwrap());
                self.commit(held, edition);
            }
            Event::Rotate => self.commit(held, edition + 1),
            Event::Deliver(count) => self.deliver(*count),
            Event::Beat => {
                let position = Some(at(self.told));
                self.wire.push_back(Frame::Heartbeat { server_time: self.now.wall, position, agents: None });
            }
            Event::Break => {
                if let Some(stream) = self.stream.take() {
                    self.wire.clear();
                    self.put(Input::FollowEnded { stream, failure: Failure::Away("lost".into()) });
                }
            }
            Event::Answer { fetched } => {
                if std::mem::take(&mut self.fetching) {
                    let answer = if *fetched {
                        self.edition = edition;
                        Input::BundlesFetched { bundles: vec![Bundle::empty(domain())] }
                    } else {
                        Input::BundlesFailed
                    };
                    self.put(answer);
                }
            }
            Event::Pass(millis) => {
                let by = Duration::from_millis((*millis).into());
                self.now = Now { wall: self.now.wall + by, mono: self.now.mono + by };
                self.put(Input::Tick);
            }
            Event::Restart => self.put(Input::Start),
        }
    }

    fn deliver(&mut self, count: u8) {
        for _ in 0..count {
            let (Some(stream), Some(frame)) = (self.stream, self.wire.pop_front()) else { return };
            self.put(Input::Frame { stream, frame });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_lost_the_agent_holds_what_the_server_had_at_its_position(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut world = World::new();
        for event in events {
            world.apply(&event);
        }
        for _ in 0..6 {
            world.apply(&Event::Pass(31_000));
            world.apply(&Event::Answer { fetched: true });
            world.apply(&Event::Deliver(200));
        }
        prop_assert_eq!(&world.held, &world.latest().0);
        prop_assert!(world.sync.is_synced() && world.sync.is_pushed());
        prop_assert_eq!(world.edition, world.latest().1);
    }
}
