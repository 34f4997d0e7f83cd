//! Verbs on emergencies: what two people let an identity do for half an hour at most.

use std::collections::BTreeMap;

use avouch_credential::shown::plain;
use avouch_proto::governance_v1 as wire;
use clap::Subcommand;
use serde_json::{Value, json};

use super::table::table;
use super::{Session, moment};
use crate::failure::Failure;
use crate::verbs::text::rfc3339;

pub(super) const EMERGENCY: &str = "Examples:
  avouch emergency ask coder git/pay --action repo.merge --for 20m --why 'the fix for the outage, approver unreachable'
  avouch emergency agree em_3f9a0c51d2e7
  avouch emergency list
  avouch emergency end em_3f9a0c51d2e7

Two people open one, for half an hour at most, and never whoever owns the identity as the second; anybody ends it, at once. It
stands for a missing permit, yes or grant. What a rule forbids stays forbidden, and limits bind. Exit codes: 0 done, 2 it is
somebody else's.";

/// Verbs on emergencies.
#[derive(Debug, Subcommand)]
pub enum EmergencyVerb {
    #[command(after_help = EMERGENCY)]
    /// Ask that an identity may do one thing with one resource for a time; it waits ten minutes for a second person
    Ask {
        /// A SPIFFE ID, or the last part of one
        name: String,
        /// ID of the resource in the rules, such as git/pay
        resource: String,
        /// What it is to do with it; may be left out where the resource has one action
        #[arg(long)]
        action: Option<String>,
        /// How long from the second person's yes: 90s or 20m, at most 30m
        #[arg(long = "for", value_name = "TIME", default_value = "15m")]
        lasts: String,
        /// Why it can't wait, in one line: what the second person reads. No record holds it
        #[arg(long, value_name = "TEXT")]
        why: String,
    },
    #[command(after_help = EMERGENCY)]
    /// Open an emergency that another person asked for
    Agree {
        /// Its ID
        id: String,
    },
    #[command(after_help = EMERGENCY)]
    /// End an emergency at once; anybody may
    End {
        /// Its ID
        id: String,
    },
    #[command(after_help = EMERGENCY)]
    /// Those that wait or are open, newest first
    List {
        /// Only of this identity
        name: Option<String>,
        /// Also those of the last day that are over or were ended
        #[arg(long)]
        all: bool,
    },
}

pub(super) async fn run(session: &mut Session<'_>, verb: EmergencyVerb) -> Result<(), Failure> {
    match verb {
        EmergencyVerb::Ask { name, resource, action, lasts, why } => {
            let seconds = moment::length(&lasts)?;
            let action = action.unwrap_or_default();
            let ask = wire::AskEmergencyRequest { name, action, resource, seconds, why };
            let asked = session.client.ask_emergency(ask).await?.into_inner();
            session.print(|| shown(&asked), || format!("{}\n", waits(&asked)));
            Ok(())
        }
        EmergencyVerb::Agree { id } => {
            let agreed =
                session.client.agree_emergency(wire::AgreeEmergencyRequest { id }).await?.into_inner();
            session.print(|| shown(&agreed), || format!("{}\n", opened(&agreed)));
            Ok(())
        }
        EmergencyVerb::End { id } => {
            let ended = session.client.end_emergency(wire::EndEmergencyRequest { id }).await?.into_inner();
            let text = format!("{} is ended; {} may do only what the rules say\n", ended.id, ended.spiffe_id);
            session.print(|| shown(&ended), || text);
            Ok(())
        }
        EmergencyVerb::List { name, all } => list(session, name.unwrap_or_default(), all).await,
    }
}

async fn list(session: &mut Session<'_>, name: String, all: bool) -> Result<(), Failure> {
    let list = wire::ListEmergenciesRequest { name, all };
    let emergencies = session.client.list_emergencies(list).await?.into_inner().emergencies;
    let names = session.names().await?;
    session.print(
        || json!({ "emergencies": emergencies.iter().map(shown).collect::<Vec<_>>() }),
        || {
            if emergencies.is_empty() {
                return "No emergency waits or is open. `avouch emergency list --all` shows those of the last day.\n"
                    .to_owned();
            }
            let rows: Vec<_> = emergencies.iter().map(|emergency| row(emergency, &names)).collect();
            table(["ID", "STANDING", "IDENTITY", "MAY", "UNTIL", "ASKED BY", "AGREED BY", "WHY"], &rows)
        },
    );
    Ok(())
}

fn row(emergency: &wire::Emergency, names: &BTreeMap<String, String>) -> [String; 8] {
    let name = |id: &String| match id.as_str() {
        "" => "-".to_owned(),
        _ => names.get(id).unwrap_or(id).clone(),
    };
    [
        emergency.id.clone(),
        emergency.standing.clone(),
        emergency.spiffe_id.clone(),
        format!("{} {}", emergency.action, emergency.resource),
        rfc3339(emergency.ends_at),
        name(&emergency.asked_by),
        name(&emergency.agreed_by),
        plain(&emergency.why),
    ]
}

/// One sentence, and what opens it.
fn waits(emergency: &wire::Emergency) -> String {
    let wire::Emergency { id, spiffe_id, action, resource, .. } = emergency;
    format!(
        "{id} waits for a second person until {}, so that {spiffe_id} may {action} {resource}: `avouch emergency agree {id}`",
        rfc3339(emergency.ends_at)
    )
}

/// One sentence, and what ends it.
fn opened(emergency: &wire::Emergency) -> String {
    let wire::Emergency { id, spiffe_id, action, resource, .. } = emergency;
    format!(
        "{id}: {spiffe_id} may {action} {resource} until {}; `avouch emergency end {id}` ends it",
        rfc3339(emergency.ends_at)
    )
}

fn shown(emergency: &wire::Emergency) -> Value {
    json!({
        "id": emergency.id, "spiffe_id": emergency.spiffe_id, "action": emergency.action,
        "resource": emergency.resource, "why": emergency.why, "asked_by": emergency.asked_by,
        "asked_at": emergency.asked_at, "agreed_by": emergency.agreed_by, "seconds": emergency.seconds,
        "ends_at": emergency.ends_at, "ended_by": emergency.ended_by, "standing": emergency.standing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emergency() -> wire::Emergency {
        wire::Emergency {
            id: "em_a".into(),
            spiffe_id: "spiffe://example.org/test/coder".into(),
            action: "repo.merge".into(),
            resource: "git/pay".into(),
            ends_at: 3_600,
            asked_by: "per_a".into(),
            ..Default::default()
        }
    }

    #[test]
    fn what_waits_names_the_command_that_opens_it_and_what_is_open_the_one_that_ends_it() {
        assert_eq!(
            waits(&emergency()),
            "em_a waits for a second person until 1970-01-01T01:00:00Z, so that spiffe://example.org/test/coder may \
             repo.merge git/pay: `avouch emergency agree em_a`"
        );
        assert!(
            opened(&emergency()).ends_with("until 1970-01-01T01:00:00Z; `avouch emergency end em_a` ends it")
        );
    }

    #[test]
    fn both_people_are_shown_by_their_names() {
        let names = BTreeMap::from([("per_a".to_owned(), "Ada".to_owned())]);
        let [.., asked, agreed, _] = row(&emergency(), &names);
        assert_eq!((asked.as_str(), agreed.as_str()), ("Ada", "-"));
    }
}
