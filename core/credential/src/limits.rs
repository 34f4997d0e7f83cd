//! Named limits of the papers. Each number says why.

use std::time::Duration;

/// How far the beginning of a validity lies before the moment of issue, so that a verifier whose clock is
/// slightly behind accepts at once (as SPIRE does).
pub const BACKDATE: Duration = Duration::from_secs(10);
/// Longest certificate signing request read, in bytes. Real ones have 250 to 700.
pub const CSR_MAX: usize = 64 * 1024;
/// Longest certificate read, in bytes: a 2048-byte SPIFFE ID and many DNS names fit many times.
pub const CERTIFICATE_MAX: usize = 64 * 1024;
/// Most certificates in one chain (rust-spiffe refuses more).
pub const CHAIN_MAX: usize = 16;
/// Most certificates in one DER concatenation: a bundle may hold many authorities, a message of 4 MiB about this many.
pub const CONCATENATED_MAX: usize = 4096;
/// Longest JWT read, in bytes (rust-spiffe reads headers and claims up to this size).
pub const TOKEN_MAX: usize = 64 * 1024;
/// Clock difference granted to `exp`, `nbf` and `iat` (JWT-17).
pub const JWT_LEEWAY: Duration = Duration::from_secs(60);
/// Longest bundle document read, in bytes: about 10,000 keys.
pub const BUNDLE_DOCUMENT_MAX: usize = 16 * 1024 * 1024;
/// Shortest RSA modulus accepted, in bits (JWT-28).
pub const RSA_BITS_MIN: usize = 2048;
/// Longest RSA modulus accepted, in bits: verification cost grows with it.
pub const RSA_BITS_MAX: usize = 8192;
/// Length of a generated JWT key ID.
pub const KID_LENGTH: usize = 32;
/// Longest line of the log in bytes: two SPIFFE IDs of full length, and details.
pub const RECORD_MAX: usize = 16 * 1024;
/// Most records that wait for a head while a log is verified: a head names one of the last.
pub const HEAD_GAP_MAX: usize = 100_000;
/// Most details in one record of a node: the longest decision has a dozen.
pub const RECORD_DETAILS_MAX: usize = 64;
/// Most chains in one exported log: a fleet with a few restores each.
pub const CHAINS_MAX: usize = 1_000_000;
/// Longest token that is presented at a gate, in bytes: two SPIFFE IDs of full length, encoded, and a signature.
pub const PRESENTED_TOKEN_MAX: usize = 16 * 1024;
/// Longest chain that is presented at a gate, in bytes: a leaf and the authorities above it, with room.
pub const PRESENTED_CHAIN_MAX: usize = 32 * 1024;
