//! Named limits of the store. Each number says why.

use std::time::Duration;

/// Change rows kept: an agent or server that was away for fewer changes resumes, another one reads everything.
pub const CHANGES_KEPT: u64 = 100_000;
/// Records kept, about 400 MB: years of a busy registry, and a disk that does not fill.
pub const RECORDS_KEPT: i64 = 1_000_000;
/// Requests waiting for a thread of the store; the next caller waits for room.
pub const QUEUE: usize = 256;
/// How long a write waits for another process that holds the counter.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages (4 KiB) that a backup copies between two reports of its progress.
pub const BACKUP_STEP_PAGES: i32 = 64;
/// Write-ahead log kept on disk after a checkpoint, in bytes.
pub const WAL_KEPT_BYTES: i64 = 16 << 20;
/// Memory that a connection that writes may keep pages of the file in, in bytes. A change touches a page of each index at random
/// places; with SQLite's 2 MiB most of them are read anew, and some written twice, once there are 100,000 entries.
pub const PAGES_KEPT_BYTES: i64 = 8 << 20;
/// Prepared statements kept per connection: above the number of statements in this crate.
pub const STATEMENTS_KEPT: usize = 64;
/// Most changes handed out by one look at the log.
pub const TAIL_MAX: usize = 10_000;
/// Signed heads kept: days of a busy log; each vouches for everything before it.
pub const HEADS_KEPT: i64 = 10_000;
/// Folders of published rules kept, a hundred megabytes at most; the rows that name older ones stay.
pub const FOLDERS_KEPT: i64 = 100;
/// Most records handed out by one call.
pub const RECORD_PAGE_MAX: usize = 10_000;
/// Looks at a new file that another server is making too, and the pause between two of them: as long in all as
/// [`BUSY_TIMEOUT`].
pub const WAL_ATTEMPTS: u32 = 500;
pub const WAL_PAUSE: Duration = Duration::from_millis(10);
/// Records kept of one chain of a node, about 400 MB: a node that writes without end loses its own oldest.
pub const NODE_RECORDS_KEPT: i64 = 1_000_000;
/// Heads kept of one chain of a node; the newest vouches for everything before it.
pub const NODE_HEADS_KEPT: i64 = 16;
/// Chains that one node may begin within a day: a new one tells of a new data folder, and each leaves a record.
pub const CHAINS_PER_DAY: u32 = 16;
/// Gaps and conflicts of one chain that the log tells of, and gaps that are accepted: after a few it is no accident.
pub const FINDINGS_PER_CHAIN: i64 = 16;
/// Most chains handed out by one call.
pub const CHAIN_PAGE_MAX: i64 = 1_000;
/// Days for which the last use of an identity is kept.
pub const USES_KEPT_DAYS: i64 = 400;
