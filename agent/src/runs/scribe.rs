//! Where runs and their decisions are recorded.

use avouch_domain::Note;

use crate::records::{Durability, Records};

/// Takes records.
#[tonic::async_trait]
pub trait Scribe: Send + Sync + 'static {
    /// Writes a record and gives its number.
    ///
    /// # Errors
    /// Why it was not written; then what it tells of must not happen.
    async fn write(&self, note: Note, durability: Durability) -> Result<u64, String>;

    /// What stands in a record for an argument of a call: a digest. `values`: several of one that is a set, ascending.
    ///
    /// # Errors
    /// Why there is none; then the call can't be recorded.
    fn veiled(&self, name: &str, values: &[&str]) -> Result<String, String>;

    /// False if nobody would ever read what is only told for information.
    fn wanted(&self) -> bool {
        true
    }
}

#[tonic::async_trait]
impl Scribe for Records {
    async fn write(&self, note: Note, durability: Durability) -> Result<u64, String> {
        self.append(&note, durability).await.map(|receipt| receipt.seq).map_err(|e| e.to_string())
    }

    fn veiled(&self, name: &str, values: &[&str]) -> Result<String, String> {
        Self::veiled(self, name, values.iter().copied()).map_err(|e| format!("the salt of the day: {e}"))
    }

    fn wanted(&self) -> bool {
        Self::wanted(self)
    }
}
