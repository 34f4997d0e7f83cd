//! What each row came to when it was measured last on the reference machine: `last.tsv`, written by `--keep`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{fs, io};

/// Rows by part and name. A ratio or a value, whichever the bar of the row is about.
#[derive(Debug, Default)]
pub struct Last {
    rows: BTreeMap<(String, String), f64>,
}

impl Last {
    /// Reads the file; a line that is not of three columns is left out.
    pub fn read() -> Self {
        let text = fs::read_to_string(path()).unwrap_or_default();
        let row = |line: &str| {
            let mut columns = line.split('\t');
            let (part, what) = (columns.next()?.to_owned(), columns.next()?.to_owned());
            Some(((part, what), columns.next()?.parse().ok()?))
        };
        Self { rows: text.lines().filter_map(row).collect() }
    }

    /// What a row came to.
    pub fn of(&self, part: &str, what: &str) -> Option<f64> {
        self.rows.get(&(part.to_owned(), what.to_owned())).copied()
    }

    /// Leaves out the rows of these parts.
    pub fn forget<'a>(&mut self, parts: impl Iterator<Item = &'a str>) {
        let parts: Vec<_> = parts.collect();
        self.rows.retain(|(part, _), _| !parts.contains(&part.as_str()));
    }

    /// Takes a row in.
    pub fn note(&mut self, part: &str, what: &str, value: f64) {
        self.rows.insert((part.to_owned(), what.to_owned()), value);
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Of the file system.
    pub fn write(&self) -> io::Result<()> {
        let mut text = String::new();
        for ((part, what), value) in &self.rows {
            let _ = writeln!(text, "{part}\t{what}\t{value:.3}");
        }
        fs::write(path(), text)
    }
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("bench/last.tsv")
}
