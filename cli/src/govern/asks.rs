//! Verbs on requests: what an identity asks a person, shown as it was hashed, and the answer.
//!
//! Never says yes to what was not shown: the answer carries the hash of the text on the screen. What others wrote reaches
//! the terminal without control characters, and without those that reorder or hide text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use avouch_credential::request;
use avouch_credential::shown::{laid_out, plain};
use avouch_domain::RequestContent;
use avouch_proto::governance_v1 as wire;
use serde_json::{Value, json};

use super::table::table;
use super::{AskVerb, Session};
use crate::exit::{FAILED, FINDING, PENDING};
use crate::failure::Failure;
use crate::verbs::text::rfc3339;

pub(super) async fn run(session: &mut Session<'_>, verb: AskVerb) -> Result<(), Failure> {
    match verb {
        AskVerb::List { all } => list(session, all).await,
        AskVerb::Show { id } => {
            let asked = Asked::fetch(session, id).await?;
            let names = session.names().await?;
            session.print(|| asked.json(), || asked.page(&names) + &asked.next());
            Ok(())
        }
        AskVerb::Yes { id } => answer(session, id, true).await,
        AskVerb::No { id } => answer(session, id, false).await,
    }
}

async fn list(session: &mut Session<'_>, all: bool) -> Result<(), Failure> {
    let requests =
        session.client.list_requests(wire::ListRequestsRequest { all }).await?.into_inner().requests;
    session.print(
        || json!({ "requests": requests.iter().map(shown).collect::<Vec<_>>() }),
        || {
            if requests.is_empty() {
                return "Nothing waits for a yes. `avouch ask list --all` shows what was asked in the last day.\n".to_owned();
            }
            let rows: Vec<_> = requests
                .iter()
                .map(|request| {
                    [
                        request.id.clone(),
                        request.standing.clone(),
                        request.spiffe_id.clone(),
                        plain(&format!("{} {}", request.action, request.resource)),
                        whose(request).to_owned(),
                        rfc3339(request.asked_at),
                    ]
                })
                .collect();
            table(["ID", "STANDING", "IDENTITY", "WANTS", "NEEDS", "ASKED"], &rows)
        },
    );
    Ok(())
}

/// A request with what it asks, whose hash was checked here.
struct Asked {
    request: wire::Request,
    text: String,
    content: RequestContent,
    identity: Option<wire::Identity>,
}

impl Asked {
    async fn fetch(session: &mut Session<'_>, id: String) -> Result<Self, Failure> {
        let got = session.client.get_request(wire::GetRequestRequest { id: id.clone() }).await?.into_inner();
        let request = got.request.ok_or_else(|| Failure::new(FAILED, "the server shows no request"))?;
        if request.id != id || request::hash(&got.text).0.as_slice() != request.hash {
            return Err(Failure::new(FINDING, format!("the server shows another text than the one of {id}")));
        }
        let content = request::read(&got.text).map_err(|e| Failure::new(FINDING, format!("{id}: {e}")))?;
        Ok(Self { request, text: got.text, content, identity: got.identity })
    }

    fn json(&self) -> Value {
        let mut value = shown(&self.request);
        if let Some(fields) = value.as_object_mut() {
            fields.insert("text".to_owned(), self.text.clone().into());
            fields.insert("task".to_owned(), self.content.task.to_string().into());
        }
        value
    }

    fn page(&self, names: &BTreeMap<String, String>) -> String {
        let (request, content) = (&self.request, &self.content);
        let name = |id: &str| names.get(id).cloned().unwrap_or_else(|| id.to_owned());
        let mut text = format!("{} {}\n", request.id, stands(request));
        let mut row = |key: &str, value: &str| {
            let _ = writeln!(text, "  {key:<9} {value}");
        };
        row("wants", &plain(&format!("{} {}", content.action, content.resource)));
        row("who", content.identity.as_str());
        if let Some(identity) = &self.identity {
            let (kind, owner) = (identity.kind.replace('_', " "), name(&identity.owner));
            row("", &format!("{kind} of {owner}, for {}, in {}", identity.purpose, identity.environment));
        }
        row("task", content.task.as_str());
        row("asked", &format!("{} from {}", rfc3339(request.asked_at), request.node));
        for (by, said) in [
            (&request.owner_yes_by, "yes, the owner's"),
            (&request.person_yes_by, "yes"),
            (&request.no_by, "no"),
        ] {
            if !by.is_empty() {
                row("said", &format!("{said}, by {}", name(by)));
            }
        }
        row("hash", &hex::encode(&request.hash));
        text.push_str("what would be done:\n");
        text.push_str(&laid_out(&content.shown));
        text
    }

