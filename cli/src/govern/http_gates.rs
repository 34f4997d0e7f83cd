//! Adding an HTTP gate: where the API is, what can be asked of it, and where the secret lies that the gate adds.
//!
//! Never reads the secret for anything but to see that it is one and that nobody else could read it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use avouch_proto::governance_v1 as wire;
use avouch_rules::{
    Environment, Folder, HTTP_READ, HttpDoor, HttpMethod, NewHttpGate, NewRoute, SecretPlace, Template,
    add_http_gate, let_preset,
};
use clap::Args;
use serde_json::json;

use super::gates::{FIRST_PRESET, first, found, in_force, publish};
use super::{Failure, Place, Session, open};
use crate::exit::{FAILED, PENDING};
use crate::out::Out;
use crate::secret_file;

/// The header that a secret goes into.
const AUTHORIZATION: &str = "authorization";

/// A gate in front of a web API.
#[derive(Debug, Args)]
pub struct AddHttp {
    /// Its name, which the IDs of what it guards begin with
    pub name: String,
    /// https://HOST[:PORT][/BASE], http:// to this machine, or unix:/PATH
    pub url: String,
    /// What can be asked, as 'METHOD PATH=NAME'; 'PATH?a,b' names query parameters that rules see, '?*' lets all through
    /// [default: every path can be read, as NAME/read]
    #[arg(long = "route", value_name = "ROUTE")]
    pub routes: Vec<String>,
    /// A file with the secret that the gate adds, mode 0600
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,
    /// The header that it goes into [default: authorization, behind "Bearer "]
    #[arg(long, value_name = "HEADER", requires = "secret_file")]
    pub secret_header: Option<String>,
    /// What stands before it in the header
    #[arg(long, value_name = "TEXT", requires = "secret_file")]
    pub secret_prefix: Option<String>,
    /// Certificates in PEM that alone vouch for the API
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The variable of the command that says where the gate is [default: NAME_URL]
    #[arg(long, value_name = "VARIABLE")]
    pub env_var: Option<String>,
    /// No run has it: a workload with the SPIFFE ID of this path serves it, `avouch gate serve`, for all who show an
    /// X509-SVID
    #[arg(long, value_name = "PATH", conflicts_with = "env_var")]
    pub caller: Option<String>,
    /// The preset whose AI agents may read through it
    #[arg(long, default_value = FIRST_PRESET)]
    pub preset: String,
    /// test, staging or prod: identities of another environment never get in
    #[arg(long, default_value = "test")]
    pub env: String,
    /// The domain of what it guards
    #[arg(long, default_value = "code")]
    pub domain: String,
    /// How sensitive that is; 0 is what everybody may see
    #[arg(long, default_value_t = 1)]
    pub sensitivity: i64,
}

/// Adds the gate and publishes the rules with it.
pub async fn add_http(add: AddHttp, place: &Place, out: &mut Out) -> u8 {
    let done = added(add, place, out).await;
    Failure::code_of(done, out)
}

async fn added(add: AddHttp, place: &Place, out: &mut Out) -> Result<(), Failure> {
    let environment: Environment =
        add.env.parse().map_err(|e| Failure::usage(format!("--env {}: {e}", add.env)))?;
    let routes = add.routes.iter().map(|text| route(text)).collect::<Result<Vec<_>, _>>()?;
    let routes = if routes.is_empty() { vec![everything()?] } else { routes };
    let secret = secret_place(&add)?;
    let ca = add.ca_file.as_ref().map(|path| {
        let read = std::fs::read_to_string(path);
        read.map_err(|e| Failure::new(FAILED, format!("--ca-file {}: {e}", path.display())))
    });
    let ca = ca.transpose()?;
    let door = match &add.caller {
        Some(caller) => HttpDoor::Shared { caller: caller.clone() },
        None => HttpDoor::Run { env_var: add.env_var.clone().unwrap_or_else(|| variable_of(&add.name)) },
    };
    let new = NewHttpGate {
        name: &add.name,
        upstream: &add.url,
        door,
        ca: ca.as_deref(),
        secret: secret.as_ref(),
        routes: &routes,
        environment,
        domain: &add.domain,
        sensitivity: add.sensitivity,
    };
    let session = &mut open(place, out).await?;
    let before = in_force(session).await?;
    let folder = with_gate(before, &new, &add.preset)?;
    let rules = publish(session, &folder, &add.name).await?;
    told(session, &new, &rules);
    if rules.standing == "proposed" { Err(Failure::new(PENDING, "")) } else { Ok(()) }
}

