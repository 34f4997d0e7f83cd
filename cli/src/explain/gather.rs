//! Collects the facts: the kernel, the sockets, the agent, the server.
//!
//! Never fails as a whole: who does not answer becomes a fact. Nobody is waited for longer than [`ANSWER_MAX`].

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use avouch_domain::{Entry, SelectorSet, SpiffeId, Timestamp};
use avouch_proto::agent_debug_v1::{self, debug_client::DebugClient};
use avouch_proto::agent_v1::{GetAgentRequest, agent_client::AgentClient};
use avouch_proto::entry_v1::{ListEntriesRequest, entry_client::EntryClient, list_entries_request::Filter};
use avouch_proto::{convert, types};
use tokio::net::UnixStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::Question;
use super::diagnose::{AgentFacts, Facts, KnownAgent, NoAgent, Parent, SeenEntry, ServerFacts, SocketState};
use super::{agent_config, process};
use crate::clock;
use crate::verbs::VerbError;
use crate::verbs::channel::{REPLY_MAX, connect};

/// How far parents are followed upwards; real chains have two or three.
const CLIMB_MAX: usize = 32;
/// How long the agent and the server may each take to answer: a stopped process keeps its socket open.
const ANSWER_MAX: Duration = Duration::from_secs(5);

pub async fn gather(question: &Question) -> Facts {
    let agent = ask_agent(&question.admin_socket).await;
    let server = match &agent {
        Ok(agent) => in_time(ask_server(&question.server_socket, &agent.id, &question.spiffe_id)).await,
        // Without an agent the cause is found before the server is asked.
        Err(_) => Ok(ServerFacts::default()),
    };
    Facts {
        now: clock::now().wall,
        pid: question.pid,
        id: question.spiffe_id.clone(),
        process: process::look(question.pid),
        socket: look_at_socket(&question.agent_socket, question.pid).await,
        agent,
        server: server.map_err(|e| format!("{}: {e}", question.server_socket.display())),
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, VerbError>>) -> Result<T, VerbError> {
    let late = |_| VerbError::Text(format!("no answer within {} s", ANSWER_MAX.as_secs()));
    tokio::time::timeout(ANSWER_MAX, work).await.map_err(late)?
}

async fn look_at_socket(path: &Path, pid: i32) -> SocketState {
    if !path.exists() {
        return SocketState::Missing;
    }
    if let Some(why) = process::ids(pid).and_then(|ids| process::barrier(path, &ids)) {
        return SocketState::Denied(why);
    }
    match UnixStream::connect(path).await {
        Ok(_) => SocketState::Answers,
        // That the caller of this command may not open it says nothing about the process.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => SocketState::Answers,
        Err(_) => SocketState::Refused,
    }
}

async fn ask_agent(socket: &Path) -> Result<AgentFacts, NoAgent> {
    let unreachable = |e: VerbError| NoAgent::Unreachable(format!("{}: {e}", socket.display()));
    let info = in_time(agent_info(socket)).await.map_err(unreachable)?;
    let own = info.svid_chain.first().ok_or(NoAgent::Starting)?;
    let id = convert::spiffe_id(own.id.as_ref()).map_err(|e| unreachable(VerbError::Text(e.to_string())))?;
    // Who listens on the socket is the agent.
    let peer = UnixStream::connect(socket).await.and_then(|s| s.peer_cred());
    let pid = peer.ok().and_then(|peer| peer.pid());
    Ok(AgentFacts {
        id,
        expires_at: Timestamp::from_secs(own.expires_at),
        last_sync: Timestamp::from_secs(info.last_sync_success),
        looks_at_binaries: pid.and_then(agent_config::looks_at_binaries),
    })
}

async fn agent_info(socket: &Path) -> Result<agent_debug_v1::GetInfoResponse, VerbError> {
    let mut client = DebugClient::new(connect(socket).await?);
    Ok(client.get_info(agent_debug_v1::GetInfoRequest {}).await?.into_inner())
}

async fn ask_server(socket: &Path, agent: &SpiffeId, id: &SpiffeId) -> Result<ServerFacts, VerbError> {
    let channel = connect(socket).await?;
    let mut server = Server {
        agents: AgentClient::new(channel.clone()),
        entries: EntryClient::new(channel).max_decoding_message_size(REPLY_MAX),
    };
    let Some(known) = server.agent(agent).await? else { return Ok(ServerFacts::default()) };
    let mut facts = ServerFacts { agent: Some(KnownAgent { banned: known.banned }), entries: Vec::new() };
    if id.is_reserved() || id.trust_domain() != agent.trust_domain() {
        return Ok(facts);
    }
    let selectors = convert::selector_set(&known.selectors).unwrap_or_default();
    let mine = server.aliases(agent, &selectors).await?;
    for entry in server.entries_of(id).await? {
        let parent = server.parent(&entry, &mine).await?;
        facts.entries.push(SeenEntry { entry, parent });
    }
    Ok(facts)
}

struct Server {
    agents: AgentClient<Channel>,
    entries: EntryClient<Channel>,
}

impl Server {
    async fn agent(&mut self, id: &SpiffeId) -> Result<Option<types::Agent>, VerbError> {
        let request = GetAgentRequest { id: Some(convert::spiffe_id_to_wire(id)), output_mask: None };
        match self.agents.get_agent(request).await {
            Ok(agent) => Ok(Some(agent.into_inner())),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    async fn list(&mut self, agent: &SpiffeId, filter: Filter) -> Result<Vec<Entry>, VerbError> {
        let request = ListEntriesRequest { filter: Some(filter), ..Default::default() };
        let list = self.entries.list_entries(request).await?.into_inner().entries;
        list.iter()
            .map(|e| convert::delivered_entry(agent, e).map_err(|e| Status::internal(e.to_string()).into()))
            .collect()
    }

    async fn entries_of(&mut self, id: &SpiffeId) -> Result<Vec<Entry>, VerbError> {
        let filter = Filter { by_spiffe_id: Some(convert::spiffe_id_to_wire(id)), ..Default::default() };
        self.list(id, filter).await
    }

    /// The agent's own ID and those of the aliases that fit its selectors.
    async fn aliases(
        &mut self,
        agent: &SpiffeId,
        selectors: &SelectorSet,
    ) -> Result<BTreeSet<SpiffeId>, VerbError> {
        let server = SpiffeId::server(agent.trust_domain());
        let filter = Filter { by_parent_id: Some(convert::spiffe_id_to_wire(&server)), ..Default::default() };
        let mut mine: BTreeSet<_> = [agent.clone()].into();
        for alias in self.list(agent, filter).await? {
            if alias.selector_set().is_subset_of(selectors) && !alias.is_expired(clock::now().wall) {
                mine.insert(alias.spiffe_id.clone());
            }
        }
        Ok(mine)
    }

    /// Climbs from the entry's parent until one of the agent's own IDs, or until nobody is above.
    async fn parent(&mut self, entry: &Entry, mine: &BTreeSet<SpiffeId>) -> Result<Parent, VerbError> {
        let mut seen = BTreeSet::new();
        let mut above = vec![entry.parent_id.clone()];
        let mut found_somebody = false;
        while let Some(id) = above.pop() {
            if mine.contains(&id) {
                return Ok(Parent::OfThisAgent);
            }
            if !seen.insert(id.clone()) || seen.len() > CLIMB_MAX || id.is_server() {
                continue;
            }
            if id.is_reserved() {
                found_somebody |= id.is_agent() && self.agent(&id).await?.is_some();
            } else {
                let givers = self.entries_of(&id).await?;
                found_somebody |= !givers.is_empty();
                above.extend(givers.iter().map(|e| e.parent_id.clone()));
            }
        }
        Ok(if found_somebody { Parent::OfAnother } else { Parent::Missing })
    }
}
