//! Rules of the life of an authority, one per test.

use std::collections::BTreeMap;

use avouch_domain::{Holder, Tick};
use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3600;

fn at(secs: i64) -> Now {
    Now { wall: Timestamp::from_secs(secs), mono: Tick(secs as u64 * 1000) }
}

fn settings() -> Settings {
    Settings { kind: AuthorityKind::X509, propagation_bound: Duration::from_secs(60) }
}

/// A shell that does at once what it is asked, and keeps the promises of INV-4 in view.
struct Shell {
    machine: Rotation,
    revision: u64,
    made: u32,
    published: Vec<AuthorityId>,
    log: Vec<String>,
    ttl: i64,
}

impl Shell {
    fn new(machine: Rotation) -> Self {
        Self { machine, revision: 0, made: 0, published: Vec::new(), log: Vec::new(), ttl: 24 * HOUR }
    }

    fn tell(&mut self, secs: i64, input: Input) {
        self.machine.handle(at(secs), input);
        while let Some(effect) = self.machine.poll() {
            assert!(self.machine.poll().is_none(), "one effect at a time");
            let answer = self.perform(secs, effect);
            self.machine.handle(at(secs), answer);
        }
    }

    fn perform(&mut self, secs: i64, effect: Effect) -> Input {
        match effect {
            Effect::MakeKey { slot } => {
                self.made += 1;
                self.log.push(format!("make {slot:?}"));
                let id = format!("k{}", self.made).into();
                let end = Timestamp::from_secs(secs + self.ttl);
                Input::KeyMade { slot, id, issued_at: Timestamp::from_secs(secs), not_after: end }
            }
            Effect::Publish { slot, id } => {
                self.revision += 1;
                self.log.push(format!("publish {id}"));
                self.published.push(id);
                Input::Published { slot, revision: Revision(self.revision) }
            }
            Effect::Activate { slot, id } => {
                assert!(self.published.contains(&id), "INV-4");
                self.log.push(format!("activate {id}"));
                Input::Activated { slot }
            }
            Effect::Retire { slot, id } => {
                self.log.push(format!("retire {id}"));
                Input::Retired { slot }
            }
            Effect::Prune => {
                self.log.push("prune".into());
                Input::Pruned
            }
        }
    }

    fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log).into_iter().filter(|l| l != "prune").collect()
    }
}

fn started() -> Shell {
    let mut shell = Shell::new(Rotation::new(settings(), at(0), &[]));
    shell.tell(0, Input::Tick);
    assert_eq!(shell.log(), ["make A", "publish k1", "activate k1"]);
    shell
}

#[test]
fn the_first_authority_signs_at_once_but_only_once_published() {
    let shell = started();
    assert_eq!(shell.machine.active().map(|(slot, id)| (slot, id.to_string())), Some((Slot::A, "k1".into())));
}

#[test]
fn the_successor_is_prepared_at_half_and_signs_at_five_sixths_of_the_lifetime() {
    let mut shell = started();
    shell.tell(12 * HOUR - 1, Input::Tick);
    assert_eq!(shell.log(), Vec::<String>::new());
    shell.tell(12 * HOUR, Input::Tick);
    assert_eq!(shell.log(), ["make B", "publish k2"]);
    shell.tell(13 * HOUR, Input::Acknowledged(Revision(2)));
    shell.tell(20 * HOUR - 1, Input::Tick);
    assert_eq!(shell.log(), Vec::<String>::new());
    shell.tell(20 * HOUR, Input::Tick);
    assert_eq!(shell.log(), ["activate k2", "retire k1"]);
    assert_eq!(shell.machine.awaited(), None);
}

#[test]
fn long_lived_authorities_hand_over_thirty_and_seven_days_before_their_end() {
    let (start, end) = (Timestamp(0), Timestamp::from_secs(365 * 24 * HOUR));
    assert_eq!(timing::prepare_at(start, end), Timestamp::from_secs(335 * 24 * HOUR));
    assert_eq!(timing::activate_at(start, end), Timestamp::from_secs(358 * 24 * HOUR));
}

