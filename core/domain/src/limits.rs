//! Named limits of the nouns. Each number says why.

/// Longest SPIFFE ID in bytes, the whole URI counted (SPIFFE-ID 2.3, ID-16, ID-17).
pub const SPIFFE_ID_MAX: usize = 2048;
/// Longest trust domain name in bytes (SPIFFE-ID 2.1, ID-18).
pub const TRUST_DOMAIN_MAX: usize = 255;
/// Longest entry ID in bytes (as SPIRE's datastore allows).
pub const ENTRY_ID_MAX: usize = 255;
/// Longest hint in bytes (as SPIRE's API allows).
pub const HINT_MAX: usize = 1024;
/// Longest DNS name in bytes (RFC 1035 2.3.4).
pub const DNS_NAME_MAX: usize = 255;
/// Longest selector (type, colon and value) in bytes; long container labels fit.
pub const SELECTOR_MAX: usize = 4096;
/// Most selectors on one entry, node or workload: far above any real set, far below a flood.
pub const SELECTORS_MAX: usize = 1024;
/// Longest join token in bytes.
pub const JOIN_TOKEN_MAX: usize = 1024;
/// Longest agent version text in bytes (as SPIRE's API allows).
pub const AGENT_VERSION_MAX: usize = 255;
