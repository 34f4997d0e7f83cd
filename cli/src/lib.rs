//! What both daemons and the command line share: configuration, verbs, logs, metrics and health listeners, the lock
//! of a data directory.
//!
//! Talks to servers and agents only over their APIs; never decides, never keeps state.

pub mod access_place;
pub mod authority;
mod children;
pub mod clock;
pub mod config;
pub mod data_lock;
pub mod demo;
pub mod descriptors;
pub mod exit;
pub mod explain;
pub mod exported;
mod failure;
pub mod gate;
pub mod govern;
pub mod health_http;
pub mod hook;
pub mod lock;
pub mod logs;
pub mod metrics;
pub mod out;
pub mod rpc;
pub mod rules_folder;
pub mod run;
pub mod secret_file;
mod sys;
pub mod task;
pub mod turns;
pub mod up;
pub mod verbs;