#[test]
fn agents_that_do_not_know_the_successor_hold_it_up_but_not_past_the_bound() {
    let mut shell = started();
    shell.tell(12 * HOUR, Input::Tick);
    shell.log();
    shell.tell(20 * HOUR, Input::Acknowledged(Revision(1)));
    assert_eq!(shell.log(), Vec::<String>::new());
    assert_eq!(shell.machine.awaited(), Some(Revision(2)));
    assert_eq!(shell.machine.next_wakeup(), Some(Timestamp::from_secs(20 * HOUR + 60)));
    shell.tell(20 * HOUR + 59, Input::Tick);
    assert_eq!(shell.log(), Vec::<String>::new());
    shell.tell(20 * HOUR + 60, Input::Tick);
    assert_eq!(shell.log(), ["activate k2", "retire k1"]);
}

#[test]
fn a_tainted_signer_is_replaced_as_soon_as_its_successor_is_known() {
    let mut shell = started();
    shell.tell(10, Input::Taint("k1".into()));
    assert_eq!(shell.log(), ["make B", "publish k2"]);
    shell.tell(11, Input::Acknowledged(Revision(2)));
    assert_eq!(shell.log(), ["activate k2", "retire k1"]);
    shell.tell(12, Input::Revoke("k1".into()));
    shell.tell(13, Input::Tick);
    assert_eq!(shell.log(), Vec::<String>::new());
}

#[test]
fn a_signer_is_not_dropped_by_revocation_while_it_signs() {
    let mut shell = started();
    shell.tell(10, Input::Revoke("k1".into()));
    assert!(shell.machine.active().is_some());
}

#[test]
fn the_third_authority_takes_the_slot_of_the_first() {
    let mut shell = started();
    for (prepare, activate) in [(12, 20), (24, 32)] {
        shell.tell(prepare * HOUR, Input::Tick);
        shell.tell(prepare * HOUR, Input::Acknowledged(Revision(shell.revision)));
        shell.tell(activate * HOUR, Input::Tick);
    }
    assert_eq!(
        shell.log(),
        [
            "make B",
            "publish k2",
            "activate k2",
            "retire k1",
            "make A",
            "publish k3",
            "activate k3",
            "retire k2"
        ]
    );
}

#[test]
fn a_failed_step_is_tried_again_after_a_pause() {
    let mut machine = Rotation::new(settings(), at(0), &[]);
    machine.handle(at(0), Input::Tick);
    assert_eq!(machine.poll(), Some(Effect::MakeKey { slot: Slot::A }));
    machine.handle(at(1), Input::Failed);
    assert_eq!(machine.poll(), None);
    assert_eq!(machine.next_wakeup(), Some(Timestamp::from_secs(6)));
    machine.handle(at(6), Input::Tick);
    assert_eq!(machine.poll(), Some(Effect::MakeKey { slot: Slot::A }));
}

fn row(slot: Slot, state: SlotState, issued: i64, end: i64) -> Authority {
    Authority {
        kind: AuthorityKind::X509,
        holder: Holder::Server("s".into()),
        slot,
        state,
        id: format!("{slot:?}").into(),
        public: Vec::new().into(),
        issued_at: Timestamp::from_secs(issued),
        not_after: Timestamp::from_secs(end),
        tainted: false,
        published_at: Some(Revision(1)),
    }
}

#[test]
fn after_a_restart_the_signer_of_the_journal_goes_on() {
    let journal = [row(Slot::B, SlotState::Active, 0, 24 * HOUR)];
    let mut shell = Shell::new(Rotation::new(settings(), at(HOUR), &journal));
    shell.tell(HOUR, Input::Tick);
    assert_eq!(shell.log(), Vec::<String>::new());
    assert_eq!(shell.machine.active().map(|(slot, _)| slot), Some(Slot::B));
}

