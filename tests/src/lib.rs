//! The test kit: real daemons in private folders, their APIs, forged credentials, and the rules that tests name.
//!
//! Never: no test sleeps to wait for something, and no daemon outlives the value that started it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // all of it is test code
#![allow(clippy::print_stdout)] // what a failed test shows
#![allow(clippy::missing_panics_doc, clippy::must_use_candidate, missing_debug_implementations)]

pub mod actor;
pub mod agent;
pub mod bare_agent;
pub mod cli;
pub mod daemon;
pub mod false_clock;
pub mod foreign;
pub mod forge;
pub mod http;
pub mod manager;
pub mod mtls;
pub mod node_pki;
pub mod rules;
pub mod server;
mod sys;
pub mod wait;
pub mod workload;
pub mod world;

pub use agent::{Agent, AgentOptions, Proof};
pub use server::{Server, ServerOptions, entry};
pub use wait::{eventually, within};
pub use world::World;

use std::path::Path;
use tonic::transport::{Channel, Endpoint};

/// Opens a gRPC channel over a Unix socket.
///
/// # Errors
/// The transport's, if nobody listens.
pub async fn uds(path: &Path) -> Result<Channel, tonic::transport::Error> {
    Endpoint::try_from(format!("unix://{}", path.display()))?.connect().await
}
