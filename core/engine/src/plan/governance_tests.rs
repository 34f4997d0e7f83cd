//! What people may do to people and identities, one rule per test.

use std::num::NonZeroU16;

use avouch_domain::fixtures::{entry, id, identity, node as node_of, person, person_id};
use avouch_domain::limits::{ADOPTED_FOR, IDENTITY_LIFE_MAX};
use avouch_domain::{
    Cause, Code, CodeDigest, Environment, Identity, Kind, LogPosition, PersonId, PersonState, Plan, Row,
    SignIn, SpiffeId, Standing, StopTried, Timestamp,
};
use proptest::prelude::*;

use super::identities::{self, IdentityError, IdentityPatch, NewIdentity};
use super::people::{self, NewPerson, PeopleError};
use crate::invariants::{inv8_every_change_is_audited, inv8_every_change_is_audited_once};
use crate::registry::Registry;

const NOW: Timestamp = Timestamp(1_000);
const LATER: Timestamp = Timestamp(5_000_000);

fn registry(rows: Vec<Row>) -> Registry {
    let mut registry = Registry::new();
    rows.into_iter().for_each(|row| registry.put(row));
    registry
}

/// `per_s` and `per_t` are security people, `per_owner` and `per_other` are not.
fn team() -> Registry {
    registry(vec![
        Row::Person(person("per_s", 1, true)),
        Row::Person(person("per_t", 2, true)),
        Row::Person(person("per_owner", 3, false)),
        Row::Person(person("per_other", 4, false)),
    ])
}

fn team_with(identity: Identity) -> Registry {
    let mut registry = team();
    registry.put(Row::Identity(identity));
    registry
}

pub(super) fn commit(registry: &mut Registry, plan: &Plan) {
    inv8_every_change_is_audited(plan).unwrap();
    inv8_every_change_is_audited_once(plan).unwrap();
    let position = registry.position();
    registry.apply(plan, LogPosition { revision: position.revision.next(), ..position });
}

fn who(text: &str) -> PersonId {
    person_id(text)
}

fn new_person(id: &str, uid: Option<u32>) -> NewPerson {
    NewPerson { id: who(id), name: id.into(), uid, sign_in: None, security: true }
}

fn coder() -> SpiffeId {
    id("/test/coder")
}

fn new(environment: Environment) -> NewIdentity {
    NewIdentity {
        name: coder(),
        kind: Kind::AiAgent,
        environment,
        purpose: Code::new("fix-bugs").unwrap(),
        preset: None,
        owner: who("per_owner"),
        successor: None,
        end: LATER,
    }
}

fn prod(kind: Kind) -> Identity {
    Identity { environment: Environment::Prod, ..identity("/test/coder", kind) }
}

#[test]
fn the_first_person_is_made_once_and_is_a_security_person() {
    let mut registry = Registry::new();
    let (plan, made) = people::first(&registry, NOW, &new_person("per_a", Some(7)));
    let made = made.unwrap();
    assert!(made.security && made.is_active());
    commit(&mut registry, &plan);
    let (plan, again) = people::first(&registry, NOW, &new_person("per_b", Some(8)));
    assert_eq!((again, plan.is_empty()), (Err(PeopleError::NotTheFirst), true));
}

#[test]
fn the_second_person_is_added_alone_and_the_third_needs_a_second_yes() {
    let mut registry = registry(vec![Row::Person(person("per_a", 1, true))]);
    let (plan, second) = people::add(&registry, NOW, &who("per_a"), &new_person("per_b", None));
    assert!(second.unwrap().is_active());
    commit(&mut registry, &plan);
    let (plan, third) = people::add(&registry, NOW, &who("per_a"), &new_person("per_c", None));
    assert_eq!(third.unwrap().state, PersonState::Proposed);
    commit(&mut registry, &plan);
    let (_, own) = people::approve(&registry, NOW, &who("per_a"), &who("per_c"));
    assert_eq!(own, Err(PeopleError::OwnQuestion(who("per_a"))));
    let (_, by_itself) = people::approve(&registry, NOW, &who("per_c"), &who("per_c"));
    assert_eq!(by_itself, Err(PeopleError::NotSecurity(who("per_c"))), "who waits may not act");
    let (plan, yes) = people::approve(&registry, NOW, &who("per_b"), &who("per_c"));
    assert_eq!(yes.unwrap().yes_by, Some(who("per_b")));
    commit(&mut registry, &plan);
    assert!(registry.person(&who("per_c")).unwrap().is_active());
}

