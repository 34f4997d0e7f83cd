//! What nobody should send, sent to real daemons: each is refused with its code and its words, and nothing is spent
//! or broken by it.

use avouch_proto::agent_v1::agent_client::AgentClient;
use avouch_proto::agent_v1::attest_agent_request::{Params, Step};
use avouch_proto::agent_v1::attest_agent_response::Step as Reply;
use avouch_proto::agent_v1::{
    AgentX509svidParams, AttestAgentRequest, CreateJoinTokenRequest, RenewAgentRequest,
};
use avouch_proto::svid_v1::svid_client::SvidClient;
use avouch_proto::svid_v1::{BatchNewX509svidRequest, MintX509svidRequest, NewX509svidParams};
use avouch_proto::types::{AttestationData, Entry, Selector};
use avouch_tests::server::wire_id;
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, Server, World, cli, entry, eventually, forge, mtls, within};
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, SanType};
use tonic::transport::Channel;
use tonic::{Code, Status};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// A request for this SPIFFE ID and DNS names, signed by the key it is for.
fn csr(key: &KeyPair, ids: &[&str], dns: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    let dns = dns.iter().map(|name| SanType::DnsName((*name).try_into().unwrap()));
    params.subject_alt_names = ids.iter().map(|id| forge::uri(id)).chain(dns).collect();
    params.serialize_request(key).unwrap().der().to_vec()
}

fn key() -> KeyPair {
    KeyPair::generate().unwrap()
}

/// The request of one key with another key's public half in it.
fn with_wrong_key(ids: &[&str]) -> Vec<u8> {
    let (mine, other) = (key(), key());
    let mut request = csr(&mine, ids, &[]);
    let public = mine.der_bytes();
    let at = request.windows(public.len()).position(|w| w == public).unwrap();
    request[at..at + public.len()].copy_from_slice(other.der_bytes());
    request
}

fn with_broken_signature(ids: &[&str]) -> Vec<u8> {
    let mut request = csr(&key(), ids, &[]);
    *request.last_mut().unwrap() ^= 1;
    request
}

/// The request of a key on a curve that nobody here knows.
fn with_unknown_curve(ids: &[&str]) -> Vec<u8> {
    const P256: [u8; 8] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    let mut request = csr(&key(), ids, &[]);
    let at = request.windows(P256.len()).position(|w| w == P256).unwrap();
    request[at + 7] = 0x06;
    request
}

/// Requests that no call may sign, with the beginning of what is wrong.
fn unsignable(ids: &[&str]) -> Vec<(Vec<u8>, &'static str)> {
    vec![
        (b"junk".to_vec(), ""),
        (vec![0x30; 1 << 20], "1048576 bytes, expected at most 65536"),
        (with_wrong_key(ids), "signature does not match"),
        (with_broken_signature(ids), "signature does not match"),
        (with_unknown_curve(ids), "unsupported public key type"),
    ]
}

/// The status of one AttestAgent call over TLS without a client certificate, or the chain it gives.
async fn attest(server: &Server, token: &str, csr: Vec<u8>) -> Result<Vec<Vec<u8>>, Status> {
    let data = AttestationData { r#type: "join_token".into(), payload: token.into() };
    let params = Params { data: Some(data), params: Some(AgentX509svidParams { csr }) };
    let request = AttestAgentRequest { step: Some(Step::Params(params)) };
    let (channel, _) = mtls::channel(server.address(), &[], &[]).await.unwrap();
    let mut client = AgentClient::new(channel);
    let mut replies = client.attest_agent(tokio_stream::iter([request])).await?.into_inner();
    match within("an answer", replies.message()).await?.unwrap().step.unwrap() {
        Reply::Result(result) => Ok(result.svid.unwrap().cert_chain),
        Reply::Challenge(_) => panic!("a join token is no challenge"),
    }
}

/// An agent without a process: its ID and a channel that presents its SVID.
async fn bare_agent(server: &Server) -> (String, Channel) {
    let (token, key) = (server.token().await, key());
    let chain = attest(server, &token, csr(&key, &[], &[])).await.unwrap();
    let (channel, _) = mtls::channel(server.address(), &chain, &key.serialize_der()).await.unwrap();
    (server.agent_id(&token), channel)
}

/// URI and DNS names of a certificate.
fn names(der: &[u8]) -> Vec<String> {
    let (_, certificate) = X509Certificate::from_der(der).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::URI(text) | GeneralName::DNSName(text) => (*text).to_owned(),
        other => format!("{other:?}"),
    };
    names.value.general_names.iter().map(text).collect()
}

fn assert_refused(status: &Status, code: Code, text: &str) {
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(text), "{status:?}, expected {text}");
}

