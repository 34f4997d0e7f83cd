//! Who owns what runs, and how it is stopped: the real command line, as several users, and a real workload's stream.

use std::time::Duration;

use avouch_proto::governance_v1::governance_client::GovernanceClient;
use avouch_proto::{governance_v1 as wire, svid_v1, types};
use avouch_tests::cli::{self, Said};
use avouch_tests::daemon::binary;
use avouch_tests::{Server, ServerOptions, World, entry, eventually};
use serde_json::Value;
use tonic::Code;

/// Local users beside root; only root can become them.
pub(super) const BEN: u32 = 4_011;
const OLGA: u32 = 4_012;
const NOBODY: u32 = 4_013;

/// True if this run can be several users; says so if not.
pub(super) fn can_be_others() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("not run: only root can be several users");
    }
    root
}

/// `avouch` as a local user.
pub(super) async fn as_user(server: &Server, uid: u32, args: &[&str]) -> Said {
    let socket = ["--server-socket", server.people.to_str().unwrap()];
    // The folder of the binaries may be closed to others; the server's is not.
    let program = server.dir.path().join("avouch");
    if !program.exists() {
        let avouch = binary("avouch");
        std::fs::hard_link(&avouch, &program)
            .or_else(|_| std::fs::copy(&avouch, &program).map(drop))
            .unwrap();
    }
    cli::run_program(&program, args.iter().copied().chain(socket), |command| {
        if uid != nix::unistd::geteuid().as_raw() {
            command.uid(uid).gid(uid);
        }
    })
    .await
}

/// `avouch` as this test's user, on the admin socket.
pub(super) async fn avouch(server: &Server, args: &[&str]) -> Said {
    let socket = ["--server-socket", server.socket.to_str().unwrap()];
    cli::run("avouch", args.iter().copied().chain(socket)).await
}

pub(super) fn json(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"))
}

pub(super) async fn good(server: &Server, args: &[&str]) -> Value {
    let args: Vec<_> = args.iter().copied().chain(["--json"]).collect();
    let said = avouch(server, &args).await;
    assert_eq!(said.code, 0, "{args:?}: {said:?}");
    json(&said)
}

/// Makes this test's user the first person; gives the ID.
pub(super) async fn first_person(server: &Server) -> String {
    good(server, &["init", "Ada Example"]).await["id"].as_str().unwrap().to_owned()
}

pub(super) const CODER: &[&str] = &[
    "identity",
    "new",
    "coder",
    "--kind",
    "ai-agent",
    "--env",
    "test",
    "--purpose",
    "fix-bugs",
    "--ends",
    "30d",
];

#[tokio::test]
async fn the_first_person_is_the_user_who_owns_the_data_and_is_made_once() {
    let server = Server::start().await;
    if can_be_others() {
        let other = as_user(&server, NOBODY, &["init", "Eve Example"]).await;
        assert_eq!(other.code, 2, "{other:?}");
        assert!(
            other.err.contains("user 4013 calls, expected user 0, who owns the server's data"),
            "{other:?}"
        );
    }
    let person = good(&server, &["init", "Ada Example"]).await;
    assert_eq!((&person["security"], &person["state"]), (&Value::Bool(true), &"active".into()));
    let again = avouch(&server, &["init", "Ada Example"]).await;
    assert_eq!(again.code, 1, "{again:?}");
    let all = good(&server, &["person", "list"]).await;
    assert_eq!((all["people"].as_array().unwrap().len(), &all["you"]), (1, &person["id"]));
}

#[tokio::test]
async fn an_identity_of_test_is_registered_paused_and_resumed_and_its_workload_sees_it_at_once() {
    let world = World::start().await;
    first_person(&world.server).await;
    let made = good(&world.server, CODER).await;
    assert_eq!(
        (&made["spiffe_id"], &made["standing"]),
        (&"spiffe://example.org/test/coder".into(), &"active".into())
    );
    world.grant("/test/coder").await;
    world.grant("/other").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    let both = |m: &avouch_proto::workload::X509svidResponse| m.svids.len() == 2;
    let first = stream.until("both SVIDs", both).await;
    let coder = first.svids.iter().find(|svid| svid.spiffe_id.ends_with("/coder")).unwrap();
    assert!(
        lifetime(&coder.x509_svid) <= Duration::from_secs(660),
        "what acts by itself gets short lifetimes"
    );

    let begun = avouch::clock::now().mono;
    good(&world.server, &["pause", "coder"]).await;
    let left = stream.until("the pause", |m| m.svids.len() == 1).await;
    println!("paused by the command line and seen in {:?}", avouch::clock::now().mono.since(begun));
    assert!(left.svids[0].spiffe_id.ends_with("/other"), "the neighbour is untouched");
    good(&world.server, &["resume", "coder"]).await;
    stream.until("the resume", both).await;
    let shown = good(&world.server, &["identity", "show", "coder"]).await;
    assert_eq!((&shown["stop_number"], shown["entry_ids"].as_array().unwrap().len()), (&1.into(), 1));
    assert_eq!(shown["agent_ids"][0], world.agent.id.as_str());
}

