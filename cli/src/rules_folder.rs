//! Reads and writes a folder of rules.
//!
//! Never reads more than a folder of rules may hold, and never writes over anything.

use std::fs::{self, DirEntry, File};
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use avouch_rules::Finding;
use avouch_rules::limits::{FILE_MAX, FILES_MAX};

/// Files by name; or what is wrong with the folder before its texts are looked at.
pub type Read = Result<Vec<(String, String)>, (Option<String>, Vec<Finding>)>;

/// Reads all files but hidden ones.
pub fn read(path: &Path) -> Result<Read, String> {
    let failed = |e| format!("cannot read the folder {}: {e}", path.display());
    let (mut files, mut findings) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        // Enough is kept to be found too many.
        if files.len() > FILES_MAX {
            break;
        }
        match text(&entry)? {
            Some(text) => files.push((name, text)),
            None => findings.push(Finding {
                file: name,
                line: None,
                code: "file",
                text: "is no file with text in it".to_owned(),
                next: "take it out of the folder, or write it as UTF-8".to_owned(),
            }),
        }
    }
    Ok(if findings.is_empty() { Ok(files) } else { Err((None, findings)) })
}

/// The text of a file; nothing if it is none.
fn text(entry: &DirEntry) -> Result<Option<String>, String> {
    let path = entry.path();
    let failed = |e| format!("cannot read {}: {e}", path.display());
    if !fs::metadata(&path).map_err(failed)?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    // One byte more than allowed shows that it is too large.
    let most = FILE_MAX as u64 + 1;
    File::open(&path).and_then(|file| file.take(most).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) => Some(text),
        // A character that the cut went through: too large, which the check says.
        Err(e) if e.as_bytes().len() > FILE_MAX => Some(String::from_utf8_lossy(e.as_bytes()).into_owned()),
        Err(_) => None,
    })
}

/// Writes files to a folder that is new or empty.
pub fn write(path: &Path, files: &[(&str, &str)]) -> Result<(), String> {
    let failed = |e| format!("cannot write to {}: {e}", path.display());
    match fs::create_dir(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            if fs::read_dir(path).map_err(failed)?.next().is_some() {
                return Err(format!("{} is not empty; name a new folder", path.display()));
            }
        }
        other => other.map_err(failed)?,
    }
    for (name, text) in files {
        fs::write(path.join(name), text).map_err(failed)?;
    }
    Ok(())
}