#[test]
fn a_crash_between_publishing_and_activating_the_first_authority_loses_nothing() {
    let journal = [row(Slot::A, SlotState::Prepared, 0, 24 * HOUR)];
    let mut shell = Shell::new(Rotation::new(settings(), at(1), &journal));
    shell.published.push("A".into());
    shell.tell(1, Input::Tick);
    assert_eq!(shell.log(), ["activate A"]);
}

#[test]
fn an_ended_signer_is_replaced_at_once() {
    let journal = [row(Slot::A, SlotState::Active, 0, HOUR)];
    let mut shell = Shell::new(Rotation::new(settings(), at(2 * HOUR), &journal));
    shell.tell(2 * HOUR, Input::Tick);
    assert_eq!(shell.log(), ["make A", "publish k1", "activate k1"]);
}

#[test]
fn years_of_rotation_keep_one_signer_that_never_ends() {
    let mut shell = started();
    let mut now = 0;
    for _ in 0..2000 {
        let next = shell.machine.next_wakeup().unwrap().secs().max(now + 1);
        now = next;
        shell.tell(now, Input::Tick);
        shell.log();
        let (slot, _) = shell.machine.active().unwrap();
        let held = shell.machine.get(slot).unwrap();
        assert!(held.not_after > Timestamp::from_secs(now), "a signer has ended at {now}");
    }
    assert!(now > 100 * 24 * HOUR && shell.made > 100);
}

#[test]
fn an_authority_prepared_by_hand_signs_only_when_its_time_comes_or_when_told() {
    let mut shell = started();
    shell.tell(10, Input::Prepare);
    shell.tell(11, Input::Acknowledged(Revision(2)));
    shell.tell(HOUR, Input::Tick);
    assert_eq!(shell.log(), ["make B", "publish k2"]);
    shell.tell(HOUR, Input::Advance);
    assert_eq!(shell.log(), ["activate k2", "retire k1"]);
}

#[test]
fn a_tainted_authority_never_becomes_the_signer() {
    let mut shell = started();
    shell.tell(10, Input::Prepare);
    shell.log();
    shell.tell(11, Input::Taint("k2".into()));
    shell.tell(12 * HOUR, Input::Tick);
    assert_eq!(shell.log(), ["make B", "publish k3"]);
    shell.tell(13 * HOUR, Input::Acknowledged(Revision(3)));
    shell.tell(20 * HOUR, Input::Tick);
    assert_eq!(shell.log(), ["activate k3", "retire k1"]);
}

#[test]
fn the_agents_time_begins_anew_when_the_successor_is_replaced() {
    let mut shell = started();
    shell.tell(10, Input::Taint("k1".into()));
    shell.tell(11, Input::Tick);
    shell.tell(50, Input::Taint("k2".into()));
    assert_eq!(shell.log(), ["make B", "publish k2", "make B", "publish k3"]);
    shell.tell(109, Input::Tick);
    assert_eq!(shell.log(), Vec::<String>::new());
    shell.tell(110, Input::Tick);
    assert_eq!(shell.log(), ["activate k3", "retire k1"]);
}

#[test]
fn a_key_that_could_not_be_destroyed_is_tried_again_and_holds_up_nothing() {
    let journal = [row(Slot::A, SlotState::Old, 0, 24 * HOUR), row(Slot::B, SlotState::Active, 0, 24 * HOUR)];
    let mut machine = Rotation::new(settings(), at(HOUR), &journal);
    let retire = Some(Effect::Retire { slot: Slot::A, id: "A".into() });
    machine.handle(at(HOUR), Input::Tick);
    assert_eq!(machine.poll(), retire, "also when the process ended before it was done");
    machine.handle(at(HOUR), Input::Failed);
    machine.handle(at(HOUR + 6), Input::Tick);
    assert_eq!(machine.poll(), retire.map(|_| Effect::Retire { slot: Slot::A, id: "A".into() }));
    machine.handle(at(HOUR + 7), Input::Failed);
    machine.handle(at(12 * HOUR), Input::Tick);
    assert_eq!(machine.poll(), Some(Effect::MakeKey { slot: Slot::A }));
    let slot = Slot::A;
    let (issued_at, not_after) = (Timestamp::from_secs(12 * HOUR), Timestamp::from_secs(36 * HOUR));
    machine.handle(at(12 * HOUR), Input::KeyMade { slot, id: "k".into(), issued_at, not_after });
    assert_eq!(machine.poll(), Some(Effect::Publish { slot, id: "k".into() }));
    machine.handle(at(12 * HOUR), Input::Published { slot, revision: Revision(3) });
    assert_eq!(machine.poll(), Some(Effect::Prune));
    machine.handle(at(12 * HOUR), Input::Pruned);
    assert_eq!(machine.poll(), None, "the new key in the slot is not the one to destroy");
}