#[test]
fn two_people_are_never_the_same_user() {
    let (_, refused) = people::add(&team(), NOW, &who("per_s"), &new_person("per_x", Some(3)));
    assert_eq!(refused, Err(PeopleError::UidTaken { uid: 3, holder: who("per_owner") }));
}

fn account(subject: &str) -> SignIn {
    SignIn::read("https://idp.example.org", subject).unwrap().unwrap()
}

fn with_account(id: &str, subject: &str) -> NewPerson {
    NewPerson { sign_in: Some(account(subject)), ..new_person(id, None) }
}

#[test]
fn two_people_never_sign_in_as_the_same_account() {
    let mut registry = team();
    let (plan, added) = people::add(&registry, NOW, &who("per_s"), &with_account("per_x", "7"));
    assert_eq!(added.unwrap().sign_in, Some(account("7")));
    commit(&mut registry, &plan);
    let taken = Err(PeopleError::SignInTaken(who("per_x")));
    let (plan, refused) = people::add(&registry, NOW, &who("per_s"), &with_account("per_y", "7"));
    assert_eq!((refused, plan.is_empty()), (taken.clone(), true), "one who waits has it already");
    let (_, refused) = people::set_sign_in(&registry, NOW, &who("per_t"), Some(&account("7")));
    assert_eq!(refused, taken);
    let (_, other) = people::add(&registry, NOW, &who("per_s"), &with_account("per_y", "8"));
    assert!(other.is_ok());
}

#[test]
fn who_is_there_sets_and_takes_back_their_own_account_and_the_log_names_none() {
    let mut registry = team();
    let (plan, set) = people::set_sign_in(&registry, NOW, &who("per_other"), Some(&account("7")));
    assert_eq!(set.unwrap().id, who("per_other"));
    assert_eq!(plan.audit[0].detail, [("sign_in", "true".to_owned())]);
    commit(&mut registry, &plan);
    assert_eq!(registry.person_of_sign_in(&account("7")).map(|p| &p.id), Some(&who("per_other")));
    let (plan, again) = people::set_sign_in(&registry, NOW, &who("per_other"), Some(&account("7")));
    assert!(again.is_ok() && plan.is_empty(), "setting twice is setting once");
    let (plan, none) = people::set_sign_in(&registry, NOW, &who("per_other"), None);
    assert_eq!(none.unwrap().sign_in, None);
    commit(&mut registry, &plan);
    assert!(registry.person_of_sign_in(&account("7")).is_none());
    let (_, nobody) = people::set_sign_in(&registry, NOW, &who("per_x"), Some(&account("7")));
    assert_eq!(nobody, Err(PeopleError::NotActive(who("per_x"))));
}

#[test]
fn only_security_people_add_people() {
    let (_, refused) = people::add(&team(), NOW, &who("per_owner"), &new_person("per_x", None));
    assert_eq!(refused, Err(PeopleError::NotSecurity(who("per_owner"))));
}

#[test]
fn in_test_the_owner_alone_registers_and_it_is_recorded_as_self() {
    let (plan, made) = identities::register(&team(), NOW, &who("per_owner"), &new(Environment::Test));
    assert_eq!(made.unwrap().standing, Standing::Active);
    assert!(plan.audit[0].detail.contains(&("yes_by", "self".to_owned())), "{:?}", plan.audit);
}

