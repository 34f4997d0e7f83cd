//! JWT-SVIDs: issue and verify.
//!
//! Never lets a token choose more than its key ID: the key's type decides which algorithms may verify it.

pub mod issue;
pub mod verify;

#[cfg(test)]
mod tests;