#[test]
fn a_step_that_another_server_took_is_followed() {
    let journal = [row(Slot::A, SlotState::Active, 0, 24 * HOUR)];
    let mut machine = Rotation::new(settings(), at(HOUR), &journal);
    machine.handle(at(12 * HOUR), Input::Tick);
    while let Some(effect) = machine.poll() {
        let slot = Slot::B;
        let answer = match effect {
            Effect::MakeKey { .. } => Input::KeyMade {
                slot,
                id: "mine".into(),
                issued_at: Timestamp::from_secs(12 * HOUR),
                not_after: Timestamp::from_secs(36 * HOUR),
            },
            Effect::Publish { .. } => Input::Failed,
            _ => Input::Pruned,
        };
        machine.handle(at(12 * HOUR), answer);
    }
    // Another was faster: its authority is in the slot, and later signs.
    let mut rows = vec![journal[0].clone(), row(Slot::B, SlotState::Prepared, 12 * HOUR, 36 * HOUR)];
    machine.handle(at(13 * HOUR), Input::Journal(rows.clone()));
    assert_eq!((machine.poll(), machine.awaited()), (Some(Effect::Prune), Some(Revision(1))));
    machine.handle(at(13 * HOUR), Input::Pruned);
    rows[0].state = SlotState::Old;
    rows[1].state = SlotState::Active;
    machine.handle(at(20 * HOUR), Input::Journal(rows));
    assert_eq!(machine.active(), Some((Slot::B, &"B".into())));
    let retired = std::iter::from_fn(|| machine.poll()).collect::<Vec<_>>();
    assert_eq!(retired, [Effect::Retire { slot: Slot::A, id: "A".into() }]);
}

#[test]
fn a_clock_that_is_set_forward_does_not_use_up_the_agents_time() {
    let mut shell = started();
    shell.tell(12 * HOUR, Input::Tick);
    shell.tell(20 * HOUR, Input::Tick);
    shell.log();
    let jumped = Now { wall: Timestamp::from_secs(21 * HOUR), mono: at(20 * HOUR + 30).mono };
    shell.machine.handle(jumped, Input::Tick);
    assert_eq!(shell.machine.poll(), None);
    let later = Now { wall: Timestamp::from_secs(13 * HOUR), mono: at(20 * HOUR + 60).mono };
    shell.machine.handle(later, Input::Tick);
    assert_eq!(shell.machine.poll(), None, "by the clock as it is now, it is not due");
}

#[derive(Clone, Debug)]
enum Event {
    Pass(i64),
    Jump(i64),
    Acknowledge,
    Taint,
    Revoke,
    Prepare,
    Advance,
    /// The next effects fail.
    Fail(u8),
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..8 * HOUR).prop_map(Event::Pass),
        1 => (-2 * HOUR..2 * HOUR).prop_map(Event::Jump),
        3 => Just(Event::Acknowledge),
        1 => Just(Event::Taint),
        1 => Just(Event::Revoke),
        1 => Just(Event::Prepare),
        1 => Just(Event::Advance),
        1 => (1..4u8).prop_map(Event::Fail),
        1 => Just(Event::Restart),
    ]
}

