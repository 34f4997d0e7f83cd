//! What a daemon refuses before it serves anyone, with the words that tell its operator why.

use std::path::Path;

use avouch_tests::daemon::Daemon;
use avouch_tests::{Agent, AgentOptions, Proof, Server, ServerOptions, cli};

async fn validate(name: &str, config: &Path) -> cli::Said {
    cli::run(name, ["validate".as_ref(), "-config".as_ref(), config.as_os_str()]).await
}

/// What a server with these lines says on its standard error.
async fn refused(server: &str) -> String {
    let prepared = Server::prepare(&ServerOptions { server: server.into(), ..ServerOptions::default() });
    let said = validate("avouch-server", &prepared.config).await;
    assert_eq!(said.code, 1, "{said:?}");
    said.err
}

async fn ended(daemon: &Daemon) -> String {
    assert_eq!(daemon.end().await.code(), Some(1), "{}", daemon.log());
    daemon.log()
}

#[tokio::test]
async fn a_good_configuration_is_valid() {
    let server = Server::start().await;
    let said = validate("avouch-server", &server.config).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("server configuration file is valid"), "{said:?}");
    let proof = Proof::JoinToken("t".into());
    let agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    let said = validate("avouch-agent", &agent.config).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("agent configuration file is valid"), "{said:?}");
}

#[tokio::test]
async fn an_unknown_key_is_refused_with_the_key_that_was_meant() {
    let error = refused("trust_domian = \"x\"").await;
    assert!(error.contains("configuration file is invalid: unknown configuration detected"), "{error}");
    assert!(error.contains("trust_domian") && error.contains("trust_domain"), "{error}");
}

#[tokio::test]
async fn a_key_that_is_not_built_is_refused_by_name() {
    let error = refused("federation {\n bundle_endpoint {\n port = 8443\n }\n }").await;
    assert!(error.contains("not supported yet: server.federation"), "{error}");
}

#[tokio::test]
async fn values_of_the_wrong_type_are_refused_with_spires_words() {
    let error = refused("audit_log_enabled = \"true\"").await;
    assert!(error.contains("server.audit_log_enabled: unknown type"), "{error}");
    let error = refused("ca_key_type = \"ec-p521\"").await;
    let text = "key type \"ec-p521\" is unknown; must be one of [rsa-2048, rsa-4096, ec-p256, ec-p384]";
    assert!(error.contains(text), "{error}");
    assert!(refused("ca_ttl = \"1d\"").await.contains("1d"), "days are no unit");
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let said = validate("avouch-server", Path::new("/nonexistent/server.conf")).await;
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("could not find config file /nonexistent/server.conf: please use the -config flag")
    );
    let said = validate("avouch-agent", Path::new("/nonexistent/agent.conf")).await;
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("could not find config file /nonexistent/agent.conf: please use the -config flag")
    );
}

#[tokio::test]
async fn two_ways_to_bootstrap_are_one_too_many() {
    let server = Server::start().await;
    let options = AgentOptions { agent: "insecure_bootstrap = true".into(), ..AgentOptions::default() };
    let agent = Agent::prepare(&server, "a", &Proof::JoinToken("t".into()), &options).await;
    let said = validate("avouch-agent", &agent.config).await;
    assert_eq!(said.code, 1);
    let text = "only one of insecure_bootstrap or trust_bundle_path can be specified, not both";
    assert!(said.err.contains(text), "{said:?}");
}

#[tokio::test]
async fn a_second_server_on_one_data_directory_is_refused() {
    let first = Server::start().await;
    let text = std::fs::read_to_string(&first.config).unwrap();
    let other_port = avouch_tests::server::free_port().to_string();
    let text = text.replace(&first.port.to_string(), &other_port).replace("/sp/api.sock", "/second/api.sock");
    let config = first.dir.path().join("second.conf");
    std::fs::write(&config, text).unwrap();
    let said = cli::run("avouch-server", ["run".as_ref(), "-config".as_ref(), config.as_os_str()]).await;
    assert_eq!(said.code, 1, "{said:?}");
    let text = said.out + &said.err;
    assert!(text.contains("another server"), "{text}");
    assert!(first.daemon().status().is_none(), "the first goes on");
}

#[tokio::test]
async fn a_socket_path_that_is_too_long_is_refused_with_the_limit() {
    let long = format!("/tmp/{}/api.sock", "d".repeat(120));
    let prepared = Server::prepare(&ServerOptions::default());
    let text = std::fs::read_to_string(&prepared.config).unwrap();
    std::fs::write(&prepared.config, text.replace(prepared.socket.to_str().unwrap(), &long)).unwrap();
    let text = ended(&prepared.spawn()).await;
    assert!(text.contains("107"), "{text}");
    let server = Server::start().await;
    let agent = Agent::prepare(&server, "a", &Proof::JoinToken("t".into()), &AgentOptions::default()).await;
    let text = std::fs::read_to_string(&agent.config).unwrap();
    std::fs::write(&agent.config, text.replace(agent.socket.to_str().unwrap(), &long)).unwrap();
    let text = ended(&agent.spawn()).await;
    assert!(text.contains("107"), "{text}");
}

