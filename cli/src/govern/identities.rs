//! Verbs on identities.

use std::collections::{BTreeMap, BTreeSet};

use avouch_proto::governance_v1 as wire;
use serde_json::{Value, json};

use super::arguments::{Adopt, New};
use super::table::table;
use super::{IdentityVerb, Session, limits, moment, placing};
use crate::clock;
use crate::exit::PENDING;
use crate::failure::Failure;
use crate::verbs::text::rfc3339;

/// Kinds whose owner runs them himself.
const ACTS_BY_ITSELF: [&str; 2] = ["ai_agent", "helper"];

/// The kind as the server spells it.
fn kind(typed: &str) -> String {
    typed.replace('-', "_")
}

pub(super) fn named(name: String) -> wire::IdentityRequest {
    wire::IdentityRequest { name }
}

pub(super) async fn run(session: &mut Session<'_>, verb: IdentityVerb) -> Result<(), Failure> {
    match verb {
        IdentityVerb::New(new) => register(session, new).await,
        IdentityVerb::List { standing, owner, kind: typed, env, unused } => {
            let request = wire::ListIdentitiesRequest {
                standing: standing.unwrap_or_default(),
                owner: session.person(owner.as_deref()).await?,
                kind: typed.as_deref().map(kind).unwrap_or_default(),
                environment: env.unwrap_or_default(),
                unused,
                ..Default::default()
            };
            list(session, request).await
        }
        IdentityVerb::Show { name } => show(session, name).await,
        IdentityVerb::Approve { name } => {
            let identity = session.client.approve_identity(named(name)).await?.into_inner();
            done(session, &identity, "is agreed to and active")
        }
        IdentityVerb::Confirm { name } => {
            let identity = session.client.confirm_identity(named(name)).await?.into_inner();
            done(session, &identity, "is confirmed: you answer for it")
        }
        IdentityVerb::Place { name, node, uid } => {
            let entry = placing::place(session, &name, node, uid).await?;
            session.print(
                || json!({"node": entry.node, "uid": entry.uid, "entry_id": entry.entry_id}),
                || {
                    format!(
                        "{name} may run on {} as user {}: `avouch run {name} -- COMMAND`\n",
                        entry.node, entry.uid
                    )
                },
            );
            Ok(())
        }
        IdentityVerb::Set { name, owner, successor, ends, code, runs } => {
            let ends = ends.map(|ends| moment::read(&ends, clock::now().wall)).transpose()?;
            let request = wire::ChangeIdentityRequest {
                name,
                owner: session.person(owner.as_deref()).await?,
                successor: session.person(successor.as_deref()).await?,
                ends_at: ends.unwrap_or_default(),
                code: code.as_deref().map(limits::code).transpose()?,
                runs_max: runs.as_deref().map(limits::runs).transpose()?,
            };
            let identity = session.client.change_identity(request).await?.into_inner();
            done(session, &identity, "is changed")
        }
    }
}

async fn register(session: &mut Session<'_>, new: New) -> Result<(), Failure> {
    let request = wire::RegisterIdentityRequest {
        kind: kind(&new.kind),
        environment: new.env,
        purpose: new.purpose,
        preset: new.preset.unwrap_or_default(),
        owner: session.person(new.owner.as_deref()).await?,
        successor: session.person(new.successor.as_deref()).await?,
        ends_at: moment::read(&new.ends, clock::now().wall)?,
        name: new.name,
    };
    let identity = session.client.register_identity(request).await?.into_inner();
    let placed = if new.elsewhere || !ACTS_BY_ITSELF.contains(&identity.kind.as_str()) {
        None
    } else {
        placing::here(session, &identity.spiffe_id).await
    };
    if identity.standing == "proposed" {
        done(session, &identity, "waits for a yes: `avouch identity approve`, by another security person")?;
        return Err(Failure::new(PENDING, ""));
    }
    let next = match placed {
        Some(here) => format!("is registered and active; you may run it here, {here}: `avouch run`"),
        None => "is registered and active; `avouch identity place` or `entry create` says where it may run"
            .to_owned(),
    };
    done(session, &identity, &next)
}

pub(super) async fn resume(session: &mut Session<'_>, name: String) -> Result<(), Failure> {
    let identity = session.client.resume_identity(named(name)).await?.into_inner();
    done(session, &identity, "goes on")
}

fn done(session: &mut Session<'_>, identity: &wire::Identity, what: &str) -> Result<(), Failure> {
    session.print(|| shown(identity), || format!("{} {what}\n", identity.spiffe_id));
    Ok(())
}

async fn all(
    session: &mut Session<'_>,
    mut request: wire::ListIdentitiesRequest,
) -> Result<Vec<wire::Identity>, Failure> {
    let mut identities = Vec::new();
    loop {
        let page = session.client.list_identities(request.clone()).await?.into_inner();
        identities.extend(page.identities);
        if page.next_page_token.is_empty() {
            return Ok(identities);
        }
        request.page_token = page.next_page_token;
    }
}

