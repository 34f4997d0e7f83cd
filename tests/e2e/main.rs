//! End to end: real binaries, real sockets, real signals. Each scenario proves that parts proven elsewhere are wired.
//!
//! Never: a rule proven only here, or a fixed pause.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // all of it is test code
#![allow(clippy::print_stdout)] // figures, and what was not run

mod activation;
mod agents;
mod apart;
mod asks;
mod audit;
mod authorities;
mod away;
mod bad_input;
mod clients;
mod clocks;
mod coder;
mod command_line;
mod confine;
mod console;
mod demanded;
mod demo;
mod emergencies;
mod explain;
mod faults;
mod findings;
mod first_contact;
mod floods;
mod foreign;
mod governed;
mod grants;
mod guides;
mod health;
mod held;
mod hook_gate;
mod http_gate;
mod many_nodes;
mod mcp_gate;
mod metrics;
mod node_proof;
mod node_records;
mod nodes;
mod operations;
mod own_code;
mod processes;
mod published;
mod pushes;
mod races;
mod readme;
mod receipts;
mod restarts;
mod rotations;
mod runs;
mod sealed;
mod shared_gate;
mod startup;
mod stops;
mod storage;
mod verbs;
