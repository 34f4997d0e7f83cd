//! Who accepts what is lacking, and until when, one rule per test.

use std::time::Duration;

use avouch_domain::fixtures::{accepted, entry, id, identity, person, person_id};
use avouch_domain::limits::{ACCEPTED_ALL_MAX, ACCEPTED_FOR_MAX};
use avouch_domain::{Accepted, Environment, Finding, Identity, Kind, Row, Timestamp};

use super::accepting::{AcceptError, Accepting, accept, unaccept};
use super::consent::ConsentError;
use super::governance_tests::commit;
use crate::registry::Registry;

const NOW: Timestamp = Timestamp(1_000_000);
const DAY: Duration = Duration::from_secs(86_400);

/// `per_owner` owns `/prod/ci`, `/found` has no identity; a security person and somebody else are there.
fn scene() -> Registry {
    let mut registry = Registry::new();
    registry.put(Row::Person(person("per_owner", 1, true)));
    registry.put(Row::Person(person("per_other", 2, false)));
    registry.put(Row::Person(person("per_s", 3, true)));
    let prod = Identity { environment: Environment::Prod, ..identity("/prod/ci", Kind::Pipeline) };
    registry.put(Row::Identity(prod));
    registry.put(Row::Entry(entry("e1", "/found", "/node", &["unix:uid:1"])));
    registry
}

fn new(path: &str, what: Finding) -> Accepting {
    Accepting { name: id(path), what, until: NOW + DAY, why: "moves in May".into() }
}

fn accepts(registry: &mut Registry, by: &str, new: &Accepting) -> Result<Accepted, AcceptError> {
    let (plan, accepted) = accept(registry, NOW, &person_id(by), new);
    commit(registry, &plan);
    accepted
}

#[test]
fn anybody_but_the_owner_accepts_what_an_identity_lacks() {
    let mut registry = scene();
    let (stop, actor) = (new("/prod/ci", Finding::Stop), person_id("per_owner"));
    let environment = Environment::Prod;
    let own = AcceptError::Own { name: id("/prod/ci"), actor, environment };
    assert_eq!(accepts(&mut registry, "per_owner", &stop), Err(own));
    assert!(accepts(&mut registry, "per_other", &stop).is_ok());
    registry.put(Row::Identity(identity("/prod/ci", Kind::Pipeline)));
    assert!(accepts(&mut registry, "per_owner", &stop).is_ok(), "in test the owner may");
    let gone = ConsentError::NoPerson(person_id("per_gone"));
    assert_eq!(accepts(&mut registry, "per_gone", &stop), Err(gone.into()));
}

#[test]
fn what_nobody_answers_for_is_accepted_by_a_security_person() {
    let mut registry = scene();
    let owner = new("/found", Finding::Owner);
    let refused = accepts(&mut registry, "per_other", &owner).unwrap_err();
    assert!(matches!(refused, AcceptError::NotSecurity { .. }), "{refused}");
    assert!(accepts(&mut registry, "per_s", &owner).is_ok());
}

#[test]
fn only_what_there_is_can_lack_something() {
    let mut registry = scene();
    let refused = accepts(&mut registry, "per_s", &new("/prod/ci", Finding::Owner));
    assert_eq!(refused, Err(AcceptError::NotFound(id("/prod/ci"))), "it has one");
    let refused = accepts(&mut registry, "per_s", &new("/none", Finding::Owner));
    assert_eq!(refused, Err(AcceptError::NotFound(id("/none"))));
    let refused = accepts(&mut registry, "per_s", &new("/found", Finding::Confirmed));
    assert_eq!(refused, Err(AcceptError::NoIdentity(id("/found"))));
}

#[test]
fn it_is_accepted_for_a_quarter_at_most_and_not_for_what_has_been() {
    let mut registry = scene();
    for until in [NOW, Timestamp(0), Timestamp(NOW.0 + 1) + ACCEPTED_FOR_MAX] {
        let wrong = Accepting { until, ..new("/prod/ci", Finding::Stop) };
        assert_eq!(accepts(&mut registry, "per_s", &wrong), Err(AcceptError::Until), "{until}");
    }
    let longest = Accepting { until: NOW + ACCEPTED_FOR_MAX, ..new("/prod/ci", Finding::Stop) };
    assert!(accepts(&mut registry, "per_s", &longest).is_ok());
}

#[test]
fn what_is_accepted_again_has_the_new_moment_and_the_new_reason() {
    let mut registry = scene();
    let first = new("/prod/ci", Finding::Stop);
    accepts(&mut registry, "per_s", &first).unwrap();
    let second = Accepting { until: NOW + 2 * DAY, why: "moves in June".into(), ..first };
    let again = accepts(&mut registry, "per_other", &second).unwrap();
    assert_eq!(
        (again.until, &*again.why, &again.said.by),
        (second.until, "moves in June", &person_id("per_other"))
    );
    assert_eq!(registry.all_accepted().collect::<Vec<_>>(), [&again]);
}

#[test]
fn anybody_lets_it_count_again_once() {
    let mut registry = scene();
    let made = accepts(&mut registry, "per_s", &new("/prod/ci", Finding::Stop)).unwrap();
    let reopens = |registry: &mut Registry, by: &str, what| {
        let (plan, taken) = unaccept(registry, NOW, &person_id(by), &id("/prod/ci"), what);
        commit(registry, &plan);
        taken
    };
    assert!(reopens(&mut registry, "per_gone", Finding::Stop).is_err());
    let other = reopens(&mut registry, "per_owner", Finding::Confirmed);
    assert!(matches!(other, Err(AcceptError::NotAccepted { .. })), "{other:?}");
    assert_eq!(reopens(&mut registry, "per_owner", Finding::Stop), Ok(made));
    assert!(reopens(&mut registry, "per_owner", Finding::Stop).is_err());
    assert_eq!(registry.all_accepted().len(), 0);
}

#[test]
fn a_record_says_what_and_until_when_and_not_why() {
    let (plan, _) = accept(&scene(), NOW, &person_id("per_s"), &new("/prod/ci", Finding::Stop));
    let [record] = plan.audit.as_slice() else { panic!("{:?}", plan.audit) };
    let said = (record.event.name(), record.subject.as_str(), record.detail.len());
    assert_eq!(said, ("finding_accepted", "spiffe://example.org/prod/ci", 2));
    assert!(!format!("{record:?}").contains("May"), "{record:?}");
}

#[test]
fn no_more_are_kept_than_there_may_be() {
    let mut registry = scene();
    for n in 0..ACCEPTED_ALL_MAX {
        registry.put(Row::Accepted(accepted(&format!("/test/n{n}"), Finding::Stop)));
    }
    let stop = new("/prod/ci", Finding::Stop);
    assert_eq!(accepts(&mut registry, "per_s", &stop), Err(AcceptError::TooMany));
    let (plan, _) = unaccept(&registry, NOW, &person_id("per_s"), &id("/test/n0"), Finding::Stop);
    commit(&mut registry, &plan);
    assert!(accepts(&mut registry, "per_s", &stop).is_ok());
}
