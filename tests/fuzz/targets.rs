//! One function per parser of outside bytes. Each takes anything, and ends; what it has read must survive being written
//! and read again.
//!
//! Never looks at which bytes are refused: conformance does. A panic here is a finding.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use avouch::config::{duration, env, hcl};
use avouch::gate::hello::{Answer, Hello};
use avouch::gate::http::{limit, target};
use avouch::gate::mcp::{self, Effect, Proxy, Ticket};
use avouch::gate::{GateDefinition, Place, Tool, Verdict};
use avouch_agent::disk::StateFile;
use avouch_agent::metrics::Metrics;
use avouch_agent::records::{Parts, Records, Room};
use avouch_credential::bundle_doc;
use avouch_credential::jwt::task;
use avouch_credential::jwt::verify::{JwtKeys, peek, verify};
use avouch_credential::key::{PrivateKey, PublicKey};
use avouch_credential::ledger::{ChainReader, Log, read_line, read_node_line};
use avouch_credential::x509::csr::Csr;
use avouch_credential::x509::facts::{CertFacts, authority_id, check_authority, split};
use avouch_credential::x509::name::Name;
use avouch_credential::x509::pem;
use avouch_domain::{
    Bundle, ChainId, Issuer, NodeChain, Selector, SelectorSet, SpiffeId, Timestamp, TrustDomain,
};
use avouch_proto::convert;
use avouch_proto::{records_v1, requests_v1, types, watch_v1};
use avouch_rules::{Folder, Limits, ParamKind};
use avouch_server::keys::disk::DiskKeys;
use avouch_signin::{Document, Expected, KeySet};
use prost::Message as _;
use tempfile::TempDir;

/// A parser of outside bytes.
pub type Target = fn(&[u8]);

/// All of them, by the name of their corpus.
pub const TARGETS: [(&str, Target); 23] = [
    ("spiffe_id", spiffe_id),
    ("selector", selector),
    ("hcl", read_hcl),
    ("pem", read_pem),
    ("certificate", certificate),
    ("key", key),
    ("csr", csr),
    ("jwt", jwt),
    ("bundle_document", bundle_document),
    ("agent_state", agent_state),
    ("server_keys", server_keys),
    ("rules", rules),
    ("gate_hello", gate_hello),
    ("mcp_gate", mcp_gate),
    ("http_gate", http_gate),
    ("wire_entry", wire_entry),
    ("wire_bundle", wire_bundle),
    ("wire_node", wire_node),
    ("node_records", node_records),
    ("wire_shipment", wire_shipment),
    ("spool", spool),
    ("request", request),
    ("provider", provider),
];

fn domain() -> TrustDomain {
    TrustDomain::new("example.org").expect("a name")
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// SPIFFE IDs and trust domains, as callers, tokens and certificates bring them.
pub fn spiffe_id(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(id) = SpiffeId::parse(text) {
        assert_eq!(id.as_str(), text, "an ID is written as it was read");
        assert_eq!(SpiffeId::new(id.trust_domain(), id.path()).as_ref(), Ok(&id), "an ID is its two parts");
    }
    for domain in [TrustDomain::new(text), TrustDomain::from_name_or_id(text)].into_iter().flatten() {
        assert_eq!(TrustDomain::new(domain.as_str()).as_ref(), Ok(&domain));
        assert_eq!(TrustDomain::from_name_or_id(domain.id().as_str()).as_ref(), Ok(&domain));
    }
}

/// A rules folder: each file begins with a line `== NAME`. Its lines are read as limits as well.
pub fn rules(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    for limits in text.lines().filter_map(|line| Limits::parse(line).ok()) {
        assert_eq!(
            Limits::parse(&limits.to_string()).as_ref(),
            Ok(&limits),
            "limits are read as they are shown"
        );
    }
    let text = text.strip_prefix("== ").unwrap_or(text);
    let files = text.split("\n== ").filter_map(|file| file.split_once('\n'));
    let folder = Folder::new(files.map(|(name, text)| (name.to_owned(), text.to_owned())));
    if let Ok(folder) = folder
        && let Ok(rules) = avouch_rules::check(&folder)
    {
        assert_eq!(rules.digest(), folder.digest());
    }
}

/// The first lines between a shim and a host, one per line.
pub fn gate_hello(bytes: &[u8]) {
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(hello) = Hello::read(line) {
            assert_eq!(Hello::read(hello.line().trim_ascii_end()), Ok(hello));
        }
        if let Ok(answer) = Answer::read(line) {
            assert!(Answer::read(answer.line().trim_ascii_end()).is_ok());
        }
    }
}