/// A shell with a store: what is committed survives a restart, what is not does not.
struct Store {
    rows: BTreeMap<Slot, Authority>,
    now: Now,
    made: BTreeMap<Slot, Authority>,
    revision: u64,
    serial: u32,
    failing: u8,
    acknowledged: u64,
    machine: Rotation,
}

impl Store {
    fn tell(&mut self, input: Input) {
        self.machine.handle(self.now, input);
        while let Some(effect) = self.machine.poll() {
            assert_eq!(self.machine.poll(), None, "one effect at a time");
            let answer = if self.failing > 0 { Input::Failed } else { self.perform(effect) };
            self.failing = self.failing.saturating_sub(1);
            self.machine.handle(self.now, answer);
        }
    }

    fn perform(&mut self, effect: Effect) -> Input {
        match effect {
            Effect::MakeKey { slot } => {
                self.serial += 1;
                let signs = self.rows.get(&slot).is_some_and(|r| r.state == SlotState::Active);
                assert!(
                    !signs || self.rows[&slot].not_after <= self.now.wall,
                    "a signer's key is overwritten"
                );
                let id: AuthorityId = format!("k{}", self.serial).into();
                let (issued_at, not_after) = (self.now.wall, self.now.wall + Duration::from_secs(24 * 3600));
                let template = row(slot, SlotState::Prepared, 0, 0);
                self.made.insert(slot, Authority { id: id.clone(), issued_at, not_after, ..template });
                Input::KeyMade { slot, id, issued_at, not_after }
            }
            Effect::Publish { slot, id } => {
                self.revision += 1;
                let made = &self.made[&slot];
                assert_eq!(made.id, id);
                let published_at = Some(Revision(self.revision));
                self.rows.insert(slot, Authority { published_at, ..made.clone() });
                Input::Published { slot, revision: Revision(self.revision) }
            }
            Effect::Activate { slot, id } => {
                let row = &self.rows[&slot];
                assert!(row.id == id && row.published_at.is_some(), "INV-4");
                assert!(!row.tainted, "a tainted authority begins to sign");
                for (at, row) in &mut self.rows {
                    row.state = match row.state {
                        _ if *at == slot => SlotState::Active,
                        SlotState::Active => SlotState::Old,
                        other => other,
                    };
                }
                Input::Activated { slot }
            }
            Effect::Retire { slot, id } => {
                let row = self.rows.get(&slot).filter(|r| r.id == id);
                assert!(row.is_none_or(|r| r.state == SlotState::Old), "the key of a signer is destroyed");
                Input::Retired { slot }
            }
            Effect::Prune => Input::Pruned,
        }
    }

