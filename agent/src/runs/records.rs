//! Where runs and their decisions are recorded.

use avouch_domain::Note;

/// How soon a record must be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the answer leaves.
    Synced,
    /// In a moment.
    Soon,
}

/// Takes records.
#[tonic::async_trait]
pub trait Records: Send + Sync + 'static {
    /// Writes a record and gives its number.
    ///
    /// # Errors
    /// Why it was not written; then what it tells of must not happen.
    async fn write(&self, note: Note, durability: Durability) -> Result<u64, String>;
}
