//! The records of nodes: from the agent's disk to the server's log, over kills, restarts and a server that is away, and
//! verified by the real command line.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use avouch_credential::ledger::{ChainReader, read_node_line};
use avouch_domain::{ChainId, NodeChain, SpiffeId};
use avouch_tests::cli::{self, Said};
use avouch_tests::daemon::{Daemon, binary};
use avouch_tests::{Agent, Server, World, eventually};
use serde_json::Value;

/// `avouch` as this test's user, on the admin socket.
async fn avouch(server: &Server, args: &[&str]) -> Said {
    let socket = ["--server-socket", server.socket.to_str().unwrap()];
    cli::run("avouch", args.iter().copied().chain(socket)).await
}

async fn first_person(server: &Server) {
    let said = avouch(server, &["init", "Ada Example"]).await;
    assert_eq!(said.code, 0, "{said:?}");
}

/// The log of server and nodes, verified, once the one node has this many records and everything is signed.
async fn verified(server: &Server, records: u64) -> Value {
    eventually("the records of the node", async || {
        let said = avouch(server, &["audit", "verify", "--json"]).await;
        assert_eq!(said.code, 0, "{said:?}");
        let log: Value = serde_json::from_str(&said.out).unwrap();
        let enough = log["nodes"][0]["last"].as_u64().is_some_and(|last| last >= records);
        (enough && log["signed_to"] == log["last"]).then_some(log)
    })
    .await
}

