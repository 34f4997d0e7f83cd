//! Agent service: attested nodes, join tokens, attestation and renewal.
//!
//! Never decides anything about a node: reads the request, asks the services, says the result.

use std::net::IpAddr;
use std::sync::Arc;

use avouch_proto::agent_v1::agent_server::Agent;
use avouch_proto::agent_v1::{
    AttestAgentRequest, AttestAgentResponse, BanAgentRequest, CountAgentsRequest, CountAgentsResponse,
    CreateJoinTokenRequest, DeleteAgentRequest, GetAgentRequest, ListAgentsRequest, ListAgentsResponse,
    PostStatusRequest, PostStatusResponse, RenewAgentRequest, RenewAgentResponse,
};
use avouch_proto::convert::{AgentFilter, agent_id, node_to_wire, workload_id, x509_svid_to_wire};
use avouch_proto::types;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::api::attest;
use crate::api::call::{Call, open};
use crate::api::caller::Peer;
use crate::api::entry::{match_of, match_word, selector_text};
use crate::api::status::{bad_token, invalid, join_token_failed, node_failed, renew_failed, write_failed};
use crate::audit_log::AuditLine;
use crate::service::{NewJoinToken, NodeError, NodeFilter, PageRequest, RenewError, Services};

/// The service over TCP and on the admin socket.
#[derive(Clone)]
pub struct AgentApi {
    pub services: Services,
}

impl std::fmt::Debug for AgentApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AgentApi")
    }
}

fn node_filter(filter: AgentFilter) -> NodeFilter {
    NodeFilter {
        attestation_type: filter.attestation_type,
        selectors: filter.selectors.map(|(how, set)| (match_of(how), set)),
        banned: filter.banned,
        can_reattest: filter.can_reattest,
        expires_before: filter.expires_before,
    }
}

fn audit_filter(line: &mut AuditLine, filter: &AgentFilter) {
    line.text("node_attestor_type", filter.attestation_type.as_deref().unwrap_or_default());
    if let Some(banned) = filter.banned {
        line.flag("by_banned", banned);
    }
    if let Some(can_reattest) = filter.can_reattest {
        line.flag("by_can_reattest", can_reattest);
    }
    if let Some((how, set)) = &filter.selectors {
        line.text("by_selector_match", match_word(*how));
        line.text("by_selectors", selector_text(set.iter()));
    }
}

/// The text of an ID as a request gives it, for logs only.
pub(super) fn id_text(id: Option<&types::Spiffeid>) -> String {
    id.map(|id| format!("spiffe://{}{}", id.trust_domain, id.path)).unwrap_or_default()
}

impl AgentApi {
    fn agent_id(&self, id: Option<&types::Spiffeid>) -> Result<avouch_domain::SpiffeId, Status> {
        Ok(agent_id(self.services.trust_domain(), id).map_err(|e| invalid("invalid agent ID", &e))?)
    }

    async fn remove(&self, call: &Call, id: Option<&types::Spiffeid>, ban: bool) -> Result<(), Status> {
        let id = self.agent_id(id)?;
        let (now, actor) = (call.now(), call.actor());
        let (done, gist, message) = if ban {
            (self.services.ban_agent(now, &actor, &id).await, "failed to ban agent", "Agent banned")
        } else {
            (self.services.delete_agent(now, &actor, &id).await, "failed to remove agent", "Agent deleted")
        };
        done.map_err(|e| write_failed(gist, &e))?.map_err(|e| node_failed(&e))?;
        tracing::info!(subsystem_name = "api", spiffe_id = %id, "{message}");
        Ok(())
    }

    async fn renew(
        &self,
        call: &Call,
        line: &mut AuditLine,
        request: RenewAgentRequest,
    ) -> Result<RenewAgentResponse, Status> {
        let given = request.params.is_some();
        let csr = request.params.unwrap_or_default().csr;
        if !csr.is_empty() {
            line.csr(&csr);
        }
        call.wait_turn(1).await?;
        let caller = call.caller_id()?;
        let renewed = self.services.renew_agent(call.now(), caller, &csr).await;
        let svid = renewed.map_err(|error| match error {
            RenewError::MissingCsr if !given => Status::invalid_argument("params cannot be nil"),
            error => renew_failed(&error),
        })?;
        tracing::info!(subsystem_name = "api", spiffe_id = %caller, serial_num = %svid.serial, "Agent SVID renewed");
        Ok(RenewAgentResponse { svid: Some(x509_svid_to_wire(&svid.id, &svid.chain, svid.expires_at)) })
    }

