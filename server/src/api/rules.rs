//! Rules service: the rules in force, for attested agents that were told of them on their watch stream.
//!
//! Never answers with rules that are not signed yet.

use avouch_credential::rules::SignedRules;
use avouch_proto::convert::rules_files_to_wire;
use avouch_proto::rules_v1::rules_server::Rules;
use avouch_proto::rules_v1::{FetchRequest, FetchResponse, Statement};
use tonic::{Code, Request, Response, Status};

use crate::api::call::open;
use crate::service::Services;

/// The service over TCP.
#[derive(Clone)]
pub struct RulesApi {
    pub services: Services,
}

impl std::fmt::Debug for RulesApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RulesApi")
    }
}

/// The statement as agents and people read it.
#[must_use]
pub fn statement(signed: &SignedRules) -> Statement {
    Statement {
        epoch_started: signed.epoch.started,
        epoch_random: signed.epoch.random,
        number: signed.number,
        digest: signed.digest.0.to_vec(),
        valid_from_ms: signed.valid_from.0,
        key: signed.key.clone(),
        signature: signed.signature.clone(),
    }
}

#[tonic::async_trait]
impl Rules for RulesApi {
    async fn fetch(&self, request: Request<FetchRequest>) -> Result<Response<FetchResponse>, Status> {
        let (call, _) = open(request)?;
        // Announced to all nodes at once; read after the wait, so that it is the newest.
        let _turn = self.services.rules_turn().await;
        let in_force = self.services.shown_rules();
        let Some(shown) = in_force.as_ref().and_then(|in_force| in_force.rules.as_ref()) else {
            call.audit().item(Code::NotFound, "no rules are in force");
            return Err(Status::not_found("no rules are in force"));
        };
        call.audit().item(Code::Ok, "");
        Ok(Response::new(FetchResponse {
            statement: Some(statement(&shown.signed)),
            files: rules_files_to_wire(&shown.folder.files),
        }))
    }
}
