//! The verbs that `command_line.rs` leaves out, with SPIRE's words, forms of output and exit codes.

use std::path::Path;
use std::process::Command;

use avouch_tests::cli::{self, Said};
use avouch_tests::daemon::{Daemon, binary};
use avouch_tests::node_pki::NodePki;
use avouch_tests::server::private_dir;
use avouch_tests::{Agent, AgentOptions, Server, ServerOptions, World, eventually};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

async fn on(program: &str, socket: &Path, args: &[&str]) -> Said {
    cli::run(program, args.iter().copied().chain(["-socketPath", socket.to_str().unwrap()])).await
}

async fn server(server: &Server, args: &[&str]) -> Said {
    on("avouch-server", &server.socket, args).await
}

async fn done(world: &Server, args: &[&str]) -> String {
    let said = server(world, args).await;
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{args:?}: {said:?}");
    said.out
}

async fn json_of(world: &Server, args: &[&str]) -> Value {
    let args: Vec<_> = args.iter().copied().chain(["-output", "json"]).collect();
    let out = done(world, &args).await;
    assert_eq!(out.lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

const WEB: [&str; 6] = [
    "-parentID",
    "spiffe://example.org/node",
    "-spiffeID",
    "spiffe://example.org/web",
    "-selector",
    "unix:uid:0",
];

fn with<'a>(head: &[&'a str], tail: &[&'a str]) -> Vec<&'a str> {
    head.iter().chain(&WEB).chain(tail).copied().collect()
}

#[tokio::test]
async fn an_update_replaces_the_whole_entry() {
    let world = Server::start().await;
    done(&world, &with(&["entry", "create", "-entryID", "e1"], &["-dns", "web", "-hint", "h"])).await;
    let out = done(&world, &with(&["entry", "update", "-entryID", "e1"], &["-x509SVIDTTL", "600"])).await;
    assert!(out.contains("Revision                : 1\nX509-SVID TTL           : 600\n"), "{out}");
    assert!(!out.contains("DNS name") && !out.contains("Hint"), "what was left out is empty: {out}");
    let said = server(&world, &with(&["entry", "update", "-entryID", "e2"], &[])).await;
    assert_eq!(said.code, 1);
    let text = "Failed to update the following entry (code: NotFound, msg: ";
    assert!(said.err.contains(text) && said.err.ends_with("Error: failed to update one or more entries\n"));
    let said = server(&world, &with(&["entry", "update"], &[])).await;
    assert_eq!((said.code, said.err.as_str()), (1, "Error: entry ID is required\n"));
}

#[tokio::test]
async fn a_file_makes_many_entries_and_deletes_them() {
    let world = Server::start().await;
    let entry = |id: &str| {
        json!({
            "entry_id": id, "parent_id": "spiffe://example.org/node", "dns_names": ["a"],
            "spiffe_id": format!("spiffe://example.org/{id}"), "entryExpiry": 4_102_444_800_i64,
            "selectors": [{"type": "unix", "value": "uid:0"}],
        })
    };
    let data = world.dir.path().join("entries.json");
    std::fs::write(&data, json!({"entries": [entry("a"), entry("b")]}).to_string()).unwrap();
    let out = done(&world, &["entry", "create", "-data", data.to_str().unwrap()]).await;
    assert_eq!(out.matches("Expiration time         : 2100-01-01 00:00:00 +0000 UTC\n").count(), 2, "{out}");
    let ids = world.dir.path().join("ids.json");
    std::fs::write(&ids, json!({"ids": ["a", "b", "c"]}).to_string()).unwrap();
    let said = server(&world, &["entry", "delete", "-file", ids.to_str().unwrap()]).await;
    assert_eq!(said.code, 1);
    let summary = "Deleted 2 entries successfully, but failed to delete 1 entries";
    assert!(said.out.ends_with(summary), "{said:?}");
}

#[tokio::test]
async fn the_json_form_has_spires_names_and_hides_no_item() {
    let world = Server::start().await;
    let made = json_of(&world, &with(&["entry", "create", "-entryID", "e1"], &[])).await;
    let entry = &made["results"][0]["entry"];
    assert_eq!(made["results"][0]["status"], json!({"code": 0, "message": "OK"}));
    assert_eq!(entry["spiffe_id"], json!({"trust_domain": "example.org", "path": "/web"}));
    assert_eq!((&entry["expires_at"], &entry["x509_svid_ttl"]), (&json!("0"), &json!(0)));
    assert_eq!((&entry["dns_names"], &entry["hint"]), (&json!([]), &json!("")));
    // A failed item is in the answer, and the exit code stays 0: json_of has looked at it.
    let again = json_of(&world, &with(&["entry", "create", "-entryID", "e1"], &[])).await;
    assert_eq!(again["results"][0]["status"]["code"], 6);
    assert_eq!(json_of(&world, &["entry", "count"]).await, json!({"count": 1}));
    assert_eq!(json_of(&world, &["entry", "show"]).await["entries"][0]["id"], "e1");
    assert_eq!(json_of(&world, &["agent", "count"]).await, json!({"count": 0}));
    assert_eq!(json_of(&world, &["agent", "list"]).await["agents"], json!([]));
    let bundle = json_of(&world, &["bundle", "show"]).await;
    assert_eq!(bundle["trust_domain"], "example.org");
    assert!(bundle["x509_authorities"][0]["asn1"].is_string(), "{bundle}");
    let minted = json_of(&world, &["x509", "mint", "-spiffeID", "spiffe://example.org/m"]).await;
    assert!(minted["x509_svid"][0].is_string() && minted["private_key"].is_string(), "{minted}");
    let jwt =
        json_of(&world, &["jwt", "mint", "-spiffeID", "spiffe://example.org/m", "-audience", "a"]).await;
    assert!(jwt["svid"]["token"].is_string(), "{jwt}");
    let said = server(&world, &["entry", "count", "-output", "xml"]).await;
    assert_eq!(said.code, 1, "{said:?}");
}

#[tokio::test]
async fn a_minted_key_that_went_to_a_file_is_not_printed_in_any_format() {
    let world = Server::start().await;
    let folder = world.dir.path().to_str().unwrap();
    for format in ["pretty", "json"] {
        let args =
            ["x509", "mint", "-spiffeID", "spiffe://example.org/m", "-write", folder, "-output", format];
        let said = server(&world, &args).await;
        let lines: Vec<_> = said.out.lines().collect();
        assert_eq!(said.code, 0, "{format}");
        assert_eq!(lines.len(), 3, "{format}");
        assert!(lines.iter().all(|line| line.contains(" written to ")), "{format}");
    }
}

#[tokio::test]
async fn filters_say_which_entries_are_shown() {
    let world = Server::start().await;
    done(&world, &with(&["entry", "create", "-entryID", "e1"], &["-selector", "unix:gid:0"])).await;
    done(&world, &with(&["entry", "create", "-entryID", "e2"], &["-downstream", "-hint", "x"])).await;
    let count = async |args: &[&str]| {
        let args: Vec<_> = ["entry", "count"].iter().chain(args).copied().collect();
        json_of(&world, &args).await["count"].clone()
    };
    assert_eq!(count(&[]).await, 2, "without -downstream all of them");
    assert_eq!(count(&["-downstream"]).await, 1);
    assert_eq!(count(&["-selector", "unix:uid:0", "-matchSelectorsOn", "exact"]).await, 1);
    assert_eq!(count(&["-selector", "unix:uid:0", "-matchSelectorsOn", "superset"]).await, 2);
    assert_eq!(count(&["-downstream", "-hint", "x"]).await, 1);
    let said = server(&world, &["entry", "show", "-entryID", "e2"]).await;
    assert!(said.out.contains("Downstream              : true\n"), "{said:?}");
    let said = server(&world, &["entry", "count", "-selector", "a:b", "-matchSelectorsOn", "some"]).await;
    assert_eq!(said.code, 1, "{said:?}");
}

#[tokio::test]
async fn bundles_of_others_are_set_listed_and_deleted() {
    let world = Server::start().await;
    assert_eq!(done(&world, &["bundle", "count"]).await, "1 bundle\n");
    let document = done(&world, &["bundle", "show", "-format", "spiffe"]).await;
    let pem = done(&world, &["bundle", "show"]).await;
    let path = world.dir.path().join("other");
    std::fs::write(&path, &document).unwrap();
    let path = path.to_str().unwrap();
    let set = ["bundle", "set", "-id", "other.org", "-path", path, "-format", "spiffe"];
    assert_eq!(done(&world, &set).await, "bundle set.\n");
    let stars = "*".repeat(40);
    let list = done(&world, &["bundle", "list"]).await;
    assert_eq!(list, format!("{stars}\n* other.org\n{stars}\n{pem}"));
    assert_eq!(done(&world, &["bundle", "list", "-id", "spiffe://other.org"]).await, pem);
    done(&world, &with(&["entry", "create"], &["-federatesWith", "other.org"])).await;
    let said = server(&world, &["bundle", "delete", "-id", "other.org"]).await;
    assert_eq!(said.code, 1);
    assert!(said.err.starts_with("Error: failed to delete federated bundle \"other.org\": "), "{said:?}");
    let gone = done(&world, &["bundle", "delete", "-id", "other.org", "-mode", "dissociate"]).await;
    assert_eq!(gone, "bundle deleted.\n");
    assert_eq!(done(&world, &["bundle", "count"]).await, "1 bundle\n");
    std::fs::write(path, "junk").unwrap();
    let said = server(&world, &set).await;
    assert_eq!(said.code, 1);
    assert!(said.err.starts_with("Error: unable to parse to spiffe bundle: "), "{said:?}");
}

#[tokio::test]
async fn agents_are_banned_and_purged_with_spires_words() {
    let world = World::start().await;
    assert_eq!(done(&world.server, &["agent", "purge"]).await, "No agents to purge.\n");
    let purged = json_of(&world.server, &["agent", "purge", "-dryRun"]).await;
    assert_eq!(purged, json!({"expired_agents": []}));
    let ban = ["agent", "ban", "-spiffeID", &world.agent.id];
    assert_eq!(done(&world.server, &ban).await, "Agent banned successfully\n");
    let list = done(&world.server, &["agent", "list", "-banned", "true"]).await;
    assert!(list.contains("\nBanned            : true\n") && !list.contains("Serial number"), "{list}");
    assert_eq!(json_of(&world.server, &["agent", "count", "-banned", "false"]).await, json!({"count": 0}));
    let said = server(&world.server, &["agent", "show"]).await;
    assert_eq!((said.code, said.err.as_str()), (1, "Error: a SPIFFE ID is required\n"));
}

#[tokio::test]
async fn agents_that_ended_long_enough_ago_are_purged() {
    let dir = private_dir();
    let pki = NodePki::new(dir.path());
    let lines = "agent_ttl = \"4s\"".to_owned();
    let options = ServerOptions { server: lines, plugins: pki.plugin(), ..ServerOptions::default() };
    let world = Server::start_with(options).await;
    let mut agent = Agent::prepare(&world, "a", &pki.proof(), &AgentOptions::default()).await;
    agent.restart().await;
    agent.stop().await;
    let dry = eventually("an agent whose SVID has ended", async || {
        let found = json_of(&world, &["agent", "purge", "-expiredFor", "0s", "-dryRun"]).await;
        (found["expired_agents"] != json!([])).then_some(found)
    })
    .await;
    assert_eq!(dry["expired_agents"][0]["deleted"], false, "{dry}");
    assert_eq!(done(&world, &["agent", "count"]).await, "1 attested agent\n");
    let out = done(&world, &["agent", "purge", "-expiredFor", "0s"]).await;
    let text = "Found 1 expired agent\n\nAgents purged:\nSPIFFE ID         : spiffe://example.org/spire/agent/x509pop/";
    assert!(out.starts_with(text), "{out}");
    assert_eq!(done(&world, &["agent", "count"]).await, "0 attested agents\n");
}

#[tokio::test]
async fn agents_are_filtered_by_type_selector_and_time() {
    let world = World::start().await;
    let count = async |args: &[&str]| {
        let args: Vec<_> = ["agent", "count"].iter().chain(args).copied().collect();
        json_of(&world.server, &args).await["count"].clone()
    };
    assert_eq!(count(&["-attestationType", "join_token"]).await, 1);
    assert_eq!(count(&["-attestationType", "x509pop"]).await, 0);
    assert_eq!(count(&["-canReattest", "true"]).await, 0);
    assert_eq!(count(&["-canReattest", "false"]).await, 1);
    assert_eq!(count(&["-selector", "a:b"]).await, 0);
    assert_eq!(count(&["-expiresBefore", "2100-01-01 00:00:00 +0000 +00"]).await, 1);
    assert_eq!(count(&["-expiresBefore", "2000-01-01 00:00:00 +0000 +00"]).await, 0);
    let said = server(&world.server, &["agent", "count", "-expiresBefore", "tomorrow"]).await;
    assert!(said.code == 1 && said.err.starts_with("Error: date is not valid: \"tomorrow\""), "{said:?}");
}

#[tokio::test]
async fn log_levels_change_at_run_time_in_both_daemons() {
    let world = World::start().await;
    let places = [("avouch-server", &world.server.socket), ("avouch-agent", &world.agent.admin_socket)];
    for (program, socket) in places {
        let set = on(program, socket, &["logger", "set", "-level", "warn"]).await;
        assert_eq!(set.out, "Logger Level : warning\nLaunch Level : debug\n\n", "{program}: {set:?}");
        let get = on(program, socket, &["logger", "get", "-output", "json"]).await;
        assert_eq!(get.out, "{\"current_level\":\"WARN\",\"launch_level\":\"DEBUG\"}\n", "{program}");
        let reset = on(program, socket, &["logger", "reset"]).await;
        assert_eq!(reset.out, "Logger Level : debug\nLaunch Level : debug\n\n", "{program}");
        let none = on(program, socket, &["logger", "set"]).await;
        assert_eq!((none.code, none.err.as_str()), (1, "Error: a value (-level) must be set\n"));
        let bad = on(program, socket, &["logger", "set", "-level", "loud"]).await;
        assert_eq!((bad.code, bad.err.as_str()), (1, "Error: the value \"loud\" is not a valid setting\n"));
    }
}

#[tokio::test]
async fn both_daemons_tell_facts_about_themselves() {
    let world = World::start().await;
    let out = done(&world.server, &["debug", "getinfo"]).await;
    assert!(out.starts_with("Server Debug Info:\n  Uptime:                  "), "{out}");
    assert!(out.contains("  Registered Agents:       1\n"), "{out}");
    assert!(out.contains("    [0] SPIFFE ID:  spiffe://example.org/spire/server\n"), "{out}");
    let said = on("avouch-agent", &world.agent.admin_socket, &["debug", "getinfo"]).await;
    assert!(said.out.starts_with("Agent Debug Info:\n  Uptime:                          "), "{said:?}");
    assert!(said.out.contains(&format!("    [0] SPIFFE ID:  {}\n", world.agent.id)), "{said:?}");
}

#[tokio::test]
async fn a_watch_shows_each_update_until_it_is_interrupted() {
    let world = World::start().await;
    world.grant("/one").await;
    let mut command = Command::new(binary("avouch-agent"));
    command.args(["api", "watch", "-socketPath"]).arg(&world.agent.socket);
    let watch = Daemon::spawn("watch", &mut command);
    watch.line("Received 1 svid after ").await;
    world.grant("/two").await;
    watch.line("Received 2 svids after ").await;
    watch.signal(Signal::SIGINT);
    assert_eq!(watch.end().await.code(), Some(0), "{}", watch.log());
}

#[tokio::test]
async fn a_token_is_validated_by_the_short_verb_too() {
    let world = World::start().await;
    world.grant("/web").await;
    let fetch = ["api", "fetch", "jwt", "-audience", "a", "-output", "json"];
    let said = on("avouch-agent", &world.agent.socket, &fetch).await;
    let json: Value = serde_json::from_str(&said.out).unwrap();
    let token = json[0]["svids"][0]["svid"].as_str().unwrap();
    for verb in [["validate", "jwt"].as_slice(), &["api", "validate", "jwt"]] {
        let args: Vec<_> = verb.iter().copied().chain(["-audience", "a", "-svid", token]).collect();
        let said = on("avouch-agent", &world.agent.socket, &args).await;
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.starts_with("SVID is valid.\nSPIFFE ID : spiffe://example.org/web\n"), "{said:?}");
    }
}

#[tokio::test]
async fn secrets_are_written_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = Server::start().await;
    let file = world.dir.path().join("token");
    let path = file.to_str().unwrap();
    let mint = ["jwt", "mint", "-spiffeID", "spiffe://example.org/m", "-audience", "a", "-write", path];
    assert_eq!(done(&world, &mint).await, format!("JWT-SVID written to {path}\n"));
    let folder = world.dir.path().to_str().unwrap();
    done(&world, &["x509", "mint", "-spiffeID", "spiffe://example.org/m", "-write", folder]).await;
    let mode =
        |name: &str| std::fs::metadata(world.dir.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("token"), mode("key.pem"), mode("svid.pem")], [0o600, 0o600, 0o644]);
}

