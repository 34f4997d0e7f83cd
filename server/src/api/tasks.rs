//! Tasks service: task tokens for the node of a run, and whose a token is for the node of a hook.
//!
//! Never logs a token.

use avouch_credential::jwt::task::is_instance;
use avouch_domain::{Code, Presented, SpiffeId};
use avouch_proto::task_v1::tasks_server::Tasks;
use avouch_proto::task_v1::{ShowTokenRequest, ShowTokenResponse, SignTokenRequest, SignTokenResponse};
use avouch_rules::limits::RESOURCE_ID_MAX;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use crate::api::call::{Call, open};
use crate::api::emergencies::told;
use crate::api::status::{bad, jwt_failed, show_failed};
use crate::metrics::Signed;
use crate::service::{Services, TokenAsk};

/// The service over TCP.
#[derive(Clone)]
pub struct TasksApi {
    pub services: Services,
}

impl std::fmt::Debug for TasksApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TasksApi")
    }
}

fn asked(request: SignTokenRequest) -> Result<TokenAsk, Status> {
    let name = SpiffeId::parse(&request.spiffe_id).map_err(|e| bad(&format!("spiffe_id: {e}")))?;
    let task = Code::new(&request.task).map_err(|e| bad(&format!("task: {e}")))?;
    check_resource(&request.resource)?;
    if !is_instance(&request.instance_id) {
        return Err(bad("instance_id: expected ins_ and hexadecimal digits"));
    }
    Ok(TokenAsk { name, resource: request.resource, task, instance: request.instance_id })
}

fn check_resource(resource: &str) -> Result<(), Status> {
    if resource.is_empty() || resource.len() > RESOURCE_ID_MAX {
        return Err(bad(&format!("resource: {} bytes, expected 1 to {RESOURCE_ID_MAX}", resource.len())));
    }
    Ok(())
}

impl TasksApi {
    async fn sign(&self, call: &Call, request: SignTokenRequest) -> Result<SignTokenResponse, Status> {
        let ask = asked(request)?;
        call.wait_turn(1).await?;
        let since = call.now().mono;
        let signed = self.services.sign_task(call.now(), call.caller_id()?, ask).await;
        let signed = signed.map_err(|e| jwt_failed(&e))?;
        call.gate.metrics.signed(Signed::Jwt, call.now().mono.since(since));
        Ok(SignTokenResponse {
            token: signed.token.to_string(),
            token_id: signed.jti.to_string(),
            expires_at: signed.expires_at.secs(),
        })
    }

    fn show(&self, call: &Call, request: ShowTokenRequest) -> Result<ShowTokenResponse, Status> {
        let ShowTokenRequest { token, resource, certificates } = request;
        check_resource(&resource)?;
        let wall = call.now().wall;
        let presented = Presented { token: Zeroizing::new(token), chain: certificates };
        let shown = self.services.presented_identity(wall, call.caller_id()?, &resource, &presented);
        let shown = shown.map_err(|e| show_failed(&e))?;
        Ok(ShowTokenResponse {
            identity: shown.identity.map(|(identity, active)| told(&self.services, wall, &identity, active)),
            rules_number: self.services.find_rules(0).map_or(0, |rules| rules.number),
        })
    }
}

#[tonic::async_trait]
impl Tasks for TasksApi {
    async fn sign_token(
        &self,
        request: Request<SignTokenRequest>,
    ) -> Result<Response<SignTokenResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("spiffe_id", &request.spiffe_id);
        line.text("resource", &request.resource);
        line.text("instance_id", &request.instance_id);
        let signed = self.sign(&call, request).await;
        if let Ok(signed) = &signed {
            line.text("token_id", &signed.token_id);
        }
        line.conclude(signed).map(Response::new)
    }

    async fn show_token(
        &self,
        request: Request<ShowTokenRequest>,
    ) -> Result<Response<ShowTokenResponse>, Status> {
        let (call, request) = open(request)?;
        let mut line = call.audit();
        line.text("resource", &request.resource);
        let shown = self.show(&call, request);
        if let Ok(ShowTokenResponse { identity: Some(identity), .. }) = &shown {
            line.text("spiffe_id", &identity.spiffe_id);
        }
        line.conclude(shown).map(Response::new)
    }
}
