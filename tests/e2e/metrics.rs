//! The pages for scrapers: what `docs/METRICS.md` lists is there after a short life of both daemons, with its labels,
//! and nothing else is.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;

use avouch_proto::agent_debug_v1::GetInfoRequest;
use avouch_proto::agent_debug_v1::debug_client::DebugClient;
use avouch_proto::agent_logger_v1::GetLoggerRequest;
use avouch_proto::agent_logger_v1::logger_client::LoggerClient;
use avouch_proto::agent_v1::DeleteAgentRequest;
use avouch_proto::bundle_v1::{BatchDeleteFederatedBundleRequest, BatchSetFederatedBundleRequest};
use avouch_proto::governance_v1::governance_client::GovernanceClient;
use avouch_proto::governance_v1::{
    AcceptFindingRequest, GiveGrantRequest, InitRequest, ListRecordsRequest, PublishRulesRequest,
    RegisterIdentityRequest,
};
use avouch_proto::localauthority_v1::{
    RevokeJwtAuthorityRequest, RevokeX509AuthorityRequest, TaintJwtAuthorityRequest,
    TaintX509AuthorityRequest,
};
use avouch_proto::rules_v1;
use avouch_tests::http::{get, telemetry};
use avouch_tests::node_pki::NodePki;
use avouch_tests::server::{free_port, wire_id};
use avouch_tests::world::my_uid;
use avouch_tests::{Agent, AgentOptions, Proof, Server, ServerOptions, entry, eventually, uds};

/// What a short life does not bring forth, and where else it is proven.
const SELDOM: [&str; 12] = [
    // Hours or days must pass: unit tests with a clock of their own.
    "spire_server_ca_manager_bundle_prune",
    "spire_server_datastore_bundle_prune",
    "spire_server_ca_manager_bundle_pruned",
    "spire_server_node_manager_prune",
    "spire_server_datastore_node_prune",
    // Another server on the same store: the tests of the writer.
    "spire_server_datastore_change_list",
    // A caller that asks for too much: the tests of the streams.
    "spire_agent_workload_api_rate_limit_exceeded",
    // A server that does not push: the tests of the shell.
    "spire_agent_manager_sync_fetch_entries_updates",
    // A call that takes a person's yes: the tests of requests.
    "spire_server_datastore_request_set",
    "spire_server_datastore_request_text_fetch",
    // What takes two people: the tests of emergencies.
    "spire_server_datastore_emergency_set",
    // Attestation in place of renewal: the tests of nodes that can.
    "spire_agent_node_attest",
];

struct Listed {
    kind: String,
    labels: BTreeSet<String>,
}

fn docs() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/METRICS.md")).unwrap()
}

/// The words between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The part of the page for one daemon: its series by name, and its methods.
fn listed(daemon: &str) -> (BTreeMap<String, Listed>, Vec<String>) {
    let docs = docs();
    let (begin, end) = (format!("<!-- {daemon}: begin -->"), format!("<!-- {daemon}: end -->"));
    let part = docs.split_once(&begin).unwrap().1.split_once(&end).unwrap().0;
    let (table, methods) = part.split_once("METHOD is one of").unwrap();
    let series = table.lines().filter(|l| l.starts_with("| `")).map(|line| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let labels = quoted(cells[3]).map(str::to_owned).collect();
        (cells[1].trim_matches('`').to_owned(), Listed { kind: cells[2].to_owned(), labels })
    });
    (series.collect(), quoted(methods).map(str::to_owned).collect())
}

/// Series by name, each with the label names that it was seen with, and the kinds that the page says.
#[derive(Default)]
struct Seen {
    labels: BTreeMap<String, BTreeSet<BTreeSet<String>>>,
    kinds: BTreeMap<String, String>,
}

impl Seen {
    async fn scrape(&mut self, port: u16) -> String {
        let (status, page) = get(port, "/metrics").await.unwrap();
        assert_eq!(status, 200);
        for line in page.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                self.kinds.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (name, rest) = line.split_once('{').unwrap();
                let labels = rest.split_once('}').unwrap().0;
                let labels = labels.split(',').map(|l| l.split_once('=').unwrap().0.to_owned()).collect();
                self.labels.entry(name.to_owned()).or_default().insert(labels);
            }
        }
        page
    }

    /// Asserts that a series is there with exactly these labels.
    fn assert_has(&self, name: &str, kind: &str, labels: &BTreeSet<String>) {
        assert_eq!(self.kinds.get(name).map(String::as_str), Some(kind), "{name}");
        let line = if kind == "summary" { format!("{name}_count") } else { name.to_owned() };
        assert_eq!(self.labels[&line], [labels.clone()].into(), "{name}");
    }

    fn assert_has_all_of(&self, daemon: &str) {
        let (listed, methods) = listed(daemon);
        let mut known = BTreeSet::new();
        for (name, Listed { kind, labels }) in &listed {
            let mut labels = labels.clone();
            labels.insert("host".to_owned());
            if let Some(start) = name.strip_suffix("METHOD") {
                known.extend(methods.iter().map(|method| format!("{start}{method}")));
                continue;
            }
            known.insert(name.clone());
            if SELDOM.contains(&name.as_str()) {
                continue;
            }
            if kind == "call" {
                self.assert_has(name, "counter", &labels);
                self.assert_has(&format!("{name}_elapsed_time"), "summary", &labels);
            } else {
                self.assert_has(name, kind, &labels);
            }
        }
        let unlisted = self.kinds.keys().find(|name| {
            let base = name.strip_suffix("_elapsed_time").unwrap_or(name);
            !known.contains(*name) && !known.contains(base)
        });
        assert_eq!(unlisted, None, "docs/METRICS.md does not list it");
    }
}