/// What comes to an HTTP gate from both sides: a line with a path and a query, a line that says where the rows are, and an
/// answer.
pub fn http_gate(bytes: &[u8]) {
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let (raw, at, answer) = (next(), next(), next());
    if let Ok(read) = target::read(&String::from_utf8_lossy(raw)) {
        assert_eq!(target::read(&read.written()), Ok(read));
    }
    let rows = limit::Rows { most: Some(2), fields: Some(["a".to_owned()].into()) };
    for form in [limit::Form::Json, limit::Form::Lines] {
        if let Ok(left) = rows.left(form, &String::from_utf8_lossy(at), answer) {
            assert!(left.len() <= answer.len() + 2, "nothing is added but the end of a line");
            let again = rows.left(form, &String::from_utf8_lossy(at), left.as_bytes());
            assert_eq!(again, Ok(left), "what is left is within the limits");
        }
    }
}

/// A conversation through the MCP gate, one message per line: `c` from the AI agent, `s` from the tool server, `y` and `n`
/// are decisions.
pub fn mcp_gate(bytes: &[u8]) {
    let schema = serde_json::json!({ "type": "object" });
    let place = Place { pointer: "/path".to_owned(), kind: ParamKind::String };
    let tool =
        Tool { digest: mcp::digest("read", None, &schema), params: [("path".to_owned(), place)].into() };
    let gate = GateDefinition {
        name: "files".to_owned(),
        command: vec![],
        tools: [("read".to_owned(), tool)].into(),
    };
    let mut proxy = Proxy::new(Arc::new(gate));
    let (mut waits, mut lists, mut calls): (Vec<Ticket>, Vec<Ticket>, BTreeMap<Vec<u8>, i64>) =
        Default::default();
    let mut allowed = 0_i64;
    for line in bytes.split(|byte| *byte == b'\n') {
        let Some((side, line)) = line.split_first() else { continue };
        let effects = match side {
            b'c' => proxy.from_client(line),
            b's' => proxy.from_server(line),
            b'y' if !waits.is_empty() => {
                allowed += 1;
                proxy.decided(waits.remove(0), Verdict::Allow)
            }
            b'n' if !waits.is_empty() => {
                proxy.decided(waits.remove(0), Verdict::Ask { text: "wait".to_owned() })
            }
            b'y' | b'n' if !lists.is_empty() => proxy.may(lists.remove(0), &[*side == b'y']),
            _ => continue,
        };
        for effect in effects {
            match effect {
                Effect::ToClient(line) => assert!(!line.contains(&b'\n'), "one message is one line"),
                Effect::ToServer(line) => {
                    assert!(!line.contains(&b'\n') && !line.contains(&b'\r'), "one message is one line");
                    let message: serde_json::Value =
                        serde_json::from_slice(&line).expect("what goes on is JSON");
                    if message["method"] == "tools/call" {
                        *calls.entry(line).or_default() += 1;
                    }
                }
                Effect::Decide(ticket, _) => waits.push(ticket),
                Effect::May(ticket, _) => lists.push(ticket),
                Effect::Wait(_) | Effect::Note(_) | Effect::Did(_) => {}
            }
        }
    }
    assert!(calls.values().sum::<i64>() <= allowed, "a call goes on after an allow only");
    proxy.server_ended();
    assert!(proxy.idle(), "everybody who waits is told");
}

/// Selectors, one per line.
pub fn selector(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let read = |line: &str| line.parse().ok();
    let selectors: Vec<Selector> = text.lines().filter_map(read).collect();
    for selector in &selectors {
        assert_eq!(Selector::new(selector.kind(), selector.value()).as_ref(), Ok(selector));
        assert_eq!(selector.as_str(), format!("{}:{}", selector.kind(), selector.value()));
    }
    if let Ok(set) = SelectorSet::new(selectors.clone()) {
        assert!(set.is_subset_of(&set) && selectors.iter().all(|s| set.contains(s)));
        assert_eq!(SelectorSet::new(set.iter().cloned()).as_ref(), Ok(&set), "a set of a set is the same");
    }
}