    async fn token(&self, call: &Call, request: CreateJoinTokenRequest) -> Result<types::JoinToken, Status> {
        if request.ttl < 1 {
            return Err(Status::invalid_argument("ttl is required, you must provide one"));
        }
        let agent_id = match &request.agent_id {
            None => None,
            some => Some(
                workload_id(self.services.trust_domain(), some.as_ref())
                    .map_err(|e| invalid("invalid agent ID", &e))?,
            ),
        };
        let wanted =
            NewJoinToken { token: Some(request.token).filter(|t| !t.is_empty()), ttl: request.ttl, agent_id };
        let made = self.services.create_join_token(call.now(), &call.actor(), wanted).await;
        let made = made.map_err(|e| write_failed("failed to create token", &e))?;
        let made = made.map_err(|e| join_token_failed(&e))?;
        Ok(types::JoinToken { value: made.token.to_string(), expires_at: made.expires_at.secs() })
    }
}

#[tonic::async_trait]
impl Agent for AgentApi {
    async fn count_agents(
        &self,
        request: Request<CountAgentsRequest>,
    ) -> Result<Response<CountAgentsResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        let counted = AgentFilter::of_count(request.filter.as_ref()).map(|filter| {
            audit_filter(&mut line, &filter);
            self.services.count_agents(&node_filter(filter))
        });
        let counted = counted.map_err(|e| Status::invalid_argument(e.to_string()));
        let count = line.conclude(counted)?;
        Ok(Response::new(CountAgentsResponse { count: i32::try_from(count).unwrap_or(i32::MAX) }))
    }

    async fn list_agents(
        &self,
        request: Request<ListAgentsRequest>,
    ) -> Result<Response<ListAgentsResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        let page = PageRequest { size: request.page_size, token: request.page_token };
        let listed = AgentFilter::of_list(request.filter.as_ref())
            .map_err(|e| Status::invalid_argument(e.to_string()))
            .and_then(|filter| {
                audit_filter(&mut line, &filter);
                self.services
                    .list_agents(&node_filter(filter), &page)
                    .map_err(|e| bad_token("failed to list agents", &e))
            });
        let listed = line.conclude(listed)?;
        let mask = request.output_mask.as_ref();
        Ok(Response::new(ListAgentsResponse {
            agents: listed.items.iter().map(|node| node_to_wire(node, mask)).collect(),
            next_page_token: listed.next_token,
        }))
    }

    async fn get_agent(&self, request: Request<GetAgentRequest>) -> Result<Response<types::Agent>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("spiffe_id", id_text(request.id.as_ref()));
        let found = self
            .agent_id(request.id.as_ref())
            .and_then(|id| self.services.get_agent(&id).ok_or_else(|| node_failed(&NodeError::NotFound)));
        let node = line.conclude(found)?;
        Ok(Response::new(node_to_wire(&node, request.output_mask.as_ref())))
    }

    async fn delete_agent(&self, request: Request<DeleteAgentRequest>) -> Result<Response<()>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("spiffe_id", id_text(request.id.as_ref()));
        line.conclude(self.remove(&call, request.id.as_ref(), false).await).map(Response::new)
    }

    async fn ban_agent(&self, request: Request<BanAgentRequest>) -> Result<Response<()>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("spiffe_id", id_text(request.id.as_ref()));
        line.conclude(self.remove(&call, request.id.as_ref(), true).await).map(Response::new)
    }

    type AttestAgentStream = ReceiverStream<Result<AttestAgentResponse, Status>>;

    async fn attest_agent(
        &self,
        request: Request<Streaming<AttestAgentRequest>>,
    ) -> Result<Response<Self::AttestAgentStream>, Status> {
        let (call, steps) = open(request)?;
        Ok(Response::new(attest::run(self.services.clone(), call, steps)))
    }

    async fn renew_agent(
        &self,
        request: Request<RenewAgentRequest>,
    ) -> Result<Response<RenewAgentResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        let renewed = self.renew(&call, &mut line, request).await;
        line.conclude(renewed).map(Response::new)
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<types::JoinToken>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.number("ttl", i64::from(request.ttl));
        line.text("spiffe_id", id_text(request.agent_id.as_ref()));
        line.conclude(self.token(&call, request).await).map(Response::new)
    }

    async fn post_status(
        &self,
        request: Request<PostStatusRequest>,
    ) -> Result<Response<PostStatusResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("agent_version", &request.agent_version);
        let posted = async {
            call.wait_turn(1).await?;
            let caller = call.caller_id()?;
            let posted = self.services.post_status(call.now(), caller, &request.agent_version).await;
            posted.map_err(|e| write_failed("failed to update agent", &e))?.map_err(|e| node_failed(&e))
        };
        let posted = posted.await;
        line.conclude(posted).map(|()| Response::new(PostStatusResponse {}))
    }
}

/// The address of the caller, for attestors that compare it with the proof.
pub(super) fn peer_address(call: &Arc<Call>) -> Option<IpAddr> {
    match &*call.connection.peer {
        Peer::Remote { address, .. } => Some(address.ip()),
        Peer::Local(_) | Peer::Page(_) => None,
    }
}
