//! The node agent: proves its node, follows the server, hands identities to the processes it has looked at.
//!
//! Inside: `api → shell → {upstream, keys, disk, sealed}`, and beside it `records`; the edges know the shell only through [`supply`].

pub mod api;
pub mod app;
pub mod clock;
pub mod config;
pub mod confine;
pub mod disk;
pub mod fair;
pub mod health;
pub mod heard;
pub mod hooks;
pub mod join;
pub mod keys;
pub mod limits;
pub mod metrics;
pub mod peer;
pub mod proof;
pub mod records;
pub mod rules;
pub mod runs;
pub mod sealed;
pub mod shell;
pub mod supply;
mod sys;
mod timer;
pub mod upstream;
pub mod used;
pub mod verbs;
pub mod workload;
