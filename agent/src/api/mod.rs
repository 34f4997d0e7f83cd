//! The edges of the agent that others call: workload socket and admin socket.
//!
//! Speaks gRPC and knows callers; decides nothing about identities: that is asked of [`crate::supply`].

mod access;
mod admin;
mod answer;
mod asks;
mod beside;
mod codec;
mod conn;
mod ebb;
mod gate;
mod gates;
mod health;
pub mod listener;
mod refusals;
mod route;
mod run;
mod shared;
mod status;
mod steps;
mod validate;
mod workload;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use avouch_attestors::process::Pins;
use avouch_domain::Now;
use avouch_proto::WORKLOAD_FILE_DESCRIPTOR_SET;
use avouch_proto::agent_debug_v1::debug_server::DebugServer;
use avouch_proto::agent_logger_v1::logger_server::LoggerServer;
use avouch_proto::gate_v1::gate_server::GateServer;
use avouch_proto::run_v1::run_server::RunServer;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;

pub use admin::AdminOptions;
pub use status::Refusal;
pub use workload::WorkloadOptions;

use shared::Shared;

use crate::fair::FairShare;
use crate::hooks::Hooks;
use crate::limits::{ASK_MAX, CALLS_MAX, DESCRIPTORS_PER_PROCESS, MINTING_MAX, SMALL_REQUEST_MAX};
use crate::metrics::Metrics;
use crate::runs::Runs;
use crate::supply::Supply;
use crate::used::Used;
use crate::workload::WorkloadAttestor;

/// Told once, heard by every task.
pub type Stop = CancellationToken;

/// Why a socket can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the reflection service can't read its own descriptors: {0}")]
    Reflection(String),
}

/// Everything the workload socket needs.
#[derive(Debug)]
pub struct WorkloadParts {
    pub attestor: Arc<WorkloadAttestor>,
    /// `None`: nothing is run here.
    pub runs: Option<Runs>,
    /// `None`: nobody is asked about here.
    pub hooks: Option<Hooks>,
    pub options: WorkloadOptions,
    /// What is served at once.
    pub room: listener::Room,
    pub metrics: Metrics,
    /// `None`: nobody wants to know what is used.
    pub used: Option<Used>,
    pub clock: fn() -> Now,
}

/// The sockets of workloads.
#[derive(Debug)]
pub struct Sockets {
    /// Of the Workload API.
    pub workload: UnixListener,
    /// Of the decision API, if it is served.
    pub access: Option<UnixListener>,
}

/// Serves Workload API, health and reflection until `stop`, and beside them the decision API. Open streams then end with
/// Unavailable.
///
/// # Errors
/// [`ServeError`] before anybody is served.
pub async fn serve_workload(
    sockets: Sockets,
    supply: Arc<dyn Supply>,
    parts: WorkloadParts,
    stop: Stop,
) -> Result<(), ServeError> {
    let shares = FairShare::new(parts.room.connections).and_for_each_process(DESCRIPTORS_PER_PROCESS);
    let pins = Arc::new(Pins::new(parts.room.open_files));
    // What one caller has at both sockets is its share of one and the same room.
    let incoming = |listener, pins| {
        listener::Incoming::new(listener, Some(shares.clone()), pins, parts.metrics.clone(), parts.clock)
    };
    let workload = incoming(sockets.workload, pins.clone());
    let access = sockets.access.map(|listener| incoming(listener, pins));
    let calls = FairShare::new(CALLS_MAX);
    let health = HealthServer::new(health::WorkloadHealth::new(supply.clone()));
    let failed = |e: tonic_reflection::server::Error| ServeError::Reflection(e.to_string());
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(WORKLOAD_FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (v1, v1alpha) = (reflection().build_v1(), reflection().build_v1alpha());
    let share = (calls.clone(), parts.metrics.clone());
    let run = parts.runs.clone().map(|runs| {
        let run = run::RunApi { runs, ready: supply.ready(), stop: stop.clone() };
        Shared::new(&share, RunServer::new(run).max_decoding_message_size(ASK_MAX))
    });
    let gate = parts.hooks.clone().map(|hooks| {
        let (runs, attestor) = (parts.runs.clone(), parts.attestor.clone());
        gate::GateApi { hooks, runs, attestor, ready: supply.ready(), stop: stop.clone() }
    });
    let decides = gate.clone().zip(parts.runs.clone()).map(|(gate, runs)| access::Access { runs, gate });
    let gate = gate.map(|gate| Shared::new(&share, GateServer::new(gate).max_decoding_message_size(ASK_MAX)));
    let mut routes = Routes::new(service(supply, parts, calls.clone(), stop.clone()))
        .add_service(Shared::new(&share, health.max_decoding_message_size(SMALL_REQUEST_MAX)))
        .add_service(Shared::new(&share, v1.map_err(failed)?.max_decoding_message_size(SMALL_REQUEST_MAX)))
        .add_service(Shared::new(
            &share,
            v1alpha.map_err(failed)?.max_decoding_message_size(SMALL_REQUEST_MAX),
        ));
    if let Some(run) = run {
        routes = routes.add_service(run);
    }
    if let Some(gate) = gate {
        routes = routes.add_service(gate);
    }
    let decided = async {
        if let Some((incoming, decides)) = access.zip(decides) {
            access::serve(incoming, decides, calls, stop.clone()).await;
        }
    };
    tokio::join!(conn::serve(workload, routes, stop.clone()), decided);
    Ok(())
}

fn service(
    supply: Arc<dyn Supply>,
    parts: WorkloadParts,
    calls: FairShare,
    stop: Stop,
) -> route::WorkloadService {
    route::WorkloadService(Arc::new(workload::Workload {
        supply,
        attestor: parts.attestor,
        refusals: refusals::Refusals::new(parts.options.log_selectors.clone()),
        failures: refusals::Refusals::default(),
        options: parts.options,
        book: answer::AnswerBook::default(),
        calls,
        minting: FairShare::new(MINTING_MAX),
        metrics: parts.metrics,
        used: parts.used,
        stop,
        clock: parts.clock,
    }))
}

/// Serves Debug and Logger until `stop`.
pub async fn serve_admin(listener: UnixListener, supply: Arc<dyn Supply>, options: AdminOptions, stop: Stop) {
    let incoming =
        listener::Incoming::new(listener, None, Pins::new(0), options.metrics.clone(), options.clock);
    let admin = Arc::new(admin::Admin::new(supply, options));
    let routes = Routes::new(DebugServer::from_arc(admin.clone())).add_service(LoggerServer::from_arc(admin));
    conn::serve(incoming, routes, stop).await;
}
