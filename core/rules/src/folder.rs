//! A rules folder as it lies before the check: names and texts, its digest, and what is found wrong in it.
//!
//! Never reads a disk: who calls hands over what was read.

use std::collections::BTreeMap;
use std::fmt;

use avouch_domain::RulesDigest;

use crate::digest;
use crate::limits::{FILE_MAX, FILES_MAX};

/// The catalogue of what gates guard.
pub const RESOURCES: &str = "resources.toml";
/// Named sets of allowed actions.
pub const PRESETS: &str = "presets.toml";
/// Gates that start what they guard.
pub const GATES: &str = "gates.toml";
/// Requests with the outcome that is expected; `NAME.examples.toml` is read as well.
pub const EXAMPLES: &str = "examples.toml";

/// Something wrong, where it is, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    pub file: String,
    /// Counted from 1; none when the whole file is meant.
    pub line: Option<u32>,
    /// A stable word for the kind of finding.
    pub code: &'static str,
    pub text: String,
    /// What to do.
    pub next: String,
}

impl Finding {
    pub(crate) fn new(
        file: &str,
        line: impl Into<Option<u32>>,
        code: &'static str,
        text: impl Into<String>,
        next: impl Into<String>,
    ) -> Self {
        Self { file: file.to_owned(), line: line.into(), code, text: text.into(), next: next.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}; {} [{}]", self.text, self.next, self.code)
    }
}

/// The files of a rules folder by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    files: BTreeMap<String, String>,
}

impl Folder {
    /// Takes the files as they were read. What is too large or has no place in a rules folder is a finding.
    pub fn new(files: impl IntoIterator<Item = (String, String)>) -> Result<Self, Vec<Finding>> {
        let files: BTreeMap<_, _> = files.into_iter().collect();
        let mut findings: Vec<_> = files
            .iter()
            .filter_map(|(name, text)| misplaced(name).or_else(|| oversized(name, text)))
            .collect();
        if files.len() > FILES_MAX {
            let text = format!("{} files, at most {FILES_MAX}", files.len());
            findings.push(Finding::new(
                "",
                None,
                "files",
                text,
                "put rules that belong together into one file",
            ));
        }
        if findings.is_empty() { Ok(Self { files }) } else { Err(findings) }
    }

    /// True for a name that a rules folder may hold.
    #[must_use]
    pub fn knows(name: &str) -> bool {
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\n', '\0']);
        plain
            && (name.ends_with(".cedar") || [RESOURCES, PRESETS, GATES].contains(&name) || is_examples(name))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.files.get(name).map(String::as_str)
    }

    /// The same folder with one file written anew or added.
    pub(crate) fn with(&self, name: &str, text: String) -> Result<Self, Vec<Finding>> {
        let mut files = self.files.clone();
        files.insert(name.to_owned(), text);
        Self::new(files)
    }

    pub(crate) fn cedar(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter(|(name, _)| name.ends_with(".cedar")).map(|(n, t)| (n.as_str(), t.as_str()))
    }

    pub(crate) fn examples(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().filter(|(name, _)| is_examples(name)).map(|(n, t)| (n.as_str(), t.as_str()))
    }

    /// All files, names and texts, ascending by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// SHA-256 over the listing of all files. The same files have the same digest wherever and however they were written.
    #[must_use]
    pub fn rules_digest(&self) -> RulesDigest {
        digest::of(self.files())
    }

    /// [`Self::rules_digest`] as people read it.
    #[must_use]
    pub fn digest(&self) -> String {
        self.rules_digest().to_string()
    }
}

fn is_examples(name: &str) -> bool {
    name == EXAMPLES || name.ends_with(".examples.toml")
}

fn misplaced(name: &str) -> Option<Finding> {
    (!Folder::knows(name)).then(|| {
        let text = format!("\"{}\" is no file of a rules folder", name.escape_default());
        let next = "expected *.cedar, resources.toml, presets.toml, gates.toml, examples.toml, *.examples.toml; rename or move it";
        Finding::new(name, None, "file", text, next)
    })
}

fn oversized(name: &str, text: &str) -> Option<Finding> {
    (text.len() > FILE_MAX).then(|| {
        let size = format!("{} bytes, at most {FILE_MAX}", text.len());
        Finding::new(name, None, "size", size, "split it into several files")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> Result<Folder, Vec<Finding>> {
        Folder::new(files.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())))
    }

    #[test]
    fn the_digest_depends_on_names_and_texts_and_not_on_their_order() {
        let one = folder(&[("a.cedar", "x"), ("b.cedar", "y")]).unwrap().digest();
        assert_eq!(one, folder(&[("b.cedar", "y"), ("a.cedar", "x")]).unwrap().digest());
        assert_eq!(one.len(), "sha256:".len() + 64);
        for other in [[("a.cedar", "y"), ("b.cedar", "x")], [("a.cedar", "x"), ("c.cedar", "y")]] {
            assert_ne!(one, folder(&other).unwrap().digest());
        }
    }

    #[test]
    fn files_that_are_too_large_or_that_nobody_would_read_are_found() {
        let large = "/".repeat(FILE_MAX + 1);
        let findings = folder(&[("a.cedar", &large), ("preset.toml", "")]).unwrap_err();
        assert_eq!(findings.iter().map(|f| f.code).collect::<Vec<_>>(), ["size", "file"]);
        assert!(findings[0].to_string().starts_with("a.cedar: 65537 bytes, at most 65536; split it"));
        assert!(folder(&[("team.examples.toml", ""), ("examples.toml", "")]).is_ok());
        let many: Vec<_> = (0..=FILES_MAX).map(|n| (format!("{n}.cedar"), String::new())).collect();
        assert_eq!(Folder::new(many).unwrap_err()[0].code, "files");
    }
}
