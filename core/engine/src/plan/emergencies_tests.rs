//! Who opens an emergency, who ends it and what ends it, one rule per test.

use std::time::Duration;

use avouch_domain::fixtures::{id, identity, person, person_id};
use avouch_domain::limits::{EMERGENCIES_MAX, EMERGENCY_FOR_MAX, EMERGENCY_WAIT};
use avouch_domain::{
    Emergency, EmergencyId, EmergencyStanding, Environment, Identity, Kind, Person, PersonState, Row,
    Timestamp,
};

use super::consent::ConsentError;
use super::emergencies::{EmergencyError, NewEmergency, agree, ask, end, forget};
use super::governance_tests::commit;
use super::identities;
use crate::registry::Registry;

const NOW: Timestamp = Timestamp(1_000_000);
const LASTS: Duration = Duration::from_secs(1200);

/// `per_owner` owns `/test/ci`; two other people are there.
fn scene(kind: Kind) -> Registry {
    let mut registry = Registry::new();
    registry.put(Row::Person(person("per_owner", 1, true)));
    registry.put(Row::Person(person("per_other", 2, false)));
    registry.put(Row::Person(person("per_s", 3, true)));
    registry.put(Row::Identity(Identity { environment: Environment::Prod, ..identity("/test/ci", kind) }));
    registry
}

fn new(name: &str, lasts: Duration) -> NewEmergency {
    NewEmergency {
        id: EmergencyId::new(&format!("em_{name}")).unwrap(),
        identity: id("/test/ci"),
        action: "secret.read".into(),
        resource: "vault/key".into(),
        why: "the queue is stuck".into(),
        lasts,
    }
}

type Done = Result<Emergency, EmergencyError>;

fn asks(registry: &mut Registry, by: &str, new: &NewEmergency) -> Done {
    let (plan, asked) = ask(registry, NOW, &person_id(by), new);
    commit(registry, &plan);
    asked
}

fn agrees(registry: &mut Registry, at: Timestamp, by: &str) -> Done {
    let (plan, agreed) = agree(registry, at, &person_id(by), &EmergencyId::new("em_a").unwrap());
    commit(registry, &plan);
    agreed
}

fn ends(registry: &mut Registry, by: &str) -> Done {
    let (plan, ended) = end(registry, NOW, &person_id(by), &EmergencyId::new("em_a").unwrap());
    commit(registry, &plan);
    ended
}

fn open() -> Registry {
    let mut registry = scene(Kind::AiAgent);
    asks(&mut registry, "per_owner", &new("a", LASTS)).unwrap();
    agrees(&mut registry, NOW, "per_other").unwrap();
    registry
}

fn standing(registry: &Registry, at: Timestamp) -> EmergencyStanding {
    let emergency = registry.emergency(&EmergencyId::new("em_a").unwrap()).unwrap();
    registry.emergency_standing(emergency, at)
}

fn is_open(registry: &Registry) -> bool {
    registry.open_emergencies(&id("/test/ci"), NOW).count() == 1
}

#[test]
fn nothing_comes_of_an_emergency_until_a_second_person_agrees() {
    let mut registry = scene(Kind::AiAgent);
    let asked = asks(&mut registry, "per_owner", &new("a", LASTS)).unwrap();
    assert_eq!((asked.ends_at, is_open(&registry)), (NOW + EMERGENCY_WAIT, false));
    let later = NOW + Duration::from_secs(60);
    let agreed = agrees(&mut registry, later, "per_other").unwrap();
    assert_eq!(agreed.ends_at, later + LASTS, "its time begins when it is agreed to");
    assert_eq!(standing(&registry, later), EmergencyStanding::Open);
    assert_eq!(standing(&registry, agreed.ends_at), EmergencyStanding::Over);
}

#[test]
fn nobody_opens_one_alone_not_even_in_test() {
    let mut alone = Registry::new();
    alone.put(Row::Person(person("per_owner", 1, true)));
    alone.put(Row::Identity(identity("/test/ci", Kind::AiAgent)));
    asks(&mut alone, "per_owner", &new("a", LASTS)).unwrap();
    assert!(matches!(agrees(&mut alone, NOW, "per_owner"), Err(EmergencyError::SamePerson { .. })));
    let mut registry = scene(Kind::AiAgent);
    asks(&mut registry, "per_other", &new("a", LASTS)).unwrap();
    assert!(matches!(agrees(&mut registry, NOW, "per_other"), Err(EmergencyError::SamePerson { .. })));
    assert!(!is_open(&registry));
}

#[test]
fn whoever_owns_the_identity_may_ask_and_never_agrees() {
    let mut registry = scene(Kind::Pipeline);
    asks(&mut registry, "per_other", &new("a", LASTS)).unwrap();
    let refused = ConsentError::SecondPerson(person_id("per_owner")).into();
    assert_eq!(agrees(&mut registry, NOW, "per_owner"), Err(refused));
    assert!(agrees(&mut registry, NOW, "per_s").is_ok() && is_open(&registry));
}

