//! Verbs on published rules.

use std::collections::BTreeMap;
use std::path::Path;

use avouch_proto::governance_v1 as wire;
use avouch_proto::rules_v1::File;
use serde_json::{Value, json};

use super::table::table;
use super::{Failure, Place, RulesVerb, Session, open};
use crate::exit::{FAILED, FINDING, PENDING};
use crate::out::Out;
use crate::rules_folder;
use crate::verbs::text::rfc3339;

/// Asked for at once when everything is listed.
const PAGE: i32 = 1_000;

pub(super) async fn run(verb: RulesVerb, place: &Place, out: &mut Out) -> Result<(), Failure> {
    // What can't be read is said without a server.
    let files = match &verb {
        RulesVerb::Publish { folder, .. } => Some(read(folder)?),
        _ => None,
    };
    let session = &mut open(place, out).await?;
    match verb {
        RulesVerb::Publish { note, .. } => publish(session, files.unwrap_or_default(), note).await,
        RulesVerb::List => list(session).await,
        RulesVerb::Show { number, out } => show(session, number.unwrap_or(0), out.as_deref()).await,
        RulesVerb::Approve { number } => {
            let rules = session.client.approve_rules(wire::RulesRequest { number }).await?.into_inner();
            said(session, &rules)
        }
        RulesVerb::Withdraw { number } => {
            let rules = session.client.withdraw_rules(wire::RulesRequest { number }).await?.into_inner();
            said(session, &rules)
        }
    }
}

fn read(folder: &Path) -> Result<Vec<File>, Failure> {
    let files = rules_folder::read(folder).map_err(|e| Failure::new(FAILED, e))?;
    let files = files.map_err(|(_, findings)| {
        let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
        Failure::new(FINDING, lines.join("\n"))
    })?;
    Ok(files.into_iter().map(|(name, text)| File { name, text }).collect())
}

async fn publish(session: &mut Session<'_>, files: Vec<File>, note: String) -> Result<(), Failure> {
    let rules = published(session, files, note).await?;
    said(session, &rules)
}

/// Publishes a folder; what is wrong with it is printed.
pub(super) async fn published(
    session: &mut Session<'_>,
    files: Vec<File>,
    note: String,
) -> Result<wire::PublishedRules, Failure> {
    let answer = session.client.publish_rules(wire::PublishRulesRequest { files, note }).await?.into_inner();
    if let Some(rules) = answer.rules {
        return Ok(rules);
    }
    let findings = answer.findings;
    session.print(
        || {
            let one = |f: &wire::RulesFinding| {
                json!({ "file": f.file, "line": (f.line > 0).then_some(f.line), "code": f.code, "text": f.text,
                    "next": f.next })
            };
            json!({ "ok": false, "findings": findings.iter().map(one).collect::<Vec<_>>() })
        },
        || {
            let mut text: String = findings.iter().map(finding).collect();
            let word = if findings.len() == 1 { "finding" } else { "findings" };
            text.push_str(&format!("{} {word}, so nothing is published\n", findings.len()));
            text
        },
    );
    Err(Failure::new(FINDING, ""))
}

/// As `avouch rules check` prints it.
fn finding(found: &wire::RulesFinding) -> String {
    let line = if found.line > 0 { format!(":{}", found.line) } else { String::new() };
    format!("{}{line}: {}; {} [{}]\n", found.file, found.text, found.next, found.code)
}

fn said(session: &mut Session<'_>, rules: &wire::PublishedRules) -> Result<(), Failure> {
    let waits = rules.standing == "proposed";
    session.print(
        || shown(rules),
        || {
            let n = rules.number;
            let stand = match rules.standing.as_str() {
                "proposed" => {
                    format!("wait for another security person's yes: `avouch rules approve {n}`")
                }
                "in_force" => "are in force; connected nodes have them within a second".to_owned(),
                "withdrawn" => "are taken back".to_owned(),
                other => format!("are {other}"),
            };
            format!("rules {n} {stand}\n  {}\n", rules.digest)
        },
    );
    if waits { Err(Failure::new(PENDING, "")) } else { Ok(()) }
}

