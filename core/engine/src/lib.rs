//! What Avouch decides, as pure functions and state machines over the nouns of `avouch-domain`.
//!
//! Never: no I/O, no clock, no randomness, no wire types, no async. Time is an argument; whatever has an effect
//! is a value that a shell performs.

pub mod backoff;
pub mod cache;
pub mod entitle;
pub mod faults;
pub mod found;
pub mod history;
pub mod invariants;
pub mod machine;
pub mod overview;
pub mod plan;
pub mod registry;
pub mod renew;
pub mod rotation;
pub mod runs;
pub mod sync;

pub use machine::Machine;
pub use registry::Registry;
