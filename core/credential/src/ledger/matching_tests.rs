//! What is said of a small log, one rule per test.

use avouch_domain::fixtures::id;
use avouch_domain::{AuditEvent, AuditRow, ChainId, NodeChain, NodeEvent, Note, Revision, Stand, Timestamp};

use super::*;
use crate::ledger::{FIRST_PREVIOUS, line_of, node_line};

const NODE: &str = "spiffe://example.org/spire/agent/a";
const SAID: &str = "aa01";

type Server = (AuditEvent, &'static str, Vec<(&'static str, &'static str)>);

fn server_line(seq: u64, (event, subject, detail): &Server) -> String {
    let row = AuditRow {
        at: Timestamp(1_000),
        event: *event,
        actor: "per_b".to_owned(),
        subject: (*subject).to_owned(),
        detail: detail.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
    };
    line_of(seq, &FIRST_PREVIOUS, Revision(1), &row).unwrap()
}

fn asked(request: &'static str) -> Server {
    let detail = [("hash", SAID), ("node", NODE), ("state", "waiting"), ("action", "http.write")];
    (AuditEvent::RequestAsked, request, detail.into_iter().chain([("resource", "api/new")]).collect())
}

fn yes(request: &'static str) -> Server {
    (AuditEvent::RequestYes, request, vec![("hash", SAID), ("node", NODE), ("state", "yes")])
}

fn spent(request: &'static str) -> Server {
    (AuditEvent::RequestSpent, request, vec![("hash", SAID), ("node", NODE), ("state", "spent")])
}

fn agreed(request: &'static str) -> Vec<Server> {
    vec![asked(request), yes(request), spent(request)]
}

/// A receipt: what it names, what came of it, and the hash of what was sent.
fn done((name, id_of_it): (&'static str, &str), result: &str, hash: &str) -> String {
    let chain = NodeChain { source: id("/spire/agent/a"), id: ChainId::from_text(&"0f".repeat(8)).unwrap() };
    let detail =
        [("of", "4"), ("action", "http.write"), ("result", result), (name, id_of_it), ("hash", hash)];
    let detail = detail.into_iter().filter(|(_, value)| !value.is_empty());
    let note = Note {
        event: NodeEvent::CallDone,
        actor: "ins_1".to_owned(),
        subject: "api/new".to_owned(),
        detail: detail.map(|(name, value)| (name, value.to_owned())).collect(),
    };
    node_line(&chain, &Stand { seq: 4, hash: FIRST_PREVIOUS }, Timestamp(2_000), &note).unwrap()
}

fn matched_from(first: u64, server: &[Server], nodes: &[String]) -> Vec<Match> {
    let mut matching = Matching::default();
    nodes.iter().for_each(|line| matching.node_line(line));
    (first..).zip(server).for_each(|(seq, row)| matching.server_line(&server_line(seq, row)));
    matching.finish().unwrap()
}

fn states(server: &[Server], nodes: &[String]) -> Vec<(String, State)> {
    matched_from(1, server, nodes).into_iter().map(|it| (it.id, it.state)).collect()
}

fn one(server: &[Server], nodes: &[String]) -> State {
    let states = states(server, nodes);
    assert_eq!(states.len(), 1, "{states:?}");
    states[0].1
}

const REQUEST: (&str, &str) = ("request", "req_a");

#[test]
fn what_was_sent_with_the_hash_that_was_agreed_to_matches_and_says_who_said_yes() {
    let found = matched_from(1, &agreed("req_a"), &[done(REQUEST, "answered", SAID)]);
    assert_eq!((found.len(), found[0].state), (1, State::Matched));
    assert_eq!((found[0].by.as_slice(), found[0].hash.as_str()), (&["per_b".to_owned()][..], SAID));
    assert_eq!((found[0].done[0].of, found[0].done[0].seq), (4, 5));
    assert!(!found[0].state.is_finding());
    assert_eq!(one(&agreed("req_a"), &[done(REQUEST, "lost", SAID)]), State::Matched, "it was sent");
}

#[test]
fn another_hash_or_none_is_done_otherwise() {
    for hash in ["aa02", ""] {
        let state = one(&agreed("req_a"), &[done(REQUEST, "answered", hash)]);
        assert!(state == State::Otherwise && state.is_finding(), "{hash}");
    }
}

#[test]
fn another_node_than_was_agreed_to_is_done_otherwise() {
    let mut server = agreed("req_a");
    for (_, _, detail) in &mut server {
        detail.retain(|(name, _)| *name != "node");
        detail.push(("node", "spiffe://example.org/spire/agent/b"));
    }
    assert_eq!(one(&server, &[done(REQUEST, "answered", SAID)]), State::Otherwise);
}

#[test]
fn what_was_used_and_has_no_receipt_says_so_and_is_no_finding() {
    assert_eq!(one(&agreed("req_a"), &[]), State::NoReceipt);
    assert!(!State::NoReceipt.is_finding());
}

#[test]
fn a_receipt_that_names_a_yes_nobody_said_is_found() {
    assert_eq!(one(&[asked("req_a")], &[done(REQUEST, "answered", SAID)]), State::Without);
    let state = states(&agreed("req_b"), &[done(REQUEST, "answered", SAID)]);
    assert_eq!(state[0], ("req_a".to_owned(), State::Without));
    assert_eq!(
        one(&[asked("req_a"), yes("req_a")], &[done(REQUEST, "answered", SAID)]),
        State::Without,
        "it was not used"
    );
    let twice = [done(REQUEST, "answered", SAID), done(REQUEST, "answered", SAID)];
    assert_eq!(one(&agreed("req_a"), &twice), State::Without, "a yes is for one call");
}

#[test]
fn a_yes_of_which_nothing_was_sent_is_not_used() {
    assert_eq!(one(&[asked("req_a"), yes("req_a")], &[]), State::NotUsed);
    assert_eq!(one(&agreed("req_a"), &[done(REQUEST, "failed", "")]), State::NotUsed);
    let no = (AuditEvent::RequestNo, "req_a", vec![("state", "no")]);
    assert!(states(&[asked("req_a"), yes("req_a"), no], &[]).is_empty(), "it was taken back");
    assert!(states(&[asked("req_a")], &[]).is_empty(), "it waits");
}

#[test]
fn a_grant_matches_as_often_as_it_was_used() {
    let given = (AuditEvent::GrantGiven, "gr_a", vec![("action", "http.write"), ("resource", "api/new")]);
    let used = || (AuditEvent::GrantUsed, "gr_a", vec![("left", "1")]);
    let by = ("grant", "gr_a");
    assert_eq!(one(&[given.clone(), used()], &[done(by, "answered", "")]), State::Matched);
    assert_eq!(one(&[given.clone(), used(), used()], &[done(by, "answered", "")]), State::NoReceipt);
    let twice = [done(by, "answered", ""), done(by, "answered", "")];
    assert_eq!(one(&[given.clone(), used()], &twice), State::Without);
    let other = (AuditEvent::GrantGiven, "gr_a", vec![("action", "http.write"), ("resource", "api/old")]);
    assert_eq!(one(&[other, used()], &[done(by, "answered", "")]), State::Otherwise);
    assert_eq!(one(&[given], &[]), State::NotUsed);
}

#[test]
fn of_what_is_older_than_the_servers_records_nothing_is_claimed() {
    let found = matched_from(7, &agreed("req_b"), &[done(REQUEST, "answered", SAID)]);
    assert_eq!((found[0].id.as_str(), found[0].state), ("req_a", State::Older));
}

#[test]
fn without_records_of_the_server_nothing_is_compared() {
    let mut matching = Matching::default();
    matching.node_line(&done(REQUEST, "answered", SAID));
    assert_eq!(matching.finish(), Err(NoServer));
}
