//! Who may publish rules, and which are in force, one rule per test.

use avouch_domain::fixtures::{person, person_id, rules};
use avouch_domain::{
    AuditEvent, LogPosition, PersonId, Plan, PublishedRules, Row, RulesDigest, RulesFolder, RulesStanding,
    Timestamp,
};
use proptest::prelude::*;

use super::rules::{RulesError, WAITING_MAX, approve, publish, withdraw};
use crate::invariants::{inv8_every_change_is_audited, inv8_every_change_is_audited_once};
use crate::registry::Registry;

const NOW: Timestamp = Timestamp(1_000);

fn registry(rows: Vec<Row>) -> Registry {
    let mut registry = Registry::new();
    rows.into_iter().for_each(|row| registry.put(row));
    registry
}

/// `per_s` is the only security person, `per_other` is none.
fn alone() -> Registry {
    registry(vec![Row::Person(person("per_s", 1, true)), Row::Person(person("per_other", 2, false))])
}

/// `per_s` and `per_t` are security people.
fn two() -> Registry {
    let mut registry = alone();
    registry.put(Row::Person(person("per_t", 3, true)));
    registry
}

fn who(text: &str) -> PersonId {
    person_id(text)
}

fn folder(content: u8) -> RulesFolder {
    let files = vec![("a.cedar".to_owned(), content.to_string())];
    RulesFolder { digest: RulesDigest([content; 32]), files: files.into() }
}

fn commit(registry: &mut Registry, plan: &Plan) {
    inv8_every_change_is_audited(plan).unwrap();
    inv8_every_change_is_audited_once(plan).unwrap();
    let position = registry.position();
    registry.apply(plan, LogPosition { revision: position.revision.next(), ..position });
}

fn try_publish(registry: &mut Registry, by: &str, content: u8) -> Result<PublishedRules, RulesError> {
    let (plan, outcome) = publish(registry, NOW, &who(by), &folder(content), &"".into());
    assert_eq!(plan.folders.len(), usize::from(outcome.is_ok()), "the folder goes with its row");
    commit(registry, &plan);
    outcome
}

fn try_approve(registry: &mut Registry, by: &str, number: u64) -> Result<PublishedRules, RulesError> {
    let (plan, outcome) = approve(registry, NOW, &who(by), number);
    commit(registry, &plan);
    outcome
}

fn try_withdraw(registry: &mut Registry, by: &str, number: u64) -> Result<PublishedRules, RulesError> {
    let (plan, outcome) = withdraw(registry, NOW, &who(by), number);
    commit(registry, &plan);
    outcome
}

fn in_force(registry: &Registry) -> Option<u64> {
    registry.rules_in_force().map(|rules| rules.number)
}

#[test]
fn what_the_only_security_person_publishes_is_in_force_at_once_and_recorded_as_his_own_yes() {
    let mut registry = alone();
    let (plan, published) = publish(&registry, NOW, &who("per_s"), &folder(1), &"first".into());
    let published = published.unwrap();
    assert_eq!((published.number, published.valid_from), (1, Some(NOW)));
    let record = &plan.audit[0];
    assert_eq!(
        (record.event, record.actor.as_str(), record.subject.as_str()),
        (AuditEvent::RulesPublished, "per_s", "1")
    );
    let digest = format!("sha256:{}", "01".repeat(32));
    let detail = [("digest", digest), ("standing", "approved".into()), ("yes_by", "self".into())];
    assert_eq!(record.detail, detail, "the note is no part of it");
    commit(&mut registry, &plan);
    assert_eq!(in_force(&registry), Some(1));
}

#[test]
fn with_two_security_people_the_other_one_says_yes() {
    let mut registry = two();
    let waits = try_publish(&mut registry, "per_s", 1).unwrap();
    assert_eq!((waits.standing, in_force(&registry)), (RulesStanding::Proposed, None));
    assert_eq!(try_approve(&mut registry, "per_s", 1), Err(RulesError::OwnQuestion(who("per_s"))));
    let (plan, approved) = approve(&registry, NOW, &who("per_t"), 1);
    assert_eq!(approved.unwrap().yes_by, Some(who("per_t")));
    assert_eq!(plan.audit[0].event, AuditEvent::RulesApproved);
    assert!(plan.audit[0].detail.contains(&("yes_by", "per_t".into())));
    commit(&mut registry, &plan);
    assert_eq!(in_force(&registry), Some(1));
    let again = try_approve(&mut registry, "per_t", 1);
    assert_eq!(again, Err(RulesError::NotWaiting { number: 1, standing: RulesStanding::Approved }));
}

#[test]
fn who_is_no_security_person_does_nothing_to_rules() {
    let mut registry = two();
    try_publish(&mut registry, "per_s", 1).unwrap();
    for by in ["per_other", "per_nobody"] {
        let refused = Err(RulesError::NotSecurity(who(by)));
        assert_eq!(try_publish(&mut registry, by, 2), refused);
        assert_eq!(try_approve(&mut registry, by, 1), refused);
        assert_eq!(try_withdraw(&mut registry, by, 1), refused);
    }
}

#[test]
fn a_proposal_that_holds_nothing_of_what_came_into_force_since_is_not_agreed_to() {
    let mut registry = two();
    try_publish(&mut registry, "per_s", 1).unwrap();
    try_publish(&mut registry, "per_s", 2).unwrap();
    let later = NOW + std::time::Duration::from_secs(1);
    let (plan, first) = approve(&registry, later, &who("per_t"), 1);
    first.unwrap();
    commit(&mut registry, &plan);
    let second = approve(&registry, later, &who("per_t"), 2).1;
    assert_eq!(second, Err(RulesError::Overtaken { number: 2, in_force: 1 }));
    let (plan, anew) = publish(&registry, later, &who("per_s"), &folder(3), &"".into());
    anew.unwrap();
    commit(&mut registry, &plan);
    assert!(approve(&registry, later, &who("per_t"), 3).1.is_ok(), "made since then");
}

