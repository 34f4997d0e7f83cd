//! Whether everything that runs has what is required of it.

use std::collections::{BTreeMap, BTreeSet};

use avouch_domain::limits::DRILL_COUNTS;
use avouch_domain::{Finding, Timestamp};
use avouch_proto::governance_v1 as wire;
use serde_json::{Value, json};

use super::identities::{every, every_found, withheld_from};
use super::table::table;
use super::{Session, findings};
use crate::clock;
use crate::exit::FINDING;
use crate::failure::Failure;
use crate::verbs::text::rfc3339;

/// What lacks something.
struct Lack {
    name: String,
    what: &'static str,
    /// As what it is accepted.
    finding: Finding,
    next: String,
}

/// What lacks something and is accepted for now.
type Known = (Lack, wire::Accepted);

pub(super) async fn verify(session: &mut Session<'_>, require: &[String]) -> Result<(), Failure> {
    let unknown = require.iter().find(|wanted| !["owner", "end", "stop"].contains(&wanted.as_str()));
    if let Some(unknown) = unknown {
        return Err(Failure::usage(format!(
            "\"{unknown}\" is nothing to require, expected owner, end or stop"
        )));
    }
    let now = clock::now().wall;
    let Lacking { lacks, checked, ownerless, withheld } = lacking(session, require, now).await?;
    let (known, lacks) = judged(lacks, findings::every(session).await?, now);
    let names = if known.is_empty() { BTreeMap::new() } else { session.names().await? };
    session.print(
        || {
            let one = |l: &Lack| json!({"name": l.name, "lacks": l.what, "next": l.next});
            let accepted = |(l, a): &Known| {
                json!({"name": l.name, "lacks": l.what, "until": rfc3339(a.until), "why": a.why,
                       "accepted_by": a.accepted_by})
            };
            json!({
                "identities": checked, "owner_left": ownerless, "lacking": Value::Array(lacks.iter().map(one).collect()),
                "accepted": Value::Array(known.iter().map(accepted).collect()),
                "unowned_withheld_from": withheld,
            })
        },
        || {
            let mut text = said(&lacks, &known, (checked, ownerless), &names);
            if let Some(from) = &withheld {
                text.push_str(&format!("What has no identity is withheld from {from} on.\n"));
            }
            text
        },
    );
    if lacks.is_empty() { Ok(()) } else { Err(Failure::new(FINDING, "")) }
}

/// What was found.
struct Lacking {
    lacks: Vec<Lack>,
    /// How many identities there are.
    checked: usize,
    /// How many of them are paused or stopped, and their owner has left.
    ownerless: usize,
    /// From when on what has no identity is withheld; `None`: never, or nothing lacks one.
    withheld: Option<String>,
}

/// Everything that lacks something.
async fn lacking(session: &mut Session<'_>, require: &[String], now: Timestamp) -> Result<Lacking, Failure> {
    let wants = |what: &str| require.iter().any(|wanted| wanted == what);
    let mut lacks = Vec::new();
    let mut withheld = None;
    for found in every_found(session).await? {
        withheld = withheld.or_else(|| withheld_from(&found));
        // What has no identity has none of them.
        lacks.push(Lack {
            next: format!("avouch adopt --path {} ...", path_of(&found.spiffe_id)),
            name: found.spiffe_id,
            what: if wants("owner") { "no owner" } else { "no identity" },
            finding: Finding::Owner,
        });
    }
    let identities = every(session).await?;
    if wants("stop") {
        for identity in identities.iter().filter(|identity| identity.standing == "active") {
            let name = &identity.spiffe_id;
            let asked = wire::IdentityRequest { name: name.clone() };
            let nodes = session.client.get_identity(asked).await?.into_inner().agent_ids.len();
            let what = stop_lacks(identity.stop_tried.as_ref(), nodes, now);
            lacks.extend(what.map(|what| Lack {
                name: name.clone(),
                what,
                finding: Finding::Stop,
                next: format!("avouch stop {name} --drill"),
            }));
        }
    }
    if wants("owner") {
        let unconfirmed = identities.iter().filter(|i| i.confirm_by != 0 && i.standing == "active");
        lacks.extend(unconfirmed.map(|identity| Lack {
            name: identity.spiffe_id.clone(),
            what: "owner not confirmed",
            finding: Finding::Confirmed,
            next: format!("avouch identity confirm {}", identity.spiffe_id),
        }));
    }
    let ownerless = ownerless(&identities, &session.left().await?);
    Ok(Lacking { lacks, checked: identities.len(), ownerless, withheld })
}

