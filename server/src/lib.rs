//! The Avouch server: keeps entries and signs identities.
//!
//! Inside, arrows point one way: api → service → {store, ca, feed}.

pub mod api;
pub mod app;
pub mod audit_log;
pub mod ca;
pub mod clock;
pub mod config;
pub mod datadir;
pub mod datastore;
pub mod drain;
pub mod feed;
pub mod health;
pub mod keys;
mod ledger;
pub mod limits;
pub mod metrics;
mod people_file;
pub mod rules;
pub mod service;
pub mod settings;
pub mod sign_in;
mod sys;
pub mod verbs;
pub mod writer;