fn lifetime(der: &[u8]) -> Duration {
    let facts = avouch_credential::x509::facts::CertFacts::parse(der).unwrap();
    facts.not_after.since(facts.not_before)
}

#[tokio::test]
async fn a_stopped_identity_gets_no_svid_by_any_road() {
    let world = World::start().await;
    first_person(&world.server).await;
    good(&world.server, CODER).await;
    let granted = world.grant("/test/coder").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    stream.next().await.unwrap();
    good(&world.server, &["stop", "coder"]).await;
    let ended = stream.next().await.unwrap_err();
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended}");
    let asked = world.agent.workload().await.fetch_x509().await.unwrap_err();
    assert_eq!(asked.code(), Code::PermissionDenied, "{asked}");
    // Neither by a new entry, nor minted by an admin; and the entry is as it was.
    world.server.create(entry(&world.agent.id, "/test/coder", &["unix:uid:1"])).await;
    let id = types::Spiffeid { trust_domain: "example.org".into(), path: "/test/coder".into() };
    let request = svid_v1::MintJwtsvidRequest { id: Some(id), audience: vec!["x".into()], ttl: 0 };
    let minted = world.server.svids().await.mint_jwtsvid(request).await.unwrap_err();
    assert_eq!(
        (minted.code(), minted.message()),
        (Code::FailedPrecondition, "identity spiffe://example.org/test/coder is stopped")
    );
    let request = avouch_proto::entry_v1::GetEntryRequest { id: granted.id.clone(), output_mask: None };
    assert_eq!(world.server.entries().await.get_entry(request).await.unwrap().into_inner(), granted);
    let again = avouch(&world.server, CODER).await;
    assert_eq!(again.code, 1, "a name is used once: {again:?}");
}