/// How many are not in force and have an owner who has left. Who leaves keeps nothing that is in force.
fn ownerless(identities: &[wire::Identity], left: &BTreeSet<String>) -> usize {
    let rests = |identity: &&wire::Identity| ["paused", "stopped"].contains(&identity.standing.as_str());
    identities.iter().filter(rests).filter(|identity| left.contains(&identity.owner)).count()
}

/// What is accepted for now, and what counts.
fn judged(lacks: Vec<Lack>, accepted: Vec<wire::Accepted>, now: Timestamp) -> (Vec<Known>, Vec<Lack>) {
    let held = accepted.into_iter().filter(|accepted| findings::holds(accepted, now));
    let held: BTreeMap<_, _> = held.map(|a| ((a.spiffe_id.clone(), a.what.clone()), a)).collect();
    let (mut known, mut counts) = (Vec::new(), Vec::new());
    for lack in lacks {
        match held.get(&(lack.name.clone(), lack.finding.name().to_owned())) {
            Some(accepted) => known.push((lack, accepted.clone())),
            None => counts.push(lack),
        }
    }
    (known, counts)
}

/// In words. `ownerless` of the identities that were `checked` hold nothing: they rest, and nobody answers for them.
fn said(
    lacks: &[Lack],
    known: &[Known],
    (checked, ownerless): (usize, usize),
    names: &BTreeMap<String, String>,
) -> String {
    let hold = checked.saturating_sub(ownerless);
    let rest = match ownerless {
        0 => String::new(),
        1 => "; 1 is paused or stopped, and its owner has left".to_owned(),
        many => format!("; {many} are paused or stopped, and their owner has left"),
    };
    let mut text = match (lacks.is_empty(), known.is_empty()) {
        (true, true) => format!("All hold: {hold} identities, and nothing runs without one{rest}.\n"),
        (true, false) => format!("All hold but what is accepted for now: {hold} identities{rest}.\n"),
        (false, _) => {
            let row = |l: &Lack| [l.name.clone(), l.what.into(), l.next.clone()];
            table(["NAME", "LACKS", "NEXT"], &lacks.iter().map(row).collect::<Vec<_>>())
        }
    };
    if !known.is_empty() {
        let row = |(l, a): &Known| {
            let by = names.get(&a.accepted_by).unwrap_or(&a.accepted_by);
            let how = format!("accepted until {}: {}, by {by}", rfc3339(a.until), a.why);
            [l.name.clone(), l.what.into(), how]
        };
        text.push_str(&table(["NAME", "LACKS", "BUT"], &known.iter().map(row).collect::<Vec<_>>()));
    }
    text
}

/// What is wrong with the last stop, or the last drill of one, of what `nodes` may run now.
fn stop_lacks(tried: Option<&wire::StopTried>, nodes: usize, now: Timestamp) -> Option<&'static str> {
    match tried {
        None => Some("stop never tried"),
        Some(tried) if now.since(Timestamp::from_secs(tried.at)) >= DRILL_COUNTS => {
            Some("stop tried long ago")
        }
        Some(tried) if tried.confirmed < tried.nodes => Some("stop not confirmed by every node"),
        Some(tried) if (tried.nodes as usize) < nodes => Some("stop not tried on every node"),
        Some(_) => None,
    }
}

