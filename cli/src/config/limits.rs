//! Named limits of configuration files. Each number says why.

/// Longest text in bytes: real files are far below, and a wrong file given by mistake ends here.
pub const TEXT_MAX: usize = 1 << 20;
/// Deepest nesting of blocks and lists: SPIRE's deepest key has nine levels; the reader recurses.
pub const DEPTH_MAX: usize = 64;
/// Longest word for which a near name is looked up.
pub const GUESS_MAX: usize = 64;
