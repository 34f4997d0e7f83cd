//! What operators rely on: logs and their files, who called the admin socket, probes, metrics, an orderly stop.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use avouch_proto::agent_v1::AttestAgentRequest;
use avouch_tests::daemon::{Daemon, binary};
use avouch_tests::false_clock::FalseClock;
use avouch_tests::http::{get, telemetry};
use avouch_tests::{Agent, AgentOptions, Proof, Server, ServerOptions, World, eventually, within};
use nix::sys::signal::Signal;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

fn with(server: &str) -> ServerOptions {
    ServerOptions { server: server.to_owned(), ..ServerOptions::default() }
}

/// A server whose configuration has more blocks beside `server` and `plugins`.
async fn with_blocks(blocks: &str) -> Server {
    let mut server = Server::prepare(&ServerOptions::default());
    let mut file = std::fs::OpenOptions::new().append(true).open(&server.config).unwrap();
    file.write_all(blocks.as_bytes()).unwrap();
    server.restart().await;
    server
}

async fn text_in(file: &Path, text: &str) -> String {
    let what = format!("\"{text}\" in {}", file.display());
    eventually(&what, async || std::fs::read_to_string(file).ok().filter(|all| all.contains(text))).await
}

#[tokio::test]
async fn a_log_file_that_was_moved_away_is_opened_anew_at_sigusr2() {
    let dir = avouch_tests::server::private_dir();
    let (log, moved) = (dir.path().join("server.log"), dir.path().join("server.log.1"));
    let server = Server::start_with(with(&format!("log_file = \"{}\"", log.display()))).await;
    text_in(&log, "Starting Server APIs").await;
    std::fs::rename(&log, &moved).unwrap();
    server.token().await;
    text_in(&moved, "method=CreateJoinToken").await;
    assert!(!log.exists(), "nobody asked for a new file yet");
    server.daemon().signal(Signal::SIGUSR2);
    text_in(&log, "Log file opened anew").await;
    let before = std::fs::read_to_string(&moved).unwrap();
    server.token().await;
    text_in(&log, "method=CreateJoinToken").await;
    assert_eq!(std::fs::read_to_string(&moved).unwrap(), before, "the old file is left alone");
}

#[tokio::test]
async fn calls_on_the_admin_socket_are_logged_with_the_process_that_made_them() {
    let server = Server::start().await;
    server.token().await;
    let line = server.daemon().line("method=CreateJoinToken").await;
    let exe = std::env::current_exe().unwrap();
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    for field in [
        "Admin socket called".to_owned(),
        format!("caller_uid={uid}"),
        format!("caller_gid={gid}"),
        format!("caller_pid={}", std::process::id()),
        format!("caller_path={}", exe.display()),
        "authorized_as=local".to_owned(),
        "authorized_via=transport".to_owned(),
    ] {
        assert!(line.contains(&field), "{field} is not in: {line}");
    }
}

#[tokio::test]
async fn the_audit_log_tells_the_same_in_json_with_the_result() {
    let server = Server::start_with(with("log_format = \"json\"\naudit_log_enabled = true")).await;
    let token = server.token().await;
    let line = server.daemon().line("CreateJoinToken").await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["type"], "audit", "{line}");
    assert_eq!((&line["status"], &line["msg"]), (&"success".into(), &"API accessed".into()), "{line}");
    assert_eq!(line["caller_pid"], u64::from(std::process::id()), "{line}");
    assert_eq!(line["caller_path"], std::env::current_exe().unwrap().to_str().unwrap(), "{line}");
    assert!(line["level"] == "info" && line["time"].is_string() && line["request_id"].is_string(), "{line}");
    assert!(!line.to_string().contains(&token), "a token is never logged");
}

#[tokio::test]
async fn probes_are_answered_as_spires_are() {
    let port = avouch_tests::server::free_port();
    let blocks = format!(
        "health_checks {{\n listener_enabled = true\n bind_address = \"127.0.0.1\"\n bind_port = \"{port}\"\n live_path = \"/l\"\n ready_path = \"/r\"\n}}\n"
    );
    let _server = with_blocks(&blocks).await;
    let good = "{\"catalog.datastore\":{},\"server\":{},\"server.ca\":{},\"server.ca.rotator\":{}}\n";
    for path in ["/l", "/r"] {
        assert_eq!(get(port, path).await, Some((200, good.to_owned())));
    }
    assert_eq!(get(port, "/live").await.unwrap().0, 404);
}

#[tokio::test]
async fn metrics_have_the_names_and_shapes_of_spires() {
    let port = avouch_tests::server::free_port();
    let server = with_blocks(&telemetry(port)).await;
    server.token().await;
    server.entries().await.get_entry(avouch_proto::entry_v1::GetEntryRequest::default()).await.unwrap_err();
    let page = eventually("the call in the metrics", async || {
        let (status, page) = get(port, "/metrics").await?;
        assert_eq!(status, 200);
        page.contains("rpc_entry_v1_entry_get_entry").then_some(page)
    })
    .await;
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let host: String = host.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    for line in [
        "# TYPE spire_server_rpc_agent_v1_agent_create_join_token counter".to_owned(),
        format!("spire_server_rpc_agent_v1_agent_create_join_token{{host=\"{host}\",status=\"OK\"}} 1"),
        "# TYPE spire_server_rpc_agent_v1_agent_create_join_token_elapsed_time summary".to_owned(),
        format!("spire_server_rpc_entry_v1_entry_get_entry{{host=\"{host}\",status=\"InvalidArgument\"}} 1"),
        "# TYPE spire_server_uptime_in_ms gauge".to_owned(),
        format!("spire_server_ca_manager_x509_ca_prepare{{host=\"{host}\",status=\"OK\"}} 1"),
        format!("spire_server_ca_manager_x509_ca_activate{{host=\"{host}\"}} 1"),
        format!("spire_server_ca_manager_jwt_key_prepare{{host=\"{host}\",status=\"OK\"}} 1"),
        format!("spire_server_manager_jwt_key_activate{{host=\"{host}\"}} 1"),
        format!("spire_server_svid_rotate{{host=\"{host}\",status=\"OK\"}} 1"),
        "# TYPE spire_server_manager_x509_ca_rotate_expiration gauge".to_owned(),
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in:\n{page}");
    }
    for begin in [
        "spire_server_started{",
        "spire_server_manager_x509_ca_rotate_ttl{",
        "spire_server_rpc_health_check{",
    ] {
        assert!(page.lines().any(|l| l.starts_with(begin)), "{begin} is not in:\n{page}");
    }
}

