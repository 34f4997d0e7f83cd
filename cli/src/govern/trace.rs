//! `avouch trace`: from a decision, or a run, to the people behind it, hop by hop.
//!
//! Never says more than the records do: a hop that no record shows is unknown. Only of a log that holds.

use std::collections::BTreeMap;
use std::path::Path;

use avouch_credential::ledger::{Record, read_line, read_node_line};
use serde_json::{Value, json};

use super::records::{Check, Exported, Source, lines_of_file};
use super::table::table;
use super::{Place, Session};
use crate::exit::{FAILED, FINDING};
use crate::failure::Failure;
use crate::out::Out;

/// How every instance's ID begins.
const INSTANCE: &str = "ins_";

/// What is traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// One live process tree and all that it did.
    Instance(String),
    /// One decision, by the number of its record.
    Decision(u64),
}

impl What {
    pub(super) fn read(text: &str) -> Result<Self, Failure> {
        if text.starts_with(INSTANCE) {
            return Ok(Self::Instance(text.to_owned()));
        }
        text.parse().map(Self::Decision).map_err(|_| {
            Failure::usage(format!(
                "\"{text}\": expected an instance (ins_...) or the number of a decision's record"
            ))
        })
    }
}

/// A record, as far as a trace shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    source: String,
    seq: u64,
    at: String,
    actor: String,
    subject: String,
    detail: BTreeMap<String, String>,
}

impl Seen {
    fn of_server(record: Record) -> Self {
        let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Self {
            source: "server".to_owned(),
            seq: record.seq,
            at: record.at,
            actor: record.actor,
            subject: record.subject,
            detail: record.detail.into_iter().map(|(name, value)| (name, text(value))).collect(),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.detail.get(name).map(String::as_str)
    }

    /// These of its details, with their names.
    fn shown(&self, names: &[&str]) -> String {
        let parts = names.iter().filter_map(|name| Some(format!("{name} {}", self.get(name)?)));
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// What nodes recorded of one instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Instance {
    start: Option<Seen>,
    task: Option<Seen>,
    decision: Option<Seen>,
    /// How many decisions, by outcome.
    outcomes: BTreeMap<String, u64>,
}

/// Looks for an instance among the records of nodes, as they come.
struct Nodes<'a> {
    what: &'a What,
    /// Only of this node.
    source: Option<&'a str>,
    /// The chain that is read. No chain tells of another's instances.
    chain: String,
    /// Instances of it that have not ended where the reader is.
    live: BTreeMap<String, Instance>,
    /// By node; of several chains of one node the newest.
    found: BTreeMap<String, Instance>,
}

impl<'a> Nodes<'a> {
    fn new(what: &'a What, source: Option<&'a str>) -> Self {
        Self { what, source, chain: String::new(), live: BTreeMap::new(), found: BTreeMap::new() }
    }

    fn line(&mut self, line: &str) {
        // What is no record of a node is none of this.
        let Ok(record) = read_node_line(line) else { return };
        if self.source.is_some_and(|source| source != record.source) {
            return;
        }
        let chain = format!("{} {}", record.source, record.chain);
        if self.chain != chain {
            self.chain = chain;
            self.live.clear();
        }
        let seen = Seen {
            source: record.source.to_string(),
            seq: record.seq,
            at: record.at.to_string(),
            actor: record.actor.to_string(),
            subject: record.subject.to_string(),
            detail: record.details().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        };
        match &*record.event {
            // Whatever ran below an agent has lost its line.
            "agent.start" => self.live.clear(),
            "instance.start" => {
                self.live.insert(seen.actor.clone(), Instance { start: Some(seen), ..Instance::default() });
            }
            "instance.end" => drop(self.live.remove(&seen.actor)),
            "task.open" => {
                if let Some(instance) = self.live.get_mut(&seen.actor) {
                    instance.task = Some(seen);
                }
            }
            "decision" => self.decision(seen),
            _ => {}
        }
        if let What::Instance(id) = self.what
            && let Some(instance) = self.live.get(id)
        {
            self.found.insert(record.source.to_string(), instance.clone());
        }
    }

    fn decision(&mut self, seen: Seen) {
        let mut instance = self.live.get(&seen.actor).cloned().unwrap_or_default();
        let outcome = seen.get("outcome").unwrap_or("unknown").to_owned();
        *instance.outcomes.entry(outcome).or_default() += 1;
        match self.what {
            What::Instance(_) => {
                if let Some(live) = self.live.get_mut(&seen.actor) {
                    *live = instance;
                }
            }
            What::Decision(seq) if *seq == seen.seq => {
                let source = seen.source.clone();
                instance.decision = Some(seen);
                self.found.insert(source, instance);
            }
            What::Decision(_) => {}
        }
    }