#[test]
fn in_prod_the_yes_is_neither_the_owners_nor_the_askers() {
    for environment in [Environment::Staging, Environment::Prod] {
        let mut registry = team();
        let (plan, made) = identities::register(&registry, NOW, &who("per_s"), &new(environment));
        assert_eq!(made.unwrap().standing, Standing::Proposed);
        commit(&mut registry, &plan);
        for wrong in ["per_s", "per_owner", "per_other"] {
            let (_, refused) = identities::approve(&registry, NOW, &who(wrong), &coder());
            assert_eq!(refused, Err(IdentityError::SecondPerson(environment)), "{wrong}");
        }
        let (_, yes) = identities::approve(&registry, NOW, &who("per_t"), &coder());
        let yes = yes.unwrap();
        assert_eq!((yes.standing, yes.yes_by), (Standing::Active, Some(who("per_t"))));
    }
}

#[test]
fn a_name_is_registered_once_also_after_its_stop() {
    let stopped =
        Identity { standing: Standing::Stopped(Cause::Person), ..identity("/test/coder", Kind::AiAgent) };
    let (_, refused) =
        identities::register(&team_with(stopped), NOW, &who("per_owner"), &new(Environment::Test));
    assert_eq!(refused, Err(IdentityError::Exists(coder())));
}

#[test]
fn what_runs_is_adopted_and_not_registered_so_that_it_does_not_break() {
    let mut registry = team();
    let adopt = |registry: &Registry, actor: &str| {
        let (plan, mut outcomes) = identities::adopt(registry, NOW, &who(actor), &[new(Environment::Prod)]);
        (plan, outcomes.remove(0))
    };
    assert_eq!(adopt(&registry, "per_s").1, Err(IdentityError::NothingRuns(coder())));
    registry.put(Row::Entry(entry("e1", "/test/coder", "/p", &["u:1"])));
    let (_, refused) = identities::register(&registry, NOW, &who("per_owner"), &new(Environment::Prod));
    assert_eq!(refused, Err(IdentityError::Runs(coder())));
    assert_eq!(adopt(&registry, "per_owner").1, Err(IdentityError::NotSecurity(who("per_owner"))));
    let (plan, adopted) = adopt(&registry, "per_s");
    let adopted = adopted.unwrap();
    assert_eq!((adopted.standing, adopted.confirm_by), (Standing::Active, Some(NOW + ADOPTED_FOR)));
    commit(&mut registry, &plan);
    assert!(registry.withholds_nothing(NOW), "nothing of it is withheld for a moment");
}

#[test]
fn an_adopted_name_is_confirmed_by_its_owner_alone() {
    let adopted = Identity { confirm_by: Some(LATER), ..identity("/test/coder", Kind::AiAgent) };
    let registry = team_with(adopted);
    let (_, refused) = identities::confirm(&registry, NOW, &who("per_s"), &coder());
    assert_eq!(refused, Err(IdentityError::NotConfirmed(who("per_owner"))));
    let (_, confirmed) = identities::confirm(&registry, NOW, &who("per_owner"), &coder());
    assert_eq!(confirmed.unwrap().confirm_by, None);
}

#[test]
fn a_pause_and_a_stop_are_the_owners_or_any_security_persons_alone() {
    let registry = team_with(prod(Kind::AiAgent));
    for actor in ["per_owner", "per_s"] {
        let (_, paused) = identities::pause(&registry, NOW, &who(actor), &coder());
        let paused = paused.unwrap();
        assert_eq!((paused.standing, paused.stop_number), (Standing::Paused(Cause::Person), 1));
        let (_, stopped) = identities::stop(&registry, NOW, &who(actor), &coder());
        assert_eq!(stopped.unwrap().standing, Standing::Stopped(Cause::Person));
    }
    let (_, refused) = identities::stop(&registry, NOW, &who("per_other"), &coder());
    let (actor, owner) = (who("per_other"), who("per_owner"));
    assert_eq!(refused, Err(IdentityError::NotYours { actor, owner }));
}