/// Every identity.
pub(super) async fn every(session: &mut Session<'_>) -> Result<Vec<wire::Identity>, Failure> {
    all(session, wire::ListIdentitiesRequest::default()).await
}

async fn list(session: &mut Session<'_>, request: wire::ListIdentitiesRequest) -> Result<(), Failure> {
    let identities = all(session, request).await?;
    let names = session.names().await?;
    session.print(
        || Value::Array(identities.iter().map(shown).collect()),
        || {
            if identities.is_empty() {
                return "No identities. `avouch identity new` registers one, `avouch found` shows what runs without.\n"
                    .to_owned();
            }
            let rows: Vec<_> = identities.iter().map(|identity| row(identity, &names)).collect();
            table(["IDENTITY", "KIND", "OWNER", "STANDING", "ENDS", "PURPOSE"], &rows)
        },
    );
    Ok(())
}

fn standing(identity: &wire::Identity) -> String {
    if identity.cause.is_empty() {
        identity.standing.clone()
    } else {
        format!("{} ({})", identity.standing, identity.cause)
    }
}

fn row(identity: &wire::Identity, names: &BTreeMap<String, String>) -> [String; 6] {
    [
        identity.spiffe_id.clone(),
        identity.kind.clone(),
        who(&identity.owner, names),
        standing(identity),
        rfc3339(identity.ends_at),
        identity.purpose.clone(),
    ]
}

fn who(id: &str, names: &BTreeMap<String, String>) -> String {
    names.get(id).map_or_else(|| id.to_owned(), Clone::clone)
}

async fn show(session: &mut Session<'_>, name: String) -> Result<(), Failure> {
    let found = session.client.get_identity(named(name)).await?.into_inner();
    let identity = found.identity.unwrap_or_default();
    let (names, left) = (session.names().await?, session.left().await?);
    let nodes = found.agent_ids.len();
    session.print(
        || {
            let mut value = shown(&identity);
            if let Some(members) = value.as_object_mut() {
                members.insert("entry_ids".to_owned(), json!(found.entry_ids));
                members.insert("agent_ids".to_owned(), json!(found.agent_ids));
            }
            value
        },
        || {
            let yes = match identity.yes_by.as_str() {
                "" if identity.standing == "proposed" => "nobody yet".to_owned(),
                "" => "nobody: it was adopted as it ran".to_owned(),
                by if by == identity.owner => "its owner alone (self), which counts in test only".to_owned(),
                by => who(by, &names),
            };
            let owner = answers(&identity, &names, &left);
            format!(
                "{}\n  What it is        {} in {}, for {}; {}\n  Who answers       {owner}\n  Who said yes      {yes}\n  \
                 Where it may run  {} entries, {nodes} nodes; {}\n  Last used         {}\n  Until when        {}\n  How it stops      `avouch pause \
                 {name}` or `avouch stop {name}`; stopped or paused {} times so far; {}\n",
                identity.spiffe_id,
                identity.kind,
                identity.environment,
                identity.purpose,
                standing(&identity),
                found.entry_ids.len(),
                limits::shown(&identity),
                last_used(&identity),
                rfc3339(identity.ends_at),
                identity.stop_number,
                tried(&identity),
                name = identity.spiffe_id,
            )
        },
    );
    Ok(())
}

/// Who answers for it.
fn answers(identity: &wire::Identity, names: &BTreeMap<String, String>, left: &BTreeSet<String>) -> String {
    let one = |id: &str| {
        let gone = if left.contains(id) { " (left)" } else { "" };
        format!("{}{gone}", who(id, names))
    };
    let mut owner = one(&identity.owner);
    if !identity.successor.is_empty() {
        owner.push_str(&format!(", then {}", one(&identity.successor)));
    }
    if identity.confirm_by != 0 {
        owner.push_str(&format!(", not confirmed (until {})", rfc3339(identity.confirm_by)));
    }
    owner
}

/// To a day: nodes tell once in each.
fn last_used(identity: &wire::Identity) -> String {
    match identity.last_used {
        0 => "no node has told of a use".to_owned(),
        day => rfc3339(day).chars().take_while(|c| *c != 'T').collect(),
    }
}

/// How the last stop went, or the last drill of one.
fn tried(identity: &wire::Identity) -> String {
    match &identity.stop_tried {
        None => "never tried: `avouch stop NAME --drill`".to_owned(),
        Some(tried) => {
            let (at, all) = (rfc3339(tried.at), tried.nodes);
            format!("tried at {at}: {} of {all} nodes confirmed within {} ms", tried.confirmed, tried.took_ms)
        }
    }
}

