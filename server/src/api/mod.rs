//! The edge: listeners, who calls, what they may, and one file per gRPC service.
//!
//! Never decides about entries, nodes or keys: the services do. Only here do wire messages and status codes exist.

use std::sync::Arc;

use avouch::logs::LogHandle;
use avouch_domain::Tick;
use avouch_proto::agent_v1::agent_server::AgentServer;
use avouch_proto::bundle_v1::bundle_server::BundleServer;
use avouch_proto::debug_v1::debug_server::DebugServer;
use avouch_proto::entry_v1::entry_server::EntryServer;
use avouch_proto::governance_v1::governance_server::GovernanceServer;
use avouch_proto::localauthority_v1::local_authority_server::LocalAuthorityServer;
use avouch_proto::logger_v1::logger_server::LoggerServer;
use avouch_proto::records_v1::records_server::RecordsServer;
use avouch_proto::requests_v1::requests_server::RequestsServer;
use avouch_proto::rules_v1::rules_server::RulesServer;
use avouch_proto::svid_v1::svid_server::SvidServer;
use avouch_proto::task_v1::tasks_server::TasksServer;
use avouch_proto::watch_v1::watch_server::WatchServer;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

use crate::api::gate::{Gate, Stack};
use crate::api::pages::Pages;
use crate::limits::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};

mod accepting;
pub mod agent;
mod answering;
pub mod attest;
pub mod authz;
pub mod batch;
pub mod bundle;
pub mod call;
pub mod caller;
pub mod conn;
pub mod debug;
mod emergencies;
pub mod entry;
pub mod gate;
pub mod governance;
mod granting;
pub mod health;
mod identities;
mod leaving;
pub mod listen;
pub mod localauthority;
pub mod logger;
pub mod pages;
mod people;
mod published;
pub mod rate;
mod reading;
pub mod records;
pub mod requests;
pub mod rules;
pub mod status;
mod stopping;
pub mod svid;
pub mod sync;
pub mod tasks;
pub mod watch;

#[cfg(test)]
mod tests;

/// A service with the named message limits.
macro_rules! limited {
    ($server:ident, $api:expr) => {
        $server::new($api)
            .max_decoding_message_size(REQUEST_BYTES_MAX)
            .max_encoding_message_size(RESPONSE_BYTES_MAX)
    };
}

/// The services of both doors.
fn shared(gate: &Gate) -> Routes {
    let services = &gate.services;
    Routes::new(limited!(AgentServer, agent::AgentApi { services: services.clone() }))
        .add_service(limited!(BundleServer, bundle::BundleApi { services: services.clone() }))
        .add_service(limited!(
            LocalAuthorityServer,
            localauthority::LocalAuthorityApi { services: services.clone() }
        ))
        .add_service(limited!(EntryServer, entry::EntryApi { services: services.clone() }))
        .add_service(limited!(SvidServer, svid::SvidApi { services: services.clone() }))
        .add_service(limited!(RecordsServer, records::RecordsApi { services: services.clone() }))
        .add_service(limited!(RequestsServer, requests::RequestsApi { services: services.clone() }))
        .add_service(limited!(WatchServer, watch::WatchApi { services: services.clone() }))
        .add_service(limited!(RulesServer, rules::RulesApi { services: services.clone() }))
        .add_service(limited!(TasksServer, tasks::TasksApi { services: services.clone() }))
}

/// What is served over TCP.
#[must_use]
pub fn tcp_stack(gate: &Arc<Gate>) -> Stack {
    Stack::new(gate.clone(), shared(gate))
}

/// What is served to people: nothing but what a person may do.
#[must_use]
pub fn people_stack(gate: &Arc<Gate>, pages: Option<&Pages>) -> Stack {
    let api = governance::GovernanceApi { services: gate.services.clone(), pages: pages.cloned() };
    Stack::new(gate.clone(), Routes::new(limited!(GovernanceServer, api)))
}

/// What is served on the admin socket.
#[must_use]
pub fn admin_stack(gate: &Arc<Gate>, logs: LogHandle, started: Tick, pages: Option<&Pages>) -> Stack {
    let services = &gate.services;
    let governance = governance::GovernanceApi { services: services.clone(), pages: pages.cloned() };
    let routes = shared(gate)
        .add_service(limited!(DebugServer, debug::DebugApi::new(services.clone(), started)))
        .add_service(limited!(LoggerServer, logger::LoggerApi { logs }))
        .add_service(limited!(GovernanceServer, governance))
        .add_service(limited!(HealthServer, health::HealthApi { services: services.clone() }));
    Stack::new(gate.clone(), routes)
}
