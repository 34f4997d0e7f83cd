//! `avouch task token`: a token for one resource, for a process of a run.
//!
//! Prints the token and nothing else, on standard output alone.

use std::path::Path;

use avouch_proto::run_v1::TaskTokenRequest;
use avouch_proto::run_v1::run_client::RunClient;

use crate::failure::Failure;
use crate::out::Out;
use crate::verbs::channel::{AGENT, dial};

/// Asks the node agent for a token, and gives the exit code.
pub async fn token(resource: String, agent_socket: &Path, out: &mut Out) -> u8 {
    let given = asked(resource, agent_socket).await;
    Failure::code_of(given.map(|token| out.line(&token)), out)
}

async fn asked(resource: String, agent_socket: &Path) -> Result<String, Failure> {
    let place = AGENT.found(agent_socket, |name| std::env::var(name).ok())?;
    let mut client = RunClient::new(dial(&place).await?);
    Ok(client.task_token(TaskTokenRequest { resource }).await?.into_inner().token)
}
