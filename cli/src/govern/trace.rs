//! `avouch trace`: from a decision, or a run, to the people behind it, hop by hop.
//!
//! Only of a log that holds.

use std::path::Path;

use avouch_credential::ledger::trace::{Hop, Instance, Nodes, People, TraceError, Traced, hops};
use serde_json::json;

use super::records::{Check, lines_of_file};
use super::table::table;
use super::{Place, Session};
use crate::exit::{FAILED, FINDING};
use crate::exported::{Exported, Source};
use crate::failure::Failure;
use crate::out::Out;

impl From<TraceError> for Failure {
    fn from(error: TraceError) -> Self {
        match error {
            TraceError::What(_) | TraceError::Several { .. } => Self::usage(error.to_string()),
            TraceError::Nobody => Self::new(FAILED, error.to_string()),
        }
    }
}

/// Traces in the server's log.
pub(super) async fn run(
    session: &mut Session<'_>,
    what: &Traced,
    source: Option<&str>,
) -> Result<(), Failure> {
    let (mut check, mut nodes) = (Check::new(None)?, Nodes::new(what, source));
    let mut log = Exported::of(&mut session.client, &Source::All).await?;
    while let Some(lines) = log.next(&mut session.client).await? {
        for line in lines {
            check.line(&line)?;
            nodes.line(&line);
        }
    }
    check.finish()?;
    let instance = nodes.one()?;
    let (mut check, mut people) = (Check::new(None)?, People::behind(&instance));
    let mut log = Exported::of(&mut session.client, &Source::Server).await?;
    while let Some(lines) = log.next(&mut session.client).await? {
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
    (what, source): (&Traced, Option<&str>),
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