#[tokio::test]
async fn what_is_stopped_stays_stopped_when_server_and_agent_start_again() {
    let mut world = World::start().await;
    first_person(&world.server).await;
    good(&world.server, CODER).await;
    world.grant("/test/coder").await;
    world.grant("/other").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    stream.until("both SVIDs", |m| m.svids.len() == 2).await;
    good(&world.server, &["stop", "coder"]).await;
    stream.until("the stop", |m| m.svids.len() == 1).await;
    world.agent.stop().await;
    world.server.stop().await;
    world.server.restart().await;
    world.agent.restart().await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    let seen = stream.next().await.unwrap();
    assert_eq!(seen.svids.len(), 1, "{:?}", seen.svids);
    let listed = good(&world.server, &["identity", "list", "--standing", "stopped"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn its_end_pauses_an_identity_without_anybody() {
    let world = World::start().await;
    first_person(&world.server).await;
    let end = avouch::clock::now().wall.secs() + 3;
    let mut client = GovernanceClient::new(world.server.channel().await);
    let request = wire::RegisterIdentityRequest {
        name: "short".into(),
        kind: "service".into(),
        environment: "test".into(),
        purpose: "tests".into(),
        ends_at: end,
        ..Default::default()
    };
    client.register_identity(request).await.unwrap();
    world.grant("/test/short").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    let first = stream.next().await.unwrap();
    let facts = avouch_credential::x509::facts::CertFacts::parse(&first.svids[0].x509_svid).unwrap();
    assert!(facts.not_after.secs() <= end, "no SVID outlives its identity");
    let ended = stream.end().await;
    assert_eq!(ended.code(), Code::PermissionDenied, "{ended}");
    let shown = good(&world.server, &["identity", "show", "short"]).await;
    assert_eq!((&shown["standing"], &shown["cause"]), (&"paused".into(), &"end_reached".into()));
    let tried = eventually("what the node said of it", async || {
        let shown = good(&world.server, &["identity", "show", "short"]).await;
        (shown["stop_tried"]["confirmed"] == 1).then(|| shown["stop_tried"]["nodes"].clone())
    });
    assert_eq!(tried.await, 1, "it was confirmed as a stop by a person is");
    let log = avouch(&world.server, &["audit", "export"]).await.out;
    let confirmed = log.lines().filter(|line| line.contains(r#""event":"stop_tried""#)).count();
    assert_eq!(confirmed, 1, "{log}");
}

#[tokio::test]
async fn in_prod_a_second_person_says_yes_and_the_owner_alone_may_stop() {
    if !can_be_others() {
        return;
    }
    let server = Server::start().await;
    first_person(&server).await;
    let ben = good(&server, &["person", "add", "Ben Example", "--uid", &BEN.to_string(), "--security"]).await;
    assert_eq!(ben["state"], "active", "for the second person there is nobody to ask");
    let olga =
        avouch(&server, &["person", "add", "Olga Example", "--uid", &OLGA.to_string(), "--json"]).await;
    assert_eq!(olga.code, 5, "the third waits for a yes: {olga:?}");
    let id = json(&olga)["id"].as_str().unwrap().to_owned();
    let own = avouch(&server, &["person", "approve", &id]).await;
    assert_eq!(own.code, 2, "not of who asked: {own:?}");
    let early = as_user(&server, OLGA, CODER).await;
    assert_eq!(early.code, 2, "who waits may do nothing: {early:?}");
    assert_eq!(as_user(&server, BEN, &["person", "approve", &id]).await.code, 0);

    let prod = [
        "identity",
        "new",
        "buyer",
        "--kind",
        "ai-agent",
        "--env",
        "prod",
        "--purpose",
        "buy",
        "--ends",
        "30d",
    ];
    let waits = as_user(&server, OLGA, &prod).await;
    assert_eq!(waits.code, 5, "{waits:?}");
    let own = as_user(&server, OLGA, &["identity", "approve", "buyer"]).await;
    assert_eq!(own.code, 2, "{own:?}");
    assert!(own.err.contains("in prod a yes is a second person's"), "{own:?}");
    assert_eq!(as_user(&server, BEN, &["identity", "approve", "buyer"]).await.code, 0);
    assert_eq!(as_user(&server, OLGA, &["pause", "buyer"]).await.code, 0, "shrinking is one person's");
    let resumed = as_user(&server, OLGA, &["resume", "buyer"]).await;
    assert_eq!(resumed.code, 2, "widening what is one's own is not: {resumed:?}");
    assert_eq!(as_user(&server, BEN, &["resume", "buyer"]).await.code, 0);

    let stranger = as_user(&server, NOBODY, &["stop", "buyer"]).await;
    assert_eq!(stranger.code, 2, "{stranger:?}");
    assert!(stranger.err.contains("user 4013 is no active person here"), "{stranger:?}");
}

/// Registers an AI agent of Olga's in `test`, with this successor if any.
async fn of_olga(server: &Server, name: &str, successor: &[&str]) {
    let mut args: Vec<_> = CODER.iter().map(|arg| if *arg == "coder" { name } else { arg }).collect();
    args.extend(successor);
    let made = as_user(server, OLGA, &args).await;
    assert_eq!(made.code, 0, "{made:?}");
}

#[tokio::test]
async fn when_the_owner_leaves_what_nobody_takes_over_stops_at_once_and_the_rest_goes_on() {
    if !can_be_others() {
        return;
    }
    let world = World::start().await;
    let server = &world.server;
    first_person(server).await;
    good(server, &["person", "add", "Ben Example", "--uid", &BEN.to_string(), "--security"]).await;
    let olga = avouch(server, &["person", "add", "Olga Example", "--uid", &OLGA.to_string(), "--json"]).await;
    let id = json(&olga)["id"].as_str().unwrap().to_owned();
    assert_eq!(as_user(server, BEN, &["person", "approve", &id]).await.code, 0);
    of_olga(server, "alone", &[]).await;
    of_olga(server, "kept", &["--successor", "Ben Example"]).await;
    world.grant("/test/alone").await;
    // By another selector: no entry of an AI agent asks for as much as one of another, nor for less or more.
    let gid = format!("unix:gid:{}", nix::unistd::getegid());
    server.create(entry(&world.agent.id, "/test/kept", &[&gid])).await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    stream.until("both SVIDs", |m| m.svids.len() == 2).await;

    let seen = avouch(server, &["person", "leave", "Olga Example"]).await;
    assert_eq!(seen.code, 0, "{seen:?}");
    for wanted in ["pauses: it has no successor", "passes to Ben Example", "Nothing was done yet"] {
        assert!(seen.out.contains(wanted), "{wanted}: {seen:?}");
    }
    let begun = avouch::clock::now().mono;
    let told = good(server, &["person", "leave", "Olga Example", "--apply"]).await;
    assert_eq!(told["nodes"].as_array().map(Vec::len), Some(1), "the node that ran what pauses: {told}");
    assert_eq!(told["nodes"][0]["confirmed"], true, "{told}");
    assert!(told["accepted_until"].is_string(), "{told}");
    let left = stream.until("the pause", |m| m.svids.len() == 1).await;
    println!("an owner left, which was seen in {:?}", avouch::clock::now().mono.since(begun));
    assert!(left.svids[0].spiffe_id.ends_with("/kept"), "it goes on without a break");

    let shown = good(server, &["identity", "show", "alone"]).await;
    assert_eq!((&shown["standing"], &shown["cause"]), (&"paused".into(), &"owner_left".into()));
    assert_eq!((&shown["stop_tried"]["nodes"], &shown["stop_tried"]["confirmed"]), (&1.into(), &1.into()));
    let resumed = avouch(server, &["resume", "alone"]).await;
    assert!(resumed.code != 0 && resumed.err.contains("identity set --owner"), "{resumed:?}");
    let stranger = as_user(server, OLGA, &["pause", "kept"]).await;
    assert_eq!(stranger.code, 2, "who has left is nobody here: {stranger:?}");
    assert_eq!(as_user(server, BEN, &["identity", "confirm", "kept"]).await.code, 0);
    good(server, &["audit", "verify"]).await;
}

#[tokio::test]
async fn the_socket_for_people_serves_nothing_else() {
    let server = Server::start().await;
    let channel = avouch::verbs::channel::connect(&server.people).await.unwrap();
    let mut entries = avouch_proto::entry_v1::entry_client::EntryClient::new(channel);
    let refused =
        entries.list_entries(avouch_proto::entry_v1::ListEntriesRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
}

#[tokio::test]
async fn what_runs_without_an_owner_is_found_and_adopted_without_a_break() {
    let world = World::start().await;
    first_person(&world.server).await;
    let before = world.grant("/billing/web").await;
    let mut stream = world.agent.workload().await.x509().await.unwrap();
    stream.next().await.unwrap();
    let lacking = avouch(&world.server, &["verify", "--require", "owner,end", "--json"]).await;
    assert_eq!((lacking.code, &json(&lacking)["lacking"][0]["lacks"]), (3, &"no owner".into()));
    let found = good(&world.server, &["found"]).await;
    assert_eq!(found[0]["spiffe_id"], "spiffe://example.org/billing/web");
    assert!(found[0]["reason"].as_str().unwrap().starts_with("it runs as user"), "{found}");

    let adopt = [
        "adopt",
        "--path",
        "/billing/",
        "--kind",
        "service",
        "--env",
        "prod",
        "--purpose",
        "billing",
        "--ends",
        "365d",
    ];
    let shown = good(&world.server, &adopt).await;
    assert_eq!(
        (&shown["dry_run"], good(&world.server, &["identity", "list"]).await),
        (&true.into(), Value::Array(vec![]))
    );
    let applied: Vec<_> = adopt.iter().copied().chain(["--apply"]).collect();
    let adopted = good(&world.server, &applied).await;
    assert_eq!(adopted["adopted"], shown["adopted"], "what was shown is what is done");
    let request = avouch_proto::entry_v1::GetEntryRequest { id: before.id.clone(), output_mask: None };
    assert_eq!(world.server.entries().await.get_entry(request).await.unwrap().into_inner(), before);
    assert_eq!(world.agent.workload().await.fetch_x509().await.unwrap().svids.len(), 1);
    good(&world.server, &["verify", "--require", "owner,end"]).await;
    assert_eq!(good(&world.server, &["found"]).await, Value::Array(vec![]));
}

#[tokio::test]
async fn the_log_is_exported_verified_offline_and_a_flipped_byte_is_found() {
    let world = World::start().await;
    let ada = first_person(&world.server).await;
    good(&world.server, CODER).await;
    good(&world.server, &["pause", "coder"]).await;
    // The newest record is signed a moment after it is written.
    let verified = eventually("a head over everything", async || {
        let verified = good(&world.server, &["audit", "verify"]).await;
        let node = verified["nodes"].as_array().is_some_and(|nodes| !nodes.is_empty());
        (node && verified["signed_to"] == verified["last"]).then_some(verified)
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (folder.path().join("log.jsonl"), folder.path().join("key.pem"));
    let exported = avouch(&world.server, &["audit", "export"]).await;
    std::fs::write(&file, &exported.out).unwrap();
    std::fs::write(&key, avouch(&world.server, &["audit", "key"]).await.out).unwrap();
    let offline = async || {
        let (file, key) = (file.to_str().unwrap(), key.to_str().unwrap());
        cli::run("avouch", ["audit", "verify", "--offline", file, "--key", key, "--json"]).await
    };
    assert_eq!(json(&offline().await), verified);
    let paused = exported.out.lines().find(|line| line.contains("\"identity_paused\"")).unwrap();
    assert!(
        paused.contains(&format!("\"actor\":\"{ada}\"")) && paused.contains("\"cause\":\"person\""),
        "{paused}"
    );
    assert!(!exported.out.contains("Ada Example"), "the log names people by their opaque ID");

    std::fs::write(&file, exported.out.replace("\"cause\":\"person\"", "\"cause\":\"persom\"")).unwrap();
    let broken = offline().await;
    assert_eq!(broken.code, 3, "{broken:?}");
    assert!(broken.err.contains("the log does not hold: "), "{broken:?}");
}

#[tokio::test]
async fn a_wrong_word_is_answered_with_the_right_ones() {
    let server = Server::start().await;
    first_person(&server).await;
    let wrong =
        ["identity", "new", "x", "--kind", "robot", "--env", "test", "--purpose", "p", "--ends", "1d"];
    let said = avouch(&server, &wrong).await;
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains("\"robot\" is no kind, expected service, machine"), "{said:?}");
    let unknown = avouch(&server, &["pause", "nobody"]).await;
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.err.contains("no identity has the name \"nobody\": `avouch identity list` shows all"),
        "{unknown:?}"
    );
    let nowhere = cli::run("avouch", ["found", "--server-socket", "/nonexistent/api.sock"]).await;
    assert_eq!(nowhere.code, 4, "{nowhere:?}");
}

#[tokio::test]
async fn whoever_the_list_names_no_more_leaves_at_once_and_half_a_list_lets_nobody_leave() {
    let place = tempfile::tempdir().unwrap();
    let list = place.path().join("people");
    let write = |text: String| {
        let new = place.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &list).unwrap();
    };
    let me = nix::unistd::geteuid().as_raw();
    write(format!("{me} # who owns the data\n{BEN}\nend\n"));
    let more = format!("people_file = \"{}\"", list.display());
    let server = Server::start_with(ServerOptions { server: more, ..ServerOptions::default() }).await;
    first_person(&server).await;
    good(&server, &["person", "add", "Ben Example", "--uid", &BEN.to_string()]).await;
    good(&server, CODER).await;
    good(&server, &["identity", "set", "coder", "--owner", "Ben Example"]).await;
    write(format!("{me}\n"));
    server.daemon().line("The file of people is not believed").await;
    let states = async || {
        let people = good(&server, &["person", "list"]).await["people"].clone();
        let states: Vec<_> = people.as_array().unwrap().iter().map(|p| p["state"].clone()).collect();
        states
    };
    assert!(states().await.iter().all(|state| state == "active"), "half a list");
    write(format!("{me}\nend\n"));
    server.daemon().line("A person who is not in the file of people has left").await;
    assert!(states().await.iter().any(|state| state == "left"));
    let shown = good(&server, &["identity", "show", "coder"]).await;
    assert_eq!((&shown["standing"], &shown["cause"]), (&"paused".into(), &"owner_left".into()));
    let log = avouch(&server, &["audit", "export", "--source", "server"]).await.out;
    let left = log.lines().find(|line| line.contains("\"person_left\"")).unwrap();
    assert!(left.contains("\"actor\":\"people_file\""), "{left}");
    write("4099\nend\n".to_owned());
    server.daemon().line("it names no security person who is there").await;
    assert!(states().await.iter().any(|state| state == "active"), "the list of others");
}
