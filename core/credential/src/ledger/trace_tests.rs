//! What a trace says of a small log, one rule per test.

use crate::ledger::{FIRST_PREVIOUS, hash_of, line_of, node_line};
use avouch_domain::fixtures::id;
use avouch_domain::{AuditEvent, AuditRow, ChainId, NodeChain, NodeEvent, Note, Revision, Stand, Timestamp};

use super::*;

/// Lines of one node: a run with two decisions between those of another.
fn node(path: &str) -> Vec<String> {
    let chain = NodeChain { source: id(path), id: ChainId::from_text(&"0f".repeat(8)).unwrap() };
    let mut stand = Stand { seq: 0, hash: FIRST_PREVIOUS };
    let note = |event, actor: &str, subject: &str, detail: &[(&'static str, &str)]| Note {
        event,
        actor: actor.to_owned(),
        subject: subject.to_owned(),
        detail: detail.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
    };
    let start = [("owner", "per_a"), ("uid", "1"), ("code", "c0de"), ("confinement", "kernel")];
    let name = "spiffe://example.org/test/coder";
    let allow = [("action", "tool.call"), ("outcome", "allow"), ("reason", "allowed"), ("rules", "1")];
    let deny = [("action", "tool.call"), ("outcome", "deny"), ("reason", "no_rule"), ("rules", "1")];
    let agreed =
        [("action", "repo.merge"), ("outcome", "allow"), ("reason", "allowed"), ("request", "req_a")];
    let notes = [
        note(NodeEvent::AgentStart, "agent", "agent", &[]),
        note(NodeEvent::InstanceStart, "ins_1", name, &start),
        note(NodeEvent::InstanceStart, "ins_2", "spiffe://example.org/test/other", &start),
        note(NodeEvent::TaskOpen, "ins_1", "fix-4711", &[]),
        note(NodeEvent::Decision, "ins_2", "files/b", &deny),
        note(NodeEvent::Decision, "ins_1", "files/a", &allow),
        note(NodeEvent::Decision, "ins_1", "files/b", &deny),
        note(NodeEvent::Decision, "ins_1", "git/pay", &agreed),
        note(NodeEvent::InstanceEnd, "ins_1", name, &[]),
    ];
    let line = |note: &Note| {
        let line = node_line(&chain, &stand, Timestamp(10_000), note).unwrap();
        stand = Stand { seq: stand.seq + 1, hash: hash_of(&line) };
        line
    };
    notes.iter().map(line).collect()
}

fn server() -> Vec<String> {
    let row = |at, event, subject: &str, detail: &[(&'static str, &str)]| AuditRow {
        at: Timestamp(at),
        event,
        actor: "per_s".to_owned(),
        subject: subject.to_owned(),
        detail: detail.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
    };
    let name = "spiffe://example.org/test/coder";
    let by = |owner| [("kind", "ai_agent"), ("environment", "test"), ("owner", owner), ("yes_by", "self")];
    let rows = [
        row(1_000, AuditEvent::IdentityRegistered, name, &by("per_a")),
        row(2_000, AuditEvent::IdentityPlaced, name, &[("uid", "1")]),
        row(3_000, AuditEvent::RulesPublished, "1", &[]),
        row(4_000, AuditEvent::RequestYes, "req_a", &[("as", "person")]),
        row(5_000, AuditEvent::RequestYes, "req_b", &[("as", "person")]),
        row(20_000, AuditEvent::IdentityChanged, name, &by("per_later")),
    ];
    let line = |(n, row)| line_of(n as u64 + 1, &FIRST_PREVIOUS, Revision(1), row).unwrap();
    rows.iter().enumerate().map(line).collect()
}

fn traced(what: &Traced, source: Option<&str>, lines: &[String]) -> Result<(Instance, Vec<Hop>), TraceError> {
    let mut nodes = Nodes::new(what, source);
    lines.iter().for_each(|line| nodes.line(line));
    let instance = nodes.one()?;
    let mut people = People::behind(&instance);
    server().iter().for_each(|line| people.line(line));
    let hops = hops(&instance, &people, str::to_owned);
    Ok((instance, hops))
}

fn texts(hops: &[Hop]) -> Vec<String> {
    let one = |hop: &Hop| match &hop.known {
        Some((what, seen)) => format!("{} {}: {what}", hop.name, seen.seq),
        None => format!("{}: unknown", hop.name),
    };
    hops.iter().map(one).collect()
}

#[test]
fn a_decision_leads_to_its_task_its_code_and_the_people_of_that_time() {
    let (_, hops) = traced(&Traced::Decision(6), None, &node("/spire/agent/a")).unwrap();
    assert_eq!(
        texts(&hops),
        [
            "decision 6: tool.call of files/a: allow (reason allowed, rules 1)",
            "rules 3: 1, published by per_s (record 3)",
            "task 4: fix-4711",
            "instance 2: ins_1 (uid 1, confinement kernel)",
            "code 2: sha256:c0de",
            "identity 1: spiffe://example.org/test/coder (kind ai_agent, environment test)",
            "owner 1: per_a",
            "yes 1: the owner's own",
        ]
    );
}

#[test]
fn rules_lead_to_who_published_them_and_to_whose_yes_they_have() {
    let seen = |seq, actor: &str| Seen { seq, actor: actor.into(), subject: "4".into(), ..Seen::default() };
    let people =
        People { published: Some(seen(24, "per_n")), approved: Some(seen(25, "per_b")), ..People::default() };
    let told = rules(&people, str::to_owned);
    let said = "rules 25: 4, published by per_n (record 24), yes of per_b (record 25)";
    assert_eq!(texts(&[told]), [said]);
}

#[test]
fn a_decision_that_took_a_yes_leads_to_who_said_it() {
    let lines = node("/spire/agent/a");
    let (_, hops) = traced(&Traced::Decision(8), None, &lines).unwrap();
    assert!(texts(&hops).contains(&"said yes 4: to req_a, by per_s (as person)".to_owned()), "{hops:?}");
    let (_, hops) = traced(&Traced::Decision(6), None, &lines).unwrap();
    assert!(texts(&hops).iter().all(|hop| !hop.starts_with("said yes")));
}

#[test]
fn an_instance_is_traced_with_all_its_decisions() {
    let (instance, hops) = traced(&Traced::Instance("ins_1".into()), None, &node("/spire/agent/a")).unwrap();
    assert_eq!(instance.outcomes, [("allow".to_owned(), 2), ("deny".to_owned(), 1)].into());
    assert_eq!(texts(&hops)[0], "task 4: fix-4711");
}

#[test]
fn what_no_record_shows_is_unknown() {
    let lines = node("/spire/agent/a");
    let (_, hops) = traced(&Traced::Decision(6), None, &lines[4..]).unwrap();
    let unknown =
        ["task", "instance", "code", "identity", "owner", "yes"].map(|hop| format!("{hop}: unknown"));
    assert_eq!(texts(&hops)[2..], unknown);
    let (_, hops) = traced(&Traced::Decision(5), None, &lines).unwrap();
    assert!(texts(&hops).contains(&"owner: unknown".to_owned()), "nobody registered it");
}

#[test]
fn no_node_tells_of_an_instance_of_another() {
    let mut lines = node("/spire/agent/a");
    lines.pop();
    lines.push(node("/spire/agent/b")[5].clone());
    let other = Some("spiffe://example.org/spire/agent/b");
    let (_, hops) = traced(&Traced::Decision(6), other, &lines).unwrap();
    assert!(texts(&hops).contains(&"code: unknown".to_owned()), "{hops:?}");
    let (_, hops) = traced(&Traced::Instance("ins_1".into()), None, &lines).unwrap();
    assert!(hops.iter().all(|hop| hop.known.as_ref().is_none_or(|(_, seen)| !seen.source.ends_with("/b"))));
}

#[test]
fn a_number_that_two_nodes_have_needs_the_node() {
    let lines = [node("/spire/agent/a"), node("/spire/agent/b")].concat();
    let several = traced(&Traced::Decision(6), None, &lines).unwrap_err();
    assert!(several.to_string().contains("--source"), "{several}");
    let one = "spiffe://example.org/spire/agent/b";
    let (instance, _) = traced(&Traced::Decision(6), Some(one), &lines).unwrap();
    assert_eq!(instance.decision.unwrap().source, one);
    let none = traced(&Traced::Decision(1), None, &lines).unwrap_err();
    assert_eq!(none, TraceError::Nobody);
}

#[test]
fn what_is_traced_is_an_instance_or_a_number() {
    assert_eq!("ins_0f".parse::<Traced>().unwrap(), Traced::Instance("ins_0f".into()));
    assert_eq!("7".parse::<Traced>().unwrap(), Traced::Decision(7));
    assert!("coder".parse::<Traced>().unwrap_err().to_string().contains("expected an instance"));
}
