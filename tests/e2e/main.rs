//! End to end: real binaries, real sockets, real signals. Each scenario proves that parts proven elsewhere are wired.
//!
//! Never: a rule proven only here, or a fixed pause.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // all of it is test code

mod activation;
mod away;
mod clients;
mod command_line;
mod nodes;
mod processes;
mod pushes;
mod restarts;
mod startup;
