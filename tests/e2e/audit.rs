//! The audit log of a real server: one line for each call or item, and no secret in any of them.

use avouch_proto::{agent_v1, entry_v1};
use avouch_tests::{Server, ServerOptions, entry, mtls};
use serde_json::Value;
use tonic::Code;

/// The audit lines so far.
fn lines(server: &Server) -> Vec<Value> {
    let log = server.daemon().log();
    let all = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    all.filter(|line| line["msg"] == "API accessed").collect()
}

async fn audited() -> Server {
    let more = "audit_log_enabled = true\n log_format = \"json\"";
    Server::start_with(ServerOptions { server: more.into(), ..ServerOptions::default() }).await
}

#[tokio::test]
async fn a_call_leaves_a_line_that_says_who_did_what_and_holds_no_secret() {
    let server = audited().await;
    let request = agent_v1::CreateJoinTokenRequest { ttl: 600, ..Default::default() };
    let token = server.agents().await.create_join_token(request).await.unwrap().into_inner().value;
    server.daemon().line("\"method\":\"CreateJoinToken\"").await;
    let lines = lines(&server);
    let line = lines.iter().find(|l| l["method"] == "CreateJoinToken").unwrap();
    for (field, value) in [
        ("type", "audit"),
        ("status", "success"),
        ("service", "agent.v1.Agent"),
        ("authorized_as", "local"),
        ("authorized_via", "transport"),
        ("subsystem_name", "api"),
        ("level", "info"),
    ] {
        assert_eq!(line[field], value, "{field} in {line}");
    }
    assert_eq!((&line["ttl"], &line["caller_uid"]), (&600.into(), &nix::unistd::geteuid().as_raw().into()));
    assert!(line["request_id"].is_string() && line["caller_path"].is_string(), "{line}");
    assert!(!server.daemon().log().contains(&token), "the token stands in the log");
}

#[tokio::test]
async fn a_batch_leaves_a_line_for_each_item_with_its_own_outcome() {
    let server = audited().await;
    let good = entry("spiffe://example.org/p", "/good", &["unix:uid:1"]);
    let bad = entry("spiffe://example.org/p", "/bad", &[]);
    let request = entry_v1::BatchCreateEntryRequest { entries: vec![good, bad], output_mask: None };
    server.entries().await.batch_create_entry(request).await.unwrap();
    server.daemon().line("\"spiffe_id\":\"spiffe://example.org/bad\"").await;
    let lines: Vec<_> = lines(&server).into_iter().filter(|l| l["method"] == "BatchCreateEntry").collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(
        (&lines[0]["status"], &lines[0]["spiffe_id"]),
        (&"success".into(), &"spiffe://example.org/good".into())
    );
    assert_eq!((&lines[1]["status"], &lines[1]["status_code"]), (&"error".into(), &"InvalidArgument".into()));
    assert!(lines[1]["status_message"].as_str().unwrap().contains("selector list is empty"), "{}", lines[1]);
}

#[tokio::test]
async fn a_refused_call_is_logged_as_refused_and_not_audited() {
    let server = audited().await;
    let (channel, _) = mtls::channel(server.address(), &[], &[]).await.unwrap();
    let mut entries = entry_v1::entry_client::EntryClient::new(channel);
    let refused = entries.list_entries(entry_v1::ListEntriesRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let line = server.daemon().line("Failed to authenticate caller").await;
    assert!(line.contains("authorization denied for method /spire.api.server.entry.v1.Entry/ListEntries"));
    assert!(!lines(&server).iter().any(|l| l["method"] == "ListEntries"));
}