/// Configuration files: HCL 1 and its JSON form, with variables and durations in them.
pub fn read_hcl(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let _ = env::expand(text, |name| (name.len() % 2 == 0).then(|| name.to_owned()));
    let _ = duration::parse_go(text);
    let Ok(document) = hcl::parse(text) else { return };
    let printed = hcl::print(&document.root);
    let again =
        hcl::parse(&printed).unwrap_or_else(|e| panic!("what is printed is not read: {e}\n{printed}"));
    // JSON's null, which HCL 1 lacks, has become an empty block: from then on nothing changes.
    assert_eq!(hcl::print(&again.root), printed, "what is printed is read as it was");
}

/// PEM files: bundles, chains and keys.
pub fn read_pem(bytes: &[u8]) {
    if let Ok(certificates) = pem::certificates(bytes) {
        let again = pem::certificates(pem::certificates_to_pem(&certificates).as_bytes());
        assert_eq!(again.ok(), Some(certificates));
    }
    if let Ok(key) = pem::private_key(bytes) {
        let again = pem::private_key(pem::encode_private_key(&key).as_bytes());
        assert_eq!(again.ok().as_deref(), Some(&*key));
    }
}

/// DER certificates, alone and one behind the other.
pub fn certificate(bytes: &[u8]) {
    let _ = Name::from_der(bytes).map(|name| assert_eq!(Name::from_der(name.der()).as_ref(), Ok(&name)));
    let parts = split(bytes);
    if let Ok(parts) = &parts {
        assert_eq!(parts.concat(), bytes, "nothing is lost in a concatenation");
    }
    if let Ok(facts) = CertFacts::parse(bytes) {
        assert_eq!(parts.map(|parts| parts.len()), Ok(1), "one certificate is a concatenation of one");
        assert!(
            facts.not_before.secs() <= i64::MAX / 1000
                && facts.serial_decimal.bytes().all(|b| b.is_ascii_digit())
        );
        let _ = (authority_id(bytes), check_authority(bytes));
        let _ = avouch_credential::x509::verify::svid_id(bytes);
    }
}

/// Private and public keys.
pub fn key(bytes: &[u8]) {
    if let Ok(key) = PrivateKey::from_pkcs8(bytes) {
        let again = PrivateKey::from_pkcs8(&key.pkcs8()).expect("a key that is written is read");
        assert_eq!(again.public_key().pkix(), key.public_key().pkix());
    }
    if let Ok(key) = PublicKey::from_pkix(bytes) {
        assert_eq!(key.pkix(), bytes, "a public key is written as it was read");
        let again = PublicKey::from_raw(key.algorithm(), key.raw()).expect("its own parts are a key");
        assert_eq!(again.ski(), key.ski());
    }
}

/// Requests for certificates, as agents and workloads send them.
pub fn csr(bytes: &[u8]) {
    let Ok(csr) = Csr::parse(bytes) else { return };
    let _ = (csr.verify(), csr.subject().text());
    assert!(PublicKey::from_pkix(csr.public_key().pkix()).is_ok());
    if let Ok(names) = csr.names() {
        assert_eq!(SpiffeId::parse(names.id.as_str()).as_ref(), Ok(&names.id));
    }
}

/// Tokens that callers bring.
pub fn jwt(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let audience = ["spiffe://example.org/api".to_owned()];
    let nobody = Bundle::empty(domain());
    let verified = verify(text, &JwtKeys::new([&nobody]), &audience, Timestamp::from_secs(1_800_000_000));
    assert!(verified.is_err(), "a token that no key has signed is verified");
    let task = task::verify(text, &JwtKeys::new([&nobody]), "git/pay", Timestamp::from_secs(1_800_000_000));
    assert!(task.is_err(), "a task token that no key has signed is verified");
    assert!(!task::is_task_token(text) || peek(text).is_err(), "a token is two things at once");
    if let Ok(peeked) = peek(text) {
        assert_eq!(text.split('.').count(), 3);
        assert_eq!(SpiffeId::parse(peeked.id.as_str()).as_ref(), Ok(&peeked.id));
    }
}

