//! Named limits of the attestors. Each number says why.

use std::time::Duration;

/// Longest text read of one file below /proc: 65,536 supplementary groups of 11 bytes fit, a flood does not.
pub const PROC_FILE_MAX: u64 = 1024 * 1024;
/// Bytes that the first read of such a file asks for: nearly every one is smaller.
pub const PROC_FILE_USUAL: usize = 4096;
/// Longest path the kernel gives for a binary, with room for its " (deleted)".
pub const EXE_PATH_MAX: usize = 4096 + 16;
/// Binary hashes kept: more distinct binaries than one host runs as workloads at a time.
pub const HASH_CACHE_MAX: usize = 1024;
/// A binary changed less than this before it was hashed is not cached: its next change could carry the same
/// coarse change time (kernel ticks are 1 to 10 ms; network file systems are off by more).
pub const HASH_SETTLE: Duration = Duration::from_secs(2);
/// Bytes read of a binary between two looks whether its process still lives.
pub const HASH_CHUNK: usize = 1024 * 1024;
/// Pinned processes of which a file stays open at most: more than call often on one node, and few descriptors.
pub const PINS_OPEN_MAX: usize = 1024;
/// Pins held after their last connection has gone, for processes that connect anew for each question.
pub const PINS_RECENT: usize = 16;
/// Pinned processes after which the table of shared pins is swept for dead ones.
pub const PINS_SWEEP: usize = 256;
/// Longest x509pop payload: five RSA-8192 certificates with long extensions stay below.
pub const X509POP_PAYLOAD_MAX: usize = 64 * 1024;
/// Longest x509pop challenge or response: an RSA-8192 signature and a nonce in base64 stay below.
pub const X509POP_MESSAGE_MAX: usize = 8 * 1024;
/// Bytes of an x509pop nonce, as SPIRE sends and expects.
pub const X509POP_NONCE: usize = 32;
/// Largest certificate or key file read for x509pop.
pub const PEM_FILE_MAX: u64 = 1024 * 1024;
/// Most ancestors of a process: deeper trees are built to hide in.
pub const LINE_MAX: usize = 256;
/// Looks at a process whose parents exit at that moment.
pub const LINE_LOOKS: usize = 16;
/// Files and folders that a run names as its code.
pub const CODE_PATHS_MAX: usize = 64;
/// Files below them.
pub const CODE_FILES_MAX: usize = 20_000;
/// Bytes of all of them: an interpreter and the packages of a big script.
pub const CODE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