#[tokio::test]
async fn a_stopping_server_ends_its_streams_as_unavailable_and_itself_with_success() {
    let mut server = Server::start().await;
    let (proofs, stream) = tokio::sync::mpsc::channel::<AttestAgentRequest>(1);
    let mut client = server.agents().await;
    let mut replies = client.attest_agent(ReceiverStream::new(stream)).await.unwrap().into_inner();
    server.daemon().signal(Signal::SIGTERM);
    let end = within("the end of the stream", replies.message()).await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable, "{end:?}");
    drop((replies, client, proofs));
    assert!(server.stop().await.success());
    assert!(!server.socket.exists(), "the socket goes with the server");
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_no_error_behind() {
    let mut world = World::start().await;
    assert!(world.agent.stop().await.success());
    // Those of this test on the admin socket, and the agent's, which has an address.
    for fields in [&["Connection closed"][..], &["Connection closed", "caller_addr="]] {
        eventually("a closed connection", async || {
            let log = world.server.daemon().log();
            log.lines().any(|line| fields.iter().all(|field| line.contains(field))).then_some(())
        })
        .await;
    }
    let log = world.server.daemon().log();
    assert!(!log.contains("Connection ended"), "{log}");
}

#[tokio::test]
async fn a_client_that_breaks_the_protocol_leaves_the_reason_behind() {
    use tokio::io::AsyncWriteExt as _;
    let server = Server::start().await;
    let mut stream = tokio::net::UnixStream::connect(&server.socket).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let line = server.daemon().line("Connection ended").await;
    assert!(line.contains("error="), "{line}");
}

/// A daemon started by a shell that lowers its own limit of open files first.
fn with_few_descriptors(program: &str, config: &Path) -> Daemon {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 256 && exec \"$0\" run -config \"$1\""]);
    Daemon::spawn(program, command.arg(binary(program)).arg(config))
}

/// Soft and hard limit of open files of a running process.
fn descriptors(daemon: &Daemon) -> (u64, u64) {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let line = limits.lines().find(|l| l.starts_with("Max open files")).unwrap();
    let numbers: Vec<_> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}

#[tokio::test]
async fn both_daemons_raise_their_limit_of_open_files_as_far_as_they_may() {
    let mut server = Server::prepare(&ServerOptions::default());
    server.adopt(with_few_descriptors("avouch-server", &server.config)).await;
    let proof = Proof::JoinToken(server.token().await);
    let mut agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    agent.adopt(with_few_descriptors("avouch-agent", &agent.config)).await;
    for daemon in [server.daemon(), agent.daemon()] {
        let (soft, hard) = descriptors(daemon);
        assert!(soft == hard && soft > 256, "{soft} of {hard}");
    }
}

#[tokio::test]
async fn an_agent_whose_clock_is_a_minute_ahead_of_the_servers_says_so_everywhere() {
    let server = Server::start().await;
    let Some(clock) = FalseClock::new(server.dir.path().join("clock")) else { return };
    clock.set("+60");
    let proof = Proof::JoinToken(server.token().await);
    let mut agent = Agent::prepare(&server, "a", &proof, &AgentOptions::default()).await;
    let (health, page) = (avouch_tests::server::free_port(), avouch_tests::server::free_port());
    let probes = format!(
        "health_checks {{\n listener_enabled = true\n bind_port = \"{health}\"\n bind_address = \"127.0.0.1\"\n}}\n"
    );
    let text = std::fs::read_to_string(&agent.config).unwrap();
    std::fs::write(&agent.config, text + &probes + &telemetry(page)).unwrap();
    let mut command = Command::new(binary("avouch-agent"));
    command.args(["run", "-config"]).arg(&agent.config);
    agent.adopt(Daemon::spawn("agent", clock.show(&mut command))).await;
    let line = agent.daemon().line("Clock differs from the server's by more than 5 s").await;
    let skew = |text: &str, before: &str| -> f64 {
        let number = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}")).1;
        number.split(['}', ' ', '\n']).next().unwrap().parse().unwrap()
    };
    // The message is some moments old when it is read, never younger.
    let minute = -80_000.0..=-59_000.0;
    assert!(minute.contains(&skew(&line, "skew_ms=")), "{line}");
    let (status, ready) = get(health, "/ready").await.unwrap();
    assert!(status == 200 && minute.contains(&skew(&ready, "\"clock_skew_ms\":")), "{ready}");
    let metrics = get(page, "/metrics").await.unwrap().1;
    let series = metrics.lines().find(|l| l.starts_with("spire_agent_clock_skew_ms{")).unwrap();
    assert!(minute.contains(&skew(series, "} ")), "{series}");
}