/// Bundle documents: SPIFFE's own form, and the JWKS of the Workload API.
pub fn bundle_document(bytes: &[u8]) {
    // What can't be written (a key of a kind that is only read) is left out once; from then on nothing changes.
    if let Ok(bundle) = bundle_doc::parse(&domain(), bytes) {
        let printed = bundle_doc::spiffe_document(&bundle);
        let again =
            bundle_doc::parse(&domain(), printed.as_bytes()).expect("a document that is written is read");
        assert_eq!(bundle_doc::spiffe_document(&again), printed);
    }
    if let Ok(bundle) = bundle_doc::parse_workload_jwks(&domain(), bytes) {
        let printed = bundle_doc::workload_jwks(&bundle);
        let again =
            bundle_doc::parse_workload_jwks(&domain(), &printed).expect("a set that is written is read");
        assert_eq!(bundle_doc::workload_jwks(&again), printed);
    }
}

thread_local! {
    /// Where the state files lie that are read from disk only.
    static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
}

fn in_folder<T>(work: impl FnOnce(&std::path::Path) -> T) -> T {
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(|| tempfile::tempdir().expect("a folder"));
        work(folder.path())
    })
}

/// `agent-data.json`, which an agent finds when it starts.
pub fn agent_state(bytes: &[u8]) {
    in_folder(|folder| {
        let file = folder.join("agent-data.json");
        std::fs::write(&file, bytes).expect("the file");
        let Ok(state) = StateFile::open(folder) else { return };
        let data = state.get();
        // Written for another reason than a test: a change and its reverse.
        state.update(|data| data.reattestable = !data.reattestable).expect("the file is written");
        let again = StateFile::open(folder).expect("what is written is read").get();
        assert_eq!((again.svid, again.bundle), (data.svid, data.bundle));
        assert_eq!(again.reattestable, !data.reattestable);
    });
}

/// `keys.json`, which a server finds when it starts.
pub fn server_keys(bytes: &[u8]) {
    in_folder(|folder| {
        let file = folder.join("keys.json");
        std::fs::write(&file, bytes).expect("the file");
        let _ = DiskKeys::open(&file).map(drop);
    });
}

/// Times millions of years away become the last one that there is; they are not kept.
fn is_kept(seconds: i64) -> bool {
    seconds.checked_mul(1000).is_some()
}

/// Entries, as an API client writes them and as an agent gets them.
pub fn wire_entry(bytes: &[u8]) {
    let Ok(wire) = types::Entry::decode(bytes) else { return };
    let _ = convert::entry_input(&domain(), &wire, None);
    let agent = SpiffeId::new(&domain(), "/spire/agent/join_token/a").expect("an ID");
    if let Ok(read) = convert::delivered_entry(&agent, &wire)
        && [wire.created_at, wire.expires_at].into_iter().all(is_kept)
    {
        let again = convert::delivered_entry(&agent, &convert::entry_to_wire(&read, None));
        assert_eq!(again.as_ref(), Ok(&read), "an entry survives the wire");
    }
}

/// Bundles, as an API client writes them and as an agent gets them.
pub fn wire_bundle(bytes: &[u8]) {
    let Ok(wire) = types::Bundle::decode(bytes) else { return };
    let _ = convert::bundle_input(domain(), &wire, None);
    if let Ok(read) = convert::bundle_from_wire(&wire)
        && wire.jwt_authorities.iter().all(|key| is_kept(key.expires_at))
    {
        let again = convert::bundle_from_wire(&convert::bundle_to_wire(&read, None));
        assert_eq!(again.as_ref(), Ok(&read), "a bundle survives the wire");
    }
}

/// Nodes, and positions in the change log.
pub fn wire_node(bytes: &[u8]) {
    if let Ok(wire) = types::Agent::decode(bytes)
        && let Ok(read) = convert::node_from_wire(&wire)
        && is_kept(wire.x509svid_expires_at)
    {
        let again = convert::node_from_wire(&convert::node_to_wire(&read, None));
        assert_eq!(again.as_ref(), Ok(&read), "a node survives the wire");
    }
    if let Ok(wire) = watch_v1::Position::decode(bytes)
        && let Ok(read) = convert::position_from_wire(&wire)
    {
        assert_eq!(convert::position_from_wire(&convert::position_to_wire(&read)).as_ref(), Ok(&read));
    }
}