#[test]
fn what_is_stopped_stays_stopped() {
    let stopped = Identity { standing: Standing::Stopped(Cause::Person), ..prod(Kind::Service) };
    let registry = team_with(stopped.clone());
    let last = Err(IdentityError::Final(stopped.standing));
    let (actor, name) = (who("per_s"), coder());
    assert_eq!(identities::resume(&registry, NOW, &actor, &name).1, last);
    assert_eq!(identities::pause(&registry, NOW, &actor, &name).1, last);
    assert_eq!(identities::stop(&registry, NOW, &actor, &name).1, last);
    let longer = IdentityPatch { end: Some(LATER), ..IdentityPatch::default() };
    assert_eq!(identities::patch(&registry, NOW, &actor, &name, &longer).1, last);
}

#[test]
fn a_drill_is_recorded_and_stops_nothing() {
    let mut registry = team_with(prod(Kind::AiAgent));
    let (_, foreign) = identities::drill(&registry, NOW, &who("per_other"), &coder());
    assert!(matches!(foreign, Err(IdentityError::NotYours { .. })), "{foreign:?}");
    let (plan, begun) = identities::drill(&registry, NOW, &who("per_owner"), &coder());
    commit(&mut registry, &plan);
    let begun = begun.unwrap();
    assert_eq!((begun.standing, begun.stop_number), (Standing::Active, 0));
    let went = StopTried { at: NOW, nodes: 2, confirmed: 1, took_ms: 4 };
    let silent = vec![SpiffeId::parse("spiffe://example.org/spire/agent/x").unwrap()];
    let trial = |tried| [identities::Trial { name: coder(), tried, silent: silent.clone() }];
    let plan = identities::tried(&registry, NOW, &trial(went));
    commit(&mut registry, &plan);
    assert_eq!(registry.identity(&coder()).unwrap().stop_tried, Some(went));
    let earlier = StopTried { at: Timestamp(NOW.0 - 1), ..went };
    assert!(
        identities::tried(&registry, NOW, &trial(earlier)).audit.is_empty(),
        "another was begun meanwhile"
    );
    let told = ("silent", "spiffe://example.org/spire/agent/x".to_owned());
    assert!(plan.audit[0].detail.contains(&told), "{:?}", plan.audit);
    let (plan, _) = identities::pause(&registry, NOW, &who("per_s"), &coder());
    commit(&mut registry, &plan);
    let (_, paused) = identities::drill(&registry, NOW, &who("per_s"), &coder());
    assert!(matches!(paused, Err(IdentityError::Standing { .. })), "{paused:?}");
}

#[test]
fn in_prod_nobody_widens_what_is_his_own() {
    let paused = Identity { standing: Standing::Paused(Cause::Person), end: LATER, ..prod(Kind::AiAgent) };
    let registry = team_with(paused);
    let longer = IdentityPatch { end: Some(LATER + ADOPTED_FOR), ..IdentityPatch::default() };
    for wrong in ["per_owner", "per_other"] {
        let (_, refused) = identities::resume(&registry, NOW, &who(wrong), &coder());
        assert_eq!(refused, Err(IdentityError::SecondPerson(Environment::Prod)), "{wrong}");
        let (_, refused) = identities::patch(&registry, NOW, &who(wrong), &coder(), &longer);
        assert_eq!(refused, Err(IdentityError::SecondPerson(Environment::Prod)), "{wrong}");
    }
    assert!(identities::resume(&registry, NOW, &who("per_s"), &coder()).1.is_ok());
    let shorter = IdentityPatch { end: Some(Timestamp(LATER.0 - 1)), ..IdentityPatch::default() };
    assert!(identities::patch(&registry, NOW, &who("per_owner"), &coder(), &shorter).1.is_ok());
}

