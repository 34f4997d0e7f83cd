//! Where the server keeps what must survive: entries, nodes, bundles, join tokens, authorities, people, identities,
//! published rules, the change log, the records and those that nodes send, in one SQLite database.
//!
//! [`Store`] is the handle of a running server: a thread that writes and a thread that reads. [`Db`] is the same
//! thing without threads, for the simulator and for tools.
//!
//! Never: no rule about who may have what, no clock, no private key, no text of a join token.

mod backup;
mod commit;
mod db;
mod error;
mod folders;
pub mod limits;
mod lock;
mod node_records;
mod records;
mod row;
mod schema;
mod store;
mod tail;
mod texts;
mod uses;

#[cfg(test)]
mod tests;

pub use backup::{Restored, backup, restore};
pub use db::Db;
pub use error::{CommitError, Lost, StoreError, TailError};
pub use node_records::{Kept, NodeBatch, NodeStretch, StoredChain};
pub use records::{StoredRecord, Stretch};
pub use store::Store;
pub use tail::Tail;
pub use uses::Uses;

/// SHA-256, as the digest of a join token's text needs it.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    out
}
