//! JWT-SVIDs and task tokens: issue and verify.
//!
//! Never lets a token choose more than its key ID: the key's type decides which algorithms may verify it.

pub mod issue;
pub mod task;
pub mod verify;

#[cfg(test)]
mod task_tests;
#[cfg(test)]
mod tests;