    fn apply(&mut self, event: &Event) {
        match event {
            Event::Pass(secs) => {
                let by = Duration::from_secs(secs.unsigned_abs());
                self.now = Now { wall: self.now.wall + by, mono: self.now.mono + by };
                self.tell(Input::Tick);
            }
            Event::Jump(secs) => self.now.wall = Timestamp(self.now.wall.0 + secs * 1000),
            Event::Acknowledge => {
                self.acknowledged = self.revision;
                self.tell(Input::Acknowledged(Revision(self.revision)));
            }
            Event::Taint => {
                let active = self.rows.values_mut().find(|r| r.state == SlotState::Active);
                if let Some(row) = active {
                    row.tainted = true;
                    let id = row.id.clone();
                    self.tell(Input::Taint(id));
                }
            }
            Event::Revoke => {
                let falls = self.rows.values().find(|r| r.tainted && r.state != SlotState::Active);
                if let Some((slot, id)) = falls.map(|r| (r.slot, r.id.clone())) {
                    self.rows.remove(&slot);
                    self.tell(Input::Revoke(id));
                }
            }
            Event::Prepare => self.tell(Input::Prepare),
            Event::Advance => self.tell(Input::Advance),
            Event::Fail(times) => self.failing = *times,
            Event::Restart => {
                let journal: Vec<_> = self.rows.values().cloned().collect();
                self.machine = Rotation::new(settings(), self.now, &journal);
                self.made.clear();
                self.tell(Input::Acknowledged(Revision(self.acknowledged)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_only_the_published_sign_and_a_signer_is_always_found_again(
        events in proptest::collection::vec(event(), 1..60),
    ) {
        let now = Now { wall: Timestamp::from_secs(1_000_000), mono: Tick(0) };
        let machine = Rotation::new(settings(), now, &[]);
        let (rows, made) = (BTreeMap::new(), BTreeMap::new());
        let mut store =
            Store { rows, now, made, revision: 0, serial: 0, failing: 0, acknowledged: 0, machine };
        store.tell(Input::Tick);
        for event in events {
            store.apply(&event);
            prop_assert!(store.rows.values().filter(|r| r.state == SlotState::Active).count() <= 1);
            prop_assert!(store.machine.next_wakeup().is_some(), "it would sleep for ever");
        }
        store.failing = 0;
        for _ in 0..4 {
            let wake = store.machine.next_wakeup().unwrap();
            store.apply(&Event::Pass(i64::try_from(wake.since(store.now.wall).as_secs()).unwrap() + 1));
        }
        let (slot, id) = store.machine.active().expect("a signer");
        prop_assert_eq!(&store.rows[&slot].id, id);
        prop_assert!(store.rows[&slot].not_after > store.now.wall && !store.rows[&slot].tainted);
    }
}

#[test]
fn an_authority_keeps_its_slot_only_with_its_place_in_the_bundle_time_left_and_a_key_to_sign_with() {
    let row = |state| Authority {
        kind: AuthorityKind::X509,
        holder: Holder::Server("one".into()),
        slot: Slot::A,
        state,
        id: "a".into(),
        public: b"root".as_slice().into(),
        issued_at: Timestamp(0),
        not_after: Timestamp::from_secs(100),
        tainted: false,
        published_at: Some(Revision(1)),
    };
    let (active, old) = (row(SlotState::Active), row(SlotState::Old));
    let mut bundle = Bundle::empty(avouch_domain::TrustDomain::new("example.org").unwrap());
    let (soon, late) = (Timestamp::from_secs(99), Timestamp::from_secs(100));
    assert!(!can_go_on(&active, Some(&bundle), true, soon), "not published");
    bundle.merge(&[avouch_domain::X509Authority { der: active.public.clone(), tainted: false }], &[]);
    assert!(can_go_on(&active, Some(&bundle), true, soon));
    assert!(!can_go_on(&active, Some(&bundle), false, soon), "no key");
    assert!(!can_go_on(&active, Some(&bundle), true, late), "ended");
    assert!(can_go_on(&old, Some(&bundle), false, soon), "signs no more, and needs no key");
    assert!(!can_go_on(&old, Some(&bundle), true, late), "ended");
    assert!(!can_go_on(&active, None, true, soon), "no bundle");
}

#[test]
fn a_tainted_prepared_authority_does_not_hide_the_good_one_beside_it() {
    let row = |slot, state, tainted, hours: i64| Authority {
        kind: AuthorityKind::X509,
        holder: Holder::Server("one".into()),
        slot,
        state,
        id: format!("{slot:?}").into(),
        public: b"root".as_slice().into(),
        issued_at: Timestamp(0),
        not_after: Timestamp::from_secs(hours * HOUR),
        tainted,
        published_at: Some(Revision(1)),
    };
    let journal = [row(Slot::A, SlotState::Prepared, true, 100), row(Slot::B, SlotState::Active, false, 10)];
    let mut shell = Shell::new(Rotation::new(settings(), at(9 * HOUR), &journal));
    // The one that signs ends before the tainted one is replaced: the host was asleep.
    shell.tell(11 * HOUR, Input::Tick);
    assert_eq!(shell.log, ["make B", "publish k1", "activate k1"]);
    assert_eq!(shell.machine.awaited(), None);
}
