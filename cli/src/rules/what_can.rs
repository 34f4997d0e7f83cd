//! `avouch what-can`: what an identity could be let do by the rules in force.
//!
//! Decides nothing: `avouch-rules` does. Says no more of a call than is known before it is made.

use avouch::clock;
use avouch::exit::FAILED;
use avouch::govern::{self, Place};
use avouch::out::Out;
use avouch_domain::SpiffeId;
use avouch_rules::{Identity, IdentityFacts, Outcome, Possible, Rules, Standing, check};
use serde_json::{Value, json};

use super::try_out::details;

pub const EXAMPLES: &str = "Examples:
  avouch what-can coder
  avouch --json what-can coder

What is not listed is denied, whatever is called; what \"the call decides\" may turn out to be never allowed. `avouch rules try NAME RESOURCE` says why, and what would be decided about one
call; a grant and a yes are listed as what they are asked for. Exit codes: 0 listed, also where nothing is, 1 it is not known.";

/// Lists it and gives the exit code.
pub async fn run(name: String, place: &Place, out: &mut Out) -> u8 {
    let known = match govern::known(name, place, out).await {
        Ok(known) => known,
        Err(code) => return code,
    };
    match possible(&known) {
        Ok(all) => {
            out.say(&if place.json { as_json(&known, &all) } else { as_text(&known, &all) });
            0
        }
        Err(e) => {
            out.complain(&format!("avouch what-can: {e}\n"));
            FAILED
        }
    }
}

fn possible(known: &govern::Known) -> Result<Vec<Possible>, String> {
    let rules = check(&known.rules).map_err(|_| {
        "the rules in force are not in order for this release: `avouch rules show --out rules`, and `avouch rules check rules`"
    })?;
    let now = clock::now().wall;
    let identity = Identity::new(facts(known, &rules, now)?).map_err(|e| e.to_string())?;
    rules.possible(&identity, now).map_err(|e| e.to_string())
}

/// As if it were in force, by an owner who is there: how it stands is said beside.
fn facts(
    known: &govern::Known,
    rules: &Rules,
    now: avouch_domain::Timestamp,
) -> Result<IdentityFacts, String> {
    let (domains, max_sensitivity) = rules.ceiling(known.preset.as_deref());
    Ok(IdentityFacts {
        name: SpiffeId::parse(&known.name).map_err(|e| e.to_string())?,
        kind: known.kind,
        environment: known.environment,
        standing: Standing::Active,
        owner_active: true,
        domains,
        max_sensitivity,
        purpose: known.purpose.clone(),
        preset: known.preset.clone(),
        ends: now + std::time::Duration::from_secs(1),
    })
}

/// What stands in the way of everything, if anything does.
fn hindrance(known: &govern::Known) -> Option<String> {
    match known.standing {
        Standing::Active if known.ended => Some("its end is reached".to_owned()),
        Standing::Active => None,
        other => Some(format!("it is {other}")),
    }
}

/// What is known of the outcome before a call is made.
fn how(one: &Possible) -> String {
    let (needs, limits) = details(&one.outcome);
    let how = match (&one.outcome, limits) {
        (Outcome::Deny, _) => return "the call decides".to_owned(),
        (Outcome::Ask(_), _) => format!("needs {}", needs.join(" and ")),
        (_, Some(limits)) => format!("limited to {limits}"),
        _ => "allowed".to_owned(),
    };
    if one.by_the_call { format!("{how}, as far as rules that look at the call let it") } else { how }
}

fn as_text(known: &govern::Known, all: &[Possible]) -> String {
    let mut text = String::new();
    if let Some(why) = hindrance(known) {
        text.push_str(&format!(
            "{} can do nothing now: {why}. What the rules would let it do:\n",
            known.name
        ));
    }
    if all.is_empty() {
        text.push_str(&format!(
            "The rules in force let {} do nothing: `avouch rules try {} RESOURCE` says why.\n",
            known.name, known.name
        ));
        return text;
    }
    let rows: Vec<_> = all.iter().map(|one| [one.resource.clone(), one.action.clone(), how(one)]).collect();
    text.push_str(&govern::table(["RESOURCE", "ACTION", "HOW"], &rows));
    text
}

fn as_json(known: &govern::Known, all: &[Possible]) -> String {
    let one = |one: &Possible| {
        let (needs, limits) = details(&one.outcome);
        json!({ "resource": one.resource, "action": one.action, "outcome": one.outcome.name(), "needs": needs,
            "limits": limits, "by_the_call": one.by_the_call })
    };
    let can: Vec<Value> = all.iter().map(one).collect();
    let value = json!({ "spiffe_id": known.name, "hindrance": hindrance(known), "can": can });
    format!("{value}\n")
}