    fn one(mut self) -> Result<Instance, Failure> {
        match (self.found.pop_first(), self.found.len()) {
            (Some((_, instance)), 0) => Ok(instance),
            (Some((first, _)), more) => Err(Failure::usage(format!(
                "{first} and {more} more have a decision of this number: say which with --source"
            ))),
            (None, _) => Err(Failure::new(
                FAILED,
                "no node has recorded it: `avouch audit export` shows what is there",
            )),
        }
    }
}

/// Looks for those who answer for an instance among the server's records, as they come.
#[derive(Debug, Default)]
struct People {
    name: String,
    until: String,
    rules_number: String,
    /// Whose yes was used, if it took one.
    request: Option<String>,
    said: Vec<Seen>,
    /// What was used, if it took one.
    grant: Option<String>,
    given: Option<Seen>,
    identity: Option<Seen>,
    adopted: Option<Seen>,
    rules: Option<Seen>,
}

impl People {
    fn behind(instance: &Instance) -> Self {
        let start = instance.start.clone().unwrap_or_default();
        let of_decision = |name| instance.decision.as_ref().and_then(|decision| decision.get(name));
        let rules = of_decision("rules");
        let request = of_decision("request").filter(|_| of_decision("outcome") == Some("allow"));
        let went_on = matches!(of_decision("outcome"), Some("allow" | "constrain"));
        Self {
            grant: of_decision("grant").filter(|_| went_on).map(str::to_owned),
            request: request.map(str::to_owned),
            name: start.subject,
            until: instance.decision.as_ref().map_or(start.at, |decision| decision.at.clone()),
            rules_number: rules.unwrap_or_default().to_owned(),
            ..Self::default()
        }
    }

    fn line(&mut self, line: &str) {
        let Ok(record) = read_line(line) else { return };
        // Moments of one form: as texts they are in the order of time.
        if record.at > self.until {
            return;
        }
        let event = record.event.clone();
        match &*event {
            "rules_published" | "rules_approved" if record.subject == self.rules_number => {
                self.rules = Some(Seen::of_server(record));
            }
            "request_yes" if Some(&record.subject) == self.request.as_ref() => {
                self.said.push(Seen::of_server(record));
            }
            "grant_given" if Some(&record.subject) == self.grant.as_ref() => {
                self.given = Some(Seen::of_server(record));
            }
            event if event.starts_with("identity_") && record.subject == self.name => {
                let seen = Seen::of_server(record);
                if event == "identity_adopted" {
                    self.adopted = Some(seen.clone());
                }
                // A place says nothing of who answers for it.
                if seen.get("owner").is_some() {
                    self.identity = Some(seen);
                }
            }
            _ => {}
        }
    }
}

/// One hop: what is known, and the record that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Hop {
    name: &'static str,
    known: Option<(String, Seen)>,
}

fn hop(name: &'static str, seen: Option<&Seen>, what: impl FnOnce(&Seen) -> Option<String>) -> Hop {
    Hop { name, known: seen.and_then(|seen| Some((what(seen)?, seen.clone()))) }
}

