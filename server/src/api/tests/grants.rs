//! Grants: given by people on the admin socket, used by agents over TCP.

use std::sync::Arc;

use avouch_proto::governance_v1::governance_client::GovernanceClient;
use avouch_proto::governance_v1::{
    EndGrantRequest, GiveGrantRequest, ListGrantsRequest, PlaceIdentityRequest, RegisterIdentityRequest,
};
use avouch_proto::requests_v1::requests_client::RequestsClient;
use avouch_proto::requests_v1::{AskRequest, AskResponse};

use super::rules::{files, governed, publish};
use super::*;

struct Scene {
    world: World,
    people: GovernanceClient<Channel>,
    agent: CallerSvid,
}

/// So many AI agents that run on one node, `a0` and on.
async fn scene(number: usize) -> Scene {
    let (world, mut people) = governed().await;
    let agent = world.agent("t1").await;
    for n in 0..number {
        let new = RegisterIdentityRequest {
            name: format!("a{n}"),
            kind: "ai_agent".into(),
            environment: "test".into(),
            purpose: "fix-bugs".into(),
            ends_at: clock::now().wall.secs() + 86_400,
            ..RegisterIdentityRequest::default()
        };
        people.register_identity(new).await.unwrap();
        let place = PlaceIdentityRequest { name: format!("a{n}"), node: agent.id.to_string(), uid: 7 };
        people.place_identity(place).await.unwrap();
    }
    publish(&mut people, files("")).await.rules.unwrap();
    let mut rules = world.gate.services.follow_rules();
    rules.wait_for(|shown| shown.as_ref().is_some_and(|shown| shown.number() == 1)).await.unwrap();
    Scene { world, people, agent }
}

fn give(name: &str, uses: u32) -> GiveGrantRequest {
    let (name, resource) = (name.to_owned(), "telemetry/requests".to_owned());
    GiveGrantRequest { name, resource, uses, seconds: 60, ..GiveGrantRequest::default() }
}

/// A use by a call of its own.
async fn uses(channel: Channel, name: &str) -> Result<AskResponse, Status> {
    let asked = AskRequest {
        spiffe_id: id(&format!("/test/{name}")).to_string(),
        task: "fix-4711".into(),
        action: "telemetry.read".into(),
        resource: "telemetry/requests".into(),
        key: avouch_credential::random::bytes::<16>().unwrap().to_vec(),
        needs_grant: true,
        ..AskRequest::default()
    };
    Ok(RequestsClient::new(channel).ask(asked).await?.into_inner())
}

#[tokio::test]
async fn a_grant_is_given_for_what_the_rules_know_and_used_by_the_node_that_serves_the_identity() {
    let Scene { world, mut people, agent } = scene(1).await;
    for (wrong, code) in [
        (GiveGrantRequest { resource: "telemetry/moons".into(), ..give("a0", 1) }, Code::NotFound),
        (GiveGrantRequest { action: "telemetry.write".into(), ..give("a0", 1) }, Code::InvalidArgument),
        (give("nobody", 1), Code::NotFound),
        (give("a0", 0), Code::InvalidArgument),
    ] {
        assert_eq!(refusal(people.give_grant(wrong.clone()).await).0, code, "{wrong:?}");
    }
    let given = people.give_grant(give("a0", 2)).await.unwrap().into_inner();
    assert_eq!((given.action.as_str(), given.standing.as_str()), ("telemetry.read", "open"));
    let other = world.agent("t2").await;
    assert_eq!(refusal(uses(world.holder(&other), "a0").await).0, Code::PermissionDenied);
    let used = uses(world.holder(&agent), "a0").await.unwrap();
    assert_eq!((used.grant_id, used.grant_uses_left, used.request_id.as_str()), (given.id.clone(), 2, ""));
    assert!((1..=60).contains(&used.grant_seconds_left));
    let ended = people.end_grant(EndGrantRequest { id: given.id.clone() }).await.unwrap().into_inner();
    assert_eq!((ended.uses, ended.standing.as_str()), (1, "ended"));
    assert!(uses(world.holder(&agent), "a0").await.unwrap().no_grant);
    let again = people.end_grant(EndGrantRequest { id: given.id }).await;
    assert_eq!(refusal(again).0, Code::FailedPrecondition);
    let open = people.list_grants(ListGrantsRequest::default()).await.unwrap().into_inner().grants;
    let all = ListGrantsRequest { name: "a0".into(), all: true, ..ListGrantsRequest::default() };
    assert_eq!((open.len(), people.list_grants(all).await.unwrap().into_inner().grants.len()), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_calls_that_race_for_one_use_exactly_one_wins_ten_thousand_times() {
    const IDENTITIES: usize = 50;
    const ROUNDS: usize = 200;
    let Scene { world, people, agent } = scene(IDENTITIES).await;
    let world = Arc::new(world);
    let mut racing = tokio::task::JoinSet::new();
    for n in 0..IDENTITIES {
        let (name, mut people) = (format!("a{n}"), people.clone());
        let [one, other] = [world.holder(&agent), world.holder(&agent)];
        racing.spawn(async move {
            for _ in 0..ROUNDS {
                let given = people.give_grant(give(&name, 1)).await.unwrap().into_inner();
                let (a, b) = tokio::join!(uses(one.clone(), &name), uses(other.clone(), &name));
                let won = [a.unwrap(), b.unwrap()].iter().filter(|used| used.grant_id == given.id).count();
                assert_eq!(won, 1, "{name}");
            }
        });
    }
    while let Some(raced) = racing.join_next().await {
        raced.unwrap();
    }
}
