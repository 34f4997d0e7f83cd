//! Published rules: from a folder on a person's disk to what every node decides by, with real daemons.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use avouch_tests::cli::Said;
use avouch_tests::http::{get, telemetry};
use avouch_tests::server::free_port;
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, Server, entry, eventually, within};
use serde_json::Value;

use super::governed::{BEN, as_user, avouch, can_be_others, first_person, good, json};

/// Everything that is connected holds new rules, and every stop arrives, within this.
const SOON: Duration = Duration::from_secs(1);

#[allow(clippy::disallowed_methods)] // real time is measured
fn clock() -> Instant {
    Instant::now()
}

/// An agent and the port of its page for scrapers.
async fn agent(server: &Server, name: &str) -> (Agent, u16) {
    let (port, token) = (free_port(), server.token().await);
    let mut agent = Agent::prepare(server, name, &Proof::JoinToken(token), &AgentOptions::default()).await;
    let mut file = std::fs::OpenOptions::new().append(true).open(&agent.config).unwrap();
    file.write_all(telemetry(port).as_bytes()).unwrap();
    agent.restart().await;
    (agent, port)
}

/// The number of the rules that an agent decides by.
async fn number(port: u16) -> Option<u64> {
    let (_, page) = get(port, "/metrics").await?;
    let line = page.lines().find(|line| line.starts_with("spire_agent_rules_number{"))?;
    line.rsplit(' ').next()?.parse().ok()
}

async fn holds(port: u16, wanted: u64) {
    eventually(&format!("rules {wanted}"), async || (number(port).await == Some(wanted)).then_some(())).await;
}

/// A folder that passes the check, in a folder that is gone with the value.
async fn folder() -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("rules");
    let said = avouch_tests::cli::run("avouch", ["rules", "new", folder.to_str().unwrap()]).await;
    assert_eq!(said.code, 0, "{said:?}");
    (place, folder)
}

fn change(folder: &Path, text: &str) {
    let file = std::fs::OpenOptions::new().append(true).open(folder.join("rules.cedar"));
    writeln!(file.unwrap(), "// {text}").unwrap();
}

/// Fills a folder up to what may be published.
fn fill(folder: &Path) {
    let line = format!("// {}\n", "x".repeat(96));
    let text = line.repeat(650);
    for n in 0..16 {
        std::fs::write(folder.join(format!("filler-{n:02}.cedar")), &text).unwrap();
    }
}

async fn publish(server: &Server, folder: &Path) -> Value {
    good(server, &["rules", "publish", folder.to_str().unwrap()]).await
}

#[tokio::test]
async fn what_is_published_is_held_by_every_agent_within_a_second_and_comes_back_as_it_was() {
    let server = Server::start().await;
    let (_one, first) = agent(&server, "a").await;
    let (_two, second) = agent(&server, "b").await;
    first_person(&server).await;
    assert_eq!((number(first).await, number(second).await), (Some(0), Some(0)));
    let (place, folder) = folder().await;
    for expected in [1, 2] {
        let published = publish(&server, &folder).await;
        let begun = clock();
        assert_eq!((&published["number"], &published["standing"]), (&expected.into(), &"in_force".into()));
        tokio::join!(holds(first, expected), holds(second, expected));
        let took = begun.elapsed();
        println!("rules {expected} held by two agents {took:?} after the answer");
        assert!(took < SOON, "{took:?}");
        change(&folder, "changed");
    }
    let copy = place.path().join("copy");
    good(&server, &["rules", "show", "1", "--out", copy.to_str().unwrap()]).await;
    let same =
        avouch_tests::cli::run("avouch", ["rules", "check", copy.to_str().unwrap(), "-o", "json"]).await;
    let shown = good(&server, &["rules", "show", "1"]).await;
    assert_eq!(json(&same)["digest"], shown["digest"]);
    let back = good(&server, &["rules", "withdraw", "2"]).await;
    assert_eq!(
        (&back["number"], &back["digest"], &back["note"]),
        (&3.into(), &shown["digest"], &"as rules 1".into())
    );
    tokio::join!(holds(first, 3), holds(second, 3));
    let listed = good(&server, &["rules", "list"]).await;
    let standings: Vec<_> =
        listed.as_array().unwrap().iter().map(|r| r["standing"].as_str().unwrap()).collect();
    assert_eq!(standings, ["in_force", "past", "past"]);
}

#[tokio::test]
async fn a_folder_with_findings_is_answered_with_them_and_is_not_published() {
    let server = Server::start().await;
    let (_place, folder) = folder().await;
    let path = folder.to_str().unwrap();
    let nobody = avouch(&server, &["rules", "publish", path]).await;
    assert_eq!(nobody.code, 2, "only people publish: {nobody:?}");
    first_person(&server).await;
    std::fs::write(folder.join("more.cedar"), "\npermit (principal, action, resource);\n").unwrap();
    let found = avouch(&server, &["rules", "publish", path]).await;
    assert_eq!(found.code, 3, "{found:?}");
    assert!(
        found.out.contains("more.cedar:2: ") && found.out.contains("so nothing is published"),
        "{found:?}"
    );
    let local = avouch_tests::cli::run("avouch", ["rules", "check", path]).await;
    assert_eq!(local.out.lines().next(), found.out.lines().next(), "as the check at home says it");
    assert_eq!(good(&server, &["rules", "list"]).await, Value::Array(vec![]));
    let none = avouch(&server, &["rules", "show"]).await;
    assert_eq!(none.code, 1, "{none:?}");
    assert!(none.err.contains("no rules are in force: `avouch rules publish`"), "{none:?}");
}