fn add(config: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().append(true).open(config).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

async fn agent(server: &Server, name: &str, proof: &Proof) -> (Agent, u16) {
    let port = free_port();
    let mut agent = Agent::prepare(server, name, proof, &AgentOptions::default()).await;
    add(&agent.config, &telemetry(port));
    agent.restart().await;
    (agent, port)
}

/// A workload's life with one agent: it fetches everything, its entry changes, its SVID is renewed, the entry goes.
async fn live(server: &Server, agent: &Agent, parent: &str) {
    let mut web = entry(parent, "/web", &[&my_uid()]);
    web.x509_svid_ttl = 4;
    let mut web = server.create(web).await;
    let mut workload = agent.workload().await;
    let mut stream = workload.x509().await.unwrap();
    stream.until("the first SVID", |m| m.svids.len() == 1).await;
    workload.jwt(&["audience"], "").await.unwrap();
    web.dns_names = vec!["web.example.org".to_owned()];
    let web = server.update(web).await;
    for what in ["an SVID of the changed entry", "a renewed one", "another"] {
        stream.until(what, |m| m.svids.len() == 1).await;
    }
    let long = server.create(entry(parent, "/long", &[&my_uid()])).await;
    stream.until("an SVID that is not renewed for long", |m| m.svids.len() == 2).await;
    workload.jwt(&["audience"], "").await.unwrap();
    withdraw(server).await;
    server.delete(&web.id).await;
    server.delete(&long.id).await;
    stream.end().await;
    let admin = uds(&agent.admin_socket).await.unwrap();
    DebugClient::new(admin.clone()).get_info(GetInfoRequest {}).await.unwrap();
    LoggerClient::new(admin).get_logger(GetLoggerRequest {}).await.unwrap();
}

/// The authorities that signed so far are replaced, tainted and revoked.
async fn withdraw(server: &Server) {
    let mut authorities = server.authorities().await;
    let ((x509, _), (jwt, _)) = (server.rotate_x509().await, server.rotate_jwt().await);
    let taint = TaintX509AuthorityRequest { authority_id: x509.clone() };
    authorities.taint_x509_authority(taint).await.unwrap();
    authorities.taint_jwt_authority(TaintJwtAuthorityRequest { authority_id: jwt.clone() }).await.unwrap();
    let revoke = RevokeX509AuthorityRequest { authority_id: x509 };
    authorities.revoke_x509_authority(revoke).await.unwrap();
    authorities.revoke_jwt_authority(RevokeJwtAuthorityRequest { authority_id: jwt }).await.unwrap();
}

/// A bundle of another trust domain comes and goes.
async fn federate(server: &Server) {
    let mut foreign = server.bundle().await;
    foreign.trust_domain = "other.org".to_owned();
    let mut bundles = server.bundles().await;
    let set = BatchSetFederatedBundleRequest { bundle: vec![foreign], output_mask: None };
    bundles.batch_set_federated_bundle(set).await.unwrap();
    let delete = BatchDeleteFederatedBundleRequest { trust_domains: vec!["other.org".to_owned()], mode: 0 };
    bundles.batch_delete_federated_bundle(delete).await.unwrap();
}

/// A person registers an identity, publishes rules and reads the log.
async fn govern(server: &Server) {
    let mut client = GovernanceClient::new(server.channel().await);
    client.init(InitRequest { name: "Ada Example".into() }).await.unwrap();
    let request = RegisterIdentityRequest {
        name: "coder".into(),
        kind: "service".into(),
        environment: "test".into(),
        purpose: "tests".into(),
        ends_at: soon() + 3_600,
        ..Default::default()
    };
    client.register_identity(request).await.unwrap();
    let file = |(name, text): (&str, &str)| rules_v1::File { name: name.into(), text: text.into() };
    let files = avouch_rules::STARTER.into_iter().map(file).collect();
    let published = client.publish_rules(PublishRulesRequest { files, note: String::new() }).await.unwrap();
    assert_eq!(published.into_inner().findings, []);
    let (name, resource) = ("coder".to_owned(), "telemetry/requests".to_owned());
    let give = GiveGrantRequest { name, resource, uses: 1, seconds: 60, ..Default::default() };
    eventually("the rules in force", async || client.clone().give_grant(give.clone()).await.ok()).await;
    let (name, what, why) = ("coder".to_owned(), "stop".to_owned(), "it is new".to_owned());
    client.accept_finding(AcceptFindingRequest { name, what, until: soon() + 3_600, why }).await.unwrap();
    client.list_records(ListRecordsRequest::default()).await.unwrap();
}

/// The second after next, in seconds since 1970.
#[allow(clippy::disallowed_methods)] // the server judges by the real time
fn soon() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap() + 2
}