#[tokio::test]
async fn the_admin_socket_may_not_lie_beside_the_public_one() {
    let server = Server::start().await;
    let agent = Agent::prepare(&server, "a", &Proof::JoinToken("t".into()), &AgentOptions::default()).await;
    let text = std::fs::read_to_string(&agent.config).unwrap();
    let inside = agent.socket.with_file_name("admin.sock");
    std::fs::write(
        &agent.config,
        text.replace(agent.admin_socket.to_str().unwrap(), inside.to_str().unwrap()),
    )
    .unwrap();
    let text = ended(&agent.spawn()).await;
    let expected = "admin socket cannot be in the same directory or a subdirectory as that containing the Workload API socket";
    assert!(text.contains(expected), "{text}");
}

#[tokio::test]
async fn sockets_and_state_have_the_modes_of_spire() {
    use std::os::unix::fs::PermissionsExt;
    let world = avouch_tests::World::start().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&world.agent.socket), 0o777);
    assert_eq!(mode(world.agent.socket.parent().unwrap()), 0o755);
    assert_eq!(mode(&world.agent.admin_socket), 0o770);
    assert_eq!(mode(&world.server.socket), 0o770);
    assert_eq!(mode(&world.agent.data_dir.join("agent-data.json")), 0o600);
    assert_eq!(mode(&world.agent.data_dir.join("keys.json")), 0o600);
    assert_eq!(mode(&world.server.data_dir().join("keys.json")), 0o600);
}

#[tokio::test]
async fn a_trust_bundle_that_comes_late_is_read_when_it_is_there() {
    let server = Server::start().await;
    let proof = Proof::JoinToken(server.token().await);
    let mut agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    let bundle = server.dir.path().join("ab.pem");
    let text = std::fs::read(&bundle).unwrap();
    std::fs::remove_file(&bundle).unwrap();
    let daemon = agent.spawn();
    let line = daemon.line("could not parse trust bundle").await;
    assert!(line.contains("ab.pem") && line.contains("retry_interval"), "{line}");
    std::fs::write(&bundle, text).unwrap();
    agent.adopt(daemon).await;
}

/// The status and body of one GET.
pub(crate) async fn get(port: u16, path: &str) -> Option<(String, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.to_owned(), body.to_owned()))
}

#[tokio::test]
async fn an_agents_health_and_metrics_tell_of_its_way_from_start_to_first_sync() {
    let mut server = Server::start().await;
    let proof = Proof::JoinToken(server.token().await);
    let mut agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    let (health, page) = (avouch_tests::server::free_port(), avouch_tests::server::free_port());
    let more = format!(
        "health_checks {{\n listener_enabled = true\n bind_port = \"{health}\"\n bind_address = \"127.0.0.1\"\n }}\ntelemetry {{\n Prometheus {{\n host = \"127.0.0.1\"\n port = {page}\n }}\n }}\n"
    );
    let text = std::fs::read_to_string(&agent.config).unwrap();
    std::fs::write(&agent.config, text + &more).unwrap();
    server.stop().await;
    let daemon = agent.spawn();
    daemon.line("Failed to attest the node; will try again").await;
    assert_eq!(get(health, "/live").await.unwrap().0, "200", "a restart would cure nothing");
    let (status, body) = get(health, "/ready").await.unwrap();
    assert_eq!((status.as_str(), body.contains("workload api is unavailable")), ("500", true), "{body}");
    let metrics = get(page, "/metrics").await.unwrap().1;
    assert!(
        metrics.lines().any(|l| l.starts_with("spire_agent_bootstrapped{") && l.ends_with(" 0")),
        "{metrics}"
    );
    server.restart().await;
    agent.adopt(daemon).await;
    let ready = async || get(health, "/ready").await.filter(|(status, _)| status == "200");
    assert_eq!(avouch_tests::eventually("a ready agent", ready).await.1.trim(), "{\"agent\":{}}");
    let metrics = get(page, "/metrics").await.unwrap().1;
    for name in ["started", "bootstrapped", "node_attestor_new_svid", "clock_skew_ms", "sync_bundles_total"] {
        assert!(metrics.contains(&format!("\nspire_agent_{name}{{")), "{name}: {metrics}");
    }
}

#[test]
fn the_servers_units_name_the_sockets_that_its_example_configuration_names() {
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name);
        std::fs::read_to_string(path).unwrap()
    };
    let (service, socket) = (read("systemd/avouch-server.service"), read("systemd/avouch-server.socket"));
    let listens: Vec<_> = socket.lines().filter_map(|l| l.strip_prefix("ListenStream=")).collect();
    let start = service.lines().find(|l| l.starts_with("ExecStart=")).unwrap();
    let example = read("config/server.conf");
    let value = |key: &str| {
        let line =
            example.lines().map(|l| l.trim_start().trim_start_matches('#')).find(|l| l.starts_with(key));
        line.unwrap().split(['=', '"']).map(str::trim).rfind(|part| !part.is_empty()).unwrap().to_owned()
    };
    let tcp = format!("{}:{}", value("bind_address"), value("bind_port"));
    assert_eq!(listens, [tcp.as_str(), start.rsplit(' ').next().unwrap()]);
}