#[tokio::test]
async fn with_two_security_people_rules_wait_for_the_other_ones_yes() {
    if !can_be_others() {
        return;
    }
    let server = Server::start().await;
    let (_agent, port) = agent(&server, "a").await;
    first_person(&server).await;
    good(&server, &["person", "add", "Ben Example", "--uid", &BEN.to_string(), "--security"]).await;
    let (_place, folder) = folder().await;
    let waits =
        avouch(&server, &["rules", "publish", folder.to_str().unwrap(), "--note", "first", "--json"]).await;
    assert_eq!((waits.code, &json(&waits)["standing"]), (5, &"proposed".into()), "{waits:?}");
    let own = avouch(&server, &["rules", "approve", "1"]).await;
    assert_eq!(own.code, 2, "{own:?}");
    assert!(own.err.contains("the yes is another security person's"), "{own:?}");
    assert_eq!(number(port).await, Some(0), "nothing is in force");
    let said: Said = as_user(&server, BEN, &["rules", "approve", "1"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    holds(port, 1).await;
    let listed = avouch(&server, &["rules", "list"]).await;
    let row = listed.out.lines().nth(1).unwrap().to_owned();
    for word in ["in_force", "Ada Example", "Ben Example", "first"] {
        assert!(row.contains(word), "{row}");
    }
}

#[tokio::test]
async fn an_agent_that_starts_without_its_server_decides_by_the_rules_it_held() {
    let mut server = Server::start().await;
    let (mut agent, port) = agent(&server, "a").await;
    first_person(&server).await;
    // An SVID, so that the restarted agent answers from its sealed state.
    server.create(entry(&agent.id, "/web", &[&my_uid()])).await;
    agent.workload().await.x509().await.unwrap().next().await.unwrap();
    let (_place, folder) = folder().await;
    publish(&server, &folder).await;
    holds(port, 1).await;
    let file = agent.data_dir.join("rules.json");
    eventually("kept rules", async || file.exists().then_some(())).await;
    assert!(agent.stop().await.success());
    server.stop().await;
    agent.restart().await;
    holds(port, 1).await;
    // A file that somebody changed is no rules.
    assert!(agent.stop().await.success());
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("max_rows", "max_raws")).unwrap();
    agent.restart().await;
    agent.daemon().line("Kept rules ignored").await;
    assert_eq!(number(port).await, Some(0));
    server.restart().await;
    holds(port, 1).await;
}

#[tokio::test]
async fn a_stop_arrives_while_rules_of_the_largest_size_are_being_delivered() {
    let server = Server::start().await;
    let (agent, port) = agent(&server, "a").await;
    first_person(&server).await;
    let coder = ["identity", "new", "coder", "--kind", "ai-agent", "--env", "test", "--purpose", "fix-bugs"];
    good(&server, &coder.iter().copied().chain(["--ends", "30d"]).collect::<Vec<_>>()).await;
    for path in ["/test/coder", "/other"] {
        server.create(entry(&agent.id, path, &[&my_uid()])).await;
    }
    let mut stream = agent.workload().await.x509().await.unwrap();
    stream.until("both SVIDs", |m| m.svids.len() == 2).await;
    let (_place, folder) = folder().await;
    fill(&folder);
    let published = publish(&server, &folder).await;
    assert_eq!(published["number"], 1);
    let begun = clock();
    good(&server, &["stop", "coder"]).await;
    within("the stop", stream.until("the stop", |m| m.svids.len() == 1)).await;
    let took = begun.elapsed();
    println!("stopped by the command line and seen in {took:?}, rules of a mebibyte under way");
    assert!(took < SOON, "{took:?}");
    holds(port, 1).await;
    let mut more = String::new();
    for _ in 0..900 {
        writeln!(more, "// {}", "y".repeat(68)).unwrap();
    }
    std::fs::write(folder.join("one-more.cedar"), more).unwrap();
    let large = avouch(&server, &["rules", "publish", folder.to_str().unwrap()]).await;
    assert_eq!(large.code, 64, "{large:?}");
    assert!(large.err.contains("expected at most 1048576"), "{large:?}");
}

#[tokio::test]
async fn a_server_that_starts_again_shows_the_same_rules_and_a_restored_one_shows_its_own() {
    let mut server = Server::start().await;
    let (_agent, port) = agent(&server, "a").await;
    first_person(&server).await;
    let (place, folder) = folder().await;
    publish(&server, &folder).await;
    holds(port, 1).await;
    let backup = place.path().join("backup.sqlite3");
    let config = server.config.clone();
    let verb = async |verb: &str| {
        let (config, file) = (config.to_str().unwrap(), backup.to_str().unwrap());
        let said = avouch_tests::cli::run("avouch-server", [verb, "-config", config, file]).await;
        assert_eq!(said.code, 0, "{verb}: {said:?}");
    };
    verb("backup").await;
    change(&folder, "later");
    publish(&server, &folder).await;
    holds(port, 2).await;
    server.stop().await;
    server.restart().await;
    change(&folder, "later still");
    publish(&server, &folder).await;
    holds(port, 3).await;
    server.stop().await;
    verb("restore").await;
    server.restart().await;
    // Another life of the store: its numbers count.
    holds(port, 1).await;
}
