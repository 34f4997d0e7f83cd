//! SPIFFE Workload Endpoint: transport, header, location, identification, codes.

use std::collections::BTreeSet;
use std::fs;

use avouch_proto::workload as wire;
use avouch_proto::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use avouch_tests::workload::{Workload, request};
use avouch_tests::{Agent, AgentOptions, Proof, Server, World, cli, conforms, eventually, uds, within};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{Code, Request, Status};

use crate::fake::{Fake, answer};

/// The status of every call of the API, with this header or none.
async fn all_codes(agent: &Agent, header: &[&'static str]) -> Vec<(&'static str, Status)> {
    let mut api = SpiffeWorkloadApiClient::new(uds(&agent.socket).await.unwrap());
    fn with<T>(header: &[&'static str], message: T) -> Request<T> {
        let mut request = Request::new(message);
        for value in header {
            request.metadata_mut().append("workload.spiffe.io", value.parse().unwrap());
        }
        request
    }
    let jwt = wire::JwtsvidRequest { audience: vec!["x".into()], ..Default::default() };
    let validate = wire::ValidateJwtsvidRequest { audience: "x".into(), svid: "y".into() };
    let mut codes = Vec::new();
    macro_rules! stream {
        ($call:ident, $message:expr) => {
            let status = match within("an answer", api.$call(with(header, $message))).await {
                Ok(stream) => within("a message", stream.into_inner().message()).await.err(),
                Err(status) => Some(status),
            };
            codes.push((stringify!($call), status.unwrap_or_else(|| Status::ok(""))));
        };
    }
    stream!(fetch_x509svid, wire::X509svidRequest::default());
    stream!(fetch_x509_bundles, wire::X509BundlesRequest::default());
    stream!(fetch_jwt_bundles, wire::JwtBundlesRequest::default());
    stream!(fetch_witsvid, wire::WitsvidRequest::default());
    stream!(fetch_wit_bundles, wire::WitBundlesRequest::default());
    codes.push((
        "fetch_jwtsvid",
        api.fetch_jwtsvid(with(header, jwt)).await.err().unwrap_or_else(|| Status::ok("")),
    ));
    let validated = api.validate_jwtsvid(with(header, validate)).await;
    codes.push(("validate_jwtsvid", validated.err().unwrap_or_else(|| Status::ok(""))));
    codes
}

#[tokio::test]
async fn the_endpoint_is_a_local_socket_that_speaks_grpc_without_tls() {
    conforms!("WE-01", "WE-02", "WE-03", "WE-08", "WE-22");
    let world = World::shared().await;
    assert!(!world.agent.workload().await.fetch_x509().await.unwrap().svids.is_empty());
    let mut http1 = tokio::net::UnixStream::connect(&world.agent.socket).await.unwrap();
    http1.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    within("the end of the connection", http1.read_to_end(&mut answer)).await.ok();
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn the_agent_listens_on_no_tcp_port() {
    conforms!("WE-04");
    let world = World::shared().await;
    let pid = world.agent.daemon().pid();
    let open: BTreeSet<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()?.to_str().map(ToOwned::to_owned))
        .collect();
    for table in ["tcp", "tcp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            let listens = fields[3] == "0A";
            assert!(!(listens && open.contains(&format!("socket:[{}]", fields[9]))), "{line}");
        }
    }
}

#[tokio::test]
async fn requests_without_exactly_the_header_are_refused() {
    conforms!("WE-06");
    let world = World::shared().await;
    let others: [&[&str]; 7] = [&[], &["True"], &["TRUE"], &["1"], &[""], &["false"], &["true", "true"]];
    for header in others {
        for (call, status) in all_codes(&world.agent, header).await {
            assert_eq!(status.code(), Code::InvalidArgument, "{header:?} {call}: {status:?}");
            assert_eq!(status.message(), "security header missing from request", "{header:?} {call}");
        }
    }
}

#[tokio::test]
async fn the_header_is_checked_before_the_caller() {
    conforms!("WE-07");
    let world = World::start().await;
    for (call, status) in all_codes(&world.agent, &[]).await {
        assert_eq!(status.code(), Code::InvalidArgument, "{call}: {status:?}");
    }
}

#[tokio::test]
async fn our_client_sends_the_header_with_each_request() {
    conforms!("WE-05");
    let fake = Fake::start().await;
    fake.say(answer(""));
    let socket = fake.socket.to_str().unwrap();
    let said = cli::run("avouch-agent", ["api", "fetch", "x509", "-socketPath", socket]).await;
    assert_eq!(said.code, 0, "{said:?}");
    cli::run("avouch-agent", ["api", "fetch", "jwt", "-audience", "a", "-socketPath", socket]).await;
    let validate = ["api", "validate", "jwt", "-audience", "a", "-svid", "b", "-socketPath", socket];
    cli::run("avouch-agent", validate).await;
    let headers = fake.headers();
    assert!(headers.len() >= 3, "{headers:?}");
    for header in headers {
        let values: Vec<_> = header.get_all("workload.spiffe.io").iter().collect();
        assert_eq!(values, ["true"]);
    }
}

/// What our client says with this variable and no flag.
async fn with_variable(value: &str) -> cli::Said {
    cli::run_with("avouch-agent", ["api", "fetch", "x509"], |c| {
        c.env("SPIFFE_ENDPOINT_SOCKET", value);
    })
    .await
}

#[tokio::test]
async fn our_client_finds_the_endpoint_by_the_variable() {
    conforms!("WE-09", "WE-11");
    for scheme in ["unix://", "unix:"] {
        let fake = Fake::start().await;
        fake.say(answer(""));
        let said = with_variable(&format!("{scheme}{}", fake.socket.display())).await;
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(fake.headers().len(), 1);
    }
}

#[tokio::test]
async fn our_client_takes_a_tcp_address_by_the_variable() {
    conforms!("WE-10", "WE-12");
    let fake = Fake::start().await;
    fake.say(answer(""));
    let said = with_variable(&format!("tcp://127.0.0.1:{}", fake.tcp_port)).await;
    assert_eq!(said.code, 0, "{said:?}");
}

#[tokio::test]
async fn our_client_refuses_other_values_of_the_variable() {
    conforms!("WE-10", "WE-11", "WE-12");
    let fake = Fake::start().await;
    let path = fake.socket.display();
    let bad = [
        format!("{path}"),
        format!("http://{path}"),
        format!("unix:/{path}?x"),
        format!("unix://host{path}"),
        "unix:relative.sock".into(),
        "unix://relative.sock".into(),
        format!("tcp://localhost:{}", fake.tcp_port),
        "tcp://127.0.0.1".into(),
        format!("tcp://127.0.0.1:{}/foo", fake.tcp_port),
        format!("tcp://127.0.0.1:{}?x", fake.tcp_port),
        format!("tcp://u@127.0.0.1:{}", fake.tcp_port),
    ];
    for value in bad {
        let said = with_variable(&value).await;
        assert_eq!(said.code, 1, "{value}: {said:?}");
        assert!(said.err.contains("SPIFFE_ENDPOINT_SOCKET"), "{value}: {said:?}");
    }
    assert!(fake.headers().is_empty());
}

#[tokio::test]
async fn a_caller_needs_no_credential_and_does_nothing() {
    conforms!("WE-13", "WE-14", "WE-15");
    // Nothing but the header goes over the wire, and the answer is this process's own identity.
    let world = World::shared().await;
    let mut api = SpiffeWorkloadApiClient::new(uds(&world.agent.socket).await.unwrap());
    let mut stream =
        api.fetch_x509svid(request(wire::X509svidRequest::default())).await.unwrap().into_inner();
    let answer = within("an answer", stream.message()).await.unwrap().unwrap();
    assert_eq!(answer.svids[0].spiffe_id, "spiffe://example.org/one");
}

#[tokio::test]
async fn before_the_first_sync_the_answer_is_unavailable() {
    conforms!("WE-17");
    let mut server = Server::start().await;
    let token = server.token().await;
    let agent = Agent::prepare(&server, "a", &Proof::JoinToken(token), &AgentOptions::default()).await;
    server.stop().await;
    let _daemon = agent.spawn();
    let mut workload = eventually("the socket", async || Workload::connect(&agent.socket).await.ok()).await;
    assert_eq!(workload.fetch_x509().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(workload.x509_bundles().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(workload.jwt(&["x"], "").await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_caller_without_identity_is_refused() {
    conforms!("WE-18", "WA-28", "WA-32");
    let world = World::start().await;
    let codes = all_codes(&world.agent, &["true"]).await;
    for (call, status) in codes {
        let expected = match call {
            "fetch_witsvid" | "fetch_wit_bundles" => Code::Unimplemented,
            "validate_jwtsvid" => Code::InvalidArgument,
            _ => Code::PermissionDenied,
        };
        assert_eq!(status.code(), expected, "{call}: {status:?}");
        if expected == Code::PermissionDenied {
            assert_eq!(status.message(), "no identity issued", "{call}");
        }
    }
}

#[tokio::test]
async fn what_is_not_built_is_unimplemented() {
    conforms!("WE-20", "WA-44");
    let world = World::shared().await;
    for (call, status) in all_codes(&world.agent, &["true"]).await {
        if call.contains("wit") {
            assert_eq!(status.code(), Code::Unimplemented, "{call}");
        }
    }
    let channel = uds(&world.agent.socket).await.unwrap();
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = "/SpiffeWorkloadAPI/FetchNothing".parse().unwrap();
    let codec = tonic_prost::ProstCodec::<wire::X509svidRequest, wire::X509svidResponse>::default();
    let status = grpc.unary(request(wire::X509svidRequest::default()), path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
}