/// The rules with the gate, and with a permit to read through it.
fn with_gate(before: Option<Folder>, new: &NewHttpGate<'_>, preset: &str) -> Result<Folder, Failure> {
    let reads = new.routes.iter().find(|route| route.method.reads()).map(|route| route.resource.as_str());
    let folder = match (before, reads) {
        (None, Some(reads)) => add_http_gate(&first(HTTP_READ, new.name, reads), new),
        (None, None) => {
            let text = "no rules are published yet, and first ones let AI agents read: add a route with GET, or \
                        begin with `avouch rules new`";
            return Err(Failure::new(FAILED, text));
        }
        (Some(folder), reads) => add_http_gate(&folder, new).and_then(|folder| match reads {
            Some(reads) => let_preset(&folder, preset, HTTP_READ, (new.name, reads)),
            None => Ok(folder),
        }),
    };
    folder.map_err(found)
}

fn everything() -> Result<NewRoute, Failure> {
    Ok(NewRoute { other_query: true, ..route("GET /{path..}=read")? })
}

/// Reads `METHOD PATH[?QUERY]=NAME`.
fn route(text: &str) -> Result<NewRoute, Failure> {
    let wrong = |why: &str| {
        Failure::usage(format!("--route '{text}': {why}; write it as 'GET /tickets/{{id}}=ticket'"))
    };
    let (method, rest) = text.split_once(' ').ok_or_else(|| wrong("expected a method and a path"))?;
    let method = HttpMethod::from_name(method).ok_or_else(|| {
        wrong(&format!(
            "\"{method}\" is none of GET, which stands for HEAD as well, POST, PUT, PATCH and DELETE"
        ))
    })?;
    let (path, resource) =
        rest.rsplit_once('=').ok_or_else(|| wrong("expected = and the name of a resource"))?;
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let path = Template::parse(path.trim()).map_err(|e| wrong(&e))?;
    let names = query.split(',').filter(|name| !name.is_empty());
    let (others, names): (Vec<_>, Vec<_>) = names.map(str::to_owned).partition(|name| name == "*");
    let query: BTreeSet<_> = names.into_iter().collect();
    Ok(NewRoute {
        method,
        path,
        resource: resource.trim().to_owned(),
        query,
        other_query: !others.is_empty(),
    })
}

fn secret_place(add: &AddHttp) -> Result<Option<SecretPlace>, Failure> {
    let Some(file) = &add.secret_file else { return Ok(None) };
    let read = secret_file::read(file).map_err(|e| Failure::new(FAILED, format!("--secret-file: {e}")))?;
    let file = read.path.into_os_string().into_string().map_err(|path| {
        Failure::new(FAILED, format!("--secret-file {}: expected a path that is text", path.display()))
    })?;
    let header = add.secret_header.clone().unwrap_or_else(|| AUTHORIZATION.to_owned()).to_ascii_lowercase();
    let bearer = if header == AUTHORIZATION { "Bearer " } else { "" };
    let prefix = add.secret_prefix.clone().unwrap_or_else(|| bearer.to_owned());
    Ok(Some(SecretPlace { file, header, prefix }))
}

/// `my-api` becomes `MY_API_URL`.
fn variable_of(name: &str) -> String {
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    format!("{name}_URL")
}

