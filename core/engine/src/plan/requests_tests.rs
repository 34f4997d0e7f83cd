//! Whose yes a request takes, what it fits and how often, one rule per test.

use avouch_domain::fixtures::{id, identity, person, person_id, request};
use avouch_domain::limits::{NO_REST, REQUEST_WAIT, REQUESTS_AN_HOUR_MAX, REQUESTS_WAITING_MAX, YES_FOR};
use avouch_domain::{
    Environment, Identity, Kind, Person, PersonState, Plan, Request, RequestHash, RequestId, RequestState,
    RequestText, Row, Timestamp, Whose,
};
use proptest::prelude::*;

use super::consent::ConsentError;
use super::governance_tests::commit;
use super::identities;
use super::requests::{AnswerError, AskError, Asked, Used, Wanted, ask, forget, say_no, say_yes};
use crate::registry::Registry;

const NOW: Timestamp = Timestamp(1_000_000);
const PERSON: Whose = Whose { owner: false, person: true };
const OWNER: Whose = Whose { owner: true, person: false };

/// `per_owner` owns `/test/coder`; with `others`, there are a security person and somebody else.
fn scene(kind: Kind, environment: Environment, others: bool) -> Registry {
    let mut registry = Registry::new();
    registry.put(Row::Person(person("per_owner", 1, true)));
    if others {
        registry.put(Row::Person(person("per_other", 2, false)));
        registry.put(Row::Person(person("per_s", 3, true)));
    }
    registry.put(Row::Identity(Identity { environment, ..identity("/test/coder", kind) }));
    registry
}

fn owned_by(registry: &mut Registry, owner: &str) {
    let identity = registry.identity(&id("/test/coder")).unwrap().clone();
    registry.put(Row::Identity(Identity { owner: person_id(owner), ..identity }));
}

fn coder() -> Registry {
    scene(Kind::AiAgent, Environment::Test, true)
}

fn wanted(text: u8, key: u8, needs: Whose) -> Wanted {
    Wanted {
        id: RequestId::new(&format!("req_{text}x{key}")).unwrap(),
        text: RequestText { hash: RequestHash([text; 32]), text: text.to_string().into() },
        identity: id("/test/coder"),
        node: id("/spire/agent/x"),
        action: "repo.merge".into(),
        resource: format!("git/{text}").into(),
        needs: needs.into(),
        key: [key; 16],
    }
}

fn asked(registry: &mut Registry, at: Timestamp, wanted: &Wanted) -> Result<Asked, AskError> {
    let (plan, asked) = ask(registry, at, wanted);
    commit(registry, &plan);
    asked
}

