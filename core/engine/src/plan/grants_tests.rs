//! Who gives a grant, what ends it, and that its uses are counted, one rule per test.

use std::time::Duration;

use avouch_domain::fixtures::{grant, id, identity, person, person_id};
use avouch_domain::limits::{GRANT_FOR_MAX, GRANT_USES_MAX, GRANTS_MAX};
use avouch_domain::{
    Case, Environment, Grant, GrantId, GrantStanding, Identity, Kind, Needs, Person, PersonState, Plan,
    RequestHash, RequestId, RequestText, Row, Timestamp, Whose,
};
use proptest::prelude::*;

use super::consent::ConsentError;
use super::governance_tests::commit;
use super::grants::{CASE_BATCH, EndError, GiveError, NewGrant, end, end_case, forget, give};
use super::identities;
use super::requests::{AskError, Asked, Used, Wanted, ask, say_yes};
use crate::registry::Registry;

const NOW: Timestamp = Timestamp(1_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const GRANT: Needs = Needs { yes: Whose { owner: false, person: false }, grant: true };

/// `per_owner` owns `/test/ci`; a security person and somebody else are there.
fn scene(kind: Kind) -> Registry {
    let mut registry = Registry::new();
    registry.put(Row::Person(person("per_owner", 1, true)));
    registry.put(Row::Person(person("per_other", 2, false)));
    registry.put(Row::Person(person("per_s", 3, true)));
    registry.put(Row::Identity(Identity { environment: Environment::Prod, ..identity("/test/ci", kind) }));
    registry
}

fn new(name: &str, uses: u32, lasts: Duration) -> NewGrant {
    NewGrant {
        id: GrantId::new(&format!("gr_{name}")).unwrap(),
        identity: id("/test/ci"),
        action: "secret.read".into(),
        resource: "vault/key".into(),
        uses,
        lasts,
        case: None,
    }
}

fn for_case(name: &str, case: &str) -> NewGrant {
    NewGrant { case: Some(Case::new(case).unwrap()), ..new(name, 9, HOUR) }
}

/// How many grants end.
fn closes(registry: &mut Registry, by: &str, case: &str) -> Result<usize, EndError> {
    let (plan, ended) = end_case(registry, NOW, &person_id(by), &Case::new(case).unwrap());
    commit(registry, &plan);
    ended
}

fn gives(registry: &mut Registry, by: &str, new: &NewGrant) -> Result<Grant, GiveError> {
    let (plan, given) = give(registry, NOW, &person_id(by), new);
    commit(registry, &plan);
    given
}

fn with_grant(uses: u32) -> (Registry, Grant) {
    let mut registry = scene(Kind::Pipeline);
    let grant = gives(&mut registry, "per_other", &new("a", uses, HOUR)).unwrap();
    (registry, grant)
}

fn wanted(key: u8, needs: Needs) -> Wanted {
    Wanted {
        id: RequestId::new(&format!("req_{key}")).unwrap(),
        text: RequestText { hash: RequestHash([1; 32]), text: "read".into() },
        identity: id("/test/ci"),
        node: id("/spire/agent/x"),
        action: "secret.read".into(),
        resource: "vault/key".into(),
        needs,
        key: [key; 16],
    }
}

fn asks(registry: &mut Registry, at: Timestamp, wanted: &Wanted) -> Result<Asked, AskError> {
    let (plan, asked) = ask(registry, at, wanted);
    commit(registry, &plan);
    asked
}

/// Whether a call with this key may go on.
fn uses(registry: &mut Registry, at: Timestamp, key: u8) -> bool {
    match asks(registry, at, &wanted(key, GRANT)) {
        Ok(Asked::Used(Used { request: None, grant: Some(_) })) => true,
        Ok(Asked::NoGrant) | Err(AskError::NotInForce(_)) => false,
        other => panic!("{other:?}"),
    }
}

fn standing(registry: &Registry, grant: &Grant) -> GrantStanding {
    registry.grant_standing(registry.grant(&grant.id).unwrap(), NOW)
}

#[test]
fn a_grant_of_two_uses_lets_two_calls_through() {
    let (mut registry, grant) = with_grant(2);
    assert!(uses(&mut registry, NOW, 1) && uses(&mut registry, NOW, 2));
    assert!(!uses(&mut registry, NOW, 3));
    assert_eq!(standing(&registry, &grant), GrantStanding::UsedUp);
}

#[test]
fn a_call_that_is_made_again_uses_nothing_more() {
    let (mut registry, grant) = with_grant(2);
    assert!(uses(&mut registry, NOW, 1) && uses(&mut registry, NOW, 1));
    assert_eq!(registry.grant(&grant.id).unwrap().uses, 1);
    assert!(uses(&mut registry, NOW, 2));
    assert!(uses(&mut registry, NOW, 1), "its answer was lost: it had used the first");
    assert!(!uses(&mut registry, NOW, 3));
}

#[test]
fn a_grant_ends_with_its_time() {
    let (mut registry, grant) = with_grant(9);
    assert!(uses(&mut registry, Timestamp(grant.ends_at.0 - 1), 1));
    assert!(!uses(&mut registry, grant.ends_at, 2));
}

#[test]
fn a_grant_never_outlives_its_identity() {
    let mut registry = scene(Kind::Pipeline);
    let end = registry.identity(&id("/test/ci")).unwrap().end;
    let near = Timestamp(end.0 - 1_000);
    let (_, given) = give(&registry, near, &person_id("per_s"), &new("a", 1, HOUR));
    assert_eq!(given.unwrap().ends_at, end);
    let refused = give(&registry, end, &person_id("per_s"), &new("a", 1, HOUR)).1;
    assert_eq!(refused, Err(GiveError::NotInForce(id("/test/ci"))));
    assert!(gives(&mut registry, "per_s", &new("a", 1, HOUR)).is_ok());
}

#[test]
fn a_grant_is_for_one_action_on_one_resource_of_one_identity() {
    let (mut registry, _) = with_grant(9);
    registry.put(Row::Identity(identity("/test/other", Kind::Pipeline)));
    for other in [
        Wanted { action: "secret.write".into(), ..wanted(1, GRANT) },
        Wanted { resource: "vault/other".into(), ..wanted(1, GRANT) },
        Wanted { identity: id("/test/other"), ..wanted(1, GRANT) },
    ] {
        assert_eq!(asks(&mut registry, NOW, &other), Ok(Asked::NoGrant), "{other:?}");
    }
}

#[test]
fn nobody_gives_what_they_own_unless_they_are_alone_in_test() {
    let mut registry = scene(Kind::AiAgent);
    let refused = gives(&mut registry, "per_owner", &new("a", 1, HOUR));
    assert_eq!(refused, Err(ConsentError::SecondPerson(person_id("per_owner")).into()));
    let refused = gives(&mut registry, "per_gone", &new("a", 1, HOUR));
    assert_eq!(refused, Err(ConsentError::NoPerson(person_id("per_gone")).into()));
    let mut alone = Registry::new();
    alone.put(Row::Person(person("per_owner", 1, true)));
    alone.put(Row::Identity(identity("/test/ci", Kind::AiAgent)));
    let (plan, given) = give(&alone, NOW, &person_id("per_owner"), &new("a", 1, HOUR));
    assert!(given.is_ok());
    assert!(plan.audit[0].detail.contains(&("as", "self".to_owned())), "{:?}", plan.audit);
    let staging = Identity { environment: Environment::Staging, ..identity("/test/ci", Kind::AiAgent) };
    alone.put(Row::Identity(staging));
    assert!(give(&alone, NOW, &person_id("per_owner"), &new("a", 1, HOUR)).1.is_err());
}

#[test]
fn the_helped_gives_a_helper_nothing() {
    let mut registry = scene(Kind::Helper);
    let refused = gives(&mut registry, "per_owner", &new("a", 1, HOUR));
    assert_eq!(refused, Err(ConsentError::OnBehalf(person_id("per_owner")).into()));
    assert!(gives(&mut registry, "per_other", &new("a", 1, HOUR)).is_ok());
}

#[test]
fn a_pause_ends_a_grant_and_a_resume_does_not_bring_it_back() {
    let (mut registry, grant) = with_grant(9);
    let (plan, _) = identities::pause(&registry, NOW, &person_id("per_s"), &id("/test/ci"));
    commit(&mut registry, &plan);
    assert!(!uses(&mut registry, NOW, 1));
    let (plan, resumed) = identities::resume(&registry, NOW, &person_id("per_s"), &id("/test/ci"));
    commit(&mut registry, &plan);
    assert!(resumed.is_ok(), "{resumed:?}");
    assert!(!uses(&mut registry, NOW, 1));
    assert_eq!(standing(&registry, &grant), GrantStanding::Lapsed);
}

#[test]
fn a_grant_counts_only_while_its_giver_is_there_and_the_owner_is_the_one_it_was_given_to() {
    let (mut registry, grant) = with_grant(9);
    let left = Person { state: PersonState::Left, ..person("per_other", 2, false) };
    registry.put(Row::Person(left));
    assert!(!uses(&mut registry, NOW, 1));
    registry.put(Row::Person(person("per_other", 2, false)));
    let it = registry.identity(&id("/test/ci")).unwrap().clone();
    for owner in ["per_other", "per_s"] {
        registry.put(Row::Identity(Identity { owner: person_id(owner), ..it.clone() }));
        assert!(!uses(&mut registry, NOW, 1), "{owner}");
        assert_eq!(standing(&registry, &grant), GrantStanding::Lapsed);
    }
}

#[test]
fn anybody_takes_a_grant_back_once() {
    let (mut registry, grant) = with_grant(9);
    let ends = |registry: &mut Registry, by: &str| {
        let (plan, ended) = end(registry, NOW, &person_id(by), &grant.id);
        commit(registry, &plan);
        ended
    };
    assert_eq!(
        ends(&mut registry, "per_gone"),
        Err(EndError::Consent(ConsentError::NoPerson(person_id("per_gone"))))
    );
    assert!(ends(&mut registry, "per_owner").is_ok());
    assert!(!uses(&mut registry, NOW, 1));
    let (id, standing) = (grant.id.clone(), GrantStanding::Ended);
    assert_eq!(ends(&mut registry, "per_owner"), Err(EndError::Over { id, standing }));
}

#[test]
fn when_a_case_is_closed_all_that_was_given_for_it_ends_and_nothing_else() {
    let (mut registry, of_none) = with_grant(9);
    let one = gives(&mut registry, "per_s", &for_case("b", "PROC-88")).unwrap();
    let two = gives(&mut registry, "per_other", &for_case("c", "PROC-88")).unwrap();
    let other = gives(&mut registry, "per_s", &for_case("d", "PROC-89")).unwrap();
    let refused = ConsentError::NoPerson(person_id("per_gone"));
    assert_eq!(closes(&mut registry, "per_gone", "PROC-88"), Err(refused.into()));
    let (plan, ended) = end_case(&registry, NOW, &person_id("per_owner"), &Case::new("PROC-88").unwrap());
    assert_eq!((ended, plan.audit.len()), (Ok(2), 2));
    let case = ("case", "PROC-88".to_owned());
    assert!(plan.audit.iter().all(|row| row.event.name() == "grant_ended" && row.detail.contains(&case)));
    commit(&mut registry, &plan);
    let standings = [&one, &two, &other, &of_none].map(|grant| standing(&registry, grant));
    assert_eq!(
        standings,
        [GrantStanding::Ended, GrantStanding::Ended, GrantStanding::Open, GrantStanding::Open]
    );
    assert_eq!(closes(&mut registry, "per_owner", "PROC-88"), Ok(0), "it is closed already");
    let unknown = EndError::NoCase(Case::new("PROC-90").unwrap());
    assert_eq!(closes(&mut registry, "per_owner", "PROC-90"), Err(unknown));
}

#[test]
fn what_was_used_up_for_a_case_stays_as_it_was() {
    let mut registry = scene(Kind::Pipeline);
    let once = NewGrant { uses: 1, ..for_case("a", "PROC-88") };
    let used = gives(&mut registry, "per_s", &once).unwrap();
    assert!(uses(&mut registry, NOW, 1));
    assert_eq!(closes(&mut registry, "per_owner", "PROC-88"), Ok(0));
    assert_eq!(standing(&registry, &used), GrantStanding::UsedUp);
}

#[test]
fn a_name_of_a_case_that_is_given_again_opens_nothing_old() {
    let mut registry = scene(Kind::Pipeline);
    let old = gives(&mut registry, "per_s", &for_case("a", "PROC-88")).unwrap();
    assert_eq!(closes(&mut registry, "per_owner", "PROC-88"), Ok(1));
    let new = gives(&mut registry, "per_s", &for_case("b", "PROC-88")).unwrap();
    let standings = [&old, &new].map(|grant| standing(&registry, grant));
    assert_eq!(standings, [GrantStanding::Ended, GrantStanding::Open]);
}

#[test]
fn a_case_of_many_grants_ends_in_several_plans() {
    let mut registry = scene(Kind::Pipeline);
    let case = Some(Case::new("PROC-88").unwrap());
    for n in 0..=CASE_BATCH {
        let grant =
            Grant { case: case.clone(), ends_at: NOW + HOUR, ..grant(&format!("gr_{n}"), "/test/ci") };
        registry.put(Row::Grant(grant));
    }
    assert_eq!(closes(&mut registry, "per_owner", "PROC-88"), Ok(CASE_BATCH));
    assert_eq!(closes(&mut registry, "per_owner", "PROC-88"), Ok(1));
}

#[test]
fn what_is_out_of_bounds_is_not_given() {
    let mut registry = scene(Kind::Pipeline);
    let day = Duration::from_secs(86_400);
    for (wrong, told) in [
        (new("a", 0, HOUR), "0 uses, expected 1 to 10000"),
        (new("a", GRANT_USES_MAX + 1, HOUR), "10001 uses"),
        (new("a", 1, Duration::ZERO), "0 s, expected 1 to 2678400 s"),
        (new("a", 1, GRANT_FOR_MAX + day), "2764800 s"),
        (NewGrant { action: "".into(), ..new("a", 1, HOUR) }, "1 to 256 bytes"),
        (NewGrant { resource: "x".repeat(257).into(), ..new("a", 1, HOUR) }, "1 to 256 bytes"),
        (NewGrant { identity: id("/test/none"), ..new("a", 1, HOUR) }, "not in force"),
    ] {
        let refused = gives(&mut registry, "per_s", &wrong).unwrap_err().to_string();
        assert!(refused.contains(told), "{told}: {refused}");
    }
    for n in 0..GRANTS_MAX {
        gives(&mut registry, "per_s", &new(&n.to_string(), 1, HOUR)).unwrap();
    }
    let refused = gives(&mut registry, "per_s", &new("more", 1, HOUR));
    assert_eq!(refused, Err(GiveError::TooMany(id("/test/ci"))));
    assert_eq!(
        gives(&mut with_grant(1).0, "per_s", &new("a", 1, HOUR)),
        Err(GiveError::IdTaken(GrantId::new("gr_a").unwrap()))
    );
}

#[test]
fn of_several_grants_the_one_that_ends_first_is_used_first() {
    let (mut registry, long) = with_grant(9);
    let short = gives(&mut registry, "per_s", &new("z", 1, HOUR / 2)).unwrap();
    assert!(uses(&mut registry, NOW, 1));
    assert_eq!(registry.grant(&short.id).unwrap().uses, 1);
    assert!(uses(&mut registry, NOW, 2));
    assert_eq!(registry.grant(&long.id).unwrap().uses, 1);
}

#[test]
fn where_a_yes_is_missing_too_both_are_used_by_one_plan_or_neither() {
    let (mut registry, grant) = with_grant(1);
    let both = Needs { yes: Whose { owner: false, person: true }, grant: true };
    let Ok(Asked::Waits(request)) = asks(&mut registry, NOW, &wanted(1, both)) else {
        panic!("nobody asked")
    };
    assert_eq!(registry.grant(&grant.id).unwrap().uses, 0, "a call that waits uses nothing");
    let (plan, said) = say_yes(&registry, NOW, &person_id("per_s"), &request.id, request.hash);
    commit(&mut registry, &plan);
    assert!(said.is_ok());
    let used = asks(&mut registry, NOW, &wanted(2, both));
    assert!(matches!(used, Ok(Asked::Used(Used { request: Some(_), grant: Some(_) }))), "{used:?}");
    assert_eq!(asks(&mut registry, NOW, &wanted(3, both)), Ok(Asked::NoGrant));
    assert_eq!(registry.requests().count(), 1, "whoever has no grant bothers nobody");
}

#[test]
fn what_ended_long_ago_is_forgotten() {
    let (mut registry, grant) = with_grant(1);
    assert_eq!(forget(&registry, NOW, Timestamp(grant.ends_at.0 - 1), "server"), (Plan::default(), 0));
    let (plan, gone) = forget(&registry, NOW, grant.ends_at, "server");
    commit(&mut registry, &plan);
    assert_eq!((gone, registry.next_grant_end(), registry.grants_of(&grant.identity).count()), (1, None, 0));
}

proptest! {
    /// Whatever calls come, in whatever order and however often again, as many go through as there are uses.
    #[test]
    fn as_many_calls_go_through_as_there_are_uses(max in 1..5_u32, keys in proptest::collection::vec(0..12_u8, 1..60)) {
        let (mut registry, grant) = with_grant(max);
        let mut through = std::collections::BTreeSet::new();
        for key in &keys {
            if uses(&mut registry, NOW, *key) {
                through.insert(*key);
            }
        }
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        prop_assert_eq!(through.len(), different.len().min(max as usize));
        prop_assert_eq!(registry.grant(&grant.id).unwrap().uses as usize, through.len());
    }
}