fn hops(instance: &Instance, people: &People, named: impl Fn(&str) -> String) -> Vec<Hop> {
    let mut hops = Vec::new();
    if let Some(decision) = &instance.decision {
        hops.push(hop("decision", Some(decision), |seen| {
            let outcome = seen.get("outcome")?;
            let facts = seen.shown(&["reason", "by", "limits", "rules"]);
            Some(format!("{} of {}: {outcome} ({facts})", seen.get("action")?, seen.subject))
        }));
        hops.push(hop("rules", people.rules.as_ref(), |seen| {
            let yes =
                seen.get("yes_by").map(|yes| format!(", with the yes of {}", named(yes))).unwrap_or_default();
            Some(format!("{}, last moved by {}{yes}", seen.subject, named(&seen.actor)))
        }));
    }
    if let Some(request) = &people.request {
        let yes = |seen: &Seen| {
            let role = seen.get("as").unwrap_or("unknown");
            Some(format!("to {request}, by {} (as {role})", named(&seen.actor)))
        };
        let said = people.said.iter().map(|seen| hop("said yes", Some(seen), yes));
        let before = hops.len();
        hops.extend(said);
        if hops.len() == before {
            hops.push(hop("said yes", None, yes));
        }
    }
    if let Some(grant) = &people.grant {
        hops.push(hop("grant", people.given.as_ref(), |seen| {
            let role = seen.get("as").unwrap_or("unknown");
            Some(format!("{grant}, given by {} (as {role})", named(&seen.actor)))
        }));
    }
    let (start, identity) = (instance.start.as_ref(), people.identity.as_ref());
    hops.push(hop("task", instance.task.as_ref(), |seen| Some(seen.subject.clone())));
    hops.push(hop("instance", start, |seen| {
        Some(format!("{} ({})", seen.actor, seen.shown(&["uid", "confinement"])))
    }));
    hops.push(hop("code", start, |seen| Some(format!("sha256:{}", seen.get("code")?))));
    hops.push(hop("identity", identity, |seen| {
        Some(format!("{} ({})", seen.subject, seen.shown(&["kind", "environment", "end"])))
    }));
    hops.push(hop("owner", identity, |seen| seen.get("owner").map(&named)));
    let yes = identity.filter(|seen| seen.get("yes_by").is_some());
    hops.push(match yes {
        Some(_) => hop("yes", yes, |seen| match seen.get("yes_by")? {
            "self" => Some("the owner's own".to_owned()),
            yes => Some(named(yes)),
        }),
        None => {
            hop("yes", people.adopted.as_ref(), |seen| Some(format!("adopted by {}", named(&seen.actor))))
        }
    });
    hops
}

/// Traces in the server's log.
pub(super) async fn run(session: &mut Session<'_>, what: &What, source: Option<&str>) -> Result<(), Failure> {
    let (mut check, mut nodes) = (Check::new(None)?, Nodes::new(what, source));
    let mut log = Exported::of(session, &Source::All).await?;
    while let Some(lines) = log.next(session).await? {
        for line in lines {
            check.line(&line)?;
            nodes.line(&line);
        }
    }
    check.finish()?;
    let instance = nodes.one()?;
    let (mut check, mut people) = (Check::new(None)?, People::behind(&instance));
    let mut log = Exported::of(session, &Source::Server).await?;
    while let Some(lines) = log.next(session).await? {
        for line in lines {
            check.line(&line)?;
            people.line(&line);
        }
    }
    check.finish()?;
    let names = session.names().await?;
    let named = |id: &str| names.get(id).map_or_else(|| id.to_owned(), |name| format!("{name} ({id})"));
    told(&instance, &hops(&instance, &people, named), session.place, session.out)
}

/// Traces in an exported log, without a server.
pub(super) fn run_file(
    file: &Path,
    key: Option<&Path>,
    (what, source): (&What, Option<&str>),
    place: &Place,
    out: &mut Out,
) -> Result<(), Failure> {
    let (mut check, mut nodes) = (Check::new(key)?, Nodes::new(what, source));
    lines_of_file(file, |line| {
        check.line(line)?;
        nodes.line(line);
        Ok(())
    })?;
    check.finish()?;
    let instance = nodes.one()?;
    // Another reading: the file may have become another one.
    let (mut check, mut people) = (Check::new(key)?, People::behind(&instance));
    lines_of_file(file, |line| {
        check.line(line)?;
        people.line(line);
        Ok(())
    })?;
    check.finish()?;
    told(&instance, &hops(&instance, &people, str::to_owned), place, out)
}

fn told(instance: &Instance, hops: &[Hop], place: &Place, out: &mut Out) -> Result<(), Failure> {
    let known = hops.iter().all(|hop| hop.known.is_some());
    if place.json {
        let hops: Vec<_> = hops
            .iter()
            .map(|hop| match &hop.known {
                Some((what, seen)) => {
                    json!({"hop": hop.name, "what": what, "proven": true, "source": seen.source,
                    "record": seen.seq, "at": seen.at})
                }
                None => json!({"hop": hop.name, "proven": false}),
            })
            .collect();
        out.line(&json!({"hops": hops, "decisions": instance.outcomes, "proven": known}).to_string());
    } else {
        let rows: Vec<_> = hops
            .iter()
            .map(|hop| match &hop.known {
                Some((what, seen)) => {
                    [hop.name.to_owned(), what.clone(), format!("record {} of {}", seen.seq, seen.source)]
                }
                None => [hop.name.to_owned(), "unknown".to_owned(), "no record says".to_owned()],
            })
            .collect();
        let mut text = table(["HOP", "WHAT", "PROVEN BY"], &rows);
        if instance.decision.is_none() {
            let counts: Vec<_> =
                instance.outcomes.iter().map(|(outcome, n)| format!("{n} {outcome}")).collect();
            let counts = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
            text.push_str(&format!("Decisions: {counts}.\n"));
        }
        out.say(&text);
    }
    if known { Ok(()) } else { Err(Failure::new(FINDING, "")) }
}