#[tokio::test]
async fn a_short_life_of_both_daemons_brings_forth_every_series_that_the_docs_list() {
    let port = free_port();
    let options = ServerOptions { server: "agent_ttl = \"6s\"".into(), ..ServerOptions::default() };
    let mut server = Server::prepare(&options);
    add(&server.config, &telemetry(port));
    server.restart().await;
    let (mut of_server, mut of_agent) = (Seen::default(), Seen::default());

    let token = server.token().await;
    let (mut agent, page) = agent(&server, "a", &Proof::JoinToken(token)).await;
    let id = agent.id.clone();
    live(&server, &agent, &id).await;
    let mut short = entry(&id, "/short", &["unix:uid:1"]);
    short.expires_at = soon();
    server.create(short).await;
    federate(&server).await;
    govern(&server).await;
    eventually("a renewed agent with rules", async || {
        let text = of_agent.scrape(page).await;
        let wanted = ["spire_agent_agent_svid_rotate", "_expiring_svids", "spire_agent_rules_fetch{"];
        wanted.iter().all(|name| text.contains(name)).then_some(())
    })
    .await;
    // What is read from the disk shows only after a restart.
    assert!(agent.stop().await.success());
    agent.restart().await;
    of_agent.scrape(page).await;
    of_agent.assert_has_all_of("agent");

    server.agents().await.delete_agent(DeleteAgentRequest { id: Some(wire_id(&id)) }).await.unwrap();
    eventually("a look at the store and a pruned entry", async || {
        let text = of_server.scrape(port).await;
        let wanted = ["datastore_position_fetch", "registration_entry_manager_prune"];
        wanted.iter().all(|name| text.contains(name)).then_some(())
    })
    .await;
    server.stop().await;
    server.restart().await;
    of_server.scrape(port).await;
    of_server.assert_has_all_of("server");
    for method in ["rpc_agent_v1_agent_attest_agent", "rateLimit_rpc_svid_v1_svid_batch_new_x509svid"] {
        assert!(of_server.kinds.contains_key(&format!("spire_server_{method}")), "{method}");
    }
    assert!(of_agent.kinds.contains_key("spire_agent_rpc_workload_api_fetch_x509svid"));
}

#[tokio::test]
async fn a_node_that_is_attested_again_is_counted_as_such() {
    let dir = avouch_tests::server::private_dir();
    let pki = NodePki::new(dir.path());
    let server = Server::start_with(ServerOptions {
        server: "agent_ttl = \"6s\"".into(),
        plugins: pki.plugin(),
        ..ServerOptions::default()
    })
    .await;
    let (_agent, page) = agent(&server, "p", &pki.proof()).await;
    let text = eventually("another attestation", async || {
        let text = get(page, "/metrics").await?.1;
        text.contains("\nspire_agent_node_attest{").then_some(text)
    })
    .await;
    let new = text.lines().find(|l| l.starts_with("spire_agent_node_attestor_new_svid{")).unwrap();
    assert!(new.contains("attestor=\"x509pop\"") && new.contains("status=\"OK\""), "{new}");
}

#[test]
fn every_name_that_spire_documents_is_listed_or_has_its_reason() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/spire_metrics.txt");
    let golden = std::fs::read_to_string(golden).unwrap();
    let docs = docs();
    let names: BTreeSet<_> = quoted(&docs).collect();
    let covered = |daemon: &str, name: &str| {
        names.contains(format!("spire_{daemon}_{name}").as_str())
            || names.contains(name)
            || names.iter().filter_map(|n| n.split_once('*')).any(|(before, after)| {
                name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
            })
    };
    for line in golden.lines().filter(|line| !line.starts_with('#')) {
        let (daemon, name) = line.split_once(' ').unwrap();
        assert!(covered(daemon, name), "docs/METRICS.md says nothing of {name} of the {daemon}");
    }
}
