//! Who is signed in to the pages, as the API sees it.

use std::time::Duration;

use avouch_console::FRESH;
use avouch_console::sessions::Visitor;
use avouch_domain::{Now, PersonId, SignIn, Timestamp};
use avouch_proto::governance_v1::governance_client::GovernanceClient;
use avouch_proto::governance_v1::{
    AnswerRequestRequest, IdentityRequest, InitRequest, ListPeopleRequest, OpenPagesRequest, OverviewRequest,
    RegisterIdentityRequest, SetSignInRequest,
};

use super::rules::governed;
use super::*;

/// The first person on a page, so long after signing in.
async fn visitor(
    world: &World,
    people: &mut GovernanceClient<Channel>,
    ago: Duration,
) -> GovernanceClient<Channel> {
    visitor_as(world, people, ago, None).await
}

async fn visitor_as(
    world: &World,
    people: &mut GovernanceClient<Channel>,
    ago: Duration,
    account: Option<SignIn>,
) -> GovernanceClient<Channel> {
    let me = people.list_people(ListPeopleRequest {}).await.unwrap().into_inner().caller;
    let now = clock::now();
    let wall = Timestamp(now.wall.0 - i64::try_from(ago.as_millis()).unwrap());
    let visitor = Visitor { person: PersonId::new(&me).unwrap(), signed_in: Now { wall, ..now }, account };
    GovernanceClient::new(channel(world.admin.clone(), Peer::Page(visitor)))
}

#[tokio::test]
async fn a_yes_on_a_page_takes_a_fresh_sign_in_and_a_no_does_not() {
    let (world, mut people) = governed().await;
    let answer = |yes| AnswerRequestRequest { id: "req_000000000000".into(), hash: vec![0; 32], yes };
    let unknown = IdentityRequest { name: "nothing".into() };
    let mut stale = visitor(&world, &mut people, FRESH).await;
    let (code, text) = refusal(stale.answer_request(answer(true)).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(text.contains("`avouch console`"), "{text}");
    assert_eq!(refusal(stale.answer_request(answer(false)).await).0, Code::NotFound);
    assert_eq!(refusal(stale.approve_identity(unknown.clone()).await).0, Code::FailedPrecondition);
    assert_eq!(
        refusal(stale.pause_identity(unknown.clone()).await).0,
        Code::NotFound,
        "a stop is never late"
    );
    let mut fresh = visitor(&world, &mut people, FRESH - Duration::from_secs(10)).await;
    assert_eq!(refusal(fresh.answer_request(answer(true)).await).0, Code::NotFound);
    assert_eq!(refusal(fresh.approve_identity(unknown).await).0, Code::NotFound);
}

#[tokio::test]
async fn who_is_on_a_page_makes_no_link_and_no_first_person() {
    let (world, mut people) = governed().await;
    let mut page = visitor(&world, &mut people, Duration::ZERO).await;
    assert_eq!(refusal(page.open_pages(OpenPagesRequest {}).await).0, Code::PermissionDenied);
    let init = InitRequest { name: "Eve Example".into() };
    assert_eq!(refusal(page.init(init).await).0, Code::PermissionDenied);
    let (code, text) = refusal(people.open_pages(OpenPagesRequest {}).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(text.contains("console_address"), "a server without pages says how to have some: {text}");
}

#[tokio::test]
async fn what_a_page_did_stands_under_its_person() {
    let (world, mut people) = governed().await;
    let mut page = visitor(&world, &mut people, Duration::ZERO).await;
    let new = RegisterIdentityRequest {
        name: "coder".into(),
        kind: "ai_agent".into(),
        environment: "test".into(),
        purpose: "fix-bugs".into(),
        ends_at: clock::now().wall.secs() + 86_400,
        ..RegisterIdentityRequest::default()
    };
    let me = people.list_people(ListPeopleRequest {}).await.unwrap().into_inner().caller;
    let made = page.register_identity(new).await.unwrap().into_inner();
    assert_eq!((made.owner.as_str(), made.added_by.as_str()), (me.as_str(), me.as_str()));
    let counts = page.overview(OverviewRequest {}).await.unwrap().into_inner();
    assert_eq!((counts.active, counts.stop_untried, counts.people), (1, 1, 1));
    assert!(counts.last_record >= 2, "the person and the identity: {counts:?}");
}

fn account(subject: &str) -> SetSignInRequest {
    SetSignInRequest { issuer: "https://idp.example.org".into(), subject: subject.into() }
}

#[tokio::test]
async fn who_came_from_a_provider_is_told_to_sign_in_again_there() {
    let (world, mut people) = governed().await;
    people.set_sign_in(account("7")).await.unwrap();
    let seven = SignIn::read("https://idp.example.org", "7").unwrap();
    let mut stale = visitor_as(&world, &mut people, FRESH, seven).await;
    let (code, text) = refusal(stale.approve_identity(IdentityRequest { name: "nothing".into() }).await);
    assert_eq!(code, Code::FailedPrecondition);
    assert!(text.contains("sign in again") && !text.contains("avouch console"), "{text}");
}

#[tokio::test]
async fn a_session_ends_with_the_account_that_began_it_and_no_page_sets_one() {
    let (world, mut people) = governed().await;
    people.set_sign_in(account("7")).await.unwrap();
    let seven = SignIn::read("https://idp.example.org", "7").unwrap();
    let mut page = visitor_as(&world, &mut people, Duration::ZERO, seven).await;
    page.overview(OverviewRequest {}).await.unwrap();
    assert_eq!(refusal(page.set_sign_in(account("8")).await).0, Code::PermissionDenied);
    let none = SetSignInRequest::default();
    assert_eq!(refusal(page.set_sign_in(none.clone()).await).0, Code::PermissionDenied);
    let half = SetSignInRequest { subject: String::new(), ..account("8") };
    assert_eq!(refusal(people.set_sign_in(half).await).0, Code::InvalidArgument);
    for other in [account("8"), none] {
        people.set_sign_in(other).await.unwrap();
        assert_eq!(refusal(page.overview(OverviewRequest {}).await).0, Code::PermissionDenied);
    }
    let mut link = visitor(&world, &mut people, Duration::ZERO).await;
    link.overview(OverviewRequest {}).await.unwrap();
}
