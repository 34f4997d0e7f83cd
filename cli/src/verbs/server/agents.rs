//! `agent list|show|count|ban|evict|purge`: the attested nodes.

use avouch_proto::agent_v1::agent_client::AgentClient;
use avouch_proto::agent_v1::{self, count_agents_request, list_agents_request};
use avouch_proto::convert::AgentFilter;
use avouch_proto::types;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::verb;
use crate::clock;
use crate::verbs::channel::REPLY_MAX;
use crate::verbs::flags::{FlagSet, Flags};
use crate::verbs::{Call, Verb, VerbError, id_flag, id_text, json, text};

/// Agents asked for at once.
const PAGE: i32 = 1000;

pub fn verbs() -> Vec<Verb> {
    vec![
        verb("agent list", "Lists attested agents", filter_flags, |c| Box::pin(list(c))),
        verb("agent count", "Counts attested agents", filter_flags, |c| Box::pin(count(c))),
        verb("agent show", "Shows one attested agent", id_flags, |c| Box::pin(show(c))),
        verb("agent ban", "Bans an agent: it may not attest again", id_flags, |c| Box::pin(ban(c))),
        verb("agent evict", "Evicts an agent: it must attest again", id_flags, |c| Box::pin(evict(c))),
        verb("agent purge", "Evicts agents that expired and can attest again", purge_flags, |c| {
            Box::pin(purge(c))
        }),
    ]
}

fn id_flags(set: FlagSet) -> FlagSet {
    set.text("spiffeID", "", "SPIFFE ID of the agent")
}

fn filter_flags(set: FlagSet) -> FlagSet {
    set.texts("selector", "A selector the agent has, as type:value; may be repeated")
        .text("matchSelectorsOn", "superset", "How selectors are matched: exact, any, superset or subset")
        .text("attestationType", "", "Type of attestation, such as join_token")
        .text("canReattest", "", "true or false: whether the agent can attest again")
        .text("banned", "", "true or false: whether the agent is banned")
        .text("expiresBefore", "", "Expires before this time, as 2006-01-02 15:04:05 -0700 -07")
}

fn purge_flags(set: FlagSet) -> FlagSet {
    set.duration("expiredFor", "720h0m0s", "How long an agent must have been expired").bool(
        "dryRun",
        false,
        "Only show what would be done",
    )
}

async fn client(call: &Call<'_>) -> Result<AgentClient<Channel>, VerbError> {
    Ok(AgentClient::new(call.channel().await?).max_decoding_message_size(REPLY_MAX))
}