#[tokio::test]
async fn malformed_ids_and_selectors_are_refused_item_by_item() {
    let server = Server::start().await;
    let with = |change: &dyn Fn(&mut Entry)| {
        let mut made = entry("spiffe://example.org/node", "/web", &["unix:uid:0"]);
        change(&mut made);
        made
    };
    let id = |text: &'static str| move |e: &mut Entry| e.spiffe_id = Some(wire_id(text));
    let bad = [
        with(&id("spiffe://example.org/a//b")),
        with(&id("spiffe://example.org/a/../b")),
        with(&id("spiffe://example.org/a/")),
        with(&id("spiffe://example.org/%61")),
        with(&id("spiffe://EXAMPLE.org/a")),
        with(&id("spiffe://other.org/a")),
        with(&id("spiffe://example.org/spire/server")),
        with(&|e| e.spiffe_id = Some(wire_id(&format!("spiffe://example.org/{}", "a".repeat(2048))))),
        with(&|e| e.parent_id = Some(wire_id("spiffe://example.org/a b"))),
        with(&|e| e.selectors.clear()),
        with(&|e| e.selectors[0].r#type = "a:b".into()),
        with(&|e| e.selectors[0].r#type = String::new()),
        with(&|e| e.selectors[0].value = String::new()),
    ];
    for made in bad {
        let status = server.try_create(made.clone()).await.unwrap_err();
        assert_eq!(status.code, Code::InvalidArgument as i32, "{made:?}: {status:?}");
    }
    let said = cli::run(
        "avouch-server",
        ["entry", "create", "-parentID", "spiffe://example.org/a", "-spiffeID", "spiffe://example.org/b"]
            .into_iter()
            .chain(["-selector", "nocolon", "-socketPath", server.socket.to_str().unwrap()]),
    )
    .await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.starts_with("Error: ") && said.err.contains("nocolon"), "{said:?}");
    let _: Selector = server.create(with(&|_| {})).await.selectors.remove(0);
}

#[tokio::test]
async fn minting_refuses_every_bad_request() {
    let server = Server::start().await;
    let mut client = server.svids().await;
    let mut mint = async |csr: Vec<u8>| client.mint_x509svid(MintX509svidRequest { csr, ttl: 60 }).await;
    let id = "spiffe://example.org/web";
    for (request, text) in unsignable(&[id]) {
        assert_refused(&mint(request).await.unwrap_err(), Code::InvalidArgument, text);
    }
    let two = csr(&key(), &[id, "spiffe://example.org/db"], &[]);
    assert_refused(&mint(two).await.unwrap_err(), Code::InvalidArgument, "only one URI SAN is expected");
    let none = csr(&key(), &[], &["web.example.org"]);
    assert_refused(&mint(none).await.unwrap_err(), Code::InvalidArgument, "CSR URI SAN is required");
    for foreign in ["spiffe://other.org/web", "spiffe://example.org/spire/server", "https://example.org/web"]
    {
        let text = "CSR URI SAN is invalid";
        assert_refused(&mint(csr(&key(), &[foreign], &[])).await.unwrap_err(), Code::InvalidArgument, text);
    }
    let covered = csr(&key(), &[id], &["*.example.org", "web.example.org"]);
    assert_refused(&mint(covered).await.unwrap_err(), Code::InvalidArgument, "wildcard");
    mint(csr(&key(), &[id], &[])).await.unwrap();
}

#[tokio::test]
async fn a_bad_request_of_an_agent_is_refused_and_spends_no_token() {
    let server = Server::start().await;
    let token = server.token().await;
    for (request, text) in unsignable(&[]) {
        let status = attest(&server, &token, request).await.unwrap_err();
        assert_refused(&status, Code::InvalidArgument, text);
    }
    // Names asked for by the request are not given: the server alone says who it is.
    let wanted = csr(&key(), &["spiffe://example.org/spire/server"], &["server.example.org"]);
    let chain = attest(&server, &token, wanted).await.unwrap();
    assert_eq!(names(&chain[0]), [server.agent_id(&token)]);
}

#[tokio::test]
async fn renewals_and_batches_refuse_bad_requests_and_ignore_asked_names() {
    let server = Server::start().await;
    let (agent, channel) = bare_agent(&server).await;
    let mut agents = AgentClient::new(channel.clone());
    for (csr, text) in unsignable(&[]) {
        let request = RenewAgentRequest { params: Some(AgentX509svidParams { csr }) };
        assert_refused(&agents.renew_agent(request).await.unwrap_err(), Code::InvalidArgument, text);
    }
    let web = server.create(entry(&agent, "/web", &[&my_uid()])).await;
    let mut svids = SvidClient::new(channel);
    let param = |csr: Vec<u8>| NewX509svidParams { entry_id: web.id.clone(), csr };
    let mut params: Vec<_> = unsignable(&[]).into_iter().map(|(csr, _)| param(csr)).collect();
    params.push(param(csr(&key(), &["spiffe://example.org/db"], &["db.example.org"])));
    let batch = BatchNewX509svidRequest { params };
    let mut results = svids.batch_new_x509svid(batch).await.unwrap().into_inner().results;
    let good = results.pop().unwrap();
    for (result, (_, text)) in results.iter().zip(unsignable(&[])) {
        let status = result.status.as_ref().unwrap();
        assert_eq!(status.code, Code::InvalidArgument as i32, "{status:?}");
        assert!(status.message.contains(text) && result.svid.is_none(), "{status:?}");
    }
    assert_eq!(names(&good.svid.unwrap().cert_chain[0]), ["spiffe://example.org/web"]);
}

#[tokio::test]
async fn tokens_work_once_until_their_end_and_are_not_guessed() {
    let server = Server::start().await;
    let used = "failed to attest: join token does not exist or has already been used";
    let ask = async |token: &str| attest(&server, token, csr(&key(), &[], &[])).await;
    let token = server.token().await;
    ask(&token).await.unwrap();
    assert_refused(&ask(&token).await.unwrap_err(), Code::InvalidArgument, used);
    for guess in ["", "x", "00000000-0000-4000-8000-000000000000", &"t".repeat(100_000)] {
        let status = ask(guess).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{guess:.20}: {status:?}");
    }
    let request = CreateJoinTokenRequest { ttl: 1, ..Default::default() };
    let short = server.agents().await.create_join_token(request).await.unwrap().into_inner();
    eventually("the token's end", async || (forge::now() > short.expires_at).then_some(())).await;
    let status = ask(&short.value).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(["join token expired", used].contains(&status.message()), "{status:?}");
    assert_eq!(server.nodes().await.len(), 1);
}

#[tokio::test]
async fn a_batch_over_the_limit_is_refused_whole() {
    let server = Server::start().await;
    let (_, channel) = bare_agent(&server).await;
    let params = vec![NewX509svidParams::default(); 501];
    let status =
        SvidClient::new(channel).batch_new_x509svid(BatchNewX509svidRequest { params }).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "exceeds burst size (500)");
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_and_the_daemons_go_on() {
    let world = World::start().await;
    let request = MintX509svidRequest { csr: vec![0; 5 << 20], ttl: 60 };
    let status = world.server.svids().await.mint_x509svid(request).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "larger than max");
    let mut workload = world.agent.workload().await;
    let status = workload.validate("x", &"t".repeat(5 << 20)).await.unwrap_err();
    assert_refused(&status, Code::ResourceExhausted, "grpc: received message larger than max");
    // Below the limit of a message, above that of a token.
    let status = workload.validate("x", &"t".repeat(60_000)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    world.grant("/web").await;
    assert_eq!(workload.fetch_x509().await.unwrap().svids.len(), 1);
}

/// What `validate` says about an agent's configuration with this line in `agent {}`.
async fn agent_with(server: &Server, name: &str, line: &str) -> cli::Said {
    let options = AgentOptions { agent: line.to_owned(), ..AgentOptions::default() };
    let agent = Agent::prepare(server, name, &Proof::JoinToken("t".into()), &options).await;
    cli::run("avouch-agent", ["validate", "-config", agent.config.to_str().unwrap()]).await
}

#[tokio::test]
async fn unknown_and_mistyped_keys_of_the_agent_are_refused_by_name() {
    let server = Server::start().await;
    let said = agent_with(&server, "a", "socket_pth = \"/tmp/x\"").await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("socket_pth") && said.err.contains("socket_path"), "{said:?}");
    let said = agent_with(&server, "b", "allow_unauthenticated_verifiers = \"true\"").await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("allow_unauthenticated_verifiers: unknown type"), "{said:?}");
    let said = agent_with(&server, "c", "x509_svid_cache_max_size = 1.5").await;
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("x509_svid_cache_max_size"), "{said:?}");
    let said = agent_with(&server, "d", "x509_svid_cache_max_size = \"0x10\"").await;
    assert_eq!(said.code, 0, "a number may be a text: {said:?}");
}

#[tokio::test]
async fn a_socket_or_its_directory_of_someone_else_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        return; // only root can give files away
    }
    let mut server = Server::start().await;
    let token = Proof::JoinToken(server.token().await);
    let agent = Agent::prepare(&server, "a", &token, &AgentOptions::default()).await;
    let folder = agent.socket.parent().unwrap();
    std::fs::create_dir(folder).unwrap();
    std::os::unix::fs::chown(folder, Some(12_345), None).unwrap();
    let daemon = agent.spawn();
    assert_eq!(daemon.end().await.code(), Some(1));
    assert!(daemon.log().contains("is owned by uid 12345, expected uid 0"), "{}", daemon.log());
    server.stop().await;
    drop(std::os::unix::net::UnixListener::bind(&server.socket));
    std::os::unix::fs::chown(&server.socket, Some(12_345), None).unwrap();
    let daemon = server.spawn();
    assert_eq!(daemon.end().await.code(), Some(1));
    assert!(daemon.log().contains("12345"), "{}", daemon.log());
}