#[test]
fn a_proposal_below_the_rules_in_force_never_comes_into_force() {
    let mut registry = two();
    try_publish(&mut registry, "per_s", 1).unwrap();
    try_publish(&mut registry, "per_s", 2).unwrap();
    try_approve(&mut registry, "per_t", 2).unwrap();
    let behind = try_approve(&mut registry, "per_t", 1);
    assert_eq!(behind, Err(RulesError::Behind { number: 1, in_force: 2 }));
    assert_eq!(in_force(&registry), Some(2));
}

#[test]
fn the_files_in_force_are_not_published_again() {
    let mut registry = alone();
    try_publish(&mut registry, "per_s", 1).unwrap();
    assert_eq!(try_publish(&mut registry, "per_s", 1), Err(RulesError::Same { number: 1 }));
    try_publish(&mut registry, "per_s", 2).unwrap();
    assert_eq!(
        try_publish(&mut registry, "per_s", 1).unwrap().number,
        3,
        "what was in force before may come back"
    );
}

#[test]
fn withdrawing_rules_in_force_brings_those_before_back_under_a_new_number() {
    let mut registry = alone();
    try_publish(&mut registry, "per_s", 1).unwrap();
    assert_eq!(try_withdraw(&mut registry, "per_s", 1), Err(RulesError::NothingBefore(1)));
    try_publish(&mut registry, "per_s", 2).unwrap();
    let back = try_withdraw(&mut registry, "per_s", 2).unwrap();
    assert_eq!((back.number, back.digest, &*back.note), (3, folder(1).digest, "as rules 1"));
    assert_eq!(in_force(&registry), Some(3));
    assert_eq!(try_withdraw(&mut registry, "per_s", 2), Err(RulesError::Past(2)));
    assert_eq!(try_withdraw(&mut registry, "per_s", 9), Err(RulesError::Unknown(9)));
}

#[test]
fn going_back_needs_the_same_yes_and_taking_a_proposal_back_needs_none() {
    let mut registry = two();
    for content in [1, 2] {
        let number = try_publish(&mut registry, "per_s", content).unwrap().number;
        try_approve(&mut registry, "per_t", number).unwrap();
    }
    let back = try_withdraw(&mut registry, "per_s", 2).unwrap();
    assert_eq!((back.number, back.standing, in_force(&registry)), (3, RulesStanding::Proposed, Some(2)));
    let taken = try_withdraw(&mut registry, "per_s", 3).unwrap();
    assert_eq!(taken.standing, RulesStanding::Withdrawn);
    let late = try_approve(&mut registry, "per_t", 3);
    assert_eq!(late, Err(RulesError::NotWaiting { number: 3, standing: RulesStanding::Withdrawn }));
    assert_eq!(try_publish(&mut registry, "per_s", 3).unwrap().number, 4, "a number is given once");
}

#[test]
fn proposals_wait_in_bounded_number() {
    let mut registry = two();
    for content in 0..u8::try_from(WAITING_MAX).unwrap() {
        try_publish(&mut registry, "per_s", content).unwrap();
    }
    assert_eq!(try_publish(&mut registry, "per_t", 200), Err(RulesError::TooManyWait));
    try_withdraw(&mut registry, "per_s", 1).unwrap();
    assert!(try_publish(&mut registry, "per_t", 200).is_ok());
}

#[derive(Clone, Debug)]
enum Act {
    Publish(usize, u8),
    Approve(usize, u64),
    Withdraw(usize, u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        (0..3usize, 0..4u8).prop_map(|(by, content)| Act::Publish(by, content)),
        (0..3usize, 0..12u64).prop_map(|(by, number)| Act::Approve(by, number)),
        (0..3usize, 0..12u64).prop_map(|(by, number)| Act::Withdraw(by, number)),
    ];
    prop::collection::vec(act, 1..40)
}

proptest! {
    /// Whatever three people do: numbers are given once and rise, what is in force rises, and everything in force has
    /// two different people behind it.
    #[test]
    fn numbers_rise_and_two_people_stand_behind_what_is_in_force(acts in acts()) {
        let mut registry = two();
        let people = ["per_s", "per_t", "per_other"];
        let (mut last, mut force) = (0, 0);
        for act in acts {
            let before = registry.clone();
            let done = match act {
                Act::Publish(by, content) => try_publish(&mut registry, people[by], content),
                Act::Approve(by, number) => try_approve(&mut registry, people[by], number),
                Act::Withdraw(by, number) => try_withdraw(&mut registry, people[by], number),
            };
            if let Ok(rules) = done {
                prop_assert!(before.rules(rules.number).is_some() || rules.number == last + 1);
                last = last.max(rules.number);
            }
            let now = in_force(&registry).unwrap_or(0);
            prop_assert!(now >= force);
            force = now;
            for rules in registry.all_rules().filter(|r| r.standing == RulesStanding::Approved) {
                prop_assert!(rules.yes_by.is_some() && rules.yes_by.as_ref() != Some(&rules.published_by));
            }
        }
    }
}

#[test]
fn rules_that_are_read_from_a_store_are_found_by_their_number() {
    let mut registry = registry(vec![Row::Rules(rules(7)), Row::Rules(rules(3))]);
    assert_eq!((in_force(&registry), registry.rules(3)), (Some(7), Some(&rules(3))));
    registry.delete(&Row::Rules(rules(7)).key());
    assert_eq!(in_force(&registry), Some(3));
}
