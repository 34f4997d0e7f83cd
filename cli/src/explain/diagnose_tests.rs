//! One test for each cause.

use avouch_domain::{EntryId, EntryParts, Selector, Ttl};

use super::*;

const AGENT: &str = "spiffe://example.org/spire/agent/join_token/t";

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn selectors(list: &[&str]) -> Vec<Selector> {
    list.iter().map(|s| s.parse().unwrap()).collect()
}

fn entry(change: impl FnOnce(&mut EntryParts)) -> Entry {
    let mut parts = EntryParts {
        id: EntryId::new("e").unwrap(),
        spiffe_id: id("spiffe://example.org/web"),
        parent_id: id(AGENT),
        selectors: selectors(&["unix:uid:7"]),
        x509_svid_ttl: Ttl(0),
        jwt_svid_ttl: Ttl(0),
        federates_with: Vec::new(),
        admin: false,
        downstream: false,
        expires_at: None,
        dns_names: Vec::new(),
        store_svid: false,
        hint: String::new(),
        disable_x509_svid_prefetch: false,
        jwt_svid_include_jti: false,
        revision_number: 0,
        created_at: Timestamp::from_secs(10),
    };
    change(&mut parts);
    Entry::new(parts).unwrap()
}

fn facts(change: impl FnOnce(&mut Facts)) -> Facts {
    let seen = SeenEntry { entry: entry(|_| {}), parent: Parent::OfThisAgent };
    let mut facts = Facts {
        now: Timestamp::from_secs(100),
        pid: 7,
        id: id("spiffe://example.org/web"),
        process: Some(ProcessFacts {
            selectors: SelectorSet::new(selectors(&["unix:uid:7", "unix:gid:7"])).unwrap(),
            binary_seen: true,
        }),
        socket: SocketState::Answers,
        agent: Ok(AgentFacts {
            id: id(AGENT),
            expires_at: Timestamp::from_secs(200),
            last_sync: Timestamp::from_secs(90),
            looks_at_binaries: Some(true),
        }),
        server: Ok(ServerFacts { agent: Some(KnownAgent { banned: false }), entries: vec![seen] }),
    };
    change(&mut facts);
    facts
}

fn cause(change: impl FnOnce(&mut Facts)) -> Option<Cause> {
    diagnose(&facts(change)).cause
}

fn of_entry(change: impl FnOnce(&mut EntryParts)) -> Option<Cause> {
    cause(|f| f.server.as_mut().unwrap().entries[0].entry = entry(change))
}

#[test]
fn a_matching_entry_is_granted() {
    assert_eq!(cause(|_| {}), None);
}

#[test]
fn a_process_that_is_gone_gets_nothing() {
    assert_eq!(cause(|f| f.process = None), Some(Cause::ProcessGone));
}

#[test]
fn a_socket_may_be_missing_deserted_or_forbidden() {
    assert_eq!(cause(|f| f.socket = SocketState::Missing), Some(Cause::SocketMissing));
    assert_eq!(cause(|f| f.socket = SocketState::Refused), Some(Cause::SocketDeserted));
    assert_eq!(cause(|f| f.socket = SocketState::Denied("/run".into())), Some(Cause::SocketDenied));
}

#[test]
fn agent_and_server_may_be_out_of_reach() {
    assert_eq!(cause(|f| f.agent = Err(NoAgent::Unreachable("no".into()))), Some(Cause::AgentUnreachable));
    assert_eq!(cause(|f| f.agent = Err(NoAgent::Starting)), Some(Cause::AgentStarting));
    assert_eq!(cause(|f| f.server = Err("no".into())), Some(Cause::ServerUnreachable));
}

#[test]
fn an_id_may_be_foreign_or_reserved() {
    assert_eq!(cause(|f| f.id = id("spiffe://other.org/web")), Some(Cause::ForeignTrustDomain));
    assert_eq!(cause(|f| f.id = id(AGENT)), Some(Cause::ReservedId));
}

