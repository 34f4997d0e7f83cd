//! Attestors: who is calling (process and workload attestation) and what proves a node.
//!
//! Never: no wire types, no decision about entries or identities; time is an argument (one exception, see
//! [`clock`]); every fact about a process is read through [`process::PinnedProcess`].

#[cfg(test)]
mod child;
mod clock;
pub mod code;
pub mod limits;
pub mod node;
pub mod peer;
pub mod process;
mod sys;
pub mod workload;

use std::future::Future;
use std::pin::Pin;

pub use peer::Peer;
pub use process::{PinnedProcess, ProcessGone, ProcessKey};
pub use workload::{WorkloadLooker, look_all};

/// A future that a table of attestors can hold.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
