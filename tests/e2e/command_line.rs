//! The command lines, with SPIRE's words and exit codes.

use std::path::Path;

use avouch_tests::cli::{self, Said};
use avouch_tests::world::my_uid;
use avouch_tests::{Server, World};

async fn server(server: &Server, args: &[&str]) -> Said {
    let socket = server.socket.to_str().unwrap();
    cli::run("avouch-server", args.iter().copied().chain(["-socketPath", socket])).await
}

async fn agent(socket: &Path, args: &[&str]) -> Said {
    cli::run("avouch-agent", args.iter().copied().chain(["-socketPath", socket.to_str().unwrap()])).await
}

#[tokio::test]
async fn tokens_are_generated_with_spires_words() {
    let world = Server::start().await;
    let said = server(&world, &["token", "generate"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    let (first, second) = said.out.split_once('\n').unwrap();
    assert_eq!(first.strip_prefix("Token: ").unwrap().len(), 36);
    assert_eq!(second, "Warning: Missing SPIFFE ID.\n");
    let said =
        server(&world, &["token", "generate", "-spiffeID", "spiffe://example.org/n", "-output", "json"])
            .await;
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert!(json["value"].is_string() && json["expires_at"].is_string(), "{json}");
    let said =
        server(&world, &["token", "generate", "-spiffeID", "spiffe://example.org/spire/agent/x"]).await;
    assert_eq!(said.code, 1);
    assert!(
        said.err.starts_with("Error: ") && said.err.contains("path is in the reserved namespace"),
        "{said:?}"
    );
}

#[tokio::test]
async fn entries_are_created_shown_counted_and_deleted_with_spires_words() {
    let world = Server::start().await;
    let create = [
        "entry",
        "create",
        "-entryID",
        "e1",
        "-parentID",
        "spiffe://example.org/node",
        "-spiffeID",
        "spiffe://example.org/web",
        "-selector",
        "unix:uid:0",
        "-dns",
        "web.example.org",
    ];
    let said = server(&world, &create).await;
    assert_eq!(said.code, 0, "{said:?}");
    let block = "Entry ID                : e1\n\
                 SPIFFE ID               : spiffe://example.org/web\n\
                 Parent ID               : spiffe://example.org/node\n\
                 Revision                : 0\n\
                 X509-SVID TTL           : default\n\
                 JWT-SVID TTL            : default\n\
                 Selector                : unix:uid:0\n\
                 DNS name                : web.example.org\n\n";
    assert_eq!(said.out, block);
    let again = server(&world, &create).await;
    assert_eq!(again.code, 1);
    assert!(
        again.err.contains("Failed to create the following entry (code: AlreadyExists, msg: "),
        "{again:?}"
    );
    assert!(again.err.contains("Error: failed to create one or more entries"), "{again:?}");
    let said = server(&world, &["entry", "show"]).await;
    assert_eq!(said.out, format!("Found 1 entry\n{block}"));
    assert_eq!(server(&world, &["entry", "count"]).await.out, "1 registration entry\n");
    let said = server(&world, &["entry", "delete", "-entryID", "e1"]).await;
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "Deleted entry with ID: e1\n\n\nDeleted 1 entries successfully")
    );
    let said = server(&world, &["entry", "delete", "-entryID", "e1"]).await;
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("Failed to delete entry with ID e1 (code: NotFound, msg: \"entry not found\")"),
        "{said:?}"
    );
    assert_eq!(server(&world, &["entry", "count"]).await.out, "0 registration entries\n");
}

#[tokio::test]
async fn agents_are_listed_shown_and_evicted_with_spires_words() {
    let world = World::start().await;
    let said = server(&world.server, &["agent", "list"]).await;
    assert!(
        said.out.starts_with(
            "Found 1 attested agent:\n\nSPIFFE ID         : spiffe://example.org/spire/agent/join_token/"
        ),
        "{said:?}"
    );
    assert!(said.out.contains("\nAttestation type  : join_token\n"), "{said:?}");
    assert_eq!(server(&world.server, &["agent", "count"]).await.out, "1 attested agent\n");
    let said = server(&world.server, &["agent", "show", "-spiffeID", &world.agent.id]).await;
    assert!(said.out.starts_with("Found an attested agent given its SPIFFE ID\n\n"), "{said:?}");
    let said = server(&world.server, &["agent", "evict", "-spiffeID", &world.agent.id]).await;
    assert_eq!((said.code, said.out.as_str()), (0, "Agent evicted successfully\n"));
    let said = server(&world.server, &["agent", "show", "-spiffeID", &world.agent.id]).await;
    assert_eq!(said.code, 1);
    assert!(said.err.starts_with("Error: rpc error: code = NotFound desc = agent not found"), "{said:?}");
}

