//! The log as bytes: records, how each is bound to the one before, and the signed heads that vouch for all of them.
//!
//! A record is one line of JSON that is stored, sent and hashed as it is. Its hash is the leaf hash of RFC 6962 2.1, so
//! that a tree over the same lines can come later; each record holds the hash of the one before. A head is a signed
//! statement "record N has hash H", which binds everything up to N. The server has one chain of records, each node agent has
//! chains of its own. Never keeps anything: the server stores, this module
//! knows the forms.

mod head;
pub mod matching;
mod node;
#[cfg(test)]
mod node_tests;
mod record;
mod salt;
mod sections;
#[cfg(test)]
mod tests;
pub mod trace;
mod verify;

pub use head::{HeadError, SignedHead};
pub use node::{
    ChainReader, NodeRecord, check_kept_head, check_node_head, node_line, read_node_line, sign_node_head,
    sign_receipt,
};
pub use record::{FIRST_PREVIOUS, Hash, Record, RecordError, hash_of, line_of, read_line};
pub use salt::{Salt, SaltError, day_name};
pub use sections::{ChainSummary, Log, LogError, LogSummary, NodeHeader, head_line};
pub use verify::{BeginError, Broken, Header, Summary, Verifier};
