//! An agent's SVID on the wire: attestation, renewal, serial pinning, and the reason in each refusal.

use avouch_proto::agent_v1;
use avouch_proto::agent_v1::agent_client::AgentClient;
use avouch_proto::bundle_v1::bundle_client::BundleClient;
use avouch_proto::entry_v1::entry_client::EntryClient;
use avouch_proto::{bundle_v1, entry_v1};
use avouch_tests::bare_agent::{BareAgent, fresh_key, request_for};
use avouch_tests::{Server, ServerOptions, eventually, mtls};
use tonic::transport::Channel;
use tonic::{Code, Status};

async fn entries(channel: &Channel) -> Result<(), Status> {
    let request = entry_v1::GetAuthorizedEntriesRequest::default();
    EntryClient::new(channel.clone()).get_authorized_entries(request).await.map(drop)
}

/// Checks the refusal byte by byte, as agents of other makers read it.
fn assert_reason(refused: Result<(), Status>, reason: u8) {
    let status = refused.unwrap_err();
    let message = "authorization denied for method /spire.api.server.entry.v1.Entry/GetAuthorizedEntries";
    assert_eq!((status.code(), status.message()), (Code::PermissionDenied, message));
    let kind = b"type.googleapis.com/spire.api.types.PermissionDeniedDetails";
    let mut any = vec![0x0a, u8::try_from(kind.len()).unwrap()];
    any.extend_from_slice(kind);
    any.extend_from_slice(&[0x12, 2, 8, reason]);
    let mut expected = vec![8, 7, 0x12, u8::try_from(message.len()).unwrap()];
    expected.extend_from_slice(message.as_bytes());
    expected.extend_from_slice(&[0x1a, u8::try_from(any.len()).unwrap()]);
    expected.extend_from_slice(&any);
    assert_eq!(status.details(), expected, "reason {reason}");
}

#[tokio::test]
async fn an_agents_serial_is_pinned_and_each_refusal_carries_its_reason() {
    let server = Server::start().await;
    let old = BareAgent::join(&server).await;
    let with_old = old.connect(&server).await;
    entries(&with_old).await.unwrap();

    let key = fresh_key();
    let params = Some(agent_v1::AgentX509svidParams { csr: request_for(&key) });
    let request = agent_v1::RenewAgentRequest { params };
    let renewed = AgentClient::new(with_old.clone()).renew_agent(request).await.unwrap().into_inner();
    let new = BareAgent { key, chain: renewed.svid.unwrap().cert_chain, id: old.id.clone() };
    entries(&with_old).await.expect("the old one works until the new one is shown");
    let with_new = new.connect(&server).await;
    entries(&with_new).await.unwrap();
    assert_reason(entries(&with_old).await, 3);
    assert_reason(entries(&old.connect(&server).await).await, 3);

    let request = agent_v1::BanAgentRequest { id: Some(new.id.clone()) };
    server.agents().await.ban_agent(request).await.unwrap();
    assert_reason(entries(&with_new).await, 4);
    let bundle = bundle_v1::GetBundleRequest::default();
    BundleClient::new(with_new.clone()).get_bundle(bundle).await.expect("the bundle is open to all");
    let request = agent_v1::DeleteAgentRequest { id: Some(new.id.clone()) };
    server.agents().await.delete_agent(request).await.unwrap();
    assert_reason(entries(&with_new).await, 2);
}

#[tokio::test]
async fn an_open_connection_is_refused_once_the_agents_svid_has_ended() {
    let options = ServerOptions { server: "agent_ttl = \"2s\"".into(), ..ServerOptions::default() };
    let server = Server::start_with(options).await;
    let agent = BareAgent::join(&server).await;
    let channel = agent.connect(&server).await;
    entries(&channel).await.unwrap();
    let refused = eventually("the end of the SVID", async || entries(&channel).await.err()).await;
    assert_reason(Err(refused), 1);
}

#[tokio::test]
async fn a_renewal_without_its_parts_is_refused_by_the_missing_one() {
    let server = Server::start().await;
    let agent = BareAgent::join(&server).await;
    let mut client = AgentClient::new(agent.connect(&server).await);
    let params = |csr: &[u8]| Some(agent_v1::AgentX509svidParams { csr: csr.to_vec() });
    let mut forged = request_for(&fresh_key());
    *forged.last_mut().unwrap() ^= 1;
    for (params, text) in [
        (None, "params cannot be nil"),
        (params(&[]), "missing CSR"),
        (params(b"nonsense"), "failed to parse CSR: "),
        (params(&forged), "failed to parse CSR: "),
        (params(&vec![0x30; 1 << 20]), "failed to parse CSR: "),
    ] {
        let refused = client.renew_agent(agent_v1::RenewAgentRequest { params }).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{text}");
        assert!(refused.message().starts_with(text), "{refused:?}");
    }
    let (stranger, _) = mtls::channel(server.address(), &[], &[]).await.unwrap();
    let request = agent_v1::RenewAgentRequest { params: params(&request_for(&fresh_key())) };
    let refused = AgentClient::new(stranger).renew_agent(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_used_or_guessed_token_is_refused_with_spires_words_and_code() {
    let server = Server::start().await;
    let token = server.token().await;
    BareAgent::attest(&server, &token).await.unwrap();
    for token in [token.as_str(), "00000000-0000-4000-8000-000000000000", "a b", "../x"] {
        let refused = BareAgent::attest(&server, token).await.err().unwrap();
        let text = "failed to attest: join token does not exist or has already been used";
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, text), "{token}");
    }
}