/// Waits until the agent has recorded that it began so many lives: one that is killed sooner has recorded nothing.
async fn began(agent: &Agent, lives: usize) {
    let file = agent.data_dir.join("records/00000000000000000001.jsonl");
    eventually("the first record of a life", async || {
        let text = std::fs::read_to_string(&file).ok()?;
        (text.matches("\"event\":\"agent.start\"").count() >= lives).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_nodes_records_hold_over_restarts_of_agent_and_server() {
    let World { mut agent, mut server } = World::start().await;
    first_person(&server).await;
    let log = verified(&server, 1).await;
    assert_eq!(log["nodes"][0]["source"], agent.id.as_str());
    assert!(agent.stop().await.success());
    agent.restart().await;
    verified(&server, 2).await;
    assert!(server.stop().await.success());
    server.restart().await;
    agent.daemon().kill().await;
    agent.restart().await;
    let log = verified(&server, 3).await;
    let nodes = log["nodes"].as_array().unwrap();
    assert_eq!((nodes.len(), &nodes[0]["first"]), (1, &1.into()), "one chain from the first life on: {log}");
    let exported = avouch(&server, &["audit", "export", "--source", &agent.id]).await;
    assert_eq!(exported.out.matches("\"event\":\"agent.start\"").count(), 3, "{exported:?}");
    let told = avouch(&server, &["audit", "export", "--source", "server"]).await;
    assert_eq!(told.out.matches("\"event\":\"node_chain_began\"").count(), 1, "{told:?}");
    assert!(!told.out.contains("node_gap") && !told.out.contains("agent.start"), "{told:?}");
}

#[tokio::test]
async fn what_was_recorded_while_the_server_was_away_comes_when_it_is_back() {
    let World { mut agent, mut server } = World::start().await;
    first_person(&server).await;
    verified(&server, 1).await;
    assert!(server.stop().await.success());
    for life in 2..5 {
        agent.daemon().kill().await;
        agent.restart().await;
        began(&agent, life).await;
    }
    server.restart().await;
    let log = verified(&server, 4).await;
    assert_eq!(log["nodes"].as_array().unwrap().len(), 1, "{log}");
    let told = avouch(&server, &["audit", "export", "--source", "server"]).await;
    assert!(!told.out.contains("node_gap") && !told.out.contains("node_conflict"), "{told:?}");
}

#[tokio::test]
async fn a_byte_flipped_in_the_store_is_named_with_its_node_and_record() {
    let World { mut agent, mut server } = World::start().await;
    first_person(&server).await;
    verified(&server, 1).await;
    assert!(agent.stop().await.success());
    agent.restart().await;
    verified(&server, 2).await;
    assert!(server.stop().await.success());
    let path = server.data_dir().join("datastore.sqlite3");
    let mut bytes = std::fs::read(&path).unwrap();
    let line = b"\"seq\":1,\"prev\":\"0000000000000000000000000000000000000000000000000000000000000000\"";
    let places: Vec<usize> =
        (0..bytes.len() - line.len()).filter(|at| bytes[*at..].starts_with(line)).collect();
    let (before, event) = (b"{\"v\":2,\"source\"", b"\"event\":\"agent.start\"");
    let of_node =
        |at: &&usize| bytes[at.saturating_sub(300)..**at].windows(before.len()).any(|w| w == before);
    let at = *places.iter().find(of_node).expect("the first record of the node");
    let event = (at..at + 400).find(|n| bytes[*n..].starts_with(event)).expect("its event");
    bytes[event + 11] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    server.restart().await;
    let broken = avouch(&server, &["audit", "verify"]).await;
    assert_eq!(broken.code, 3, "{broken:?}");
    assert!(broken.err.contains(&agent.id) && broken.err.contains("of record 1 "), "{broken:?}");
    let exported = avouch(&server, &["audit", "export"]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log.jsonl");
    std::fs::write(&file, &exported.out).unwrap();
    let offline = cli::run("avouch", ["audit", "verify", "--offline", file.to_str().unwrap()]).await;
    assert_eq!((offline.code, offline.err), (3, broken.err));
}

#[tokio::test]
async fn an_agent_that_is_killed_again_and_again_loses_no_number() {
    let World { mut agent, server } = World::start().await;
    first_person(&server).await;
    for life in 1..9 {
        began(&agent, life).await;
        agent.daemon().kill().await;
        agent.restart().await;
    }
    let log = verified(&server, 9).await;
    let nodes = log["nodes"].as_array().unwrap();
    assert_eq!((nodes.len(), &nodes[0]["records"]), (1, &9.into()), "{log}");
}

#[tokio::test]
async fn records_of_nobody_are_answered_with_what_to_say() {
    let server = Server::start().await;
    first_person(&server).await;
    let wrong = avouch(&server, &["audit", "export", "--source", "nodes"]).await;
    assert_eq!(wrong.code, 64, "{wrong:?}");
    assert!(wrong.err.contains("expected all, server or the SPIFFE ID of an agent"), "{wrong:?}");
    let none = avouch(&server, &["audit", "export", "--source", "spiffe://example.org/spire/agent/x"]).await;
    assert_eq!(none.code, 1, "{none:?}");
    assert!(none.err.contains("has no records of"), "{none:?}");
}

const SOURCE: &str = "spiffe://example.org/spire/agent/x509pop/a";

/// Checks all files of a folder as one chain from its first record; gives the numbers of the decisions by caller.
fn chain_in(folder: &Path) -> (u64, BTreeSet<(u64, String)>) {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(files.iter().all(|path| !name(path).starts_with("aside-")), "{files:?}");
    let mut reader: Option<ChainReader> = None;
    let mut decisions = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        for line in text.split_inclusive('\n') {
            // A kill may have left half of the last one.
            let Some(line) = line.strip_suffix('\n') else { continue };
            let record = read_node_line(line).unwrap();
            let chain = || NodeChain {
                source: SpiffeId::parse(&record.source).unwrap(),
                id: ChainId::from_text(&record.chain).unwrap(),
            };
            reader.get_or_insert_with(|| ChainReader::from(chain(), 1)).line(line).unwrap();
            if record.event == "decision" {
                decisions.insert((record.seq, record.subject.to_string()));
            }
        }
    }
    (reader.map_or(0, |reader| reader.next() - 1), decisions)
}

#[tokio::test]
async fn what_a_killed_process_was_told_to_be_on_disk_is_in_the_verified_chain() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = BTreeSet::new();
    let mut last = 0;
    for life in 1..=20 {
        let mut command = Command::new(binary("avouch-recorder"));
        let recorder = Daemon::spawn("recorder", command.arg(folder.path()).arg(SOURCE));
        // It is killed wherever it is once it has said a little more than nothing.
        eventually("some records", async || {
            assert!(recorder.status().is_none(), "it ended: {}", recorder.log());
            (recorder.log().matches("synced ").count() >= 5 * life).then_some(())
        })
        .await;
        recorder.kill().await;
        for line in recorder.log().lines() {
            let mut words = line.split(' ').skip(1);
            let (seq, caller) =
                (words.next().unwrap().parse::<u64>().unwrap(), words.next().unwrap().to_owned());
            told.insert((seq, format!("caller-{caller}")));
        }
        let (records, decisions) = chain_in(&folder.path().join("records"));
        assert!(
            told.is_subset(&decisions),
            "life {life}: {:?}",
            told.difference(&decisions).collect::<Vec<_>>()
        );
        assert!(records > last, "life {life}");
        last = records;
    }
    println!("killed 20 times: {} records that callers waited for among {last}", told.len());
}

#[tokio::test]
async fn what_is_handed_out_is_recorded_once_a_day_and_tells_the_day_of_its_use() {
    let world = World::start().await;
    first_person(&world.server).await;
    world.grant("/billing").await;
    let adopt =
        "adopt --path /billing --kind service --env test --purpose billing --ends 30d --apply --owner";
    let adopt: Vec<_> = adopt.split(' ').chain(["Ada Example"]).collect();
    let adopt = avouch(&world.server, &adopt).await;
    assert_eq!(adopt.code, 0, "{adopt:?}");
    let shown = avouch(&world.server, &["identity", "show", "billing"]).await;
    assert!(shown.out.contains("no node has told of a use"), "{shown:?}");
    for _ in 0..3 {
        eventually("the identity", async || {
            let answer = world.agent.workload().await.fetch_x509().await.ok()?;
            (answer.svids.len() == 1).then_some(())
        })
        .await;
    }
    eventually("the day of its use", async || {
        let shown = avouch(&world.server, &["identity", "show", "billing", "--json"]).await;
        serde_json::from_str::<Value>(&shown.out).unwrap()["last_used"].as_str().map(drop)
    })
    .await;
    let log = avouch(&world.server, &["audit", "export", "--source", &world.agent.id]).await.out;
    let given: Vec<_> = log.lines().filter(|line| line.contains("\"identity.used\"")).collect();
    // Or midnight lay in between.
    assert!(given.len() <= 2 && given[0].contains("spiffe://example.org/billing"), "{given:?}");
}
