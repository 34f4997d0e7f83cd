//! Conformance: each rule of the SPIFFE standards, proven against the real daemons over their public protocols.
//!
//! SERVER_BIN and AGENT_BIN let another implementation stand in. Never: a wire rule proven by calling a parser.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // all of it is test code

mod bundle;
mod endpoint;
mod fake;
mod ids;
mod jwt_issue;
mod jwt_validate;
mod wire_shape;
mod workload_api;
mod workload_pushes;
mod x509_issue;
mod x509_validate;
