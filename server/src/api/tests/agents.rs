//! Agent service: attestation, serial pinning, ban and eviction, tokens.

use avouch_proto::agent_v1::{
    AgentX509svidParams, AttestAgentRequest, BanAgentRequest, CountAgentsRequest, DeleteAgentRequest,
    GetAgentRequest, ListAgentsRequest, PostStatusRequest, RenewAgentRequest,
};
use avouch_proto::convert::{DeniedReason, denied_reason};
use avouch_proto::entry_v1::GetAuthorizedEntriesRequest;

use avouch_attestors::Boxed;
use avouch_attestors::node::{Exchange, NodeProof, Step as Judged, VerifyError};
use avouch_domain::{Now, SelectorSet};
use tokio::sync::Semaphore;

use super::*;

/// How an agent with this SVID fares: in, or refused for a reason.
async fn standing(world: &World, svid: &CallerSvid) -> Result<(), Option<DeniedReason>> {
    let mut client = EntryClient::new(world.holder(svid));
    let called = client.get_authorized_entries(GetAuthorizedEntriesRequest::default()).await;
    called.map(drop).map_err(|status| denied_reason(&status))
}

async fn renew(world: &World, svid: &CallerSvid) -> CallerSvid {
    let params = Some(AgentX509svidParams { csr: new_csr(None) });
    let reply = AgentClient::new(world.holder(svid)).renew_agent(RenewAgentRequest { params }).await.unwrap();
    caller_of(&reply.into_inner().svid.unwrap())
}

#[tokio::test]
async fn a_renewed_svid_takes_over_at_its_first_use_and_bans_have_their_reason() {
    let world = World::start().await;
    let old = world.agent("t1").await;
    let new = renew(&world, &old).await;
    assert_eq!(standing(&world, &old).await, Ok(()), "both work until the new one is used");
    assert_eq!(standing(&world, &new).await, Ok(()));
    assert_eq!(standing(&world, &old).await, Err(Some(DeniedReason::AgentNotActive)));
    let mut admin = AgentClient::new(world.local());
    let agent_id = Some(spiffe_id_to_wire(&new.id));
    admin.ban_agent(BanAgentRequest { id: agent_id.clone() }).await.unwrap();
    assert_eq!(standing(&world, &new).await, Err(Some(DeniedReason::AgentBanned)));
    let request = GetAgentRequest { id: agent_id.clone(), output_mask: None };
    let seen = admin.get_agent(request.clone()).await.unwrap().into_inner();
    assert!(seen.banned && seen.x509svid_serial_number.is_empty() && seen.x509svid_expires_at > 0);
    admin.delete_agent(DeleteAgentRequest { id: agent_id }).await.unwrap();
    assert_eq!(standing(&world, &new).await, Err(Some(DeniedReason::AgentNotAttested)));
    assert_eq!(refusal(admin.get_agent(request).await), (Code::NotFound, "agent not found".into()));
}

#[tokio::test]
async fn an_expired_svid_has_its_own_reason() {
    let world = World::start().await;
    let mut svid = world.agent("t1").await;
    svid.not_after = clock::now().wall;
    assert_eq!(standing(&world, &svid).await, Err(Some(DeniedReason::AgentExpired)));
}

#[tokio::test]
async fn a_refusal_names_the_method() {
    let world = World::start().await;
    let status = EntryClient::new(world.nobody())
        .get_authorized_entries(GetAuthorizedEntriesRequest::default())
        .await
        .unwrap_err();
    let method = "/spire.api.server.entry.v1.Entry/GetAuthorizedEntries";
    assert_eq!(status.message(), format!("authorization denied for method {method}"));
    assert_eq!((status.code(), denied_reason(&status)), (Code::PermissionDenied, None));
}

#[tokio::test]
async fn a_token_works_once() {
    let world = World::start().await;
    world.agent("t1").await;
    let again = world.attest("join_token", b"t1", &new_csr(None)).await;
    let text = "failed to attest: join token does not exist or has already been used";
    assert_eq!(refusal(again), (Code::InvalidArgument, text.into()));
}

#[tokio::test]
async fn attestation_names_what_is_wrong() {
    let world = World::start().await;
    let csr = new_csr(None);
    assert_eq!(
        refusal(world.attest("nope", b"x", &csr).await),
        (
            Code::FailedPrecondition,
            "error getting node attestor: could not find node attestor type \"nope\"".into()
        )
    );
    let (code, text) = {
        let request = CreateJoinTokenRequest { ttl: 60, token: "t2".into(), agent_id: None };
        AgentClient::new(world.local()).create_join_token(request).await.unwrap();
        refusal(world.attest("join_token", b"t2", b"junk").await)
    };
    assert_eq!(code, Code::InvalidArgument);
    assert!(text.starts_with("failed to parse CSR: "), "{text}");
    let mut client = AgentClient::new(world.local());
    let mut replies =
        client.attest_agent(tokio_stream::empty::<AttestAgentRequest>()).await.unwrap().into_inner();
    assert_eq!(
        refusal(replies.message().await),
        (Code::InvalidArgument, "failed to receive request from stream: EOF".into())
    );
}