async fn list(session: &mut Session<'_>) -> Result<(), Failure> {
    let mut all: Vec<wire::PublishedRules> = Vec::new();
    loop {
        let before = all.last().map_or(0, |rules| rules.number);
        let request = wire::ListRulesRequest { before, limit: PAGE };
        let page = session.client.list_rules(request).await?.into_inner().rules;
        let last = page.last().map_or(0, |rules| rules.number);
        all.extend(page);
        if last <= 1 {
            break;
        }
    }
    let names = session.names().await?;
    session.print(
        || Value::Array(all.iter().map(shown).collect()),
        || {
            if all.is_empty() {
                return "No rules are published. Next: `avouch rules publish DIR`.\n".to_owned();
            }
            let rows: Vec<_> = all
                .iter()
                .map(|rules| {
                    let yes = yes(rules, &names);
                    let by = name(&rules.published_by, &names);
                    let at = rfc3339(rules.published_at);
                    [rules.number.to_string(), rules.standing.clone(), at, by, yes, rules.note.clone()]
                })
                .collect();
            table(["NUMBER", "STANDING", "PUBLISHED", "BY", "YES", "NOTE"], &rows)
        },
    );
    Ok(())
}

async fn show(session: &mut Session<'_>, number: u64, into: Option<&Path>) -> Result<(), Failure> {
    let answer = session.client.get_rules(wire::RulesRequest { number }).await?.into_inner();
    let rules = answer.rules.unwrap_or_default();
    let files: Vec<_> = answer.files.iter().map(|f| (f.name.as_str(), f.text.as_str())).collect();
    if let Some(folder) = into {
        // A name from elsewhere leads nowhere but into the folder.
        if let Some((wrong, _)) = files.iter().find(|(name, _)| !avouch_rules::Folder::knows(name)) {
            return Err(Failure::new(
                FAILED,
                format!("\"{}\" is no file of a rules folder", wrong.escape_default()),
            ));
        }
        rules_folder::write(folder, &files).map_err(|e| Failure::new(FAILED, e))?;
    }
    let names = session.names().await?;
    session.print(
        || {
            let mut value = shown(&rules);
            let texts = answer.files.iter().map(|f| (f.name.clone(), Value::from(f.text.clone())));
            if let Some(fields) = value.as_object_mut() {
                fields.insert("files".to_owned(), texts.collect());
            }
            value
        },
        || {
            let mut text = format!("rules {}: {}\n  {}\n", rules.number, rules.standing, rules.digest);
            let by = name(&rules.published_by, &names);
            text.push_str(&format!("  published by {by} at {}\n", rfc3339(rules.published_at)));
            if !rules.yes_by.is_empty() {
                let at = rfc3339(rules.valid_from);
                text.push_str(&format!("  yes by {}, in force from {at}\n", yes(&rules, &names)));
            }
            if !rules.note.is_empty() {
                text.push_str(&format!("  note: {}\n", rules.note));
            }
            match into {
                Some(folder) => {
                    text.push_str(&format!("wrote {} files to {}\n", files.len(), folder.display()))
                }
                None => files.iter().for_each(|(name, content)| {
                    text.push_str(&format!("  {name} ({} bytes)\n", content.len()));
                }),
            }
            text
        },
    );
    Ok(())
}

/// What people call somebody; the ID if it is nobody's any more.
fn name(id: &str, names: &BTreeMap<String, String>) -> String {
    names.get(id).cloned().unwrap_or_else(|| id.to_owned())
}

fn yes(rules: &wire::PublishedRules, names: &BTreeMap<String, String>) -> String {
    match rules.yes_by.as_str() {
        "" => "-".to_owned(),
        by if by == rules.published_by => "self".to_owned(),
        by => name(by, names),
    }
}

fn shown(rules: &wire::PublishedRules) -> Value {
    json!({
        "number": rules.number, "digest": rules.digest, "note": rules.note, "standing": rules.standing,
        "published_by": rules.published_by, "published_at": rules.published_at, "yes_by": rules.yes_by,
        "valid_from": (rules.valid_from > 0).then_some(rules.valid_from),
    })
}