pub(super) fn shown(identity: &wire::Identity) -> Value {
    json!({
        "spiffe_id": identity.spiffe_id, "kind": identity.kind, "environment": identity.environment,
        "purpose": identity.purpose, "preset": identity.preset, "owner": identity.owner, "successor": identity.successor,
        "ends_at": rfc3339(identity.ends_at), "standing": identity.standing, "cause": identity.cause,
        "last_used": (identity.last_used != 0).then(|| last_used(identity)),
        "code": (!identity.code.is_empty()).then(|| hex::encode(&identity.code)),
        "runs_max": (identity.runs_max != 0).then_some(identity.runs_max),
        "stop_number": identity.stop_number, "added_by": identity.added_by,
        "added_at": rfc3339(identity.added_at), "yes_by": identity.yes_by,
        "confirm_by": (identity.confirm_by != 0).then(|| rfc3339(identity.confirm_by)),
        "stop_tried": identity.stop_tried.as_ref().map(|tried| json!({
            "at": rfc3339(tried.at), "nodes": tried.nodes, "confirmed": tried.confirmed, "took_ms": tried.took_ms,
        })),
    })
}

/// The moment from which on entries of a found name are withheld, if there is one.
pub(super) fn withheld_from(found: &wire::Found) -> Option<String> {
    (found.withheld_from != 0).then(|| rfc3339(found.withheld_from))
}

/// Every found name.
pub(super) async fn every_found(session: &mut Session<'_>) -> Result<Vec<wire::Found>, Failure> {
    let mut request = wire::ListFoundRequest::default();
    let mut found = Vec::new();
    loop {
        let page = session.client.list_found(request.clone()).await?.into_inner();
        found.extend(page.found);
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

pub(super) async fn found(session: &mut Session<'_>) -> Result<(), Failure> {
    let found = every_found(session).await?;
    let names = session.names().await?;
    let suggested = |f: &wire::Found| match f.suggested_owner.as_str() {
        "" => "-".to_owned(),
        id => format!("{} ({})", who(id, &names), f.reason),
    };
    session.print(
        || {
            let one = |f: &wire::Found| {
                json!({"spiffe_id": f.spiffe_id, "entries": f.entries, "suggested_owner": f.suggested_owner,
                       "reason": f.reason, "withheld_from": withheld_from(f)})
            };
            Value::Array(found.iter().map(one).collect())
        },
        || {
            if found.is_empty() {
                return "Everything that runs has an owner.\n".to_owned();
            }
            let rows: Vec<_> =
                found.iter().map(|f| [f.spiffe_id.clone(), f.entries.to_string(), suggested(f)]).collect();
            let text = table(["NO OWNER", "ENTRIES", "MAY BELONG TO"], &rows);
            // The same moment for all of them.
            match found.iter().find_map(withheld_from) {
                Some(from) => format!(
                    "{text}Withheld from {from} on. Next: `avouch adopt` gives them an owner; what it adopts before that goes on \
                     without a break.\n"
                ),
                None => format!("{text}Next: `avouch adopt` gives them an owner without a break.\n"),
            }
        },
    );
    Ok(())
}

pub(super) async fn adopt(session: &mut Session<'_>, adopt: Adopt) -> Result<(), Failure> {
    let request = wire::AdoptRequest {
        path_prefix: adopt.path,
        owner: session.person(adopt.owner.as_deref()).await?,
        kind: kind(&adopt.kind),
        environment: adopt.env,
        purpose: adopt.purpose,
        ends_at: moment::read(&adopt.ends, clock::now().wall)?,
        dry_run: !adopt.apply,
    };
    let done = session.client.adopt(request).await?.into_inner();
    let names = session.names().await?;
    session.print(
        || {
            let one =
                |a: &wire::Adopted| json!({"spiffe_id": a.spiffe_id, "owner": a.owner, "reason": a.reason});
            let adopted: Vec<_> = done.adopted.iter().map(one).collect();
            json!({"adopted": adopted, "more": done.more, "dry_run": !adopt.apply})
        },
        || {
            let owner = |id: &str| if id.is_empty() { "- (left)".to_owned() } else { who(id, &names) };
            let rows: Vec<_> = done
                .adopted
                .iter()
                .map(|a| [a.spiffe_id.clone(), owner(&a.owner), a.reason.clone()])
                .collect();
            let mut text = table(["IDENTITY", "OWNER", "BECAUSE"], &rows);
            if !adopt.apply {
                text.push_str("Nothing was adopted yet: the same with --apply adopts these.\n");
            } else {
                text.push_str("Adopted. Each owner has 30 days for `avouch identity confirm`.\n");
            }
            if done.more {
                text.push_str("More names fit than one call adopts: call again.\n");
            }
            text
        },
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_who_has_left_is_shown_as_such() {
        let names = [("per_a", "Ada Example"), ("per_b", "Ben Example")];
        let names: BTreeMap<_, _> = names.map(|(id, name)| (id.to_owned(), name.to_owned())).into();
        let owned = wire::Identity { owner: "per_a".into(), successor: "per_b".into(), ..Default::default() };
        let shown = answers(&owned, &names, &BTreeSet::from(["per_a".to_owned()]));
        assert_eq!(shown, "Ada Example (left), then Ben Example");
        assert_eq!(answers(&owned, &names, &BTreeSet::new()), "Ada Example, then Ben Example");
    }
}