#[test]
fn an_agent_may_be_unknown_banned_or_expired() {
    assert_eq!(cause(|f| f.server.as_mut().unwrap().agent = None), Some(Cause::AgentUnknown));
    let banned = Some(KnownAgent { banned: true });
    assert_eq!(cause(|f| f.server.as_mut().unwrap().agent = banned), Some(Cause::AgentBanned));
    assert_eq!(cause(|f| f.now = Timestamp::from_secs(200)), Some(Cause::AgentExpired));
}

#[test]
fn without_an_entry_nothing_is_given() {
    assert_eq!(cause(|f| f.server.as_mut().unwrap().entries.clear()), Some(Cause::NoEntry));
}

#[test]
fn each_property_of_an_entry_that_bars_it_is_named() {
    assert_eq!(of_entry(|e| e.parent_id = id("spiffe://example.org/spire/server")), Some(Cause::NodeAlias));
    assert_eq!(of_entry(|e| e.expires_at = Some(Timestamp::from_secs(100))), Some(Cause::NoEntry));
    assert_eq!(of_entry(|e| e.store_svid = true), Some(Cause::StoredSvid));
    assert_eq!(of_entry(|e| e.selectors = selectors(&["k8s:ns:a"])), Some(Cause::UnseenSelector));
    assert_eq!(of_entry(|e| e.selectors = selectors(&["unix:uid:8"])), Some(Cause::SelectorMissing));
    assert_eq!(of_entry(|e| e.created_at = Timestamp::from_secs(95)), Some(Cause::AgentBehind));
}

#[test]
fn a_parent_may_be_missing_or_belong_to_another_agent() {
    let parent = |p| cause(|f| f.server.as_mut().unwrap().entries[0].parent = p);
    assert_eq!(parent(Parent::Missing), Some(Cause::ParentMissing));
    assert_eq!(parent(Parent::OfAnother), Some(Cause::OtherAgent));
}

#[test]
fn of_several_entries_the_one_that_came_furthest_is_explained() {
    let seen = |entry| SeenEntry { entry, parent: Parent::OfThisAgent };
    let expired = seen(entry(|e| e.expires_at = Some(Timestamp::from_secs(1))));
    let lacking = seen(entry(|e| e.selectors = selectors(&["unix:uid:8"])));
    let good = seen(entry(|_| {}));
    let with = |list: Vec<SeenEntry>| cause(|f| f.server.as_mut().unwrap().entries = list);
    assert_eq!(with(vec![lacking.clone(), expired.clone()]), Some(Cause::SelectorMissing));
    assert_eq!(with(vec![good, lacking, expired]), None);
}

#[test]
fn the_missing_selectors_are_listed_beside_what_the_process_has() {
    let entry = entry(|e| e.selectors = selectors(&["unix:uid:7", "unix:user:web"]));
    let finding = diagnose(&facts(|f| f.server.as_mut().unwrap().entries[0].entry = entry));
    assert_eq!(
        finding.details,
        ["entry: e", "missing: unix:user:web", "the process has: unix:gid:7, unix:uid:7"]
    );
}

#[test]
fn selectors_of_the_binary_need_an_agent_that_looks_at_binaries() {
    let with = |looks| {
        cause(|f| {
            f.agent.as_mut().unwrap().looks_at_binaries = looks;
            let path = selectors(&["unix:path:/bin/web"]);
            f.process.as_mut().unwrap().selectors = SelectorSet::new(path.clone()).unwrap();
            f.server.as_mut().unwrap().entries[0].entry = entry(|e| e.selectors = path);
        })
    };
    assert_eq!(with(Some(false)), Some(Cause::UnseenSelector));
    assert_eq!((with(Some(true)), with(None)), (None, None));
}

#[test]
fn a_grant_of_an_agent_that_is_cut_off_says_so() {
    let verdict = diagnose(&facts(|f| f.now = Timestamp::from_secs(121)));
    assert_eq!(verdict.cause, None);
    assert!(verdict.details[1].contains("not heard from the server for 31 s"), "{verdict:?}");
    assert_eq!(diagnose(&facts(|_| {})).details.len(), 1);
}