    /// One line that tells it from others.
    fn in_short(&self) -> String {
        let content = &self.content;
        let lines = laid_out(&content.shown).lines().count();
        let wants = plain(&format!("{} {}", content.action, content.resource));
        format!("{}: {} wants {wants} ({lines} lines above)", self.request.id, content.identity)
    }

    fn next(&self) -> String {
        let id = &self.request.id;
        match self.request.standing.as_str() {
            "waiting" => format!(
                "next: `avouch ask yes {id}` allows exactly this, once; `avouch ask no {id}` refuses it\n"
            ),
            "yes" => format!("next: nothing; `avouch ask no {id}` takes it back until it is used\n"),
            _ => String::new(),
        }
    }
}

async fn answer(session: &mut Session<'_>, id: String, yes: bool) -> Result<(), Failure> {
    let asked = Asked::fetch(session, id.clone()).await?;
    let page = asked.page(&session.names().await?);
    if yes && std::io::stdin().is_terminal() {
        // Where the question stands, there stands what it is about.
        session.out.complain(&page);
        if !confirmed(&asked.in_short())? {
            return Err(Failure::new(FAILED, "nothing was said"));
        }
    } else if !session.place.json {
        session.out.say(&page);
    }
    let hash = asked.request.hash.clone();
    let said =
        session.client.answer_request(wire::AnswerRequestRequest { id, hash, yes }).await?.into_inner();
    session.print(|| shown(&said), || format!("{} {}\n", said.id, stands(&said)));
    if said.standing == "waiting" { Err(Failure::new(PENDING, "")) } else { Ok(()) }
}

/// Asks on the terminal. The question says again what a long text has pushed off the screen.
fn confirmed(what: &str) -> Result<bool, Failure> {
    let mut line = String::new();
    let mut terminal = std::io::stderr();
    let asked = write!(terminal, "{what}\nSay yes to exactly this? [y/N] ").and_then(|()| terminal.flush());
    let read = asked.and_then(|()| std::io::stdin().read_line(&mut line));
    read.map_err(|e| Failure::new(FAILED, format!("cannot ask on the terminal: {e}")))?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// Whose yes it takes.
fn whose(request: &wire::Request) -> &'static str {
    match (request.needs_owner, request.needs_person) {
        (true, true) => "the owner's yes and that of another person",
        (true, false) => "the owner's yes",
        _ => "the yes of a person other than the owner",
    }
}

/// Where it stands, in words.
fn stands(request: &wire::Request) -> String {
    let until = rfc3339(request.until);
    match request.standing.as_str() {
        "waiting" => {
            let half = !request.owner_yes_by.is_empty() || !request.person_yes_by.is_empty();
            let still = if half { "still waits" } else { "waits" };
            format!("{still} for {}, until {until}", whose(request))
        }
        "yes" => format!("was answered with yes: it may be done once, until {until}"),
        "no" => format!("was answered with no; the same is not asked again before {until}"),
        "spent" => format!("was answered with yes, and used at {until}"),
        _ => format!("has lapsed at {until}"),
    }
}

fn shown(request: &wire::Request) -> Value {
    json!({
        "id": request.id, "hash": hex::encode(&request.hash), "spiffe_id": request.spiffe_id, "node": request.node,
        "action": request.action, "resource": request.resource, "needs_owner": request.needs_owner,
        "needs_person": request.needs_person, "owner_yes_by": request.owner_yes_by,
        "person_yes_by": request.person_yes_by, "no_by": request.no_by, "standing": request.standing,
        "asked_at": request.asked_at, "until": request.until,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_stands_says_whose_yes_is_missing() {
        let request = wire::Request { standing: "waiting".into(), needs_person: true, ..Default::default() };
        assert_eq!(
            stands(&request),
            "waits for the yes of a person other than the owner, until 1970-01-01T00:00:00Z"
        );
        let half = wire::Request { needs_owner: true, owner_yes_by: "per_a".into(), ..request };
        assert!(stands(&half).starts_with("still waits for the owner's yes and that of another person"));
    }
}
