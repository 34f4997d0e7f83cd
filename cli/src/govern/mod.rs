//! Who owns what runs: people, identities, published rules, requests, grants, emergencies, what was found or is accepted, and
//! the log.
//!
//! Asks the server on its admin socket; the kernel tells it which user asks. Never decides who may do what.

mod arguments;
mod asks;
mod emergencies;
mod findings;
mod gates;
mod grants;
mod http_gates;
mod identities;
mod known;
mod limits;
mod matching;
mod moment;
mod people;
mod placing;
mod reach;
mod records;
mod requirements;
mod rules;
mod stops;
mod table;
mod trace;

use std::path::PathBuf;

use avouch_credential::ledger::trace::Traced;
use avouch_proto::governance_v1 as wire;
use avouch_proto::governance_v1::governance_client::GovernanceClient;
use serde_json::{Value, json};
use tonic::transport::Channel;

pub use arguments::{AskVerb, AuditVerb, Command, GrantVerb, IdentityVerb, PersonVerb, RulesVerb};
pub use emergencies::EmergencyVerb;
pub use findings::FindingVerb;
pub use gates::{AddHook, AddMcp, add_hook, add_mcp};
pub use http_gates::{AddHttp, add_http};
pub use known::{Known, known};
pub use table::table;

use crate::failure::Failure;
use crate::out::Out;
use crate::verbs::channel::{REPLY_MAX, connect};
use crate::verbs::text::rfc3339;

/// Where to ask, and how to answer.
#[derive(Clone, Debug)]
pub struct Place {
    pub server_socket: PathBuf,
    /// The Workload API of the node agent here.
    pub agent_socket: PathBuf,
    /// One line of JSON in place of text.
    pub json: bool,
}

/// One call of a verb.
struct Session<'a> {
    place: &'a Place,
    client: GovernanceClient<Channel>,
    out: &'a mut Out,
}

impl Session<'_> {
    /// Prints `json` if JSON is wanted, else `text`.
    fn print(&mut self, json: impl FnOnce() -> Value, text: impl FnOnce() -> String) {
        if self.place.json {
            self.out.line(&json().to_string());
        } else {
            self.out.say(&text());
        }
    }
}

/// Does a verb and gives its exit code.
pub async fn run(command: Command, place: &Place, out: &mut Out) -> u8 {
    let done = dispatch(command, place, out).await;
    Failure::code_of(done, out)
}

/// Does a verb on published rules and gives its exit code.
pub async fn run_rules(verb: RulesVerb, place: &Place, out: &mut Out) -> u8 {
    let done = rules::run(verb, place, out).await;
    Failure::code_of(done, out)
}

async fn open<'a>(place: &'a Place, out: &'a mut Out) -> Result<Session<'a>, Failure> {
    let channel = connect(&place.server_socket).await?;
    let client = GovernanceClient::new(channel).max_decoding_message_size(REPLY_MAX);
    Ok(Session { place, client, out })
}

async fn dispatch(command: Command, place: &Place, out: &mut Out) -> Result<(), Failure> {
    // What needs no server does not ask for one.
    if let Command::Audit(AuditVerb::Verify { offline: Some(file), key }) = command {
        return records::verify_file(&file, key.as_deref(), place, out);
    }
    if let Command::Audit(AuditVerb::Match { offline: Some(file), key }) = command {
        return matching::run_file(&file, key.as_deref(), place, out);
    }
    if let Command::Audit(AuditVerb::Argument { salt, arguments }) = command {
        return records::argument(&salt, &arguments, place, out);
    }
    if let Command::Trace { what, source, offline: Some(file), key } = &command {
        let what = what.parse::<Traced>()?;
        return trace::run_file(file, key.as_deref(), (&what, source.as_deref()), place, out);
    }
    let session = &mut open(place, out).await?;
    match command {
        Command::Init { name } => people::init(session, name).await,
        Command::Person(verb) => people::run(session, verb).await,
        Command::Identity(verb) => identities::run(session, verb).await,
        Command::Pause { name } => stops::pause(session, name).await,
        Command::Resume { name } => identities::resume(session, name).await,
        Command::Stop { name, drill } => stops::stop(session, name, drill).await,
        Command::Found => identities::found(session).await,
        Command::Adopt(adopt) => identities::adopt(session, adopt).await,
        Command::Ask(verb) => asks::run(session, verb).await,
        Command::Grant(verb) => grants::run(session, verb).await,
        Command::Finding(verb) => findings::run(session, verb).await,
        Command::Emergency(verb) => emergencies::run(session, verb).await,
        Command::Audit(verb) => records::run(session, verb).await,
        // A file was traced before a server was asked for.
        Command::Trace { what, source, .. } => {
            trace::run(session, &what.parse::<Traced>()?, source.as_deref()).await
        }
        Command::Verify { require } => requirements::verify(session, &require).await,
        Command::Console => console(session).await,
    }
}

/// Prints a link to the pages.
async fn console(session: &mut Session<'_>) -> Result<(), Failure> {
    let link = session.client.open_pages(wire::OpenPagesRequest {}).await?.into_inner();
    session.print(
        || json!({"url": link.url, "ends_at": rfc3339(link.ends_at)}),
        || {
            format!(
                "{}\nOpen it within a minute, in a browser on this machine: it signs you in, once.\n",
                link.url
            )
        },
    );
    Ok(())
}
