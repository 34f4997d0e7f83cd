//! Task tokens: for whom the server signs, and to which node it says whose a token is.

use avouch_proto::governance_v1::governance_client::GovernanceClient;
use avouch_proto::governance_v1::{IdentityRequest, PlaceIdentityRequest, RegisterIdentityRequest};
use avouch_proto::rules_v1::File;
use avouch_proto::task_v1::tasks_client::TasksClient;
use avouch_proto::task_v1::{ShowTokenRequest, ShowTokenResponse, SignTokenRequest};

use super::rules::{files, governed, publish};
use super::*;

/// A world with an AI agent that runs on one node, a hook on another, and a node without either.
struct Scene {
    world: World,
    people: GovernanceClient<Channel>,
    runs: CallerSvid,
    hooks: CallerSvid,
    idle: CallerSvid,
}

async fn scene() -> Scene {
    let (world, mut people) = governed().await;
    let (runs, hooks, idle) = (world.agent("t1").await, world.agent("t2").await, world.agent("t3").await);
    let ends_at = clock::now().wall.secs() + 86_400;
    let new = RegisterIdentityRequest {
        name: "coder".into(),
        kind: "ai_agent".into(),
        environment: "test".into(),
        purpose: "fix-bugs".into(),
        ends_at,
        ..RegisterIdentityRequest::default()
    };
    people.register_identity(new).await.unwrap();
    let place = PlaceIdentityRequest { name: "coder".into(), node: runs.id.to_string(), uid: 7 };
    people.place_identity(place).await.unwrap();
    world.entry(&hooks.id, "/test/git").await;
    let gates = "[[gate]]\nname = \"git\"\nkind = \"hook\"\ncaller = \"/test/git\"\n";
    let mut all = files("");
    all.push(File { name: "gates.toml".into(), text: gates.into() });
    publish(&mut people, all).await.rules.unwrap();
    let mut rules = world.gate.services.follow_rules();
    rules.wait_for(|shown| shown.as_ref().is_some_and(|shown| shown.number() == 1)).await.unwrap();
    Scene { world, people, runs, hooks, idle }
}

impl Scene {
    async fn sign(
        &self,
        agent: &CallerSvid,
        change: impl FnOnce(&mut SignTokenRequest),
    ) -> Result<String, Status> {
        let mut request = SignTokenRequest {
            spiffe_id: id("/test/coder").to_string(),
            resource: "git/pay".into(),
            task: "fix-4711".into(),
            instance_id: "ins_0a1b".into(),
        };
        change(&mut request);
        let signed = TasksClient::new(self.world.holder(agent)).sign_token(request).await?.into_inner();
        assert!(signed.expires_at - clock::now().wall.secs() <= 300);
        Ok(signed.token)
    }

    async fn show(
        &self,
        agent: &CallerSvid,
        token: &str,
        resource: &str,
    ) -> Result<ShowTokenResponse, Status> {
        let request =
            ShowTokenRequest { token: token.into(), resource: resource.into(), certificates: Vec::new() };
        Ok(TasksClient::new(self.world.holder(agent)).show_token(request).await?.into_inner())
    }
}

#[tokio::test]
async fn a_token_is_signed_only_for_the_node_that_may_serve_the_identity_and_only_in_its_form() {
    let scene = scene().await;
    assert!(scene.sign(&scene.runs, |_| {}).await.is_ok());
    for other in [&scene.hooks, &scene.idle] {
        assert_eq!(refusal(scene.sign(other, |_| {}).await).0, Code::NotFound);
    }
    let unknown = scene.sign(&scene.runs, |r| r.spiffe_id = id("/test/nobody").to_string()).await;
    assert_eq!(refusal(unknown).0, Code::NotFound);
    let changes: [fn(&mut SignTokenRequest); 5] = [
        |r| r.spiffe_id = "coder".into(),
        |r| r.resource = String::new(),
        |r| r.resource = "x".repeat(257),
        |r| r.task = "Fix it".into(),
        |r| r.instance_id = "me".into(),
    ];
    for change in changes {
        assert_eq!(refusal(scene.sign(&scene.runs, change).await).0, Code::InvalidArgument);
    }
}

#[tokio::test]
async fn whose_a_token_is_hears_only_the_node_of_the_hook_that_was_shown_it() {
    let scene = scene().await;
    let token = scene.sign(&scene.runs, |_| {}).await.unwrap();
    let shown = scene.show(&scene.hooks, &token, "git/pay").await.unwrap();
    let identity = shown.identity.unwrap();
    assert_eq!((identity.spiffe_id, identity.kind), (id("/test/coder").to_string(), "ai_agent".to_owned()));
    assert_eq!(shown.rules_number, 1);
    for (agent, resource) in [
        (&scene.idle, "git/pay"),
        (&scene.runs, "git/pay"),
        (&scene.hooks, "files/read_file"),
        (&scene.hooks, "git"),
    ] {
        let refused = refusal(scene.show(agent, &token, resource).await);
        assert_eq!(refused.0, Code::PermissionDenied, "{resource}: {}", refused.1);
    }
    let other = scene.sign(&scene.runs, |r| r.resource = "git/other".into()).await.unwrap();
    for token in [other.as_str(), "junk", ""] {
        assert_eq!(refusal(scene.show(&scene.hooks, token, "git/pay").await).0, Code::InvalidArgument);
    }
    let certificates = vec![b"junk".to_vec()];
    let with = ShowTokenRequest { token: token.clone(), resource: "git/pay".into(), certificates };
    let refused = TasksClient::new(scene.world.holder(&scene.hooks)).show_token(with).await;
    let (code, text) = refusal(refused);
    assert!(code == Code::InvalidArgument && text.contains("this gate speaks no TLS"), "{text}");
}

#[tokio::test]
async fn nothing_is_signed_for_and_nothing_told_of_an_identity_that_is_paused() {
    let mut scene = scene().await;
    let token = scene.sign(&scene.runs, |_| {}).await.unwrap();
    let coder = || IdentityRequest { name: "coder".into() };
    scene.people.pause_identity(coder()).await.unwrap();
    assert_eq!(refusal(scene.sign(&scene.runs, |_| {}).await).0, Code::FailedPrecondition);
    assert_eq!(scene.show(&scene.hooks, &token, "git/pay").await.unwrap().identity, None);
    scene.people.resume_identity(coder()).await.unwrap();
    let identity = scene.show(&scene.hooks, &token, "git/pay").await.unwrap().identity.unwrap();
    assert_eq!(identity.stop_number, 1, "and what was signed before is void");
    let fresh = scene.sign(&scene.runs, |_| {}).await.unwrap();
    assert_ne!(fresh, token);
}
