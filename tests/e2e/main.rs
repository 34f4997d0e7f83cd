//! End to end: real binaries, real sockets, real signals. Each scenario proves that parts proven elsewhere are wired.
//!
//! Never: a rule proven only here, or a fixed pause.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // all of it is test code

mod activation;
mod agents;
mod audit;
mod away;
mod bad_input;
mod clients;
mod command_line;
mod explain;
mod first_contact;
mod foreign;
mod nodes;
mod operations;
mod processes;
mod pushes;
mod readme;
mod restarts;
mod rotations;
mod sealed;
mod startup;
mod storage;
mod verbs;