/// What people are shown before they say yes, and what a node agent asks.
pub fn request(bytes: &[u8]) {
    if let Some(text) = text(bytes)
        && let Ok(content) = avouch_credential::request::read(text)
    {
        let again = avouch_credential::request::text_of(&content).expect("what was read is written");
        assert_eq!(&*again.text, text, "there is one text for one question");
    }
    if let Ok(wire) = requests_v1::AskRequest::decode(bytes)
        && let Ok((content, needs, key)) = convert::asking_from_wire(wire)
    {
        let again = convert::asking_from_wire(convert::asking_to_wire(&content, needs, key));
        assert_eq!(again, Ok((content, needs, key)), "a question survives the wire");
    }
}

/// An exported log, line by line, and each line alone.
pub fn node_records(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let mut log = Log::new(None);
    let held = text.lines().try_for_each(|line| log.line(line));
    if held.is_ok()
        && let Ok(summary) = log.finish()
    {
        assert!(summary.nodes.iter().all(|node| node.last >= node.first));
    }
    for line in text.lines() {
        let node = read_node_line(line).map(|record| {
            assert!(record.details().count() <= avouch_credential::limits::RECORD_DETAILS_MAX);
            (record.source.into_owned(), record.chain.into_owned(), record.seq)
        });
        assert!(node.is_err() || read_line(line).is_err(), "a line is of a node or of the server");
        let Ok((source, chain, seq)) = node else { continue };
        let (Ok(source), Some(id)) = (SpiffeId::parse(&source), ChainId::from_text(&chain)) else { continue };
        let mut reader = ChainReader::from(NodeChain { source, id }, seq);
        assert!(
            seq <= 1
                || reader.line(line).is_ok()
                || read_node_line(line).is_ok_and(|r| r.previous().is_err())
        );
    }
}

/// A stretch of records as a node sends it.
pub fn wire_shipment(bytes: &[u8]) {
    if let Ok(wire) = records_v1::ShipRequest::decode(bytes)
        && let Ok(read) = convert::shipment_from_wire(wire)
    {
        let again = convert::shipment_from_wire(convert::shipment_to_wire(read.clone()));
        assert_eq!(again, Ok(read), "a shipment survives the wire");
    }
    if let Ok(wire) = records_v1::ShipResponse::decode(bytes)
        && let Ok(read) = convert::stand_from_wire(&wire)
    {
        assert_eq!(convert::stand_from_wire(&convert::stand_to_wire(&read)), Ok(read));
    }
}

/// A file of records, which an agent finds when it starts: it goes on behind what holds, and nothing is lost.
pub fn spool(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let records = folder.path().join("records");
    std::fs::create_dir(&records).expect("a folder");
    std::fs::write(records.join("00000000000000000001.jsonl"), bytes).expect("the file");
    let source = SpiffeId::new(&domain(), "/spire/agent/x509pop/a").expect("an ID");
    let parts = || Parts {
        folder: records.clone(),
        room: Room { spool: 1 << 20, segment: 1 << 16 },
        metrics: Metrics::plain(),
        clock: avouch_agent::clock::now,
        version: "fuzz",
    };
    let stand = || {
        let records = Records::start(parts()).expect("a thread");
        records.bind(&source).expect("a chain");
        let stand = records.stand().expect("a chain");
        records.close();
        stand
    };
    let (chain, first) = stand();
    let (again, second) = stand();
    assert_eq!((chain, first.seq + 1), (again, second.seq), "what one life wrote the next takes up");
}

/// What a provider says of itself, its keys, and its tokens.
pub fn provider(bytes: &[u8]) {
    let issuer = Issuer::new("https://idp.example.org").expect("an issuer");
    drop(Document::read(bytes, &issuer));
    let keys = KeySet::read(bytes).unwrap_or_default();
    let Some(text) = text(bytes) else { return };
    if let Ok(read) = Issuer::new(text) {
        assert!(read.as_str() == text && !read.host().is_empty(), "an issuer is kept as it was read");
    }
    let now = Timestamp::from_secs(1_800_000_000);
    let expected = Expected { issuer: &issuer, client_id: "avouch", nonce: "n", signed_in_after: now };
    let verified = avouch_signin::verify(text, &keys, &expected, now);
    assert!(verified.is_err(), "a token that no key has signed is verified");
}