fn path_of(spiffe_id: &str) -> &str {
    let name = spiffe_id.strip_prefix("spiffe://").unwrap_or(spiffe_id);
    name.find('/').and_then(|at| name.get(at..)).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_counts_for_a_while_and_only_if_every_node_confirmed() {
        let now = Timestamp::from_secs(100 * 86_400);
        let tried =
            |days: i64, confirmed| wire::StopTried { at: days * 86_400, nodes: 2, confirmed, took_ms: 1 };
        assert_eq!(stop_lacks(None, 0, now), Some("stop never tried"));
        assert_eq!(stop_lacks(Some(&tried(10, 2)), 2, now), Some("stop tried long ago"));
        assert_eq!(stop_lacks(Some(&tried(11, 1)), 2, now), Some("stop not confirmed by every node"));
        assert_eq!(stop_lacks(Some(&tried(11, 2)), 2, now), None);
        assert_eq!(stop_lacks(Some(&tried(11, 2)), 3, now), Some("stop not tried on every node"));
        let nowhere = wire::StopTried { at: now.secs(), ..Default::default() };
        assert_eq!(stop_lacks(Some(&nowhere), 0, now), None, "what runs nowhere is stopped everywhere");
    }

    #[test]
    fn what_rests_because_its_owner_has_left_is_told_apart_from_what_holds() {
        let identity = |standing: &str, owner: &str| wire::Identity {
            standing: standing.into(),
            owner: owner.into(),
            ..Default::default()
        };
        let all = [
            identity("active", "per_a"),
            identity("paused", "per_a"),
            identity("paused", "per_left"),
            identity("stopped", "per_left"),
        ];
        assert_eq!(ownerless(&all, &BTreeSet::from(["per_left".to_owned()])), 2);
        let text = said(&[], &[], (4, 2), &BTreeMap::new());
        let told = "All hold: 2 identities, and nothing runs without one; 2 are paused or stopped, and their owner has left.\n";
        assert_eq!(text, told);
        let text = said(&[], &[], (4, 0), &BTreeMap::new());
        assert_eq!(text, "All hold: 4 identities, and nothing runs without one.\n");
    }

    fn lack(what: &'static str, finding: Finding) -> Lack {
        Lack { name: "spiffe://example.org/test/ci".into(), what, finding, next: "do it".into() }
    }

    #[test]
    fn what_is_accepted_is_told_apart_until_its_moment_and_then_counts_again() {
        let accepted = || {
            vec![wire::Accepted {
                spiffe_id: "spiffe://example.org/test/ci".into(),
                what: "stop".into(),
                until: 100,
                why: "moves in May".into(),
                accepted_by: "per_a".into(),
                ..Default::default()
            }]
        };
        let lacks = || vec![lack("stop never tried", Finding::Stop)];
        let (known, counts) = judged(lacks(), accepted(), Timestamp(99_999));
        assert_eq!((known.len(), counts.len()), (1, 0));
        let text =
            said(&counts, &known, (1, 0), &BTreeMap::from([("per_a".to_owned(), "Ada Example".to_owned())]));
        let told = "accepted until 1970-01-01T00:01:40Z: moves in May, by Ada Example";
        assert!(text.starts_with("All hold but") && text.contains(told), "{text}");
        let (known, counts) = judged(lacks(), accepted(), Timestamp(100_000));
        assert_eq!((known.len(), counts.len()), (0, 1), "its day has passed");
    }

    #[test]
    fn what_is_accepted_is_one_finding_about_one_name() {
        let accepted = wire::Accepted {
            spiffe_id: "spiffe://example.org/test/ci".into(),
            what: "stop".into(),
            until: 100,
            ..Default::default()
        };
        let of_another =
            wire::Accepted { spiffe_id: "spiffe://example.org/test/x".into(), ..accepted.clone() };
        let lacks =
            vec![lack("owner not confirmed", Finding::Confirmed), lack("stop never tried", Finding::Stop)];
        let (known, counts) = judged(lacks, vec![accepted, of_another], Timestamp(0));
        assert_eq!((known.len(), counts.len()), (1, 1));
        let text = said(&counts, &known, (2, 0), &BTreeMap::new());
        assert!(text.starts_with("NAME") && text.contains("NEXT") && text.contains("BUT"), "{text}");
    }
}
