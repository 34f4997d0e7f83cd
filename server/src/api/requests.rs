//! Requests service: node agents ask for the yes of a person, and use grants.
//!
//! Never believes a message which node asks: the certificate of the connection says it.

use avouch_domain::Presented;
use avouch_proto::convert::{asked_to_wire, asking_from_wire, with_grant};
use avouch_proto::requests_v1::requests_server::Requests;
use avouch_proto::requests_v1::{AskRequest, AskResponse};
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use crate::api::call::open;
use crate::api::status::{asking_failed, bad, write_failed};
use crate::service::{Asked, Asking, Services, Used};

/// The service over TCP.
#[derive(Clone)]
pub struct RequestsApi {
    pub services: Services,
}

impl std::fmt::Debug for RequestsApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RequestsApi")
    }
}

#[tonic::async_trait]
impl Requests for RequestsApi {
    async fn ask(&self, request: Request<AskRequest>) -> Result<Response<AskResponse>, Status> {
        let (call, mut request) = open(request)?;
        let agent = call.caller_id()?;
        let mut line = call.audit();
        line.text("identity", &request.spiffe_id);
        line.flag("grant", request.needs_grant);
        let asked = async {
            let presented = Presented {
                token: Zeroizing::new(std::mem::take(&mut request.token)),
                chain: std::mem::take(&mut request.certificates),
            };
            let (content, needs, key) = asking_from_wire(request).map_err(|e| bad(&e.to_string()))?;
            let asked =
                self.services.ask_person(call.now(), agent, Asking { content, needs, presented, key }).await;
            let asked = asked.map_err(|e| write_failed("failed to ask", &e))?;
            asked.map_err(|e| asking_failed(&e))
        };
        let asked = line.conclude(asked.await)?;
        let wall = call.now().wall;
        Ok(Response::new(match &asked {
            Asked::Waits(request) => asked_to_wire(request, false, wall),
            Asked::NoGrant => AskResponse { no_grant: true, ..AskResponse::default() },
            Asked::Used(Used { request, grant }) => {
                let answer = request.as_ref().map(|request| asked_to_wire(request, true, wall));
                let answer = answer.unwrap_or_default();
                match grant {
                    Some(grant) => with_grant(answer, grant, wall),
                    None => answer,
                }
            }
        }))
    }
}
