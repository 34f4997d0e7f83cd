//! `avouch audit match`: whether what was done is what was agreed to.
//!
//! Only of a log that holds.

use std::collections::BTreeMap;
use std::path::Path;

use avouch_credential::ledger::matching::{Done, Match, Matching, NoServer};
use serde_json::{Value, json};

use super::records::{Check, lines_of_file};
use super::table::table;
use super::{Place, Session};
use crate::exit::{FAILED, FINDING};
use crate::exported::{Exported, Source};
use crate::failure::Failure;
use crate::out::Out;

impl From<NoServer> for Failure {
    fn from(error: NoServer) -> Self {
        Self::new(FAILED, error)
    }
}

/// Compares in the server's log. The nodes' records first: whoever acts after that was agreed to before the server's are read.
pub(super) async fn run(session: &mut Session<'_>) -> Result<(), Failure> {
    let mut matching = Matching::default();
    for source in [Source::All, Source::Server] {
        let mut check = Check::new(None)?;
        let mut log = Exported::of(&mut session.client, &source).await?;
        while let Some(lines) = log.next(&mut session.client).await? {
            for line in lines {
                check.line(&line)?;
                match source {
                    Source::Server => matching.server_line(&line),
                    Source::All | Source::Node(_) => matching.node_line(&line),
                }
            }
        }
        check.finish()?;
    }
    let names = session.names().await?;
    let named = |id: &str| names.get(id).map_or_else(|| id.to_owned(), |name| format!("{name} ({id})"));
    told(&matching.finish()?, named, session.place, session.out)
}

/// Compares in an exported log, without a server.
pub(super) fn run_file(file: &Path, key: Option<&Path>, place: &Place, out: &mut Out) -> Result<(), Failure> {
    let (mut check, mut matching) = (Check::new(key)?, Matching::default());
    lines_of_file(file, |line| {
        check.line(line)?;
        matching.server_line(line);
        matching.node_line(line);
        Ok(())
    })?;
    check.finish()?;
    told(&matching.finish()?, str::to_owned, place, out)
}

fn told(
    matches: &[Match],
    named: impl Fn(&str) -> String,
    place: &Place,
    out: &mut Out,
) -> Result<(), Failure> {
    let found = matches.iter().filter(|one| one.state.is_finding()).count();
    if place.json {
        let all: Vec<_> = matches.iter().map(json_of).collect();
        out.line(&json!({"matches": all, "findings": found}).to_string());
    } else {
        out.say(&text_of(matches, &named));
    }
    if found == 0 { Ok(()) } else { Err(Failure::new(FINDING, "")) }
}

fn json_of(one: &Match) -> Value {
    let done = one.done.iter().map(|done| {
        json!({"source": done.source, "record": done.seq, "decision": done.of, "action": done.action,
            "resource": done.resource, "result": done.result, "hash": done.hash})
    });
    json!({"id": one.id, "state": one.state.name(), "action": one.action, "resource": one.resource, "hash": one.hash,
        "by": one.by, "done": done.collect::<Vec<_>>()})
}

fn text_of(matches: &[Match], named: &impl Fn(&str) -> String) -> String {
    let rows: Vec<_> = matches
        .iter()
        .map(|one| {
            let by: Vec<_> = one.by.iter().map(|id| named(id)).collect();
            let what = format!("{} {}", one.action, one.resource).trim().to_owned();
            [one.state.text().to_owned(), one.id.clone(), what, by.join(", "), receipts(&one.done)]
        })
        .collect();
    let mut text = table(["STATE", "ID", "AGREED TO", "BY", "RECEIPT"], &rows);
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    matches.iter().for_each(|one| *counts.entry(one.state).or_default() += 1);
    let counts: Vec<_> = counts.iter().map(|(state, n)| format!("{n} {}", state.text())).collect();
    let counts = if counts.is_empty() { "nothing was agreed to".to_owned() } else { counts.join("; ") };
    text.push_str(&format!("In all: {counts}.\n"));
    text
}

/// The first of them, with its record, and how many there are beside.
fn receipts(done: &[Done]) -> String {
    let Some((first, more)) = done.split_first() else { return "none".to_owned() };
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    let Done { result, seq, source, .. } = first;
    format!("{result}, record {seq} of {source}{more}")
}

#[cfg(test)]
mod tests {
    use avouch_credential::ledger::matching::State;

    use super::*;

    fn place(json: bool) -> Place {
        Place { server_socket: "s".into(), agent_socket: "a".into(), json }
    }

    fn one(state: State) -> Match {
        let done = Done {
            result: "answered".into(),
            seq: 5,
            source: "spiffe://example.org/n".into(),
            ..Done::default()
        };
        Match {
            id: "req_a".into(),
            state,
            action: "http.write".into(),
            resource: "api/new".into(),
            hash: "aa".into(),
            by: vec!["per_b".into()],
            done: vec![done],
        }
    }

    #[test]
    fn only_what_was_done_otherwise_or_without_a_yes_ends_with_a_finding() {
        for (state, code) in [
            (State::Matched, None),
            (State::NoReceipt, None),
            (State::NotUsed, None),
            (State::Older, None),
            (State::Otherwise, Some(FINDING)),
            (State::Without, Some(FINDING)),
        ] {
            let (mut out, said) = Out::captured();
            let ended = told(&[one(state)], str::to_owned, &place(false), &mut out);
            assert_eq!(ended.err().map(|failure| failure.code), code, "{state:?}");
            assert!(
                said.out().contains(state.text()) && said.out().contains("record 5 of"),
                "{}",
                said.out()
            );
        }
    }

    #[test]
    fn json_is_one_line_with_what_was_found() {
        let (mut out, said) = Out::captured();
        assert!(told(&[one(State::Matched)], str::to_owned, &place(true), &mut out).is_ok());
        let line: Value = serde_json::from_str(&said.out()).unwrap();
        assert_eq!((&line["matches"][0]["state"], &line["findings"]), (&json!("matched"), &json!(0)));
    }
}
