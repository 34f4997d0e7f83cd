//! Reads the TOML files of a folder; what can't be read is a finding with its line.

use serde::de::DeserializeOwned;

use crate::folder::Finding;
use crate::statements::line_ends;

/// Reads a file into its shape.
pub(crate) fn read<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, Finding> {
    toml::from_str(text).map_err(|e| {
        let line = e.span().map(|span| line_at(text, span.start));
        let message = e.message().lines().collect::<Vec<_>>().join(" ");
        Finding::new(file, line, "toml", message, "compare it with a folder made by `avouch rules new`")
    })
}

/// The line of a place in a text, counted from 1.
pub(crate) fn line_at(text: &str, offset: usize) -> u32 {
    line_ends(text, offset) + 1
}
