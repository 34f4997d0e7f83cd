//! Verbs on people.

use avouch_proto::governance_v1 as wire;
use serde_json::{Value, json};

use super::stops::{bounds, with_bounds};
use super::table::table;
use super::{PersonVerb, Session};
use crate::exit::PENDING;
use crate::failure::Failure;

pub(super) async fn init(session: &mut Session<'_>, name: String) -> Result<(), Failure> {
    let person = session.client.init(wire::InitRequest { name }).await?.into_inner();
    session.print(
        || shown(&person),
        || {
            format!(
                "You are {} ({}), a security person.\nNext: `avouch person add` a second one: until there is one, nobody can \
                 say yes for production.\n",
                person.name, person.id
            )
        },
    );
    Ok(())
}

pub(super) async fn run(session: &mut Session<'_>, verb: PersonVerb) -> Result<(), Failure> {
    match verb {
        PersonVerb::Add { name, uid, issuer, subject, security } => {
            let (issuer, subject) = (issuer.unwrap_or_default(), subject.unwrap_or_default());
            let asked = wire::AddPersonRequest { name, uid, security, issuer, subject };
            let person = session.client.add_person(asked).await?;
            said(session, &person.into_inner())
        }
        // Without an account: none, which the arguments make sure was said.
        PersonVerb::SignIn { issuer, subject, none: _ } => {
            let (issuer, subject) = (issuer.unwrap_or_default(), subject.unwrap_or_default());
            let person = session.client.set_sign_in(wire::SetSignInRequest { issuer, subject }).await?;
            signs_in(session, &person.into_inner());
            Ok(())
        }
        PersonVerb::Approve { id } => {
            let person = session.client.approve_person(wire::ApprovePersonRequest { id }).await?;
            said(session, &person.into_inner())
        }
        PersonVerb::Leave { person, apply } => leave(session, &person, apply).await,
        PersonVerb::List => {
            let all = session.client.list_people(wire::ListPeopleRequest {}).await?.into_inner();
            session.print(
                || json!({"people": all.people.iter().map(shown).collect::<Vec<_>>(), "you": all.caller}),
                || list(&all),
            );
            Ok(())
        }
    }
}

fn said(session: &mut Session<'_>, person: &wire::Person) -> Result<(), Failure> {
    let waits = person.state == "proposed";
    session.print(
        || shown(person),
        || {
            let next = if waits {
                format!("waits for another security person's yes: `avouch person approve {}`", person.id)
            } else {
                "is added".to_owned()
            };
            format!("{} ({}) {next}\n", person.name, person.id)
        },
    );
    if waits { Err(Failure::new(PENDING, "")) } else { Ok(()) }
}

fn signs_in(session: &mut Session<'_>, person: &wire::Person) {
    session.print(
        || shown(person),
        || match person.subject.as_str() {
            "" => format!("{} ({}) signs in as no account\n", person.name, person.id),
            subject => {
                format!("{} ({}) signs in as {subject} at {}\n", person.name, person.id, person.issuer)
            }
        },
    );
}

async fn leave(session: &mut Session<'_>, person: &str, apply: bool) -> Result<(), Failure> {
    let id = session.person(Some(person)).await?;
    let request = wire::LeavePersonRequest { id: id.clone(), dry_run: !apply };
    let left = session.client.leave_person(request).await?.into_inner();
    let names = session.names().await?;
    session.print(
        || {
            let passed: Vec<_> =
                left.passed.iter().map(|p| json!({"spiffe_id": p.spiffe_id, "owner": p.owner})).collect();
            let value = json!({"person": id, "passed": passed, "paused": left.paused, "more": left.more, "dry_run": !apply});
            with_bounds(value, &left.nodes, left.accepted_until)
        },
        || {
            let passed = left.passed.iter().map(|p| {
                let owner = names.get(&p.owner).unwrap_or(&p.owner);
                [p.spiffe_id.clone(), format!("passes to {owner}, who has 30 days to confirm")]
            });
            let paused = left.paused.iter().map(|name| [name.clone(), "pauses: it has no successor".to_owned()]);
            let rows: Vec<_> = passed.chain(paused).collect();
            let mut text = match rows.is_empty() {
                true => String::new(),
                false => table(["IDENTITY", "WHAT BECOMES OF IT"], &rows),
            };
            if left.more {
                text.push_str("And more: these are the first.\n");
            }
            text.push_str(&match apply {
                true if left.paused.is_empty() => format!("{person} has left.\n"),
                true => format!("{person} has left.\n{}", bounds(&left.nodes, left.accepted_until)),
                false => format!("Nothing was done yet: the same with --apply lets {person} leave.\n"),
            });
            text
        },
    );
    Ok(())
}

fn list(all: &wire::ListPeopleResponse) -> String {
    if all.people.is_empty() {
        return "Nobody yet. Next: `avouch init NAME`, as the user who owns the server's data.\n".to_owned();
    }
    let rows: Vec<_> = all
        .people
        .iter()
        .map(|person| {
            let role = if person.security { "security" } else { "-" };
            let you = if person.id == all.caller { "you" } else { "" };
            let uid = person.uid.map_or_else(|| "-".to_owned(), |uid| uid.to_string());
            let account = match person.subject.as_str() {
                "" => "-".to_owned(),
                subject => format!("{subject} at {}", person.issuer),
            };
            let (id, name, state) = (person.id.clone(), person.name.clone(), person.state.clone());
            [id, name, uid, role.into(), state, account, you.into()]
        })
        .collect();
    table(["ID", "NAME", "UID", "ROLE", "STATE", "SIGNS IN AS", ""], &rows)
}

fn shown(person: &wire::Person) -> Value {
    json!({
        "id": person.id, "name": person.name, "uid": person.uid, "security": person.security,
        "issuer": person.issuer, "subject": person.subject,
        "state": person.state, "added_by": person.added_by, "yes_by": person.yes_by, "added_at": person.added_at,
    })
}

impl Session<'_> {
    /// The ID of a person who is given by ID or by name.
    pub(super) async fn person(&mut self, given: Option<&str>) -> Result<String, Failure> {
        let Some(given) = given else { return Ok(String::new()) };
        if given.starts_with(avouch_domain::person::PERSON_PREFIX) {
            return Ok(given.to_owned());
        }
        let all = self.client.list_people(wire::ListPeopleRequest {}).await?.into_inner();
        let mut named = all.people.iter().filter(|person| person.name == given);
        match (named.next(), named.next()) {
            (Some(person), None) => Ok(person.id.clone()),
            (Some(_), Some(_)) => {
                Err(Failure::usage(format!("several people are called {given}, give the ID")))
            }
            _ => Err(Failure::usage(format!("nobody is called {given}: `avouch person list` shows all"))),
        }
    }

    /// IDs of the people who have left.
    pub(super) async fn left(&mut self) -> Result<std::collections::BTreeSet<String>, Failure> {
        let all = self.client.list_people(wire::ListPeopleRequest {}).await?.into_inner();
        Ok(all.people.into_iter().filter(|person| person.state == "left").map(|person| person.id).collect())
    }

    /// Names of people by their ID.
    pub(super) async fn names(&mut self) -> Result<std::collections::BTreeMap<String, String>, Failure> {
        let all = self.client.list_people(wire::ListPeopleRequest {}).await?.into_inner();
        Ok(all.people.into_iter().map(|person| (person.id, person.name)).collect())
    }
}
