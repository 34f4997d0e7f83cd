//! `token generate`: a one-time proof for a new agent.

use avouch_proto::agent_v1::{CreateJoinTokenRequest, agent_client::AgentClient};

use crate::verbs::flags::FlagSet;
use crate::verbs::{Call, VerbError, id_flag, json};

pub fn flags(set: FlagSet) -> FlagSet {
    set.int("ttl", 600, "Seconds until the token ends").text(
        "spiffeID",
        "",
        "SPIFFE ID to give to the agent that uses the token, besides its own",
    )
}

pub async fn generate(call: &mut Call<'_>) -> Result<(), VerbError> {
    let id = call.flags.text("spiffeID");
    let agent_id = if id.is_empty() { None } else { Some(id_flag(id)?) };
    let ttl = i32::try_from(call.flags.int("ttl")).map_err(|_| VerbError::text("ttl is out of range"))?;
    let unnamed = agent_id.is_none();
    let mut client = AgentClient::new(call.channel().await?);
    let request = CreateJoinTokenRequest { ttl, token: String::new(), agent_id };
    let token = client.create_join_token(request).await?.into_inner();
    call.print(|| json::join_token(&token), || token_text(&token.value, unnamed));
    Ok(())
}

fn token_text(value: &str, unnamed: bool) -> String {
    let warning = if unnamed { "Warning: Missing SPIFFE ID.\n" } else { "" };
    format!("Token: {value}\n{warning}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_without_an_id_is_warned_about() {
        assert_eq!(token_text("t", true), "Token: t\nWarning: Missing SPIFFE ID.\n");
        assert_eq!(token_text("t", false), "Token: t\n");
    }
}