/// "true" and "false" filter, anything else does not, as in SPIRE.
fn three_way(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn selector_filter(flags: &Flags) -> Result<Option<types::SelectorMatch>, VerbError> {
    use types::selector_match::MatchBehavior;
    let texts = flags.texts("selector");
    let selectors = super::entry_input::selectors(texts).map_err(|error| {
        let bad = texts.iter().find(|text| text.parse::<avouch_domain::Selector>().is_err());
        VerbError::Text(format!("error parsing selector {:?}: {error}", bad.map_or("", String::as_str)))
    })?;
    if selectors.is_empty() {
        return Ok(None);
    }
    let how = match flags.text("matchSelectorsOn") {
        "exact" => MatchBehavior::MatchExact,
        "any" => MatchBehavior::MatchAny,
        "superset" => MatchBehavior::MatchSuperset,
        "subset" => MatchBehavior::MatchSubset,
        other => {
            return Err(VerbError::Text(format!(
                "match behavior \"{other}\" unknown, expected exact, any, superset or subset"
            )));
        }
    };
    Ok(Some(types::SelectorMatch { selectors, r#match: how.into() }))
}

fn list_filter(flags: &Flags) -> Result<list_agents_request::Filter, VerbError> {
    let filter = list_agents_request::Filter {
        by_attestation_type: flags.text("attestationType").to_owned(),
        by_selector_match: selector_filter(flags)?,
        by_banned: three_way(flags.text("banned")),
        by_can_reattest: three_way(flags.text("canReattest")),
        by_expires_before: flags.text("expiresBefore").to_owned(),
    };
    // On the wire a text that is no date filters nothing, so that a slip would list every agent.
    let date = AgentFilter::of_list(Some(&filter)).map_err(VerbError::text)?.expires_before;
    if !filter.by_expires_before.is_empty() && date.is_none() {
        return Err(VerbError::Text(format!(
            "date is not valid: \"{}\", expected the form 2006-01-02 15:04:05 -0700 -07",
            filter.by_expires_before
        )));
    }
    Ok(filter)
}

async fn list(call: &mut Call<'_>) -> Result<(), VerbError> {
    let filter = list_filter(&call.flags)?;
    let mut client = client(call).await?;
    let (mut agents, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = agent_v1::ListAgentsRequest {
            filter: Some(filter.clone()),
            output_mask: None,
            page_size: PAGE,
            page_token,
        };
        let reply = client.list_agents(request).await?.into_inner();
        agents.extend(reply.agents);
        page_token = reply.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    call.print(|| json::agents(&agents), || list_text(&agents));
    Ok(())
}

async fn count(call: &mut Call<'_>) -> Result<(), VerbError> {
    let f = list_filter(&call.flags)?;
    let filter = count_agents_request::Filter {
        by_attestation_type: f.by_attestation_type,
        by_selector_match: f.by_selector_match,
        by_banned: f.by_banned,
        by_can_reattest: f.by_can_reattest,
        by_expires_before: f.by_expires_before,
    };
    let request = agent_v1::CountAgentsRequest { filter: Some(filter) };
    let n = client(call).await?.count_agents(request).await?.into_inner().count;
    let many = usize::try_from(n).unwrap_or(0);
    call.print(|| json::count(n), || format!("{}\n", text::count(many, "attested agent", "attested agents")));
    Ok(())
}

fn given_id(call: &Call<'_>) -> Result<types::Spiffeid, VerbError> {
    match call.flags.text("spiffeID") {
        "" => Err(VerbError::text("a SPIFFE ID is required")),
        id => id_flag(id),
    }
}

async fn show(call: &mut Call<'_>) -> Result<(), VerbError> {
    let request = agent_v1::GetAgentRequest { id: Some(given_id(call)?), output_mask: None };
    let agent = client(call).await?.get_agent(request).await?.into_inner();
    call.print(|| json::agent(&agent), || show_text(&agent));
    Ok(())
}

async fn ban(call: &mut Call<'_>) -> Result<(), VerbError> {
    let request = agent_v1::BanAgentRequest { id: Some(given_id(call)?) };
    client(call).await?.ban_agent(request).await?;
    call.print(|| json!({}), || "Agent banned successfully\n".to_owned());
    Ok(())
}

async fn evict(call: &mut Call<'_>) -> Result<(), VerbError> {
    let request = agent_v1::DeleteAgentRequest { id: Some(given_id(call)?) };
    client(call).await?.delete_agent(request).await?;
    call.print(|| json!({}), || "Agent evicted successfully\n".to_owned());
    Ok(())
}

/// One expired agent and what became of it.
struct Purged {
    id: String,
    deleted: bool,
    error: String,
}

async fn purge(call: &mut Call<'_>) -> Result<(), VerbError> {
    let request = agent_v1::ListAgentsRequest {
        filter: Some(list_agents_request::Filter { by_can_reattest: Some(true), ..Default::default() }),
        output_mask: Some(types::AgentMask { x509svid_expires_at: true, ..Default::default() }),
        page_size: 0,
        page_token: String::new(),
    };
    let mut client = client(call).await?;
    let agents = client.list_agents(request).await?.into_inner().agents;
    let dead_since = clock::now().wall.secs() - call.flags.duration_ns("expiredFor") / 1_000_000_000;
    let mut purged = Vec::new();
    for agent in agents.into_iter().filter(|a| a.x509svid_expires_at < dead_since) {
        let mut one = Purged { id: id_text(agent.id.as_ref()), deleted: false, error: String::new() };
        if !call.flags.bool("dryRun") {
            match client.delete_agent(agent_v1::DeleteAgentRequest { id: agent.id }).await {
                Ok(_) => one.deleted = true,
                Err(status) => one.error = text::rpc_error(&status),
            }
        }
        purged.push(one);
    }
    call.print(|| purge_json(&purged), || purge_text(&purged));
    Ok(())
}

fn purge_json(purged: &[Purged]) -> Value {
    let one = |p: &Purged| json!({"agent_id": p.id, "deleted": p.deleted, "error": p.error});
    json!({"expired_agents": purged.iter().map(one).collect::<Vec<_>>()})
}

fn purge_text(purged: &[Purged]) -> String {
    if purged.is_empty() {
        return "No agents to purge.\n".to_owned();
    }
    let mut out = format!("Found {}\n\n", text::count(purged.len(), "expired agent", "expired agents"));
    for (title, deleted) in [("Agents purged:", true), ("Agents not purged:", false)] {
        let rows: Vec<_> = purged.iter().filter(|p| p.deleted == deleted).collect();
        if rows.is_empty() {
            continue;
        }
        out.push_str(&format!("{title}\n"));
        for row in rows {
            out.push_str(&format!("SPIFFE ID         : {}\n", row.id));
            if !row.error.is_empty() {
                out.push_str(&format!("Error             : {}\n", row.error));
            }
        }
    }
    out
}

fn list_text(agents: &[types::Agent]) -> String {
    if agents.is_empty() {
        return "No attested agents found\n".to_owned();
    }
    let mut out = format!("Found {}:\n\n", text::count(agents.len(), "attested agent", "attested agents"));
    for agent in agents {
        out.push_str(&block(agent));
    }
    out
}

fn show_text(agent: &types::Agent) -> String {
    let mut out = format!("Found an attested agent given its SPIFFE ID\n\n{}", block(agent));
    for s in &agent.selectors {
        out.push_str(&format!("Selectors         : {}:{}\n", s.r#type, s.value));
    }
    out
}

/// The lines of one agent and a blank one.
fn block(agent: &types::Agent) -> String {
    let mut out = String::new();
    let mut row = |label: &str, value: &str| out.push_str(&format!("{label:<18}: {value}\n"));
    row("SPIFFE ID", &id_text(agent.id.as_ref()));
    row("Attestation type", &agent.attestation_type);
    row("Expiration time", &text::go_time(agent.x509svid_expires_at));
    if agent.banned {
        row("Banned", "true");
    } else {
        row("Serial number", &agent.x509svid_serial_number);
    }
    row("Can re-attest", &agent.can_reattest.to_string());
    if !agent.agent_version.is_empty() {
        row("Agent version", &agent.agent_version);
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> types::Agent {
        types::Agent {
            id: Some(types::Spiffeid {
                trust_domain: "example.org".into(),
                path: "/spire/agent/join_token/t".into(),
            }),
            attestation_type: "join_token".into(),
            x509svid_serial_number: "2923".into(),
            x509svid_expires_at: 1_795_346_811,
            selectors: vec![types::Selector { r#type: "x509pop".into(), value: "subject:cn:node-7".into() }],
            agent_version: "0.1.0".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_list_reads_as_spire_prints_it() {
        assert_eq!(
            list_text(&[agent()]),
            "Found 1 attested agent:

SPIFFE ID         : spiffe://example.org/spire/agent/join_token/t
Attestation type  : join_token
Expiration time   : 2026-11-22 11:26:51 +0000 UTC
Serial number     : 2923
Can re-attest     : false
Agent version     : 0.1.0

"
        );
        assert_eq!(list_text(&[]), "No attested agents found\n");
    }

    #[test]
    fn a_banned_agent_shows_that_in_place_of_its_serial() {
        let text = list_text(&[types::Agent { banned: true, ..agent() }]);
        assert!(text.contains("\nBanned            : true\n") && !text.contains("Serial number"));
    }

    #[test]
    fn one_agent_is_shown_with_its_selectors() {
        let text = show_text(&agent());
        assert!(text.starts_with("Found an attested agent given its SPIFFE ID\n\nSPIFFE ID         : "));
        assert!(text.ends_with("0.1.0\n\nSelectors         : x509pop:subject:cn:node-7\n"));
    }

    #[test]
    fn a_purge_says_what_went_and_what_stayed() {
        assert_eq!(purge_text(&[]), "No agents to purge.\n");
        let row = |id: &str, deleted, error: &str| Purged { id: id.into(), deleted, error: error.into() };
        assert_eq!(
            purge_text(&[row("spiffe://td/a", true, ""), row("spiffe://td/b", false, "no")]),
            "Found 2 expired agents\n\nAgents purged:\nSPIFFE ID         : spiffe://td/a\nAgents not purged:\nSPIFFE ID         : spiffe://td/b\nError             : no\n"
        );
    }
}