#[test]
fn whom_a_helper_acts_for_is_neither_of_the_two() {
    let mut registry = scene(Kind::Helper);
    let refused = EmergencyError::from(ConsentError::OnBehalf(person_id("per_owner")));
    assert_eq!(asks(&mut registry, "per_owner", &new("a", LASTS)), Err(refused.clone()));
    asks(&mut registry, "per_other", &new("a", LASTS)).unwrap();
    assert_eq!(agrees(&mut registry, NOW, "per_owner"), Err(refused));
    assert!(agrees(&mut registry, NOW, "per_s").is_ok() && is_open(&registry));
}

#[test]
fn an_emergency_that_nobody_agreed_to_in_time_is_asked_anew() {
    let mut registry = scene(Kind::AiAgent);
    asks(&mut registry, "per_owner", &new("a", LASTS)).unwrap();
    let late = agrees(&mut registry, NOW + EMERGENCY_WAIT, "per_other");
    assert!(matches!(late, Err(EmergencyError::NotWaiting { standing: EmergencyStanding::Over, .. })));
    assert!(matches!(
        agrees(&mut open(), NOW, "per_s"),
        Err(EmergencyError::NotWaiting { standing: EmergencyStanding::Open, .. })
    ));
}

#[test]
fn anybody_ends_one_alone_and_at_once() {
    for by in ["per_owner", "per_other", "per_s"] {
        let mut registry = open();
        assert!(ends(&mut registry, by).is_ok() && !is_open(&registry), "{by}");
        assert!(matches!(ends(&mut registry, by), Err(EmergencyError::Ended(_))));
        assert!(matches!(agrees(&mut registry, NOW, "per_s"), Err(EmergencyError::NotWaiting { .. })));
    }
    let nobody = ConsentError::NoPerson(person_id("per_gone")).into();
    assert_eq!(ends(&mut open(), "per_gone"), Err(nobody));
}

#[test]
fn a_pause_ends_it_and_a_resume_does_not_bring_it_back() {
    let mut registry = open();
    let (plan, _) = identities::pause(&registry, NOW, &person_id("per_s"), &id("/test/ci"));
    commit(&mut registry, &plan);
    assert!(!is_open(&registry));
    let (plan, resumed) = identities::resume(&registry, NOW, &person_id("per_s"), &id("/test/ci"));
    commit(&mut registry, &plan);
    assert!(resumed.is_ok(), "{resumed:?}");
    assert_eq!(standing(&registry, NOW), EmergencyStanding::Over);
}

#[test]
fn it_counts_only_while_both_are_there_and_the_owner_is_the_same() {
    for gone in ["per_owner", "per_other"] {
        let mut registry = open();
        let person = registry.person(&person_id(gone)).unwrap().clone();
        registry.put(Row::Person(Person { state: PersonState::Left, ..person }));
        assert!(!is_open(&registry), "{gone}");
    }
    let mut registry = open();
    let it = registry.identity(&id("/test/ci")).unwrap().clone();
    registry.put(Row::Identity(Identity { owner: person_id("per_s"), ..it }));
    assert!(!is_open(&registry));
}

#[test]
fn an_emergency_never_outlives_its_identity() {
    let mut registry = scene(Kind::Pipeline);
    let near = NOW + Duration::from_secs(30);
    let it = registry.identity(&id("/test/ci")).unwrap().clone();
    registry.put(Row::Identity(Identity { end: near, ..it }));
    assert_eq!(asks(&mut registry, "per_owner", &new("a", LASTS)).unwrap().ends_at, near);
    assert_eq!(agrees(&mut registry, NOW, "per_other").unwrap().ends_at, near);
}

#[test]
fn what_is_out_of_bounds_is_not_asked() {
    let mut registry = scene(Kind::Pipeline);
    let second = Duration::from_secs(1);
    for (wrong, told) in [
        (new("a", Duration::ZERO), "0 s, expected 1 to 1800 s"),
        (new("a", EMERGENCY_FOR_MAX + second), "1801 s"),
        (NewEmergency { action: "".into(), ..new("a", LASTS) }, "1 to 256 bytes"),
        (NewEmergency { resource: "x".repeat(257).into(), ..new("a", LASTS) }, "1 to 256 bytes"),
        (NewEmergency { identity: id("/test/none"), ..new("a", LASTS) }, "not in force"),
    ] {
        let refused = asks(&mut registry, "per_s", &wrong).unwrap_err().to_string();
        assert!(refused.contains(told), "{told}: {refused}");
    }
    for n in 0..EMERGENCIES_MAX {
        asks(&mut registry, "per_s", &new(&n.to_string(), LASTS)).unwrap();
    }
    let refused = asks(&mut registry, "per_s", &new("more", LASTS));
    assert_eq!(refused, Err(EmergencyError::TooMany(id("/test/ci"))));
    let taken = asks(&mut open(), "per_s", &new("a", LASTS));
    assert_eq!(taken, Err(EmergencyError::IdTaken(EmergencyId::new("em_a").unwrap())));
}

#[test]
fn what_nothing_comes_of_any_more_is_forgotten() {
    let mut registry = open();
    let over = registry.next_emergency_end().unwrap();
    for (before, gone) in [(over - Duration::from_secs(1), 0), (over, 1)] {
        let (plan, count) = forget(&registry, over, before, "server");
        commit(&mut registry, &plan);
        assert_eq!(count, gone);
    }
    assert_eq!(registry.emergencies().len(), 0);
}
