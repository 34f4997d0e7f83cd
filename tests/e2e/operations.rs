//! What operators rely on: logs and their files, who called the admin socket, probes, metrics, an orderly stop.

use std::io::Write;
use std::path::Path;

use avouch_proto::agent_v1::AttestAgentRequest;
use avouch_tests::http::get;
use avouch_tests::{Server, ServerOptions, eventually, within};
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
    let blocks = format!("telemetry {{\n Prometheus {{\n host = \"127.0.0.1\"\n port = {port}\n }}\n}}\n");
    let server = with_blocks(&blocks).await;
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
        format!("spire_server_ca_manager_x509_ca_activate{{host=\"{host}\",status=\"OK\"}} 1"),
        format!("spire_server_ca_manager_jwt_key_prepare{{host=\"{host}\",status=\"OK\"}} 1"),
        format!("spire_server_manager_jwt_key_activate{{host=\"{host}\",status=\"OK\"}} 1"),
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