#[tokio::test]
async fn bundles_and_minted_svids_are_printed_as_pem_and_documents() {
    let world = Server::start().await;
    let pem = server(&world, &["bundle", "show"]).await.out;
    assert_eq!(pem.trim_end(), world.bundle_pem().await.trim_end());
    let document = server(&world, &["bundle", "show", "-format", "spiffe"]).await.out;
    let json: serde_json::Value = serde_json::from_str(&document).unwrap();
    assert_eq!(json["keys"][0]["use"], "x509-svid");
    assert!(document.starts_with("{\n    \"keys\": [\n"), "{document}");
    let said =
        server(&world, &["x509", "mint", "-spiffeID", "spiffe://example.org/m", "-dns", "m.example.org"])
            .await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.starts_with("X509-SVID:\n-----BEGIN CERTIFICATE-----\n"), "{said:?}");
    assert!(said.out.contains("\n\nPrivate key:\n-----BEGIN PRIVATE KEY-----\n"), "{said:?}");
    assert!(said.out.contains("\n\nRoot CAs:\n-----BEGIN CERTIFICATE-----\n"), "{said:?}");
    let said =
        server(&world, &["jwt", "mint", "-spiffeID", "spiffe://example.org/m", "-audience", "a"]).await;
    let (_, claims) = avouch_tests::forge::open(said.out.trim());
    assert_eq!(claims["sub"], "spiffe://example.org/m");
}

#[tokio::test]
async fn both_daemons_say_whether_they_are_healthy() {
    let mut world = World::start().await;
    let said = server(&world.server, &["healthcheck"]).await;
    assert_eq!((said.code, said.out.as_str()), (0, "Server is healthy.\n"));
    let said = agent(&world.agent.socket, &["healthcheck"]).await;
    assert_eq!((said.code, said.out.as_str()), (0, "Agent is healthy.\n"));
    world.agent.stop().await;
    world.server.stop().await;
    let said = server(&world.server, &["healthcheck"]).await;
    assert_eq!(said.code, 1);
    assert!(said.err.starts_with("Error: server is unhealthy: unable to determine health"), "{said:?}");
    let said = agent(&world.agent.socket, &["healthcheck"]).await;
    assert_eq!(said.code, 1);
    assert!(said.err.starts_with("Agent is unhealthy: unable to determine health"), "{said:?}");
}

#[tokio::test]
async fn the_agents_verbs_fetch_and_validate_as_a_workload() {
    let world = World::start().await;
    world.grant("/web").await;
    let said = agent(&world.agent.socket, &["api", "fetch", "x509"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.starts_with("Received 1 svid after "), "{said:?}");
    assert!(said.out.contains("\n\nSPIFFE ID:\t\tspiffe://example.org/web\nSVID Valid After:\t"), "{said:?}");
    let out = world.server.dir.path().join("written");
    std::fs::create_dir(&out).unwrap();
    let said = agent(&world.agent.socket, &["api", "fetch", "x509", "-write", out.to_str().unwrap()]).await;
    assert_eq!(said.code, 0, "{said:?}");
    for name in ["svid.0.pem", "svid.0.key", "bundle.0.pem"] {
        assert!(out.join(name).is_file(), "{name}");
    }
    let said =
        agent(&world.agent.socket, &["api", "fetch", "jwt", "-audience", "aud1", "-output", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let token = json[0]["svids"][0]["svid"].as_str().unwrap();
    let said =
        agent(&world.agent.socket, &["api", "validate", "jwt", "-audience", "aud1", "-svid", token]).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.starts_with("SVID is valid.\nSPIFFE ID : spiffe://example.org/web\n"), "{said:?}");
    let said =
        agent(&world.agent.socket, &["api", "validate", "jwt", "-audience", "other", "-svid", token]).await;
    assert_eq!(said.code, 1);
    assert!(said.err.starts_with("SVID is not valid: "), "{said:?}");
}

#[tokio::test]
async fn a_caller_without_an_entry_is_told_so_by_the_verb() {
    let world = World::start().await;
    assert!(my_uid().starts_with("unix:uid:"));
    let said = agent(&world.agent.socket, &["api", "fetch", "x509"]).await;
    assert_eq!(said.code, 1);
    assert!(said.err.contains("rpc error: code = PermissionDenied desc = no identity issued"), "{said:?}");
}

#[tokio::test]
async fn unknown_commands_and_flags_have_spires_exit_codes() {
    for name in ["avouch-server", "avouch-agent"] {
        assert_eq!(cli::run(name, ["nope"]).await.code, 127, "{name} nope");
        let none: [&str; 0] = [];
        assert_eq!(cli::run(name, none).await.code, 127, "{name}");
        let said = cli::run(name, ["--version"]).await;
        assert_eq!(said.code, 0, "{said:?}");
        assert!(!said.err.is_empty() && said.out.is_empty(), "{said:?}");
        let said = cli::run(name, ["healthcheck", "-nope"]).await;
        assert_eq!(said.code, 1);
        assert!(said.err.contains("flag provided but not defined: -nope"), "{said:?}");
    }
}