#[test]
fn code_where_any_was_right_and_fewer_runs_are_the_owners_to_say_and_other_code_and_more_runs_a_second_persons()
 {
    let mut registry = team_with(Identity { end: LATER, ..prod(Kind::AiAgent) });
    let (owner, second) = (who("per_owner"), who("per_s"));
    let patch = |code: Option<u8>, runs| IdentityPatch {
        code: Some(code.map(|byte| CodeDigest([byte; 32]))),
        runs_max: Some(NonZeroU16::new(runs)),
        ..IdentityPatch::default()
    };
    let (plan, held) = identities::patch(&registry, NOW, &owner, &coder(), &patch(Some(1), 2));
    commit(&mut registry, &plan);
    assert_eq!(held.map(|held| held.runs_max), Ok(NonZeroU16::new(2)));
    for wider in [patch(Some(2), 2), patch(None, 2), patch(Some(1), 3), patch(Some(1), 0)] {
        let (_, refused) = identities::patch(&registry, NOW, &owner, &coder(), &wider);
        assert_eq!(refused, Err(IdentityError::SecondPerson(Environment::Prod)), "{wider:?}");
        assert!(identities::patch(&registry, NOW, &second, &coder(), &wider).1.is_ok());
    }
    assert!(identities::patch(&registry, NOW, &owner, &coder(), &patch(Some(1), 1)).1.is_ok());
}

#[test]
fn other_code_pauses_what_acts_by_itself_where_it_may_run_and_nothing_else() {
    let node = id("/spire/agent/x");
    let paused = |kind, code: Option<u8>, found: u8, served: bool| {
        let code = code.map(|byte| CodeDigest([byte; 32]));
        let mut registry = team_with(Identity { end: LATER, code, ..prod(kind) });
        registry.put(Row::Node(node_of("/spire/agent/x", &[], i64::MAX / 1000)));
        if served {
            registry.put(Row::Entry(entry("e", "/test/coder", "/spire/agent/x", &["u:1"])));
        }
        let (plan, paused) =
            identities::pause_for_code(&registry, NOW, &node, &coder(), CodeDigest([found; 32]));
        commit(&mut registry, &plan);
        let standing = registry.identity(&coder()).unwrap().standing;
        assert_eq!(standing == Standing::Paused(Cause::OtherCode), paused);
        assert_eq!(plan.audit.len(), usize::from(paused));
        paused
    };
    assert!(paused(Kind::AiAgent, Some(1), 2, true));
    assert!(!paused(Kind::AiAgent, Some(1), 1, true), "its own code");
    assert!(!paused(Kind::AiAgent, None, 2, true), "any code is right");
    assert!(!paused(Kind::Service, Some(1), 2, true), "a service is refused, and goes on where it runs");
    assert!(!paused(Kind::AiAgent, Some(1), 2, false), "a node that may not run it says nothing of it");
}

#[test]
fn an_end_lies_ahead_and_not_too_far() {
    let (_, passed) = identities::register(
        &team(),
        NOW,
        &who("per_owner"),
        &NewIdentity { end: NOW, ..new(Environment::Test) },
    );
    assert_eq!(passed, Err(IdentityError::EndPassed));
    let far = NewIdentity { end: Timestamp((NOW + IDENTITY_LIFE_MAX).0 + 1), ..new(Environment::Test) };
    let (_, far) = identities::register(&team(), NOW, &who("per_owner"), &far);
    assert_eq!(far, Err(IdentityError::EndTooFar));
}