fn told(session: &mut Session<'_>, gate: &NewHttpGate<'_>, rules: &wire::PublishedRules) {
    let line = |route: &NewRoute| {
        let id = format!("{}/{}", gate.name, route.resource);
        (format!("{} {}", route.method.name(), route.path), route.action(), id)
    };
    let lines: Vec<_> = gate.routes.iter().map(line).collect();
    session.print(
        || {
            let one = |(asked, action, id): &(String, &str, String)| {
                json!({"route": asked, "action": action, "resource": id})
            };
            let (key, door) = match &gate.door {
                HttpDoor::Run { env_var } => ("env_var", env_var),
                HttpDoor::Shared { caller } => ("caller", caller),
            };
            json!({"gate": gate.name, key: door, "routes": lines.iter().map(one).collect::<Vec<_>>(),
                "rules": rules.number, "standing": rules.standing})
        },
        || {
            let mut text = format!("gate {}: in front of {}\n", gate.name, gate.upstream);
            for (asked, action, id) in &lines {
                text.push_str(&format!("  {asked}  {action} {id}\n"));
            }
            let number = rules.number;
            text.push_str(&match rules.standing.as_str() {
                "proposed" => {
                    format!("rules {number} wait for another security person: `avouch rules approve {number}`\n")
                }
                _ => format!("rules {number} are in force. Next: {}\n", next(gate)),
            });
            text
        },
    );
}

/// What is to be done so that somebody comes to the gate.
fn next(gate: &NewHttpGate<'_>) -> String {
    match &gate.door {
        HttpDoor::Run { env_var } => {
            format!("`avouch run IDENTITY -- COMMAND`, which finds the gate at ${env_var}")
        }
        HttpDoor::Shared { caller } => {
            format!("`avouch gate serve {}` as a process that an entry gives {caller}", gate.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_read_as_it_is_written_for_people() {
        let read = route("GET /tickets/{id}?state,page,*=ticket").unwrap();
        assert_eq!((read.method, read.path.to_string().as_str()), (HttpMethod::Get, "/tickets/{id}"));
        assert_eq!((read.resource.as_str(), read.query.len(), read.other_query), ("ticket", 2, true));
        for (text, told) in [
            ("/tickets=x", "expected a method and a path"),
            ("HEAD /tickets=x", "GET, which stands for HEAD as well"),
            ("GET /tickets", "expected = and the name of a resource"),
            ("GET tickets=x", "does not begin with /"),
        ] {
            let error = route(text).unwrap_err();
            assert!(error.text.contains(told), "{text}: {}", error.text);
        }
        assert_eq!(variable_of("my-api.v2"), "MY_API_V2_URL");
    }

    #[test]
    fn the_first_rules_let_ai_agents_read_what_serves_their_purpose() {
        let routes = [everything().unwrap()];
        let new = NewHttpGate {
            name: "api",
            upstream: "https://api.example.org",
            door: HttpDoor::Run { env_var: "API_URL".to_owned() },
            ca: None,
            secret: None,
            routes: &routes,
            environment: Environment::Test,
            domain: "code",
            sensitivity: 1,
        };
        let folder = with_gate(None, &new, FIRST_PRESET).unwrap();
        let rules = avouch_rules::check(&folder).unwrap();
        assert_eq!((rules.len(), rules.examples()), (1, 2));
        // A second one is let through by a permit of its own only where the preset does not speak of reading.
        let other =
            NewHttpGate { name: "web", door: HttpDoor::Run { env_var: "WEB_URL".to_owned() }, ..new.clone() };
        let both = with_gate(Some(folder), &other, FIRST_PRESET).unwrap();
        assert_eq!(avouch_rules::check(&both).unwrap().len(), 1);
        let written = [NewRoute { method: HttpMethod::Post, ..everything().unwrap() }];
        let error = with_gate(None, &NewHttpGate { routes: &written, ..new }, FIRST_PRESET).unwrap_err();
        assert!(error.text.contains("add a route with GET"), "{}", error.text);
    }
}
