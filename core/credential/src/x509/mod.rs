//! X509-SVIDs: names, requests, issue, facts, verification, PEM.
//!
//! Never trusts what it has not parsed, and never repairs it.

pub mod csr;
pub mod facts;
pub mod issue;
pub mod name;
pub mod pem;
pub mod verify;

mod extension;

pub use facts::split;