#[tokio::test]
async fn join_tokens_are_refused_with_known_texts() {
    let world = World::start().await;
    let mut client = AgentClient::new(world.local());
    let mut ask = async |ttl, token: &str, agent: Option<&str>| {
        let agent_id = agent.map(|path| spiffe_id_to_wire(&id(path)));
        let request = CreateJoinTokenRequest { ttl, token: token.into(), agent_id };
        client.create_join_token(request).await.map(tonic::Response::into_inner)
    };
    let missing_ttl = refusal(ask(0, "", None).await);
    assert_eq!(missing_ttl, (Code::InvalidArgument, "ttl is required, you must provide one".into()));
    let reserved = refusal(ask(60, "", Some("/spire/agent/x")).await);
    let text = "invalid agent ID: \"spiffe://example.org/spire/agent/x\" is not a workload in trust domain \"example.org\"; path is in the reserved namespace";
    assert_eq!(reserved, (Code::InvalidArgument, text.into()));
    let made = ask(60, "", None).await.unwrap();
    assert_eq!(made.value.len(), 36);
    ask(60, "same", None).await.unwrap();
    let (code, text) = refusal(ask(60, "same", None).await);
    assert_eq!(code, Code::Internal);
    assert!(text.starts_with("failed to create token: "), "{text}");
}

#[tokio::test]
async fn renewal_and_status_are_refused_with_known_texts() {
    let world = World::start().await;
    let svid = world.agent("t1").await;
    let mut client = AgentClient::new(world.holder(&svid));
    let mut ask = async |params: Option<&[u8]>| {
        let params = params.map(|csr| AgentX509svidParams { csr: csr.into() });
        refusal(client.renew_agent(RenewAgentRequest { params }).await)
    };
    assert_eq!(ask(None).await, (Code::InvalidArgument, "params cannot be nil".into()));
    assert_eq!(ask(Some(b"")).await, (Code::InvalidArgument, "missing CSR".into()));
    let (code, text) = ask(Some(b"junk")).await;
    assert!(code == Code::InvalidArgument && text.starts_with("failed to parse CSR: "), "{text}");
    let post = |agent_version: String| PostStatusRequest { current_bundle_serial: 0, agent_version };
    client.post_status(post("v".repeat(255))).await.unwrap();
    assert_eq!(
        refusal(client.post_status(post("v".repeat(256))).await),
        (Code::InvalidArgument, "agent version is too long (max 255 characters)".into())
    );
}

#[tokio::test]
async fn lists_are_paged_and_filtered() {
    let world = World::start().await;
    for token in ["a", "b", "c"] {
        world.agent(token).await;
    }
    let mut client = AgentClient::new(world.local());
    let mut token = String::new();
    let mut seen = Vec::new();
    loop {
        let request = ListAgentsRequest { page_size: 2, page_token: token, ..ListAgentsRequest::default() };
        let page = client.list_agents(request).await.unwrap().into_inner();
        seen.extend(page.agents.into_iter().map(|agent| agent.id.unwrap().path));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 3);
    assert_eq!(client.count_agents(CountAgentsRequest::default()).await.unwrap().into_inner().count, 3);
    let bad = ListAgentsRequest { page_size: 2, page_token: "x".into(), ..ListAgentsRequest::default() };
    assert_eq!(
        refusal(client.list_agents(bad).await),
        (Code::InvalidArgument, "failed to list agents: could not parse token 'x'".into())
    );
}

#[tokio::test]
async fn agent_ids_are_checked_before_anything_is_done() {
    let world = World::start().await;
    let mut client = AgentClient::new(world.local());
    for (given, reason) in [
        (None, "request must specify SPIFFE ID"),
        (Some(spiffe_id_to_wire(&id("/w"))), "path is not in the agent namespace"),
        (
            Some(types::Spiffeid { trust_domain: "other.org".into(), path: "/spire/agent/a".into() }),
            "is not a member of trust domain",
        ),
    ] {
        let (code, text) = refusal(client.ban_agent(BanAgentRequest { id: given }).await);
        assert_eq!(code, Code::InvalidArgument);
        assert!(text.starts_with("invalid agent ID: ") && text.contains(reason), "{text}");
    }
}

/// Accepts everybody, once it may.
struct Slow {
    asked: Semaphore,
    may: Semaphore,
}

impl NodeVerifier for Slow {
    fn name(&self) -> &'static str {
        "slow"
    }

    fn judge<'a>(&'a self, _: &'a Exchange, _: Now) -> Boxed<'a, Result<Judged, VerifyError>> {
        Box::pin(async {
            self.asked.add_permits(1);
            let _ = self.may.acquire().await.unwrap();
            let selectors = SelectorSet::new(Vec::new()).unwrap();
            let agent_id = id("/spire/agent/slow/1");
            Ok(Judged::Accept(NodeProof { agent_id, selectors, can_reattest: true }))
        })
    }
}

#[tokio::test]
async fn a_call_that_outlasts_the_patience_of_a_stopping_server_is_told_so() {
    let slow = Arc::new(Slow { asked: Semaphore::new(0), may: Semaphore::new(0) });
    let world = World::verifying(slow.clone()).await;
    let attested = async { world.attest("slow", b"x", &new_csr(None)).await };
    let stopped = async {
        let _ = slow.asked.acquire().await.unwrap();
        world.gate.drain.begun().cancel();
        world.gate.drain.over().cancel();
    };
    let (attested, ()) = tokio::join!(attested, stopped);
    assert_eq!(refusal(attested), (Code::Unavailable, "server is stopping".into()));
}

#[tokio::test]
async fn a_stopping_server_answers_the_proof_that_it_has_begun_to_judge() {
    let slow = Arc::new(Slow { asked: Semaphore::new(0), may: Semaphore::new(0) });
    let world = World::verifying(slow.clone()).await;
    let attested = async { world.attest("slow", b"x", &new_csr(None)).await };
    let stopped = async {
        let _ = slow.asked.acquire().await.unwrap();
        world.gate.drain.begun().cancel();
        // The stream has time to be cut, were it cut now.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        slow.may.add_permits(1);
    };
    let (attested, ()) = tokio::join!(attested, stopped);
    assert_eq!(attested.unwrap().id, id("/spire/agent/slow/1"));
}