#[test]
fn what_reaches_its_end_pauses_and_goes_on_only_with_a_later_one() {
    let mut registry = team_with(Identity { end: LATER, ..identity("/test/coder", Kind::Service) });
    assert_eq!(identities::pause_due(&registry, Timestamp(LATER.0 - 1), "server").1, []);
    let (plan, paused) = identities::pause_due(&registry, LATER, "server");
    assert_eq!(paused, [(coder(), Cause::EndReached)]);
    commit(&mut registry, &plan);
    let (_, early) = identities::resume(&registry, LATER, &who("per_owner"), &coder());
    assert_eq!(early, Err(IdentityError::AtItsEnd));
    let longer = IdentityPatch { end: Some(LATER + ADOPTED_FOR), ..IdentityPatch::default() };
    let (plan, _) = identities::patch(&registry, LATER, &who("per_owner"), &coder(), &longer);
    commit(&mut registry, &plan);
    let (_, resumed) = identities::resume(&registry, LATER, &who("per_owner"), &coder());
    assert_eq!(resumed.unwrap().stop_number, 1, "the number never falls");
}

#[test]
fn whoever_is_given_an_identity_has_to_confirm_it() {
    let registry = team_with(identity("/test/coder", Kind::AiAgent));
    let give = IdentityPatch { owner: Some(who("per_other")), ..IdentityPatch::default() };
    let (_, given) = identities::patch(&registry, NOW, &who("per_owner"), &coder(), &give);
    assert_eq!(given.unwrap().confirm_by, Some(NOW + ADOPTED_FOR));
    let gone = IdentityPatch { owner: Some(who("per_nobody")), ..IdentityPatch::default() };
    let (_, refused) = identities::patch(&registry, NOW, &who("per_owner"), &coder(), &gone);
    assert_eq!(refused, Err(IdentityError::NoPerson(who("per_nobody"))));
}

/// One step of somebody at some time.
fn any_step() -> impl Strategy<Value = (u8, u8, i64, bool)> {
    (0u8..8, 0u8..4, 0i64..6_000, any::<bool>())
}

proptest! {
    #[test]
    fn whatever_people_do_an_active_identity_has_an_owner_and_an_end_and_numbers_never_fall(
        steps in prop::collection::vec(any_step(), 1..40), in_prod in any::<bool>(),
    ) {
        let mut registry = team();
        let environment = if in_prod { Environment::Prod } else { Environment::Test };
        let people = ["per_s", "per_t", "per_owner", "per_other"].map(who);
        let mut at = NOW;
        for (verb, actor, pass, flag) in steps {
            at = Timestamp(at.0 + pass * 1_000);
            let actor = &people[usize::from(actor)];
            let before = registry.identity(&coder()).cloned();
            let end = Timestamp(at.0 + 2_000_000);
            let patch = IdentityPatch {
                end: Some(end),
                owner: flag.then(|| actor.clone()),
                ..IdentityPatch::default()
            };
            let (plan, _) = match verb {
                0 => identities::register(&registry, at, actor, &NewIdentity { end, ..new(environment) }),
                1 => identities::approve(&registry, at, actor, &coder()),
                2 => identities::pause(&registry, at, actor, &coder()),
                3 => identities::resume(&registry, at, actor, &coder()),
                4 if flag => identities::stop(&registry, at, actor, &coder()),
                5 => identities::patch(&registry, at, actor, &coder(), &patch),
                6 => identities::confirm(&registry, at, actor, &coder()),
                _ => (identities::pause_due(&registry, at, "server").0, Err(IdentityError::NothingToConfirm)),
            };
            commit(&mut registry, &plan);
            let Some(now) = registry.identity(&coder()) else { continue };
            prop_assert!(registry.person(&now.owner).is_some_and(avouch_domain::Person::is_active));
            prop_assert!(now.standing != Standing::Active || now.yes_by.is_some());
            if in_prod && now.standing == Standing::Active {
                prop_assert!(now.yes_by.as_ref() != Some(&now.added_by));
            }
            if let Some(before) = before {
                prop_assert_eq!(before.environment, now.environment);
                prop_assert!(now.stop_number >= before.stop_number);
                let fell = before.standing == Standing::Active && now.standing != Standing::Active;
                prop_assert!(!fell || now.stop_number > before.stop_number);
                let was_stopped = matches!(before.standing, Standing::Stopped(_));
                prop_assert!(!was_stopped || now.standing == before.standing);
            }
        }
    }
}