fn waits(registry: &mut Registry, at: Timestamp, wanted: &Wanted) -> Request {
    match asked(registry, at, wanted) {
        Ok(Asked::Waits(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn yes(registry: &mut Registry, at: Timestamp, by: &str, request: &Request) -> Result<Request, AnswerError> {
    let (plan, said) = say_yes(registry, at, &person_id(by), &request.id, request.hash);
    commit(registry, &plan);
    said
}

fn no(registry: &mut Registry, at: Timestamp, by: &str, request: &Request) -> Result<Request, AnswerError> {
    let (plan, said) = say_no(registry, at, &person_id(by), &request.id, request.hash);
    commit(registry, &plan);
    said
}

#[test]
fn a_yes_fits_one_text_once() {
    let mut registry = coder();
    let first = waits(&mut registry, NOW, &wanted(1, 1, PERSON));
    assert_eq!(yes(&mut registry, NOW, "per_other", &first).unwrap().state, RequestState::Yes);
    let other = asked(&mut registry, NOW, &wanted(2, 2, PERSON)).unwrap();
    assert!(matches!(other, Asked::Waits(_)), "another text waits for a yes of its own");
    let spent = asked(&mut registry, NOW, &wanted(1, 3, PERSON)).unwrap();
    assert!(matches!(&spent, Asked::Used(Used { request: Some(request), .. }) if request.id == first.id));
    let again = waits(&mut registry, NOW, &wanted(1, 4, PERSON));
    assert_ne!(again.id, first.id, "a yes that is spent is asked for anew");
}

#[test]
fn a_call_made_again_with_its_key_is_answered_alike_and_spends_nothing() {
    let mut registry = coder();
    let first = waits(&mut registry, NOW, &wanted(1, 1, PERSON));
    yes(&mut registry, NOW, "per_other", &first).unwrap();
    let spent = asked(&mut registry, NOW, &wanted(1, 3, PERSON)).unwrap();
    let (plan, again) = ask(&registry, NOW, &wanted(1, 3, PERSON));
    assert_eq!((again.unwrap(), plan), (spent, Plan::default()));
}

#[test]
fn equal_asks_are_one_request_and_its_text_is_kept_once() {
    let mut registry = coder();
    let first = waits(&mut registry, NOW, &wanted(1, 1, PERSON));
    let (plan, again) = ask(&registry, NOW, &wanted(1, 2, PERSON));
    assert_eq!((again, plan), (Ok(Asked::Waits(first)), Plan::default()));
    let (plan, _) = ask(&registry, NOW, &wanted(2, 1, PERSON));
    assert_eq!(plan.texts.len(), 1);
}

#[test]
fn the_owner_is_not_the_second_person_and_nobody_else_is_the_owner() {
    let mut registry = coder();
    let person = waits(&mut registry, NOW, &wanted(1, 1, PERSON));
    let owner = waits(&mut registry, NOW, &wanted(2, 1, OWNER));
    let refused = ConsentError::SecondPerson(person_id("per_owner")).into();
    assert_eq!(yes(&mut registry, NOW, "per_owner", &person), Err(refused));
    let refused = ConsentError::OwnersYes(person_id("per_other")).into();
    assert_eq!(yes(&mut registry, NOW, "per_other", &owner), Err(refused));
    assert_eq!(yes(&mut registry, NOW, "per_owner", &owner).unwrap().state, RequestState::Yes);
    let refused = ConsentError::NoPerson(person_id("per_gone")).into();
    assert_eq!(yes(&mut registry, NOW, "per_gone", &person), Err(refused));
}

#[test]
fn in_test_an_owner_who_is_alone_says_yes_to_himself_and_nowhere_else() {
    let mut alone = scene(Kind::AiAgent, Environment::Test, false);
    let request = waits(&mut alone, NOW, &wanted(1, 1, PERSON));
    let (plan, said) = say_yes(&alone, NOW, &person_id("per_owner"), &request.id, request.hash);
    assert_eq!(said.unwrap().state, RequestState::Yes);
    assert!(plan.audit[0].detail.contains(&("as", "self".to_owned())), "{:?}", plan.audit);
    for environment in [Environment::Staging, Environment::Prod] {
        let mut alone = scene(Kind::AiAgent, environment, false);
        let request = waits(&mut alone, NOW, &wanted(1, 1, PERSON));
        assert!(matches!(
            yes(&mut alone, NOW, "per_owner", &request),
            Err(AnswerError::Consent(ConsentError::SecondPerson(_)))
        ));
    }
}

#[test]
fn who_is_helped_never_answers_for_the_helper() {
    let mut registry = scene(Kind::Helper, Environment::Test, true);
    let request = waits(&mut registry, NOW, &wanted(1, 1, OWNER));
    for by in ["per_owner", "per_other"] {
        assert!(
            matches!(
                yes(&mut registry, NOW, by, &request),
                Err(AnswerError::Consent(ConsentError::OnBehalf(_)))
            ),
            "{by}"
        );
    }
    assert_eq!(yes(&mut registry, NOW, "per_s", &request).unwrap().state, RequestState::Yes);
    let mut alone = scene(Kind::Helper, Environment::Test, false);
    let request = waits(&mut alone, NOW, &wanted(1, 1, PERSON));
    assert!(matches!(
        yes(&mut alone, NOW, "per_owner", &request),
        Err(AnswerError::Consent(ConsentError::OnBehalf(_)))
    ));
}

#[test]
fn two_that_are_needed_are_two_people_and_the_older_yes_counts() {
    let mut registry = coder();
    let both = Whose { owner: true, person: true };
    let request = waits(&mut registry, NOW, &wanted(1, 1, both));
    let half = yes(&mut registry, NOW, "per_owner", &request).unwrap();
    assert_eq!((half.state, half.missing(NOW)), (RequestState::Waiting, PERSON));
    assert!(yes(&mut registry, NOW, "per_owner", &half).is_err());
    let later = NOW + YES_FOR / 2;
    let whole = yes(&mut registry, later, "per_other", &half).unwrap();
    assert_eq!((whole.state, whole.until), (RequestState::Yes, NOW + YES_FOR));
    let mut registry = coder();
    let request = waits(&mut registry, NOW, &wanted(1, 1, both));
    yes(&mut registry, NOW, "per_owner", &request).unwrap();
    let late = yes(&mut registry, NOW + YES_FOR, "per_other", &request).unwrap();
    assert_eq!(
        (late.state, late.missing(NOW + YES_FOR)),
        (RequestState::Waiting, OWNER),
        "the first one is too old"
    );
}

#[test]
fn nobody_is_two_people() {
    let both = Whose { owner: true, person: true };
    let mut registry = scene(Kind::Helper, Environment::Test, true);
    let request = waits(&mut registry, NOW, &wanted(1, 1, both));
    let half = yes(&mut registry, NOW, "per_s", &request).unwrap();
    let refused = ConsentError::SecondPerson(person_id("per_s")).into();
    assert_eq!(yes(&mut registry, NOW, "per_s", &half), Err(refused));
    // Nor is who becomes the owner in between.
    let mut registry = coder();
    let request = waits(&mut registry, NOW, &wanted(1, 1, both));
    let half = yes(&mut registry, NOW, "per_other", &request).unwrap();
    owned_by(&mut registry, "per_other");
    let again = yes(&mut registry, NOW, "per_other", &half).unwrap();
    assert_eq!((again.state, again.missing(NOW)), (RequestState::Waiting, PERSON), "one yes, as the owner");
}

#[test]
fn a_yes_of_who_has_left_or_owns_it_by_now_counts_no_more() {
    let mut registry = coder();
    let request = waits(&mut registry, NOW, &wanted(1, 1, PERSON));
    yes(&mut registry, NOW, "per_other", &request).unwrap();
    owned_by(&mut registry, "per_other");
    let again = waits(&mut registry, NOW, &wanted(1, 2, PERSON));
    assert_eq!((again.id, again.person_yes), (request.id, None));
    let mut registry = coder();
    let request = waits(&mut registry, NOW, &wanted(1, 1, PERSON));
    yes(&mut registry, NOW, "per_other", &request).unwrap();
    let left = Person { state: PersonState::Left, uid: None, ..person("per_other", 2, false) };
    registry.put(Row::Person(left));
    assert_eq!(waits(&mut registry, NOW, &wanted(1, 2, PERSON)).id, request.id);
}

#[test]
fn a_yes_to_a_node_is_none_to_another() {
    let mut registry = coder();
    let request = waits(&mut registry, NOW, &wanted(1, 1, PERSON));
    yes(&mut registry, NOW, "per_other", &request).unwrap();
    let elsewhere = Wanted { node: id("/spire/agent/y"), ..wanted(1, 2, PERSON) };
    assert_ne!(waits(&mut registry, NOW, &elsewhere).id, request.id);
}

#[test]
fn rules_that_want_more_by_now_make_a_yes_wait_again() {
    let mut registry = coder();
    let request = waits(&mut registry, NOW, &wanted(1, 1, OWNER));
    yes(&mut registry, NOW, "per_owner", &request).unwrap();
    let more = waits(&mut registry, NOW, &wanted(1, 2, PERSON));
    assert_eq!((&more.id, more.needs), (&request.id, Whose { owner: true, person: true }));
    assert_eq!(registry.request(&more.id).unwrap().missing(NOW), PERSON);
}

#[test]
fn a_yes_lasts_a_quarter_of_an_hour_and_a_request_a_working_day() {
    let mut registry = coder();
    let request = waits(&mut registry, NOW, &wanted(1, 1, PERSON));
    let late = NOW + REQUEST_WAIT;
    assert!(matches!(yes(&mut registry, late, "per_other", &request), Err(AnswerError::NotWaiting { .. })));
    yes(&mut registry, NOW, "per_other", &request).unwrap();
    let after = NOW + YES_FOR;
    assert!(
        matches!(asked(&mut registry, after, &wanted(1, 2, PERSON)), Ok(Asked::Waits(r)) if r.id != request.id)
    );
}

#[test]
fn an_answer_to_another_text_does_not_count() {
    let mut registry = coder();
    let request = waits(&mut registry, NOW, &wanted(1, 1, PERSON));
    let other = Request { hash: RequestHash([9; 32]), ..request.clone() };
    assert!(matches!(yes(&mut registry, NOW, "per_other", &other), Err(AnswerError::OtherText { .. })));
    assert!(matches!(no(&mut registry, NOW, "per_other", &other), Err(AnswerError::OtherText { .. })));
    assert!(registry.request(&request.id).unwrap().waits(NOW));
}

#[test]
fn a_no_is_any_persons_takes_a_yes_back_and_rests() {
    let mut registry = coder();
    let request = waits(&mut registry, NOW, &wanted(1, 1, PERSON));
    yes(&mut registry, NOW, "per_s", &request).unwrap();
    assert_eq!(no(&mut registry, NOW, "per_other", &request).unwrap().state, RequestState::No);
    // Another text for the same is no way around it; another resource is another question.
    let around = Wanted { resource: request.resource.clone(), ..wanted(3, 1, PERSON) };
    assert!(matches!(asked(&mut registry, NOW, &around), Err(AskError::Resting { seconds: 600, .. })));
    assert!(matches!(asked(&mut registry, NOW, &wanted(2, 1, PERSON)), Ok(Asked::Waits(_))));
    assert!(matches!(asked(&mut registry, NOW + NO_REST, &around), Ok(Asked::Waits(_))));
    assert!(matches!(no(&mut registry, NOW, "per_s", &request), Err(AnswerError::NotWaiting { .. })));
}

#[test]
fn after_a_pause_no_yes_from_before_counts() {
    let mut registry = coder();
    let (early, late) = (wanted(1, 1, PERSON), wanted(2, 1, PERSON));
    let agreed = waits(&mut registry, NOW, &early);
    let waiting = waits(&mut registry, NOW, &late);
    yes(&mut registry, NOW, "per_other", &agreed).unwrap();
    let owner = person_id("per_owner");
    let (plan, paused) = identities::pause(&registry, NOW, &owner, &id("/test/coder"));
    paused.unwrap();
    commit(&mut registry, &plan);
    assert!(matches!(asked(&mut registry, NOW, &early), Err(AskError::NotInForce(_))));
    assert!(matches!(yes(&mut registry, NOW, "per_other", &waiting), Err(AnswerError::NotInForce(_))));
    let (plan, resumed) = identities::resume(&registry, NOW, &owner, &id("/test/coder"));
    resumed.unwrap();
    commit(&mut registry, &plan);
    assert!(
        matches!(asked(&mut registry, NOW, &wanted(1, 5, PERSON)), Ok(Asked::Waits(r)) if r.id != agreed.id)
    );
    assert!(matches!(yes(&mut registry, NOW, "per_other", &waiting), Err(AnswerError::NotInForce(_))));
}

#[test]
fn an_identity_has_so_many_requests_that_wait_and_so_many_an_hour() {
    let mut registry = coder();
    let most = u8::try_from(REQUESTS_WAITING_MAX).unwrap();
    let requests: Vec<_> = (0..most).map(|n| waits(&mut registry, NOW, &wanted(n, 1, PERSON))).collect();
    assert!(matches!(asked(&mut registry, NOW, &wanted(most, 1, PERSON)), Err(AskError::TooManyWait(_))));
    assert!(matches!(asked(&mut registry, NOW, &wanted(0, 2, PERSON)), Ok(Asked::Waits(_))), "joined");
    for request in &requests {
        no(&mut registry, NOW, "per_s", request).unwrap();
    }
    let hour = u8::try_from(REQUESTS_AN_HOUR_MAX).unwrap();
    for n in most..hour {
        let request = waits(&mut registry, NOW, &wanted(n, 1, PERSON));
        no(&mut registry, NOW, "per_s", &request).unwrap();
    }
    assert!(matches!(asked(&mut registry, NOW, &wanted(hour, 1, PERSON)), Err(AskError::TooOften(_))));
    let later = NOW + std::time::Duration::from_secs(3_600);
    assert!(matches!(asked(&mut registry, later, &wanted(hour, 1, PERSON)), Ok(Asked::Waits(_))));
}

#[test]
fn what_nothing_can_come_of_is_forgotten_and_what_waits_is_not() {
    let mut registry = coder();
    registry.put(Row::Request(Request { until: NOW, ..request("req_old", "/test/coder") }));
    let waiting = waits(&mut registry, NOW, &wanted(1, 1, PERSON));
    let (plan, gone) = forget(&registry, NOW, NOW, "server");
    commit(&mut registry, &plan);
    assert_eq!((gone, registry.requests().next()), (1, Some(&waiting)));
    assert_eq!(registry.next_request_end(), Some(waiting.until));
}

proptest! {
    /// Whatever is asked, answered and paused in whatever order: what is spent was agreed to by who had to, no
    /// earlier than a quarter of an hour before, and once.
    #[test]
    fn nothing_is_spent_that_was_not_agreed_to(
        steps in prop::collection::vec((0..7u8, 0..3u8, 0..3usize, 0..400u64), 1..60)
    ) {
        let mut registry = coder();
        let (mut at, mut spent) = (NOW, std::collections::BTreeSet::new());
        for (n, (step, text, who, seconds)) in steps.into_iter().enumerate() {
            at = at + std::time::Duration::from_secs(seconds);
            let by = ["per_owner", "per_other", "per_s"][who];
            let key = u8::try_from(n).unwrap_or(0);
            let needs = if text == 0 { OWNER } else { PERSON };
            let of = |registry: &Registry| registry.requests().find(|r| r.hash.0[0] == text && (r.waits(at) || r.may_be_done(at))).cloned();
            match step {
                0..=2 => if let Ok(Asked::Used(Used { request: Some(request), .. })) = asked(&mut registry, at, &wanted(text, key, needs)) {
                    prop_assert!(spent.insert(request.id.clone()), "spent twice");
                    let said = if text == 0 { &request.owner_yes } else { &request.person_yes };
                    let said = said.as_ref().unwrap();
                    let owner = registry.identity(&request.identity).unwrap().owner.clone();
                    prop_assert_eq!(said.by == owner, text == 0);
                    prop_assert!(at.since(said.at) < YES_FOR);
                    prop_assert!(request.no.is_none());
                },
                3 => if let Some(request) = of(&registry) { let _ = yes(&mut registry, at, by, &request); },
                4 => if let Some(request) = of(&registry) { let _ = no(&mut registry, at, by, &request); },
                5 => owned_by(&mut registry, by),
                _ => {
                    let (owner, name) = (person_id("per_s"), id("/test/coder"));
                    for step in [identities::pause, identities::resume] {
                        let (plan, _) = step(&registry, at, &owner, &name);
                        commit(&mut registry, &plan);
                    }
                }
            }
        }
    }
}