#[tokio::test]
async fn parts_that_are_not_built_are_refused_by_name() {
    for verb in [["federation", "list"].as_slice(), &["federation", "create"], &["wit", "mint"]] {
        let said = cli::run("avouch-server", verb.iter().copied().chain(["-output", "json"])).await;
        let text = format!("Error: not supported yet: {}\n", verb.join(" "));
        assert_eq!((said.code, said.out.as_str(), said.err), (1, "", text));
    }
}

#[tokio::test]
async fn the_socket_is_found_by_spires_variables() {
    let world = Server::start().await;
    let socket = world.socket.to_str().unwrap().to_owned();
    let ask = async |args: &[&str], name: &str, value: &str| {
        cli::run_with("avouch-server", args, |c| {
            c.env(name, value);
        })
        .await
    };
    let said = ask(&["healthcheck"], "SPIRE_SERVER_PRIVATE_SOCKET", &socket).await;
    assert_eq!(said.code, 0, "{said:?}");
    let template = socket.replace("api", "%i");
    let args = ["healthcheck", "-instance", "api"];
    let said = ask(&args, "SPIRE_SERVER_PRIVATE_SOCKET_TEMPLATE", &template).await;
    assert_eq!(said.code, 0, "{said:?}");
    let said = ask(&args, "SPIRE_SERVER_PRIVATE_SOCKET", &socket).await;
    assert_eq!(said.code, 1, "an instance needs a template: {said:?}");
}

#[tokio::test]
async fn one_dash_and_two_mean_the_same_and_help_is_everywhere() {
    let world = Server::start().await;
    let socket = world.socket.to_str().unwrap();
    for flag in ["-socketPath", "--socketPath"] {
        let said = cli::run("avouch-server", ["entry", "count", flag, socket]).await;
        assert_eq!(said.code, 0, "{said:?}");
    }
    for (program, verb) in [
        ("avouch-server", "run"),
        ("avouch-server", "validate"),
        ("avouch-server", "backup"),
        ("avouch-server", "restore"),
        ("avouch-agent", "run"),
        ("avouch-agent", "validate"),
    ] {
        for flag in ["-h", "-help", "--help"] {
            let said = cli::run(program, [verb, flag]).await;
            assert_eq!((said.code, said.out.as_str()), (0, ""), "{program} {verb} {flag}: {said:?}");
            assert!(said.err.starts_with(&format!("Example:\n    {program} {verb} -config ")), "{said:?}");
            assert!(said.err.contains(&format!("\nUsage of {verb}")), "{said:?}");
            assert!(said.err.contains("\n  -config string\n"), "{said:?}");
        }
    }
}
