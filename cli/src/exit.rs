//! How `avouch` ends: one code for each thing that a script may want to tell apart.
//!
//! Never for the verbs that SPIRE spells: those end as SPIRE's do.

/// Something did not work out.
pub const FAILED: u8 = 1;
/// Somebody said no.
pub const DENIED: u8 = 2;
/// Something was found that should not be so.
pub const FINDING: u8 = 3;
/// Nobody answers.
pub const UNREACHABLE: u8 = 4;
/// It waits: for somebody's yes, or for what comes by itself.
pub const PENDING: u8 = 5;
/// The call can't be understood.
pub const USAGE: u8 = 64;