#[cfg(test)]
mod tests {
    use avouch_credential::ledger::{FIRST_PREVIOUS, hash_of, line_of, node_line};
    use avouch_domain::fixtures::id;
    use avouch_domain::{
        AuditEvent, AuditRow, ChainId, NodeChain, NodeEvent, Note, Revision, Stand, Timestamp,
    };

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
        let by =
            |owner| [("kind", "ai_agent"), ("environment", "test"), ("owner", owner), ("yes_by", "self")];
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

    fn traced(what: &What, source: Option<&str>, lines: &[String]) -> Result<(Instance, Vec<Hop>), Failure> {
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
        let (_, hops) = traced(&What::Decision(6), None, &node("/spire/agent/a")).unwrap();
        assert_eq!(
            texts(&hops),
            [
                "decision 6: tool.call of files/a: allow (reason allowed, rules 1)",
                "rules 3: 1, last moved by per_s",
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
    fn a_decision_that_took_a_yes_leads_to_who_said_it() {
        let lines = node("/spire/agent/a");
        let (_, hops) = traced(&What::Decision(8), None, &lines).unwrap();
        assert!(texts(&hops).contains(&"said yes 4: to req_a, by per_s (as person)".to_owned()), "{hops:?}");
        let (_, hops) = traced(&What::Decision(6), None, &lines).unwrap();
        assert!(texts(&hops).iter().all(|hop| !hop.starts_with("said yes")));
    }

    #[test]
    fn an_instance_is_traced_with_all_its_decisions() {
        let (instance, hops) =
            traced(&What::Instance("ins_1".into()), None, &node("/spire/agent/a")).unwrap();
        assert_eq!(instance.outcomes, [("allow".to_owned(), 2), ("deny".to_owned(), 1)].into());
        assert_eq!(texts(&hops)[0], "task 4: fix-4711");
    }

    #[test]
    fn what_no_record_shows_is_unknown() {
        let lines = node("/spire/agent/a");
        let (_, hops) = traced(&What::Decision(6), None, &lines[4..]).unwrap();
        let unknown =
            ["task", "instance", "code", "identity", "owner", "yes"].map(|hop| format!("{hop}: unknown"));
        assert_eq!(texts(&hops)[2..], unknown);
        let (_, hops) = traced(&What::Decision(5), None, &lines).unwrap();
        assert!(texts(&hops).contains(&"owner: unknown".to_owned()), "nobody registered it");
    }

    #[test]
    fn no_node_tells_of_an_instance_of_another() {
        let mut lines = node("/spire/agent/a");
        lines.pop();
        lines.push(node("/spire/agent/b")[5].clone());
        let other = Some("spiffe://example.org/spire/agent/b");
        let (_, hops) = traced(&What::Decision(6), other, &lines).unwrap();
        assert!(texts(&hops).contains(&"code: unknown".to_owned()), "{hops:?}");
        let (_, hops) = traced(&What::Instance("ins_1".into()), None, &lines).unwrap();
        assert!(
            hops.iter().all(|hop| hop.known.as_ref().is_none_or(|(_, seen)| !seen.source.ends_with("/b")))
        );
    }

    #[test]
    fn a_number_that_two_nodes_have_needs_the_node() {
        let lines = [node("/spire/agent/a"), node("/spire/agent/b")].concat();
        let several = traced(&What::Decision(6), None, &lines).unwrap_err();
        assert!(several.text.contains("--source"), "{}", several.text);
        let one = "spiffe://example.org/spire/agent/b";
        let (instance, _) = traced(&What::Decision(6), Some(one), &lines).unwrap();
        assert_eq!(instance.decision.unwrap().source, one);
        let none = traced(&What::Decision(1), None, &lines).unwrap_err();
        assert!(none.text.contains("no node has recorded it"), "{}", none.text);
    }

    #[test]
    fn what_is_traced_is_an_instance_or_a_number() {
        assert_eq!(What::read("ins_0f").unwrap(), What::Instance("ins_0f".into()));
        assert_eq!(What::read("7").unwrap(), What::Decision(7));
        assert!(What::read("coder").unwrap_err().text.contains("expected an instance"));
    }
}
